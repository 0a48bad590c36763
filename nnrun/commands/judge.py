"""`nnrun check`, `eval`, `compare` and `report`: what a config, a network or a run is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnrun import actions, complete
from nnrun.commands.options import (
    CheckpointPath,
    Config,
    DataDir,
    Device,
    Json,
    Overrides,
    Plugins,
    note_last,
    register_parts,
    use_data_dir,
)
from nnrun.errors import InputError
from nnrun.report.words import between
from nnrun.require import Requirement, refuse_unscored
from nnrun.require import require as check_required
from nnrun.terminal import annotate, print_comparison, say, show_report, user_errors


def check(
    config: Config,
    set_: Overrides = None,
    fast: Annotated[bool, typer.Option("--fast", help="Only what the config alone says: no data, no network.")] = False,
    plugin: Plugins = None,
    device: Device = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Tell what is wrong or unwise in CONFIG before it is trained; exits with 5 when there is an error."""
    with user_errors():
        use_data_dir(data_dir)
        register_parts(plugin)
        from nnrun.check.report import examine
        from nnrun.spec.reader import read_spec

        report = examine(*read_spec(config, set_ or (), device=device), fast=fast)
        annotate(report)
        if json:
            from nnrun.runs.folder import strict_json

            print(strict_json(report.document()))
        else:
            show_report(report)
        report.require()


def evaluate(
    checkpoint: CheckpointPath,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    data: Annotated[str | None, typer.Option(help="Score this file instead; it has the target column.", show_default=False)] = None,
    require: Annotated[
        list[str] | None, typer.Option(help="Exit with 5 unless it holds: --require 'accuracy>=0.95'.", show_default=False)
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Append a table to the summary of this step of GitHub Actions.")] = False,
    plugin: Plugins = None,
    device: Device = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Score a checkpoint; prints each figure with its 95 % interval, name, figure and interval a column each."""
    with user_errors():
        if split not in ("train", "val", "test"):
            raise InputError(f"--split {split} is not a part", fix="write train, val or test")
        requirements = [Requirement.of(text) for text in require or ()]
        appended = actions.summary_file() if summary else None
        use_data_dir(data_dir)
        register_parts(plugin)
        from nnrun.trained import load

        net = load(checkpoint, device=device or "auto")
        note_last(checkpoint, net.path)
        refuse_unscored(requirements, ["loss", *(net.spec.metrics or ())])
        rows = net.rows(split, data=data)
        for note in net.notes:
            say(f"note: {note}")
        output = net.network.outputs(rows.x)
        figures, intervals = net.network.figures(output, rows.y), net.network.intervals(output, rows.y)
        if json:
            from nnrun.runs.folder import strict_json

            told = {"checkpoint": str(net.path), "split": None if data else split, "data": data, "rows": len(rows)}
            print(strict_json(told | {"metrics": figures, "intervals": intervals}))
        else:
            print("\n".join(f"{name}\t{value:.6g}\t{between(intervals[name])}" for name, value in figures.items()))
        if appended:
            heading = f"{net.spec.name}: {data or split}"
            beside = {} if data else net.baselines(split)
            text = actions.scores(heading, len(rows), net.path, figures, intervals, beside, requirements)
            actions.append_summary(appended, text)
        check_required(requirements, figures)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders or .safetensors files.", show_default=False, autocompletion=complete.runs),
    ],
    sort: Annotated[str | None, typer.Option(metavar="METRIC", help="Sort by this figure.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Compare runs: their figures, what differs in their configs, and for two of them a paired test on the rows they share."""
    with user_errors():
        import nnrun.builtin  # noqa: F401
        from nnrun.compare import compare as side_by_side
        from nnrun.runs.folder import strict_json

        found = side_by_side(runs, sort)
        if json:
            print(strict_json(found))
        else:
            print_comparison(found)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or one of folds.", autocompletion=complete.runs)],
    plugin: Plugins = None,
    device: Device = None,
    data_dir: DataDir = None,
) -> None:
    """Draw the report of a run anew, also of one that was stopped; prints its path."""
    with user_errors():
        use_data_dir(data_dir)
        register_parts(plugin)
        from nnrun.report.write import write_report

        print(write_report(run, device=device or "auto"))
