"""`strategy: fsdp`: each process holds a share of the network, and nothing else is different."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import nnrun.builtin  # noqa: F401
from nnrun.model.modules import Residual
from nnrun.runs.checkpoint import load
from nnrun.runs.folder import BEST, LAST
from nnrun.spec.reader import check
from nnrun.training.group import Group
from nnrun.training.memory import most_parameters
from nnrun.training.strategies import units
from tests.distributed.conftest import Job, figures_of, rows_of

BASE = "name: it\ndataset: iris\npreprocess: [standardize]\nlr: 0.01\n"
SHARED = "strategy: {fsdp: {unit: 100}}\n"
NORMED = "{linear: {out_features: 8, bias: false}}, batch_norm"
CONFIGS = {
    "accumulation, clipping, an uneven last batch, several units, on 2 and 4": (
        f"{BASE}layers: [16, 8]\nepochs: 3\nbatch_size: 11\naccumulate_batches: 3\nclip_grad_norm: 0.5\n"
    ),
    "batch norm over all processes, layers within a layer, a process without a row, momentum, on 2": (
        f"{BASE}layers: [{NORMED}, relu, {{residual: [{NORMED}]}}, {{linear: auto}}]\nepochs: 2\nbatch_size: 7\nsync_batch_norm: true\n"
        "split: {train: 71, val: 30, test: rest}\noptimizer: {sgd: {momentum: 0.9}}\ndrop_last: true\n"
    ),
    "blocks of rows that cannot be shared evenly, weights of classes, steps too large, on 3": (
        "dataset: digits\nlayers: [flatten, {linear: auto}]\nepochs: 1\nbatch_size: 100\nsplit: {train: 101, val: 20, test: 1500}\n"
        "evaluate: [val, test]\nclass_weight: balanced\noptimizer: sgd\nlr: 3\n"
    ),
}


@pytest.fixture
def shared(job: Job) -> Job:
    """Return `job`, with FSDP imported once for all of them: it takes a second and more."""
    return partial(job, imports=["torch.distributed.fsdp"])


@pytest.mark.parametrize("what", CONFIGS)
def test_the_figures_are_those_of_one_process(what: str, shared: Job, tmp_path: Path):
    """Every figure of every epoch, those at the end, and what the rules see in the network."""
    config = tmp_path / "it.yaml"
    config.write_text(CONFIGS[what] + SHARED)
    assert shared(0, "train", config, "--out", tmp_path / "1", "--no-report").codes == [0]
    for count in map(int, re.findall(r"\d", what)):
        done = shared(count, "train", config, "--out", tmp_path / str(count), "--no-report")
        assert done.codes == [0] * count, done.err
        assert figures_of(tmp_path / str(count)) == pytest.approx(figures_of(tmp_path / "1"), rel=1e-6, abs=1e-7)
        health = [json.loads((tmp_path / name / "summary.json").read_text())["health"] for name in (str(count), "1")]
        assert health[0] == health[1]
        assert bool(health[0]) == ("too large" in what)


def test_a_run_goes_on_with_another_strategy_and_another_number_of_processes(shared: Job, tmp_path: Path):
    """Shared by 2, plain, copied to 2, shared by 4, shared by 2, each stopped in the middle of an epoch: sums of squares and best weights as well."""
    plain, fsdp = tmp_path / "plain.yaml", tmp_path / "fsdp.yaml"
    plain.write_text(f"{BASE}layers: [16]\noptimizer: adagrad\nbatch_size: 9\nepochs: 6\nsplit: {{train: 90, val: 30, test: rest}}\n")
    fsdp.write_text(plain.read_text() + SHARED)
    assert shared(0, "train", plain, "--out", tmp_path / "straight", "--no-report").codes == [0]
    said = []
    for number, (count, config, stop) in enumerate([(2, fsdp, 13), (0, plain, 24), (2, plain, 36), (4, fsdp, 47), (2, fsdp, None)]):
        again = ["--resume"] * (number > 0)
        done = shared(count, "train", config, "--out", tmp_path / "hurt", "--no-report", *again, stop_at=stop)
        assert set(done.codes) == {0 if stop is None else 143}, done.err
        said += [line.partition(" on: ")[2] for line in done.err.splitlines() if "bits" in line]
    assert figures_of(tmp_path / "hurt") == pytest.approx(figures_of(tmp_path / "straight"), rel=1e-6, abs=1e-7)
    assert said == ["processes 2 → 1", "processes 1 → 2", "processes 2 → 4, strategy ddp → fsdp", "processes 4 → 2"]
    hurt, straight = (load(tmp_path / name / LAST).tensors for name in ("hurt", "straight"))
    assert {name: one.shape for name, one in hurt.items() if "others" not in name} == {name: one.shape for name, one in straight.items()}
    assert shared(0, "eval", "--checkpoint", tmp_path / "hurt").codes == [0]


def test_as_many_processes_go_on_to_the_byte_and_each_holds_half(shared: Job, tmp_path: Path):
    """With dropout and batch norm of each process; half of the weights, of the gradients and of Adam's means, before and after."""
    config = tmp_path / "it.yaml"
    layers = "[flatten, {linear: 16}, relu, {dropout: 0.4}, batch_norm, {linear: 32}, {linear: auto}]"
    rest = "batch_size: 9\nepochs: 3\nlr: 0.01\nsplit: {train: 90, val: 30, test: rest}\n"
    config.write_text(f"name: it\ndataset: digits\nlayers: {layers}\n{rest}{SHARED}")
    held = tmp_path / "held"
    assert shared(2, "train", config, "--out", tmp_path / "straight", "--no-report", held=[str(held), 1]).codes == [0, 0]
    assert shared(2, "train", config, "--out", tmp_path / "hurt", "--no-report", stop_at=13).codes == [143, 143]
    assert shared(2, "train", config, "--out", tmp_path / "hurt", "--no-report", "--resume", held=[str(held), 20]).codes == [0, 0]
    for name in (BEST, LAST):
        assert (tmp_path / "hurt" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert rows_of(tmp_path / "hurt") == rows_of(tmp_path / "straight")
    # Means of batch norm are the first process's, also where another scores some of the rows.
    scored = shared(0, "eval", "--checkpoint", tmp_path / "hurt", "--json")
    assert json.loads(scored.out)["metrics"] == pytest.approx(
        json.loads((tmp_path / "hurt" / "summary.json").read_text())["metrics"]["test"]
    )
    weights = load(tmp_path / "hurt" / BEST).under("model")
    numbers = sum(one.numel() for name, one in weights.items() if name.endswith(("weight", "bias")))
    of_each = [json.loads(line) for line in held.read_text().splitlines()]
    assert sorted(rank for rank, *_ in of_each) == [0, 0, 1, 1]
    for _, *sizes in of_each:  # of an odd number of rows the first process has one more, and both the room for it
        assert sizes == pytest.approx([4 * numbers / 2, 4 * numbers / 2, 8 * numbers / 2], rel=0.05)


@pytest.mark.parametrize("optimizer", ["muon", "lbfgs"])
def test_an_optimizer_that_needs_whole_weights_is_refused(optimizer: str, shared: Job, tmp_path: Path):
    """Once, before a folder is made; one process has whole weights, so the strategy means nothing there."""
    config = tmp_path / "it.yaml"
    config.write_text(f"dataset: iris\nlayers: [8]\noptimizer: {optimizer}\nlr: 0.01\nepochs: 1\nstrategy: fsdp\n")
    done = shared(2, "train", config, "--out", tmp_path / "2", "--no-report")
    assert done.codes == [2, 2]
    what, fix = {
        "muon": (
            "muon looks at whole weights, of which fsdp gives each process a share",
            "take another optimizer, such as adamw, or write `strategy: ddp`",
        ),
        "lbfgs": (
            "lbfgs looks at the loss several times in one step, which 2 processes cannot share",
            "take another optimizer, or train in one process",
        ),
    }[optimizer]
    place = f"    3 | optimizer: {optimizer}\n      |            {'^' * len(optimizer)}\n"
    assert done.err == f"error: {config}:3:12: {what}\n{place}fix: {fix}\n"
    assert not (tmp_path / "2").exists()
    assert shared(0, "train", config, "--out", tmp_path / "1", "--no-report").codes == [0]


@pytest.mark.parametrize(
    ("processes", "here", "shards", "expected"), [(1, 1, False, 52), (4, 4, False, 112), (4, 4, True, 68), (4, 1, True, 56)]
)
def test_the_memory_of_a_machine_is_that_of_its_processes(processes: int, here: int, shards: bool, expected: int):
    """Adam: a weight, its best value and two means; with the gradient five numbers, a share of them in each, and what the first one writes."""
    group = Group()
    group.world_size, group.local_world_size = processes, here
    spec = check({"name": "it", "dataset": "iris", "layers": [8]})
    for device, numbers in (("cpu", expected), ("cuda", 48)):
        _, why = most_parameters(spec, torch.device(device), group, keeps_best=True, shards=shards)
        assert why.startswith(f"adam and its checkpoints take {numbers} bytes for each, and ")


def test_layers_are_gathered_together_until_they_have_so_many_weights():
    """110 each, those within a layer too; what is left over goes with the whole network."""
    first, second, third, last = (nn.Linear(10, width) for width in (10, 10, 10, 1))
    model = nn.Sequential(first, nn.ReLU(), Residual(second, nn.ReLU(), third), last)
    assert list(units(model, 110)) == [[first], [second], [third]]
    assert list(units(model, 111)) == [[first, second], [third, last]]
    assert list(units(model, 300)) == [[first, second, third]]
    assert not list(units(model, 1000))
