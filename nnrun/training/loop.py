"""The loop: one generator. It prints nothing, opens no file, and waits for the device once an epoch.

Shapes: N rows, B rows of a batch, K outputs. The caller keeps the records and owns the files:

    for moment in train(state, loss_fn, (x, target), plan):
        if moment.finished:  …   # an epoch is done: score, record, save
        else:                …   # `due` asked for a pause between two batches: save, or stop by leaving the loop
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from nnrun.data.source import RowSource, batches
from nnrun.errors import DivergedError
from nnrun.training.eager import step_of
from nnrun.training.group import ALONE, Group
from nnrun.training.step import Step, batch_uses


@dataclass(frozen=True)
class Plan:
    """What does not change while training.

    Args:
        factor: epochs so far, as a real number counted from 0 → factor on `lr`.
        by_step: whether the factor changes within an epoch.
        row_numbers: the numbers (N,) that the training rows have in the dataset, for the error about a batch.
        augment: (data, a batch of it, the places (B,) of its rows, epoch counted from 1) → the batch to train on, a pure function.
        two_targets: whether `augment` gives each row two targets, and the weights of both as a third tensor.
    """

    seed: int
    epochs: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    lr: float
    factor: Callable[[float], float]
    by_step: bool = False
    row_numbers: Tensor | None = None
    accumulate: int = 1
    clip_grad_norm: float | None = None
    precision: str = "float32"
    augment: Callable[[Sequence[Tensor | RowSource], tuple[Tensor, ...], Tensor, int], tuple[Tensor, ...]] | None = None
    two_targets: bool = False


@dataclass
class State:
    """What moves while training; with the random state of the device, all that a resume needs.

    Args:
        epoch: epochs finished.
        step: optimiser steps taken in all.
        batch: batches of the running epoch that are done.
        loss_sum: the loss over the rows of the running epoch so far, 0-d, on the device.
        rows_seen: the rows in `loss_sum`.
        waits: whether the host reads at each step that every number is finite. Else the optimizer skips the step and all after it by
            itself, and the host reads so when the epoch ends or is saved: the default where the device would have to be waited for.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_sum: Tensor
    scaler: torch.amp.GradScaler | None = None
    epoch: int = 0
    step: int = 0
    batch: int = 0
    rows_seen: int = 0
    waits: bool | None = None

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.not_finite = torch.zeros((), device=self.loss_sum.device)
        self.skipped = torch.zeros((), device=self.loss_sum.device)
        self.one = torch.ones((), device=self.loss_sum.device)
        self.skips = bool(getattr(self.optimizer, "_step_supports_amp_scaling", False))
        if self.waits is None:
            self.waits = not self.scaler and (self.loss_sum.device.type == "cpu" or not self.skips)
        if self.skips:
            self.optimizer.found_inf = self.not_finite  # type: ignore[attr-defined]  # as torch's own scaler tells a fused optimizer
        self.take_step = step_of(self.optimizer)
        self.searches = isinstance(self.optimizer, torch.optim.LBFGS)


@dataclass(frozen=True)
class Moment:
    """Where training stands when the generator yields; `train_loss` is the mean over the epoch's rows once it is finished."""

    epoch: int
    step: int
    finished: bool
    lr: float
    train_loss: float = field(default=math.nan)


def stream_seed(seed: int, *names: Any) -> int:
    """Return the seed of a named random stream: the first 63 bits of SHA-256 of `seed/name/…`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def row_order(seed: int, epoch: int, rows: int) -> Tensor:
    """Return the order of the training rows (N,) in an epoch counted from 1: a pure function of its arguments."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(stream_seed(seed, "order", epoch)))


def train(
    state: State,
    loss_fn: nn.Module,
    data: Sequence[Tensor | RowSource],
    plan: Plan,
    *,
    due: Callable[[State], bool] = lambda state: False,
    group: Group = ALONE,
) -> Iterator[Moment]:
    """Train from where `state` stands to the end of the plan.

    Args:
        loss_fn: (output (B, K), target (B, …)) → mean loss, 0-d; with weights (B,) as a third argument when `data` has them.
        data: prepared inputs (N, …), targets (N, …) as the loss wants them, and perhaps the weight of each row (N,), on the device; as
            tensors, or the inputs and whatever else is large as sources.
        due: asked after each step whether to yield before the next one.
        group: who trains together; each gets its own rows of every batch.

    Raises:
        DivergedError: a loss or a gradient is not finite; the weights are those before the step.
    """
    x = data[0]
    uses = batch_uses(len(x), plan)
    shuffled = plan.shuffle and plan.batch_size < len(x)  # one batch of all rows has no order
    work = Step(state, loss_fn, plan, x.device, group)
    state.model.train()
    while state.epoch < plan.epochs:
        order = row_order(plan.seed, state.epoch + 1, len(x)) if shuffled else None
        numbered = [*data, torch.arange(len(x))] if plan.augment else data
        epoch_batches = _epoch(numbered, group.own(order, len(x), plan.batch_size), plan, state.batch, group)
        lr = set_lr(state, plan, state.epoch + state.batch / len(uses))

        for number, (use, batch) in enumerate(zip(uses[state.batch :], epoch_batches, strict=False), state.batch):
            if plan.by_step:
                lr = set_lr(state, plan, state.epoch + number / len(uses))
            if plan.augment:
                batch = plan.augment(data, batch[:-1], batch[-1], state.epoch + 1)
            loss = work(use, batch)
            if use.ends_group:
                if state.waits and state.not_finite.item():
                    what = f"the training loss ({group.total(loss).item():g}) or a gradient of it"
                    raise _diverged(state, plan, what, lr, rows=_rows_of(plan, order, number))
                state.step += 1
            state.rows_seen += use.rows
            state.batch = number + 1
            if use.ends_group and state.batch < len(uses) and due(state):
                _refuse_skipped(state, plan, order, len(uses))
                yield Moment(state.epoch + 1, state.step, False, lr)

        train_loss = group.total(state.loss_sum).item() / state.rows_seen  # the one wait for the device in an epoch
        _refuse_skipped(state, plan, order, len(uses))
        if not math.isfinite(train_loss):
            raise _diverged(state, plan, "the training loss or a gradient of it", lr)
        state.epoch, state.batch, state.rows_seen = state.epoch + 1, 0, 0
        state.loss_sum.zero_()
        yield Moment(state.epoch, state.step, True, lr, train_loss)


def _epoch(data: Sequence[Tensor | RowSource], order: Tensor | None, plan: Plan, first: int, group: Group) -> Iterator[tuple[Tensor, ...]]:
    """Return the batches of an epoch from the first that is wanted; one that `drop_last` leaves out may come at the end."""
    size = group.size(plan.batch_size)
    if isinstance(data[0], RowSource):
        return batches(data, order, size, first=first, together=plan.accumulate)
    if order is None and plan.batch_size >= len(data[0]):  # one batch of all rows
        return islice([tuple(one for one in data if isinstance(one, Tensor))], first, None)
    # One gather, then views: the batches of an epoch cost no indexing of their own.
    whole = [one if order is None else one[order.to(one.device)] for one in data if isinstance(one, Tensor)]
    return islice(zip(*(torch.split(one, size) for one in whole), strict=True), first, None)


def _refuse_skipped(state: State, plan: Plan, order: Tensor | None, batches: int) -> None:
    """Tell of the step that the optimiser was first to skip in this epoch."""
    if state.waits or not (skipped := int(state.skipped.item())):
        return
    state.step -= skipped
    number = (-(-state.batch // plan.accumulate) - skipped) * plan.accumulate  # the first batch of its update
    lr = plan.lr * plan.factor(state.epoch + number / batches if plan.by_step else state.epoch)
    raise _diverged(state, plan, "the training loss or a gradient of it", lr, rows=_rows_of(plan, order, number))


def _rows_of(plan: Plan, order: Tensor | None, number: int) -> str:
    """Return the dataset's numbers of a batch's rows, the first eight, for an error."""
    if plan.row_numbers is None:
        return ""
    numbers = plan.row_numbers if order is None else plan.row_numbers[order.cpu()]
    rows = numbers[number * plan.batch_size : (number + 1) * plan.batch_size]
    return f", in the batch of rows {', '.join(map(str, rows[:8].tolist()))}{', …' if len(rows) > 8 else ''}"


def _diverged(state: State, plan: Plan, what: str, lr: float, *, rows: str = "") -> DivergedError:
    place = f"epoch {state.epoch + 1} of {plan.epochs}, after step {state.step}, at lr {lr:g}{rows}"
    fix = "lower lr, scale the inputs (`preprocess: [standardize]`), or set clip_grad_norm; the last checkpoint is untouched"
    return DivergedError(f"{what} is not finite in {place}", fix=fix)


def set_lr(state: State, plan: Plan, epoch: float) -> float:
    """Give every parameter group the learning rate of this moment, and return it."""
    lr = plan.lr * plan.factor(epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    return lr
