"""The inputs of `predict`: tables, arrays, pictures, or JSON lines on stdin, as the network's dataset would have given them."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nnrun.data.arrays import as_tensor, read_npy, read_npz
from nnrun.data.chunks import counted_from, json_chunks, opened, table_chunks, text_blocks
from nnrun.data.columns import Column, missing_values, raw_rows
from nnrun.data.dataset import HeldRows, Task
from nnrun.data.pictures import ENDINGS, MODES, decode, labelled_pictures, picture_files, picture_table
from nnrun.data.pictures import TABLES as PICTURE_TABLES
from nnrun.data.table_files import LINES, PARQUET, Reading, json_values, kind_of
from nnrun.data.tables import Table, listed
from nnrun.data.targets import targets_from_arrays, targets_from_table
from nnrun.errors import DataError, Place
from nnrun.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

BATCHES = 64  # of rows that are predicted at a time


@dataclass
class Inputs:
    """What is to be predicted.

    Args:
        x: raw inputs (N, ...), before preprocessing: float32, or uint8 for pictures.
        labels: what to call each row: its number, counted from 0, or the name of its picture; after the path where there are several.
        notes: what was ignored or changed, one sentence each.
    """

    x: Tensor
    labels: range | list[str]
    notes: list[str] = field(default_factory=list)

    def cut(self, start: int, stop: int) -> Inputs:
        """Return some of the rows."""
        return Inputs(self.x[start:stop], self.labels[start:stop], self.notes)

    @classmethod
    def joined(cls, parts: Sequence[Inputs]) -> Inputs:
        """Return the rows of all parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        tensors = [part.x for part in parts]
        if len({tensor.dtype for tensor in tensors}) > 1:
            tensors = [tensor.to(torch.float32) for tensor in tensors]
        first, last = parts[0].labels, parts[-1].labels
        labels = range(first.start, last.stop) if isinstance(first, range) and isinstance(last, range) else None
        names = [str(label) for part in parts for label in part.labels] if labels is None else labels
        return cls(torch.cat(tensors), names, list(dict.fromkeys(note for part in parts for note in part.notes)))


@dataclass(frozen=True)
class Wanted:
    """What a row looked like where the network was trained.

    Args:
        columns: the input columns of a table; empty for arrays and pictures.
        shape: of one row, before preprocessing.
        as_bytes: whether the dataset gave uint8; None takes what the files give.
        fills: whether the preprocessing fills missing values in.
        file_column: of pictures: the column of a table that holds their paths; empty when there was no table.
        reading: how its tables were read.
    """

    columns: tuple[Column, ...]
    shape: tuple[int, ...]
    as_bytes: bool | None = None
    fills: bool = False
    file_column: str = ""
    reading: Reading = field(default_factory=Reading)

    @property
    def texts(self) -> Collection[str]:
        """The columns that must come as they are written."""
        return {column.name for column in self.columns if column.kind != "number"}


def read_inputs(paths: Sequence[str], wanted: Wanted) -> Inputs:
    """Return the rows of every path in turn; as `stream_inputs`."""
    return Inputs.joined(list(stream_inputs(paths, wanted)))


def stream_inputs(paths: Sequence[str], wanted: Wanted) -> Iterator[Inputs]:
    """Yield the rows of every path in turn; those of CSV, Parquet and JSON lines some at a time.

    Args:
        paths: files, folders of pictures, or `-` for JSON lines on stdin.

    Raises:
        DataError: when an input is missing, broken, or not of the columns or the shape that the network wants.
    """
    if not paths:
        raise DataError("there is nothing to predict", fix="give a file, a folder of pictures, or - for JSON lines on stdin")
    for path in paths:
        rows = 0
        for one in _read(path, wanted):
            counted = range(rows, rows + len(one.x)) if isinstance(one.labels, range) else one.labels
            labels = [f"{path}:{label}" for label in counted] if len(paths) > 1 else counted
            yield Inputs(typed(one.x, path, wanted.as_bytes), labels, one.notes)
            rows += len(one.x)


def in_batches(parts: Iterable[Inputs], rows: int) -> Iterator[Inputs]:
    """Yield the same rows in parts of whole batches, but for the last, so that each row goes through the network beside the same others."""
    held: list[Inputs] = []
    for part in parts:
        read = Inputs.joined([*held, part])
        whole = len(read.x) - len(read.x) % rows
        for start in range(0, whole, BATCHES * rows):
            yield read.cut(start, min(start + BATCHES * rows, whole))
        held = [read.cut(whole, len(read.x))] if whole < len(read.x) else []
    yield from held


def read_scored(path: str, task: Task, wanted: Wanted) -> HeldRows:
    """Return the inputs and the targets of what has both: a table, an NPZ file with arrays x and y, a folder with one for each class.

    Raises:
        DataError: as `read_inputs`, and when the target is missing or has a class that the network does not know.
    """
    import numpy as np

    ending = kind_of(path)
    if ending == ".npz":
        x, y = read_npz(path, {"x": (), "y": ()})
        y_NT = y if y.ndim == 2 else y[:, None]
        columns_of_y = {name: y_NT[:, number] for number, name in enumerate(task.targets[: y_NT.shape[1]])}
        _, targets = targets_from_arrays(columns_of_y, task.kind, known=task.classes)
        inputs = shaped(as_tensor(x, path), path, wanted)
    elif Path(path).is_dir() or (wanted.file_column and ending in PICTURE_TABLES):
        found = labelled_pictures(Path(path), wanted.file_column, task.targets[0])
        _, targets = targets_from_arrays({task.targets[0]: np.array(found.labels, object)}, task.kind, known=task.classes)
        inputs = _pictures(found.files, found.files, wanted, [])
    elif ending in TABLES:
        table = wanted.reading.table(path, {*wanted.texts, *task.targets})
        table.require(task.targets)
        _, targets = targets_from_table(table, task.targets, task.kind, known=task.classes)
        inputs = from_table(table, wanted)
    else:
        raise DataError(f"{path}: a file to score is a table or an NPZ file", fix=f"give {' '.join(TABLES)} .npz or a folder of classes")
    if len(inputs.x) != len(targets):
        raise DataError(f"{path} has {len(inputs.x)} rows of inputs and {len(targets)} targets", fix="give one target for each row")
    return HeldRows(typed(inputs.x, path, wanted.as_bytes), targets)


def _read(path: str, wanted: Wanted) -> Iterator[Inputs]:
    if path == "-":
        yield from _json_lines(sys.stdin.buffer, "stdin", wanted)
    elif kind_of(path) in LINES and not wanted.columns and not Path(path).is_dir():
        with opened(path) as file:
            yield from _json_lines(file, path, wanted)
    elif kind_of(path) in TABLES and not Path(path).is_dir() and not (wanted.file_column and kind_of(path) in PICTURE_TABLES):
        numbers = frozenset(column.name for column in wanted.columns if column.kind == "number")
        for table in table_chunks(path, replace(wanted.reading, numbers=numbers), wanted.texts):
            yield from_table(table, wanted)
    else:
        yield _whole(path, wanted)


def _whole(path: str, wanted: Wanted) -> Inputs:
    """Return what is no text and no table."""
    if Path(path).is_dir():
        files, others = picture_files(Path(path))
        notes = [f"{path}: ignored files: {listed(others, 8)}"] if others else []
        return _pictures(files, [file.relative_to(path) for file in files], wanted, notes)
    ending = kind_of(path)
    if ending in ENDINGS:
        return _pictures([Path(path)], [Path(path).name], wanted, [])
    if wanted.file_column and ending in PICTURE_TABLES:
        files, names = picture_table(Path(path), wanted.file_column)
        return _pictures(files, names, wanted, [])
    if ending in (".npz", ".npy"):
        return shaped(as_tensor(read_npy(path) if ending == ".npy" else read_npz(path, {"": ()})[0], path), path, wanted)
    what = f"{path}: {ending or 'a file without an ending'} is not something to predict from"
    kinds = f"{' '.join(TABLES)} .npz .npy, a picture ({' '.join(ENDINGS)}), a folder of pictures, or - for JSON lines"
    raise DataError(what, fix=f"give {kinds}")


def _json_lines(file: IO[bytes], name: str, wanted: Wanted) -> Iterator[Inputs]:
    if wanted.columns:
        for table in json_chunks(file, name, wanted.reading.missing):
            yield from_table(table, wanted)
        return
    for lines, block in text_blocks(file, name, fix="write one list of numbers in each line"):
        rows = []
        with counted_from(lines):
            for line, value in json_values(block, name):
                row = _row(value, wanted.shape)
                if row is None:
                    what = f"this line is not a list of finite numbers of the shape {list(wanted.shape)}, which the network wants"
                    raise DataError(what, fix="write one list of numbers in each line", place=Place(name, line, 1))
                rows.append(row)
        yield Inputs(torch.stack(rows).reshape(-1, *wanted.shape), range(len(rows)))


def from_table(table: Table, wanted: Wanted) -> Inputs:
    """Return the rows of a table that has the columns which the network wants, in any order.

    Raises:
        DataError: it lacks one, or holds a cell that the network cannot take.
    """
    columns, notes = wanted.columns or tuple(map(Column, table.names)), []
    table.require(dict.fromkeys(column.name for column in columns))
    count = math.prod(wanted.shape)
    if len(columns) != count:
        what = f"{table.file} has {len(columns)} columns, and the network wants {count} inputs (of the shape {list(wanted.shape)})"
        raise DataError(what, fix="give only the inputs, in the order the network was trained on")
    known = {column.name for column in columns}
    ignored = [name for name in table.names if name not in known]
    if ignored:
        notes.append(f"ignored columns: {listed(ignored, 8)}")
    x_ND = torch.from_numpy(
        raw_rows(table, columns, "the network needs a number in every cell of this column: mend the row, or leave it out")
    )
    fix = "fill it in, leave the row out, or train with `impute`: this network has no step for it"
    missing = None if wanted.fills else missing_values(table, columns, x_ND, fix)
    if missing:
        raise missing
    return Inputs(x_ND.reshape(-1, *wanted.shape), range(len(x_ND)), notes)


def shaped(x: Tensor, path: str, wanted: Wanted) -> Inputs:
    """Return the rows of an array, which have the shape that the network wants."""
    if tuple(x.shape[1:]) == wanted.shape[1:] and wanted.shape[:1] == (1,):
        x = x.reshape(-1, *wanted.shape)  # pictures without an axis for their one channel
    if tuple(x.shape[1:]) != wanted.shape:
        what = f"{path} holds rows of the shape {list(x.shape[1:])}, and the network wants {list(wanted.shape)}"
        raise DataError(what, fix=f"reshape the array to (rows, {', '.join(map(str, wanted.shape))})")
    return Inputs(x, range(len(x)))


def _pictures(files: Sequence[Path], labels: Sequence[object], wanted: Wanted, notes: list[str]) -> Inputs:
    if len(wanted.shape) != 3 or wanted.shape[0] not in MODES:
        what = f"{files[0]} is a picture, and the network wants rows of the shape {list(wanted.shape)}"
        raise DataError(what, fix="give a table or an array" if len(wanted.shape) < 3 else "give an array: a picture has 1 or 3 channels")
    x = torch.empty((len(files), *wanted.shape), dtype=torch.uint8)
    sizes, _ = decode(files, x)
    wide, high = wanted.shape[2], wanted.shape[1]
    resized = [f"{path.name} from {had[0]} × {had[1]}" for path, had in zip(files, sizes, strict=True) if had != (wide, high)]
    if resized:
        notes = [*notes, f"resized to {wide} × {high}: {listed(resized, 8)}"]
    return Inputs(x, [str(label) for label in labels], notes)


def typed(x: Tensor, path: str, as_bytes: bool | None) -> Tensor:
    """Return the rows in the type of the dataset that the network was trained on."""
    if as_bytes is None or as_bytes == (x.dtype == torch.uint8):
        return x
    if not as_bytes:
        return x.to(torch.float32)
    made = x.to(torch.uint8)
    if not torch.equal(made.to(torch.float32), x):
        raise DataError(f"{path} holds numbers that are not bytes", fix="the network wants pixels: whole numbers from 0 to 255")
    return made


TABLES = (".csv", ".tsv", *PARQUET, *LINES)


def _row(value: Any, shape: tuple[int, ...]) -> Tensor | None:
    """Return nested lists as a row; None when they are not finite numbers of the shape."""
    import numpy as np

    try:
        row = torch.from_numpy(np.array(value, np.float64)).to(torch.float32)
    except (ValueError, TypeError):
        return None
    return row if row.shape == shape and bool(row.isfinite().all()) else None
