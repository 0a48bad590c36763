"""Rows that are not in memory: everything that is done with them gives what it gives for a tensor, to the bit."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nnrun.builtin  # noqa: F401
from nnrun.data import dataset, source
from nnrun.data.columns import Column
from nnrun.data.dataset import Dataset, Rows, Task
from nnrun.data.fingerprint import fingerprint
from nnrun.data.preprocess import apply_steps, fit_steps
from nnrun.data.source import Applied, Chosen, RowSource, batches, blocks, column
from nnrun.registry import PREPROCESS
from nnrun.spec.parts import part_class
from nnrun.training.baselines import make_baselines
from nnrun.training.evaluate import outputs
from nnrun.training.loop import Plan, State, train

ROWS = 1000
TABLE = (Column("a"), Column("b"), Column("kind", "category", ("x", "y", "z")), Column("c"))


class Held(RowSource):
    """Rows of a tensor, gathered by their numbers; counts what is asked for."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(x.shape, x.dtype, x.device)
        self.x = x
        self.most = 0
        self.threads: set[str] = set()

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (B, …) with these numbers."""
        self.most = max(self.most, len(rows))
        self.threads.add(threading.current_thread().name)
        return self.x[rows]


@pytest.fixture(params=[1 << 12, 1 << 26], ids=["small windows", "one window"])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Gather a few hundred rows at a time, or all."""
    monkeypatch.setattr(source, "WINDOW", request.param)
    return int(request.param)


def table(rows: int = ROWS) -> Tensor:
    """Return columns of numbers and one of categories, some values missing."""
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, generator=noise) * torch.tensor([1.0, 100.0, 1.0, 0.01])
    x[:, 2] = torch.randint(3, (rows,), generator=noise)
    x[torch.rand(rows, 4, generator=noise) < 0.05] = torch.nan
    return x


@pytest.mark.parametrize("name", ["standardize", "minmax", "robust", "quantile", "clip"])
@pytest.mark.parametrize("impute", [{}, {"numbers": "mean", "flag": True}, {"numbers": "most_frequent", "categories": "most_frequent"}])
def test_steps_learn_the_same_of_a_source(window: int, name: str, impute: dict[str, object]):
    """What is fitted, and what comes out, is the same to the bit, whatever the size of a window."""
    steps = [part_class(PREPROCESS, one).model_validate(given) for one, given in (("impute", impute), (name, {}), ("one_hot", {}))]
    x = table()
    whole, streamed = fit_steps(steps, x, TABLE), fit_steps(steps, Held(x), TABLE)
    for one, other in zip(whole, streamed, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    made = Applied(lambda rows: apply_steps(steps, streamed, rows, TABLE), Held(x))
    assert torch.equal(made[:], apply_steps(steps, whole, x, TABLE))


def trained(x: Tensor | RowSource, y: Tensor, first: int = 0, **changes: object) -> list[Tensor]:
    """Return the weights after three epochs, the run being left after `first` steps and gone on with."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    plan = Plan(**{"seed": 3, "epochs": 3, "batch_size": 30, "shuffle": True, "drop_last": False, "lr": 0.1, "factor": lambda e: 1.0, **changes})  # type: ignore[arg-type]  # fmt: skip
    state = State(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.zeros(()))
    for due in ((lambda state: state.step == first) if first else lambda state: False, lambda state: False):
        for moment in train(state, nn.CrossEntropyLoss(), [x, y], plan, due=due):
            if not moment.finished:
                break
    return [weight.detach() for weight in model.parameters()]


@pytest.mark.parametrize("changes", [{}, {"shuffle": False}, {"accumulate": 4}, {"drop_last": True}, {"batch_size": 5000}])
@pytest.mark.parametrize("first", [0, 17])
def test_training_from_a_source(window: int, changes: dict[str, object], first: int):
    """The weights are those of rows in memory, to the bit, also when the run was left in the middle of an epoch."""
    x, y = table().nan_to_num(0.0) / 100, torch.arange(ROWS) % 3
    assert all(map(torch.equal, trained(Held(x), y, first, **changes), trained(x, y, **changes)))


def test_augmented_rows_know_their_place(window: int):
    """What is done to a row depends on where it stands in the data, and may use another row, wherever they are gathered from."""

    def augment(data: Any, batch: tuple[Tensor, ...], places: Tensor, epoch: int) -> tuple[Tensor, ...]:
        assert torch.equal(batch[0], data[0][places])
        return batch[0] * (1 + places[:, None] % 5 + epoch) + data[0][(places * 7 + epoch) % ROWS], *batch[1:]

    x, y = table().nan_to_num(0.0) / 100, torch.arange(ROWS) % 3
    assert all(map(torch.equal, trained(Held(x), y, augment=augment), trained(x, y, augment=augment)))


def test_windows_are_bounded_and_gathered_ahead(monkeypatch: pytest.MonkeyPatch):
    """No more rows are asked for at once than a window holds, and a thread asks for them."""
    monkeypatch.setattr(source, "WINDOW", 1 << 12)
    held = Held(table())
    assert sum(len(x) for x, _ in batches([held, torch.arange(ROWS)], torch.randperm(ROWS), 7)) == ROWS
    assert held.most <= (1 << 12) // (4 * 4 + 8)
    assert all(name.startswith("gather") for name in held.threads)


def test_a_fault_while_gathering_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    """What goes wrong in the thread is raised where the batch is wanted."""
    monkeypatch.setattr(source, "WINDOW", 1 << 10)

    def broken(rows: Tensor) -> Tensor:
        if len(rows) and float(rows[0, 0]) > 500:
            raise OSError("gone")
        return rows

    numbered = Applied(broken, Held(torch.arange(ROWS).float()[:, None]))
    with pytest.raises(OSError, match="gone"):
        list(blocks(numbered, 10))


def test_all_that_looks_at_rows(window: int):
    """Digest, hashes, outputs, one column and the baselines are those of the rows in memory."""
    x, y = table().nan_to_num(0.0) / 100, torch.arange(ROWS) % 3
    task = Task(("kind",), ("x", "y", "z"))
    whole, streamed = Dataset(x, y, task), Dataset(Held(x), y, task)
    (digest, numbers), (digest_streamed, numbers_streamed) = fingerprint(whole), fingerprint(streamed)
    assert digest == digest_streamed
    assert (numbers == numbers_streamed).all()
    model = nn.Linear(4, 3)
    assert torch.equal(outputs(model, x), outputs(model, Held(x)))
    assert torch.equal(column(Held(x), 1), x[:, 1])
    for one, other in zip(make_baselines(task, whole, whole, 0), make_baselines(task, streamed, streamed, 0), strict=True):
        assert torch.equal(one.scored.probabilities, other.scored.probabilities)
        assert one.fitted_rows == other.fitted_rows == ROWS


def test_some_rows_of_a_source():
    """Row n of the chosen ones is the one that was named for n."""
    x = table()
    some = Chosen(Held(x), torch.tensor([5, 3, 9]))
    assert torch.equal(some[:].nan_to_num(), x[[5, 3, 9]].nan_to_num())
    assert torch.equal(some[::2].nan_to_num(), x[[5, 9]].nan_to_num())
    assert len(Rows(some, torch.zeros(3))) == 3


def test_thinned_rows_are_evenly_spread(monkeypatch: pytest.MonkeyPatch):
    """Where not all of many rows are needed, as many as can be looked at together are taken from the first to the last; never in memory."""
    monkeypatch.setattr(dataset, "MOST_ROWS", 5)
    x, y = torch.arange(9.0)[:, None], torch.arange(9)
    thinned = Rows(Held(x), y).thinned()
    assert thinned.x[:].flatten().tolist() == thinned.y.tolist() == [0, 2, 4, 6, 8]
    assert Rows(x, y).thinned().y is y
