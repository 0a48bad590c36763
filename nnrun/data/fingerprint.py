"""What data is known by: a SHA-256 of all of it, and a number for each row, so that rows that have changed can be counted and named.

A checkpoint keeps the numbers of up to 16,384 rows (`Known`), and of more rows one number for each block of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnrun.data.source import blocks
from nnrun.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from nnrun.data.dataset import Dataset

    Numbers = npt.NDArray[np.uint64]

MOST = 16_384
FEW = 5
BEGIN, MIX, SHIFT = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 29  # the mixing steps of splitmix64


@dataclass(frozen=True)
class Known:
    """What a checkpoint keeps of its data, so that it is known again.

    Args:
        digests: SHA-256 of the data and of the split.
        rows: how many rows the dataset has (N).
        marks: one number for each row, or for each block of so many rows that there are at most `MOST`; int64 (M,).
    """

    digests: Mapping[str, str]
    rows: int
    marks: Tensor


def fingerprint(dataset: Dataset, *, by_row: bool = True) -> tuple[str, Numbers]:
    """Return the SHA-256 of a dataset, of its values, their types and shapes, its columns and its classes; and a number for each row (N,).

    Rows with equal inputs and targets have equal numbers, others almost never, whatever other rows of the dataset hold.

    Args:
        by_row: whether the numbers are wanted; it is all done in one pass over the inputs.
    """
    import numpy as np

    found, numbers = hashlib.sha256(), np.full(len(dataset) if by_row else 0, BEGIN, np.uint64)
    levels = {number: _of_names(column.levels) for number, column in enumerate(dataset.columns) if column.kind == "category"}
    y = _of_names(dataset.task.classes)[dataset.y] if dataset.task.classes else dataset.y
    start = 0
    found.update(f"{dataset.x.dtype} {list(dataset.x.shape)}\n".encode())
    for x in blocks(dataset.x):
        found.update(_bytes(x).data)
        if by_row:
            end = start + len(x)
            _mix(numbers[start:end], np.concatenate([_bytes(_named(x, levels)), _bytes(y[start:end])], axis=1))
            start = end
    found.update(f"{dataset.y.dtype} {list(dataset.y.shape)}\n".encode())
    found.update(_bytes(dataset.y).data)
    for names in (tuple(column.facts() for column in dataset.columns), dataset.task.targets, dataset.task.classes):
        found.update(repr(names).encode())
    if dataset.weight is not None:
        found.update(dataset.weight.numpy().data)
    return found.hexdigest(), numbers


def marks(numbers: Numbers) -> Tensor:
    """Return what a checkpoint keeps of the numbers of rows (N,): themselves, or one for each block of them; int64 (M,)."""
    import numpy as np

    size = _block(len(numbers))
    made = np.full(-(-len(numbers) // size), BEGIN, np.uint64)
    padded = np.zeros(len(made) * size, np.uint64)
    padded[: len(numbers)] = numbers
    if size == 1:
        made = padded
    else:
        _mix(made, padded.reshape(-1, size).view(np.uint8))
    return torch.from_numpy(made.view(np.int64))


def difference(dataset: Dataset, stored: Known) -> str:
    """Return which rows of a dataset are not those that a checkpoint knows: how many, and the first of them, each with its place."""
    now, was = marks(fingerprint(dataset)[1]), stored.marks
    rows, size = len(dataset), _block(len(dataset))
    if not len(was):
        return "which rows have changed is not known, since the checkpoint is from before rows were marked"
    counts = "" if rows == stored.rows else f"it has {rows} rows now, and had {stored.rows}"
    if size > 1 or _block(stored.rows) > 1:
        blocks_told = [] if counts else torch.nonzero(now != was)[:, 0].tolist()
        spans = ", ".join(f"{block * size} to {min((block + 1) * size, rows) - 1}" for block in blocks_told[:FEW])
        told = f"rows have changed in {len(blocks_told)} of {len(now)} blocks of {size}: rows {spans}{_more(blocks_told)}"
        return counts or (told if blocks_told else UNCHANGED)
    if counts:
        changed = torch.nonzero(~torch.isin(now, was))[:, 0].tolist()
        gone = int((~torch.isin(was, now)).sum())
        return f"{counts}; {len(changed)} of them {_are(changed)} new{_rows(dataset, changed)}, and {gone} of those then are gone"
    changed = torch.nonzero(now != was)[:, 0].tolist()
    if not changed:
        return UNCHANGED
    if torch.equal(now.sort().values, was.sort().values):
        return f"its rows are the same in another order, from row {changed[0]} on"
    return f"{len(changed)} of {rows} rows {'have' if len(changed) > 1 else 'has'} changed{_rows(dataset, changed)}"


UNCHANGED = "no row has changed, but the names of its columns or classes, or the weights of its rows, have"


def _are(rows: Sequence[int]) -> str:
    return "is" if len(rows) == 1 else "are"


def _more(found: Sequence[int]) -> str:
    return ", …" if len(found) > FEW else ""


def _rows(dataset: Dataset, rows: Sequence[int]) -> str:
    """Return the first of these rows by their numbers, each with its file, and its line where it has one."""
    told = [f"row {dataset.table.number(row) if dataset.table else row}{_place(dataset, row)}" for row in rows[:FEW]]
    return f": {', '.join(told)}{_more(rows)}" if told else ""


def _place(dataset: Dataset, row: int) -> str:
    if dataset.files:
        return f" ({dataset.files[row]})"
    place = dataset.table.place(row, dataset.columns[0].name) if dataset.table and dataset.columns else None
    return f" ({place.file}:{place.line})" if place else ""


def _block(rows: int) -> int:
    """Return how many rows share a mark."""
    return max(1, -(-rows // MOST))


def _mix(numbers: Numbers, rows: npt.NDArray[np.uint8]) -> None:
    """Mix the bytes of rows (N, B) into their numbers (N,); products wrap around."""
    import numpy as np

    padded = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
    padded[:, : rows.shape[1]] = rows
    for column in padded.view(np.uint64).T:
        numbers ^= column
        numbers *= np.uint64(MIX)
        numbers ^= numbers >> np.uint64(SHIFT)


def _bytes(rows: Tensor) -> npt.NDArray[np.uint8]:
    """Return the bytes of each row (N, B)."""
    return rows.contiguous().reshape(len(rows), -1).view(torch.uint8).numpy()


def _named(x: Tensor, levels: Mapping[int, Tensor]) -> Tensor:
    """Return rows in which the number of a category stands for its name, and not for its place among others."""
    x = x.clone() if levels else x
    for number, names in levels.items():
        x[:, number] = names[x[:, number].nan_to_num(-1).long()]
    return x


def _of_names(names: Iterable[str]) -> Tensor:
    """Return a whole number that float32 can hold for each name, and one for none (K + 1,)."""
    return torch.tensor([int.from_bytes(hashlib.sha256(name.encode()).digest()[:3], "big") for name in names] + [-1], dtype=torch.float32)
