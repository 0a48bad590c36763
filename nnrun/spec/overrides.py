"""`--set path=value`: one value of a config, replaced from the command line and placed there."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import ValidationError

from nnrun.errors import Place, SpecError
from nnrun.registry import LAYERS, Registry
from nnrun.spec.base import Location, shown
from nnrun.spec.experiment import Experiment, registry_at
from nnrun.spec.parts import name_and_arguments
from nnrun.spec.source import Source, read_value


def apply_override(source: Source, override: str) -> None:
    """Set one value of a source from `path=value`.

    Raises:
        SpecError: the path is not one, leads through something that has no keys, or the value is not YAML.
    """
    path, equals, text = override.partition("=")
    steps = steps_of(path)
    here = Place("--set", 1, 1, override, len(override))
    if not equals or not steps or isinstance(steps[0], int):
        fix = "write path=value: lr=0.01, optimizer.momentum=0.9, layers[0]=32"
        raise SpecError(f"{shown(override)} is not an override", fix=fix, place=here)
    if steps == ("extends",):
        raise SpecError("extends is read from a file only", fix="write it into the config", place=here)
    written = Source("--set", [override], places={steps: here}, keys={steps: here})
    padded = " " * (len(path) + 1) + text  # the value stands in its own column, so that its faults are pointed at there
    try:
        value = read_value(padded, steps, written)
    except (yaml.YAMLError, RecursionError):
        raise SpecError(f"{shown(text)} is not a YAML value", fix="put it in quotes", place=here) from None
    put(source, steps, value, here)
    source.move(steps, steps, written)


def steps_of(path: str) -> Location:
    """Return the steps of a path such as `optimizer.momentum` or `layers[0]`."""
    return tuple(int(number) if number else word for word, number in re.findall(r"([^.\[\]]+)|\[(\d{1,9})\]", path))


def stand(source: Source, steps: Location, key: Place, value: Place) -> None:
    """Let a value that was put into a source stand somewhere else; so does a section that is only there for it."""
    for depth in range(1, len(steps)):
        source.places.setdefault(steps[:depth], value)
    source.move(steps, steps)
    source.keys[steps], source.places[steps] = key, value


def put(source: Source, steps: Location, value: Any, place: Place) -> None:
    """Set a value deep inside mappings and lists; a part written in a short form is written out when an argument of it is set."""
    values: Any = source.values
    for number, step in enumerate(steps):
        if isinstance(step, int) and not (isinstance(values, list) and step < len(values)):
            count = len(values) if isinstance(values, list) else "no"
            raise SpecError(f"there is no [{step}]: the config has {count} items there", fix="count from 0", place=place)
        if isinstance(step, str) and not isinstance(values, dict):
            raise SpecError(f"{step!r} cannot be set inside a value that is not a mapping", fix="check the path", place=place)
        if number == len(steps) - 1:
            values[step] = value
            return
        inside = values[step] if isinstance(step, int) else values.get(step)
        values[step] = _opened(source, steps[: number + 1], inside, steps[number + 1])
        values = values[step]


def _opened(source: Source, at: Location, value: Any, step: int | str) -> Any:
    """Return a value in the form in which `step` can be set inside it."""
    if isinstance(value, list) or (isinstance(value, dict) and step in value):
        return value
    field = Experiment.model_fields.get(str(at[0])) if len(at) == 1 else None
    if value is None and field is not None and isinstance(field.default, str):
        value = field.default  # what is not written has its default's arguments
    registry = registry_at(at)
    if registry is not None:
        return written_out(source, at, registry, value)
    if at == ("split",) and isinstance(value, str):
        return {"method": value}
    return {} if value is None else value


def written_out(source: Source, at: Location, registry: Registry, value: Any) -> Any:
    """Return a part as one flat mapping, {name: sgd, momentum: 0.9} or {conv2d: null, kernel_size: 3}, moving its places along.

    What is no part is returned as it is: it is told when the whole is checked.
    """
    try:
        name, arguments, path = name_and_arguments(registry, value)
    except ValidationError:
        return value
    if name not in registry:
        return value
    old = Source(source.file, [], places=dict(source.places), keys=dict(source.keys))
    named_by = (*at, name) if registry is LAYERS else (*at, "name")
    named_at = old.keys.get((*at, *path)) if path else old.places.get((*at, "name"), old.places.get(at))
    for known in (source.places, source.keys):
        for inside in [other for other in known if len(other) > len(at) and other[: len(at)] == at]:
            del known[inside]
    for argument in arguments:
        ways = ((*at, name, argument), (*at, argument), (*at, name))
        for stood in [way for way in ways if way in old.places][:1]:
            source.move(stood, (*at, argument), old)
    if named_at is not None:
        source.places[named_by] = source.keys[named_by] = named_at
    return {named_by[-1]: None if registry is LAYERS else name, **arguments}
