"""The loop: one generator. It prints nothing, opens no file, and waits for the device once an epoch.

Shapes: N rows, B rows of a batch, K outputs. The caller keeps the records and owns the files:

    for moment in train(state, loss_fn, (x, target), plan):
        if moment.finished:  …   # an epoch is done: score, record, save
        else:                …   # `due` asked for a pause between two batches: save, or stop by leaving the loop
"""

from __future__ import annotations

import contextlib
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
from nnrun.training.device import autocast
from nnrun.training.eager import run_backward, step_of
from nnrun.training.group import ALONE, Group


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
        waits: whether the host reads, before each step, that every number is finite. Else the optimizer skips the step and all after it by
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
        if self.waits is None:
            self.waits = self.loss_sum.device.type == "cpu" or not getattr(self.optimizer, "_step_supports_amp_scaling", False)
        if not self.waits:
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
    context = autocast(x.device, plan.precision)
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
            if state.searches:
                loss = _search(state, loss_fn, batch, context)
            else:
                loss = _backward(state, loss_fn, batch, use, context, group)
                if use.ends_group and not _update(state, plan, loss):
                    what = f"the training loss ({group.total(loss).item():g}) or a gradient of it"
                    raise _diverged(state, plan, what, lr, rows=_rows_of(plan, order, number))

            # The sum stays on the device: reading it here would stall every step.
            state.loss_sum.add_(loss, alpha=use.rows)
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


@dataclass(frozen=True)
class Use:
    """What becomes of one batch: its rows, its share in the rows of its update, and whether the update follows it."""

    rows: int
    share: float
    ends_group: bool


def batch_uses(rows: int, plan: Plan) -> list[Use]:
    """Return the use of each batch of an epoch; the batches of one group make one update, in which each row weighs the same."""
    sizes = [
        min(plan.batch_size, rows - number * plan.batch_size)
        for number in range(batches_per_epoch(rows, plan.batch_size, drop_last=plan.drop_last))
    ]
    groups = [sizes[first : first + plan.accumulate] for first in range(0, len(sizes), plan.accumulate)]
    return [Use(size, size / sum(group), number == len(group) - 1) for group in groups for number, size in enumerate(group)]


def _backward(
    state: State, loss_fn: nn.Module, batch: tuple[Tensor, ...], use: Use, context: contextlib.AbstractContextManager[None], group: Group
) -> Tensor:
    """Add the gradients of one batch; return its mean loss, 0-d, on the device: of many processes, what this one adds to it.

    What is added up is the mean of the gradients of all processes, so each takes as many times its part as there are of them.
    """
    with context:
        loss = group.loss(state.model, loss_fn, batch, use.rows, step=state.step, last=use.ends_group)
    factor = use.share * group.world_size
    part = loss if factor == 1 else loss * factor
    run_backward(state.scaler.scale(part) if state.scaler else part, state.one)
    return loss.detach()


def _update(state: State, plan: Plan, loss: Tensor) -> bool:
    """Take one step of the optimiser with the gradients that have been added up; return False, before it, when something is not finite.

    Where the device would have to be waited for, the optimiser skips the step, and `state.skipped` counts it.
    """
    if not state.scaler:  # a scaler looks for itself, and skips such a step
        gradients = [gradient for parameter in state.parameters if (gradient := parameter.grad) is not None]
        torch._amp_foreach_non_finite_check_and_unscale_([*gradients, loss], state.not_finite, state.one)
        if not state.waits:
            state.skipped.add_(state.not_finite)
        elif state.not_finite.item():
            return False
    if plan.clip_grad_norm:
        if state.scaler:
            state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.parameters, plan.clip_grad_norm)
    if state.scaler:
        state.scaler.step(state.optimizer)
        state.scaler.update()
    else:
        state.take_step()
    for parameter in state.parameters:  # what zero_grad does, without its bookkeeping for profilers
        parameter.grad = None
    state.step += 1
    return True


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


def _search(state: State, loss_fn: nn.Module, batch: tuple[Tensor, ...], context: contextlib.AbstractContextManager[None]) -> Tensor:
    """Take one step of L-BFGS, which looks at the loss of the batch several times; return the first of these losses."""

    def closure() -> Any:
        state.optimizer.zero_grad()
        return _backward(state, loss_fn, batch, Use(len(batch[0]), 1.0, True), context, ALONE)

    loss = torch.as_tensor(state.optimizer.step(closure))
    state.step += 1
    return loss


def batches_per_epoch(rows: int, batch_size: int, *, drop_last: bool) -> int:
    """Return how many batches an epoch has; `drop_last` leaves a short last one out."""
    return rows // batch_size if drop_last else -(-rows // batch_size)


def set_lr(state: State, plan: Plan, epoch: float) -> float:
    """Give every parameter group the learning rate of this moment, and return it."""
    lr = plan.lr * plan.factor(epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    return lr
