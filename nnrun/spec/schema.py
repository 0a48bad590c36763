"""The JSON Schema of a config (draft 2020-12), put together from the pydantic models and the registries, for editors and other validators.

Each registered part has a definition of its arguments; each kind one of all the ways to write its parts. `schema.json` beside this file is
the copy that is shipped; a test keeps it fresh.
"""

from __future__ import annotations

import json
from typing import Any

from nnrun.registry import KINDS, LAYERS, METRICS, RULES, SPLITS, Registry
from nnrun.spec.experiment import Experiment, registry_at
from nnrun.spec.parts import WIDEST, Of, part_class

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
EXTENDS = "A config, relative to this file, whose values hold where this one says nothing."


def schema_text() -> str:
    """Return the schema as `nnrun schema` prints it."""
    return json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n"


def config_schema() -> Schema:
    """Return the JSON Schema of a config; every registered part is in it, with its arguments, bounds, defaults and help."""
    made = _linked(Experiment.model_json_schema())
    fields, definitions = made["properties"], made["$defs"]
    definitions["Split"] = {"anyOf": [{"$ref": "#/$defs/splits"}, definitions["Split"]]}
    for registry in KINDS.values():
        if registry in (SPLITS, METRICS, RULES):
            definitions[registry.kind] = _names(list(registry), registry)
        else:
            definitions |= _kind(registry.kind, registry, list(registry))
    definitions |= _kind("layers.activation", LAYERS, Of(LAYERS, trait="activation").names())
    whole = {name: field for name, field in fields.items() if registry_at((name,))}
    return {
        "$schema": DRAFT,
        "title": "nnrun config",
        "description": made["description"],
        "type": "object",
        "properties": {"extends": {"type": "string", "description": EXTENDS}, **fields, **{name: _some(whole[name]) for name in whole}},
        "additionalProperties": False,
        "if": {"not": {"required": ["extends"]}},  # under `extends` a part may be some arguments without its name
        "then": {"properties": whole, "required": ["dataset"]},
        "$defs": definitions,
    }


def _kind(kind: str, registry: Registry, names: list[str]) -> Schema:
    """Return the definitions of one kind: each part's arguments, all the ways to write one, and arguments without a name."""
    made: Schema = {f"{registry.kind}.{name}": _arguments(registry, name) for name in names}
    bare = [name for name in names if not any(one.required for one in registry[name].arguments.values())]
    ways = [_names(bare, registry)] if bare else []
    for name in names:
        ways += [_by_key(registry, name)] if registry is LAYERS else [_by_name(registry, name), _by_key(registry, name)]
    arguments: Schema = {argument: {} for name in names for argument in registry[name].arguments}
    some = {"type": "object", "properties": arguments, "additionalProperties": False}
    return made | {kind: {"anyOf": ways}, f"{kind}.some": {"anyOf": [{"$ref": f"#/$defs/{kind}"}, some]}}


def _some(field: Schema) -> Schema:
    """Return a field of parts with the links to what may be a part without its name."""
    if "anyOf" in field:
        return field | {"anyOf": [_some(branch) for branch in field["anyOf"]]}
    return field | {"$ref": f"{field['$ref']}.some"} if "$ref" in field else field


def _arguments(registry: Registry, name: str) -> Schema:
    """Return the arguments of a part; which of them must be given depends on the way it is written."""
    made: Schema = _linked(part_class(registry, name).model_json_schema())
    if registry is not LAYERS:
        del made["properties"]["name"]
    return {key: value for key, value in made.items() if key not in ("$defs", "required")}


def _names(names: list[str], registry: Registry) -> Schema:
    return {"oneOf": [{"const": name, "description": registry[name].summary} for name in names]}


def _by_name(registry: Registry, name: str) -> Schema:
    """Return the way `{name: sgd, momentum: 0.9}`."""
    link, arguments = f"#/$defs/{registry.kind}.{name}", registry[name].arguments
    return {
        "type": "object",
        "description": registry[name].summary,
        "properties": {"name": {"const": name}, **{one: {"$ref": f"{link}/properties/{one}"} for one in arguments}},
        "required": ["name", *(one for one in arguments if arguments[one].required)],
        "additionalProperties": False,
    }


def _by_key(registry: Registry, name: str) -> Schema:
    """Return the ways `{sgd: {momentum: 0.9}}` and `{csv: mine.csv, target: species}`, whose value sets the first argument."""
    link, arguments = f"#/$defs/{registry.kind}.{name}", registry[name].arguments
    beside = [*arguments, *(["name"] if registry is LAYERS else [])]
    properties: Schema = {one: {"$ref": f"{link}/properties/{one}"} for one in beside}
    first = next(iter(arguments), None)
    one = [{"not": {"type": ["object", "null"]}, "$ref": f"{link}/properties/{first}"}] if first else []
    properties[name] = {"description": registry[name].summary, "anyOf": [{"$ref": link}, *one, {"type": "null"}]}
    made: Schema = {"type": "object", "properties": properties, "required": [name], "additionalProperties": False}
    needed = [argument for argument in arguments if arguments[argument].required]
    ways = {argument: _given(name, argument, first=argument == first) for argument in needed}
    return made | ({"allOf": [{"anyOf": way} for way in ways.values()]} if ways else {})


def _given(name: str, argument: str, *, first: bool) -> list[Schema]:
    """Return the ways in which a required argument can be there: beside the part's name, inside its value, or as the value."""
    beside = [] if argument == name else [{"required": [argument]}]
    inside = {"properties": {name: {"type": "object", "required": [argument]}}}
    return [*beside, inside, *([{"properties": {name: {"not": {"type": ["object", "null"]}}}}] if first else [])]


def _linked(node: Any) -> Any:
    """Return pydantic's schema without its generated titles, and with a link wherever a registered part or name stands."""
    if isinstance(node, list):
        return [_linked(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "part" in node and isinstance(node["part"], str):
        rest = {key: value for key, value in node.items() if key not in ("part", "widths", "type", "title")}
        link = {"$ref": f"#/$defs/{node['part']}"}
        width = {
            "type": "integer",
            "minimum": 1,
            "maximum": WIDEST,
            "description": "A linear layer of so many outputs, and the activation.",
        }
        return rest | ({"anyOf": [width, link]} if node.get("widths") else link)
    return {key: _linked(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
