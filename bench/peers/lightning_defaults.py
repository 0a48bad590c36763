"""Lightning with a Trainer as it is: logger, a checkpoint after each epoch, progress bar, summary."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from bench.peers.lightning import Module, loader, training
from bench.peers.turn import timed
from bench.peers.work import Work


@timed
def turn(work: Work) -> Callable[[], int]:
    """Return the training; what it writes goes into a folder that vanishes."""
    folder = tempfile.TemporaryDirectory()
    os.makedirs(folder.name, exist_ok=True)
    train = training(work, Module(work), loader(work), default_root_dir=folder.name)
    return lambda: train() if folder else 0
