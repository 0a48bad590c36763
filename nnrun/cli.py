"""The command line: which commands there are. Each parses, calls, prints; nothing heavy is imported until one needs it.

Results go to stdout (a path, a table, or one JSON document with --json), everything else to stderr. Exit codes: see `nnrun.errors`.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from nnrun import __version__
from nnrun.commands import judge, look
from nnrun.commands.predict import predict
from nnrun.commands.sweep import sweep
from nnrun.commands.train import train
from nnrun.plugins import LOADED
from nnrun.usage import Group

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "850"}
"""How threads that share a step wait for each other. Sleeping at once makes it half as long again; looking out for as long as GNU's OpenMP
does by itself, 4 to 15 times as long beside a busy process. So they look out for some 20 µs there; other OpenMPs sleep."""
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
    _open_streams()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.update(WAITING | os.environ)
    _collect_later()
    code = None

    def leave() -> None:
        if not isinstance(code, int):
            return
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        if LOADED:  # a plug-in may have left a file open, which is written out with the last of its objects
            gc.collect(0)  # so that the start is over, which freezes
            gc.unfreeze()
            return
        with suppress(OSError, ValueError):  # a closed pipe: Python tells of it
            sys.stdout.flush()
            os._exit(code)

    atexit.register(leave)  # the first, so that it is called as the last: all that is left to do is taking the interpreter apart, 0.1 s
    try:
        app()
    except SystemExit as end:
        code = end.code
        raise


def _open_streams() -> None:
    """Give streams that were closed at the start, as by `>&-`, to nobody: no file that is opened later shall be in their place."""
    while (lowest := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(lowest)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


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
