"""The data as the rest of nnrun sees it: inputs, targets, and what the targets mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnrun.data.columns import Column
from nnrun.data.source import Chosen, RowSource
from nnrun.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from nnrun.data.tables import Table


MOST_ROWS = 4_000_000
"""Of rows that are not in memory, so many are looked at together where not all are needed; their figures are right to three digits."""


@dataclass(frozen=True)
class Task:
    """What is to be predicted: one of several classes, or one or more numbers.

    Args:
        targets: the names of the target columns; exactly one for classes.
        classes: the class names in the order of their numbers; empty when numbers are predicted.
    """

    targets: tuple[str, ...]
    classes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """`classes` or `numbers`."""
        return "classes" if self.classes else "numbers"


@dataclass(frozen=True)
class Rows:
    """One part of the data.

    Args:
        x: inputs (N, ...), uint8 for raw pictures, else float32; as a source where they are too many for the memory.
        y: targets: class numbers int64 (N,), or numbers float32 (N, T).
    """

    x: Tensor | RowSource
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def thinned(self) -> Rows:
        """Return the rows, or as many of them as can be looked at together, evenly spread, where they are not all in memory."""
        if not isinstance(self.x, RowSource) or len(self) <= MOST_ROWS:
            return self
        rows = torch.linspace(0, len(self) - 1, MOST_ROWS, dtype=torch.float64).long()
        return Rows(Chosen(self.x, rows), self.y[rows.to(self.y.device)])


@dataclass(frozen=True)
class HeldRows(Rows):
    """Rows whose inputs are in memory."""

    x: Tensor


@dataclass(frozen=True)
class Dataset(Rows):
    """A whole dataset, before it is split.

    Args:
        task: what the targets mean.
        columns: what each input column of a table means (D,), or the name of a column of numbers; empty for pictures and arrays.
        table: the table that the rows came from, one row for each; None for pictures and arrays.
        weight: how much each row counts in training, float32 (N,); None when all count alike.
        notes: what the user should know, one sentence each.
        files: of pictures, the path of each; empty for others.
    """

    task: Task
    columns: tuple[Column, ...] = ()
    table: Table | None = None
    weight: Tensor | None = None
    notes: tuple[str, ...] = ()
    files: Sequence[Path] = ()

    def __post_init__(self) -> None:
        """A column that is only named is one of numbers."""
        named = tuple(Column(column) if isinstance(column, str) else column for column in self.columns)
        object.__setattr__(self, "columns", named)
