"""`nnrun train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnrun.commands.options import Config, DataDir, Device, Json, Overrides, Plugins, Quiet, register_parts, use_data_dir
from nnrun.errors import CheckpointError
from nnrun.live import show_training
from nnrun.runs.signals import Signals
from nnrun.terminal import say, say_next, say_summary, try_folds_report, try_report, user_errors

if TYPE_CHECKING:
    from nnrun.folds import Folds


def train(
    config: Config,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default runs/NAME.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    allow_change: Annotated[
        list[str] | None, typer.Option("--allow-change", metavar="KEY", help="With --resume: a key that may differ from before.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", metavar="K", help="Cross-validate: one network for each of K folds.", show_default=False)
    ] = None,
    plugin: Plugins = None,
    device: Device = None,
    data_dir: DataDir = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", envvar="NNRUN_REPORT", help="Draw report.html and its plots at the end.")
    ] = True,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the experiment in CONFIG; prints the run folder. Ctrl-C and SIGTERM save and stop, SIGUSR1 saves and goes on."""
    with user_errors(), Signals() as signals:
        use_data_dir(data_dir)
        register_parts(plugin)
        from nnrun.spec.reader import read_spec

        if resume and out is not None:
            _refuse_without_plugins(out)
        spec, source = read_spec(config, set_ or (), device=device)  # before torch is imported: faults of the config are told at once
        if folds is not None:
            from nnrun.folds import Folds

            several = Folds(spec, source, folds, out=out, resume=resume, allow_change=allow_change or ())
            _train_folds(several, signals, json=json, quiet=quiet, report=report)
            return
        from nnrun.run import open_run

        run = open_run(spec, source, out=out, resume=resume, allow_change=allow_change or ())
        show_training(run, run.train(signals), spec.name, quiet=quiet)
        if not quiet:
            say_summary(run.summary)
        from nnrun.runs.folder import strict_json

        print(strict_json(run.summary) if json else run.folder, flush=True)
        page = try_report(run) if report else None
        if not quiet:
            say_next(run.folder, page)


def _train_folds(folds: Folds, signals: Signals, *, json: bool, quiet: bool, report: bool) -> None:
    """Train the run of each fold, and print the folder of them all, or their figures."""
    from nnrun.folds import told
    from nnrun.runs.folder import strict_json

    for number, run in folds.runs():
        show_training(run, folds.train(run, signals), f"fold {number}/{folds.count}", quiet=quiet)
    for line in told(folds.summary) if not quiet else ():
        say(line)
    print(strict_json(folds.summary) if json else folds.folder, flush=True)
    page = try_folds_report(folds.folder) if report else None
    if page and not quiet:
        say(f"report: {page}")


def _refuse_without_plugins(out: Path) -> None:
    """Name the plug-ins that a run to go on with needs, before its config is found to hold unknown names."""
    from nnrun.runs.checkpoint import check_plugins, read_header
    from nnrun.runs.folder import LAST

    try:
        facts = read_header(out / LAST).facts
    except CheckpointError:  # none there, or damaged: told when the run is opened
        return
    check_plugins(out / LAST, facts)
