"""Trials of a sweep side by side, against one after another: wall and processor time of a trial, from the study's question to its answer.

Both go through `Sweep`: what is tried is asked of the sampler, each trial leaves its run folder and is told to the journal. Some trials of
the one and of the other take turns, and the median of the ratios is told.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from nnrun.spec.reader import read_spec
from nnrun.sweep.sweep import Sweep, Turn

PARAMS = "sweep: {sampler: random, trials: 100000, side_by_side: SIDE, params: {lr: 'log:1e-4..1e-1', seed: 'int:1..1000000'}}\n"
IRIS = "dataset: iris\nsplit: {train: 0.6, val: 0.2, test: 0.2}\npreprocess: [standardize]\nlayers: [16]\nbatch_size: 16\nepochs: 100\n"
DIGITS = "dataset: digits\nsplit: {train: 0.6, val: 0.2, test: 0.2}\npreprocess: [{scale: 0.0625}]\nlayers: [16]\nepochs: 20\n"
WIDER = DIGITS.replace("[16]", "[32]") + "batch_size: 64\n"
ALONE = 4
"""Trials one after another for each turn side by side."""


def measured(sweep: Sweep, turns: Iterator[Turn], count: int) -> tuple[float, float]:
    """Return the seconds, and those of the processor, of each of the next trials."""
    done, started, used = 0, time.perf_counter(), time.process_time()
    while done < count:
        turn = next(turns)
        for _ in sweep.records(turn):
            pass
        done += len(turn.tried)
    return (time.perf_counter() - started) / done, (time.process_time() - used) / done


def measure(text: str, repeats: int, folder: Path) -> dict[str, float]:
    """Return the milliseconds of a trial, side by side and alone, and how many times as many there are in the same time."""
    sweeps = []
    for side in ("true", "false"):
        config = folder / f"{side}.yaml"
        config.write_text(text + PARAMS.replace("SIDE", side))
        sweeps.append(Sweep(*read_spec(config), out=folder / side))
    together, alone = [(one, one.turns()) for one in sweeps]
    pairs = [(measured(*together, 1), measured(*alone, ALONE)) for _ in range(repeats + 1)][1:]
    ratios = sorted(one[0] / many[0] for many, one in pairs)
    return {
        "at_once": sweeps[0].at_once,
        "ms_per_trial": 1000 * median(many[0] for many, _ in pairs),
        "alone_ms_per_trial": 1000 * median(one[0] for _, one in pairs),
        "faster": median(ratios),
        "faster_least": ratios[0],
        "faster_most": ratios[-1],
        "faster_by_processor_time": median(one[1] / many[1] for many, one in pairs),
    }


def main(repeats: int) -> dict[str, Any]:
    """Return the figures of iris, of digits, and of digits with twice the width and the batch."""
    found = {}
    for name, text in (("iris", IRIS), ("digits", DIGITS), ("digits_wider", WIDER)):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(text, repeats, Path(folder))
    return found
