"""How well numbers are predicted: predicted against true, residuals, and the line itself when there is one input.

Shapes: N rows, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrun.report.style import COLOURS, MARKERS, Plot, axes, png, short

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MOST_POINTS = 4000
MOST_TARGETS = 4
MANY = 300  # points that are drawn smaller


@dataclass(frozen=True)
class Numbers:
    """Numbers beside what the network says: y and predicted are (N, T), in the unit of the target."""

    part: str
    targets: tuple[str, ...]
    y: Floats
    predicted: Floats


@dataclass(frozen=True)
class Line:
    """A network of one input as a line, with the data: x and y are (N,) for each part, in the data's own units."""

    column: str
    target: str
    parts: Mapping[str, tuple[Floats, Floats]]
    x: Floats
    predicted: Floats


def number_plots(numbers: Numbers) -> list[Plot]:
    """Return the plots of one part; rows whose prediction is not finite are left out."""
    finite = np.all(np.isfinite(numbers.predicted), axis=1)
    rows = thinned(np.flatnonzero(finite))
    if not len(rows):
        return []
    y, predicted = numbers.y[rows], numbers.predicted[rows]
    left_out = len(finite) - int(finite.sum())
    told = f" {left_out} rows with a prediction that is not finite are left out." if left_out else ""
    told += f" Drawn are {len(rows)} of {int(finite.sum())} rows, evenly spread." if len(rows) < finite.sum() else ""
    names = numbers.targets[:MOST_TARGETS]
    told += f" The first {MOST_TARGETS} of {len(numbers.targets)} targets." if len(numbers.targets) > MOST_TARGETS else ""
    return [_predicted(numbers.part, names, y, predicted, told), _residuals(numbers.part, names, y, predicted, told)]


def thinned(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return at most as many rows as a scatter plot can show, evenly spread."""
    return rows if len(rows) <= MOST_POINTS else rows[np.linspace(0, len(rows) - 1, MOST_POINTS).astype(int)]


def _spots(points: int) -> dict[str, Any]:
    return {"s": 12 if points > MANY else 26, "alpha": 0.6, "linewidths": 0}


def line_plot(line: Line) -> Plot:
    """Return the data and the line through them."""
    figure, (axis,) = axes()
    for number, (part, (x, y)) in enumerate(line.parts.items()):
        rows = thinned(np.arange(len(x)))
        axis.scatter(x[rows], y[rows], label=part, color=COLOURS[number], marker=MARKERS[number], **_spots(len(rows)))
    axis.plot(line.x, line.predicted, color="#333333", label="network")
    axis.set_xlabel(short(line.column, 40))
    axis.set_ylabel(short(line.target, 40))
    axis.legend()
    return Plot("fit", "The fitted line", "The data and what the network predicts between its ends, in the data's own units.", png(figure))


def _predicted(part: str, names: Sequence[str], y: Floats, predicted: Floats, told: str) -> Plot:
    figure, panels = axes(5.2, 4.2 * len(names), rows=len(names))
    for number, (panel, name) in enumerate(zip(panels, names, strict=True)):
        ends = [min(y[:, number].min(), predicted[:, number].min()), max(y[:, number].max(), predicted[:, number].max())]
        panel.plot(ends, ends, color="#888888", linewidth=1)
        panel.scatter(y[:, number], predicted[:, number], color=COLOURS[0], **_spots(len(y)))
        panel.set_xlabel(f"true {short(name, 40)}")
        panel.set_ylabel(f"predicted {short(name, 40)}")
    return Plot("predicted", f"Predicted against true, {part}", f"On the grey line a prediction is exact.{told}", png(figure))


def _residuals(part: str, names: Sequence[str], y: Floats, predicted: Floats, told: str) -> Plot:
    figure, panels = axes(6.4, 3.2 * len(names), rows=len(names), columns=2, width_ratios=[3, 1], sharey="row")
    for number, name in enumerate(names):
        spread, counts = panels[2 * number], panels[2 * number + 1]
        residual = y[:, number] - predicted[:, number]
        spread.axhline(0, color="#888888", linewidth=1)
        spread.scatter(predicted[:, number], residual, color=COLOURS[0], **_spots(len(y)))
        spread.set_xlabel(f"predicted {short(name, 40)}")
        spread.set_ylabel("true - predicted")
        counts.hist(residual, bins=min(30, max(5, int(len(residual) ** 0.5))), orientation="horizontal", color="#999999")
        counts.axhline(0, color="#888888", linewidth=1)
        counts.set_xlabel("rows")
    caption = f"What is left over should show no pattern: a bend or a funnel is something the network has not learned.{told}"
    return Plot("residuals", f"Residuals, {part}", caption, png(figure))
