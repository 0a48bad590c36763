"""Hypothesis strategies for configs, drawn from the registries and the schema: every part, in every way to write it."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

import nnrun.builtin  # noqa: F401
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
    STRATEGIES,
    TRACKERS,
    Registry,
)
from nnrun.spec.parts import Of
from nnrun.spec.ranges import label
from nnrun.spec.schema import config_schema

SCHEMA = config_schema()
SWEEP = SCHEMA["$defs"]["SweepSpec"]["properties"]
Values = st.SearchStrategy[Any]
TRICKY = [
    "1e3",
    "1",
    "0o17",
    "0x1F",
    "null",
    "~",
    "yes",
    "true",
    "1_000",
    "2020-01-01",
    "1:30",
    "",
    " x ",
    "a: b",
    "# c",
    "- d",
    "x\ny",
    "<<",
    "=",
    "é\u2028",
    "\ufeff",
]


def value(schema: dict[str, Any], depth: int = 0) -> Values:
    """Return what a piece of the schema allows: the few words of JSON Schema that arguments and fields are described with."""
    if schema.get("$ref", "").startswith("#/$defs/layers"):
        return part(LAYERS, depth + 1)
    if "anyOf" in schema:
        return st.one_of([value(branch, depth) for branch in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kind = schema["type"]
    if kind == "integer":
        least, most = schema.get("minimum", -(2**40)), schema.get("maximum", schema.get("exclusiveMaximum", 2**40 + 1) - 1)
        return st.integers(least, most)
    if kind == "number":
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        bounds = {"min_value": schema.get("minimum", above), "max_value": schema.get("maximum", below)}
        return st.floats(**bounds, exclude_min=above is not None, exclude_max=below is not None, allow_nan=False, allow_infinity=False)
    if kind == "string":
        pattern = schema.get("pattern", "").replace("$", r"\Z")
        tricky = [text for text in TRICKY if re.search(pattern, text)]
        free = st.from_regex(pattern) if pattern else st.text(max_size=12)
        return free | st.sampled_from(tricky) if tricky else free
    if kind == "array":
        return st.lists(value(schema["items"], depth), min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 3))
    if kind == "object":
        return st.dictionaries(st.text(max_size=12) | st.sampled_from(TRICKY), value(schema["additionalProperties"], depth), max_size=3)
    return {"boolean": st.booleans(), "null": st.none()}[kind]


@st.composite
def part(draw: st.DrawFn, registry: Registry, depth: int = 0, names: list[str] | None = None) -> Any:
    """Return a part with some of its arguments, written in one of the ways."""
    nested = ["residual"] if depth > 1 else []
    name = draw(st.sampled_from([one for one in names or list(registry) if one not in nested]))
    properties = SCHEMA["$defs"][f"{registry.kind}.{name}"]["properties"]
    known = registry[name].arguments
    given = {
        key: draw(value(properties[key], depth))
        for key in properties
        if key != "name"
        if (key in known and known[key].required) or draw(st.booleans())
    }
    label = {"name": draw(value(properties["name"]))} if registry is LAYERS and draw(st.booleans()) else {}
    ways: list[Any] = [{name: {**given, **label}}, {name: None, **given, **label}]
    if name in given:  # threshold: {threshold: 0.1}
        ways = ways[:1]
    if registry is not LAYERS:
        ways.append({"name": name, **given})
    if not given and not label:
        ways.append(name)
    first = next(iter(known), None)
    if first in given and not isinstance(given[first], dict | None):
        ways.append({name: given[first], **{key: item for key, item in given.items() if key != first}, **label})
    return draw(st.sampled_from(ways))


def field(name: str) -> Values:
    """Return what a plain field of the experiment may hold."""
    return value(SCHEMA["properties"][name])


PARTS = {
    "dataset": part(DATASETS),
    "preprocess": st.lists(part(PREPROCESS), max_size=3),
    "augment": st.lists(part(AUGMENT), max_size=3),
    "layers": st.one_of(st.lists(st.integers(1, 10**9), max_size=3), st.lists(part(LAYERS), max_size=4)),
    "activation": part(LAYERS, 2, Of(LAYERS, trait="activation").names()),
    "loss": st.none() | part(LOSSES),
    "optimizer": part(OPTIMIZERS),
    "schedule": part(SCHEDULES),
    "metrics": st.none() | st.lists(st.sampled_from(list(METRICS)), max_size=3),
    "ignore": st.lists(st.sampled_from(list(RULES)), max_size=3),
    "strategy": part(STRATEGIES),
    "track": part(TRACKERS) | st.lists(part(TRACKERS), max_size=3),
}
SECTIONS = {
    "split": st.sampled_from(
        [
            "random",
            {"method": "stratified", "train": 0.5, "val": 0.25, "test": 0.25},
            {"train": 100, "val": 10},
            {"method": "rows", "train": "3:9", "val": [1, 2]},
        ]
    ),
    "early_stopping": st.none()
    | st.fixed_dictionaries({}, optional={"monitor": st.just("train.loss"), "patience": st.integers(1, 99), "min_delta": st.floats(0, 1)}),
    "checkpoint": st.fixed_dictionaries(
        {}, optional={key: value(it) for key, it in SCHEMA["$defs"]["CheckpointSpec"]["properties"].items()}
    ),
}
VARIED = st.sampled_from(["log:1e-4..1e-1", "0..0.5", "int:8..256:8", "logint:1..9", "relu, tanh", "[16], [32, 32]"]) | st.lists(
    st.integers() | st.text(max_size=12) | st.sampled_from(TRICKY) | st.booleans() | st.lists(st.integers(), max_size=2),
    min_size=2,
    max_size=4,
    unique_by=label,
)
SECTIONS["sweep"] = st.none() | st.fixed_dictionaries(
    {},
    optional={
        **{key: value(SWEEP[key]) for key in ("trials", "sampler", "pruner", "max_failures")},
        "params": st.dictionaries(st.sampled_from(["lr", "layers[0]", "<<", "é", "optimizer.momentum"]), VARIED, max_size=3),
    },
)
PLAIN = [name for name in SCHEMA["properties"] if name not in {**PARTS, **SECTIONS, "extends": None}]


def together(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out the keys that do not go with lbfgs."""
    alone = ("clip_grad_norm", "accumulate_batches") if "lbfgs" in str(values.get("optimizer")) else ()
    return {key: item for key, item in values.items() if key not in alone}


CONFIGS = st.fixed_dictionaries(
    {"name": field("name"), "dataset": PARTS["dataset"]},
    optional={
        name: strategy
        for name, strategy in {**{name: field(name) for name in PLAIN}, **PARTS, **SECTIONS}.items()
        if name not in ("name", "dataset")
    },
).map(together)
