"""nnrun with everything at its defaults: figures of the validation part, rows of metrics, health rules, verified checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.peers.turn import timed
from bench.peers.work import Work
from nnrun.run import open_run


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return a training up to its last record; the final figures, intervals and baselines come after it."""
    run = open_run(work.spec, work.source, out=folder / "run")
    return lambda: next(record.step for record in run.train() if record.epoch == work.spec.epochs)
