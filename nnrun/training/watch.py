"""The best value of one figure so far: for the best checkpoint, and for early stopping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nnrun.registry import METRICS


@dataclass
class Watch:
    """Remembers the best value of a figure, when it was seen, and how many epochs ago.

    Args:
        monitor: `part.metric`, such as `val.loss`.
        min_delta: how much better a value must be to count.
    """

    monitor: str
    min_delta: float = 0.0
    value: float = math.nan
    epoch: int = 0
    waited: int = 0

    def improved(self, value: float, epoch: int) -> bool:
        """Return whether the value is the best so far, and remember it; one that is not finite never is."""
        metric = self.monitor.partition(".")[2]
        sign = 1 if metric in METRICS and METRICS[metric].traits["better"] == "higher" else -1
        better = math.isfinite(value) and (self.epoch == 0 or sign * (value - self.value) > self.min_delta)
        if better:
            self.value, self.epoch, self.waited = value, epoch, 0
        else:
            self.waited += 1
        return better

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"value": self.value, "epoch": self.epoch, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a stored state."""
        self.value, self.epoch, self.waited = state["value"], state["epoch"], state["waited"]
