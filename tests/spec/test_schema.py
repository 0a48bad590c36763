"""The JSON Schema: shipped, fresh, and of the same opinion as the program about every config in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import nnrun.builtin  # noqa: F401
from nnrun.registry import KINDS
from nnrun.spec.experiment import Experiment
from nnrun.spec.schema import config_schema, schema_text
from nnrun.spec.source import read_source
from tests.conftest import ROOT, Program

SCHEMA = config_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def test_the_shipped_schema_is_fresh():
    """`nnrun schema --out nnrun/spec/schema.json` writes it anew."""
    assert (ROOT / "nnrun/spec/schema.json").read_text(encoding="utf-8") == schema_text()


def test_it_is_a_schema():
    """By the rules of draft 2020-12; and no link in it leads nowhere."""
    Draft202012Validator.check_schema(SCHEMA)
    text = json.dumps(SCHEMA)
    for link in {part.partition('"')[0] for part in text.split('"$ref": "#')[1:]}:
        found: Any = SCHEMA
        for step in link.strip("/").split("/"):
            found = found[step]
    assert '"part"' not in text
    assert '"x-' not in text


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_configs_pass(file: Path):
    """In an editor as in the program."""
    assert [error.message for error in VALIDATOR.iter_errors(read_source(file).values)] == []


def test_every_key_is_explained():
    """A field's docstring is its description; nothing else may be written."""
    assert set(SCHEMA["properties"]) == {*Experiment.model_fields, "extends"}
    assert SCHEMA["additionalProperties"] is False
    for name, field in SCHEMA["properties"].items():
        assert field["description"], name


def test_every_part_is_in_it_with_all_it_takes():
    """Help and default of each argument, as `nnrun list` has them."""
    for kind in (kind for kind in KINDS if kind not in ("splits", "metrics", "rules")):
        for name in KINDS[kind]:
            properties = SCHEMA["$defs"][f"{kind}.{name}"]["properties"]
            for argument in KINDS[kind][name].arguments.values():
                assert properties[argument.name]["description"] == argument.help
                assert argument.required or "default" in properties[argument.name]


@pytest.mark.parametrize(
    ("written", "valid"),
    [
        ({"optimizer": "adam"}, True),
        ({"optimizer": {"name": "sgd", "momentum": 0.9}}, True),
        ({"optimizer": {"sgd": {"momentum": 0.9}}}, True),
        ({"optimizer": {"sgd": 0.9, "nesterov": True}}, True),
        ({"optimizer": {"sgd": None}}, True),
        ({"optimizer": {"momentum": 0.9}}, False),
        ({"optimizer": {"name": "adam", "momentum": 0.9}}, False),
        ({"optimizer": {"sgd": 2}}, False),
        ({"dataset": "csv"}, False),
        ({"dataset": {"csv": "a.csv"}}, False),
        ({"dataset": {"csv": "a.csv", "target": "y"}}, True),
        ({"dataset": {"csv": {"path": "a.csv"}, "target": "y"}}, True),
        ({"dataset": {"csv": {"target": "y"}}}, False),
        ({"layers": [16, 8]}, True),
        ({"layers": [16, 0]}, False),
        ({"layers": ["relu", {"linear": "auto", "name": "head"}]}, True),
        ({"layers": [{"linear": "auto", "relu": None}]}, False),
        ({"layers": [{"residual": [{"linear": 4}, "relu"]}]}, True),
        ({"layers": [{"residual": [{"linear": 4}, "rel"]}]}, False),
        ({"activation": "flatten"}, False),
        ({"metrics": ["accuracy", "f1"]}, False),
        ({"split": "stratified"}, True),
        ({"split": "startified"}, False),
        ({"learning_rate": 1}, False),
    ],
)
def test_what_it_takes(written: dict[str, Any], valid: bool):
    """Every way to write a part, and no other."""
    assert VALIDATOR.is_valid({"dataset": "iris", **written}) == valid


def test_with_a_base_less_is_needed():
    """A part may be some arguments without its name, and the dataset may be in the base."""
    assert VALIDATOR.is_valid({"extends": "base.yaml", "optimizer": {"momentum": 0.9}, "loss": {"margin": 2}, "activation": {"alpha": 1}})
    assert not VALIDATOR.is_valid({"extends": "base.yaml", "optimizer": {"momentun": 0.9}})
    assert not VALIDATOR.is_valid({"optimizer": "adam"})


def test_the_command_prints_it(nnrun: Program, tmp_path: Path):
    """To stdout, or to a file; a file that cannot be written is told."""
    assert nnrun("schema").stdout == schema_text()
    done = nnrun("schema", "--out", "nnrun.schema.json")
    assert (done.returncode, done.stdout, (tmp_path / "nnrun.schema.json").read_text(encoding="utf-8")) == (0, "", schema_text())
    refused = nnrun("schema", "--out", "absent/it.json")
    assert refused.returncode == 4
    assert (
        refused.stderr
        == "error: absent/it.json cannot be written: No such file or directory\nfix: check the folder, its permissions, and the space on the disk\n"
    )
