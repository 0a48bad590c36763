"""What a score has to beat: guessing, and a linear model, on the same prepared rows.

`majority` and `mean` answer what the training rows say most often, or on average. `logistic_regression` and `ridge` have scikit-learn's
objective and defaults (C = 1, alpha = 1) on standardised inputs, as its `make_pipeline(StandardScaler(), …)`; both have one minimum, so
torch finds scikit-learn's numbers without its import, which would cost more than most fits. All of it is done on the CPU in float64.

Shapes: N rows, D numbers of a row when flattened, K classes, C columns of scores, T numbers to predict.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nnrun.data.dataset import Rows, Task
from nnrun.data.source import RowSource, blocks, joined
from nnrun.training.loop import stream_seed
from nnrun.training.metrics import Scored

WORK = 5_000_000_000
"""Multiply-adds that the fit of a linear model may cost at least: about a second. Of more rows, as many as that allows are drawn."""
PASSES = 200
"""Forward and backward passes that a logistic regression takes at most, or nearly."""
FEWEST = 100
"""Of a larger part, fewer rows than this are no fair fit: the linear model is left out."""
MOST_VALUES = 4_000_000
"""Of inputs that are not in memory, so many are brought there for a fit."""


@dataclass(frozen=True)
class Baseline:
    """One baseline, and what it makes of the rows that are reported.

    Args:
        fitted_rows: how many of the training rows it has seen.
        seconds: what the fit and the prediction took.
    """

    name: str
    scored: Scored
    fitted_rows: int
    seconds: float


def make_baselines(task: Task, train: Rows, reported: Rows, seed: int, work: int = 0) -> list[Baseline]:
    """Return the guess and the linear model for a task, fitted on prepared training rows, beside the targets of the reported part.

    Args:
        seed: draws the rows of the fit when there are too many; nothing else is random, and torch's own stream stays where it is.
        work: multiply-adds that the fit may cost, when they are more than `WORK`.
    """
    made = [_guess(task, train, reported)]
    x, y, columns = train.x, train.y, math.prod(train.x.shape[1:])
    rows = _affordable(len(x), columns, len(task.classes), max(work, WORK))
    if isinstance(x, RowSource):
        rows = min(rows, max(MOST_VALUES // columns, FEWEST))
    if rows == len(x) or rows >= FEWEST:
        started = time.perf_counter()
        if rows < len(x):
            drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(stream_seed(seed, "baseline")))[:rows].to(x.device)
            x, y = x[drawn], y[drawn]
        x_ND, y = x[:].flatten(1).cpu().double(), y.cpu()
        deviation, mean = torch.std_mean(x_ND, 0, correction=0)
        deviation = torch.where(deviation > 1e-9 * mean.abs(), deviation, 1.0)  # a constant column, but for rounding
        x_ND.sub_(mean).div_(deviation)
        weights = _logistic(x_ND, y, len(task.classes)) if task.classes else _ridge(x_ND, y.double())
        raw = (x_B.flatten(1).cpu().double() for x_B in blocks(reported.x))
        scores = joined((_linear((x_BD - mean) / deviation, weights) for x_BD in raw), len(reported))
        name = "logistic_regression" if task.classes else "ridge"
        made.append(Baseline(name, _scored(task, scores, reported.y.cpu()), rows, time.perf_counter() - started))
    return made


def _guess(task: Task, train: Rows, reported: Rows) -> Baseline:
    started = time.perf_counter()
    y = train.y.cpu()
    if task.classes:
        likely = torch.bincount(y, minlength=len(task.classes)).double().log()
        scores = likely.expand(len(reported), -1)
    else:
        scores = y.double().mean(0).expand(len(reported), -1)
    scored = _scored(task, scores, reported.y.cpu())
    return Baseline("majority" if task.classes else "mean", scored, len(y), time.perf_counter() - started)


def _scored(task: Task, scores: Tensor, y: Tensor) -> Scored:
    """Return scores (N, K), logarithms of probabilities up to a constant, or predicted numbers (N, T), beside their targets."""
    return Scored(y, scores.argmax(1), len(task.classes), lambda: scores.softmax(1)) if task.classes else Scored(y, scores)


def _affordable(rows: int, columns: int, classes: int, work: int) -> int:
    """Return how many rows can be fitted with so many multiply-adds."""
    if classes:
        scores = 1 if classes == 2 else classes
        return min(rows, work // (PASSES * scores * (columns + 100)))  # an exponential costs as much as many products
    # rows · columns · the smaller of the two: the normal equations have its size
    return min(rows, max(work // columns**2 if work // columns**2 > columns else math.isqrt(work // columns), 1))


def _linear(x_ND: Tensor, weights: Tensor) -> Tensor:
    """Return the scores (N, C) of weights (D + 1, C), the last row of which is the intercept."""
    return x_ND @ weights[:-1] + weights[-1]


def _ridge(x_ND: Tensor, y_NT: Tensor) -> Tensor:
    """Return weights (D + 1, T) that minimise Σ error² + |weights|², the intercept aside, for inputs whose mean is 0."""
    mean = y_NT.mean(0)
    rows, columns = x_ND.shape
    if columns <= rows:
        weights = torch.linalg.solve(x_ND.T @ x_ND + torch.eye(columns, dtype=x_ND.dtype), x_ND.T @ (y_NT - mean))
    else:  # the same minimum, by an equation of the size of the rows
        weights = x_ND.T @ torch.linalg.solve(x_ND @ x_ND.T + torch.eye(rows, dtype=x_ND.dtype), y_NT - mean)
    return torch.cat([weights, mean[None]])


def _logistic(x_ND: Tensor, y: Tensor, classes: int) -> Tensor:
    """Return weights (D + 1, K) that minimise Σ -log p(right class) + |weights|² / 2, the intercepts aside."""
    rows, columns = x_ND.shape
    weights = torch.zeros(columns + 1, 1 if classes == 2 else classes, dtype=x_ND.dtype, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights], max_iter=PASSES // 2, tolerance_grad=1e-6, tolerance_change=1e-12, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(_paired(_linear(x_ND, weights)), y) + weights[:-1].square().sum() / (2 * rows)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(closure)  # type: ignore[no-untyped-call]
    return _paired(weights.detach())


def _paired(scores: Tensor) -> Tensor:
    """Return the scores (…, K) of two classes that have one between them: the first class has 0; others as they are."""
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores
