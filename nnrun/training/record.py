"""One finished epoch, as a line of metrics.jsonl and as what the watches look at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """The figures of one epoch, and what there is to say about it."""

    epoch: int
    step: int
    lr: float
    seconds: float
    train: dict[str, float]
    val: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def figure(self, name: str) -> float:
        """Return a figure by its dotted name, such as `val.loss`; nan when it was not measured."""
        part, _, metric = name.partition(".")
        return float(getattr(self, part).get(metric, math.nan))

    def row(self) -> dict[str, Any]:
        """Return the line; parts that were not scored are left out."""
        parts = {name: scores for name in ("train", "val", "test") if (scores := getattr(self, name))}
        return {"epoch": self.epoch, "step": self.step, **parts, "lr": self.lr, "seconds": round(self.seconds, 6)}
