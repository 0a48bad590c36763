"""torch's Muon and AdamW as one optimizer: Muon takes weight matrices only, and every network has biases as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from nnrun.training.eager import step_of


class MuonWithAdamW(Optimizer):
    """Muon for the parameters with two dimensions, AdamW for the rest.

    The two work on this optimizer's own parameter groups and state, so `param_groups`, `state_dict` and `load_state_dict` are those of any
    optimizer: a learning rate set here is theirs, and one dict holds the state of both.

    Args:
        lr: the learning rate of both.
        weight_decay: the decay of both.
        matrices: further settings of Muon.
        rest: further settings of AdamW.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], lr: float, weight_decay: float, *, matrices: Mapping[str, Any], rest: Mapping[str, Any]
    ) -> None:
        two = [p for p in parameters if p.ndim == 2]
        other = [p for p in parameters if p.ndim != 2]
        self.inner: list[Optimizer] = []
        if two:
            self.inner.append(Muon(two, lr, weight_decay, **matrices))
        if other:
            self.inner.append(AdamW(other, lr, weight_decay=weight_decay, **rest))
        super().__init__([group for optimizer in self.inner for group in optimizer.param_groups], {})
        self._share()

    def _share(self) -> None:
        for optimizer, group in zip(self.inner, self.param_groups, strict=True):
            optimizer.param_groups = [group]
            optimizer.state = self.state
        self._steps = [step_of(optimizer) for optimizer in self.inner]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load both states; torch puts new dicts in place of the old ones, so they are shared anew."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step of both; return the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for take_step in self._steps:
            take_step()
        return loss
