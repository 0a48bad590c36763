"""`nnrun sweep`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnrun.commands.options import Config, DataDir, Device, Json, Overrides, Plugins, Quiet, register_parts, use_data_dir
from nnrun.errors import Place, RequirementError
from nnrun.live import show_training
from nnrun.runs.signals import Signals
from nnrun.terminal import say, say_summary, try_report, user_errors

if TYPE_CHECKING:
    from nnrun.sweep.sweep import Sweep, Tried


def _option(help: str, metavar: str) -> Any:
    """Return an option that stands in place of a key of the section `sweep`."""
    return typer.Option(metavar=metavar, help=help, show_default=False)


Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="PATH=RANGE", help="Vary a value: lr=log:1e-4..1e-1, 'activation=relu,tanh', 'layers[0]=int:8..256'."),
]
Trials = Annotated[int | None, _option("How many configs are tried in all; by default 50, or all of a grid.", "N")]
Sampler = Annotated[str | None, _option("tpe, random, grid or cmaes; by default tpe.", "NAME")]
Metric = Annotated[str | None, _option("What a trial is scored by, at its best epoch; by default val.loss.", "NAME")]
Pruner = Annotated[str | None, _option("What stops bad trials early: none, median or hyperband.", "NAME")]
MaxFailures = Annotated[float | None, _option("The share of failed trials that stops the sweep; by default 0.5.", "SHARE")]
Storage = Annotated[str | None, _option("A database for the study; by default a journal in the folder.", "URL")]
Out = Annotated[Path | None, _option("The folder of the sweep; by default runs/NAME-sweep.", "PATH")]
Report = Annotated[bool, typer.Option("--report/--no-report", envvar="NNRUN_REPORT", help="Draw report.html and its plots at the end.")]


def sweep(
    config: Config,
    param: Params = None,
    trials: Trials = None,
    sampler: Sampler = None,
    metric: Metric = None,
    pruner: Pruner = None,
    max_failures: MaxFailures = None,
    storage: Storage = None,
    set_: Overrides = None,
    out: Out = None,
    plugin: Plugins = None,
    device: Device = None,
    data_dir: DataDir = None,
    report: Report = True,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try many values of some keys of CONFIG, and find the best; prints the folder. Started again, it joins in, or goes on."""
    with user_errors(), Signals() as signals:
        use_data_dir(data_dir)
        register_parts(plugin)
        from nnrun.spec.ranges import parameters_given
        from nnrun.spec.reader import read_spec

        given = {"trials": trials, "sampler": sampler, "metric": metric, "pruner": pruner, "max_failures": max_failures}
        options: dict[tuple[int | str, ...], Any] = {}
        for name, value in given.items():
            place = Place(f"--{name.replace('_', '-')}", 0, 0)
            options |= {("sweep", name): (value, place, place)} if value is not None else {}
        for path, (written, key, place) in parameters_given(param or ()).items():
            options["sweep", "params", path] = written, key, place
        spec, source = read_spec(config, set_ or (), device=device, options=options)
        from nnrun.sweep.finish import finish
        from nnrun.sweep.sweep import Sweep
        from nnrun.sweep.words import told

        whole = Sweep(spec, source, out=out, storage=storage)
        if not quiet:
            _say_begin(whole)
        stopped = _train(whole, signals, quiet=quiet)
        summary = finish(whole)
        if not quiet:
            say("")
            for line in told(summary):
                say(line)
            say_summary(summary)
            for note in summary["notes"]:
                say(f"note: {note}")
        from nnrun.runs.folder import strict_json

        print(strict_json(summary) if json else whole.folder, flush=True)
        page = try_report(whole.folder) if report else None
        if not quiet:
            _say_next(whole.folder, page)
        if stopped:
            raise stopped


def _train(whole: Sweep, signals: Signals, *, quiet: bool) -> RequirementError | None:
    """Train the trials; return why they were stopped before the last one, when a best one is there all the same.

    Raises:
        RequirementError: too many have failed, and none is complete.
    """
    try:
        for turn in whole.turns():
            if turn.run is not None:
                records, notes = whole.records(turn, signals), turn.run.notes
                show_training(turn.run, records, turn.name, quiet=quiet or not sys.stderr.isatty(), said=notes)
            for one in turn.tried if not quiet else ():
                if one.ended:  # else it did not go side by side, and its own turn comes
                    say(_line(whole, one))
    except RequirementError as error:
        if whole.best() is None:
            raise
        return error
    return None


def _say_begin(whole: Sweep) -> None:
    for note in whole.notes:
        say(f"note: {note}")
    there = len(whole.ended())
    if there > whole.count:
        say(f"{whole.folder} has {there} trials, more than the {whole.count} that are asked for; nothing is left to try")
    elif there:
        say(
            f"{whole.folder} has {there} of {whole.count} trials; {'going on with it' if there < whole.count else 'nothing is left to try'}"
        )


def _line(whole: Sweep, tried: Tried) -> str:
    """Return what is said of a trial that has ended."""
    from nnrun.sweep.words import told_values

    best, ended = whole.best(), tried.ended
    assert ended is not None
    values = told_values(tried.values)
    figure = f"{whole.metric} {ended.value:.4g} @{ended.epoch}" if ended.value is not None else ended.error
    state = "" if ended.state == "complete" else f"{ended.state}: "
    lead = f"best {best.value:.4g} (trial {best.number})" if best else "no best yet"
    return f"trial {tried.number}: {state}{figure} | {values} | {lead}, {len(whole.ended())}/{whole.count}"


def _say_next(folder: Path, page: Path | None) -> None:
    run = shlex.quote(str(folder))
    if page:
        say(f"report: {page}")
    say(f"next:   nnrun train {run}/best.yaml\n        nnrun predict --checkpoint {run} FILE")
