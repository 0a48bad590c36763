"""What a checkpoint costs: one save of iris against a bare torch.save, and an epoch of FashionMNIST with one against one without."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nnrun.run import open_run
from nnrun.runs.folder import Metrics
from nnrun.spec.reader import read_spec


def one_save(folder: Path, repeats: int) -> dict[str, float]:
    """Return the milliseconds of both, interleaved, after an epoch of iris."""
    run = open_run(*read_spec("configs/iris.yaml", ["epochs=2"]), out=folder / "iris")
    for _ in run.train():
        pass
    ours, bare = [], []
    with Metrics(folder / "rows.jsonl") as metrics:
        for _ in range(10 * repeats):
            started = time.perf_counter()
            run._save(metrics)
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            torch.save({"model": run.network.model.state_dict(), "optimizer": run.state.optimizer.state_dict()}, folder / "bare.pt")
            bare.append(time.perf_counter() - started)
    return {"nnrun_ms": median(ours) * 1e3, "torch_save_ms": median(bare) * 1e3, "more_ms": (median(ours) - median(bare)) * 1e3}


def epochs_with(folder: Path, repeats: int) -> dict[str, float]:
    """Return the ratio of an epoch that ends with a checkpoint to one that does not."""
    seconds: dict[str, list[float]] = {"1 epoch": [], "1000 epochs": []}
    for number in range(repeats):
        for every, found in seconds.items():
            overrides = ["epochs=3", "evaluate=[]", f"checkpoint.every={every}"]
            run = open_run(*read_spec("configs/fashion_mnist.yaml", overrides), out=folder / f"{every}-{number}")
            before = time.perf_counter()
            for record in run.train():
                if record.epoch == 2:
                    found.append(time.perf_counter() - before)
    pairs = zip(seconds["1 epoch"], seconds["1000 epochs"], strict=True)
    return {"fashion_mnist_every_epoch_over_never": median(mine / other for mine, other in pairs)}


def main(repeats: int) -> dict[str, Any]:
    """Return both."""
    with tempfile.TemporaryDirectory() as folder:
        return one_save(Path(folder), repeats) | epochs_with(Path(folder), max(3, repeats // 2))
