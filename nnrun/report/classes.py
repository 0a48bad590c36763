"""How well classes are told apart: confusion, a row for each class, ROC and precision-recall, reliability.

Shapes: N rows, K classes. Curves and areas are scikit-learn's, made here of a few sums: its import would cost more than the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrun.report.style import Plot, axes, look, png, short

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MOST_LINES = 6  # curves in one plot
MOST_CELLS = 20  # classes up to which a cell of the confusion matrix holds its count and its share
LARGEST = 8  # mistakes that are told in words beyond that
MOST_NAMES = 40  # classes up to which its axes hold their names
POINTS = 400  # of a curve that are drawn
BINS = 10


@dataclass(frozen=True)
class Judged:
    """Classes beside what the network says of them.

    Args:
        part: train, val or test.
        y: class numbers (N,).
        predicted: class numbers (N,).
        probabilities: (N, K), in float64.
        calibrated: whether the loss is one of probabilities.
    """

    part: str
    classes: tuple[str, ...]
    y: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probabilities: Floats
    calibrated: bool = True

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """How many rows of class i were predicted as j (K, K)."""
        K = len(self.classes)
        return np.bincount(self.y * K + self.predicted, minlength=K * K).reshape(K, K)

    @cached_property
    def sweeps(self) -> dict[int, Sweep]:
        """Class → its curves, for each class that is in the part and is not all of it; of two classes only the second, the positive one."""
        shown = (1,) if len(self.classes) == 2 else range(len(self.classes))
        return {k: sweep(self.y == k, self.probabilities[:, k]) for k in shown if 0 < (self.y == k).sum() < len(self.y)}


@dataclass(frozen=True)
class Sweep:
    """ROC and precision-recall of one class against the rest, from the strictest threshold to none, with their areas."""

    false_rate: Floats
    true_rate: Floats
    precision: Floats
    roc_area: float
    average_precision: float


def sweep(positive: npt.NDArray[np.bool_], score: Floats) -> Sweep:
    """Return the curves over every threshold; rows of equal score are taken together.

    Args:
        positive: (N,), some true and some false.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[last].astype(np.float64)
    chosen = last + 1.0
    true_rate = np.append(0.0, hits / hits[-1])
    false_rate = np.append(0.0, (chosen - hits) / (chosen[-1] - hits[-1]))
    precision = np.append(1.0, hits / chosen)
    area = float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2))
    return Sweep(false_rate, true_rate, precision, area, float(np.sum(np.diff(true_rate) * precision[1:])))


def class_plots(judged: Judged) -> list[Plot]:
    """Return the plots of one part."""
    curves = [_roc(judged), _precision_recall(judged)] if judged.sweeps else []
    return [_confusion(judged), *curves, _reliability(judged)]


def class_table(judged: Judged) -> list[dict[str, Any]]:
    """Return a row for each class: how often it is true, how often predicted, and how right that was; None where it is not defined."""
    rows, given, hits = judged.confusion.sum(1), judged.confusion.sum(0), judged.confusion.diagonal()
    table = []
    for k, name in enumerate(judged.classes):
        found = judged.sweeps.get(k)
        table.append(
            {
                "class": name,
                "rows": int(rows[k]),
                "predicted": int(given[k]),
                "precision": hits[k] / given[k] if given[k] else None,
                "recall": hits[k] / rows[k] if rows[k] else None,
                "f1": 2 * hits[k] / (rows[k] + given[k]) if rows[k] + given[k] else None,
                "ROC area": found.roc_area if found else None,
                "average precision": found.average_precision if found else None,
            }
        )
    return table


def calibration(judged: Judged) -> tuple[Floats, Floats, Floats, float]:
    """Return of each tenth of confidence its rows, its mean confidence and its accuracy (10,), and the expected calibration error."""
    confidence = judged.probabilities.max(1)
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    rows = np.bincount(place, minlength=BINS).astype(np.float64)
    each = np.maximum(rows, 1)
    said = np.bincount(place, confidence, BINS) / each
    right = np.bincount(place, (judged.predicted == judged.y).astype(np.float64), BINS) / each
    return rows, said, right, float(np.sum(rows * np.abs(said - right)) / rows.sum())


def _confusion(judged: Judged) -> Plot:
    K, counts = len(judged.classes), judged.confusion
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(2.6 + 0.55 * K, 12.0)
    figure, (axis,) = axes(side + 0.8, side)
    axis.grid(visible=False)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(K, K) if K <= MOST_CELLS else ():
        told = f"{counts[i, j]}\n{share[i, j]:.0%}" if counts[i, j] else "0"
        colour = "white" if share[i, j] > 0.65 else "black"
        axis.text(j, i, told, ha="center", va="center", fontsize=8, color=colour, in_layout=False)
    if K <= MOST_NAMES:
        names = [short(name, 16) for name in judged.classes]
        axis.set_xticks(range(K), names, rotation=45 if K > 3 else 0, ha="right" if K > 3 else "center")
        axis.set_yticks(range(K), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    caption = "Each cell: rows, and their share of the rows of that true class." if K <= MOST_CELLS else _largest(judged, share)
    return Plot("confusion", f"Confusion matrix, {judged.part}", caption, png(figure), wide=K > 6)


def _largest(judged: Judged, share: Floats) -> str:
    """Return in words the cells off the diagonal with the most rows, when there are too many cells for numbers."""
    wrong = judged.confusion - np.diag(judged.confusion.diagonal())
    cells = [divmod(int(cell), len(wrong)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:LARGEST]]
    names = [short(name, 40) for name in judged.classes]
    told = [f"{names[i]} as {names[j]} ({wrong[i, j]} rows, {share[i, j]:.0%})" for i, j in cells if wrong[i, j]]
    return f"Dark is a large share of the true class. Most often taken: {'; '.join(told) or 'none'}."


def _roc(judged: Judged) -> Plot:
    figure, (axis,) = axes(5.2, 4.4)
    axis.plot([0, 1], [0, 1], color="#888888", linewidth=1)
    shown = sorted(judged.sweeps, key=lambda k: judged.sweeps[k].roc_area)[:MOST_LINES]
    for number, k in enumerate(sorted(shown)):
        found = judged.sweeps[k]
        label = f"{found.roc_area:.3f}  {short(judged.classes[k])}"
        _curve(axis, found.false_rate, found.true_rate, number, label)
    axis.set_xlabel("false positive rate")
    axis.set_ylabel("true positive rate")
    axis.legend(title="area", loc="lower right")
    return Plot("roc", f"ROC, {judged.part}", _against(judged) + " The grey line is chance.", png(figure))


def _precision_recall(judged: Judged) -> Plot:
    figure, (axis,) = axes(5.2, 4.4)
    shown = sorted(judged.sweeps, key=lambda k: judged.sweeps[k].average_precision)[:MOST_LINES]
    for number, k in enumerate(sorted(shown)):
        found = judged.sweeps[k]
        label = f"{found.average_precision:.3f}  {short(judged.classes[k])}"
        _curve(axis, found.true_rate, found.precision, number, label)
    axis.set_ylim(-0.02, 1.04)
    axis.set_xlabel("recall")
    axis.set_ylabel("precision")
    axis.legend(title="average precision", loc="lower left")
    return Plot("precision_recall", f"Precision and recall, {judged.part}", _against(judged), png(figure))


def _curve(axis: Any, x: Floats, y: Floats, number: int, label: str) -> None:
    picked = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int))
    axis.plot(x[picked], y[picked], **look(number), markevery=(number / 40, 0.25), label=label, drawstyle="default")


def _against(judged: Judged) -> str:
    if len(judged.classes) == 2:
        return f"Rows of {short(judged.classes[1], 40)} against the others, over all thresholds."
    left = f" Drawn are the {MOST_LINES} classes with the smallest area." if len(judged.sweeps) > MOST_LINES else ""
    return f"Each class against the rest, over all thresholds.{left}"


def _reliability(judged: Judged) -> Plot:
    rows, said, right, error = calibration(judged)
    figure, (above, below) = axes(5.2, 4.4, rows=2, sharex=True, height_ratios=[3, 1])
    filled = rows > 0
    above.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="as sure as right")
    above.plot(said[filled], right[filled], **look(0), label=f"{judged.part}, calibration error {error:.3f}")
    above.set_ylabel("share that is right")
    above.set_ylim(-0.02, 1.04)
    above.legend()
    below.bar((np.arange(BINS) + 0.5) / BINS, rows, width=0.9 / BINS, color="#999999")
    below.set_ylabel("rows")
    below.set_xlabel("probability given to the predicted class")
    below.set_xlim(0, 1)
    caption = "Below the line the network is surer than it is right. The calibration error is the mean distance, weighted by rows."
    if not judged.calibrated:
        caption += " The loss is not one of probabilities: these are the softmax of its scores."
    return Plot("reliability", f"Reliability, {judged.part}", caption, png(figure))
