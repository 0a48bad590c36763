"""Lightning with a Trainer as it is: logger, a checkpoint after each epoch, progress bar, summary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.peers.lightning import Module, loader, training
from bench.peers.turn import timed
from bench.peers.work import Work


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training."""
    return training(work, Module(work), loader(work), default_root_dir=folder)
