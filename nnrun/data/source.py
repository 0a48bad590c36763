"""Rows that are not in memory: a `RowSource` gathers them by their numbers when they are wanted.

What the loop, the scoring and everything else take as inputs is a tensor (N, …) or a source. Either has `len`, `shape`, `dtype`, `device`,
`numel` and `x[rows]`; the functions below do the same to both: to a tensor at once, to a source when its rows are gathered. `blocks` and
`batches` go through the rows in an order, and gather those of a source a window at a time, the next one by a thread while the one before is
in use. What comes out depends neither on the thread nor on the size of a window.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING

from nnrun.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 1 << 26
"""Bytes that are gathered at a time; up to three such windows are in memory."""
ROWS_AT_ONCE = 8192
VALUES_AT_ONCE = 1 << 24
"""A block has no more values than this, if more than one row; it depends on the shape alone, as sums over blocks do."""


class RowSource(ABC):
    """Rows (N, …) that are gathered when they are wanted, always the same ones for the same number.

    Args:
        shape: (N, …).
        dtype: of the gathered rows.
        device: where the gathered rows are.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = torch.Size(shape), dtype, device

    @abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (B, …) with these numbers, int64 (B,) on the CPU; several threads may ask at a time."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Return some rows (B, …), by their numbers or as a range."""
        return self.gather(torch.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows.cpu())

    def numel(self) -> int:
        """Return how many values all rows have."""
        return math.prod(self.shape)


class Chosen(RowSource):
    """Some rows of a source: row n of this is row `rows[n]` of that."""

    def __init__(self, source: RowSource, rows: Tensor) -> None:
        super().__init__((len(rows), *source.shape[1:]), source.dtype, source.device)
        self._source, self._rows = source, rows

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (B, …) with these numbers."""
        return self._source.gather(self._rows[rows])


class Applied(RowSource):
    """What a function makes of rows, whenever they are gathered; it must make the same of a row whichever others are beside it."""

    def __init__(self, function: Callable[[Tensor], Tensor], rows: Tensor | RowSource) -> None:
        made = function(rows[:1])
        super().__init__((len(rows), *made.shape[1:]), made.dtype, made.device)
        self._function, self._rows = function, rows

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (B, …) with these numbers."""
        return self._function(self._rows[rows])


def taken(x: Tensor | RowSource, rows: Tensor) -> Tensor | RowSource:
    """Return the rows (B, …) with these numbers."""
    return Chosen(x, rows) if isinstance(x, RowSource) else x.index_select(0, rows)


def applied(function: Callable[[Tensor], Tensor], x: Tensor | RowSource) -> Tensor | RowSource:
    """Return what a function makes of rows, each for itself."""
    return Applied(function, x) if isinstance(x, RowSource) else function(x)


def rows_at_once(shape: Sequence[int]) -> int:
    """Return how many rows of inputs of this shape (N, …) a block has."""
    return max(1, min(ROWS_AT_ONCE, VALUES_AT_ONCE // max(1, math.prod(shape[1:]))))


def blocks(x: Tensor | RowSource, rows: int | None = None) -> Iterable[Tensor]:
    """Return all rows (N, …) in their order, so many at a time; by default as many as `rows_at_once` says."""
    rows = rows or rows_at_once(x.shape)
    if isinstance(x, RowSource):
        return (block for (block,) in batches([x], None, rows))
    return torch.split(x, rows) if len(x) > rows else (x,)


def joined(made: Iterator[Tensor], rows: int) -> Tensor:
    """Return what was made of some rows at a time as one tensor (N, …); thousands of small ones in between would tear memory to pieces."""
    first = next(made)
    if len(first) == rows:
        return first
    whole, start = first.new_empty(rows, *first.shape[1:]), 0
    for some in chain([first], made):
        whole[start : start + len(some)] = some
        start += len(some)
    return whole


def columns(x: Tensor | RowSource) -> Iterator[Tensor]:
    """Yield the values of all rows, laid out flat, some columns (N, some) at a time: as many as there is room for."""
    width = math.prod(x.shape[1:])
    some = max(1, 4 * WINDOW // (4 * max(1, len(x)))) if isinstance(x, RowSource) else width
    for first in range(0, width, max(1, some)):
        if isinstance(x, RowSource):
            yield joined((rows.flatten(1)[:, first : first + some] for rows in blocks(x)), len(x))
        else:
            yield x.flatten(1)


def column(x: Tensor | RowSource, number: int) -> Tensor:
    """Return one column (N,) of inputs (N, D)."""
    return next(columns(applied(lambda rows: rows[:, number : number + 1], x)))[:, 0]


def batches(
    data: Sequence[Tensor | RowSource], order: Tensor | None, size: int, *, first: int = 0, together: int = 1
) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of the same rows of each of `data`.

    Args:
        order: the numbers of the rows in the order that they are wanted in; None takes them as they are.
        first: how many batches to leave out at the beginning.
        together: batches that belong together: a window has a multiple of them.
    """
    width = sum(math.prod(one.shape[1:]) * one.dtype.itemsize for one in data)
    window = max(1, WINDOW // max(1, width * size * together)) * size * together

    def windows() -> Iterator[list[Tensor]]:
        for start in range(first * size, len(data[0]), window):
            end = min(start + window, len(data[0]))
            rows = torch.arange(start, end) if order is None else order[start:end]
            yield [one[rows] if isinstance(one, RowSource) else one[rows.to(one.device)] for one in data]

    for gathered in _ahead(windows()):
        yield from zip(*(torch.split(one, size) for one in gathered), strict=True)


def _ahead(made: Iterator[list[Tensor]]) -> Iterator[list[Tensor]]:
    """Yield what an iterator makes, the next one being made by a thread while the one before is in use."""
    with ThreadPoolExecutor(1, "gather") as thread:
        coming = thread.submit(next, made, None)
        while (one := coming.result()) is not None:
            coming = thread.submit(next, made, None)
            yield one
