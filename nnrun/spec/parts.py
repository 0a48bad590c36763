"""A registered part as a config writes it, checked against its builder's own signature.

Three ways to write one, the same for every kind:

    optimizer: adam                                 its name
    optimizer: {name: sgd, momentum: 0.9}           its name among its arguments
    dataset: {csv: data/mine.csv, target: species}  its name as a key; the value sets the first argument, or is a mapping of them

In a list of layers `name` is the label of the layer, so there only the first and the last form exist.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, WrapValidator, create_model

from nnrun.registry import DATASETS, LAYERS, LOSSES, OPTIMIZERS, PREPROCESS, SCHEDULES, Entry, Registry
from nnrun.spec.base import Location, Spec, fault, no_such_name, shown


class Part(Spec):
    """A registered name with its arguments; each registered part has a subclass of its own, made from its signature."""

    entry: ClassVar[Entry]
    label: str | None = Field(default=None, alias="name", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    """The name of a layer in the checkpoint and in `show`."""

    @classmethod
    def keys(cls) -> list[str]:
        """Return the arguments that a config may write here; only a layer has a label."""
        return [*cls.entry.arguments, *(["name"] if cls.entry.kind == LAYERS.kind else [])]

    def arguments(self) -> dict[str, Any]:
        """Return every argument of the builder, defaults filled in."""
        return {name: getattr(self, name) for name in self.entry.arguments}

    def build(self, *supplied: Any) -> Any:
        """Call the builder with what nnrun supplies and what the config says."""
        return self.entry.build(*supplied, **self.arguments())


@cache
def part_class(registry: Registry, name: str) -> type[Part]:
    """Return the class that checks the arguments of one registered part."""
    entry = registry[name]
    fields: dict[str, Any] = {
        argument.name: (argument.type, Field(... if argument.required else argument.default, description=argument.help or None))
        for argument in entry.arguments.values()
    }
    made = create_model(name, __base__=Part, __doc__=entry.summary, **fields)
    made.entry = entry
    return made


def _check(registry: Registry, value: Any, info: ValidationInfo) -> Part:
    if isinstance(value, Part):
        return value
    name, arguments, path = _name_and_arguments(registry, value)
    if name not in registry:
        known_as_key = path if isinstance(value, dict) and path else (("name",) if isinstance(value, dict) else ())
        see = f"nnrun list {registry.kind} shows all {len(registry)}"
        what, fix = no_such_name(registry.singular, name, registry, see=see)
        raise fault(what, fix, at=known_as_key, on_key=bool(path), given=name)
    return part_class(registry, name).model_validate(arguments, context=info.context)


def _name_and_arguments(registry: Registry, value: Any) -> tuple[str, dict[str, Any], Location]:
    """Return the part's name, its arguments, and the path of the key that named it (empty when a value did)."""
    labelled = registry is LAYERS
    if isinstance(value, str):
        return value, {}, ()
    if not isinstance(value, dict) or not value:
        example = next(iter(registry))
        raise fault(f"{shown(value)} is not a {registry.singular}", f"write its name, such as `{example}` (nnrun list {registry.kind})")
    if not labelled and "name" in value:
        if not isinstance(value["name"], str):
            raise fault(f"{shown(value['name'])} is not the name of a {registry.singular}", at=("name",))
        return value["name"], {key: item for key, item in value.items() if key != "name"}, ()
    keys = [key for key in value if key != "name"] if labelled else list(value)
    named = next((key for key in keys if key in registry), keys[0] if keys else None)
    if named is None:
        raise fault(f"a {registry.singular} is missing beside 'name'", f"write `{{{next(iter(registry))}: …, name: {value['name']}}}`")
    inner, rest = value[named], {key: item for key, item in value.items() if key != named}
    if named not in registry:
        return str(named), {}, (named,)
    if inner is None:
        return named, rest, (named,)
    if not isinstance(inner, dict):
        first = next(iter(registry[named].arguments), None)
        if first is None:
            raise fault(f"{registry.singular} {named!r} takes no arguments, and was given {shown(inner)}", f"write `{named}`", at=(named,))
        inner = {first: inner}
    for twice in inner.keys() & rest.keys():
        raise fault(f"{twice!r} is given twice", "keep one of them", at=(twice,), on_key=True)
    return named, {**inner, **rest}, (named,)


def as_written(part: Part) -> Any:
    """Return the part in its longest form, for the saved config: every argument written out."""
    arguments = part.arguments()
    if part.entry.kind == LAYERS.kind:
        labelled = arguments | ({"name": part.label} if part.label else {})
        return {part.entry.name: labelled} if labelled else part.entry.name
    return {"name": part.entry.name, **arguments}


def _of(registry: Registry) -> Any:
    def check(value: Any, handler: Any, info: ValidationInfo) -> Part:
        return _check(registry, value, info)

    return WrapValidator(check)


def _width_or_layer(value: Any, handler: Any, info: ValidationInfo) -> int | Part:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise fault(f"a width of {value} is not at least 1", "write how many outputs the layer has", given=value)
        return value
    return _check(LAYERS, value, info)


def _found(path: str, info: ValidationInfo) -> str:
    """Return a data path made absolute: beside the config if it is there, else from the current folder."""
    beside = Path((info.context or {}).get("folder", ".")) / Path(path).expanduser()
    return str((beside if beside.exists() else Path(path).expanduser()).absolute())


DataPath = Annotated[str, AfterValidator(_found)]
"""The path of a data file: absolute, or relative to the config's folder or else the current one. The builder gets it absolute."""

DatasetPart = Annotated[Part, _of(DATASETS)]
PreprocessPart = Annotated[Part, _of(PREPROCESS)]
LayerPart = Annotated[Part, _of(LAYERS)]
WidthOrLayer = Annotated[int | Part, WrapValidator(_width_or_layer)]
LossPart = Annotated[Part, _of(LOSSES)]
OptimizerPart = Annotated[Part, _of(OPTIMIZERS)]
SchedulePart = Annotated[Part, _of(SCHEDULES)]
