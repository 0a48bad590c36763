"""The page itself: one HTML file with everything in it, filled in from `page.html.j2`. It holds no script, and fetches nothing.

Every text goes through Jinja's autoescape, so that a class may be called `<script>`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnrun.errors import not_writable
from nnrun.model.build import layer_table
from nnrun.report.style import Plot
from nnrun.report.words import baselines, number, results, spread
from nnrun.runs.folder import commit
from nnrun.trained import Trained

TEMPLATE = "page.html.j2"
PAGE, PLOTS = "report.html", "plots"


def page(
    net: Trained,
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    config: str,
    part: str,
    plots: Sequence[Plot],
    classes: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page of a run.

    Args:
        rows: the lines of metrics.jsonl.
        summary: summary.json; what is not in it is not shown.
        part: the part that the plots of predictions show.
        classes: the rows of `class_table`.
    """
    layers = layer_table(net.network.model, tuple(net.facts["shape"]))
    return render(
        TEMPLATE,
        name=net.spec.name,
        headline=headline(summary, part),
        sentence=_sentence(net, summary, rows),
        verdict=summary.get("verdict", ""),
        results=_table(summary),
        part=part,
        notes=[*summary.get("notes", ()), *(_health(one) for one in summary.get("health", ()))],
        plots={plot.name: plot for plot in plots},
        classes=classes,
        layers=[{"layer": one, "in": _shape(one.input_shape), "out": _shape(one.output_shape)} for one in layers],
        parameters=sum(one.parameters for one in layers),
        config=config,
        provenance=provenance(summary.get("provenance") or {key: net.facts[key] for key in ("versions", "device", "threads", "digests")}),
    )


def render(template: str, **values: Any) -> str:
    """Return a template of this folder filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "spread": spread, "data_uri": _data_uri}
    return environment.get_template(template).render(values)


def commit_page(folder: Path, page: str, plots: list[Plot]) -> Path:
    """Write a page and its plots into a folder, and return the path of the page."""
    try:
        (folder / PLOTS).mkdir(exist_ok=True)
        for plot in plots:
            (folder / PLOTS / f"{plot.name}.png").write_bytes(plot.png)
    except OSError as error:
        raise not_writable(folder / PLOTS, error) from None
    commit(folder / PAGE, page.encode())
    return folder / PAGE


def headline(summary: Mapping[str, Any], part: str) -> str:
    """Return the figure that sums the run up, with its interval: "test accuracy 0.98 [0.90, 1.00]"; empty for an unfinished run."""
    told = results(summary).get(part, {})
    name = next((name for name in told if name != "loss"), "loss")
    return f"{part} {name} {told[name]}" if told else ""


def _table(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with a column for each part and each baseline, and a line for each figure."""
    columns = {**results(summary), **{f"baseline {name}": told for name, told in baselines(summary).items()}}
    names = dict.fromkeys(name for told in columns.values() for name in told)
    rows = [summary["rows"].get(part) for part in columns] if columns else []
    return {"columns": list(columns), "rows": rows, "lines": {name: [told.get(name, "") for told in columns.values()] for name in names}}


def _sentence(net: Trained, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what was done, in one sentence."""
    wanted = f"{len(net.task.classes)} classes of {net.task.targets[0]}" if net.task.classes else ", ".join(net.task.targets)
    told = f"{net.spec.dataset.entry.name} → {wanted}"
    if not summary:
        return f"{told}: stopped after {len(rows)} epochs, not finished"
    return f"{told}: best epoch {summary['best_epoch']} of {summary['epochs']}, {summary['seconds']['train']:.1f} s of training"


def _health(one: Mapping[str, Any]) -> str:
    return f"{one.get('code')}, epoch {one.get('epoch')}: {one.get('message')}"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def provenance(known: Mapping[str, Any]) -> dict[str, str]:
    """Return what the result depends on, a line each: from the summary, or from the checkpoint of a run that is not finished."""
    flat: dict[str, str] = {}
    for key, value in known.items():
        if isinstance(value, dict):
            flat |= {f"{key}: {inner}": item if isinstance(item, str) else json.dumps(item) for inner, item in value.items()}
        elif value is not None:
            flat[key] = str(value)
    return flat


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
