"""What `nnrun list` says of the registered parts: by kind, one line each, or one in full with an example for a config."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from nnrun.errors import InputError
from nnrun.registry import KINDS, Argument, Entry
from nnrun.spec.base import no_such_name, shown
from nnrun.spec.parts import DataPath, DataPaths, Of

WORDS: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
BOUNDS = (("ge", "at least"), ("gt", "greater than"), ("le", "at most"), ("lt", "less than"))
KEYS = {
    "datasets": "dataset",
    "losses": "loss",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "trackers": "track",
    "strategies": "strategy",
}
LISTS = ("preprocess", "augment", "layers")
SAMPLES: dict[str, Any] = {  # values for arguments that have no default, by name
    "path": "data/mine.csv",
    "npz.path": "data/mine.npz",
    "pictures.path": "data/flowers",
    "target": "species",
    "x": [[0.0, 1.0], [1.0, 0.0]],
    "y": [1.0, 2.0],
    "size": 32,
    "by": 2,
    "out_channels": 16,
    "kernel_size": 3,
    "output_size": 4,
    "out_features": 64,
    "num_groups": 4,
    "num_embeddings": 1000,
    "embedding_dim": 32,
    "hidden_size": 64,
    "shape": [16, 2, 2],
    "layers": [{"linear": 16}, "relu"],
    "threshold": 0.1,
    "value": 0.0,
    "step_size": 30,
    "milestones": [30, 80],
    "gamma": 0.95,
}


SPLIT_SAMPLES: dict[str, dict[str, Any]] = {
    "rows": {"train": "0:100", "val": "100:120", "test": "rest"},
    "files": {"train": "a.csv", "test": "b.csv"},
    "group": {"train": 0.6, "val": 0.2, "test": 0.2, "group": "patient"},
    "time": {"train": 0.6, "val": 0.2, "test": 0.2, "by": "date"},
    "hash": {"train": 0.6, "val": 0.2, "test": 0.2, "id": "customer"},
    "column": {"column": "part"},
}
"""What a split method needs beside its name."""


def found(kind: str | None, name: str | None = None) -> list[Entry]:
    """Return the parts of a kind, or of all kinds; with a name, that one.

    Raises:
        InputError: there is no such kind, or no such part of it.
    """
    if kind is None:
        return [registry[each] for registry in KINDS.values() for each in registry]
    if kind not in KINDS:
        what, fix = no_such_name("kind", kind, KINDS)
        raise InputError(what, fix=fix)
    if name is not None and name not in KINDS[kind]:
        what, fix = no_such_name(KINDS[kind].singular, name, KINDS[kind], see=f"nnrun list {kind} shows all {len(KINDS[kind])}")
        raise InputError(what, fix=fix)
    return [KINDS[kind][each] for each in KINDS[kind] if name in (None, each)]


def counted() -> str:
    """Return a line for each kind: how many parts it has, and their names."""
    return "\n".join(f"{one.kind:<12}{len(one):>4}  {', '.join(one)}" for one in KINDS.values())


def listed(entries: Iterable[Entry]) -> str:
    """Return three lines for each part: its arguments with their defaults, what it is, where it is."""
    return "\n".join(f"{_call(entry)}\n    {entry.summary}\n    {entry.place}" for entry in entries)


def facts(entry: Entry) -> dict[str, Any]:
    """Return what `nnrun list --json` says of a part; a default is null where one must be given, and `required` is true."""
    arguments = [
        {"name": a.name, "type": in_words(a.type), "required": a.required, "default": None if a.required else a.default, "help": a.help}
        for a in entry.arguments.values()
    ]
    told = {"kind": entry.kind, "name": entry.name, "summary": entry.summary, "place": entry.place, "arguments": arguments}
    return told | ({**entry.traits, "reason": entry.body} if entry.kind == "rules" else {})


def in_full(entry: Entry) -> str:
    """Return everything there is to say of one part: its docstring, each argument, and how a config writes it."""
    paragraphs = [f"{_call(entry)}\n{entry.place}", entry.summary]
    if entry.body:
        paragraphs.append(entry.body)
    if entry.arguments:
        paragraphs.append("\n".join(["arguments:", *(line for argument in entry.arguments.values() for line in _told(argument))]))
    paragraphs += [f"{title}:\n{_indented(text)}" for title, text in examples(entry).items()]
    return "\n\n".join(paragraphs)


def examples(entry: Entry) -> dict[str, str]:
    """Return title → YAML that a config can hold: the shortest way to write a part, and the longest."""
    if entry.kind == "rules":
        return {"to silence it": f"ignore: [{entry.name}]\n"}
    if entry.kind == "metrics":
        return {"in a config": f"metrics: [{entry.name}]\n"}
    if entry.kind == "splits":
        sizes = SPLIT_SAMPLES.get(entry.name, {"train": 0.6, "val": 0.2, "test": 0.2})
        longest = f"split: {_flow({**sizes, 'method': entry.name})}\n"
        return {"in a config": longest} if entry.name in SPLIT_SAMPLES else {"short": f"split: {entry.name}\n", "long": longest}
    if entry.kind not in (*KEYS, *LISTS):
        return {}
    needed = {a.name: SAMPLES.get(f"{entry.name}.{a.name}", SAMPLES.get(a.name, 1)) for a in entry.arguments.values() if a.required}
    every = {a.name: needed[a.name] if a.required else a.default for a in entry.arguments.values()}
    first = next(iter(entry.arguments), "")
    short: Any = {entry.name: needed[first] if list(needed) == [first] else needed} if needed else entry.name
    made = {"short": _under(entry.kind, short)}
    if every and every != needed:
        made["long"] = _under(entry.kind, {entry.name: every})
    return made if len(made) > 1 else {"in a config": made["short"]}


def in_words(annotation: Any) -> str:
    """Return the type of an argument as a person would say it, with its bounds."""
    if annotation in (DataPath, DataPaths):
        return "path" if annotation is DataPath else "path or list of paths"
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        of = next((mark for mark in marks if isinstance(mark, Of)), None)
        said = of.registry.singular if of else in_words(inner)
        bounds = _bounds(marks)
        return f"{said} ({', '.join(bounds)})" if bounds else said
    if get_origin(annotation) is Literal:
        return " or ".join(shown(value) for value in get_args(annotation))
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(one) for one in get_args(annotation)))
    if get_origin(annotation) is list:
        one = in_words(get_args(annotation)[0])
        return "list of " + re.sub(r"\b(list|number|layer)\b", r"\1s", one, count=1)
    if get_origin(annotation) is dict:
        key, value = map(in_words, get_args(annotation))
        return f"mapping of {key} to {value}"
    return WORDS.get(annotation, str(annotation))


def _bounds(marks: Iterable[Any]) -> list[str]:
    """Return the bounds among the marks of a type."""
    said: list[str] = []
    for mark in marks:
        if isinstance(mark, FieldInfo):
            said += _bounds(mark.metadata)
        elif isinstance(mark, Ge | Gt | Le | Lt | Interval):
            found = ((word, getattr(mark, bound, None)) for bound, word in BOUNDS)
            said += [f"{word} {value:g}" for word, value in found if value is not None and abs(value) < 1e9]
        elif isinstance(mark, MinLen | MaxLen | Len):
            lengths = (("at least", getattr(mark, "min_length", 0)), ("at most", getattr(mark, "max_length", None)))
            said += [f"{word} {length} of them" for word, length in lengths if length]
    return ["2 of them"] if said == ["at least 2 of them", "at most 2 of them"] else said


def _call(entry: Entry) -> str:
    if entry.kind == "rules":
        return f"{entry.name} ({entry.traits['severity']}, on the {entry.traits['on']})"
    given = ", ".join(a.name if a.required else f"{a.name}={shown(a.default)}" for a in entry.arguments.values())
    return f"{entry.name}({given})"


def _told(argument: Argument) -> list[str]:
    default = "must be given" if argument.required else f"by default {shown(argument.default)}"
    return [f"  {argument.name}: {in_words(argument.type)}; {default}", f"      {argument.help}"]


def _under(kind: str, part: Any) -> str:
    return f"{kind}:\n  - {_flow(part)}\n" if kind in LISTS else f"{KEYS[kind]}: {_flow(part)}\n"


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump([value], sort_keys=False, default_flow_style=True, width=10_000, allow_unicode=True).strip()[1:-1]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip("\n").splitlines())
