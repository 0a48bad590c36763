"""What is said while a network trains: each rule on a real fault and on its mend, and nothing of it moves the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from nnrun.check.health import Losses
from nnrun.registry import OPTIMIZERS, RULES
from nnrun.run import Run, open_run
from nnrun.runs.checkpoint import read_header
from nnrun.runs.folder import BEST, LAST
from nnrun.spec.reader import read_spec
from tests.conftest import ROOT
from tests.test_resume import StopAt, finish

Call = Callable[..., Result]
RAW = ROOT / "configs" / "breast_cancer_raw.yaml"
CANCER = "dataset: breast_cancer\nsplit: {train: 0.6, val: 0.2, test: 0.2}\nbatch_size: 10\n"
IRIS = "dataset: iris\npreprocess: [standardize]\nbatch_size: 10\n"
CURVE = "dataset: {csv: curve.csv, task: numbers, target: y, columns: {noise: ignore}}\nbatch_size: 4\n"


def trained(folder: Path, text: str, name: str = "run", **options: Any) -> Run:
    """Return a finished run of a config."""
    (folder / "it.yaml").write_text(text)
    table = "".join(f"{x},{-x * x - 7 * (x % 3)},{x * 7919 % 13}\n" for x in range(-20, 20))
    (folder / "curve.csv").write_text(f"x,y,noise\n{table}")
    run = open_run(*read_spec(folder / "it.yaml"), out=folder / name, **options)
    finish(run)
    return run


def test_the_raw_table_is_told_during_the_run(call: Call, tmp_path: Path):
    """Before the epoch's line, once each; in the summary with code and epoch; and after the mend there is nothing to say."""
    done = call("train", RAW, "--out", "run")
    lines = done.stderr.splitlines()
    mend = "scale the inputs (`preprocess: [standardize]`), lower lr, or train longer"
    same = f"every prediction is the same class, 'benign', for 256 training rows of several classes; {mend}"
    assert lines.index(f"note: epoch 5: NN401: {same}") < next(n for n, line in enumerate(lines) if line.startswith("epoch 5/5"))
    assert [line for line in lines if line.startswith("note: epoch 1: NN402: 10 of the 10 units of layer '1' (ReLU) are 0 for every row")]
    health = json.loads((tmp_path / "run" / "summary.json").read_text())["health"]
    assert [(one["code"], one["epoch"]) for one in health] == [("NN402", 1), ("NN401", 5)]
    assert health[1]["message"] == same
    mended = call("train", RAW, "--out", "mended", "--set", "preprocess=[standardize]", "--json")
    assert json.loads(mended.stdout)["health"] == []
    assert "NN4" not in mended.stderr
    assert "NN4" not in call("train", RAW, "--out", "quiet", "--quiet").stderr


TARGET, NOISE = "target: y, columns: {noise: ignore}", "target: noise, columns: {y: ignore}"
FAULTS = {  # code → a config with the fault, and what mends it
    "NN401": (
        f"{CURVE}preprocess: [standardize]\nlayers: [{{linear: 8}}, relu, {{linear: auto}}, relu]\nlr: 0.1\nepochs: 9\n",
        {", relu]": "]"},
    ),
    "NN402": (f"{CANCER}layers: [10]\noptimizer: sgd\nlr: 0.02\nepochs: 1\n", {"layers": "preprocess: [standardize]\nlayers"}),
    "NN403": (f"{CANCER}layers: [{{linear: 8}}, tanh, {{linear: auto}}]\nepochs: 1\n", {"layers": "preprocess: [standardize]\nlayers"}),
    "NN404": (f"{IRIS}layers: [8, 8, 8, 8, 8, 8, 8]\nactivation: sigmoid\nepochs: 1\n", {"sigmoid": "relu"}),
    "NN405": (f"{IRIS}layers: [16]\noptimizer: {{sgd: {{momentum: 0.9}}}}\nlr: 5\nepochs: 1\n", {"lr: 5": "lr: 0.05"}),
    "NN406": (f"{IRIS}layers: [8]\noptimizer: sgd\nlr: 1e-9\nepochs: 1\n", {"lr: 1e-9": "lr: 0.01"}),
    "NN411": (f"{IRIS}layers: [8]\noptimizer: sgd\nlr: 1e-9\nepochs: 24\n", {"lr: 1e-9": "lr: 0.05"}),
    "NN412": (f"{IRIS}layers: [16]\noptimizer: {{sgd: {{momentum: 0.9}}}}\nlr: 2\nepochs: 4\n", {"lr: 2": "lr: 0.02"}),
    "NN413": (
        f"{CURVE.replace(TARGET, NOISE)}preprocess: [standardize]\nlayers: [64, 64]\nsplit: {{train: 20, val: 15, test: 5}}\nlr: 0.01\nepochs: 30\n",
        {NOISE: TARGET},
    ),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_told_and_its_mend_is_silent(code: str, tmp_path: Path):
    """Once, in a sentence that says what to do."""
    assert set(FAULTS) == {code for code in RULES if code.startswith("NN4")}
    text, mends = FAULTS[code]
    told = [one for one in trained(tmp_path, text).health.findings if one.code == code]
    assert len(told) == 1
    assert "; " in told[0].message
    for fault, mend in mends.items():
        assert fault in text
        text = text.replace(fault, mend)
    assert [str(one) for one in trained(tmp_path, text, "mended").health.findings if one.code == code] == []


FALLING = [1.0 / epoch for epoch in range(1, 31)]
TURNING = FALLING[:10] + [0.1 + 0.05 * step for step in range(20)]


@pytest.mark.parametrize(
    ("code", "train", "val", "said"),
    [
        ("NN411", FALLING, [], ""),
        ("NN411", FALLING[:10] + [0.1] * 20, [], "the training loss has stood still since epoch 10: 0.1 then, 0.1 at best since; "),
        ("NN411", [0.5] * 19, [], ""),
        ("NN411", FALLING[:10] + [0.1] * 17 + [3.0] * 3, [], ""),
        ("NN411", [1.0] * 9 + [1.6e-3] * 6 + [7e-4] * 15, [], ""),
        ("NN411", [-epoch for epoch in range(1, 31)], [], ""),
        ("NN412", FALLING, [], ""),
        ("NN412", TURNING, [], "the training loss rises: 0.1 in epoch 10, no less than 0.95 in the last three epochs; lower lr"),
        ("NN412", [*FALLING[:10], 5.0, 0.09], [], ""),
        ("NN412", [1.0, 1.1, 1.25, 1.3, 1.35], [], "the training loss rises: 1 in epoch 1, no less than 1.25 in the last three epochs"),
        ("NN413", FALLING, FALLING, ""),
        ("NN413", FALLING, TURNING, "the validation loss rises since epoch 10, from 0.1 to 1.05, while the training loss falls, from 0.1 to 0.03333: "),
        ("NN413", TURNING, TURNING, ""),
        ("NN413", FALLING, [], ""),
    ],
)  # fmt: skip
def test_a_rule_about_losses(code: str, train: list[float], val: list[float], said: str):
    """What it takes for each to speak; one bad epoch, and a loss below 0, are no trouble."""
    message = RULES[code].build(Losses(train, val)) or ""
    assert message.startswith(said)
    assert bool(message) == bool(said)


LAYERS = "layers: [{linear: 8}, batch_norm, relu, {dropout: 0.3}, {linear: auto}]\nlr: 0.05\ndrop_last: true\nepochs: 3\n"


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_looking_moves_nothing(optimizer: str, tmp_path: Path):
    """The same weights, statistics of batch norm, state of the optimiser and random stream as without any look."""
    text = f"{IRIS}{LAYERS}optimizer: {optimizer}\n"
    watched = trained(tmp_path, text, "watched")
    (tmp_path / "it.yaml").write_text(text)
    alone = open_run(*read_spec(tmp_path / "it.yaml"), out=tmp_path / "alone")
    alone.health.look = lambda *_, **__: []  # type: ignore[method-assign]
    finish(alone)
    for name in (BEST, LAST):
        assert read_header(watched.folder / name).facts["tensors"] == read_header(alone.folder / name).facts["tensors"]


def test_a_resumed_run_says_the_same(tmp_path: Path):
    """What was said before the stop is kept, not said again, and what the losses show needs those of before it; longer, too."""
    text = f"{CANCER}layers: [10]\noptimizer: sgd\nlr: 0.02\nepochs: 24\ncheckpoint: {{every: 2 steps}}\n"
    straight = trained(tmp_path, text, "straight")
    assert [one.code for one in straight.health.findings] == ["NN402", "NN401", "NN411"]
    from nnrun.errors import Interrupted

    for number, step in enumerate((50, 700)):
        run = open_run(*read_spec(tmp_path / "it.yaml"), out=tmp_path / "hurt", resume=number > 0)
        with pytest.raises(Interrupted):
            finish(run, StopAt(run, step))
        run.lock.release()
    hurt = trained(tmp_path, text.replace("24", "22"), "hurt", resume=True)
    hurt = trained(tmp_path, text, "hurt", resume=True)
    assert hurt.health.findings == straight.health.findings
    assert hurt.summary["health"] == straight.summary["health"]
    for name in (BEST, LAST):
        assert (hurt.folder / name).read_bytes() == (straight.folder / name).read_bytes()
