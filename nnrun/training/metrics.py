"""Metrics: scikit-learn's names and values, computed with torch where the outputs are; nothing here waits for the device.

A metric is a function of `Scored`, 0-d out, float64 where the device has it; with leading dimensions, such as many draws of the rows, one
value for each. The trait `task` says what it measures, `better` which way is up, and `interval` what its interval comes
from (`uncertainty.py`): a `share` of the rows, the `confusion` matrix, or the `rows` themselves, at `cost` times the usual work.

As in scikit-learn: a class that is in neither the targets nor the predictions does not count in a macro mean, 0/0 is 0, and several target
columns are averaged with equal weight. Where scikit-learn warns that a score is not defined, the value is nan: r2 of a single row,
roc_auc_ovr when a class is absent.

Shapes: N rows, K classes, T numbers to predict; before these, any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nnrun.errors import Fault, SpecError
from nnrun.lazy import torch
from nnrun.registry import METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.data.dataset import Task
    from nnrun.training.head import Head


@dataclass(frozen=True)
class Targets:
    """What follows from targets alone, made when first asked for: once for all the predictions that are held against them.

    Args:
        y: class numbers int64 (N,), or numbers (N, T).
    """

    y: Tensor

    @cached_property
    def exact(self) -> Tensor:
        """The target numbers (N, T), exact enough for sums over many rows."""
        return _exact(self.y)

    @cached_property
    def spread(self) -> tuple[Tensor, Tensor]:
        """Σ (y - mean)² of each target (T,), 1 where the target has one value only; and where it has, bool (T,)."""
        spread = ((self.exact - self.exact.mean(-2, keepdim=True)) ** 2).sum(-2)
        return torch.where(spread == 0, 1.0, spread), spread == 0


@dataclass(frozen=True)
class Scored:
    """Targets beside predictions, and what several metrics share, made when first asked for.

    Args:
        y: class numbers int64 (N,), or numbers (N, T).
        predicted: the same, as predicted.
        classes: K; 0 for numbers.
        make_probabilities: returns probabilities (N, K).
        counts: confusion matrices (K, K) to use in place of that of the rows.
        targets: what follows from `y` alone, where that has been found already.
    """

    y: Tensor
    predicted: Tensor
    classes: int = 0
    make_probabilities: Callable[[], Tensor] | None = None
    counts: Tensor | None = None
    targets: Targets | None = None

    @classmethod
    def of(cls, head: Head, output: Tensor, y: Tensor, targets: Targets | None = None) -> Scored:
        """Return the outputs (N, K) of a network beside the targets of its data."""
        return cls(y, head.predict(output), len(head.task.classes), lambda: head.probabilities(output), targets=targets)

    @cached_property
    def probabilities(self) -> Tensor:
        """The probability of each class (N, K)."""
        if self.make_probabilities is None:
            raise ValueError("these predictions came without probabilities")
        return _exact(self.make_probabilities())

    @cached_property
    def confusion(self) -> Tensor:
        """How many rows of class i were predicted as j (K, K). By scatter_add_, because bincount waits for the device."""
        if self.counts is not None:
            return self.counts
        cells, before = self.y * self.classes + self.predicted, self.y.shape[:-1]
        counts = torch.zeros(*before, self.classes**2, dtype=torch.int64, device=cells.device)
        return _exact(counts.scatter_add_(-1, cells, torch.ones_like(cells)).view(*before, self.classes, self.classes))

    @cached_property
    def hits(self) -> Tensor:
        """Rows of each class that were predicted right (K,)."""
        return self.confusion.diagonal(dim1=-2, dim2=-1)

    @cached_property
    def support(self) -> Tensor:
        """Rows of each class (K,)."""
        return self.confusion.sum(-1)

    @cached_property
    def chosen(self) -> Tensor:
        """Rows predicted as each class (K,)."""
        return self.confusion.sum(-2)

    @cached_property
    def truth(self) -> Targets:
        """What follows from the targets alone."""
        return self.targets or Targets(self.y)

    @cached_property
    def error(self) -> Tensor:
        """Target minus prediction (N, T)."""
        return self.truth.exact - _exact(self.predicted)

    @cached_property
    def left(self) -> Tensor:
        """Σ error² of each target (T,)."""
        return self.error.square().sum(-2)


def score(metrics: Sequence[str], scored: Scored) -> dict[str, Tensor]:
    """Return each metric, 0-d, on the device; {} when there are no rows."""
    return {name: METRICS[name].build(scored) for name in metrics} if len(scored.y) else {}


def default_metrics(task: Task) -> list[str]:
    """Return the metrics of a config that names none."""
    return ["accuracy"] if task.classes else ["rmse", "r2"]


def check_metrics(names: Sequence[str], task: Task) -> None:
    """Refuse metrics that measure something else than the task.

    Raises:
        SpecError: with one fault for each such metric.
    """
    fitting = ", ".join(name for name in METRICS if METRICS[name].traits["task"] == task.kind)
    target = f"{task.targets[0]!r} has {len(task.classes)} classes" if task.classes else f"{task.targets[0]!r} is a number"
    faults = [
        Fault(f"the metric {name!r} measures {METRICS[name].traits['task']}, and {target}", f"metrics for {task.kind}: {fitting}", at=at)
        for at, name in ((("metrics", number), name) for number, name in enumerate(names))
        if METRICS[name].traits["task"] != task.kind
    ]
    if faults:
        raise SpecError(faults)


@METRICS.register("accuracy", task="classes", better="higher", interval="share")
def accuracy(scored: Scored) -> Tensor:
    """The share of rows predicted right."""
    return _exact(scored.predicted == scored.y).mean(-1)


@METRICS.register("balanced_accuracy", task="classes", better="higher", interval="confusion")
def balanced_accuracy(scored: Scored) -> Tensor:
    """The mean over the classes of the share of their rows predicted right."""
    return _mean(_ratio(scored.hits, scored.support), scored.support > 0)


@METRICS.register("f1_macro", task="classes", better="higher", interval="confusion")
def f1_macro(scored: Scored) -> Tensor:
    """The mean over the classes of F1 = 2·hits / (rows + predictions)."""
    return _mean(_f1(scored), scored.support + scored.chosen > 0)


@METRICS.register("precision_macro", task="classes", better="higher", interval="confusion")
def precision_macro(scored: Scored) -> Tensor:
    """The mean over the classes of the share of their predictions that are right."""
    return _mean(_ratio(scored.hits, scored.chosen), scored.support + scored.chosen > 0)


@METRICS.register("recall_macro", task="classes", better="higher", interval="confusion")
def recall_macro(scored: Scored) -> Tensor:
    """The mean over the classes of the share of their rows that are found."""
    return _mean(_ratio(scored.hits, scored.support), scored.support + scored.chosen > 0)


@METRICS.register("f1_weighted", task="classes", better="higher", interval="confusion")
def f1_weighted(scored: Scored) -> Tensor:
    """F1 of the classes, weighted by their rows."""
    return (_f1(scored) * scored.support).sum(-1) / scored.support.sum(-1)


@METRICS.register("matthews_corrcoef", task="classes", better="higher", interval="confusion")
def matthews_corrcoef(scored: Scored) -> Tensor:
    """Matthews' correlation of targets and predictions, in -1 … 1; 0 is chance (Gorodkin, 2004)."""
    rows, hits = scored.support.sum(-1), scored.hits.sum(-1)
    both = hits * rows - (scored.support * scored.chosen).sum(-1)
    spread = (rows**2 - (scored.support**2).sum(-1)) * (rows**2 - (scored.chosen**2).sum(-1))
    return _ratio(both, spread.sqrt())


@METRICS.register("roc_auc_ovr", task="classes", better="higher", interval="rows", cost=16)
def roc_auc_ovr(scored: Scored) -> Tensor:
    """The area under the ROC curve, each class against the rest and then averaged; nan when a class is absent."""
    first = 1 if scored.classes == 2 else 0  # of two classes, the areas are equal
    scores_KN = scored.probabilities.movedim(-1, -2)[..., first:, :].contiguous()
    is_class_KN = _exact(scored.y[..., None, :] == torch.arange(first, scored.classes, device=scored.y.device)[:, None])
    # The area is the share of pairs in the right order, a tie half right: it follows from the ranks, of which equal scores have the mean.
    ordered_KN = scores_KN.sort(-1).values
    below, upto = (torch.searchsorted(ordered_KN, scores_KN, right=right) for right in (False, True))
    rows, others = is_class_KN.sum(-1), (1 - is_class_KN).sum(-1)
    won = (is_class_KN * (below + upto + 1)).sum(-1) / 2 - rows * (rows + 1) / 2
    known = (rows > 0) & (others > 0) & scores_KN.isfinite().all(-1)
    return torch.where(known, won / (rows * others), torch.nan).mean(-1)


@METRICS.register("log_loss", task="classes", better="lower", interval="rows")
def log_loss(scored: Scored) -> Tensor:
    """The mean of -log of the probability given to the right class, kept finite by clipping."""
    eps = torch.finfo(scored.probabilities.dtype).eps
    right = scored.probabilities.gather(-1, scored.y[..., None])
    return -right.clamp(eps, 1 - eps).log().mean((-2, -1))


@METRICS.register("top_k_accuracy", task="classes", better="higher", interval="share")
def top_k_accuracy(scored: Scored) -> Tensor:
    """The share of rows whose class is among the two most probable (scikit-learn's default, k = 2)."""
    probabilities = scored.probabilities
    right = probabilities.gather(-1, scored.y[..., None])
    later = torch.arange(scored.classes, device=scored.y.device) > scored.y[..., None]
    ahead = (probabilities > right) | ((probabilities == right) & later)  # a tie goes to the later class, as in scikit-learn
    return _exact(ahead.sum(-1) < 2).mean(-1)


@METRICS.register("r2", task="numbers", better="higher", interval="rows")
def r2(scored: Scored) -> Tensor:
    """The share of the variance that is explained, 1 - Σ error² / Σ (y - mean)²; nan for a single row."""
    if scored.y.shape[-2] < 2:
        return scored.truth.exact.new_full(scored.y.shape[:-2], torch.nan)
    return _explained(scored.left, *scored.truth.spread)


@METRICS.register("explained_variance", task="numbers", better="higher", interval="rows")
def explained_variance(scored: Scored) -> Tensor:
    """1 - the variance of the errors over that of the targets: r2 that forgives a constant offset."""
    whole, constant = scored.truth.spread
    return _explained(scored.error.var(-2, correction=0) * scored.y.shape[-2], whole, constant)


@METRICS.register("mae", task="numbers", better="lower", interval="rows")
def mae(scored: Scored) -> Tensor:
    """The mean absolute error, in the unit of the target."""
    return scored.error.abs().mean((-2, -1))


@METRICS.register("mse", task="numbers", better="lower", interval="rows")
def mse(scored: Scored) -> Tensor:
    """The mean squared error."""
    return (scored.error**2).mean((-2, -1))


@METRICS.register("rmse", task="numbers", better="lower", interval="rows")
def rmse(scored: Scored) -> Tensor:
    """The root of the mean squared error, in the unit of the target; the mean of the roots over several targets."""
    return _over_targets((scored.left / scored.y.shape[-2]).sqrt())


@METRICS.register("mape", task="numbers", better="lower", interval="rows")
def mape(scored: Scored) -> Tensor:
    """The mean of |error| / |y|, as a share: 0.1 is 10 %. Huge where targets are near 0."""
    return (scored.error.abs() / scored.truth.exact.abs().clamp(min=torch.finfo(torch.float64).eps)).mean((-2, -1))


@METRICS.register("max_error", task="numbers", better="lower", interval="rows")
def max_error(scored: Scored) -> Tensor:
    """The largest absolute error, in the unit of the target; the mean of the largest ones over several targets."""
    return _over_targets(scored.error.abs().amax(-2))


def _exact(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()  # MPS has no float64


def _over_targets(value_T: Tensor) -> Tensor:
    return value_T.mean(-1) if value_T.shape[-1] > 1 else value_T[..., 0]


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return above / below, and 0 where below is 0."""
    return torch.where(below == 0, 0.0, above / torch.where(below == 0, 1.0, below))


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values, 0.0).sum(-1) / counted.sum(-1)


def _f1(scored: Scored) -> Tensor:
    return _ratio(2 * scored.hits, scored.support + scored.chosen)


def _explained(left: Tensor, whole: Tensor, constant: Tensor) -> Tensor:
    """Return the mean over targets of 1 - left / whole; for constant targets 1 when nothing is left, else 0, as in scikit-learn."""
    return _over_targets(torch.where(constant, (left == 0).to(left.dtype), 1 - left / whole))
