"""How sure a figure is: 95 % intervals, and whether two networks differ on the same rows.

A share of rows has Wilson's interval. For other figures the rows are drawn again with replacement, many times, and the middle 95 % of what
comes out is the interval; where the confusion matrix is enough, its cells are drawn instead. The draws have a stream of their own, which
always begins alike: the same predictions have the same intervals, and torch's own stream stays where it is. All is done on the CPU.

Shapes: N rows, K classes, T numbers to predict, B draws, C cells of a confusion matrix that hold any row.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from nnrun.registry import METRICS
from nnrun.training.head import Head
from nnrun.training.loss_modules import row_losses
from nnrun.training.metrics import Scored

Interval = tuple[float, float]

Z = 1.959963984540054
"""Half the width of the middle 95 % of a normal distribution, in deviations."""
TAILS = (0.025, 0.975)
MOST_DRAWS, FEWEST_DRAWS = 1000, 200
WORK = 20_000_000
"""Numbers that all draws of one figure may look at: a fraction of a second. More rows are drawn less often, down to `FEWEST_DRAWS`."""
AT_ONCE = 2_000_000
CHANCE = 0.05
"""A difference that chance makes more often than this may be chance."""


def wilson(hits: int, rows: int) -> Interval:
    """Return Wilson's 95 % interval of a share."""
    centre, half = hits + Z**2 / 2, Z * math.sqrt(hits * (rows - hits) / rows + Z**2 / 4)
    low, high = (centre - half) / (rows + Z**2), (centre + half) / (rows + Z**2)
    return low if hits else 0.0, high if hits < rows else 1.0


def intervals(output_NK: Tensor, y: Tensor, loss_fn: nn.Module, head: Head, metrics: Sequence[str]) -> dict[str, Interval]:
    """Return name → 95 % interval of the loss and of each metric."""
    output_NK, y = output_NK.cpu(), y.cpu()
    scored = Scored.of(head, output_NK, y)
    found = {"loss": _of_loss(output_NK, head.encode(y), copy.deepcopy(loss_fn).cpu())}
    for name in metrics:
        kind = METRICS[name].traits.get("interval")
        if kind == "share":
            found[name] = wilson(round(float(METRICS[name].build(scored)) * len(y)), len(y))
        elif kind == "confusion":
            found[name] = _middle(torch.cat([METRICS[name].build(drawn) for drawn in _counts_again(scored)]))
        else:
            found[name] = _around(float(METRICS[name].build(scored)), _figures_again(name, [scored])[0], len(y), _width(name, scored))
    return found


@dataclass(frozen=True)
class Difference:
    """What a paired test says of two networks on the same rows.

    Args:
        test: `mcnemar`, exact, on which rows each has right; or `bootstrap`, of the difference of a metric.
        p: how often chance alone makes a difference as large.
        value: the first one's figure minus the second one's.
        interval: of `value`; None with McNemar's test.
        only: rows that only the first, and only the second, has right; None with the bootstrap.
    """

    test: str
    p: float
    value: float
    interval: Interval | None = None
    only: tuple[int, int] | None = None

    @property
    def real(self) -> bool:
        """Whether it is more than chance would make."""
        return self.p < CHANCE


def difference(metric: str, first: Scored, second: Scored) -> Difference:
    """Return how two networks differ by a metric on the same rows, of which `y` is the same."""
    value = float(METRICS[metric].build(first)) - float(METRICS[metric].build(second))
    if metric == "accuracy":
        right, other = first.predicted == first.y, second.predicted == second.y
        only = int((right & ~other).sum()), int((other & ~right).sum())
        return Difference("mcnemar", mcnemar(*only), value, only=only)
    one, two = _figures_again(metric, [first, second])
    differences = one - two
    tail = min(float((differences <= 0).double().mean()), float((differences >= 0).double().mean()))
    # N rows can fall on one side by chance alone in one of 2^(N-1) cases, however narrow the draws are.
    p = min(1.0, max(2 * tail, 2 / len(differences), 2.0 ** (1 - len(first.y))))
    return Difference("bootstrap", p, value, _around(value, differences, len(first.y), _width(metric, first)))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p: how often as many tosses of a coin fall at least as unevenly."""
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    ways = (math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) for k in range(fewer + 1))
    return min(1.0, 2 * sum(math.exp(way - tosses * math.log(2)) for way in ways))


def _of_loss(output_NK: Tensor, target: Tensor, loss_fn: nn.Module) -> Interval:
    """Draw the losses of rows; or, where the loss is not their mean, the rows, one draw at a time."""
    count, width = output_NK.shape
    with torch.inference_mode():
        value, losses_N = float(loss_fn(output_NK, target)), row_losses(loss_fn, output_NK, target)
        if losses_N is not None:
            return _around(value, torch.cat([losses_N[rows_BN].mean(1) for rows_BN in _rows_again(count, 1)]), count, 1)
        drawn = [loss_fn(output_NK[rows], target[rows]) for rows_BN in _rows_again(count, width) for rows in rows_BN]
        return _around(value, torch.stack(drawn).double(), count, width)


def _figures_again(name: str, networks: Sequence[Scored]) -> list[Tensor]:
    """Return a metric of each network (B,), every draw of rows being the same for all of them."""
    drawn: list[list[Tensor]] = [[] for _ in networks]
    for rows_BN in _rows_again(len(networks[0].y), _width(name, networks[0])):
        for scored, figures in zip(networks, drawn, strict=True):
            if "interval" in METRICS[name].traits:
                figures.append(METRICS[name].build(_rows_of(scored, rows_BN)))
            else:  # of a plug-in, which need not take many draws at once
                figures.append(torch.stack([METRICS[name].build(_rows_of(scored, rows_N)) for rows_N in rows_BN]))
    return [torch.cat(figures) for figures in drawn]


def _rows_of(scored: Scored, rows_BN: Tensor) -> Scored:
    make = (lambda: scored.probabilities[rows_BN]) if scored.make_probabilities else None
    return Scored(scored.y[rows_BN], scored.predicted[rows_BN], scored.classes, make)


def _width(name: str, scored: Scored) -> int:
    """Return how many numbers of a row a metric is made of; one that costs more counts them more often."""
    return (scored.classes or scored.y.shape[-1]) * int(METRICS[name].traits.get("cost", 1))


def _drawn_rows(rows: int, width: int) -> int:
    """Return how many rows a draw has: all, or as many as `WORK` allows."""
    return min(rows, max(1, WORK // (FEWEST_DRAWS * width)))


def _rows_again(rows: int, width: int) -> Iterator[Tensor]:
    """Yield row numbers, drawn with replacement (b, N), until there are enough draws; b is what memory allows."""
    generator, drawn_rows = torch.Generator().manual_seed(0), _drawn_rows(rows, width)
    left = _draws(drawn_rows * width)
    while left:
        some = min(left, max(1, AT_ONCE // (drawn_rows * width)))
        yield torch.randint(rows, (some, drawn_rows), generator=generator)
        left -= some


def _counts_again(scored: Scored) -> Iterator[Scored]:
    """Yield confusion matrices (b, K, K) of as many rows, drawn cell by cell, until there are enough draws."""
    stream, matrix_KK = np.random.default_rng(0), scored.confusion
    cells_C = matrix_KK.flatten().nonzero()[:, 0]
    counts_C = matrix_KK.flatten()[cells_C]
    rows, left = int(counts_C.sum()), _draws(matrix_KK.numel())
    while left:
        some = min(left, max(1, AT_ONCE // matrix_KK.numel()))
        drawn = torch.from_numpy(stream.multinomial(rows, (counts_C / counts_C.sum()).numpy(), size=some)).double()
        counts = torch.zeros(some, matrix_KK.numel(), dtype=torch.float64).index_copy_(1, cells_C, drawn)
        yield replace(scored, counts=counts.view(some, *matrix_KK.shape))
        left -= some


def _draws(numbers: int) -> int:
    return min(MOST_DRAWS, max(FEWEST_DRAWS, WORK // numbers))


def _around(value: float, drawn_B: Tensor, rows: int, width: int) -> Interval:
    """Return the interval; draws of fewer rows than there are stray further from the figure, by the root of how many fewer."""
    return _middle(value + (drawn_B - value) * math.sqrt(_drawn_rows(rows, width) / rows) if _drawn_rows(rows, width) < rows else drawn_B)


def _middle(drawn_B: Tensor) -> Interval:
    """Return what 95 % of the draws lie between; draws in which the figure is not defined do not count."""
    low, high = torch.nanquantile(drawn_B.double(), torch.tensor(TAILS, dtype=torch.float64)).tolist()
    return low, high
