"""The limit of any program on this machine: the products of the layers alone, as fast as all its cores multiply two large matrices."""

from __future__ import annotations

import os
from functools import cache

import torch

from bench.measure import seconds
from bench.peers.turn import Turn
from bench.peers.work import Work
from nnrun.model.build import forward_work

SIDE = 2048
"""Of the matrices whose product measures the machine."""


def operations(work: Work) -> int:
    """Return the floating-point operations of a whole training: forward, and twice that backward; a multiply-add is two."""
    run = work.run
    rows = work.batch_size * work.steps if work.spec.drop_last else len(work.x) * work.spec.epochs
    return 2 * 3 * forward_work(run.network.model, run.data.shape) * rows


@cache
def matrices() -> torch.Tensor:
    """Return two matrices, multiplied once."""
    a, b = found = torch.rand(2, SIDE, SIDE)
    a @ b
    return found


def turn(work: Work) -> Turn:
    """Return how long these products take at the speed that the machine has now."""
    needed = operations(work)  # prepares the run, which chooses its threads
    torch.set_num_threads(os.cpu_count() or 1)
    a, b = matrices()
    speed = 2 * SIDE**3 / min(seconds(lambda: a @ b) for _ in range(3))
    return {"steps": work.steps, "us": needed / speed / work.steps * 1e6, "GFLOP_a_second": speed / 1e9}
