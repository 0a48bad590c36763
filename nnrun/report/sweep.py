"""The report of a sweep: how it went, which parameters mattered, where the good values lie, and a page with it and every trial.

Made of the folder's summary alone, so that it can be made again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.report.page import PAGE, commit_page, provenance, render
from nnrun.report.style import COLOURS, Plot, axes, drawing, maybe_log, plain_log, png, short
from nnrun.report.words import baselines, number, results
from nnrun.sweep.words import in_order, shortly

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = "sweep.html.j2"
PANELS = 8
MOST_ROWS = 200
"""Trials that the table of the page has; the best ones come first."""


def summary_of_sweep(folder: Path) -> dict[str, Any]:
    """Return summary.json of a folder that holds a finished sweep; {} of any other."""
    file = folder / "summary.json"
    summary: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return summary if "sweep" in summary else {}


def write_sweep_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write the page and the plots of a sweep; return the path of the page.

    Raises:
        EnvironmentFault: the system refused a write.
    """
    found = summary["sweep"]
    with drawing():
        plots = [history(found), *([importance_plot(found)] if found["importance"] else []), values_plot(found)]
    return commit_page(folder, _page(folder, summary, plots), plots)


def history(found: Mapping[str, Any]) -> Plot:
    """Return the plot of the metric of each trial, in the order of their numbers, and of the best one so far."""
    figure, (axis,) = axes(8.0, 3.4)
    trials = found["trials"]
    complete = [one for one in trials if one["state"] == "complete"]
    sign = -1 if found["better"] == "maximize" else 1
    axis.plot(*_points(complete), "o", color=COLOURS[0], markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, label="complete")
    pruned = [one for one in trials if one["state"] == "pruned" and one["value"] is not None]
    if pruned:
        axis.plot(*_points(pruned), "v", color=COLOURS[4], markersize=4.5, label="pruned, when it was")
    best, line = math.inf, []
    for one in complete:
        best = min(best, sign * one["value"])
        line.append(sign * best)
    numbers = [one["number"] for one in complete]
    axis.step([*numbers, len(trials) - 1], [*line, line[-1]], where="post", color=COLOURS[1], linewidth=1.4, label="best so far")
    failed = [one["number"] for one in trials if one["state"] == "failed"]
    logarithmic = maybe_log(axis, [one["value"] for one in (*complete, *pruned)])
    if failed:
        axis.plot(failed, [0.02] * len(failed), "x", color=COLOURS[5], markersize=6, label="failed", transform=axis.get_xaxis_transform())
    _chosen(axis, found["best"]["number"], found["best"]["value"])
    axis.set_ylabel(f"{found['metric']}{' (log)' * logarithmic}")
    _whole(axis)
    axis.set_xlabel("trial")
    axis.legend(fontsize=8)
    level = "where it has long been level, more trials will hardly help"
    caption = f"A point is a trial, scored at its best epoch; the line is the best one so far: {level}."
    return Plot("history", f"{len(trials)} trials", caption, png(figure), wide=True)


def importance_plot(found: Mapping[str, Any]) -> Plot:
    """Return the plot of how much each parameter matters."""
    shares = dict(reversed(found["importance"].items()))
    figure, (axis,) = axes(6.0, 1.0 + 0.36 * len(shares))
    bars = axis.barh([short(name, 28) for name in shares], list(shares.values()), color=COLOURS[0], height=0.62)
    axis.bar_label(bars, [f"{share:.2f}" for share in shares.values()], padding=4, fontsize=9)
    axis.set_xlim(0, 1.12 * max(shares.values()))
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("share of the differences between the trials")
    caption = "fANOVA: the share of the differences between the complete trials that a parameter explains by itself. Of few trials, a hint."
    return Plot("importance", "Which parameters matter", caption, png(figure))


def values_plot(found: Mapping[str, Any]) -> Plot:
    """Return a panel for each parameter: the metric of the trials over their values."""
    names = sorted(found["best"]["values"], key=lambda name: -found["importance"].get(name, 0.0))[:PANELS]
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure, panels = axes(8.0 if columns > 1 else 6.0, 3.0 * rows, rows=rows, columns=columns)
    complete = [one for one in found["trials"] if one["state"] == "complete"]
    for panel, name in zip(panels, names, strict=False):
        _panel(panel, found, complete, name)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    wider = "if it lies at the end of a range, a wider one may be better"
    caption = f"A point is a complete trial; darker ones came later, and the diamond is the best: {wider}."
    return Plot("values", "Where the good values lie", caption, png(figure), wide=columns > 1)


def _panel(panel: Axes, found: Mapping[str, Any], complete: Sequence[Mapping[str, Any]], name: str) -> None:
    values = [one["values"][name] for one in complete]
    best = found["best"]
    written = found["params"][name]
    chosen = isinstance(written, list) or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if chosen:
        labels = list(dict.fromkeys(shortly(value) for value in values))
        at = {text: place for place, text in enumerate(labels)}
        x = [at[shortly(value)] + 0.3 * ((0.618034 * one["number"]) % 1 - 0.5) for value, one in zip(values, complete, strict=True)]
        panel.set_xticks(range(len(labels)), [short(text, 14) for text in labels])
        panel.set_xlim(-0.5, len(labels) - 0.5)
        best_x = x[[one["number"] for one in complete].index(best["number"])]
    else:
        x, best_x = [float(value) for value in values], float(best["values"][name])
        if "log" in str(written):
            panel.set_xscale("log")
            plain_log(panel.xaxis, max(x) / min(x))
    shade = [one["number"] for one in complete]
    looks = {"cmap": "Blues", "vmin": -0.6 * max([1, *shade]), "s": 22, "edgecolors": "#33333366", "linewidths": 0.4}
    panel.scatter(x, [one["value"] for one in complete], c=shade, **looks)
    _chosen(panel, best_x, best["value"])
    logarithmic = maybe_log(panel, [one["value"] for one in complete])
    panel.set_xlabel(short(name, 40))
    panel.set_ylabel(f"{found['metric']}{' (log)' * logarithmic}")


def _points(trials: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    return [one["number"] for one in trials], [one["value"] for one in trials]


def _chosen(axis: Axes, x: float, y: float) -> None:
    axis.plot([x], [y], "D", color=COLOURS[1], markersize=7, markeredgecolor="white", markeredgewidth=0.6, zorder=5, clip_on=False)


def _whole(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _page(folder: Path, summary: Mapping[str, Any], plots: list[Plot]) -> str:
    found = summary["sweep"]
    part = next(reversed(summary["metrics"]))
    told = results(summary)
    name = next((name for name in told[part] if name != "loss"), "loss")
    beside = {f"baseline {key}": figures for key, figures in baselines(summary).items()}
    trials = in_order(found)
    best, looked = found["best"], _looked(part, found)
    return render(
        TEMPLATE,
        name=summary["name"],
        headline=f"best of {len(trials)} configs tried: {part} {name} {told[part][name]}",
        verdict=summary["verdict"],
        sentence=f"Chosen by {found['metric']}, {number(best['value'])} at epoch {best['epoch']} of trial {best['number']}; {looked}.",
        found=found,
        best={path: shortly(value) for path, value in best["values"].items()},
        columns={**told, **beside},
        figures=list(told[part]),
        trials=[_row(folder, one) for one in trials[:MOST_ROWS]],
        more=max(0, len(trials) - MOST_ROWS),
        params=list(best["values"]),
        notes=summary["notes"],
        plots={plot.name: plot for plot in plots},
        config=(folder / "best.yaml").read_text("utf-8"),
        provenance=provenance(summary["provenance"]),
    )


def _looked(part: str, found: Mapping[str, Any]) -> str:
    """Return what the figures of the headline are worth."""
    if part != "test":
        return "there is no test part, so its figures are those that it was chosen by"
    looks = found["looks"]
    return f"the test part was looked at {'once' if looks == 1 else f'{looks} times'}, for the chosen config alone"


def _row(folder: Path, one: Mapping[str, Any]) -> dict[str, Any]:
    page = f"trial-{one['number']}/{PAGE}"
    values = [shortly(value) for value in one["values"].values()]
    return {**one, "values": values, "page": page if (folder / page).is_file() else ""}
