"""What holds for every config: the written copy comes back equal, the schema and the reader agree, and any text is told what is wrong."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nnrun import __version__
from nnrun.errors import Fault, NnrunError
from nnrun.spec.reader import check, read_spec
from nnrun.spec.writer import dump_spec
from tests.conftest import ROOT
from tests.spec.written import CONFIGS, SCHEMA

VALIDATOR = Draft202012Validator(SCHEMA)
FOLDER = Path(tempfile.mkdtemp(prefix="nnrun-any-"))
CONFIG = FOLDER / f"it-{os.getpid()}.yaml"
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])
BETWEEN_FIELDS = ("early_stopping watches the validation part", "is not a path")


def outcome(read: Callable[[], Any]) -> tuple[tuple[Fault, ...], Any]:
    """Return the faults, or what was read."""
    try:
        return (), read()
    except NnrunError as error:
        return error.faults, None


@given(CONFIGS)
@example({"name": "it", "dataset": {"npz": {"path": "it.npz", "x": "\x85"}}})
@settings(SLOW, max_examples=300)
def test_the_written_copy_comes_back_equal(values: dict[str, Any]):
    """`read(dump(spec)) == spec`, for every part in every way to write it; and the schema takes both what was written and the copy."""
    assert VALIDATOR.is_valid(values), next(VALIDATOR.iter_errors(values)).message
    faults, spec = outcome(lambda: check(values))
    assert all(any(rule in fault.what for rule in BETWEEN_FIELDS) for fault in faults), faults
    if spec is None:
        return
    written = dump_spec(spec)
    CONFIG.write_text(written, encoding="utf-8")
    again, source = read_spec(CONFIG)
    assert again == spec
    assert VALIDATOR.is_valid(source.values)
    assert dump_spec(again) == written


def test_the_copy_says_which_nnrun_wrote_it():
    """In a comment, so that it is no key of the spec."""
    assert dump_spec(check({"name": "it", "dataset": "iris"})).startswith(f"# nnrun {__version__}\nname: it\n")


PIECES = [line for file in sorted((ROOT / "configs").glob("*.yaml")) for line in file.read_text().splitlines(keepends=True)]
PIECES += [line for file in sorted((ROOT / "tests/broken").glob("[a-eg-z]*.yaml")) for line in file.read_text().splitlines(keepends=True)]
PIECES += [
    *"[]{}:,-#&*!|>'\"%@`?~\t\n ",
    "dataset: ",
    "layers: ",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "!!python/name:os.system ",
    "1e999",
    "extends: it.yaml\n",
]
PIECES += ["\x00", "\x85", "\u2028", "\ufeff", "---\n", "...\n", "%YAML 1.1\n", "!!int '1'", "0x1F", "9" * 60, "~nobody/x", "a" * 400]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join),
    st.text(max_size=60),
    CONFIGS.map(lambda values: yaml.safe_dump(values, allow_unicode=True)),
).map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=60)


def explained(data: bytes) -> None:
    """Read a config; any failure is an error of ours whose every fault names the place, the file or the option."""
    CONFIG.write_bytes(data)
    faults, read = outcome(lambda: read_spec(CONFIG))
    assert faults or read
    for fault in faults:
        assert fault.place or CONFIG.name in fault.what, fault
        assert fault.what
        assert len(str(fault)) < 2000


@given(TEXTS)
@settings(SLOW, max_examples=2000)
def test_any_text_gives_a_spec_or_a_located_error(data: bytes):
    """No traceback, no endless loop, no sentence without a place."""
    explained(data)


@pytest.mark.soak
@given(TEXTS)
@settings(SLOW, max_examples=50_000)
def test_any_text_for_hours(data: bytes):
    """The same, longer: `make soak`."""
    explained(data)


@pytest.mark.parametrize(
    "text",
    [
        "dataset: {csv: ~nobody/x.csv, target: y}\n",
        f"dataset: {{csv: {'a' * 5000}, target: y}}\n",
        'dataset: {csv: "a\\0b", target: y}\n',
        f"extends: {'a' * 5000}\n",
        'extends: "a\\0b"\n',
        f"{'k' * 200_000}: 1\n",
        "dataset: iris\nlayers: " + "[" * 5000,
        "dataset: &a [*a]\n",
        "? !!python/name:os.system x\n: 1\n",
        "dataset: iris\nseed: 0x" + "f" * 39 + "\n",
    ],
)
def test_what_a_machine_found(text: str):
    """Kept, so that it stays found."""
    explained(text.encode())
