"""The command line: which commands there are. Each parses, calls, prints; nothing heavy is imported until one needs it.

Results go to stdout (a path, a table, or one JSON document with --json), everything else to stderr. Exit codes: see `nnrun.errors`.
"""

from __future__ import annotations

import gc
import os
from typing import Annotated

import typer

from nnrun import __version__
from nnrun.commands import judge, look
from nnrun.commands.predict import predict
from nnrun.commands.sweep import sweep
from nnrun.commands.train import train
from nnrun.usage import Group

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "850"}
"""How threads that share a step wait for each other. Sleeping at once makes it half as long again; looking out for as long as GNU's OpenMP
does by itself, 4 to 15 times as long beside a busy process. So they look out for some 10 µs there; other OpenMPs sleep."""
OBJECTS_OF_A_START = 500_000
"""More than importing torch and drawing a report take; collecting garbage among them took half a second."""

app = typer.Typer(
    cls=Group,
    name="nnrun",
    help="One YAML file becomes a trained network, its checkpoint, its metrics and a report.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(sweep)
app.command()(judge.check)
app.command("eval")(judge.evaluate)
app.command()(predict)
app.command()(judge.report)
app.command()(judge.compare)
app.command()(look.show)
app.command()(look.init)
app.command("list")(look.list_)
app.command()(look.schema)


def main() -> None:
    """Run the program."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.update(WAITING | os.environ)
    _collect_later()
    app()


def _collect_later() -> None:
    """Look for garbage only when a start is over: torch's import makes a quarter of a million objects that all stay."""
    usual = gc.get_threshold()

    def over(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(over)
        gc.set_threshold(*usual)
        gc.freeze()

    gc.callbacks.append(over)
    gc.set_threshold(OBJECTS_OF_A_START)


@app.callback()
def _program(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"nnrun {__version__}")
        raise typer.Exit
