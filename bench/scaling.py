"""Training on several processes: what two of them bring on two cores, what one under torchrun costs, and from these, what many would.

Each figure is the time of an epoch of a real `nnrun train`, as metrics.jsonl has it; the ways take turns, ratios are made of neighbours.
`projected` is arithmetic, not measurement: the step of a slice of the batch, from times measured here for batches of that size, and a ring
all-reduce of the gradients (Patarasu and Yuan, 2009) over networks of a given bandwidth and latency.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import rounds, seconds, spread, times

ROWS = 8_192
BATCHES = (64, 256, 1024)
"""Rows of a whole batch; lenet.yaml has 64."""
SLICES = (1, 8, 16, 64, 128, 512, 1024)
"""Rows of one process's batch, whose steps are timed for the projection."""
NETWORKS = {"10 Gbit/s, 30 µs": (1.25e9, 30e-6), "400 Gbit/s, 5 µs": (50e9, 5e-6)}
"""Bytes a second and seconds of latency of each hop."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def epoch_seconds(folder: Path, name: str, batch: int, threads: int, start: Sequence[str], rows: int = ROWS, epochs: int = 3) -> float:
    """Return the seconds of an epoch of lenet, the median but for the first."""
    config = str(Path("configs/lenet.yaml").absolute())
    split = f"split={{method: rows, train: '0:{rows}', test: '60000:61000'}}"
    values = [split, f"batch_size={batch}", f"threads={threads}", f"epochs={epochs}", "evaluate=[]", "checkpoint.every=1000 epochs"]
    out = folder / name
    command = [*start, "-m", "nnrun", "train", config, "--out", str(out), "--no-report", "--quiet"]
    command += [word for value in values for word in ("--set", value)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return median(json.loads(line)["seconds"] for line in (out / "metrics.jsonl").read_text().splitlines()[1:])


def measure(batch: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Return the seconds of an epoch each way, and the ratios of one process to two."""
    ways = {
        "one_process_one_thread": (1, [sys.executable]),
        "one_process_two_threads": (2, [sys.executable]),
        "one_process_torchrun": (1, [*TORCHRUN, "--nproc-per-node", "1"]),
        "two_processes": (1, [*TORCHRUN, "--nproc-per-node", "2"]),
    }
    seconds = rounds(
        lambda number: {
            name: epoch_seconds(folder, f"{batch}-{name}-{number}", batch, threads, start) for name, (threads, start) in ways.items()
        },
        repeats,
    )
    return {
        **{f"{name}_seconds": spread(found) for name, found in seconds.items()},
        "two_over_one_thread": times(seconds["one_process_one_thread"], seconds["two_processes"]),
        "two_over_two_threads": times(seconds["one_process_two_threads"], seconds["two_processes"]),
        "cost_of_torchrun": times(seconds["one_process_torchrun"], seconds["one_process_one_thread"]),
    }


def step_seconds(folder: Path) -> dict[int, float]:
    """Return the seconds of a step of lenet for batches of several sizes, one thread."""
    rows = {size: min(ROWS, 512 * size) for size in SLICES}
    return {
        size: epoch_seconds(folder, f"step-{size}", size, 1, [sys.executable], rows=rows[size]) / (rows[size] / size) for size in SLICES
    }


def costs(folder: Path) -> dict[str, float]:
    """Return what grows with the rows or the network, not with the processes, measured in one."""
    import torch

    from nnrun.runs.checkpoint import load
    from nnrun.training.loop import row_order

    order = seconds(lambda: row_order(1, 1, 10_000_000)) / 10_000_000
    stored = load(folder / f"{BATCHES[0]}-one_process_one_thread-0" / "last.safetensors")
    weights = stored.under("model")
    return {
        "gradient_bytes": sum(tensor.nbytes for tensor in weights.values() if tensor.dtype == torch.float32),
        "checkpoint_bytes": (folder / f"{BATCHES[0]}-one_process_one_thread-0" / "last.safetensors").stat().st_size,
        "order_seconds_a_row": order,
    }


def projected(step: dict[int, float], gradient_bytes: float) -> list[dict[str, Any]]:
    """Return for each network and number of devices the time of a step, and how many times the rows a second of one device that gives."""
    made = []
    for network, (bandwidth, latency) in NETWORKS.items():
        for whole in (1024, 64 * 1024):
            for devices in (8, 64, 1024):
                rows = whole // devices
                size = min(step, key=lambda known: abs(known - rows))  # beyond the sizes that were timed, in proportion
                compute = step[size] * rows / size
                exchange = 2 * (devices - 1) * (gradient_bytes / devices / bandwidth + latency)
                largest = max(step)
                alone = step[largest] * whole / largest
                made.append(
                    {
                        "network": network,
                        "batch": whole,
                        "devices": devices,
                        "rows_each": rows,
                        "compute_ms": compute * 1e3,
                        "exchange_ms": exchange * 1e3,
                        "times_one_device": alone / (compute + exchange),
                    }
                )
    return made


def main(repeats: int) -> dict[str, Any]:
    """Return the ratios for each size of batch, and the projection."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {f"lenet_{batch}": measure(batch, repeats, folder) for batch in BATCHES}
        step, cost = step_seconds(folder), costs(folder)
    found |= {"step_seconds": step, "costs": cost, "projected": projected(step, cost["gradient_bytes"])}
    return found
