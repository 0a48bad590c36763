"""What a run has found so far: its best epoch with the weights, its patience, and a schedule that follows a figure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnrun.spec.experiment import Experiment
from nnrun.training.record import Record
from nnrun.training.schedules import Plateau
from nnrun.training.shards import is_share, own
from nnrun.training.watch import Watch


class Progress:
    """Judges each epoch.

    Args:
        model: its weights are copied when an epoch is the best so far.
        plateau: the schedule, when it follows a figure.
        monitor: the figure that picks the best epoch; empty when there is none, and the last epoch is the best.
    """

    def __init__(self, spec: Experiment, model: nn.Module, plateau: Plateau | None, monitor: str) -> None:
        stopping = spec.early_stopping
        self.best = Watch(monitor)
        self.best_weights: dict[str, Tensor] = {}
        self.live_weights: dict[str, Tensor] = model.state_dict()
        self._in_shares = any(map(is_share, self.live_weights.values()))
        self.watch = Watch(stopping.monitor, stopping.min_delta) if stopping else None
        self.patience = stopping.patience if stopping else 0
        self.plateau = plateau

    def judge(self, record: Record) -> None:
        """Take in one epoch."""
        if self.plateau:
            self.plateau.update(record.figure(self.plateau.monitor))
        if self.best.monitor and self.best.improved(record.figure(self.best.monitor), record.epoch):
            self.keep_weights()
        if self.watch:
            self.watch.improved(record.figure(self.watch.monitor), record.epoch)

    def out_of_patience(self) -> bool:
        """Return whether early stopping has waited long enough."""
        return self.watch is not None and self.watch.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the best weights."""
        return {
            "best": self.best.state(),
            "watch": self.watch.state() if self.watch else None,
            "plateau": self.plateau.state() if self.plateau else None,
        }

    def restore(self, state: dict[str, Any], best_weights: dict[str, Tensor]) -> None:
        """Go back to a stored state."""
        self.best.restore(state["best"])
        if self.watch:
            self.watch.restore(state["watch"])
        if self.plateau:
            self.plateau.restore(state["plateau"])
        if best_weights:
            self.best_weights = {name: best_weights[name].to(live.device) for name, live in self.live_weights.items()}

    def keep_weights(self) -> None:
        """Copy the weights of this epoch; the first time makes the copies, later ones fill them."""
        if not self.best_weights:
            self.best_weights = {name: tensor.clone() for name, tensor in self.live_weights.items()}
        else:
            best, live = list(self.best_weights.values()), list(self.live_weights.values())
            torch._foreach_copy_(*([*map(own, best)], [*map(own, live)]) if self._in_shares else (best, live))
