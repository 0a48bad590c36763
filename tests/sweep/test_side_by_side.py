"""Trials that differ in numbers alone are trained many at once, and each is the one that it would be by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nnrun.builtin  # noqa: F401
from nnrun.spec.reader import read_spec
from nnrun.sweep.finish import finish
from nnrun.sweep.side_by_side import TrialStack
from nnrun.sweep.sweep import Sweep
from nnrun.trained import load

IRIS = "dataset: iris\nsplit: {train: 0.6, val: 0.2, test: 0.2}\npreprocess: [standardize]\nbatch_size: 20\nepochs: 4\nseed: 3\nlayers: [{linear: 8}, relu, {dropout: 0.2}, {linear: auto}]\n"
CNN = "dataset: digits\nsplit: {train: 200, val: 50, test: 50}\npreprocess: [{scale: 0.0625}]\nbatch_size: 64\nepochs: 2\nlayers: [{conv2d: {out_channels: 3, kernel_size: 3}}, {dropout2d: 0.3}, relu, flatten, {linear: auto}]\naugment: [flip]\n"
NUMBERS = "dataset: diabetes\npreprocess: [standardize]\nscale_target: standardize\nlayers: [6]\nepochs: 3\n"
PACES = "lr: [0.003, 0.05], optimizer.weight_decay: [0, 0.1]"
ALL = f"{PACES}, 'layers[2].p': [0, 0.4]"


def swept(folder: Path, text: str, params: str, *, sampler: str = "grid", **settings: Any) -> Sweep:
    """Return a sweep that has been trained to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    config, told = folder / "it.yaml", "".join(f", {key}: {json.dumps(value)}" for key, value in settings.items())
    config.write_text(f"{text}sweep: {{sampler: {sampler}, params: {{{params}}}{told}}}\n")
    sweep = Sweep(*read_spec(config), out=folder / "sweep")
    for turn in sweep.turns():
        for _ in sweep.records(turn):
            pass
    return sweep


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def require_same(together: Sweep, alone: Sweep) -> None:
    """Hold each trial against the one that is trained alone: its config, every figure of every epoch, the best epoch, every prediction."""
    assert together.at_once > 1
    assert alone.at_once == 1
    for mine, theirs in zip(together.ended(), alone.ended(), strict=True):
        here, there = (sweep.trial_folder(mine.number) for sweep in (together, alone))
        assert (mine.params, mine.state) == (theirs.params, theirs.state)
        assert (here / "config.yaml").read_text() == (there / "config.yaml").read_text()
        for row, other in zip(rows_of(here), rows_of(there), strict=True):
            assert row.keys() == other.keys()
            assert row["lr"] == pytest.approx(other["lr"], rel=1e-6)
            for part in ("train", "val"):
                assert row[part] == pytest.approx(other[part], rel=1e-4, abs=1e-6), (mine.number, row["epoch"], part)
        assert mine.value == pytest.approx(theirs.value, rel=1e-4)
        told = [one.user_attrs["ended"] for one in (mine, theirs)]
        assert [told[0][key] for key in ("seed", "epoch", "epochs")] == [told[1][key] for key in ("seed", "epoch", "epochs")]
        nets = [load(folder) for folder in (here, there)]
        rows = nets[0].rows("test")
        found, expected = (net.network.head.predict(net.network.outputs(rows.x)) for net in nets)
        assert torch.equal(found, expected) if nets[0].task.classes else torch.allclose(found, expected, rtol=1e-4)
        assert json.loads((here / "summary.json").read_text()).keys() == json.loads((there / "summary.json").read_text()).keys()


@pytest.mark.parametrize(
    ("text", "params"),
    [
        pytest.param(IRIS + "optimizer: adamw\nschedule: cosine\nwarmup_epochs: 1.5\n", ALL, id="adamw"),
        pytest.param(IRIS + "optimizer: {sgd: {momentum: 0.9, nesterov: true}}\nclip_grad_norm: 0.5\n", PACES, id="sgd"),
        pytest.param(IRIS + "optimizer: adam\naccumulate_batches: 2\n", PACES, id="adam"),
        pytest.param(IRIS + "optimizer: {nadam: {decoupled_weight_decay: true}}\n", PACES, id="nadam"),
        pytest.param(IRIS + "optimizer: radam\n", PACES, id="radam"),
        pytest.param(IRIS + "optimizer: {rmsprop: {momentum: 0.5, centered: true}}\n", PACES, id="rmsprop"),
        pytest.param(IRIS + "optimizer: {adagrad: {lr_decay: 0.1}}\n", PACES, id="adagrad"),
        pytest.param(IRIS + "optimizer: adadelta\n", PACES, id="adadelta"),
        pytest.param(
            IRIS.replace("epochs: 4", "epochs: 40") + "early_stopping: {patience: 1}\n", "lr: [0.01, 0.3, 1.0]", id="early-stopping"
        ),
        pytest.param(CNN, "lr: [0.003, 0.03], 'layers[1].p': [0.1, 0.5]", id="pictures"),
        pytest.param(NUMBERS, "optimizer.weight_decay: [0, 0.5], seed: [1, 2]", id="numbers"),
    ],
)
def test_trials_side_by_side_are_those_trained_alone(tmp_path: Path, text: str, params: str):
    """Learning rate, both kinds of decay, dropout with none among it, seed: to 1e-4, and the same predictions."""
    require_same(swept(tmp_path / "together", text, params), swept(tmp_path / "alone", text, params, side_by_side=False))


def test_what_is_told_of_a_turn_reaches_the_disk_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two lines or more of each of four trials: the journal is synced once before they are trained, and once after."""
    import os

    (tmp_path / "it.yaml").write_text(f"{IRIS}sweep: {{sampler: grid, params: {{{PACES}}}}}\n")
    sweep, real, synced = Sweep(*read_spec(tmp_path / "it.yaml"), out=tmp_path / "sweep"), os.fsync, list[str]()

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    turn = next(sweep.turns())
    assert len(turn.tried) == 4
    assert sum(file.endswith("journal.log") for file in synced) == 1
    for _ in sweep.records(turn):
        pass
    assert sum(file.endswith("journal.log") for file in synced) == 2
    assert len((tmp_path / "sweep" / "journal.log").read_text().splitlines()) >= 16


def test_one_that_diverges_fails_alone(tmp_path: Path):
    """It is recorded with its error, and the others are what they are without it."""
    text = IRIS + "optimizer: sgd\n"
    some = swept(tmp_path / "some", text, "lr: [0.01, 1.0e+30, 0.1]", max_failures=1)
    assert some.at_once > 1
    first, second, third = some.ended()
    assert (first.state.name, second.state.name, third.state.name) == ("COMPLETE", "FAIL", "COMPLETE")
    assert second.user_attrs["ended"]["error"] == "a number of it is not finite in epoch 1"
    alone = swept(tmp_path / "alone", text, "lr: [0.01, 1.0e+30, 0.1]", max_failures=1, side_by_side=False)
    assert [one.value for one in some.ended()] == [one.value and pytest.approx(one.value, rel=1e-4) for one in alone.ended()]
    every = swept(tmp_path / "every", text, "lr: [1.0e+29, 1.0e+30]", max_failures=1)
    assert [one.state.name for one in every.ended()] == ["FAIL", "FAIL"]


def test_a_sampler_that_learns_gets_a_few_at_once(tmp_path: Path):
    """tpe by tens: again the same trials for the same seed, and the best one's config gives its network."""
    first, again = (swept(tmp_path / name, IRIS, "lr: 'log:1e-3..1'", sampler="tpe", trials=24) for name in ("first", "again"))
    assert first.at_once == 10
    assert [(one.params, one.value) for one in first.ended()] == [(one.params, one.value) for one in again.ended()]
    assert finish(first)["sweep"]["importance"] == {"lr": 1.0}
    assert finish(first)["metrics"] == finish(again)["metrics"]


@pytest.mark.parametrize(
    ("text", "params", "settings"),
    [
        (IRIS, "lr: [0.1, 0.2], batch_size: [10, 20]", {}),
        (IRIS, "lr: [0.1, 0.2]", {"pruner": "median"}),
        (IRIS + "schedule: plateau\n", "lr: [0.1, 0.2]", {}),
        (IRIS, "optimizer: [{muon: {weight_decay: 0}}, {muon: {weight_decay: 0.1}}]", {}),
        (IRIS, "'layers[0]': [{linear: 8}, {linear: 9}]", {}),
        (IRIS.replace("linear: 8", "linear: 20000"), "lr: [0.1, 0.2]", {}),
    ],
)
def test_what_is_trained_one_after_another(tmp_path: Path, text: str, params: str, settings: dict[str, Any]):
    """What differs in more than numbers, is pruned, or cannot be stacked; and what keeps the processor busy by itself."""
    (tmp_path / "it.yaml").write_text(f"{text}sweep: {json.dumps({'sampler': 'grid', **settings})[:-1]}, params: {{{params}}}}}\n")
    assert Sweep(*read_spec(tmp_path / "it.yaml"), out=tmp_path / "sweep").at_once == 1


def test_what_fails_side_by_side_is_trained_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No config fails for what the others are, nor because there is no memory for all of them at once."""
    calls = []

    def no_memory(stack: TrialStack, signals: Any = None) -> Iterator[Any]:
        calls.append(len(stack.specs))
        raise MemoryError
        yield

    monkeypatch.setattr(TrialStack, "train", no_memory)
    sweep = swept(tmp_path, IRIS, "lr: [0.003, 0.05, 1.0e+30]")
    assert calls == [3]
    assert [one.state.name for one in sweep.ended()] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert sweep.at_once == 1
