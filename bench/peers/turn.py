"""One training of one peer, timed: `python -m bench.peers.turn PEER WORK EPOCHS` takes a turn for each line on stdin."""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path

import torch

from bench.measure import answer
from bench.peers.work import Work, work

Turn = dict[str, float]


def timed(fresh: Callable[[Work, Path], Callable[[], int]]) -> Callable[[Work], Turn]:
    """Make a turn of what prepares a training and returns it; the training returns how many steps it took, and it alone is timed.

    Args:
        fresh: work, folder to write into → training.
    """

    @wraps(fresh)
    def turn(work: Work) -> Turn:
        torch.set_num_threads(work.run.threads)
        with tempfile.TemporaryDirectory() as folder:
            train = fresh(work, Path(folder))
            gc.collect()
            started, processor = time.perf_counter(), time.process_time()
            steps = train()
            seconds, processor = time.perf_counter() - started, time.process_time() - processor
        return {"steps": steps, "threads": work.run.threads, "us": seconds / steps * 1e6, "processor_us": processor / steps * 1e6}

    return turn


if __name__ == "__main__":
    peer, name, epochs = sys.argv[1:]
    module, what = import_module(f"bench.peers.{peer}"), work(name, int(epochs))
    answer(lambda: module.turn(what))
