"""The limit of any loop in Python: a bare one over tensors, torch's fused optimiser, no figure ever read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.bare import bare_epochs
from bench.peers.turn import timed
from bench.peers.work import Work


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training."""
    model = work.model()
    optimizer = work.optimizer(model.parameters(), lr=work.spec.lr, fused=True)

    def train() -> int:
        bare_epochs(work.run, model, optimizer, work.spec.epochs)
        return work.steps

    return train
