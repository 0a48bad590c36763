"""The optimizers: each lowers a loss, and each goes on from its state to the bit."""

from __future__ import annotations

import copy
import inspect
import os
import subprocess
import sys
import tempfile
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import nnrun.training.optimizers as optimizers
from nnrun.errors import SpecError
from nnrun.registry import OPTIMIZERS
from nnrun.spec.parts import part_class
from nnrun.training.eager import run_backward, step_of
from tests.conftest import ROOT

LR = {"adadelta": 1.0, "lbfgs": 0.5, "sgd": 0.1}
TORCH_CLASSES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop"} | {
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "lbfgs": "LBFGS",
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def build(name: str, model: nn.Module, **arguments: Any) -> Optimizer:
    made: Optimizer = part_class(OPTIMIZERS, name).model_validate(arguments).build(model.parameters(), LR.get(name, 0.02))
    return made


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> list[float]:
    """Take steps on one small problem; return the loss before each."""
    x = torch.linspace(-1, 1, 60).view(20, 3)
    y = x.prod(1, keepdim=True) + x.sum(1, keepdim=True)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = ((model(x) - y) ** 2).mean()
        loss.backward()
        return loss.detach()

    return [float(optimizer.step(closure)) for _ in range(steps)]


STEPS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in OPTIMIZERS if name != "lbfgs"),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("sgd", {"momentum": 0.5, "dampening": 0.1, "weight_decay": 0.1}),
    ("adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("adamw", {"amsgrad": True, "betas": [0.8, 0.99]}),
]


@pytest.mark.parametrize(("name", "arguments"), STEPS)
def test_a_step_by_itself_is_the_step_with_its_hooks(name: str, arguments: dict[str, Any]):
    """What is left out around a step does no arithmetic: not with a new state, an lr of its own, or a weight that has no gradient."""
    whole, bare = network(), network()
    whole_optimizer, bare_optimizer = build(name, whole, **arguments), build(name, bare, **arguments)
    take_step = step_of(bare_optimizer)
    for step in range(8):
        for model in (whole, bare):
            model.zero_grad()
            loss = model(torch.linspace(-1, 1, 60).view(20, 3)).square().sum()
            run_backward(loss, torch.ones(())) if model is bare else loss.backward()
            if step == 4 and name != "muon":  # torch's Muon wants all of them
                next(model.parameters()).grad = None
        for optimizer in (whole_optimizer, bare_optimizer):
            optimizer.param_groups[0]["lr"] = 0.01 * (step + 1)
            if step == 6:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        whole_optimizer.step()
        take_step()
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), bare.parameters(), strict=True)), step
        assert leaves(whole_optimizer.state_dict()) == leaves(bare_optimizer.state_dict())


def test_training_does_not_import_the_compiler():
    """torch imports it with the first optimizer and at each step: more than torch's own import, in every process that trains."""
    code = """
import sys, tempfile
from nnrun.cli import app
open("it.yaml", "w").write("dataset: iris\\nsplit: {test: 0.4, method: train_test_split}\\npreprocess: [standardize]\\nlayers: [3]\\nepochs: 2\\n")
app(["train", "it.yaml", "--quiet"], standalone_mode=False)
sys.exit(any(name in sys.modules for name in ("torch._dynamo", "sympy", "sklearn", "scipy", "polars", "pandas")))
"""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_lowers_the_loss(name: str):
    """Sixty steps with default arguments more than halve the loss of a small problem."""
    model = network()
    losses = train(model, build(name, model), 60)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_goes_on_from_its_state_to_the_bit(name: str):
    """Five steps, a new optimizer with the saved state, five more: the weights of ten steps, and an equal state."""
    straight = network()
    train(straight, straight_optimizer := build(name, straight), 10)

    first = network()
    train(first, first_optimizer := build(name, first), 5)
    saved, weights = copy.deepcopy(first_optimizer.state_dict()), copy.deepcopy(first.state_dict())
    second = network()
    second.load_state_dict(weights)
    second_optimizer = build(name, second)
    second_optimizer.load_state_dict(saved)
    train(second, second_optimizer, 5)

    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))
    assert leaves(straight_optimizer.state_dict()) == leaves(second_optimizer.state_dict())


def leaves(state: Any, path: str = "") -> dict[str, Any]:
    """Return path → value of everything in a state dict, tensors as lists."""
    if isinstance(state, dict):
        return {key: value for name, inner in state.items() for key, value in leaves(inner, f"{path}/{name}").items()}
    if isinstance(state, list | tuple):
        return {key: value for i, inner in enumerate(state) for key, value in leaves(inner, f"{path}/{i}").items()}
    return {path: state.tolist() if isinstance(state, Tensor) else state}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_follows_the_rate_of_its_groups(name: str):
    """The loop sets `lr` in the parameter groups: at rate 0 no weight moves."""
    model = network()
    optimizer = build(name, model)
    train(model, optimizer, 2)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, 2)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", list(TORCH_CLASSES))
def test_defaults_are_those_of_torch(name: str):
    """A plain PyTorch script with the same name gets the same optimizer."""
    theirs = inspect.signature(getattr(torch.optim, TORCH_CLASSES[name])).parameters
    for argument in OPTIMIZERS[name].arguments.values():
        default = theirs[argument.name].default
        assert argument.default == (list(default) if isinstance(default, tuple) else default), argument.name


@pytest.mark.parametrize("name", list(TORCH_CLASSES))
def test_arguments_reach_torch_under_their_own_names(name: str):
    """No two arguments change places on the way: each stands in the parameter group as it was given."""
    given: dict[str, Any] = {}
    for number, argument in enumerate(OPTIMIZERS[name].arguments.values()):
        if argument.name == "betas":
            given["betas"] = [0.5, 0.6]
        elif isinstance(argument.default, bool):
            given[argument.name] = argument.name not in ("nesterov",)
        elif isinstance(argument.default, float):
            given[argument.name] = 0.01 * (number + 1)
        elif argument.name != "line_search_fn":
            given[argument.name] = 3 + number
    group = build(name, network(), **given).param_groups[0]
    assert {key: list(group[key]) if isinstance(group[key], tuple) else group[key] for key in given} == given


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_the_fused_kernel_is_used_on_the_cpu(name: str):
    """One kernel for the whole step, where torch has one."""
    assert build(name, network()).param_groups[0]["fused"] is True


def test_a_device_without_a_fused_kernel_is_left_to_torch():
    """fused stays unset, and not False, which would also turn off torch's own choice."""
    assert optimizers._fused([nn.Parameter(torch.empty(2, device="meta"))]) is None


def test_muon_takes_matrices_and_adamw_the_rest():
    """The step of a matrix is orthogonal, as Muon's; biases step like AdamW alone."""
    model, twin = network(), network()
    muon, adamw = build("muon", model), torch.optim.AdamW(twin.parameters(), 0.02, weight_decay=0.1)
    before = model[0].weight.detach().clone()
    train(model, muon, 1)
    train(twin, adamw, 1)
    torch.testing.assert_close(model[0].bias, twin[0].bias)
    torch.testing.assert_close(model[2].bias, twin[2].bias)
    step = (before * (1 - 0.02 * 0.1) - model[0].weight.detach()) / (0.02 * 0.2 * 8**0.5)
    assert all(0.4 < value < 1.4 for value in torch.linalg.svdvals(step)[:1].tolist())
    assert [len(group["params"]) for group in muon.param_groups] == [2, 2]


@pytest.mark.parametrize("model", [nn.Linear(3, 2, bias=False), nn.BatchNorm1d(3)], ids=["matrices only", "no matrices"])
def test_muon_works_on_one_kind_of_parameters_alone(model: nn.Module):
    """A network may have no biases, or no matrices."""
    optimizer = build("muon", model)
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.randn(4, 3)).pow(2).sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True) if b.grad is not None and b.grad.any())


def test_nesterov_without_momentum_is_refused():
    """torch would raise a ValueError with its own words."""
    with pytest.raises(SpecError) as error:
        build("sgd", network(), nesterov=True)
    assert str(error.value) == (
        "error: nesterov wants momentum above 0 and dampening 0, and they are 0 and 0\nfix: write momentum: 0.9, or leave nesterov out"
    )
    assert error.value.faults[0].at == ("optimizer", "nesterov")


def test_a_network_without_weights_is_refused():
    """There is nothing to train."""
    with pytest.raises(SpecError) as error:
        build("adam", nn.Flatten())
    assert str(error.value) == "error: the network has no weights, so there is nothing to train\nfix: add a layer with weights"


def test_reading_the_arguments_does_not_import_torch():
    """A config is checked before torch is there: all four kinds of training parts."""
    code = (
        "import sys\n"
        "from nnrun.training import losses, metrics, optimizers, schedules\n"
        "from nnrun.registry import LOSSES, METRICS, OPTIMIZERS, SCHEDULES\n"
        "from nnrun.spec.parts import part_class\n"
        "[part_class(kind, name) for kind in (LOSSES, METRICS, OPTIMIZERS, SCHEDULES) for name in kind]\n"
        "print([name for name in ('torch', 'numpy', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("kind", ["losses", "optimizers", "schedules"])
def test_every_argument_has_help(kind: str):
    """`nnrun list` and the schema show it."""
    import nnrun.training.losses
    import nnrun.training.schedules  # noqa: F401
    from nnrun.registry import KINDS

    assert [(n, a.name) for n in KINDS[kind] for a in KINDS[kind][n].arguments.values() if not a.help] == []
