"""Who trains together. This is one process: whatever many would have to share or agree on is all its own, and costs nothing.

`nnrun.training.processes` has the same for many; the loop, the scoring and the run ask either, and know nothing of how many there are.

Shapes: N rows, B rows of a batch, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


Figures = dict[str, dict[str, float]]
"""Part → figure → value."""


@dataclass(frozen=True)
class Strategy:
    """How a network is shared by many processes; a registered part makes it.

    Args:
        timeout: seconds that one process waits for another.
        wrap: (network, group, device) → the module to call in its place, whose backward leaves each process the mean of all their
            gradients; within its `no_sync()` they stay apart, and are added up.
        shards: whether each process holds a share of the weights, their gradients and what the optimizer keeps of them. Then every forward
            pass is an exchange, which all take part in, and gradients are shared after each backward: whole ones would take the room.
    """

    timeout: float
    wrap: Callable[[nn.Module, Group, torch.device], nn.Module]
    shards: bool = False


class Group:
    """One process.

    Attributes:
        rank: of this process, counted from 0; the first one alone writes and prints.
        world_size: how many processes there are.
        local_rank: of this process on its machine; None where it is the only one.
        local_world_size: how many of them share this machine.
    """

    rank = 0
    world_size = 1
    local_rank: int | None = None
    local_world_size = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    # A network, and its batches

    def shards(self, strategy: Strategy) -> bool:
        """Return whether this process will hold no more than a share of a network."""
        return False

    def take(self, model: nn.Module, strategy: Strategy, device: torch.device, *, sync_batch_norm: bool) -> None:
        """Share a network with the others, before its optimizer is made."""

    def loss(self, model: nn.Module, loss_fn: nn.Module, batch: Sequence[Tensor], rows: int, *, step: int, last: bool) -> Tensor:
        """Return what this process's rows contribute to the mean loss, 0-d, of a batch.

        Args:
            batch: these rows: inputs (B, …), and what else the loss takes.
            rows: how many the whole batch has.
            step: the steps before it.
            last: whether a step follows; else gradients are only added up.
        """
        made: Tensor = loss_fn(model(batch[0]), *batch[1:])
        return made

    def give_out(self, tensors: Iterable[Tensor]) -> None:
        """Fill tensors with what the first process has in them."""

    def notes(self, rows: int) -> list[str]:
        """Return what is to be said of batches of so many rows."""
        return []

    def size(self, batch_size: int) -> int:
        """Return how many rows of a whole batch are gathered here."""
        return batch_size

    def own(self, order: Tensor | None, rows: int, batch_size: int) -> Tensor | None:
        """Return the numbers of the rows that are gathered here, of all rows in their order; None for all as they are."""
        return order

    def total(self, number: Tensor) -> Tensor:
        """Return the sum of a number over the processes."""
        return number

    # Weights, and what is made of them

    def gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """Return the gradient of a loss that all processes have, 0-d, beside those that `.grad` holds."""
        return list(torch.autograd.grad(loss, parameters, allow_unused=True))

    def norms(self, tensors: Iterable[Tensor]) -> list[float]:
        """Return the norm of each tensor; one wait for the device."""
        return torch.stack([*map(torch.linalg.vector_norm, tensors)]).tolist()

    def whole_ones(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors to write, whole where each process holds a share; those the first one alone has."""
        return tensors

    # Rows to score

    def stretch(self, rows: int, at_once: int) -> tuple[int, int]:
        """Return from which row to which this process works out outputs, whole blocks of `at_once` rows."""
        return 0, rows

    def whole(self, made: Tensor, rows: int, at_once: int) -> Tensor:
        """Return the outputs (N, K) of all rows from those of each process's stretch."""
        return made

    # What all must know alike

    def wished(self, wish: bool) -> bool:
        """Return after a step whether there is a reason to pause: of many, what any of them wished a step before."""
        return wish

    def agreed(self, stop: int, save: bool) -> tuple[int, bool]:
        """Return the number of a signal to stop for, and whether to save, if any process wants it."""
        return stop, save

    def told(self, say: Callable[[], str]) -> str:
        """Return the words of the first process, which all wait for."""
        return say()

    def wait(self) -> None:
        """Go on when all have come here."""

    def same(self, figures: Figures) -> Figures:
        """Return the figures of the first process."""
        return figures

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensor of each process, on the CPU."""
        return [tensor]

    def shared(self, tensors: dict[str, Tensor], into: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
        """Return the tensors of the first process; a share of those that go into a tensor held in shares.

        Args:
            into: the name of a tensor → the one that it goes into, where its shape alone does not tell all.
        """
        return tensors

    # The folder of a job that its launcher may start again

    def begun_in(self) -> Path | None:
        """Return the folder in which an earlier life of this job began its run; None where there was none."""
        return None

    def begin_in(self, folder: Path) -> None:
        """Note for later lives of this job where it began."""


ALONE = Group()
