"""Every experiment in `configs/`, trained, evaluated and shown as a user would; the figures in its head are held here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nnrun.data.idx import FASHION_MNIST, find
from tests.conftest import ROOT, Program

CONFIGS = {file.stem: file for file in sorted((ROOT / "configs").glob("*.yaml"))}

AT_LEAST = {
    "iris": 0.96,
    "breast_cancer": 0.95,
    "fashion_mnist": 0.63,
    "fashion_mnist_margin": 0.80,
    "fashion_mnist_adamw": 0.86,
    "lenet": 0.85,
    "lenet_mse": 0.80,
    "soft_targets": 0.95,
}
"""The test accuracy that an experiment must show."""

SICK = ("breast_cancer_raw",)
"""Experiments that show a fault, and are told of it while they train; there is nothing to say of the others."""


LONG = ("fashion_mnist_adamw", "lenet_mse")
"""Nearly the same as fashion_mnist and lenet, and a minute and a half each: they are part of `make soak`."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] if name in LONG else []) for name in CONFIGS])
def test_an_experiment_gives_what_its_head_says(name: str, nnrun: Program, tmp_path: Path):
    """Training reaches the promised figure, the head's figure is true to 0.02, and eval repeats the summary to the bit."""
    text = CONFIGS[name].read_text()
    if "fashion_mnist" in text and find(FASHION_MNIST) is None:
        pytest.skip("FashionMNIST's files cannot be had on this machine (Debian's package dataset-fashion-mnist)")
    head = re.match(r"(#.*\n)+", text)
    assert head, "a config begins by saying what it is"
    assert f"#   nnrun train configs/{name}.yaml\n" in head[0]

    done = nnrun("train", CONFIGS[name], "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    part = "test" if "test" in summary["metrics"] else "train"
    scored = nnrun("eval", "--checkpoint", "run", "--split", part, "--json")
    assert json.loads(scored.stdout)["metrics"] == summary["metrics"][part]

    promised = re.search(r"# Gives: (\w+) (\w+) (-?[0-9.]+)", head[0])
    assert promised, "the head gives a measured figure"
    assert summary["metrics"][promised[1]][promised[2]] == pytest.approx(float(promised[3]), abs=0.02)
    if name in AT_LEAST:
        assert summary["metrics"]["test"]["accuracy"] >= AT_LEAST[name]
    assert bool(summary["health"]) == (name in SICK), summary["health"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, summary["epochs"] + 1))
    AFTERWARDS.get(name, lambda *_: None)(done.stderr, summary, rows, nnrun)


def _double_softmax(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    assert "note: NN101: the last layer is softmax and cross_entropy applies log_softmax itself, so the softmax is applied twice" in stderr


def _one_class(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    assert summary["rows"] == {"train": 341, "val": 113, "test": 115}
    assert "note: epoch 5: NN401: every prediction is the same class, 'benign'" in stderr
    assert "note: NN301: the network predicts one class only: 'benign' for all 115 rows (right for 61% of them)" in stderr


def _per_epoch_test_figures(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    assert all(set(row["test"]) == {"loss", "accuracy"} for row in rows)
    assert rows[-1]["test"] == summary["metrics"]["test"]


def _tutorial_shapes(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    shown = json.loads(nnrun("show", "run", "--json").stdout)["parameters"]
    counts = {name: _product(one["shape"]) for name, one in shown.items()}
    assert counts == {
        "conv1.weight": 6 * 1 * 3 * 3, "conv1.bias": 6, "conv2.weight": 16 * 6 * 3 * 3, "conv2.bias": 16,
        "fc1.weight": 120 * 576, "fc1.bias": 120, "fc2.weight": 84 * 120, "fc2.bias": 84, "fc3.weight": 10 * 84, "fc3.bias": 10,
    }  # fmt: skip


def _line(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    """The least-squares line through the ten points is y = 0.942·x + 0.729; 200 epochs come close."""
    found = re.search(r"y = ([0-9.]+)·x ([+-]) ([0-9.]+)", nnrun("show", "run").stdout)
    assert found
    assert float(found[1]) == pytest.approx(0.942, abs=0.05)
    assert float(found[2] + found[3]) == pytest.approx(0.729, abs=0.2)


def _thermometer(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    shown = json.loads(nnrun("show", "run", "--json").stdout)["parameters"]
    assert shown["0.weight"]["values"] == [pytest.approx(5.1, abs=0.05)]
    assert shown["0.bias"]["values"] == [pytest.approx(-16.3, abs=0.1)]
    assert all({"loss"} <= set(row["train"]) and {"loss"} <= set(row["val"]) for row in rows)


def _named_layers(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    assert {"hidden.weight", "hidden.bias", "output.weight", "output.bias"} == set(
        json.loads(nnrun("show", "run", "--json").stdout)["parameters"]
    )
    assert "hidden.weight" in nnrun("show", "run").stdout


def _never_negative(stderr: str, summary: dict[str, Any], rows: list[Any], nnrun: Program) -> None:
    assert all(row["train"]["loss"] >= 0 and row["val"]["loss"] >= 0 for row in rows)


def _product(shape: list[int]) -> int:
    return shape[0] * _product(shape[1:]) if shape else 1


AFTERWARDS = {
    "iris_softmax": _double_softmax,
    "breast_cancer_raw": _one_class,
    "fashion_mnist": _per_epoch_test_figures,
    "lenet": _tutorial_shapes,
    "line": _line,
    "thermometer": _thermometer,
    "thermometer_tanh": _named_layers,
    "soft_targets": _never_negative,
}
