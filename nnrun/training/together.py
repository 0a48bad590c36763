"""What many networks that train side by side have found so far: the progress of each, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnrun.registry import METRICS
from nnrun.spec.experiment import Experiment
from nnrun.training.progress import Progress
from nnrun.training.record import Record
from nnrun.training.stack import Stack
from nnrun.training.watch import Watch


class Together:
    """Judges each epoch of each network, with a best epoch, best weights and a patience of its own.

    Args:
        monitor: the figure that picks the best epoch; empty when there is none, and the last epoch is the best.

    Attributes:
        best: of the mean over the networks, for who watches.
        epochs: seed → how many epochs it has trained.
        losses: seed → its training loss in the last of them.
        diverged: seed → the epoch in which a number of it stopped being finite.
    """

    plateau = None

    def __init__(self, spec: Experiment, stack: Stack, monitor: str) -> None:
        self._stack, self.monitor = stack, monitor
        self.each = {seed: Progress(spec, stack.model, None, monitor) for seed in stack.keys}
        self.best = Watch(monitor or "train.loss")
        self.epochs: dict[int, int] = {}
        self.losses: dict[int, float] = {}
        self.diverged: dict[int, int] = {}
        self.look_again()

    def look_again(self) -> None:
        """Find the weights of each network where the stack has them now."""
        for seed in self._stack.keys:
            self.each[seed].live_weights = self._stack.weights(seed)

    def judge(self, records: Mapping[int, Record], epoch: int) -> list[int]:
        """Take in an epoch of each network that trains; one without a record has diverged. Return the seeds of those that go on."""
        going_on = []
        for seed in self._stack.keys:
            if seed not in records:
                self.diverged[seed] = epoch
                continue
            progress, record = self.each[seed], records[seed]
            progress.judge(record)
            self.epochs[seed], self.losses[seed] = epoch, record.train["loss"]
            if not progress.out_of_patience():
                going_on.append(seed)
            elif not progress.best_weights:
                progress.keep_weights()
        return going_on

    def out_of_patience(self) -> bool:
        """Return whether no network goes on."""
        return not self._stack.keys

    def chosen(self) -> int | None:
        """Return the seed of the best network so far; None while there is none."""
        return best_of({seed: self.judged(seed) for seed in self.epochs if seed not in self.diverged}, self.monitor)

    def judged(self, seed: int) -> float:
        """Return the figure that a network is judged by among the others: the best that was monitored, or else its training loss."""
        return self.each[seed].best.value if self.monitor else self.losses[seed]

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Return the best weights of a network, or those of now when there is nothing to judge by."""
        return self.each[seed].best_weights or self.each[seed].live_weights

    def best_epoch(self, seed: int) -> int:
        """Return the epoch that these weights are of."""
        return self.each[seed].best.epoch or self.epochs.get(seed, 0)

    @property
    def live_weights(self) -> dict[str, Tensor]:
        """The weights of now, all of them side by side."""
        return self._stack.model.state_dict()

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """`seed/name` → the best weights."""
        return {f"{seed}/{name}": tensor for seed, one in self.each.items() for name, tensor in one.best_weights.items()}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the best weights."""
        kept = {"epochs": self.epochs, "losses": self.losses, "diverged": self.diverged}
        return {"each": {seed: one.state() for seed, one in self.each.items()}, "best": self.best.state(), **kept}

    def restore(self, state: dict[str, Any], best_weights: dict[str, Tensor]) -> None:
        """Go back to a stored state."""
        weights: dict[int, dict[str, Tensor]] = {seed: {} for seed in self.each}
        for name, tensor in best_weights.items():
            number, _, inner = name.partition("/")
            weights[int(number)][inner] = tensor
        for seed, one in self.each.items():
            one.restore(state["each"][seed], weights[seed])
        self.best.restore(state["best"])
        self.epochs, self.losses, self.diverged = state["epochs"], state["losses"], state["diverged"]


def best_of(judged: Mapping[int, float], monitor: str) -> int | None:
    """Return the seed with the best figure, the first of equals; `monitor` says which it is, and empty is a loss."""
    name = monitor.partition(".")[2]
    sign = -1 if name in METRICS and METRICS[name].traits["better"] == "higher" else 1
    return min(judged, key=lambda seed: sign * judged[seed] if math.isfinite(judged[seed]) else math.inf, default=None)
