"""`nnrun init`, `show`, `list` and `schema`: a first config, and what is there."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from nnrun import complete
from nnrun.commands.options import Json, Plugins, register_parts
from nnrun.terminal import say, user_errors, write_text


def init(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="A table, or a folder with one sub-folder of pictures for each class.")],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="The config to write; by default NAME.yaml, here.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a config that is there.")] = False,
    plugin: Plugins = None,
) -> None:
    """Write a commented config for a table or a folder of pictures; prints its path."""
    with user_errors():
        register_parts(plugin)
        from nnrun.init.first import first_config, write_config

        config = out or Path(f"{data.absolute().stem}.yaml")
        made = first_config(data, target, config)
        write_config(config, made.text, force=force)
        for note in made.notes:
            say(f"note: {note}")
        print(config)


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


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="datasets, splits, preprocess, augment, layers, losses, optimizers, schedules, metrics, rules, trackers.",
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
        register_parts(plugin)
        from nnrun import catalog

        parts = catalog.found(kind, name)
        if json:
            facts = [catalog.facts(entry) for entry in parts]
            print(jsonlib.dumps(facts[0] if name else facts))
        else:
            print(catalog.in_full(parts[0]) if name else catalog.listed(parts) if kind else catalog.counted())


def schema(
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead.", show_default=False)] = None,
    plugin: Plugins = None,
) -> None:
    """Print the JSON Schema of the config, for editors: it completes and explains every key, name and argument."""
    with user_errors():
        register_parts(plugin)
        from nnrun.spec.schema import schema_text

        write_text(schema_text(), out)
