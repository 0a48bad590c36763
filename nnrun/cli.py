"""The command line: parse, call, print, exit. It imports nothing heavy until a command needs it.

Results go to stdout (a path, a table, or one JSON document with --json), everything else to stderr. Exit codes: see `nnrun.errors`.
"""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnrun import __version__, complete
from nnrun.errors import CheckpointError, InputError
from nnrun.live import show_training
from nnrun.report.words import between
from nnrun.require import Requirement, refuse_unscored
from nnrun.require import require as check_required
from nnrun.runs.signals import Signals
from nnrun.terminal import (
    noted,
    print_comparison,
    say,
    say_next,
    say_summary,
    show_report,
    try_report,
    user_errors,
    write_frames,
    write_text,
)
from nnrun.usage import Group

if TYPE_CHECKING:
    from nnrun.folds import Folds

app = typer.Typer(
    cls=Group,
    name="nnrun",
    help="One YAML file becomes a trained network, its checkpoint, its metrics and a report.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The YAML file of the experiment.", show_default=False, autocompletion=complete.configs)
]
CheckpointPath = Annotated[
    Path,
    typer.Option(
        "--checkpoint", help="A run folder (its best is taken) or a .safetensors file.", show_default=False, autocompletion=complete.runs
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Replace a value: --set lr=0.01 --set 'layers[0]=32'.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE", help="A module, or a file my_parts.py, that registers parts of your own.", show_default=False
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.", show_default=False)]
DataDir = Annotated[Path | None, typer.Option("--data-dir", envvar="NNRUN_DATA", help="Where downloaded datasets are.", show_default=False)]


def main() -> None:
    """Run the program. Waiting OpenMP threads sleep: spinning made an epoch 5 to 15 times slower beside a busy neighbour."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


@app.callback()
def _program(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"nnrun {__version__}")
        raise typer.Exit


@app.command()
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
        _use_data_dir(data_dir)
        _load(plugin)
        from nnrun.spec.reader import read_spec

        if resume and out is not None:
            _refuse_without_plugins(out)
        spec, source = read_spec(config, set_ or (), device=device)  # before torch is imported: faults of the config are told at once
        if folds is not None:
            from nnrun.folds import Folds

            several = Folds(spec, source, folds, out=out, resume=resume, allow_change=allow_change or ())
            _train_folds(several, signals, json=json, quiet=quiet)
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


@app.command()
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
        _use_data_dir(data_dir)
        _load(plugin)
        from nnrun.check.report import examine
        from nnrun.spec.reader import read_spec

        report = examine(*read_spec(config, set_ or (), device=device), fast=fast)
        if json:
            from nnrun.runs.folder import strict_json

            print(strict_json(report.document()))
        else:
            show_report(report)
        report.require()


@app.command("eval")
def evaluate(
    checkpoint: CheckpointPath,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    data: Annotated[str | None, typer.Option(help="Score this file instead; it has the target column.", show_default=False)] = None,
    require: Annotated[
        list[str] | None, typer.Option(help="Exit with 5 unless it holds: --require 'accuracy>=0.95'.", show_default=False)
    ] = None,
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
        _use_data_dir(data_dir)
        _load(plugin)
        from nnrun.trained import load

        net = load(checkpoint, device=device or "auto")
        _note_last(checkpoint, net.path)
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
        check_required(requirements, figures)


@app.command()
def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Tables, arrays, pictures, folders of pictures, or - (JSON lines).")
    ],
    checkpoint: CheckpointPath,
    out: Annotated[Path | None, typer.Option(help="Write here instead: .csv, .json, .jsonl or .parquet.", show_default=False)] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Add a column of probabilities for each class.")] = False,
    top_k: Annotated[int, typer.Option(metavar="K", help="Add the K likeliest classes and their probabilities.", show_default=False)] = 0,
    plugin: Plugins = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Predict one row of output for each row of INPUT; prints CSV."""
    with user_errors():
        if out is not None and out.suffix not in (".csv", ".json", ".jsonl", ".parquet"):
            raise InputError(f"--out {out}: the ending {out.suffix!r} is not known", fix="end it in .csv, .json, .jsonl or .parquet")
        if out is not None and not out.parent.is_dir():
            raise InputError(f"--out {out}: the folder {out.parent} does not exist", fix="make it, or give another file")
        if out is not None and any(Path(name).exists() and out.exists() and out.samefile(name) for name in inputs):
            raise InputError(f"--out {out} is the input itself", fix="give another file; the input is never overwritten")
        _load(plugin)
        from nnrun.trained import load

        net = load(checkpoint, device=device or "auto")
        _note_last(checkpoint, net.path)
        if top_k and not 0 < top_k <= max(1, len(net.task.classes)):
            raise InputError(f"--top-k {top_k}: there are {len(net.task.classes)} classes", fix="give a number from 1 to that")
        predictions = net.stream(inputs, probabilities=proba or top_k > 0)
        write_frames((one.frame(top_k) for one in noted(predictions)), out, json=json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", autocompletion=complete.runs)],
    plugin: Plugins = None,
    device: Device = None,
    data_dir: DataDir = None,
) -> None:
    """Draw the report of a run anew, also of one that was stopped; prints its path."""
    with user_errors():
        _use_data_dir(data_dir)
        _load(plugin)
        from nnrun.report.write import write_report

        print(write_report(run, device=device or "auto"))


@app.command()
def show(
    path: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run folder or a .safetensors file.", autocompletion=complete.runs)
    ],
    json: Json = False,
) -> None:
    """Show what is inside a run or a checkpoint: config, network, learned numbers, provenance."""
    with user_errors():
        from nnrun.runs.show import describe, facts_of

        print(jsonlib.dumps(facts_of(path)) if json else describe(path))


@app.command()
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


@app.command()
def init(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="A table, or a folder with one sub-folder of pictures for each class.")],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="The config to write; by default NAME.yaml, here.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a config that is there.")] = False,
    plugin: Plugins = None,
) -> None:
    """Write a commented config for a table or a folder of pictures; prints its path."""
    with user_errors():
        _load(plugin)
        from nnrun.init.first import first_config, write_config

        config = out or Path(f"{data.absolute().stem}.yaml")
        made = first_config(data, target, config)
        write_config(config, made.text, force=force)
        for note in made.notes:
            say(f"note: {note}")
        print(config)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="datasets, splits, preprocess, augment, layers, losses, optimizers, schedules, metrics, rules.",
            autocompletion=complete.kinds,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One part of that kind: everything about it, with an example.", autocompletion=complete.names)
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """List every registered name: its arguments, one line, file:line; with NAME, one part in full."""
    with user_errors():
        _load(plugin)
        from nnrun import catalog

        parts = catalog.found(kind, name)
        if json:
            facts = [catalog.facts(entry) for entry in parts]
            print(jsonlib.dumps(facts[0] if name else facts))
        else:
            print(catalog.in_full(parts[0]) if name else catalog.listed(parts) if kind else catalog.counted())


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead.", show_default=False)] = None,
    plugin: Plugins = None,
) -> None:
    """Print the JSON Schema of the config, for editors: it completes and explains every key, name and argument."""
    with user_errors():
        _load(plugin)
        from nnrun.spec.schema import schema_text

        write_text(schema_text(), out)


def _train_folds(folds: Folds, signals: Signals, *, json: bool, quiet: bool) -> None:
    """Train the run of each fold, and print the folder of them all, or their figures."""
    from nnrun.folds import told
    from nnrun.runs.folder import strict_json

    for number, run in folds.runs():
        show_training(run, folds.train(run, signals), f"fold {number}/{folds.count}", quiet=quiet)
    for line in told(folds.summary) if not quiet else ():
        say(line)
    print(strict_json(folds.summary) if json else folds.folder)


def _load(plugins: list[str] | None) -> None:
    """Register every part: those of nnrun, then those of the plug-ins that the command line names."""
    import nnrun.builtin  # noqa: F401

    if plugins:
        from nnrun.plugins import load_plugins

        load_plugins(plugins)


def _refuse_without_plugins(out: Path) -> None:
    """Name the plug-ins that a run to go on with needs, before its config is found to hold unknown names."""
    from nnrun.runs.checkpoint import check_plugins, read_header
    from nnrun.runs.folder import LAST

    try:
        facts = read_header(out / LAST).facts
    except CheckpointError:  # none there, or damaged: told when the run is opened
        return
    check_plugins(out / LAST, facts)


def _use_data_dir(data_dir: Path | None) -> None:
    if data_dir is not None:
        os.environ["NNRUN_DATA"] = str(data_dir)


def _note_last(given: Path, taken: Path) -> None:
    """Say that a run folder without a best checkpoint was opened by its last one."""
    from nnrun.runs.folder import BEST, LAST

    if given.is_dir() and taken.name == LAST:
        say(f"note: {given} holds no {BEST}; this is {LAST}, the state in which training stopped")
