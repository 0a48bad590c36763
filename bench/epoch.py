"""An epoch of FashionMNIST, training and evaluation, in float32 and with bfloat16 products, against the tutorial's loop: a picture and
ToTensor per row through a DataLoader."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nnrun.data.idx import FASHION_MNIST, load
from nnrun.data.vision import torchvision
from nnrun.run import open_run
from nnrun.spec.reader import read_spec

PRECISIONS = ("float32", "bfloat16")


class Pictures(Dataset):  # type: ignore[type-arg]
    """What torchvision's FashionMNIST does for one row: an array becomes a PIL image, and ToTensor makes it a tensor."""

    def __init__(self, x: Any, y: Any) -> None:
        torchvision()
        from torchvision.transforms import ToTensor

        self.x, self.y, self.transform = torch.from_numpy(x), torch.from_numpy(y), ToTensor()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.x[row].numpy())), int(self.y[row])


def tutorial_epoch(train: DataLoader[Any], test: DataLoader[Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Return the seconds of one epoch of the tutorial."""
    loss_fn = nn.CrossEntropyLoss()
    started = time.perf_counter()
    model.train()
    for batch, (x, y) in enumerate(train):
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch % 100 == 0:
            loss.item()
    model.eval()
    with torch.no_grad():
        total, correct = 0.0, 0.0
        for x, y in test:
            output = model(x)
            total += loss_fn(output, y).item()
            correct += (output.argmax(1) == y).type(torch.float).sum().item()
    return time.perf_counter() - started


def main(repeats: int) -> dict[str, Any]:
    """Return the seconds of each, and how many times faster than the tutorial it is."""
    x, y = load(FASHION_MNIST)
    loaders = [DataLoader(Pictures(x[part], y[part]), batch_size=64) for part in (slice(0, 60000), slice(60000, 70000))]
    torch.set_num_threads(torch.get_num_threads())
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for precision in PRECISIONS:
            overrides = [f"epochs={repeats + 1}", f"precision={precision}"]
            runs[precision] = open_run(*read_spec(Path("configs/fashion_mnist.yaml"), overrides), out=Path(folder) / precision)
        trained = [run.train() for run in runs.values()]
        rounds = [[*map(_next_epoch, trained), tutorial_epoch(*loaders, model, optimizer)] for _ in range(repeats + 1)][1:]
    figures: dict[str, Any] = {"tutorial_seconds": median(seconds for *_, seconds in rounds)}
    for number, precision in enumerate(PRECISIONS):
        figures[f"{precision}_seconds"] = median(seconds[number] for seconds in rounds)
        figures[f"{precision}_speedup"] = median(seconds[-1] / seconds[number] for seconds in rounds)
    return figures


def _next_epoch(records: Iterator[Any]) -> float:
    started = time.perf_counter()
    next(records)
    return time.perf_counter() - started
