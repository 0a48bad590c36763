"""The report of many seeds: `plots/seeds.png`, the distribution of the final figures, and a page with it, the table and the values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.report.page import commit_page, provenance, render
from nnrun.report.style import COLOURS, Plot, axes, drawing, png
from nnrun.report.words import between, number, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = "seeds.html.j2"
PANELS = 4
BINS = 30
MANY = 200
"""From so many seeds on there are bars; fewer are a dot each."""


def write_seeds_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write the page and the plot of a folder of seeds; return the path of the page.

    Raises:
        EnvironmentFault: the system refused a write.
    """
    with drawing():
        plot = distribution(summary)
    return commit_page(folder, _page(folder, summary, plot), [plot])


def distribution(summary: Mapping[str, Any]) -> Plot:
    """Return the plot: a panel for each of the first figures of the last part, metrics before the loss, and in it a dot for each seed."""
    part = next(reversed(summary["metrics"]))
    figures = summary["metrics"][part]
    names = sorted(figures, key=lambda name: name == "loss")[:PANELS]
    rows = math.ceil(len(names) / 2)
    figure, panels = axes(8.0, 2.9 * rows, rows=rows, columns=min(2, len(names)))
    for panel, name in zip(panels, names, strict=False):
        _panel(panel, figures[name], summary["seeds"].index(summary["chosen"]["seed"]))
        panel.set_xlabel(f"{part} {name}")
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    each = "A dot is a seed" if len(summary["seeds"]) < MANY else "How many seeds"
    mean = "the line is the mean, the band its 95 % interval: where the mean of many more seeds would be"
    caption = f"{each}; the diamond is the one of best.safetensors; {mean}."
    return Plot("seeds", f"{len(summary['seeds'])} seeds", caption, png(figure), wide=True)


def _panel(panel: Axes, over: Mapping[str, Any], chosen: int) -> None:
    """Draw the values of one figure: equal or near ones stand on each other."""
    from matplotlib.ticker import MaxNLocator

    known = [value for value in over["values"] if value is not None and math.isfinite(value)]
    if not known:
        panel.set_axis_off()
        return
    low, high = min(known), max(known)
    width = (high - low) / BINS or 1.0
    columns: dict[int, int] = {}
    if over["interval"]:
        panel.axvspan(*over["interval"], color="#dddddd", zorder=0, label=f"mean {number(over['mean'])} {between(over['interval'])}")
    panel.axvline(over["mean"], color="#333333", linewidth=1.2, zorder=1)
    if len(known) >= MANY:
        panel.hist(known, bins=BINS, color=COLOURS[0], edgecolor="white", linewidth=0.5)
    for place, value in enumerate(over["values"]):
        if value is None or not math.isfinite(value):
            continue
        column = int((value - low) / width)
        columns[column] = columns.get(column, 0) + 1
        if place == chosen:
            height = columns[column] if len(known) < MANY else 0
            panel.plot([value], [height], "D", color=COLOURS[1], markersize=7, zorder=4, clip_on=False, label="best.safetensors")
        elif len(known) < MANY:
            panel.plot(
                [value], [columns[column]], "o", color=COLOURS[0], markersize=5, markeredgecolor="white", markeredgewidth=0.4, zorder=3
            )
    if low == high:
        panel.set_xlim(low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1))
    panel.set_ylim(0, 1.25 * max([8, *columns.values()]))
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    panel.set_ylabel("seeds")
    panel.legend(loc="upper left", fontsize=8)


def _page(folder: Path, summary: Mapping[str, Any], plot: Plot) -> str:
    part = next(reversed(summary["metrics"]))
    table = [
        {
            "part": name,
            "figure": key,
            **{word: over[word] for word in ("mean", "deviation")},
            "interval": between(over["interval"]),
            **_ends(over),
        }
        for name, figures in summary["metrics"].items()
        for key, over in figures.items()
    ]
    names = list(summary["metrics"][part])
    values = [
        {
            "seed": seed,
            "epoch": summary["best_epochs"][place],
            "values": [summary["metrics"][part][name]["values"][place] for name in names],
        }
        for place, seed in enumerate(summary["seeds"])
    ]
    name = next((name for name in names if name != "loss"), "loss")
    over = summary["metrics"][part][name]
    side_by_side = ", trained side by side" if summary["stacked"] else ""
    return render(
        TEMPLATE,
        name=summary["name"],
        headline=f"{part} {name} {spread(over)} over {len(values)} seeds",
        verdict="",
        sentence=f"Networks that differ in {', '.join(summary['vary'])}, dropout and augmentation{side_by_side}.",
        summary=summary,
        part=part,
        plots={plot.name: plot},
        table=table,
        names=names,
        values=values,
        config=(folder / "config.yaml").read_text("utf-8"),
        provenance=provenance(summary["provenance"]),
    )


def _ends(over: Mapping[str, Any]) -> dict[str, float | None]:
    known = [value for value in over["values"] if value is not None]
    return {"least": min(known, default=None), "most": max(known, default=None)}


def summary_of_seeds(folder: Path) -> dict[str, Any]:
    """Return summary.json of a folder that holds finished seeds; {} of any other."""
    file = folder / "summary.json"
    summary: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return summary if "seeds" in summary else {}
