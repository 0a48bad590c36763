"""Learning rates and weight decays of networks side by side, one of each for every network.

torch's optimizers take one rate for all weights of a tensor, and here a tensor holds the weights of M networks. Each of their updates is
the rate times what the gradients and their history say: so a step is taken at the rate of the schedule alone, from 0, and what it moves is
added to the weights, multiplied by each network's own rate. Decay depends on the weights; it is added to the gradients, or taken from the
weights, beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nnrun.spec.experiment import Experiment
from nnrun.training.eager import FusedStep
from nnrun.training.loop import State


@dataclass
class Paces:
    """What each of M networks learns at.

    Args:
        rates: learning rates (M,), before the schedule.
        decays: weight decays (M,).
        decoupled: whether decay is kept apart from the gradient.
        moved: room for what a step moves; all 0 between two steps.
    """

    rates: Tensor
    decays: Tensor
    decoupled: bool
    moved: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._decaying = bool(self.decays.any())

    @torch.no_grad()
    def step(self, state: State) -> None:
        """Take one step of all networks with the gradients that have been added up."""
        weights, decaying = [weight.data for weight in state.parameters], self._decaying
        if decaying and not self.decoupled:
            for parameter, weight in zip(state.parameters, weights, strict=True):
                if parameter.grad is not None:
                    parameter.grad.addcmul_(weight, _beside(self.decays, weight))
        self.moved = self.moved or [torch.zeros_like(weight) for weight in weights]
        for parameter, moved in zip(state.parameters, self.moved, strict=True):
            parameter.data = moved
        state.take_step()
        factor = state.take_step.lr if isinstance(state.take_step, FusedStep) else state.optimizer.param_groups[0]["lr"]
        for parameter, weight, moved in zip(state.parameters, weights, self.moved, strict=True):
            parameter.data = weight
            if decaying and self.decoupled and parameter.grad is not None:
                weight.mul_(1 - factor * _beside(self.rates * self.decays, weight))
            weight.addcmul_(moved, _beside(self.rates, weight))
            moved.zero_()

    def keep(self, index: Tensor) -> None:
        """Go on with these networks alone."""
        self.rates, self.decays, self.moved = self.rates[index], self.decays[index], []


def paces_of(specs: Sequence[Experiment], device: torch.device) -> tuple[Paces, Experiment]:
    """Return the paces of experiments that differ in them, and the experiment whose optimizer takes the common step."""
    parts = [spec.optimizer for spec in specs]
    lr_M = torch.tensor([spec.lr for spec in specs], device=device)
    decay_M = torch.tensor([float(part.arguments().get("weight_decay", 0.0)) for part in parts], device=device)
    decoupled = parts[0].entry.name == "adamw" or bool(parts[0].arguments().get("decoupled_weight_decay"))
    still = {"weight_decay": 0.0} if "weight_decay" in parts[0].arguments() else {}
    return Paces(lr_M, decay_M, decoupled), specs[0].model_copy(update={"lr": 1.0, "optimizer": parts[0].model_copy(update=still)})


def _beside(value_M: Tensor, weight: Tensor) -> Tensor:
    return value_M.view(-1, *[1] * (weight.ndim - 1))
