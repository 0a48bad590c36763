"""The loop against plain PyTorch: the same weights to the bit, with the order, the sums and the pauses it promises."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from nnrun.errors import DivergedError
from nnrun.training.loop import Plan, State, row_order, stream_seed, train
from nnrun.training.step import batches_per_epoch

X = torch.linspace(-1, 1, 44).reshape(11, 4)
Y = X.sum(1, keepdim=True).sin()


def plan(**changes: Any) -> Plan:
    plain = {"seed": 3, "epochs": 4, "batch_size": 4, "shuffle": True, "drop_last": False, "lr": 0.1, "factor": lambda epoch: 1.0}
    return Plan(**(plain | changes))


def state(seed: int = 0, optimizer: str = "SGD", *, waits: bool | None = None, **options: Any) -> State:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **options)
    return State(model, made, torch.zeros((), dtype=torch.float64), waits=waits)


def weights(moved: State) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in moved.model.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_the_weights_are_those_of_a_plain_loop():
    """Fifteen lines of PyTorch with the same order give the same bits, and the same mean loss."""
    ours, theirs = state(), state()
    losses = [moment.train_loss for moment in train(ours, nn.MSELoss(), (X, Y), plan())]
    expected = []
    for epoch in range(1, 5):
        order, total = row_order(3, epoch, 11), 0.0
        for start in range(0, 11, 4):
            rows = order[start : start + 4]
            theirs.optimizer.zero_grad()
            loss = nn.MSELoss()(theirs.model(X[rows]), Y[rows])
            loss.backward()
            theirs.optimizer.step()
            total += loss.item() * len(rows)
        expected.append(total / 11)
    assert same(weights(ours), weights(theirs))
    assert losses == pytest.approx(expected, rel=1e-12)


def test_short_last_batch_counts_by_rows():
    """The mean is per row: a batch of 3 must not weigh as much as a batch of 4."""
    frozen = state()
    moment = next(train(frozen, nn.MSELoss(), (X, Y), plan(lr=1e-30)))
    assert moment.train_loss == pytest.approx(nn.MSELoss()(state().model(X), Y).item(), rel=1e-6)


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    """Stray random numbers move nothing, and every epoch is another permutation."""
    first = row_order(1, 1, 100)
    torch.rand(7)
    assert torch.equal(first, row_order(1, 1, 100))
    assert not torch.equal(first, row_order(1, 2, 100))
    assert not torch.equal(first, row_order(2, 1, 100))
    assert torch.equal(first.sort().values, torch.arange(100))
    assert stream_seed(1, "order", 1) == 4959920001976601321  # fixed for ever: an old run must resume


@pytest.mark.parametrize("stop_after", range(1, 12))
def test_a_pause_between_batches_changes_nothing(stop_after: int):
    """Left at any batch and taken up by a new generator, the run ends with the bits of one never stopped."""
    whole, halves = state(optimizer="Adam"), state(optimizer="Adam")
    straight = [moment.train_loss for moment in train(whole, nn.MSELoss(), (X, Y), plan())]
    batches = 0

    def due(now: State) -> bool:
        nonlocal batches
        batches += 1
        return batches == stop_after

    seen = []
    for moment in train(halves, nn.MSELoss(), (X, Y), plan(), due=due):
        if not moment.finished:
            break
        seen.append(moment.train_loss)
    seen += [moment.train_loss for moment in train(halves, nn.MSELoss(), (X, Y), plan())][-(4 - len(seen)) :] if len(seen) < 4 else []
    assert same(weights(whole), weights(halves))
    assert seen == straight


def test_accumulated_batches_are_one_large_batch():
    """Three batches of 4, 4 and 3 rows make the update of one batch of 11."""
    parts, whole = state(), state()
    list(train(parts, nn.MSELoss(), (X, Y), plan(accumulate=3, shuffle=False)))
    list(train(whole, nn.MSELoss(), (X, Y), plan(batch_size=11, shuffle=False)))
    assert parts.step == whole.step == 4
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(weights(parts), weights(whole), strict=True))


def test_clipping_bounds_the_step():
    """With SGD at rate 1 the weights move by the clipped norm exactly."""
    moved, before = state(), state()
    next(train(moved, nn.MSELoss(), (X, 1e4 * Y), plan(batch_size=11, lr=1.0, clip_grad_norm=0.5)))
    step = torch.cat([(a - b).flatten() for a, b in zip(weights(moved), weights(before), strict=True)])
    assert step.norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("rows", "drop_last", "steps"), [(11, False, 3), (11, True, 2), (12, True, 3), (3, True, 0), (4, False, 1)])
def test_batches_of_an_epoch(rows: int, drop_last: bool, steps: int):
    """`drop_last` leaves a short batch out, and may leave none."""
    assert batches_per_epoch(rows, 4, drop_last=drop_last) == steps


def test_a_schedule_by_step_is_asked_at_every_batch():
    """The epoch is a real number: the second of three batches stands at a third."""
    asked: list[float] = []
    list(train(state(), nn.MSELoss(), (X, Y), plan(epochs=2, factor=lambda epoch: asked.append(epoch) or 1.0, by_step=True)))
    assert asked == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1, 4 / 3, 5 / 3])


def test_lbfgs_finds_the_line():
    """It looks at the loss several times a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1))
    fitted = State(model, torch.optim.LBFGS(model.parameters(), lr=1.0), torch.zeros((), dtype=torch.float64))
    *_, last = train(fitted, nn.MSELoss(), (X, X @ torch.ones(4, 1)), plan(batch_size=11, epochs=5, lr=1.0))
    assert last.train_loss < 1e-6
    assert last.step == 5


def test_a_loss_that_is_no_number_stops_the_run():
    """Exit 3, with the epoch, the step and the rate."""
    with pytest.raises(DivergedError) as caught:
        list(train(state(), nn.MSELoss(), (X * float("inf"), Y), plan()))
    assert str(caught.value) == (
        "error: the training loss (nan) or a gradient of it is not finite in epoch 1 of 4, after step 0, at lr 0.1\n"
        "fix: lower lr, scale the inputs (`preprocess: [standardize]`), or set clip_grad_norm; the last checkpoint is untouched"
    )


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad"])
@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_is_skipped_on_the_device(name: str, saves: bool, accumulate: int):
    """Without a wait for each step: the weights are those before it, and the step and its rows are told at the end, or before a save."""
    targets = Y.clone()
    broken = row_order(3, 2, 11)[5]  # in the second batch of the second epoch
    targets[broken] = float("nan")
    told, kept = [], []
    for waits in (True, False):
        now = state(optimizer=name, fused=True, waits=waits)
        list(train(now, nn.MSELoss(), (X, Y), plan(accumulate=accumulate, epochs=1)))
        with_nan = plan(accumulate=accumulate, row_numbers=torch.arange(11))
        with pytest.raises(DivergedError) as caught:
            list(train(now, nn.MSELoss(), (X, targets), with_nan, due=lambda _: saves))
        told.append(str(caught.value).replace(" (nan)", ""))
        kept.append([*weights(now), torch.tensor(now.step)])
    assert told[0] == told[1] or accumulate > 1  # then it is the first batch of the update in one, the last in the other
    assert all(f"after step {kept[0][-1]}, at lr 0.1, in the batch of rows" in one for one in told)
    assert same(*kept)


def test_the_state_is_not_shared():
    """A copied state trains on its own."""
    first = state()
    second = copy.deepcopy(first)
    next(train(first, nn.MSELoss(), (X, Y), plan()))
    assert second.step == 0
    assert not same(weights(first), weights(second))


def test_one_batch_with_rows_left_out_is_another_batch_each_epoch():
    """`drop_last` with one full batch: the rows that are left out change with the order, or some would never be seen."""
    seen, expected = state(), state()
    list(train(seen, nn.MSELoss(), (X, Y), plan(batch_size=8, drop_last=True)))
    for epoch in range(1, 5):
        rows = row_order(3, epoch, 11)[:8]
        expected.optimizer.zero_grad()
        nn.MSELoss()(expected.model(X[rows]), Y[rows]).backward()
        expected.optimizer.step()
    assert same(weights(seen), weights(expected))


@pytest.mark.parametrize("changes", [{}, {"shuffle": False}, {"batch_size": 11}, {"drop_last": True}, {"accumulate": 2}])
def test_augment_is_told_the_rows_and_the_epoch(changes: dict[str, Any]):
    """Each batch comes with the places that its rows have in the data; what comes back is what is trained on."""
    seen: list[int] = []

    def augment(data: Any, batch: tuple[torch.Tensor, ...], places: torch.Tensor, epoch: int) -> tuple[torch.Tensor, ...]:
        assert all(torch.equal(one, whole[places]) for one, whole in zip(batch, data, strict=True))
        seen.append(epoch)
        return -batch[0], batch[1]

    ours, theirs = state(), state()
    epochs = [moment.epoch for moment in train(ours, nn.MSELoss(), (X, Y), plan(augment=augment, **changes))]
    for _ in train(theirs, nn.MSELoss(), (-X, Y), plan(**changes)):
        pass
    assert same(weights(ours), weights(theirs))
    assert sorted(set(seen)) == epochs == [1, 2, 3, 4]
    assert len(seen) == 4 * batches_per_epoch(11, plan(**changes).batch_size, drop_last=plan(**changes).drop_last)
