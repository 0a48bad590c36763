"""A plug-in: parts of one's own, registered as nnrun registers its own. docs/plugins.md explains each.

nnrun train examples/my_parts.yaml --plugin examples/my_parts.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nnrun.check.rules import Finding
from nnrun.data.dataset import Dataset, Task
from nnrun.model.incoming import Incoming
from nnrun.registry import DATASETS, LAYERS, LOSSES, METRICS, RULES
from nnrun.spec.experiment import Experiment
from nnrun.training.metrics import Scored


@DATASETS.register("spirals")
def spirals(*, rows: int = 300, turns: float = 1.0, noise: float = 0.03) -> Dataset:
    """Two spirals around each other, made on the spot; the classes are the arms.

    Args:
        rows: how many points, half of them in each arm.
        turns: how often an arm goes round.
        noise: the deviation of a point from its arm.
    """
    chance = torch.Generator().manual_seed(0)  # its own, so that the same config has the same rows
    arm = torch.arange(rows) % 2
    radius = torch.rand(rows, generator=chance).sqrt()
    angle = 2 * math.pi * turns * radius + math.pi * arm
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1) + noise * torch.randn(rows, 2, generator=chance)
    return Dataset(x, arm, Task(("arm",), ("first", "second")), ("east", "north"))


class Swish(nn.Module):
    """x · sigmoid(beta · x) with a learned beta for each column."""

    def __init__(self, columns: int, beta: float) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.full((columns,), beta))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


@LAYERS.register("learned_swish", activation=True)
def learned_swish(at: Incoming, /, *, beta: float = 1.0) -> nn.Module:
    """Swish whose slope is learned, a number for each column (Ramachandran et al., 2017): any shape (..., D).

    Args:
        beta: where the slope begins; 0 is a straight line.
    """
    return Swish(at.shape[-1], beta)


class Focal(nn.Module):
    """The mean of (1 - p)^gamma · -log p over the rows, p the probability of the right class."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        log_p = output.log_softmax(1).gather(1, target[:, None])[:, 0]
        return (-((1 - log_p.exp()) ** self.gamma) * log_p).mean()


@LOSSES.register("focal", classes="number", scores="logits")
def focal(*, gamma: float = 2.0) -> nn.Module:
    """Cross-entropy in which rows that are right already hardly count (Lin et al., 2017); expects raw scores (N, K).

    Args:
        gamma: how much less they count; 0 is cross_entropy.
    """
    return Focal(gamma)


@METRICS.register("worst_recall", task="classes", better="higher")
def worst_recall(scored: Scored) -> Tensor:
    """The recall of the class that is found least often; 1 is perfect."""
    return (scored.hits / scored.support.clamp(min=1)).min()


@RULES.register("MY101", on="config", severity="warning")
def focal_without_worst_recall(spec: Experiment) -> Iterator[Finding]:
    """A focal loss, whose purpose is the rare class, and no metric that looks at it."""
    if spec.loss is not None and spec.loss.entry.name == "focal" and "worst_recall" not in (spec.metrics or ()):
        yield Finding("the loss is focal, and no metric looks at the rarest class", "metrics: [worst_recall]", ("metrics",))
