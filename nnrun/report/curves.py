"""How training went, epoch by epoch: the loss, the metrics, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnrun.report.style import Plot, axes, look, maybe_log, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
PARTS = ("train", "val", "test")
MOST_PANELS = 8
FEW_EPOCHS = 30
"""Up to here each epoch has its marker; beyond, twelve along the line tell the lines apart."""


def curves(rows: Sequence[Row], best_epoch: int | None) -> list[Plot]:
    """Return the plots of the rows of metrics.jsonl; none when no epoch was finished."""
    if not rows:
        return []
    return [_loss(rows, best_epoch), *_metrics(rows, best_epoch), _rate(rows)]


def _loss(rows: Sequence[Row], best_epoch: int | None) -> Plot:
    figure, (axis,) = axes()
    logarithmic = _lines(axis, rows, "loss", best_epoch)
    axis.set_ylabel("loss (log)" if logarithmic else "loss")
    marked = "; the dotted line is the best epoch, whose weights are kept" if best_epoch else ""
    caption = f"Train is the mean over the epoch while the weights still moved, the other parts are scored after it{marked}."
    return Plot("loss", "Loss", caption, png(figure))


def _metrics(rows: Sequence[Row], best_epoch: int | None) -> list[Plot]:
    names = list(dict.fromkeys(name for row in rows[:1] for part in PARTS for name in row.get(part, {}) if name != "loss"))[:MOST_PANELS]
    if not names:
        return []
    columns = min(2, len(names))
    lines = math.ceil(len(names) / columns)
    figure, panels = axes(6.0, 3.2 if lines == 1 else 2.4 * lines, rows=lines, columns=columns)
    for panel, name in zip(panels, names, strict=False):
        logarithmic = _lines(panel, rows, name, best_epoch)
        panel.set_title(f"{name} (log)" if logarithmic else name)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    marked = "; the dotted line is the best epoch" if best_epoch else ""
    return [Plot("metrics", "Metrics", f"Scored after each epoch{marked}.", png(figure))]


def _rate(rows: Sequence[Row]) -> Plot:
    figure, (axis,) = axes(6.0, 2.4)
    rates = [row["lr"] for row in rows]
    axis.plot([row["epoch"] for row in rows], rates, **{**look(0), "markersize": 3}, markevery=_every(rows))
    logarithmic = maybe_log(axis, rates)
    if not logarithmic:
        axis.set_ylim(0, 1.1 * max(rates))
    axis.set_ylabel("lr (log)" if logarithmic else "lr")
    _by_epoch(axis)
    return Plot("lr", "Learning rate", "At the last step of each epoch.", png(figure))


def _lines(axis: Axes, rows: Sequence[Row], name: str, best_epoch: int | None) -> bool:
    """Draw one figure of every part that has it, and the best epoch; return whether the axis became logarithmic."""
    drawn: list[float] = []
    for number, part in enumerate(PARTS):
        points = [(row["epoch"], value) for row in rows if (value := row.get(part, {}).get(name)) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), **look(number), label=part, markevery=_every(points))
            drawn += [value for _, value in points]
    if best_epoch:
        axis.axvline(best_epoch, color="#333333", linestyle=":", linewidth=1.2, label=f"best: {best_epoch}")
    if drawn:
        axis.legend()
    _by_epoch(axis)
    return maybe_log(axis, drawn)


def _by_epoch(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _every(points: Sequence[Any]) -> int:
    return 1 if len(points) <= FEW_EPOCHS else len(points) // 12
