"""Name → builder. A builder is a plain function, and everything said about a part is read off it.

    its keyword-only parameters   the arguments a config may give; the first one is what `name: value` sets
    its other parameters          what nnrun supplies when it builds the part
    its docstring                 the first line is its line in `nnrun list`; `Args:` is the help of each argument
    the traits of `register`      facts other code asks for, such as the kind of target a loss compares with

Registering must not import torch: see `nnrun.lazy`. The registries are closed tables: nothing in a config or a checkpoint can add to them.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

Builder = TypeVar("Builder", bound=Callable[..., Any])


class PartError(ValueError):
    """A part cannot be registered; `nnrun.plugins` adds which line asked for it."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix


@dataclass(frozen=True)
class Argument:
    """One argument of a part: its type, its default (`inspect.Parameter.empty` when it must be given) and its help."""

    name: str
    type: Any
    default: Any
    help: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Entry:
    """One registered part."""

    kind: str
    name: str
    build: Callable[..., Any]
    traits: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the builder's docstring."""
        return (inspect.getdoc(self.build) or "").partition("\n")[0]

    @property
    def plugin(self) -> str:
        """The module that the builder is written in; empty for a part of nnrun itself."""
        module = str(getattr(self.build, "__module__", ""))
        return "" if module.partition(".")[0] == "nnrun" else module

    @property
    def body(self) -> str:
        """The builder's docstring between its first line and its sections of arguments and errors."""
        rest = (inspect.getdoc(self.build) or "").partition("\n")[2]
        for section in ("Args:", "Returns:", "Raises:"):
            rest = rest.partition(f"{section}\n")[0]
        return rest.strip()

    @property
    def place(self) -> str:
        """The builder's file and line, as `nnrun list` prints it."""
        code = inspect.unwrap(self.build).__code__
        return f"{Path(code.co_filename)}:{code.co_firstlineno}"

    @cached_property
    def arguments(self) -> dict[str, Argument]:
        """What a config may give, in order, by name. Only these annotations are resolved: the others may name torch."""
        given = [p for p in inspect.signature(self.build).parameters.values() if p.kind is p.KEYWORD_ONLY]
        holder = types.SimpleNamespace(__annotations__={p.name: p.annotation for p in given})
        hints = typing.get_type_hints(holder, globalns=inspect.unwrap(self.build).__globals__, include_extras=True)
        helps = _argument_help(inspect.getdoc(self.build) or "")
        return {p.name: Argument(p.name, hints[p.name], p.default, helps.get(p.name, "")) for p in given}


class Registry:
    """The parts of one kind, by name, in the order they were registered."""

    def __init__(self, kind: str, singular: str) -> None:
        self.kind = kind
        self.singular = singular
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, **traits: Any) -> Callable[[Builder], Builder]:
        """Decorate a builder so that configs can name it; a name is given once.

        Raises:
            PartError: the name is taken, or a part of a plug-in is not what a part of this kind is.
        """

        def add(build: Builder) -> Builder:
            entry = Entry(self.kind, name, build, traits)
            if name in self._entries:
                raise PartError(f"the {self.singular} {name!r} is registered already: {self._entries[name].place}", "give it another name")
            if entry.plugin:
                from nnrun.plugins import check_part

                check_part(entry, self.singular)
            self._entries[name] = entry
            return build

        return add

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


DATASETS = Registry("datasets", "dataset")
SPLITS = Registry("splits", "split")
PREPROCESS = Registry("preprocess", "preprocessing step")
AUGMENT = Registry("augment", "augmentation")
LAYERS = Registry("layers", "layer")
LOSSES = Registry("losses", "loss")
OPTIMIZERS = Registry("optimizers", "optimizer")
SCHEDULES = Registry("schedules", "schedule")
METRICS = Registry("metrics", "metric")
RULES = Registry("rules", "rule")
TRACKERS = Registry("trackers", "tracker")
STRATEGIES = Registry("strategies", "strategy")

KINDS: dict[str, Registry] = {
    registry.kind: registry
    for registry in (DATASETS, SPLITS, PREPROCESS, AUGMENT, LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, METRICS, RULES, TRACKERS, STRATEGIES)
}


def _argument_help(docstring: str) -> dict[str, str]:
    """Return name → text of the `Args:` section of a Google-style docstring."""
    helps: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Args:\n")[2].splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 4 and ":" in line:
            name, _, text = line.strip().partition(":")
            helps[name] = text.strip()
        elif indent > 4 and name:
            helps[name] += " " + line.strip()
        elif line.strip() == "" or indent < 4:
            name = ""
    return helps
