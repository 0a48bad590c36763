"""torch's backward pass and optimizers without what stands around them: the guards of torch.compile, whose import takes longer than torch's
own, the profiler's hooks, and checks of what cannot be otherwise here. The arithmetic is torch's own, to the bit.

Nothing here is compiled or profiled. Where torch no longer has what is called directly, its own way around is taken.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer

_ENGINE = getattr(torch.autograd.Variable, "_execution_engine", None)


def leave_the_compiler_out() -> None:
    """Have the methods of torch's optimizers called as they are.

    Their guard keeps them out of compiled code; it looks for the attribute that is set here, and imports the compiler where it is missing.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(Optimizer).values():
        if (guarded := getattr(method, "__wrapped__", None)) is not None and not hasattr(guarded, "__dynamo_disable"):
            guarded.__dynamo_disable = guarded


class Search(LBFGS):
    """torch's L-BFGS, for weights however they lie: torch's own takes a gradient for one row of numbers, which filters need not be."""

    def _gather_flat_grad(self) -> Tensor:
        each = (torch.zeros_like(one) if one.grad is None else one.grad for one in self._params)
        return torch.cat([gradient.reshape(-1) for gradient in each])


def run_backward(loss: Tensor, one: Tensor) -> None:
    """Add the gradients of a loss to the weights: `loss.backward()`, without making its 1 anew and asking whether anyone debugs.

    Args:
        one: 1.0, 0-d, float32, on the device of the loss.
    """
    if _ENGINE is None or loss.ndim or loss.dtype != one.dtype:  # a loss of a plug-in may be otherwise
        loss.backward()  # type: ignore[no-untyped-call]
    else:
        _ENGINE.run_backward((loss,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def step_of(optimizer: Optimizer) -> Callable[[], object] | FusedStep:
    """Return the step of an optimizer by itself: the same arithmetic as `optimizer.step()`, to the bit, without the hooks around it."""
    step = torch.no_grad()(partial(inspect.unwrap(type(optimizer).step), optimizer))
    plain = type(optimizer) in (SGD, Adam, AdamW) and len(optimizer.param_groups) == 1 and optimizer.param_groups[0]["fused"]
    return FusedStep(optimizer, step) if plain else step


class FusedStep:
    """The step of SGD, Adam or AdamW as the one call of torch's kernel that it comes down to.

    On the way there torch sorts the tensors by device and type, and counts the step for each weight by itself: most of the time of a small
    step. Here the first step is torch's own; after it the counts of all weights are views of one tensor, and 1 is added to that.
    When the optimizer has been given another state, or a weight has no gradient, the step is torch's own again.
    """

    def __init__(self, optimizer: Optimizer, step: Callable[[], object]) -> None:
        self._optimizer, self._step = optimizer, step
        self._state: object = None
        self._kept: tuple[list[Tensor], ...] = ()
        self._counts = torch.zeros(())
        device = optimizer.param_groups[0]["params"][0].device
        self._by_tensor = device.type in ("cpu", "cuda")
        self._lr, self._told = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device), math.nan

    @property
    def lr(self) -> Tensor | float:
        """The learning rate, as the kernel reads it."""
        return self._lr if self._by_tensor else float(self._optimizer.param_groups[0]["lr"])

    @property
    def steady(self) -> bool:
        """Whether the step is the one call, which finds all that it needs in the same tensors each time."""
        return self._by_tensor and self._state is self._optimizer.state

    def tell_lr(self) -> None:
        """Write the learning rate where the kernel reads it."""
        lr = self._optimizer.param_groups[0]["lr"]
        if lr != self._told:
            self._lr.fill_(lr)
            self._told = lr

    @torch.no_grad()
    def __call__(self) -> None:
        """Take the step."""
        optimizer, group = self._optimizer, self._optimizer.param_groups[0]
        weights, lr = group["params"], group["lr"]
        gradients = [gradient for weight in weights if (gradient := weight.grad) is not None]
        if self._by_tensor:  # in every step, so that each rounds it as the others do
            self.tell_lr()
            group["lr"] = self.lr
        try:
            if optimizer.state is not self._state or len(gradients) < len(weights):
                self._step()
                self._state = self._prepared()
            else:
                kernel = self._sgd if isinstance(optimizer, SGD) else self._adam
                kernel(group, weights, gradients, getattr(optimizer, "found_inf", None))
        finally:
            group["lr"] = lr

    def _prepared(self) -> object:
        """Take hold of what the optimizer keeps of each weight; return its state, or None when weights are not alike."""
        state, group = self._optimizer.state, self._optimizer.param_groups[0]
        if len({(weight.dtype, weight.device) for weight in group["params"]}) > 1:
            return None
        if isinstance(self._optimizer, SGD) and not group["momentum"]:
            return state
        if not all(weight in state for weight in group["params"]):
            return None
        each = [state[weight] for weight in group["params"]]
        if isinstance(self._optimizer, SGD):
            self._kept = ([kept["momentum_buffer"] for kept in each],)
            return state
        self._counts = torch.stack([kept["step"] for kept in each])
        for kept, count in zip(each, self._counts, strict=True):
            kept["step"] = count
        names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))
        first, second, *largest = ([kept[name] for kept in each] for name in names)
        self._kept = (first, second, largest[0] if largest else [], list(self._counts))
        return state

    def _sgd(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], found_inf: Tensor | None) -> None:
        torch._fused_sgd_(
            weights,
            gradients,
            *(self._kept or ([],)),
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=False,
            found_inf=found_inf,
        )

    def _adam(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], found_inf: Tensor | None) -> None:
        self._counts.add_(1)
        beta1, beta2 = group["betas"]
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            weights,
            gradients,
            *self._kept,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
            found_inf=found_inf,
        )
        if found_inf is not None:  # 1 where the kernel has skipped the step
            self._counts.sub_(found_inf)
