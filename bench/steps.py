"""Time per step of a run with everything at its defaults, against a bare hand-written loop over the same tensors.

Both start from the same weights and see the same batches; epochs of the two are interleaved, and the median of the ratios is told.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nnrun.run import Run, open_run
from nnrun.spec.reader import read_spec

WORK = {"iris": 40, "thermometer": 1500, "breast_cancer": 40, "fashion_mnist": 1, "lenet": 1}
"""Experiment → epochs of one measurement."""


def bare_epochs(run: Run, model: torch.nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> float:
    """Return the seconds of a loop without logging, metrics or checkpoints."""
    part, size = run.data.parts["train"], run.plan.batch_size
    loss_fn = torch.nn.CrossEntropyLoss() if run.data.task.classes else torch.nn.MSELoss()
    x, y, rows = part.x, run.network.head.encode(part.y), len(part)
    last = rows - size + 1 if run.plan.drop_last else rows
    started = time.perf_counter()
    for _ in range(epochs):
        if run.plan.shuffle and size < rows:
            order = torch.randperm(rows)
            x_epoch, y_epoch = x[order], y[order]
        else:
            x_epoch, y_epoch = x, y
        for start in range(0, last, size):
            optimizer.zero_grad()
            loss = loss_fn(model(x_epoch[start : start + size]), y_epoch[start : start + size])
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


def measure(name: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Return the figures of one experiment; evaluation of the test part, where the config asks for it, is left out on both sides."""
    epochs = WORK[name]
    overrides = [f"epochs={epochs}", *(["evaluate=[]"] if name in ("fashion_mnist", "lenet") else [])]
    spec, source = read_spec(Path("configs") / f"{name}.yaml", overrides)
    ours, theirs, steps = [], [], 0
    for repeat in range(repeats + 1):
        run = open_run(spec, source, out=folder / f"{name}-{repeat}")
        model = copy.deepcopy(run.network.model)
        optimizer = run.spec.optimizer.build(list(model.parameters()), run.spec.lr)
        bare = bare_epochs(run, model, optimizer, epochs)
        started = time.perf_counter()
        for record in run.train():
            steps = record.step
            if record.epoch == epochs:
                seconds = time.perf_counter() - started  # the final scores and summary come after the last record
        if repeat:  # the first pair warms up
            ours.append(seconds)
            theirs.append(bare)
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    return {
        "steps": steps,
        "threads": run.threads,
        "nnrun_us_per_step": median(ours) / steps * 1e6,
        "bare_us_per_step": median(theirs) / steps * 1e6,
        "ratio": median(ratios),
        "ratio_spread": [ratios[0], ratios[-1]],
    }


def main(repeats: int) -> dict[str, Any]:
    """Return name → figures for every experiment that has a step worth measuring."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: measure(name, repeats if name not in ("fashion_mnist", "lenet") else max(3, repeats // 2), Path(folder)) for name in WORK
        }
