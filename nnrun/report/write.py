"""`report.html`, `plots/*.png` and `metrics.csv` of a run: a pure function of its folder and its data, so that they can be made again.

write_report("runs/iris")    # the path of the page

Nothing here trains, and the same run gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnrun.data.prepare import Prepared, load_dataset
from nnrun.data.source import column
from nnrun.errors import CheckpointError
from nnrun.report.classes import Judged, class_plots, class_table
from nnrun.report.curves import curves
from nnrun.report.folds import write_folds_report
from nnrun.report.numbers import Line, Numbers, line_plot, number_plots
from nnrun.report.page import commit_page, page
from nnrun.report.pictures import filters, picture_plots
from nnrun.report.seeds import summary_of_seeds, write_seeds_report
from nnrun.report.style import Plot, drawing
from nnrun.report.sweep import summary_of_sweep, write_sweep_report
from nnrun.runs.folder import commit
from nnrun.tracking.tracker import flat
from nnrun.trained import Trained, load

if TYPE_CHECKING:
    import numpy.typing as npt

TABLE = "metrics.csv"
LINE_POINTS = 200


@dataclass(frozen=True)
class Found:
    """A run as its folder tells it.

    Args:
        rows: the lines of metrics.jsonl.
        summary: summary.json; empty when the run was stopped before its end.
        config: the text of config.yaml.
        data: the data that it was trained on.
        part: the part that the final plots show: the last one that has rows.
    """

    net: Trained
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    config: str
    data: Prepared
    part: str


def write_report(folder: Path | str, *, data: Prepared | None = None, device: str = "auto") -> Path:
    """Write the report of a run, of folds, seeds or a sweep, and return the path of the page.

    Args:
        data: the data as the run prepared it, on `device`; None prepares it anew.

    Raises:
        CheckpointError: there is no run in the folder.
        DataError: its data is missing, or has changed since.
        EnvironmentFault: the system refused a write.
    """
    folder = Path(folder)
    if (folder / "fold-1").is_dir():
        return write_folds_report(folder)
    if seeds := summary_of_seeds(folder):
        return write_seeds_report(folder, seeds)
    if sweep := summary_of_sweep(folder):
        return write_sweep_report(folder, sweep)
    found = read_run(folder, data, device)
    with drawing():
        plots, table = draw(found)
    commit(folder / TABLE, csv_of(found.rows).encode())
    return commit_page(folder, page(found.net, found.rows, found.summary, found.config, found.part, plots, table), plots)


def read_run(folder: Path, data: Prepared | None = None, device: str = "auto") -> Found:
    """Return a run from its folder; a last line of metrics.jsonl that was torn is left out."""
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(f"{folder} holds no run", fix="give a run folder, such as runs/NAME")
    net = load(folder, device=device)
    summary, lines = folder / "summary.json", folder / "metrics.jsonl"
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines() if line.endswith("}")] if lines.is_file() else []
    prepared = data or net.prepare()
    known = json.loads(summary.read_text("utf-8")) if summary.is_file() else {}
    part = next(reversed(known.get("metrics") or [name for name, rows in prepared.parts.items() if len(rows)]))
    return Found(net, rows, known, (folder / "config.yaml").read_text("utf-8"), prepared, part)


def draw(found: Found) -> tuple[list[Plot], list[dict[str, Any]]]:
    """Return every plot, and the table of the classes (empty for numbers)."""
    net, shape = found.net, found.data.raw_shape
    scored = found.data.parts[found.part].thinned()
    output_NK = net.network.outputs(scored.x)
    judged_by_val = any("val" in row for row in found.rows)  # if not, the last epoch is kept, and there is no best one to mark
    plots = curves(found.rows, net.facts["epoch"] if judged_by_val else None)
    table: list[dict[str, Any]] = []
    if net.task.classes:
        head = net.network.head
        judged = Judged(
            found.part,
            net.task.classes,
            scored.y.cpu().numpy(),
            head.predict(output_NK).cpu().numpy(),
            torch.nan_to_num(head.probabilities(output_NK).double()).cpu().numpy(),
            head.calibrated,
        )
        plots += class_plots(judged)
        table = class_table(judged)
        if len(shape) == 3 and shape[0] in (1, 3):
            plots += picture_plots(judged, _pictures(found))
    else:
        predicted = net.network.head.predict(output_NK)
        plots += number_plots(Numbers(found.part, net.task.targets, _exact(scored.y), _exact(predicted)))
        if shape == (1,) and all(column.kind == "number" for column in found.data.raw_columns):
            plots.append(line_plot(_line(found)))
    prepared = found.data.shape
    return plots + filters(net.network.model, prepared if len(prepared) == 3 else shape), table


def _pictures(found: Found) -> Any:
    """Return rows of the shown part → their pictures as the dataset gives them: preprocessing may have made them unlike any picture."""
    raw = load_dataset(found.net.spec).x
    numbers = found.data.row_numbers[found.part]
    return lambda rows: raw[numbers[torch.from_numpy(rows)]].numpy()


def _line(found: Found) -> Line:
    """Return the network as a line over the range of its one input; of several targets the first."""
    raw, net = load_dataset(found.net.spec), found.net
    parts = {}
    for name, rows in found.data.row_numbers.items():
        if len(rows):
            parts[name] = (_exact(raw.x[rows])[:, 0], _exact(raw.y[rows])[:, 0])
    values = column(raw.x, 0)
    x = torch.linspace(float(values.nan_to_num(torch.inf).min()), float(values.nan_to_num(-torch.inf).max()), LINE_POINTS)[:, None]
    predicted = net.network.head.predict(net.network.outputs(net.prepared(x)))
    name = str(found.data.raw_columns[0]) if found.data.raw_columns else "x"
    return Line(name, net.task.targets[0], parts, _exact(x)[:, 0], _exact(predicted)[:, 0])


def _exact(values: torch.Tensor) -> npt.NDArray[np.float64]:
    return values.detach().cpu().double().numpy()


def csv_of(rows: list[dict[str, Any]]) -> str:
    """Return the rows of metrics.jsonl as CSV with a column for each figure: `epoch`, `step`, `train.loss`, …, `lr`, `seconds`."""
    told = [flat(row) for row in rows]
    columns = list(dict.fromkeys(column for row in told[:1] for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(told)
    return text.getvalue()
