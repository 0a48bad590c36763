"""What is done with one batch: the loss, its gradients, and the update that may follow. All of it stays on the device.

Shapes: B rows of a batch, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nnrun.training.capture import Captured, can_capture
from nnrun.training.device import autocast
from nnrun.training.eager import FusedStep, run_backward
from nnrun.training.group import Group

if TYPE_CHECKING:
    from nnrun.training.loop import Plan, State


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


def batches_per_epoch(rows: int, batch_size: int, *, drop_last: bool) -> int:
    """Return how many batches an epoch has; `drop_last` leaves a short last one out."""
    return rows // batch_size if drop_last else -(-rows // batch_size)


Work = Callable[[Use, tuple[Tensor, ...]], Tensor]
"""What is done with a batch, and returns its loss."""


def replayed(work: Work, state: State, plan: Plan, modules: Sequence[nn.Module], *, rows: int = 0) -> Work | None:
    """Return work that captures itself and is replayed; None where not each batch makes a step, or not always by the same calls.

    Args:
        modules: all that it calls.
        rows: the dimension of the inputs that counts the rows of a batch.
    """
    take_step, device = state.take_step, state.loss_sum.device
    if plan.accumulate > 1 or state.scaler or not isinstance(take_step, FusedStep) or not can_capture(modules, device):
        return None

    def clean(*batch: Tensor) -> Tensor:
        try:
            return work(Use(batch[0].shape[rows], 1.0, True), batch)
        except RuntimeError:  # a CUDA graph that could not be made: what there is of gradients is none
            for parameter in state.parameters:
                parameter.grad = None
            raise

    captured = Captured(
        clean,
        steady=lambda: take_step.steady,
        prepare=take_step.tell_lr,
        exact=device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
    )
    return lambda use, batch: captured(*batch)


class Step:
    """Works out batches. Where each of them makes a step, and always by the same calls, these are captured and replayed.

    Args:
        loss_fn: (output (B, K), target (B, …)) → mean loss, 0-d; with weights (B,) as a third argument when batches have them.
    """

    def __init__(self, state: State, loss_fn: nn.Module, plan: Plan, device: torch.device, group: Group) -> None:
        self._state, self._loss_fn, self._plan, self._group = state, loss_fn, plan, group
        self._precision = autocast(device, plan.precision)
        modules = [*state.model.modules(), *loss_fn.modules()]
        again = replayed(self._work_out, state, plan, modules) if group.world_size == 1 else None
        self._run: Work = again or (self._search if state.searches else self._work_out)

    def __call__(self, use: Use, batch: tuple[Tensor, ...]) -> Tensor:
        """Add the gradients of a batch, take the step that may follow, and add the loss to that of the epoch.

        Returns:
            The mean loss, 0-d; of many processes, what this one adds to it. When it or a gradient is not finite, `state.not_finite` says
            so, and no step was taken; a scaler sees to that by itself.
        """
        return self._run(use, batch)

    def _work_out(self, use: Use, batch: tuple[Tensor, ...]) -> Tensor:
        loss = self._backward(use, batch)
        if use.ends_group:
            self._update(loss)
        self._state.loss_sum.add_(loss, alpha=use.rows)  # reading it here would stall every step
        return loss

    def _backward(self, use: Use, batch: tuple[Tensor, ...]) -> Tensor:
        """Add the gradients of one batch; return its mean loss.

        What is added up is the mean of the gradients of all processes, so each takes as many times its part as there are of them.
        """
        state, group = self._state, self._group
        with self._precision:
            loss = group.loss(state.model, self._loss_fn, batch, use.rows, step=state.step, last=use.ends_group)
        factor = use.share * group.world_size
        part = loss if factor == 1 else loss * factor
        run_backward(state.scaler.scale(part) if state.scaler else part, state.one)
        return loss.detach()

    def _update(self, loss: Tensor) -> None:
        """Take one step of the optimiser with the gradients that have been added up, if all is finite; one that can skips it by itself."""
        state, clip = self._state, self._plan.clip_grad_norm
        if not state.scaler:
            gradients = [gradient for parameter in state.parameters if (gradient := parameter.grad) is not None]
            torch._amp_foreach_non_finite_check_and_unscale_([*gradients, loss], state.not_finite, state.one)
            if not state.waits:
                state.skipped.add_(state.not_finite)
            elif not state.skips and state.not_finite.item():
                return
        if clip:
            if state.scaler:
                state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.parameters, clip)
        if state.scaler:
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            state.take_step()
        for parameter in state.parameters:  # what zero_grad does, without its bookkeeping for profilers
            parameter.grad = None

    def _search(self, use: Use, batch: tuple[Tensor, ...]) -> Tensor:
        """Take one step of L-BFGS, which looks at the loss of the batch several times; return the first of these losses."""
        state = self._state

        def closure() -> Any:
            state.optimizer.zero_grad()
            return self._backward(Use(use.rows, 1.0, True), batch)

        loss = torch.as_tensor(state.optimizer.step(closure))
        state.loss_sum.add_(loss, alpha=use.rows)
        return loss
