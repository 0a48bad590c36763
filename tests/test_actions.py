"""In GitHub Actions: annotations at their lines, a table on the page of the workflow, and nothing more on stdout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from nnrun.actions import annotation
from nnrun.errors import Place
from tests.conftest import ROOT

Call = Callable[..., Result]


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set what a runner sets; return the file of the step's summary."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path.parent))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path / "summary.md"


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Return the workflow commands in a text, as the runner reads them."""

    def whole(escaped: str) -> str:
        for sign, code in (("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C"), ("%", "%25")):
            escaped = escaped.replace(code, sign)
        return escaped

    found = [re.fullmatch(r"::(\w+) (.*?)::(.*)", line) for line in text.splitlines() if line.startswith("::")]
    return [
        (one[1], {key: whole(value) for key, value in (pair.split("=", 1) for pair in one[2].split(","))}, whole(one[3])) for one in found
    ]


def test_errors_stand_at_their_lines(call: Call, tmp_path: Path, listening: Path):
    """Each fault its own, with the path in the repository, the fix in the message; the errors for people are as ever."""
    (tmp_path / "it.yaml").write_text("dataset: iris\noptimizer: admw\nlr: fast\n")
    done = call("train", "it.yaml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: it.yaml:2:12: optimizer 'admw' does not exist\n")
    file = f"{tmp_path.name}/it.yaml"
    told = commands(done.stderr)
    assert [(level, where) for level, where, _ in told] == [
        ("error", {"file": file, "line": "2", "col": "12", "title": "nnrun"}),
        ("error", {"file": file, "line": "3", "col": "5", "title": "nnrun"}),
    ]
    assert told[0][2].startswith("optimizer 'admw' does not exist\nfix: did you mean 'adamw'?")


def test_an_error_without_a_line_has_no_file(call: Call, tmp_path: Path, listening: Path):
    """An option, or a folder that is not there."""
    done = call("eval", "--checkpoint", "nowhere.safetensors")
    ((level, where, message),) = commands(done.stderr)
    assert (level, where) == ("error", {"title": "nnrun"})
    assert "nowhere.safetensors" in message
    (tmp_path / "it.yaml").write_text("dataset: iris\n")
    ((level, where, message),) = commands(call("train", "it.yaml", "--set", "epochz=3").stderr)
    assert (level, where) == ("error", {"title": "nnrun"})
    assert message.startswith("key 'epochz' does not exist")


def test_findings_of_check_are_warnings_and_notices(call: Call, tmp_path: Path, listening: Path):
    """Under their codes, on stderr; stdout is one JSON document still."""
    (tmp_path / "it.yaml").write_text("dataset: breast_cancer\nlayers: [{linear: 4}, {linear: auto}, softmax]\n")
    done = call("check", "it.yaml", "--fast", "--json")
    findings = json.loads(done.stdout)["findings"]
    told = commands(done.stderr)
    levels = {"error": "error", "warning": "warning", "note": "notice"}
    assert [(level, where["title"]) for level, where, _ in told][: len(findings)] == [
        (levels[one["severity"]], one["code"]) for one in findings
    ]
    assert "warning" in [level for level, _, _ in told]
    assert {where["line"] for _, where, _ in told if "line" in where} == {"2"}


def test_nothing_of_it_elsewhere(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor when the variable says something else."""
    for value in ("", "false"):
        monkeypatch.setenv("GITHUB_ACTIONS", value)
        (tmp_path / "it.yaml").write_text("dataset: irs\n")
        assert "::" not in call("train", "it.yaml").stderr


def test_hostile_text_stays_inside_its_command():
    """A class may be called `::error::`, and a file `a,line=7:b`."""
    made = annotation("warning", "NN1", "100% ::error::\r\nno", "a::b", Place("a,line=7:b%.yaml", 3, 1))
    assert made == "::warning file=a%2Cline=7%3Ab%25.yaml,line=3,col=1,title=NN1::100%25 ::error::%0D%0Ano%0Afix: a::b"
    assert "\n" not in made


@pytest.fixture
def run(call: Call, tmp_path: Path) -> Path:
    """Return the folder of a small run."""
    (tmp_path / "it.yaml").write_text("dataset: iris\npreprocess: [standardize]\nlayers: [8]\nlr: 0.05\nepochs: 5\n")
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    return tmp_path / "run"


def test_a_summary_of_the_figures(call: Call, run: Path, listening: Path):
    """Figures, intervals, the baselines of the same rows, and which requirements were met; appended, also when one was not."""
    listening.write_text("before\n")
    done = call("eval", "--checkpoint", "run", "--summary", "--require", "accuracy>=0.5", "--require", "loss<0")
    assert done.exit_code == 5
    assert "###" not in done.stdout + done.stderr
    summary = json.loads((run / "summary.json").read_text())
    lines = listening.read_text().splitlines()
    assert lines[:6] == [
        "before",
        "### it: test",
        "",
        "| figure | value | 95 % interval | baseline majority | baseline logistic_regression |",
        "| --- | --- | --- | --- | --- |",
        lines[5],
    ]
    figure = summary["metrics"]["test"]["accuracy"]
    majority = summary["baselines"]["majority"]["metrics"]["accuracy"]
    assert lines[6].startswith(f"| accuracy | {figure:.6g} | [")
    assert f" | {majority:.4f} | " in lines[6]
    assert "30 rows, checkpoint `run/best.safetensors`" in lines
    assert f"| `accuracy>=0.5` | {figure:.6g} | yes |" in lines
    assert lines[-2].endswith(" | **no** |")
    assert call("eval", "--checkpoint", "run", "--split", "train", "--summary").exit_code == 0
    assert "| figure | value | 95 % interval |" in listening.read_text().splitlines()


def test_a_summary_wants_its_file(call: Call, run: Path, monkeypatch: pytest.MonkeyPatch):
    """Told before anything is scored."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    done = call("eval", "--checkpoint", "run", "--summary")
    assert (done.exit_code, done.stdout, done.stderr) == (
        2,
        "",
        "error: --summary appends to the file that GITHUB_STEP_SUMMARY names, and it is not set\nfix: set it: GITHUB_STEP_SUMMARY=summary.md\n",
    )
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "no/such/folder.md")
    assert call("eval", "--checkpoint", "run", "--summary").exit_code == 4


def test_the_workflow_that_is_shown_works(tmp_path: Path):
    """Its steps with nnrun, one after another, as a runner would start them."""
    steps = yaml.safe_load((ROOT / "examples" / "workflow.yml").read_text())["jobs"]["train"]["steps"]
    (tmp_path / "train.yaml").write_text((ROOT / "configs" / "iris.yaml").read_text())
    (tmp_path / "nnrun").write_text(f'#!/bin/sh\nexec {sys.executable} -m nnrun "$@"\n')
    (tmp_path / "nnrun").chmod(0o755)
    environment = os.environ | {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    mine = [step["run"] for step in steps if step.get("run", "").startswith("nnrun")]
    assert len(mine) == 3
    for command in mine:
        done = subprocess.run(["bash", "-e", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "| `accuracy>=0.9` | 0.98 | yes |" in (tmp_path / "summary.md").read_text()
    assert steps[-1]["with"]["path"] == "run"
