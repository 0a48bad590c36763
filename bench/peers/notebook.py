"""Plain PyTorch as its tutorials and the teaching notebooks write it: a Dataset, a DataLoader, a loop, the loss read at each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.epoch import Pictures
from bench.peers.turn import timed
from bench.peers.work import Work
from nnrun.data.idx import FASHION_MNIST, load

TRAINING = slice(0, 60000)
"""The publisher's training rows of FashionMNIST."""


class Rows(Dataset):  # type: ignore[type-arg]
    """A table of inputs and targets, row by row."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], self.y[row]


def dataset(work: Work) -> Dataset[Any]:
    """Return the rows; pictures are made anew each time by PIL, Pad where the network wants 32 × 32, and ToTensor, as torchvision does."""
    if work.spec.dataset.entry.name != "fashion_mnist":
        return Rows(work.x, work.y)
    x, y = load(FASHION_MNIST)
    pictures = Pictures(x[TRAINING], y[TRAINING])
    if work.x.shape[-1] == 32:
        from torchvision.transforms import Compose, Pad

        pictures.transform = Compose([Pad(2), pictures.transform])
    return pictures


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training."""
    loader = DataLoader(dataset(work), batch_size=work.batch_size, shuffle=work.spec.shuffle, drop_last=work.spec.drop_last)
    validation = DataLoader(Rows(*work.held_out), batch_size=work.batch_size) if work.held_out else ()
    model, loss_fn = work.model(), work.loss()
    if work.x.dim() == 2 and work.spec.dataset.entry.name == "fashion_mnist":
        model = torch.nn.Sequential(torch.nn.Flatten(), model)
    optimizer = work.optimizer(model.parameters(), lr=work.spec.lr)

    def train() -> int:
        steps = 0
        for _ in range(work.spec.epochs):
            model.train()
            total = 0.0
            for x, y in loader:
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
                optimizer.step()
                total += loss.item()
                steps += 1
            model.eval()
            with torch.no_grad():
                total = sum(loss_fn(model(x), y).item() for x, y in validation)
        return steps

    return train
