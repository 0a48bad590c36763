"""`nnrun train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from nnrun.commands.options import Config, DataDir, Device, Json, Overrides, Plugins, Quiet, register_parts, use_data_dir
from nnrun.errors import CheckpointError, InputError
from nnrun.live import show_training
from nnrun.peers import Peers, peers
from nnrun.runs.signals import Signals
from nnrun.terminal import say, say_next, say_summary, try_report, user_errors

if TYPE_CHECKING:
    from nnrun.run import Run
    from nnrun.several import Several
    from nnrun.spec.experiment import Experiment
    from nnrun.spec.source import Source
    from nnrun.training.group import Group


ManySeeds = Annotated[
    int | None, typer.Option("--seeds", metavar="N", help="Train N networks that differ in their seed.", show_default=False)
]
Vary = Annotated[
    str | None, typer.Option("--vary", metavar="WHAT", help="With --seeds: split draws the split by each seed too.", show_default=False)
]
WithEnsemble = Annotated[bool, typer.Option("--ensemble", help="With --seeds: write a checkpoint that predicts with the mean of all.")]


Processes = Annotated[
    int | None,
    typer.Option("--nproc", metavar="N", min=1, help="Train on N processes of this machine, as torchrun does.", show_default=False),
]


class Where(TypedDict):
    """Which folder a run has, and how it comes to it."""

    out: Path | None
    resume: bool
    allow_change: Sequence[str]


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
    nproc: Processes = None,
    seeds: ManySeeds = None,
    vary: Vary = None,
    ensemble: WithEnsemble = False,
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
        where: Where = {"out": out, "resume": resume, "allow_change": allow_change or ()}
        launcher = peers()
        if (nproc or launcher) and (folds is not None or seeds is not None):
            option = "--folds" if seeds is None else "--seeds"
            raise InputError(f"{option} trains many networks, each in one process", fix=f"leave {option} out, or start one process")
        if nproc and launcher:
            raise InputError("--nproc starts processes, and torchrun has started some already", fix="leave --nproc out")
        if nproc:
            from nnrun.launch import launch

            raise typer.Exit(launch(nproc, sys.argv[1:]))
        if several := _several(spec, source, where, folds=folds, seeds=seeds, vary=vary, ensemble=ensemble):
            _train_several(several, signals, report=report, json=json, quiet=quiet)
            return
        with _together(spec, launcher) as group:
            run = _train_one(spec, source, where, signals, group, quiet=quiet)
        if not group.first:
            return
        if not quiet:
            say_summary(run.summary)
        from nnrun.runs.folder import strict_json

        print(strict_json(run.summary) if json else run.folder, flush=True)
        page = try_report(run.folder, data=run.data, device=str(run.device), trackers=run.trackers) if report else None
        if not quiet:
            say_next(run.folder, page)


def _together(spec: Experiment, launcher: Peers | None) -> AbstractContextManager[Group]:
    """Return who trains together: the processes of a launcher, or this one alone."""
    if launcher is None:
        from nnrun.training.group import ALONE

        return nullcontext(ALONE)
    from nnrun.training.processes import met

    return met(launcher, spec.strategy.build().timeout, spec.device)


def _train_one(spec: Experiment, source: Source, where: Where, signals: Signals, group: Group, *, quiet: bool) -> Run:
    """Train one network; the first process alone shows how far it is."""
    from nnrun.run import open_run

    run = open_run(spec, source, **where, group=group)
    show_training(run, run.train(signals), spec.name, quiet=quiet or not group.first)
    return run


def _several(
    spec: Experiment, source: Source, where: Where, *, folds: int | None, seeds: int | None, vary: str | None, ensemble: bool
) -> Several | None:
    """Return the runs that the options ask for; None for one run."""
    if folds is not None and seeds is not None:
        raise InputError("--seeds and --folds do not go together", fix="leave one of them out, or write `split: {folds: 5, fold: 1}`")
    if seeds is None and (vary is not None or ensemble):
        raise InputError(f"{'--ensemble' if vary is None else '--vary'} is for several seeds", fix="add --seeds 32")
    if folds is not None:
        from nnrun.folds import Folds

        return Folds(spec, source, folds, **where)
    if seeds is not None:
        from nnrun.seeds import Seeds

        return Seeds(spec, source, seeds, vary=vary, ensemble=ensemble, **where)
    return None


def _train_several(several: Several, signals: Signals, *, report: bool, json: bool, quiet: bool) -> None:
    """Train each run, and print the folder of them all, or their figures."""
    from nnrun.runs.folder import strict_json

    for note in several.notes if not quiet else ():
        say(f"note: {note}")
    said = set(several.notes)
    for name, run in several.runs():
        show_training(run, several.train(run, signals), name, quiet=quiet, said=said)
        said.update(run.notes)
    for line in several.told() if not quiet else ():
        say(line)
    print(strict_json(several.summary) if json else several.folder, flush=True)
    page = try_report(several.folder) if report else None
    if several.is_one_run and not quiet:
        say_next(several.folder, page)
    elif page and not quiet:
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
