"""`nnrun check` as a user runs it, and what `train` makes of the same rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from nnrun.registry import RULES
from tests.conftest import ROOT, Program

Call = Callable[..., Result]

NLL = "dataset: iris\nlayers: [4]\nloss: nll\nepochs: 1\npreprocess: [standardize]\n"
SOFTMAX = """\
! warning NN101: it.yaml:2:35: the last layer is softmax and cross_entropy applies log_softmax itself, so the softmax is applied twice and gradients shrink
    2 | layers: [{linear: 4}, tanh, {linear: auto}, softmax]
      |                                             ^^^^^^^
  why: A softmax of a softmax can never be near 0 or 1, so the loss cannot fall to 0 and the gradients are small; the classes may still come out right, more slowly.
  fix: remove the layer

0 errors, 1 warning, 0 notes (not looked at: data and batch)
"""


def write(folder: Path, text: str) -> Path:
    """Return a config of this text."""
    (folder / "it.yaml").write_text(text)
    return Path("it.yaml")


def test_a_finding_says_what_where_why_and_what_to_write(call: Call, tmp_path: Path):
    """To the letter, with the line of the file; a warning is no failure."""
    config = write(tmp_path, "dataset: iris\nlayers: [{linear: 4}, tanh, {linear: auto}, softmax]\nloss: cross_entropy\n")
    done = call("check", config, "--fast")
    assert (done.exit_code, done.stdout) == (0, SOFTMAX.replace(":2:35:", ":2:45:")), done.stderr


def test_an_error_exits_with_5_and_stops_train(call: Call, tmp_path: Path):
    """Both tell the code and the place; `train` also how to go on all the same, and makes no folder."""
    config = write(tmp_path, NLL)
    done = call("check", config)
    assert done.exit_code == 5
    assert "✗ error NN102: it.yaml:2:9: the last layer is linear, and nll takes log-probabilities as they are\n" in done.stdout
    assert done.stderr == "error: check found 1 error: NN102\n"
    done = call("train", config, "--out", "run")
    assert (done.exit_code, done.stdout, (tmp_path / "run").exists()) == (5, "", False)
    assert done.stderr == (
        "error: it.yaml:2:9: NN102: the last layer is linear, and nll takes log-probabilities as they are\n"
        "    2 | layers: [4]\n      |         ^^^\n"
        "fix: write `loss: cross_entropy`, or end with log_softmax; or, if it is meant, `ignore: [NN102]`\n"
    )


def test_what_is_ignored_is_not_said(call: Call, tmp_path: Path):
    """In `check` as in `train`; and a run may be gone on with under another `ignore`."""
    config = write(tmp_path, NLL + "ignore: [NN102, NN213]\n")
    assert call("check", config).stdout.endswith("0 errors, 0 warnings, 0 notes\n")
    assert call("train", config, "--out", "run", "-q").exit_code == 0
    more = call("train", config, "--out", "run", "-q", "--resume", "--set", "epochs=2", "--set", "ignore=[NN102]")
    assert more.exit_code == 0, more.stderr


def test_a_code_that_is_no_rule_is_told(call: Call, tmp_path: Path):
    """With the one that was meant."""
    done = call("check", write(tmp_path, "dataset: iris\nignore: [NN1O1]\n"))
    assert done.exit_code == 2
    assert done.stderr.startswith("error: it.yaml:2:10: rule 'NN1O1' does not exist\n")


def test_train_says_warnings_once_and_no_notes(call: Call, tmp_path: Path):
    """A warning stands in the summary too; a note is for `check` alone."""
    config = write(tmp_path, "dataset: breast_cancer\nepochs: 1\nsplit: {train: 500, val: 40, test: 29}\n")
    done = call("train", config, "--json")
    assert done.stderr.count("note: NN201: ") == 1
    assert "NN213" not in done.stderr
    assert any(note.startswith("NN201: the columns have very different sizes: 'worst area'") for note in json.loads(done.stdout)["notes"])
    assert "note NN213: it.yaml:3:8: the test part has 29 rows" in call("check", config).stdout


def test_fast_does_not_import_torch(nnrun: Program, tmp_path: Path):
    """The config alone is looked at."""
    import subprocess

    code = "import sys\nfrom nnrun.cli import app\ntry:\n    app(['check', '--fast', sys.argv[1]])\nfinally:\n    print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "configs" / "lenet.yaml")], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.endswith("[]\n"), done.stderr


def test_json_is_one_document(call: Call, tmp_path: Path):
    """Findings with code, severity, evidence, fix, reason and place; layers, and what was measured."""
    config = write(tmp_path, "dataset: breast_cancer\nlayers: [8]\nepochs: 3\n")
    told = json.loads(call("check", config, "--json").stdout)
    first = told["findings"][0]
    assert (first["code"], first["severity"], first["fix"]) == ("NN201", "warning", "preprocess: [standardize]")
    assert first["place"] == {"file": "it.yaml", "line": 1, "column": 10}
    assert first["page"] == "docs/checks.md#nn201"
    assert "'worst area' is around" in first["evidence"]
    assert (told["errors"], told["asked"], told["stopped"]) == (0, ["config", "data", "batch"], None)
    assert [(row["kind"], row["parameters"]) for row in told["layers"]] == [("Linear", 248), ("ReLU", 0), ("Linear", 18)]
    assert all(row["difference"] < 1e-5 for row in told["layers"] if row["parameters"])
    assert told["cost"]["steps"] == 3 * 11
    assert told["cost"]["seconds"] > 0


def test_without_the_data_the_config_is_looked_at(call: Call, tmp_path: Path):
    """What is known is told on stdout, what is missing on stderr as an error of the input."""
    config = write(tmp_path, "dataset: {csv: none.csv, target: y}\nlr: 5\n")
    done = call("check", config)
    assert done.exit_code == 2
    assert "! warning NN109: it.yaml:2:5: lr is 5, more than 0.1: adam is used with about 0.001" in done.stdout
    assert "none.csv" in done.stderr
    told = call("check", config, "--json")
    assert json.loads(told.stdout)["stopped"] in told.stderr


@pytest.mark.parametrize("kind", ["severity", "on"])
def test_list_says_when_and_how_gravely(call: Call, kind: str):
    """`nnrun list rules` reads the registry."""
    told = {one["name"]: one for one in json.loads(call("list", "rules", "--json").stdout)}
    assert {code: one[kind] for code, one in told.items()} == {code: RULES[code].traits[kind] for code in RULES}
    assert "NN102 (error, on the config)\n" in call("list", "rules").stdout
