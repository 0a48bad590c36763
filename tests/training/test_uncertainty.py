"""Intervals and paired tests: scipy's numbers without its import, quick enough for any size, always the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import nnrun.builtin  # noqa: F401
from nnrun.data.dataset import Task
from nnrun.registry import LOSSES, METRICS
from nnrun.spec.parts import part_class
from nnrun.training import uncertainty
from nnrun.training.head import Head, head_for
from nnrun.training.loss_modules import row_losses
from nnrun.training.metrics import Scored
from nnrun.training.uncertainty import difference, intervals, mcnemar, wilson


def head(classes: int) -> Head:
    task = Task(("y",), tuple(map(str, range(classes))))
    return head_for(part_class(LOSSES, "cross_entropy" if classes else "mse").model_validate({}), task)


def guessed(rows: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs (N, K) that are mostly right, and the class numbers."""
    generator = torch.Generator().manual_seed(rows)
    y = torch.randint(classes, (rows,), generator=generator)
    output = torch.randn(rows, classes, generator=generator)
    output[torch.arange(rows), y] += 1.5
    return output, y


@pytest.mark.parametrize("rows", [1, 2, 50, 10_000])
def test_wilson_is_that_of_scipy(rows: int):
    """For none right, one, nearly all, all."""
    for hits in {0, 1, rows // 2, rows - 1, rows}:
        theirs = stats.binomtest(hits, rows).proportion_ci(method="wilson")
        assert wilson(hits, rows) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_mcnemar_is_scipy_s_binomial_test():
    """Two-sided and exact; with thousands of rows too; no difference is no evidence."""
    for only in ((0, 0), (0, 1), (3, 1), (18, 0), (5, 5), (4100, 4300)):
        wanted = stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
        assert mcnemar(*only) == pytest.approx(wanted, rel=1e-9)


OF_CLASSES = [name for name in METRICS if METRICS[name].traits["task"] == "classes"]
OF_NUMBERS = [name for name in METRICS if METRICS[name].traits["task"] == "numbers"]


@pytest.mark.parametrize("name", [name for name in OF_CLASSES if METRICS[name].traits["interval"] != "share"])
def test_intervals_of_classes_are_those_of_scipy_s_bootstrap(name: str):
    """scipy draws rows; drawing cells of the confusion matrix comes to the same, but for the luck of a thousand draws."""
    output, y = guessed(150, 3)

    def figure(rows: np.ndarray) -> float:
        drawn = torch.tensor(rows)
        return float(METRICS[name].build(Scored.of(head(3), output[drawn], y[drawn])))

    theirs = stats.bootstrap((np.arange(150),), figure, n_resamples=1000, method="percentile", vectorized=False, rng=1).confidence_interval
    low, high = intervals(output, y, nn.CrossEntropyLoss(), head(3), [name])[name]
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.12 * width)
    assert high == pytest.approx(theirs.high, abs=0.12 * width)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_intervals_of_numbers_hold_the_figure(name: str):
    """The middle of the draws is about the figure; the same outputs have the same interval, and torch's stream stays where it is."""
    y = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    output = y + 0.3 * torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
    two = head_for(part_class(LOSSES, "mse").model_validate({}), Task(("a", "b")))
    before = torch.get_rng_state()
    found = intervals(output, y, nn.MSELoss(), two, [name])
    assert torch.equal(before, torch.get_rng_state())
    assert found == intervals(output, y, nn.MSELoss(), two, [name])
    assert found[name][0] <= float(METRICS[name].build(Scored.of(two, output, y))) <= found[name][1]
    assert found["loss"][0] < float(nn.MSELoss()(output, y)) < found["loss"][1]


@pytest.mark.parametrize("name", ["rmse", "r2", "mae"])
def test_large_parts_are_drawn_in_part(name: str, monkeypatch: pytest.MonkeyPatch):
    """With a tenth of the work allowed, fewer rows are drawn each time, and the interval is still about as wide."""
    y = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    output = y + torch.randn(4000, 1, generator=torch.Generator().manual_seed(1))
    whole = intervals(output, y, nn.MSELoss(), head(0), [name])[name]
    monkeypatch.setattr(uncertainty, "WORK", 80_000)
    monkeypatch.setattr(uncertainty, "AT_ONCE", 1_000)
    part = intervals(output, y, nn.MSELoss(), head(0), [name])[name]
    assert part != whole
    assert part[1] - part[0] == pytest.approx(whole[1] - whole[0], rel=0.25)
    assert part == pytest.approx(whole, abs=0.3 * (whole[1] - whole[0]))


def test_the_loss_s_interval_weighs_rows_as_the_loss_does():
    """A weighted cross-entropy is no mean over rows, and each draw goes through the loss itself."""
    output, y = guessed(80, 3)
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 10.0]))
    low, high = intervals(output, y, loss_fn, head(3), [])["loss"]
    assert low < float(loss_fn(output, y)) < high
    assert (low, high) != intervals(output, y, nn.CrossEntropyLoss(), head(3), [])["loss"]


@pytest.mark.parametrize("weight", [None, [0.1, 1.0, 10.0]])
@pytest.mark.parametrize("loss", ["cross_entropy", "nll", "multi_margin", "bce_with_logits", "kl_div"])
def test_losses_of_rows_are_drawn_as_the_loss_of_drawn_rows(loss: str, weight: list[float] | None, monkeypatch: pytest.MonkeyPatch):
    """Where a loss is their mean it is worked out once, and not once a draw; the interval is the same."""
    takes = {"weight": weight} if weight and loss in ("cross_entropy", "nll", "multi_margin") else {}
    part = part_class(LOSSES, loss).model_validate(takes)
    made, loss_fn = head_for(part, Task(("y",), ("a", "b", "c"))), part.build()
    output, y = guessed(200, 3)
    known = row_losses(loss_fn, output, made.encode(y))
    assert (known is None) == (bool(takes) and loss != "multi_margin")  # that one is a mean, though it has weights
    quick = intervals(output, y, loss_fn, made, [])["loss"]
    monkeypatch.setattr(uncertainty, "row_losses", lambda *given: None)
    assert quick == pytest.approx(intervals(output, y, loss_fn, made, [])["loss"], rel=1e-5)


def test_paired_rows_tell_more_than_two_intervals():
    """A small lead on every row is real, though the intervals of the two overlap widely."""
    y = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    error = torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    ahead, behind = Scored(y, y + 0.9 * error), Scored(y, y + error)
    lead = difference("rmse", ahead, behind)
    assert (lead.test, lead.real, lead.value < 0) == ("bootstrap", True, True)
    assert lead.interval is not None
    assert lead.interval[0] < lead.value < lead.interval[1] < 0
    assert not difference("rmse", ahead, ahead).real


def test_a_few_rows_prove_nothing():
    """Five rows fall on one side by chance alone in one of sixteen cases, whatever the draws say; six may be evidence."""
    y = torch.arange(6.0)[:, None]
    for rows, real in ((2, False), (5, False), (6, True)):
        lead = difference("mae", Scored(y[:rows], y[:rows]), Scored(y[:rows], y[:rows] + 1))
        assert (lead.real, lead.p) == (real, 2.0 ** (1 - rows))


def test_what_is_not_defined_has_no_interval():
    """The area of a class that is absent is nan, and so are its bounds."""
    output, y = guessed(20, 2)
    found = intervals(output, torch.zeros_like(y), nn.CrossEntropyLoss(), head(2), ["roc_auc_ovr"])
    assert all(map(math.isnan, found["roc_auc_ovr"]))
