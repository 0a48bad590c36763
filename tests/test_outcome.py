"""What the summary says a network is worth: its figures beside what they have to beat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from nnrun.report.words import figure
from tests.conftest import ROOT, Program

Call = Callable[..., Result]


def test_a_network_that_learned_nothing_beats_nothing(call: Call, tmp_path: Path):
    """On unscaled inputs: every row is the larger class, and logistic regression on the same rows is right for 97 %."""
    done = call("train", ROOT / "configs" / "breast_cancer_raw.yaml", "--out", "run")
    assert done.exit_code == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["baselines"]) == ["majority", "logistic_regression"]
    assert summary["baselines"]["majority"]["metrics"] == {"accuracy": summary["metrics"]["test"]["accuracy"]}
    assert summary["baselines"]["logistic_regression"]["metrics"]["accuracy"] > 0.95
    assert all(0 <= one["seconds"] < 60 for one in summary["baselines"].values())
    sentence = "the network (accuracy 0.6087) does not beat the majority class (0.6087) or logistic regression (0.9652)"
    assert summary["verdict"] == sentence
    assert f"\n{sentence}\n" in done.stderr


def test_forty_nine_of_fifty_is_told_with_its_interval(call: Call, tmp_path: Path):
    """0.98 on fifty rows reads 0.98 [0.90, 1.00], on the terminal and from eval; one row more than the baseline is no proof."""
    done = call("train", ROOT / "configs" / "iris.yaml", "--out", "run")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("accuracy ")]
    assert line.endswith("0.98 [0.90, 1.00]")
    verdict = "the network (accuracy 0.98) beats the majority class (0.28), and leads logistic regression (0.96) by no more than chance can"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["verdict"] == verdict
    assert summary["intervals"]["test"]["accuracy"] == pytest.approx([0.89505, 0.99646], abs=1e-5)
    assert call("eval", "--checkpoint", "run").stdout.splitlines()[1] == "accuracy\t0.98\t[0.90, 1.00]"


@pytest.mark.parametrize(
    ("value", "interval", "told"),
    [
        (0.889, (0.8827, 0.8951), "0.889 [0.883, 0.895]"),
        (23_456.0, (21_000.0, 25_900.0), "23456 [21000, 25900]"),
        (3.4, (1.2, 5.9), "3.4 [1.2, 5.9]"),
        (1.0, (1.0, 1.0), "1.0000 [1.0000, 1.0000]"),
        (None, (None, None), "–"),
    ],
)
def test_a_figure_has_the_decimals_that_mean_something(value: float, interval: tuple[float, float], told: str):
    """Those that its interval leaves it."""
    assert figure(value, interval) == told


@pytest.mark.parametrize("metrics", ["[rmse, r2]", "[]"])
def test_a_network_that_learned_beats_the_mean(metrics: str, call: Call, tmp_path: Path):
    """A curve that no straight line follows; lower is better, and without any metric in the config rmse decides."""
    (tmp_path / "it.csv").write_text("x,y\n" + "".join(f"{x / 10},{(x / 10) ** 2}\n" for x in range(-60, 60)))
    (tmp_path / "it.yaml").write_text(
        f"dataset: {{csv: it.csv, target: y}}\npreprocess: [standardize]\nlayers: [16]\nlr: 0.03\nepochs: 60\nmetrics: {metrics}\n"
    )
    done = call("train", "it.yaml", "--out", "run", "--json")
    summary = json.loads(done.stdout)
    assert list(summary["baselines"]) == ["mean", "ridge"]
    assert summary["verdict"].startswith("the network (rmse ")
    assert " beats the mean (" in summary["verdict"]
    assert " and ridge regression (" in summary["verdict"]


def test_no_run_imports_scikit_learn_for_its_baselines(nnrun: Program, tmp_path: Path):
    """Its import costs more than the whole of a small training."""
    (tmp_path / "it.yaml").write_text("dataset: iris\nlayers: [4]\nepochs: 2\nbatch_size: 50\n")
    done = nnrun("train", "it.yaml", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if line.endswith((" sklearn", " scipy", " scipy.stats"))]
