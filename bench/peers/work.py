"""What is trained: an experiment of nnrun, and its parts as any other tool can take them.

N rows of training; D inputs, or C × H × W; K outputs.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.measure import ROOT
from nnrun.run import Run
from nnrun.spec.experiment import Experiment
from nnrun.spec.reader import read_spec
from nnrun.spec.source import Source
from nnrun.training.step import batches_per_epoch

DIGITS = """\
dataset: digits
split: {train: 0.8, test: 0.2, method: stratified}
preprocess: [{scale: 0.0625}, flatten]
layers: [64]
activation: relu
loss: cross_entropy
optimizer: adam
lr: 1e-3
batch_size: 32
epochs: 20
"""

ONLY_TRAINING = ["epochs=1", "evaluate=[]"]
WORK: dict[str, list[str]] = {
    "iris": [],
    "breast_cancer": [],
    "thermometer": [],
    "digits": [],
    "fashion_mnist": ONLY_TRAINING,
    "lenet": ONLY_TRAINING,
}
"""Experiment → what is set differently from its config. Pictures are not scored after the epoch, by none."""


@dataclass(frozen=True)
class Work:
    """One experiment, read; its data is prepared and its first weights drawn when they are first asked for."""

    name: str
    spec: Experiment
    source: Source

    @cached_property
    def run(self) -> Run:
        """The parts of a run, without a folder."""
        return Run(self.spec)

    @cached_property
    def x(self) -> Tensor:
        """Prepared training inputs, float32 (N, ...)."""
        return self.run.data.parts["train"].x

    @cached_property
    def y(self) -> Tensor:
        """Targets: class numbers int64 (N,), or float32 (N, K)."""
        return self.run.network.head.encode(self.run.data.parts["train"].y)

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor] | None:
        """Inputs and targets of the validation part, whose loss is found after each epoch; None where the experiment has none."""
        part = self.run.data.parts["val"]
        return (part.x, self.run.network.head.encode(part.y)) if "val" in self.spec.evaluate and len(part) else None

    @property
    def classes(self) -> bool:
        """Whether classes are told apart; if not, numbers are predicted."""
        return bool(self.run.data.task.classes)

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.run.plan.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.spec.epochs * batches_per_epoch(len(self.x), self.batch_size, drop_last=self.spec.drop_last)

    def model(self) -> nn.Module:
        """Return the network with its first weights."""
        return copy.deepcopy(self.run.network.model)

    def loss(self) -> nn.Module:
        """Return torch's loss."""
        return nn.CrossEntropyLoss() if self.classes else nn.MSELoss()

    @property
    def optimizer(self) -> type[torch.optim.Optimizer]:
        """The class of torch's optimiser."""
        return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.spec.optimizer.entry.name]


def work(name: str, epochs: int | None = None) -> Work:
    """Return a work by its name, with so many epochs instead of its own."""
    with _config(name) as config:
        return Work(name, *read_spec(config, WORK[name] + ([f"epochs={epochs}"] if epochs else [])))


@contextmanager
def _config(name: str) -> Iterator[Path]:
    """Give the file of an experiment; that of digits is written for the while."""
    if name != "digits":
        yield ROOT / "configs" / f"{name}.yaml"
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "digits.yaml"
        config.write_text(DIGITS)
        yield config
