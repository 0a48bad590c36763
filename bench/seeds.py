"""Many seeds of iris trained side by side, against one alone: time of training for each step and each network.

Both go through the normal run: signals, rows of metrics, the finite check, everything but checkpoints, which are a matter of the disk. Some
epochs of the one and of the other take turns, and the median of the ratios is told.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from nnrun.run import Run, open_run
from nnrun.seeds import Seeds
from nnrun.spec.reader import read_spec

COUNTS = (8, 32, 128)
EPOCHS = 10
"""Of one measurement; the first one warms up."""


def measured(run: Run, records: Iterator[Any]) -> float:
    """Return the seconds of a step in the next epochs of a run."""
    before, started = run.state.step, time.perf_counter()
    for _ in range(EPOCHS):
        next(records)
    return (time.perf_counter() - started) / (run.state.step - before)


def measure(count: int, repeats: int, folder: Path) -> dict[str, float]:
    """Return the microseconds for each step and network, together and alone, and how many times cheaper it is together."""
    overrides = [f"epochs={EPOCHS * (repeats + 2)}", "checkpoint.every=1000000 epochs"]
    spec, source = read_spec(Path("configs/iris.yaml"), overrides)
    many = Seeds(spec, source, count, out=folder / f"{count}")
    assert many.stacked
    one = open_run(spec, source, out=folder / f"{count}-alone")
    turns = [(many.stacked, many.stacked.train()), (one, one.train())]
    pairs = [[measured(run, records) for run, records in turns] for _ in range(repeats + 1)][1:]
    ratios = sorted(alone / (together / count) for together, alone in pairs)
    return {
        "us_per_step_and_network": median(together for together, _ in pairs) / count * 1e6,
        "alone_us_per_step": median(alone for _, alone in pairs) * 1e6,
        "cheaper": median(ratios),
        "cheaper_least": ratios[0],
        "cheaper_most": ratios[-1],
    }


def main(repeats: int) -> dict[str, Any]:
    """Return the figures of each count."""
    with tempfile.TemporaryDirectory() as folder:
        return {f"iris_{count}": measure(count, repeats, Path(folder)) for count in COUNTS}
