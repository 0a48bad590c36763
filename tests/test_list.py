"""`nnrun list`: every registered name, by kind, in a line, or in full with an example that a config can hold."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml
from typer.testing import Result

import nnrun.builtin  # noqa: F401
from nnrun.catalog import examples, in_full, in_words
from nnrun.registry import KINDS, Registry
from nnrun.spec.parts import DataPath
from nnrun.spec.reader import check
from tests.conftest import ROOT

Call = Callable[..., Result]

CONV2D = f"""\
conv2d(out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=true)
{KINDS["layers"]["conv2d"].place}

{KINDS["layers"]["conv2d"].summary}

arguments:
  out_channels: whole number (at least 1); must be given
      how many filters are learned.
  kernel_size: whole number (at least 1) or list of whole numbers (at least 1); must be given
      the size of a filter.
"""
CONV2D_EXAMPLES = """\

short:
    layers:
      - {conv2d: {out_channels: 16, kernel_size: 3}}

long:
    layers:
      - {conv2d: {out_channels: 16, kernel_size: 3, stride: 1, padding: 0, dilation: 1, groups: 1, bias: true}}
"""


def test_one_part_in_full(call: Call):
    """What it is, where it is, each argument with its type, bounds and default, and both ways to write it."""
    done = call("list", "layers", "conv2d")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(CONV2D)
    assert "  bias: true or false; by default true\n" in done.stdout
    assert done.stdout.endswith(CONV2D_EXAMPLES)


def test_the_body_of_the_docstring_is_shown():
    """A part that has more to say than one line says all of it, and its sections of arguments only once."""
    told = in_full(KINDS["losses"]["gaussian_nll"])
    assert "Expects (N, 2T): first the T means, then T raw numbers r" in told
    assert "Args:" not in told


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind]])
def test_every_example_is_a_config(kind: str, name: str):
    """Short or long, it can be pasted."""
    shown = examples(KINDS[kind][name])
    assert shown
    for text in shown.values():
        assert name in text
        check({"name": "it", "dataset": "iris", **yaml.safe_load(text)})


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_said_in_words(kind: str):
    """No Python in what a person reads."""
    for name in KINDS[kind]:
        for argument in KINDS[kind][name].arguments.values():
            said = in_words(argument.type)
            assert not any(mark in said for mark in ("typing", "Annotated", "<", "|", "Literal")), (name, argument.name, said)


def test_types_in_words():
    """Bounds, lists, paths, and several ways at once."""
    assert in_words(DataPath) == "path"
    assert in_words(int | None) == "whole number or null"
    assert in_words(KINDS["optimizers"]["adam"].arguments["betas"].type) == "list of numbers (at least 0, less than 1) (2 of them)"
    assert in_words(KINDS["datasets"]["points"].arguments["x"].type) == "list of numbers or list of lists of numbers"
    assert in_words(KINDS["layers"]["residual"].arguments["layers"].type) == "list of layers (at least 1 of them)"
    assert in_words(list[str]) == "list of text"


def test_json_of_one_part_is_one_object(call: Call):
    """With the default, the type and the help of each argument."""
    done = call("list", "losses", "huber", "--json")
    told = json.loads(done.stdout)
    assert told == {
        "kind": "losses", "name": "huber", "summary": "Huber's loss: d²/2 if |d| <= delta, else delta·(|d| - delta/2).",
        "place": KINDS["losses"]["huber"].place,
        "arguments": [{"name": "delta", "type": told["arguments"][0]["type"], "required": False, "default": 1.0,
                       "help": KINDS["losses"]["huber"].arguments["delta"].help}],
    }  # fmt: skip


def test_json_of_everything_is_a_list(call: Call):
    """One object for each registered part, of every kind."""
    told = json.loads(call("list", "--json").stdout)
    assert [(one["kind"], one["name"]) for one in told] == [(kind, name) for kind in KINDS for name in KINDS[kind]]
    csv = next(one for one in told if one["name"] == "csv")
    assert [one["name"] for one in csv["arguments"] if one["required"]] == ["path", "target"]


def test_kinds_are_counted(call: Call):
    """Without arguments: a line for each kind, with how many parts it has."""
    lines = call("list").stdout.splitlines()
    assert len(lines) == len(KINDS)
    for line, kind in zip(lines, KINDS, strict=True):
        assert line.split()[:2] == [kind, str(len(KINDS[kind]))]


def test_a_kind_is_three_lines_each(call: Call):
    """Arguments with defaults, what it is, file:line of the source."""
    lines = call("list", "losses").stdout.splitlines()
    assert len(lines) == 3 * len(KINDS["losses"])
    at = lines.index("huber(delta=1.0)")
    assert lines[at + 1] == "    Huber's loss: d²/2 if |d| <= delta, else delta·(|d| - delta/2)."
    file, line = lines[at + 2].strip().split(":")
    assert file == str(ROOT / "nnrun/training/losses.py")
    assert 'register("huber"' in (ROOT / file).read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["layer"], "error: kind 'layer' does not exist\nfix: did you mean 'layers'? (allowed: " + ", ".join(KINDS) + ")\n"),
        (
            ["layers", "conv2"],
            f"error: layer 'conv2' does not exist\nfix: did you mean 'conv2d'? (nnrun list layers shows all {len(KINDS['layers'])})\n",
        ),
        (["metrics", "zzz"], f"error: metric 'zzz' does not exist\nfix: nnrun list metrics shows all {len(KINDS['metrics'])}\n"),
    ],
)
def test_a_wrong_name_is_told(call: Call, arguments: list[str], sentence: str):
    """The nearest name, and where all of them are shown."""
    done = call("list", *arguments)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", sentence)


def test_a_part_of_an_own_registry_is_explained():
    """Whatever is registered is found: nothing here knows the names of the parts but the samples of required arguments."""
    own = Registry("losses", "loss")

    @own.register("mine", classes="number", scores="logits")
    def mine(*, sharp: float = 2.0) -> None:
        """My own loss.

        Args:
            sharp: how sharp it is.
        """

    assert in_full(own["mine"]).endswith("short:\n    loss: mine\n\nlong:\n    loss: {mine: {sharp: 2.0}}")
