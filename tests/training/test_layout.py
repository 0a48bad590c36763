"""Filters laid with their channels last, as on CUDA, and here on the CPU: a run goes on to the byte, and its files are as any others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nnrun.cli import app
from nnrun.run import Run, open_run
from nnrun.runs.folder import BEST, LAST
from nnrun.spec.reader import read_spec
from nnrun.trained import load
from nnrun.training import device, step
from tests.test_resume import StopAt, finish

CNN = "dataset: digits\nsplit: {train: 200, val: 50, test: 50}\npreprocess: [{scale: 0.0625}]\nlr: 0.01\nbatch_size: 64\nepochs: 3\nseed: 1\ncheckpoint: {every: 2 steps}\nlayers: [{conv2d: {out_channels: 3, kernel_size: 3}}, batch_norm, relu, {residual: {layers: [{conv2d: {out_channels: 3, kernel_size: 3, padding: 1}}]}}, {max_pool2d: 2}, flatten, {linear: auto}]\n"  # fmt: skip


def last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def filters_of(run: Run) -> list[torch.Tensor]:
    return [one for one in run.state.parameters if one.ndim == 4]


@pytest.mark.parametrize("keys", ["optimizer: {sgd: {momentum: 0.9}}\n", "optimizer: adam\nprecision: bfloat16\n"], ids=["sgd", "adam"])
def test_a_run_of_filters_with_channels_last_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: str):
    """To the byte, from the middle of an epoch; what the optimizer keeps lies as the weights do, and steps are captured."""
    from nnrun.errors import Interrupted

    monkeypatch.setattr(device, "CHANNELS_LAST", ("cpu",))
    made: list[step.Captured] = []
    real = step.Captured
    monkeypatch.setattr(step, "Captured", lambda *given, **named: made.append(real(*given, **named)) or made[-1])
    (tmp_path / "it.yaml").write_text(CNN + keys)
    straight, hurt = tmp_path / "straight", tmp_path / "hurt"
    finish(open_run(*read_spec(tmp_path / "it.yaml"), out=straight))
    assert (len(made[0].replays), made[0].refused) == (2, {})
    stopped = open_run(*read_spec(tmp_path / "it.yaml"), out=hurt)
    with pytest.raises(Interrupted):
        finish(stopped, StopAt(stopped, 6))
    stopped.lock.release()
    run = open_run(*read_spec(tmp_path / "it.yaml"), out=hurt, resume=True)
    filters = filters_of(run)
    kept = [one for one in run.state.optimizer.state[filters[1]].values() if one.ndim == 4]  # the first has one channel, and lies both ways
    assert len(kept) == (2 if "adam" in keys else 1)
    assert all(map(last, [filters[1], *kept]))
    finish(run)
    for name in (BEST, LAST):
        assert (hurt / name).read_bytes() == (straight / name).read_bytes()


def test_filters_with_channels_last_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """By L-BFGS, in a training and in a check, whose numbers are those of filters that lie otherwise, but for rounding."""
    (tmp_path / "it.yaml").write_text(
        CNN.replace("batch_size: 64\n", "batch_size: all\n").replace("lr: 0.01", "lr: 0.1") + "optimizer: {lbfgs: {max_iter: 2}}\n"
    )
    lines: list[str] = []
    for name, where in (("one", ("cpu",)), ("other", ())):
        monkeypatch.setattr(device, "CHANNELS_LAST", where)
        run = open_run(*read_spec(tmp_path / "it.yaml"), out=tmp_path / name)
        finish(run)
        checked = CliRunner().invoke(app, ["check", str(tmp_path / "it.yaml"), "--set", "optimizer=adam"])
        assert checked.exit_code == 0, checked.output
        lines.append((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
    one, other = (json.loads(line)["train"]["loss"] for line in lines)
    assert one == pytest.approx(other, rel=1e-3)


def test_a_checkpoint_is_the_same_however_filters_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Written with channels last and read without, and the other way around: the same outputs, but for rounding."""
    (tmp_path / "it.yaml").write_text(CNN)
    for name, there, here in (("one", ("cpu",), ()), ("other", (), ("cpu",))):
        monkeypatch.setattr(device, "CHANNELS_LAST", there)
        run = open_run(*read_spec(tmp_path / "it.yaml"), out=tmp_path / name)
        finish(run)
        assert last(filters_of(run)[1]) == bool(there)
        found = run.network.outputs(run.data.parts["test"].x)
        monkeypatch.setattr(device, "CHANNELS_LAST", here)
        again = load(tmp_path / name).network
        assert last([one for one in again.model.parameters() if one.ndim == 4][1]) == bool(here)
        assert torch.allclose(again.outputs(run.data.parts["test"].x), found, atol=1e-5)
