"""Time per step of a run with everything at its defaults, against two loops written by hand for the same network and optimiser.

`bare` goes over tensors, and does nothing but steps; `notebook` is what notebooks show: a DataLoader over the rows, and `.item()` of each
loss. All start from the same weights; they are trained in turns, and the medians of the ratios are told.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from nnrun.run import Run, open_run
from nnrun.spec.reader import read_spec

WORK = {"iris": 40, "thermometer": 1500, "breast_cancer": 40, "digits": 20, "fashion_mnist": 1, "lenet": 1}
"""Experiment → epochs of one measurement."""
LARGE = ("fashion_mnist", "lenet")
DIGITS = """
dataset: digits
preprocess: [standardize]
layers: [64]
batch_size: 32
"""
"""The one of these that is no file of configs/."""


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


def notebook_epochs(run: Run, model: torch.nn.Module, epochs: int) -> float:
    """Return the seconds of a loop as notebooks have it, with torch's optimiser as it comes."""
    part, arguments = run.data.parts["train"], run.spec.optimizer.arguments()
    loss_fn = torch.nn.CrossEntropyLoss() if run.data.task.classes else torch.nn.MSELoss()
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[run.spec.optimizer.entry.name]
    optimizer = kind(model.parameters(), lr=run.spec.lr, **arguments)
    rows = TensorDataset(part.x, run.network.head.encode(part.y))
    loader = DataLoader(rows, run.plan.batch_size, shuffle=run.plan.shuffle, drop_last=run.plan.drop_last)
    started = time.perf_counter()
    for _ in range(epochs):
        model.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return time.perf_counter() - started


def config(name: str, folder: Path) -> Path:
    """Return the config of an experiment."""
    if name != "digits":
        return Path("configs") / f"{name}.yaml"
    (folder / "digits.yaml").write_text(DIGITS)
    return folder / "digits.yaml"


def measure(name: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Return the figures of one experiment; evaluation of the test part, where the config asks for it, is left out on both sides."""
    epochs = WORK[name]
    overrides = [f"epochs={epochs}", *(["evaluate=[]"] if name in LARGE else [])]
    spec, source = read_spec(config(name, folder), overrides)
    ours, theirs, notebooks, steps = [], [], [], 0
    for repeat in range(repeats + 1):
        run = open_run(spec, source, out=folder / f"{name}-{repeat}")
        model = copy.deepcopy(run.network.model)
        optimizer = run.spec.optimizer.build(list(model.parameters()), run.spec.lr)
        bare = bare_epochs(run, model, optimizer, epochs)
        notebook = notebook_epochs(run, copy.deepcopy(run.network.model), epochs)
        started = time.perf_counter()
        for record in run.train():
            steps = record.step
            if record.epoch == epochs:
                seconds = time.perf_counter() - started  # the final scores and summary come after the last record
        if repeat:  # the first pair warms up
            ours.append(seconds)
            theirs.append(bare)
            notebooks.append(notebook)
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    return {
        "steps": steps,
        "threads": run.threads,
        "nnrun_us_per_step": median(ours) / steps * 1e6,
        "bare_us_per_step": median(theirs) / steps * 1e6,
        "ratio": median(ratios),
        "ratio_spread": [ratios[0], ratios[-1]],
        "notebook_us_per_step": median(notebooks) / steps * 1e6,
        "times_the_notebook": median(other / mine for mine, other in zip(ours, notebooks, strict=True)),
    }


def main(repeats: int) -> dict[str, Any]:
    """Return name → figures for every experiment that has a step worth measuring."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: measure(name, repeats if name not in LARGE else max(3, repeats // 2), Path(folder)) for name in WORK}
