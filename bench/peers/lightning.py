"""Lightning, quiet: a LightningModule, a DataLoader over tensors, and a Trainer without logger, checkpoints, progress bar and summary."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bench.peers.turn import timed
from bench.peers.work import Work
from nnrun.data.vision import torchvision

torchvision()  # Lightning imports it where it is installed, and by itself it does not load beside a torch for the CPU

from lightning import LightningModule, Trainer  # noqa: E402

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Module(LightningModule):
    """The network, its loss and its optimiser, as the first page of Lightning's documentation has them."""

    def __init__(self, work: Work, **optimizer: Any) -> None:
        super().__init__()
        self.model, self.loss_fn, self.work, self.options = work.model(), work.loss(), work, optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss_fn(self.model(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", self.loss_fn(self.model(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.work.optimizer(self.model.parameters(), lr=self.work.spec.lr, **self.options)


def loader(work: Work) -> DataLoader[Any]:
    """Return the rows by themselves, put together to batches."""
    return DataLoader(TensorDataset(work.x, work.y), work.batch_size, shuffle=work.spec.shuffle, drop_last=work.spec.drop_last)


def training(work: Work, module: nn.Module, rows: DataLoader[Any], **options: Any) -> Callable[[], int]:
    """Return the training by a Trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    validation = DataLoader(TensorDataset(*work.held_out), work.batch_size) if work.held_out else None
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=work.spec.epochs, **options)

    def train() -> int:
        trainer.fit(module, rows, validation)
        return trainer.global_step

    return train


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training."""
    return training(work, Module(work), loader(work), **QUIET)
