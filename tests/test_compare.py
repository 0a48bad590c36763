"""`nnrun compare`: runs side by side, what differs, and whether the difference means anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.conftest import Program

Call = Callable[..., Result]
IRIS = "dataset: iris\npreprocess: [standardize]\nsplit: {train: 0.6, val: 0, test: 0.4, method: stratified}\nlayers: [8]\nlr: 0.05\nbatch_size: 30\nepochs: 20\n"


@pytest.fixture
def runs(call: Call, tmp_path: Path) -> Path:
    """Return a folder with a good run, a bad one, and one of another split."""
    (tmp_path / "it.yaml").write_text(IRIS)
    for name, changes in (("good", []), ("bad", ["lr=1e-6"]), ("other", ["seed=3"])):
        done = call("train", "it.yaml", "--out", name, "-q", *(word for change in changes for word in ("--set", change)))
        assert done.exit_code == 0, done.stderr
    return tmp_path


def test_two_runs_on_the_same_rows_are_told_apart(runs: Path, call: Call):
    """The better one first, with its interval; the one key that differs; and one sentence, with p."""
    done = call("compare", "bad", "good")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["run", "part", "rows", "epoch", "accuracy", "loss", "seconds"]
    assert [line.split()[:4] for line in lines[1:3]] == [["good", "test", "60", "20"], ["bad", "test", "60", "20"]]
    assert lines[4:6] == ["    good  bad", "lr  0.05  1e-06"]
    assert lines[7].startswith("good is better: of the 60 test rows, only bad has 0 right and only good ")
    found = json.loads(call("compare", "bad", "good", "--json").stdout)
    assert [run["run"] for run in found["runs"]] == ["good", "bad"]
    assert found["differences"] == {"lr": [0.05, 1e-6]}
    summaries = {name: json.loads((runs / name / "summary.json").read_text()) for name in ("good", "bad")}
    assert {run["run"]: run["metrics"] for run in found["runs"]} == {name: one["metrics"]["test"] for name, one in summaries.items()}
    paired = found["paired"]
    assert (paired["test"], paired["rows"], paired["sentence"]) == ("mcnemar", 60, lines[7])
    gap = summaries["bad"]["metrics"]["test"]["accuracy"] - summaries["good"]["metrics"]["test"]["accuracy"]
    assert paired["difference"] == pytest.approx(gap)
    assert (paired["only"][0] - paired["only"][1]) / 60 == pytest.approx(gap)


def test_a_run_and_itself_do_not_differ(runs: Path, call: Call):
    """Not in a key, not in a row."""
    found = json.loads(call("compare", "good", "good/last.safetensors", "--json").stdout)
    assert found["differences"] == {}
    assert (found["paired"]["p"], found["paired"]["only"]) == (1.0, [0, 0])
    assert found["paired"]["sentence"] == "no difference: both predict the same for each of the 60 test rows"


def test_another_split_has_no_rows_in_common(runs: Path, call: Call):
    """Both figures are shown, and no test is made of them."""
    done = call("compare", "good", "other")
    assert done.stdout.splitlines()[-1] == "no paired test: the split of the two runs is not the same"


def test_many_runs_are_sorted_by_any_figure(runs: Path, call: Call):
    """The lowest loss first; a run that is not finished comes last, with no figures."""
    (runs / "other" / "summary.json").unlink()
    found = json.loads(call("compare", "bad", "other", "good", "--sort", "loss", "--json").stdout)
    assert [run["run"] for run in found["runs"]] == ["good", "bad", "other"]
    assert found["paired"] is None
    assert "not finished" in call("compare", "bad", "other", "good").stdout
    done = call("compare", "good", "bad", "--sort", "f1")
    assert (done.exit_code, done.stderr) == (2, "error: no run is scored by 'f1'\nfix: the figures of these runs: loss, accuracy\n")


def test_numbers_are_compared_by_a_paired_bootstrap(call: Call, tmp_path: Path):
    """The interval of the difference, and which one is better."""
    (tmp_path / "it.csv").write_text("x,y\n" + "".join(f"{x},{3 * x + x % 3}\n" for x in range(60)))
    (tmp_path / "it.yaml").write_text("dataset: {csv: it.csv, target: y}\npreprocess: [standardize]\noptimizer: sgd\nlr: 0.1\nepochs: 30\n")
    for name, lr in (("a", "0.1"), ("b", "0.001")):
        assert call("train", "it.yaml", "--out", name, "--set", f"lr={lr}", "-q").exit_code == 0
    paired = json.loads(call("compare", "a", "b", "--json").stdout)["paired"]
    assert (paired["test"], paired["metric"], paired["only"]) == ("bootstrap", "rmse", None)
    assert paired["interval"][0] < paired["difference"] < paired["interval"][1] < 0
    assert paired["sentence"].startswith("a is better: on the 12 test rows, the rmse of a minus that of b is -")


def test_data_that_has_changed_keeps_the_table(call: Call, tmp_path: Path):
    """Only the paired test is missing, and it is told why."""
    (tmp_path / "it.csv").write_text("x,y\n" + "".join(f"{x},{2 * x}\n" for x in range(30)))
    (tmp_path / "it.yaml").write_text("dataset: {csv: it.csv, target: y}\nepochs: 1\n")
    for name in ("a", "b"):
        assert call("train", "it.yaml", "--out", name, "-q").exit_code == 0
    (tmp_path / "it.csv").write_text("x,y\n" + "".join(f"{x},{x}\n" for x in range(30)))
    done = call("compare", "a", "b")
    assert done.exit_code == 0
    assert "no paired test: the data of dataset 'csv' has changed since the network was trained" in done.stdout


def test_a_table_of_runs_needs_no_torch(runs: Path, nnrun: Program):
    """Three runs answer from their files."""
    done = nnrun("compare", "good", "bad", "other", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith((" torch", " numpy", " scipy"))]


def test_a_dozen_runs_at_80_columns(runs: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    """No line is wider; every run has its line in each table, the best first, and every key that differs is there."""
    monkeypatch.setenv("COLUMNS", "80")
    for number in range(12):
        changes = [
            f"seed={number}",
            f"lr={0.05 / (number + 1):.4f}",
            f"layers=[{8 + number}]",
            "metrics=[accuracy, f1_macro, roc_auc_ovr, log_loss]",
            "epochs=2",
        ]
        done = call(
            "train", "it.yaml", "--out", f"trials/number-{number:02}", "-q", *(word for change in changes for word in ("--set", change))
        )
        assert done.exit_code == 0, done.stderr
    names = [f"trials/number-{number:02}" for number in range(12)]
    done = call("compare", *names, "--sort", "f1_macro")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    found = json.loads(call("compare", *names, "--sort", "f1_macro", "--json").stdout)
    figures = [run["metrics"]["f1_macro"] for run in found["runs"]]
    assert figures == sorted(figures, reverse=True)
    tables = done.stdout.split("\n\n")
    assert all([line.split()[0] for line in table.splitlines()[1:]] == [run["run"] for run in found["runs"]] for table in tables)
    heads = [word for table in tables for word in table.splitlines()[0].split()]
    assert {"f1_macro", "roc_auc_ovr", "log_loss", "seconds", "seed", "lr", "layers", "digests.split"} <= set(heads)
    assert "digests.data" not in heads


def test_folds_are_compared_by_their_mean(runs: Path, call: Call):
    """Beside each other and beside a single run; the fold that stands for all is no difference, nor is its own split."""
    for name, lr in (("f-good", "0.05"), ("f-bad", "1e-6")):
        done = call("train", "it.yaml", "--folds", "3", "--out", name, "--set", f"lr={lr}", "-q")
        assert done.exit_code == 0, done.stderr
    done = call("compare", "f-bad", "f-good")
    assert done.exit_code == 0, done.stderr
    over = json.loads((runs / "f-good" / "summary.json").read_text())["metrics"]["test"]["accuracy"]
    lines = done.stdout.splitlines()
    assert lines[1].startswith("f-good  3 folds  150   –      ")
    assert f"{over['mean']:.4g} ± {over['deviation']:.2g}" in lines[1]
    assert lines[4:6] == ["    f-good  f-bad", "lr  0.05    1e-06"]
    assert lines[-1] == "no paired test: folds are compared by their mean and deviation"
    found = json.loads(call("compare", "good", "f-good", "--json").stdout)
    assert {run["run"]: run["part"] for run in found["runs"]} == {"good": "test", "f-good": "3 folds"}
    assert found["differences"]["split.folds"] in ([None, 3], [3, None])
    (runs / "f-good" / "summary.json").unlink()
    assert "not finished" in call("compare", "f-good", "good").stdout
