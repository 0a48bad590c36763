"""The report of a cross-validation: its folds side by side, and what they make of the rows that they have not seen.

write_folds_report("runs/iris")    # the path of the page, in the folder of the folds

Made of that folder alone, so that it can be made again. The runs of the folds have reports of their own when they are asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nnrun.errors import CheckpointError
from nnrun.folds import OUT_OF_FOLD
from nnrun.report.classes import Judged, class_plots, class_table
from nnrun.report.numbers import Numbers, number_plots
from nnrun.report.page import PAGE, commit_page, render
from nnrun.report.style import Plot, drawing
from nnrun.report.words import spread
from nnrun.trained import Trained, load

PART = "out of fold"


def write_folds_report(folder: Path | str) -> Path:
    """Write the report of a cross-validation, and return the path of the page.

    Raises:
        CheckpointError: the folds are not finished.
        EnvironmentFault: the system refused a write.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        fix = f"go on with them: nnrun train CONFIG --folds K --out {folder} --resume"
        raise CheckpointError(f"the folds in {folder} are not finished", fix=fix)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    folds = [_fold(folder, number) for number in range(1, summary["folds"] + 1)]
    net = load(folder / "fold-1", device="cpu")
    with drawing():
        plots, classes = _drawn(net, folder / OUT_OF_FOLD)
    over = summary["metrics"]["test"]
    name = next((name for name in over if name != "loss"), "loss")
    page = render(
        "folds.html.j2",
        name=summary["name"],
        headline=f"{name} {spread(over[name])} over {summary['folds']} folds",
        verdict="",
        sentence=f"{summary['rows']} rows, each predicted by the network that has not seen it; {summary['seconds']:.1f} s",
        folder=str(folder),
        names=list(over),
        folds=folds,
        linked=any(fold["page"] for fold in folds),
        over=over,
        pooled=summary["out_of_fold"],
        rows=summary["rows"],
        notes=summary["notes"],
        plots={plot.name: plot for plot in plots},
        classes=classes,
        config=(folder / "config.yaml").read_text("utf-8"),
    )
    return commit_page(folder, page, plots)


def _fold(folder: Path, number: int) -> dict[str, Any]:
    """Return what the table says of a fold."""
    name = f"fold-{number}"
    summary = json.loads((folder / name / "summary.json").read_text("utf-8"))
    page = f"{name}/{PAGE}" if (folder / name / PAGE).is_file() else ""
    figures = summary["metrics"]["test"]
    return {"number": number, "rows": summary["rows"]["test"], "epoch": summary["best_epoch"], "figures": figures, "page": page}


def _drawn(net: Trained, file: Path) -> tuple[list[Plot], list[dict[str, Any]]]:
    """Return the plots of the predictions of every row, and the table of the classes (empty for numbers)."""
    import polars  # the reports of single runs come through here, and most need it for nothing else

    table = polars.read_csv(file, infer_schema=False)
    if not net.task.classes:
        ends = [f"_{name}" for name in net.task.targets] if len(net.task.targets) > 1 else [""]
        y, predicted = (
            table.select(polars.col([f"{what}{end}" for end in ends]).cast(polars.Float64)).to_numpy() for what in ("target", "prediction")
        )
        return number_plots(Numbers(PART, net.task.targets, y, predicted)), []
    code = {name: number for number, name in enumerate(net.task.classes)}
    y, predicted = (np.array([code[name or ""] for name in table[what]], np.int64) for what in ("target", "prediction"))
    shares = table.select(polars.nth(range(4, table.width)).cast(polars.Float64).fill_null(0)).to_numpy()
    judged = Judged(PART, net.task.classes, y, predicted, shares, net.network.head.calibrated)
    return class_plots(judged), class_table(judged)
