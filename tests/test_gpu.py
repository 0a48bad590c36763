"""What holds on a CUDA device: the same promises as on the CPU, and no wait for the device within an epoch. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nnrun.builtin  # noqa: F401
from nnrun.data.dataset import Task
from nnrun.run import Run, open_run
from nnrun.seeds import Seeds
from nnrun.spec.reader import read_spec
from nnrun.trained import load
from nnrun.training import step
from nnrun.training.group import ALONE
from nnrun.training.loop import Plan, State, set_lr
from nnrun.training.network import build_network
from nnrun.training.step import Step, Use
from tests.networks import some_rows, written

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
IRIS = "dataset: iris\nsplit: {train: 0.6, val: 0.2, test: 0.2}\npreprocess: [standardize]\nlr: 0.02\nbatch_size: 20\nepochs: 6\nseed: 3\ndevice: cuda\n"
MLP = IRIS + "layers: [{linear: 16}, relu, {dropout: 0.2}, {linear: auto}]\n"
CNN = "dataset: digits\nsplit: {train: 200, val: 50, test: 50}\npreprocess: [{scale: 0.0625}]\nlr: 0.01\nbatch_size: 64\nepochs: 2\nseed: 1\ndevice: cuda\nlayers: [{conv2d: {out_channels: 3, kernel_size: 3}}, batch_norm, relu, {max_pool2d: 2}, flatten, {linear: auto}]\n"  # fmt: skip
STEPPED: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any]]] = {
    "dropout": ([{"linear": 32}, "relu", {"dropout": 0.3}], (4,), {}),
    "conv": ([{"conv2d": {"out_channels": 8, "kernel_size": 3}}, "batch_norm", "relu", "flatten"], (2, 9, 9), {}),
    "sgd": ([{"linear": 32}, "tanh"], (4,), {"optimizer": {"sgd": {"momentum": 0.9, "nesterov": True}}}),
    "adamw": ([{"linear": 32}, "gelu", "layer_norm"], (4,), {"optimizer": "adamw"}),
}


def opened(folder: Path, text: str, name: str = "run", **options: Any) -> Run:
    (folder / "it.yaml").write_text(text)
    return open_run(*read_spec(folder / "it.yaml"), out=folder / name, **options)


def finish(run: Run) -> Run:
    for _ in run.train():
        pass
    return run


class Steps:
    """Steps over 48 rows in batches of 20, 20 and 8, on the device."""

    def __init__(self, layers: list[Any], shape: tuple[int, ...], **keys: Any) -> None:
        spec, device = written(layers, "cross_entropy", "abc", seed=2, lr=0.01, **keys), torch.device("cuda")
        network = build_network(spec, Task(("y",), ("a", "b", "c")), shape, device)
        clip = 0.5
        self.plan = Plan(2, 9, 20, False, False, 0.01, lambda epoch: 1 / (1 + epoch), clip_grad_norm=clip, precision=spec.precision)
        optimizer = spec.optimizer.build(list(network.model.parameters()), spec.lr)
        self.state = State(network.model, optimizer, torch.zeros((), dtype=torch.float64, device=device))
        torch.manual_seed(5)
        x, y = some_rows((48,), shape, "abc")
        self.batches = list(zip(torch.split(x.to(device), 20), torch.split(y.to(device), 20), strict=True))
        self.work = Step(self.state, network.loss_fn, self.plan, device, ALONE)

    def take(self, epochs: int) -> list[torch.Tensor]:
        """Return all that moves."""
        for epoch in range(epochs):
            set_lr(self.state, self.plan, float(epoch))
            for batch in self.batches:
                self.work(Use(len(batch[0]), 1.0, True), batch)
        kept = [value for one in self.state.optimizer.state.values() for value in one.values() if isinstance(value, torch.Tensor)]
        moved = [*self.state.model.state_dict().values(), *kept, self.state.loss_sum]
        return [one.detach().cpu().clone() for one in moved] + [torch.cuda.get_rng_state()]


@pytest.mark.parametrize(("layers", "shape", "keys"), STEPPED.values(), ids=STEPPED)
def test_captured_steps_are_those_worked_out(
    monkeypatch: pytest.MonkeyPatch, layers: list[Any], shape: tuple[int, ...], keys: dict[str, Any]
):
    """To the bit, where deterministic kernels are asked for: weights, buffers, the optimizer's state, losses, random numbers."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        made: list[Any] = []
        real = step.Captured
        monkeypatch.setattr(step, "Captured", lambda *given, **named: made.append(real(*given, **named)) or made[-1])
        captured = Steps(layers, shape, **keys).take(5)
        assert not made[0].refused
        assert len(made[0].replays) == 2
        monkeypatch.setattr(step, "can_capture", lambda modules, device: False)
        worked_out = Steps(layers, shape, **keys).take(5)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(captured, worked_out, strict=True))


@pytest.mark.parametrize("captured", [True, False])
def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch, captured: bool):
    """torch raises where anything does."""
    if not captured:
        monkeypatch.setattr(step, "can_capture", lambda modules, device: False)
    steps = Steps(*STEPPED["dropout"][:2])
    steps.take(3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in steps.batches * 3:
            steps.work(Use(len(batch[0]), 1.0, True), batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "text", [MLP, MLP + "precision: bfloat16\n", MLP + "precision: float16\n", CNN], ids=["mlp", "bfloat16", "float16", "cnn"]
)
def test_a_stopped_run_goes_on_as_if_never_stopped(tmp_path: Path, text: str):
    """The same bytes of weights, with deterministic kernels."""
    text = text + "checkpoint: {every: 1}\ndeterministic: true\n"
    finish(opened(tmp_path, text, "straight"))
    stopped = opened(tmp_path, text, "stopped")
    next(iter(stopped.train()))
    stopped.lock.release()
    finish(opened(tmp_path, text, "stopped", resume=True))
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize("text", [MLP, CNN], ids=["mlp", "cnn"])
def test_a_checkpoint_predicts_the_same_on_the_cpu(tmp_path: Path, text: str):
    """Of another device: the same classes, and probabilities to 1e-4."""
    run = finish(opened(tmp_path, text))
    test = run.data.parts["test"]
    found = run.network.outputs(test.x).cpu()
    here = load(tmp_path / "run" / "best.safetensors", device="cpu")
    assert torch.allclose(here.network.outputs(test.x.cpu()), found, atol=1e-3, rtol=1e-3)


def test_seeds_side_by_side_are_those_alone(tmp_path: Path):
    """Losses to 1e-3 after six epochs."""
    (tmp_path / "it.yaml").write_text(IRIS + "layers: [8]\n")
    many = Seeds(*read_spec(tmp_path / "it.yaml"), 3, out=tmp_path / "many")
    for _, run in many.runs():
        for _ in run.train():
            pass
    row = json.loads((tmp_path / "many" / "metrics.jsonl").read_text().splitlines()[-1])
    for place, spec in enumerate(many.specs):
        alone = open_run(spec, many.source, out=tmp_path / f"{spec.seed}")
        last = list(alone.train())[-1]
        assert row["train"]["loss"][place] == pytest.approx(last.train["loss"], rel=1e-3)
