"""The reference: a page for each kind of registered part, one each for the config, the commands and the exit codes; all made anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, get_args

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

import nnrun.builtin  # noqa: F401 (fills the registries)
from nnrun import catalog
from nnrun.cli import app
from nnrun.errors import Interrupted, NnrunError
from nnrun.registry import KINDS, Argument, Entry, Registry
from nnrun.spec.base import Spec
from nnrun.spec.experiment import Experiment, plain, registry_at
from nnrun.spec.parts import Part
from nnrun.spec.schema import config_schema

ABOUT = {
    "datasets": "Where the rows come from: the key `dataset`.",
    "splits": "How the rows become a training, a validation and a test part: `split: {method: …}`.",
    "preprocess": "What is done to the inputs, in order: the list `preprocess`. A step learns from the training rows alone.",
    "augment": "What is done at random to the training pictures, anew in each epoch: the list `augment`.",
    "layers": "What a network is made of: the list `layers`. Sizes of inputs are never written; they come from the data. "
    "The key `activation` names one of [the activations](../ideas/activations.md).",
    "losses": "What training makes small: the key `loss`.",
    "optimizers": "How a gradient becomes a step of the weights: the key `optimizer`; its learning rate is the key `lr`.",
    "schedules": "How the learning rate changes over the epochs: the key `schedule`.",
    "metrics": "What is told of a network beside its loss: the list `metrics`, in scikit-learn's names.",
    "trackers": "Who else is told of a run: the key `track`. [Records elsewhere](../tracking.md) has more.",
    "strategies": "How several processes share the network: the key `strategy`. [Many processes](../processes.md) has more.",
    "rules": "What `nnrun check` and `nnrun train` look for. [What it looks for](../checks.md) has an example of what each says.",
}
GENERAL = """\
# Exit codes

What a script can tell from the end of a command. An error is told on stderr with its place and its mend; stdout holds results only.

| code | when |
|---|---|
| 0 | done |
| 1 | a bug of nnrun's own, with a traceback |
"""


def reference() -> dict[str, str]:
    """Return file name → page."""
    pages = {f"{kind}.md": _kind(registry) for kind, registry in KINDS.items()}
    return pages | {"config.md": _config(), "commands.md": _commands(), "exit-codes.md": _exit_codes()}


def _kind(registry: Registry) -> str:
    """Return the page of one kind: what it is, an index, and each part under its name; activations after the other layers."""
    entries = sorted((registry[name] for name in registry), key=_activation)
    groups = (
        ["Activations:"] * again + [" · ".join(f"[{one.name}](#{one.name.lower()})" for one in few)]
        for again, few in groupby(entries, _activation)
    )
    index = [line for group in groups for line in group]
    return "\n\n".join([f"# {registry.kind.capitalize()}", ABOUT[registry.kind], *index, *map(_part, entries)]) + "\n"


def _activation(entry: Entry) -> bool:
    return bool(entry.traits.get("activation"))


def _part(entry: Entry) -> str:
    """Return everything there is to say of one part, as `nnrun list KIND NAME` says it."""
    severity = f"**{entry.traits['severity']}** · " if entry.kind == "rules" else ""
    said = [f"## {entry.name} {{#{entry.name.lower()}}}", severity + _text(entry.summary), *([_text(entry.body)] if entry.body else [])]
    if entry.arguments:
        rows = ([f"`{a.name}`", _text(catalog.in_words(a.type)), _default(a.required, a), _text(a.help)] for a in entry.arguments.values())
        said.append(_table(["argument", "type", "default", "what it is"], rows))
    written = "\n".join(f"# {title}\n{text}" for title, text in catalog.examples(entry).items())
    return "\n\n".join([*said, *([f"```yaml\n{written}```"] if written else [])])


def _config() -> str:
    """Return the page of the config: every key, and those of its sections."""
    needed = config_schema()["then"]["required"]
    said = [f"# Config keys\n\n{_text(_first(Experiment))}", _keys(Experiment, needed)]
    for name, section in _sections().items():
        said += [f"## {name} {{#{name}}}\n\n{_text(_first(section))}", _keys(section, ())]
    return "\n\n".join(said) + "\n"


def _keys(spec: type[Spec], needed: Sequence[str]) -> str:
    rows = (
        [f"`{name}`", _type(name, one), _default(name in needed, one), _text(one.description or "")]
        for name, one in spec.model_fields.items()
    )
    return _table(["key", "type", "default", "what it is"], rows)


def _sections() -> dict[str, type[Spec]]:
    """Return key → class for each key of the config that has keys of its own."""
    kinds = [(name, kind) for name, one in Experiment.model_fields.items() for kind in (one.annotation, *get_args(one.annotation))]
    return {name: kind for name, kind in kinds if isinstance(kind, type) and issubclass(kind, Spec) and not issubclass(kind, Part)}


def _type(name: str, one: FieldInfo) -> str:
    if name in _sections():
        return f"[its own keys](#{name})"
    said = _text(catalog.in_words(Annotated[(one.annotation, *one.metadata)] if one.metadata else one.annotation))
    parts = registry_at((name,)) or registry_at((name, 0))
    return f"[{said}]({parts.kind}.md)" if parts else said


def _default(needed: bool, one: FieldInfo | Argument) -> str:
    value = plain(one.get_default(call_default_factory=True)) if isinstance(one, FieldInfo) else one.default
    return "must be given" if needed else "" if value is PydanticUndefined or isinstance(value, dict) else f"`{catalog.shown(value)}`"


def _commands() -> str:
    """Return the page of the commands, which Typer makes of them."""
    group = typer.main.get_command(app)
    with typer.Context(group, info_name="nnrun") as context:
        commands = [group.get_command(context, name) for name in group.list_commands(context)]
        made = [get_docs_for_click(obj=one, ctx=context, indent=1, call_prefix="nnrun") for one in commands]
    return "# Commands\n\n" + re.sub(r"\* `(-h, )?--help`.*\n", "", "".join(made))


def _exit_codes() -> str:
    codes: dict[str, list[str]] = {}
    for error in sorted(NnrunError.__subclasses__(), key=lambda one: (one is Interrupted, one.exit_code)):
        code = "130, 143" if error is Interrupted else str(error.exit_code)
        codes.setdefault(code, []).append(_text(_first(error)).rstrip("."))
    return GENERAL + "".join(f"| {code} | {'; '.join(said)} |\n" for code, said in codes.items())


def _first(one: type) -> str:
    return (one.__doc__ or "").partition("\n\n")[0].strip()


def _table(head: list[str], rows: Iterator[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(" ".join(cell.split()).replace("|", r"&#124;") for cell in line) + " |" for line in lines)


def _text(said: str) -> str:
    """Return plain text as Markdown: only `code` keeps its marks."""
    pieces = re.split(r"(`[^`]+`)", said)
    marks = {"<": "&lt;", **{char: f"\\{char}" for char in "*_[]"}}
    return "".join(piece if piece.startswith("`") else re.sub(r"[<*_\[\]]", lambda found: marks[found[0]], piece) for piece in pieces)
