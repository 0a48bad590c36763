"""Lightning, tuned: quiet, whole batches gathered by a BatchSampler instead of row by row, and torch's fused optimiser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from bench.peers.lightning import QUIET, Module, training
from bench.peers.turn import timed
from bench.peers.work import Work


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training."""
    rows = TensorDataset(work.x, work.y)
    order = RandomSampler(rows) if work.spec.shuffle else SequentialSampler(rows)
    batches = DataLoader(rows, batch_size=None, sampler=BatchSampler(order, work.batch_size, work.spec.drop_last))
    return training(work, Module(work, fused=True), batches, **QUIET)
