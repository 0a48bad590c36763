"""The command line: parse, call, print, exit. It imports nothing heavy until a command needs it.

Results go to stdout (a path, a table, or one JSON document with --json), everything else to stderr. Exit codes: see `nnrun.errors`.
"""

from __future__ import annotations

import json as jsonlib
import operator
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from nnrun import __version__, complete
from nnrun.errors import InputError, RequirementError
from nnrun.runs.signals import Signals
from nnrun.terminal import say, say_summary, show_progress, show_report, user_errors, write_table, write_text

app = typer.Typer(
    name="nnrun",
    help="One YAML file becomes a trained network, its checkpoint, its metrics and a report.",
    no_args_is_help=True,
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
    device: Device = None,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the experiment in CONFIG; prints the run folder. Ctrl-C and SIGTERM save and stop, SIGUSR1 saves and goes on."""
    with user_errors(), Signals() as signals:
        overrides = [*(set_ or ()), *([f"device={device}"] if device else ())]
        _use_data_dir(data_dir)
        import nnrun.builtin  # noqa: F401
        from nnrun.spec.reader import read_spec

        spec, source = read_spec(config, overrides)  # before torch is imported: faults of the config are told at once
        from nnrun.run import open_run

        run = open_run(spec, source, out=out, resume=resume, allow_change=allow_change or ())
        told = len(run.notes)
        for note in run.notes if not quiet else ():
            say(f"note: {note}")
        show_progress(run.train(signals), spec.name, done=run.state.epoch, epochs=spec.epochs, quiet=quiet)
        for note in run.notes[told:] if not quiet else ():
            say(f"note: {note}")
        if not quiet:
            say_summary(run.summary)
        from nnrun.runs.folder import strict_json

        print(strict_json(run.summary) if json else run.folder)


@app.command()
def check(
    config: Config,
    set_: Overrides = None,
    fast: Annotated[bool, typer.Option("--fast", help="Only what the config alone says: no data, no network.")] = False,
    device: Device = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Tell what is wrong or unwise in CONFIG before it is trained; exits with 5 when there is an error."""
    with user_errors():
        _use_data_dir(data_dir)
        import nnrun.builtin  # noqa: F401
        from nnrun.check.report import examine
        from nnrun.spec.reader import read_spec

        report = examine(*read_spec(config, [*(set_ or ()), *([f"device={device}"] if device else ())]), fast=fast)
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
    device: Device = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Score a checkpoint; prints the figures."""
    with user_errors():
        if split not in ("train", "val", "test"):
            raise InputError(f"--split {split} is not a part", fix="write train, val or test")
        requirements = [_requirement(text) for text in require or ()]
        _use_data_dir(data_dir)
        from nnrun.trained import load

        net = load(checkpoint, device=device or "auto")
        rows, figures = net.evaluate(split, data=data)
        if json:
            from nnrun.runs.folder import strict_json

            print(
                strict_json({"checkpoint": str(net.path), "split": None if data else split, "data": data, "rows": rows, "metrics": figures})
            )
        else:
            print("\n".join(f"{name}\t{value:.6g}" for name, value in figures.items()))
        _require(requirements, figures)


@app.command()
def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Tables, arrays, pictures, folders of pictures, or - (JSON lines).")
    ],
    checkpoint: CheckpointPath,
    out: Annotated[Path | None, typer.Option(help="Write here instead: .csv, .json or .parquet.", show_default=False)] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Add a column of probabilities for each class.")] = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Predict one row of output for each row of INPUT; prints CSV."""
    with user_errors():
        if out is not None and out.suffix not in (".csv", ".json", ".parquet"):
            raise InputError(f"--out {out}: the ending {out.suffix!r} is not known", fix="end it in .csv, .json or .parquet")
        if out is not None and any(Path(name).exists() and out.exists() and out.samefile(name) for name in inputs):
            raise InputError(f"--out {out} is the input itself", fix="give another file; the input is never overwritten")
        from nnrun.trained import load

        net = load(checkpoint, device=device or "auto")
        predictions = net.predict(net.read(inputs), probabilities=proba)
        for note in predictions.notes:
            say(f"note: {note}")
        write_table(predictions.table(), out, json=json)


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
def init(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV table, or a folder with one sub-folder of pictures for each class.")],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="The config to write; by default NAME.yaml, here.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a config that is there.")] = False,
) -> None:
    """Write a commented config for a table or a folder of pictures; prints its path."""
    with user_errors():
        from nnrun.init import first_config, write_config

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
            help="datasets, splits, preprocess, layers, losses, optimizers, schedules, metrics, rules.", autocompletion=complete.kinds
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One part of that kind: everything about it, with an example.", autocompletion=complete.names)
    ] = None,
    json: Json = False,
) -> None:
    """List every registered name: its arguments, one line, file:line; with NAME, one part in full."""
    with user_errors():
        import nnrun.builtin  # noqa: F401
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
) -> None:
    """Print the JSON Schema of the config, for editors: it completes and explains every key, name and argument."""
    with user_errors():
        import nnrun.builtin  # noqa: F401
        from nnrun.spec.schema import schema_text

        write_text(schema_text(), out)


def _use_data_dir(data_dir: Path | None) -> None:
    if data_dir is not None:
        os.environ["NNRUN_DATA"] = str(data_dir)


_COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def _requirement(text: str) -> tuple[str, str, float]:
    found = re.fullmatch(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*([-+0-9.eE]+)\s*", text)
    try:
        return (found[1], found[2], float(found[3])) if found else _no_requirement(text)
    except ValueError:
        return _no_requirement(text)


def _no_requirement(text: str) -> tuple[str, str, float]:
    raise InputError(f"--require {text!r} is not a comparison", fix="write it like 'accuracy>=0.95'")


def _require(requirements: list[tuple[str, str, float]], figures: dict[str, float]) -> None:
    """Raise unless every requirement holds; nan fulfils none."""
    for name, sign, bound in requirements:
        if name not in figures:
            raise InputError(f"--require {name}: this checkpoint is not scored by it", fix=f"it is scored by {', '.join(figures)}")
        if not _COMPARE[sign](figures[name], bound):
            short = abs(figures[name] - bound)
            raise RequirementError(f"{name} is {figures[name]:.6g}, and {name}{sign}{bound:g} was required: it fails by {short:.3g}")
