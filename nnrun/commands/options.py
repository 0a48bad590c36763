"""What several commands take: their common options, and what these do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nnrun import complete
from nnrun.terminal import say

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


def register_parts(plugins: list[str] | None) -> None:
    """Register every part: those of nnrun, then those of the plug-ins that the command line names."""
    import nnrun.builtin  # noqa: F401

    if plugins:
        from nnrun.plugins import load_plugins

        load_plugins(plugins)


def use_data_dir(data_dir: Path | None) -> None:
    """Look for datasets, and keep downloaded ones, in the folder that was given."""
    if data_dir is not None:
        os.environ["NNRUN_DATA"] = str(data_dir)


def note_last(given: Path, taken: Path) -> None:
    """Say that a run folder without a best checkpoint was opened by its last one."""
    from nnrun.runs.folder import BEST, LAST

    if given.is_dir() and taken.name == LAST:
        say(f"note: {given} holds no {BEST}; this is {LAST}, the state in which training stopped")
