"""A registered part as a config writes it, checked against its builder's own signature.

Three ways to write one, the same for every kind:

    optimizer: adam                                 its name
    optimizer: {name: sgd, momentum: 0.9}           its name among its arguments
    dataset: {csv: data/mine.csv, target: species}  its name as a key; the value sets the first argument, or is a mapping of them

In a list of layers `name` is the label of the layer, so there only the first and the last form exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from glob import iglob
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, create_model
from pydantic_core import core_schema

from nnrun.errors import closest
from nnrun.registry import (
    AUGMENT,
    DATASETS,
    LAYERS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    PREPROCESS,
    RULES,
    SCHEDULES,
    SPLITS,
    STRATEGIES,
    TRACKERS,
    Entry,
    Registry,
)
from nnrun.spec.base import Location, Spec, fault, no_such_name, shown
from nnrun.spec.wording import form

WIDEST = 1_000_000_000


class Part(Spec):
    """A registered name with its arguments; each registered part has a subclass of its own, made from its signature."""

    entry: ClassVar[Entry]
    label: str | None = form(
        r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", "conv1", "head", fix="write letters, digits and _", default=None, alias="name"
    )
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


@dataclass(frozen=True)
class Of:
    """Says of a field that it holds a part of this registry; with a trait, one that has it; with widths, or a number of outputs."""

    registry: Registry
    trait: str = ""
    widths: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"part": f"{self.registry.kind}{'.' * bool(self.trait)}{self.trait}", "widths": self.widths}  # see nnrun.spec.schema

    def names(self) -> list[str]:
        """Return the names that may be written here."""
        return [name for name in self.registry if not self.trait or self.registry[name].traits.get(self.trait)]

    def _check(self, value: Any, info: ValidationInfo) -> Part | int:
        if isinstance(value, Part):
            return value
        if self.widths and isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= WIDEST:
                bound = "at least 1" if value < 1 else f"at most {WIDEST}"
                raise fault(f"a width of {value} is not {bound}", "write how many outputs the layer has", given=value)
            return value
        name, arguments, path = name_and_arguments(self.registry, value)
        at = path if isinstance(value, dict) and path else (("name",) if isinstance(value, dict) else ())
        if name not in self.registry:
            see = f"nnrun list {self.registry.kind} shows all {len(self.registry)}"
            what, fix = no_such_name(self.registry.singular, name, self.names(), see=see)
            fix = f"write `{name}`, without quotes" if self.widths and name.isdecimal() else fix
            raise fault(what, fix, at=at, on_key=bool(path), given=name)
        if name not in self.names():
            near = closest(name, self.names())
            fix = f"did you mean {near!r}?" if near else f"nnrun list {self.registry.kind} shows them"
            raise fault(f"{name!r} is not an {self.trait}", fix, at=at, on_key=bool(path))
        return part_class(self.registry, name).model_validate(arguments, context=info.context)


def name_and_arguments(registry: Registry, value: Any) -> tuple[str, dict[str, Any], Location]:
    """Return the part's name, its arguments, and the path of the key that named it (empty when a value did).

    Raises:
        ValidationError: the value is not one of the ways to write a part.
    """
    if isinstance(value, str):
        return value, {}, ()
    if not isinstance(value, dict) or not value:
        example = next(iter(registry))
        raise fault(f"{shown(value)} is not {_a(registry.singular)}", f"write its name, such as `{example}` (nnrun list {registry.kind})")
    if registry is not LAYERS and "name" in value:
        if not isinstance(value["name"], str):
            raise fault(f"{shown(value['name'])} is not the name of {_a(registry.singular)}", at=("name",))
        return value["name"], {key: item for key, item in value.items() if key != "name"}, ()
    named = _naming_key(registry, value)
    inner, rest = value[named], {key: item for key, item in value.items() if key != named}
    if named not in registry:
        return str(named), {}, (named,)
    for other in rest:
        if registry is LAYERS and other in registry and other not in registry[named].arguments:
            raise fault(f"{other!r} is a layer of its own", f"begin a new item before it: `- {other}`", at=(other,), on_key=True)
    if inner is None:
        return named, rest, (named,)
    if not isinstance(inner, dict):
        first = next(iter(registry[named].arguments), None)
        if first is None:
            raise fault(f"{registry.singular} {named!r} takes no arguments, and was given {shown(inner)}", f"write `{named}`")
        inner = {first: inner}
    for twice in inner.keys() & rest.keys():
        raise fault(f"{twice!r} is given twice", "keep one of them", at=(twice,), on_key=True)
    return named, {**inner, **rest}, (named,)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _naming_key(registry: Registry, value: dict[str, Any]) -> str:
    """Return the key of a mapping that names the part: a registered one, else the one that was meant to be."""
    keys = [key for key in value if key != "name"] if registry is LAYERS else list(value)
    known = next((key for key in keys if key in registry), None)
    if known is not None:
        return known
    if not keys:
        raise fault(f"{_a(registry.singular)} is missing beside 'name'", f"write `{{{next(iter(registry))}: …, name: {value['name']}}}`")
    for key in keys:
        if registry is not LAYERS and value[key] in list(registry) and closest(key, ["name"]):
            what, fix = no_such_name("key", key, ["name"], see=f"{{name: {value[key]}, …}}")
            raise fault(what, fix, at=(key,), on_key=True)
        owner = next((name for name in registry if key in registry[name].arguments), None)
        if owner and not any(closest(other, registry) for other in keys):
            what = f"{key!r} is given, and the {registry.singular} is not named"
            raise fault(what, f"write its name first, such as `{owner}`: {{{owner}: {{{key}: …}}}}", at=(key,), on_key=True)
    return next((key for key in keys if closest(key, registry)), keys[0])


def as_written(part: Part) -> Any:
    """Return the part in its longest form, for the saved config: every argument written out."""
    arguments = part.arguments()
    if part.entry.kind == LAYERS.kind:
        labelled = arguments | ({"name": part.label} if part.label else {})
        return {part.entry.name: labelled} if labelled else part.entry.name
    return {"name": part.entry.name, **arguments}


def _named(registry: Registry, singular: str) -> Any:
    def check(value: str) -> str:
        if value not in registry:
            raise fault(*no_such_name(singular, value, registry, see=f"nnrun list {registry.kind} shows all {len(registry)}"), given=value)
        return value

    return AfterValidator(check)


def _found(path: str, info: ValidationInfo) -> str:
    """Return a data path made absolute: beside the config (or one it extends) if it is there, else from the current folder."""
    try:
        here = Path(path).expanduser()
        beside = [Path(folder) / here for folder in (info.context or {}).get("folders", ["."])]
        return str(next((one for one in beside if one.exists() or next(iglob(str(one), recursive=True), None)), here).absolute())
    except (OSError, RuntimeError, ValueError) as error:  # too long, a user that does not exist, a null character
        raise fault(f"{shown(path)} is not a path: {getattr(error, 'strerror', None) or error}", "check the path", given=path) from None


def _all_found(path: str | list[str], info: ValidationInfo) -> str | list[str]:
    return _found(path, info) if isinstance(path, str) else [_found(one, info) for one in path]


DataPath = Annotated[str, AfterValidator(_found)]
"""The path of a data file: absolute, or relative to the config's folder or else the current one. The builder gets it absolute."""

DataPaths = Annotated[str | list[str], AfterValidator(_all_found)]
"""The same of one or several files, each perhaps a pattern."""

DatasetPart = Annotated[Part, Of(DATASETS)]
AugmentPart = Annotated[Part, Of(AUGMENT)]
PreprocessPart = Annotated[Part, Of(PREPROCESS)]
LayerPart = Annotated[Part, Of(LAYERS)]
ActivationPart = Annotated[Part, Of(LAYERS, trait="activation")]
WidthOrLayer = Annotated[int | Part, Of(LAYERS, widths=True)]
LossPart = Annotated[Part, Of(LOSSES)]
OptimizerPart = Annotated[Part, Of(OPTIMIZERS)]
SchedulePart = Annotated[Part, Of(SCHEDULES)]
TrackerPart = Annotated[Part, Of(TRACKERS)]
StrategyPart = Annotated[Part, Of(STRATEGIES)]
MetricName = Annotated[str, _named(METRICS, "metric"), Field(json_schema_extra={"part": "metrics"})]
SplitName = Annotated[str, _named(SPLITS, "split method"), Field(json_schema_extra={"part": "splits"})]
RuleCode = Annotated[str, _named(RULES, "rule"), Field(json_schema_extra={"part": "rules"})]
