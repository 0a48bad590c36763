"""Weights of rows and classes, and scaled targets: what they change, and what they must not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from typer.testing import Result

import nnrun.builtin  # noqa: F401
from nnrun.data.dataset import Task
from nnrun.errors import SpecError
from nnrun.registry import LOSSES
from nnrun.run import Run, open_run
from nnrun.spec.parts import part_class
from nnrun.spec.reader import read_spec
from nnrun.trained import load
from nnrun.training.head import fit_scale, head_for
from nnrun.training.loss_modules import Weighted

Call = Callable[..., Result]
NOISE = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].place.find("/nnrun/training/losses.py") > 0])
def test_a_weighted_loss_is_the_weighted_mean_of_the_rows(name: str):
    """Sum of w·l over sum of w, with l the loss of each row by itself; equal weights are none."""
    traits = LOSSES[name].traits
    task = Task(("y",), ("a", "b", "c")) if "classes" in traits else Task(("y",))
    y = torch.randint(0, 3, (6,), generator=NOISE) if task.classes else torch.rand(6, 1, generator=NOISE)
    part = part_class(LOSSES, name).model_validate({})
    head = head_for(part, task)
    output = torch.randn(6, head.outputs, generator=NOISE)
    if head.scores == "log_probabilities":
        output = output.log_softmax(1)
    target, weight = head.encode(y), torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0, 1.0])
    alone = torch.stack([part.build()(output[row : row + 1], target[row : row + 1]) for row in range(6)])
    expected = (alone * weight).sum() / weight.sum()
    torch.testing.assert_close(Weighted(part.build())(output, target, weight), expected)
    torch.testing.assert_close(Weighted(part.build())(output, target, torch.ones(6)), part.build()(output, target))


def run_of(tmp_path: Path, table: str, keys: str, name: str = "run") -> Run:
    """Return a run on a table whose target is `y`, ready to train."""
    (tmp_path / "t.csv").write_text(table)
    (tmp_path / "it.yaml").write_text(f"split: {{train: rest}}\nepochs: 3\nlayers: [4]\n{keys}\n")
    return open_run(*read_spec(tmp_path / "it.yaml"), out=tmp_path / name)


def numbers(rows: int = 30) -> np.ndarray:
    """Return two inputs and a weight for each row."""
    return np.random.default_rng(0).normal(size=(rows, 3)).round(3)


def test_balanced_classes_count_alike(tmp_path: Path):
    """N / (K·n_k), as scikit-learn's `balanced`; the training loss is that of torch with these class weights."""
    table = "a,b,y\n" + "".join(f"{a},{b},{'rare' if row < 5 else 'often'}\n" for row, (a, b, _) in enumerate(numbers()))
    run = run_of(tmp_path, table, "dataset: {csv: t.csv, target: y}\nclass_weight: balanced\nbatch_size: all\nlr: 1e-9")
    y, x = run.data.parts["train"].y, run.data.parts["train"].x
    assert run.data.task.classes == ("often", "rare")
    assert sorted(set(run.weight.tolist())) == pytest.approx([30 / (2 * 25), 30 / (2 * 5)])  # type: ignore[union-attr]
    expected = F.cross_entropy(run.network.model(x), y, weight=torch.tensor([0.6, 3.0])).item()
    assert next(iter(run.train())).train["loss"] == pytest.approx(expected)
    named = run_of(tmp_path, table, "dataset: {csv: t.csv, target: y}\nclass_weight: {rare: 5}", "named")
    assert sorted(set(named.weight.tolist())) == [1, 5]  # type: ignore[union-attr]


def test_a_row_without_weight_teaches_nothing(tmp_path: Path):
    """Its target may be anything: the network is the same to the bit."""
    found = []
    for wrong in (0, 1000):
        cells = [(a, b, row % 3, a + b + (wrong if row % 3 == 0 else 0)) for row, (a, b, _) in enumerate(numbers())]
        table = "a,b,w,y\n" + "".join(",".join(map(repr, map(float, row))) + "\n" for row in cells)
        run = run_of(tmp_path, table, "dataset: {csv: t.csv, target: y, weight: w}\nbatch_size: 8", f"run{wrong}")
        list(run.train())
        found.append([parameter.detach().clone() for parameter in run.network.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("dataset: {csv: t.csv, target: y}\nclass_weight: {rar: 5}", "class 'rar' does not exist"),
        ("dataset: {csv: t.csv, target: a}\nclass_weight: balanced", "class_weight weighs classes, and 'a' is a number"),
        ("dataset: {csv: t.csv, target: y}\nscale_target: minmax", "scale_target scales numbers, and the targets are classes"),
        ("dataset: {csv: t.csv, target: c, task: numbers}\nscale_target: minmax\nloss: poisson_nll", "poisson_nll counts events, which"),
    ],
)
def test_what_does_not_suit_the_targets(tmp_path: Path, keys: str, told: str):
    """Told at its key."""
    table = "a,b,c,y\n" + "".join(f"{a},{b},{row},{'rare' if row < 5 else 'often'}\n" for row, (a, b, _) in enumerate(numbers()))
    with pytest.raises(SpecError) as caught:
        run_of(tmp_path, table, keys)
    assert told in str(caught.value)
    assert "it.yaml:" in str(caught.value)


@pytest.mark.parametrize(("how", "shift", "spread"), [("standardize", 20.0, 200**0.5), ("minmax", 0.0, 40.0)])
def test_scaled_targets_are_undone(how: str, shift: float, spread: float):
    """The loss sees (y - shift) / spread; what is predicted is in the target's own unit. A constant target is divided by 1."""
    y = torch.tensor([[0.0], [10.0], [20.0], [30.0], [40.0]])
    head = head_for(part_class(LOSSES, "mse").model_validate({}), Task(("y",)), fit_scale(how, Task(("y",)), y))
    torch.testing.assert_close(head.encode(y), (y - shift) / spread)
    torch.testing.assert_close(head.predict(head.encode(y)), y)
    assert fit_scale(how, Task(("y",)), torch.full((3, 1), 7.0))["spread"].tolist() == [1]


def test_a_scaled_run_speaks_in_the_targets_unit(call: Call, tmp_path: Path):
    """Targets around a million are learned at the usual learning rate; rmse, eval and predict agree, in the table's own unit."""
    rows = [(a, b, 1e6 + 1e5 * (a - 2 * b)) for a, b, _ in numbers(200)]
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{a},{b},{y:.1f}\n" for a, b, y in rows))
    keys = "dataset: {csv: t.csv, target: y}\nlayers: [16]\nepochs: 40\nlr: 0.01\nscale_target: standardize\nmetrics: [rmse]\n"
    (tmp_path / "it.yaml").write_text(keys)
    done = call("train", "it.yaml", "--out", "run", "--json", "-q")
    figures: dict[str, Any] = json.loads(done.stdout)["metrics"]["test"]
    assert figures["rmse"] < 3e4
    net = load(tmp_path / "run")
    assert net.evaluate("test")[1] == figures
    predicted = torch.tensor(net.predict(net.read([str(tmp_path / "t.csv")])).values)
    truth = torch.tensor([y for _, _, y in rows])
    assert float((predicted - truth).square().mean().sqrt()) == pytest.approx(
        net.evaluate(data=str(tmp_path / "t.csv"))[1]["rmse"], rel=1e-3
    )
