"""A captured step against the one it was captured from: the same bits in every tensor that either of them touches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nnrun.builtin  # noqa: F401
from nnrun.data.dataset import Rows, Task
from nnrun.errors import DataError
from nnrun.training import capture, step
from nnrun.training.capture import Captured
from nnrun.training.group import ALONE
from nnrun.training.loop import Plan, State, set_lr
from nnrun.training.network import build_network
from nnrun.training.step import Step, Use
from tests.networks import NETWORKS, some_rows, written

ROWS, SIZE = 11, 4
CPU = torch.device("cpu")
PLAN = Plan(seed=3, epochs=4, batch_size=SIZE, shuffle=True, drop_last=False, lr=0.1, factor=lambda epoch: 1.0)


class Seen(Captured):
    """A computation that the test can look at."""

    all: list[Captured]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.all.append(self)


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Captured]]:
    """All that is captured in a test."""
    Seen.all = []
    monkeypatch.setattr(step, "Captured", Seen)
    return Seen.all


def moved(
    spec: Any, task: Task, x: Tensor, y: Tensor, *, plan: Plan = PLAN, rounds: int = 4, weights: Tensor | None = None
) -> list[Tensor]:
    """Return all that moves in four rounds of batches of 4, 4 and 3 rows: losses, weights, buffers, the optimizer's state, the random state."""
    network = build_network(spec, task, tuple(x.shape[1:]), CPU)
    optimizer = spec.optimizer.build(list(network.model.parameters()), spec.lr)
    state = State(network.model, optimizer, torch.zeros((), dtype=torch.float64))
    torch.manual_seed(5)
    data = [x, network.head.encode(y), *([] if weights is None else [weights])]
    work = Step(state, step_loss(network.loss_fn, weights), plan, CPU, ALONE)
    losses = []
    for number in range(rounds):
        set_lr(state, plan, float(number))
        for batch in zip(*(torch.split(one, SIZE) for one in data), strict=True):
            losses.append(work(Use(len(batch[0]), 1.0, True), batch).clone())
    kept = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
    return [*losses, *network.model.state_dict().values(), *kept, state.loss_sum, torch.get_rng_state()]


def step_loss(loss_fn: nn.Module, weights: Tensor | None) -> nn.Module:
    from nnrun.training.loss_modules import Weighted

    return loss_fn if weights is None else Weighted(loss_fn)


def bits(tensors: list[Tensor]) -> list[bytes]:
    return [tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]


def require_same(monkeypatch: pytest.MonkeyPatch, run: Callable[[], list[Tensor]]) -> None:
    """Run with captures, which must have been made of both sizes of a batch, and without."""
    with_captures = run()
    assert len(Seen.all) == 1
    assert not Seen.all[0].refused
    assert len(Seen.all[0].replays) == 2
    with monkeypatch.context() as patch:
        patch.setattr(step, "can_capture", lambda modules, device: False)
        without = run()
    assert len(Seen.all) == 1
    assert bits(with_captures) == bits(without)


DRAWING: list[tuple[list[Any], tuple[int, ...], Any, str]] = [
    ([{"linear": 8}, {"dropout": 0.4}, "relu"], (4,), "cross_entropy", "abc"),
    ([{"linear": 8}, "rrelu"], (4,), "cross_entropy", "abc"),
    ([{"linear": 8}, "batch_norm", "relu"], (4,), "cross_entropy", "abc"),
    ([{"conv2d": {"out_channels": 3, "kernel_size": 3}}, "batch_norm", {"dropout2d": 0.3}, "flatten"], (2, 6, 6), "mse", "abc"),
    ([{"gru": 5}], (6, 3), "cross_entropy", "abc"),
    ([{"lstm": {"hidden_size": 5, "num_layers": 2, "dropout": 0.2}}], (6, 3), "mse", ""),
    ([{"rnn": {"hidden_size": 5, "bidirectional": True}}], (6, 3), "cross_entropy", "abc"),
]


@pytest.mark.parametrize(("layers", "shape", "loss", "classes"), NETWORKS + DRAWING)
def test_every_layer_and_every_loss(monkeypatch: pytest.MonkeyPatch, layers: list[Any], shape: tuple[int, ...], loss: Any, classes: str):
    """Batches of two sizes, each captured and replayed."""
    spec, rows = written(layers, loss, classes, seed=2, lr=0.01), some_rows((ROWS,), shape, classes)
    require_same(monkeypatch, lambda: moved(spec, Task(("y",), tuple(classes)), *rows))


@pytest.mark.parametrize(
    "optimizer",
    ["sgd", {"sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}}, "adam", {"adam": {"amsgrad": True}}, {"adamw": {"betas": [0.5, 0.9]}}],
)  # fmt: skip
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_fused_optimizer(monkeypatch: pytest.MonkeyPatch, optimizer: Any, clip: float | None, precision: str):
    """With another rate in each epoch, weighted rows, clipped gradients, and products in bfloat16."""
    plan = Plan(**{**vars(PLAN), "clip_grad_norm": clip, "precision": precision, "factor": lambda epoch: 1 / (1 + epoch)})
    spec, rows = written([{"linear": 5}, "tanh"], "cross_entropy", "abc", optimizer=optimizer), some_rows((ROWS,), (4,), "abc")
    weights = torch.linspace(0, 1, ROWS)
    require_same(monkeypatch, lambda: moved(spec, Task(("y",), ("a", "b", "c")), *rows, plan=plan, weights=weights))


@pytest.mark.parametrize("optimizer", ["rmsprop", "nadam", "adagrad"])
def test_an_optimizer_of_many_calls_is_not_captured(optimizer: str):
    """It reads its count of steps, or rates, in Python."""
    spec, rows = written([], "cross_entropy", "abc", optimizer=optimizer), some_rows((ROWS,), (4,), "abc")
    moved(spec, Task(("y",), ("a", "b", "c")), *rows)
    assert not Seen.all


def test_a_number_that_a_layer_refuses_is_told_by_the_layer():
    """A replay knows nothing of the words of a layer, so the layer is asked again; the weights are those before the batch."""
    spec, (x, y) = (
        written([{"embedding": {"num_embeddings": 4, "embedding_dim": 3}}, "flatten"], "cross_entropy", "abc"),
        some_rows((ROWS,), (6,), "abc"),
    )
    with pytest.raises(DataError, match="embedding: the input holds 7, and num_embeddings: 4 allows 0 to 3"):
        moved(spec, Task(("y",), ("a", "b", "c")), torch.cat([x[:8], x[:8], x[:4] + 6]), torch.cat([y[:8], y[:8], y[:4]]), rounds=1)
    assert len(Seen.all[0].replays) == 1


class Counts(nn.Linear):
    """A layer that does something else each time; it belongs to no one that is known."""

    calls = 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(input) * self.calls


def of_layers(*layers: nn.Module) -> tuple[State, Step]:
    """Return the state and the step of a network of the test's own."""
    torch.manual_seed(1)
    model = nn.Sequential(*layers)
    state = State(model, torch.optim.SGD(model.parameters(), lr=0.1, fused=True), torch.zeros((), dtype=torch.float64))
    return state, Step(state, nn.MSELoss(), PLAN, CPU, ALONE)


def test_a_module_of_anyone_else_is_not_captured():
    """It may count its calls, look at its numbers, or ask for the time."""
    of_layers(Counts(4, 1))
    assert not Seen.all
    hooked = nn.Linear(4, 1)
    hooked.register_forward_hook(lambda *given: None)
    of_layers(hooked)
    assert not Seen.all
    for name in ("register_hook", "register_post_accumulate_grad_hook"):
        watched = nn.Linear(4, 1)
        getattr(watched.weight, name)(lambda gradient: None)
        of_layers(watched)
    patched = nn.Linear(4, 1)
    patched.forward = lambda input: input  # type: ignore[method-assign]
    of_layers(patched)
    everywhere = nn.modules.module.register_module_forward_hook(lambda *given: None)
    of_layers(nn.Linear(4, 1))
    everywhere.remove()
    assert not Seen.all
    of_layers(nn.Linear(4, 1))
    assert len(Seen.all) == 1


@pytest.mark.parametrize(
    ("compute", "why"),
    [
        (lambda x: x * x.sum().item(), "depends on numbers of the device"),
        (lambda x: x[x > 0], "depends on numbers of the device"),
        (lambda x: x.add_(1), "changes the batch"),
        (lambda x: x + torch.rand(4, generator=torch.Generator().manual_seed(1)), "draws from a generator of its own"),
        (lambda x: x.to_sparse().to_dense(), "makes more than plain tensors"),
        (lambda x: torch.cat([x.expand(1 << 20, 4) * 2, x.expand(1 << 20, 4) * 3, x.expand(1 << 21, 4) * 3]).sum(0), "it needs too much memory"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_worked_out(compute: Callable[[Tensor], Tensor], why: str):
    """And says why."""
    tried = Captured(compute)
    for number in range(1, 6):
        x = torch.full((4,), float(number))
        assert torch.equal(tried(x.clone()), compute(x.clone()))
    assert not tried.replays
    (said,) = tried.refused.values()
    assert why in said


def test_a_replay_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch):
    """The state, the random state too, is that after the computation, as if nothing had been tried."""
    real = capture._Tape.replay
    monkeypatch.setattr(capture._Tape, "replay", lambda self, made: lambda batch: real(self, made)(batch) * 1.0000001)

    def run(how: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]) -> list[Tensor]:
        torch.manual_seed(3)
        sums = torch.zeros(4)
        compute = how(lambda x: sums.add_(torch.dropout(x, 0.5, train=True)) * 3)
        return [*(compute(torch.ones(4) * number).clone() for number in range(1, 6)), sums, torch.get_rng_state()]

    tried: list[Captured] = []
    found = run(lambda compute: tried.append(Captured(compute)) or tried[0])  # type: ignore[func-returns-value]
    assert bits(found) == bits(run(lambda compute: compute))
    assert tried[0].refused == {(torch.Size([4]),): "a replay gave something else"}


def test_what_a_call_changes_without_saying_so_is_put_back():
    """batch_norm's running means are no arguments that are written to, as far as its schema knows; two batches are counted, not three."""
    state, work = of_layers(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1))
    for _ in range(2):
        work(Use(8, 1.0, True), (torch.ones(8, 4), torch.zeros(8, 1)))
    assert len(Seen.all[0].replays) == 1
    assert state.model[0].running_mean.tolist() == pytest.approx([1 - 0.9**2] * 4)  # type: ignore[index, union-attr, operator]
    assert state.model[0].num_batches_tracked == 2  # type: ignore[index]


def test_a_replayed_step_that_is_not_finite_is_not_taken():
    """The weights and the optimizer's count are those before it."""
    state, work = of_layers(nn.Linear(4, 1))
    for number in range(4):
        kept = bits([weight.detach() for weight in state.parameters])
        work(Use(8, 1.0, True), (torch.full((8, 4), math.nan if number == 3 else 1.0), torch.zeros(8, 1)))
        assert state.not_finite.item() == (number == 3)
        assert (kept == bits([weight.detach() for weight in state.parameters])) == (number == 3)
    assert len(Seen.all[0].replays) == 1


def test_a_step_that_fails_leaves_no_gradient(monkeypatch: pytest.MonkeyPatch):
    """As one does whose CUDA graph cannot be made: the next step would add to it."""
    state, work = of_layers(nn.Linear(4, 1))

    def fail(loss: Tensor) -> None:
        assert all(weight.grad is not None for weight in state.parameters)
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(work, "_update", fail)
    with pytest.raises(RuntimeError, match="not permitted"):
        work(Use(8, 1.0, True), (torch.ones(8, 4), torch.zeros(8, 1)))
    assert all(weight.grad is None for weight in state.parameters)


@pytest.mark.parametrize("layer", ["gru", "lstm", "rnn"])
def test_a_computation_that_differs_once_it_is_looked_at_is_as_if_it_were_not(layer: str):
    """In inference mode and bfloat16, recurrent layers make other calls under a dispatch mode; scoring in it, and as a run scores."""
    spec = written([{layer: 4}], "cross_entropy", "abc", seed=2, precision="bfloat16")
    network = build_network(spec, Task(("y",), ("a", "b", "c")), (6, 3), CPU)
    torch.manual_seed(3)
    rows = Rows(torch.randn(9, 6, 3), torch.arange(9) % 3)
    wanted = network.score(rows)
    scored, run = network.scoring(rows), Captured(torch.inference_mode()(lambda x: network.outputs(x)))
    for _ in range(4):
        assert scored() == wanted
        assert torch.equal(run(rows.x), network.outputs(rows.x))
