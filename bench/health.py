"""What watching over a run costs: the same training with the health rules and without, in turns."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from nnrun.run import open_run
from nnrun.spec.reader import read_spec

WORK: dict[str, list[str]] = {"iris": [], "thermometer": [], "lenet": ["epochs=1", "evaluate=[]"]}
"""Experiment → what makes it short; fewer epochs weigh the looks more heavily."""


def cost(name: str, folder: Path, *, watched: bool) -> tuple[float, float]:
    """Return the processor seconds of training up to the last record, and the share of the time that the rules took."""
    run = open_run(*read_spec(Path("configs") / f"{name}.yaml", WORK[name]), out=folder)
    look, spent = run.health.look, 0.0

    def timed(*arguments: Any, **options: Any) -> Any:
        nonlocal spent
        started = time.perf_counter()
        said = look(*arguments, **options)
        spent += time.perf_counter() - started
        return said

    run.health.look = timed if watched else lambda *_, **__: []  # type: ignore[method-assign]
    started = last = (time.process_time(), time.perf_counter())
    for _ in run.train():
        last = (time.process_time(), time.perf_counter())
    return last[0] - started[0], spent / (last[1] - started[1])


def measure(name: str, repeats: int, folder: Path) -> dict[str, float]:
    """Return the ratio of the processor time with and without, and the share of the time that went into looking."""
    ratios, shares = [], []
    for repeat in range(repeats + 1):
        (watched, share), (alone, _) = (cost(name, folder / f"{name}-{repeat}-{on}", watched=on) for on in (True, False))
        if repeat:  # the first pair warms up
            ratios.append(watched / alone)
            shares.append(share)
    return {"ratio": median(ratios), "share": median(shares)}


def main(repeats: int) -> dict[str, Any]:
    """Return name → figures."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: measure(name, repeats if name != "lenet" else max(1, repeats // 3), Path(folder)) for name in WORK}
