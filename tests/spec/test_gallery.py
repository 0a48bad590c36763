"""160 broken configs: what is said of each, to the letter; and the printed fixes work, because a machine carries them out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from nnrun.errors import NnrunError, closest
from nnrun.registry import KINDS, LAYERS, METRICS, RULES, SPLITS
from nnrun.spec.experiment import CheckpointSpec, EarlyStopping, Experiment, Split
from nnrun.spec.parts import part_class
from nnrun.spec.schema import config_schema
from nnrun.spec.source import read_source
from tests.spec.broken import FOLDER, NAMES, faults_of, mended, message_of

NOT_FOR_A_SCHEMA = {
    "early_stopping_without_val": "a rule between fields",
    "epochs_float": "to JSON, 10.0 is a whole number",
    "epochs_power": "to JSON, 1e2 is a whole number",
    "extends_broken": "the fault is in another file",
    "extends_circle": "files",
    "extends_missing": "files",
    "lr_infinite": "JSON has no such number",
    "lr_nan": "JSON has no such number",
    "optimizer_twice": "a rule between keys",
    "set_index": "the command line",
    "set_inside": "the command line",
    "set_key": "the command line",
    "set_no_value": "the command line",
    "set_text": "the command line",
    "set_two": "the command line",
    "split_rows_method": "a rule between fields",
    "split_rows_want_numbers": "a rule between fields",
    "split_shares": "a rule between fields",
    "widths_mixed": "a rule between fields",
}
NOT_YAML = {name for name in NAMES if name.startswith("file_")} | {"key_is_a_list", "key_merge", "key_twice", "key_twice_inside"}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said(name: str):
    """Place, source line, caret, fix: each word of it. `python -m tests.spec.broken` writes them anew."""
    assert message_of(name) == (FOLDER / f"{name}.txt").read_text()


def test_the_printed_fixes_work(tmp_path: Path):
    """A machine that does what is printed, and nothing else, gets at least 90 of the files to pass."""
    shutil.copytree(FOLDER, tmp_path / "broken")
    passing = []
    for name in NAMES:
        file = tmp_path / "broken" / f"{name}.yaml"
        for _ in range(3):  # what a fault hides comes out when it is mended
            faults = faults_of(file)
            if not faults or not mended(file, faults):
                break
        if not faults_of(file):
            passing.append(name)
    print(f"{len(NAMES)} broken configs, {len(passing)} pass after the printed fix")
    assert len(NAMES) >= 150
    assert len(passing) >= 90


def test_every_fault_points_and_says_what_is_wrong():
    """Each has a place, or names the file when it is about what is not there."""
    for name in NAMES:
        for fault in faults_of(FOLDER / f"{name}.yaml"):
            assert fault.place or f"{name}.yaml" in fault.what, name


def test_a_schema_catches_what_a_schema_can():
    """An editor marks the same files as the program, but for those that are listed with the reason."""
    validator = Draft202012Validator(config_schema())
    for name in sorted(set(NAMES) - NOT_YAML):
        caught = not validator.is_valid(read_source(FOLDER / f"{name}.yaml").values)
        assert caught == (name not in NOT_FOR_A_SCHEMA), name
    for name in NOT_YAML:
        with pytest.raises(NnrunError):
            read_source(FOLDER / f"{name}.yaml")


def every_key() -> list[tuple[str, list[str]]]:
    """Return each key that a config may write, with those that may stand beside it."""
    sections = [Experiment.keys(), Split.keys(), EarlyStopping.keys(), CheckpointSpec.keys()]
    parts = [KINDS[kind] for kind in KINDS if KINDS[kind] not in (SPLITS, METRICS, RULES)]
    sections += [part_class(registry, name).keys() for registry in parts for name in registry]
    return [(key, section) for section in sections for key in section]


def typos(key: str) -> list[str]:
    """Return the one-letter mistakes at each place: left out, doubled, swapped with the next, replaced by a letter that depends on it."""
    made = []
    for at, letter in enumerate(key):
        left, right = key[:at], key[at + 1 :]
        other = "abcdefghijklmnopqrstuvwxyz"[(ord(letter) * 7 + at) % 26]
        made += [left + right, left + letter * 2 + right, left + right[:1] + letter + right[1:], left + other + right]
    return [typo for typo in dict.fromkeys(made) if typo and typo != key]


def test_a_typo_of_any_key_suggests_the_key():
    """A letter left out, doubled, swapped with its neighbour or replaced, in every key of every section and part."""
    trials = [(key, typo, section) for key, section in every_key() for typo in typos(key) if typo not in section]
    wrong = [(key, typo, closest(typo, section)) for key, typo, section in trials if closest(typo, section) != key]
    rate = 1 - len(wrong) / len(trials)
    print(f"{len(trials)} typos of {len(every_key())} keys: {rate:.1%} suggest the right key")
    assert rate >= 0.98, sorted(set(wrong))


def test_a_typo_of_any_name_suggests_the_name():
    """The same for what is registered, where neighbours such as conv1d and conv2d are one letter apart."""
    trials = [(name, typo, KINDS[kind]) for kind in KINDS if KINDS[kind] is not RULES for name in KINDS[kind] for typo in typos(name)]
    trials = [one for one in trials if one[1] not in one[2]]
    wrong = [(name, typo, closest(typo, registry)) for name, typo, registry in trials if closest(typo, registry) != name]
    print(f"{len(trials)} typos of names: {1 - len(wrong) / len(trials):.1%} suggest the right name")
    assert len(wrong) <= 0.05 * len(trials), wrong
    assert closest("conv2", LAYERS) == "conv2d"


@pytest.mark.parametrize(
    ("wrong", "allowed", "right"),
    [
        ("learning_rate", ["lr", "layers"], "lr"),
        ("Batch-Size", ["batch_size", "seed"], "batch_size"),
        ("standard", ["minmax", "standardize"], "standardize"),
        ("q", ["x", "y"], None),
        ("lerning", Experiment.keys(), None),
        ("", ["x"], None),
        ("x" * 100_000, ["x"], None),
    ],
)
def test_the_nearest_name(wrong: str, allowed: list[str], right: str | None):
    """What other tools call it, what is one step away, what begins so; or nothing, rather than nonsense."""
    assert closest(wrong, allowed) == right
