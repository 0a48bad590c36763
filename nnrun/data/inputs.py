"""The inputs of `predict`: tables, arrays, pictures, or JSON lines on stdin, as the network's dataset would have given them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.data.arrays import as_tensor, read_npy, read_npz
from nnrun.data.dataset import Dataset, Rows, Task
from nnrun.data.files import read_bytes
from nnrun.data.pictures import ENDINGS, labelled_pictures, picture_files, picture_table, read_picture
from nnrun.data.pictures import TABLES as PICTURE_TABLES
from nnrun.data.table_files import json_table, json_values, read_csv, read_parquet
from nnrun.data.tables import Table, read_columns
from nnrun.data.targets import targets_from_arrays, targets_from_cells
from nnrun.errors import DataError, Place
from nnrun.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Inputs:
    """What is to be predicted.

    Args:
        x: raw inputs (N, ...), before preprocessing: float32, or uint8 for pictures.
        labels: what to call each row: its number, counted from 0, or the name of its picture; after the path where there are several.
        notes: what was ignored or changed, one sentence each.
    """

    x: Tensor
    labels: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Wanted:
    """What the network was trained on."""

    columns: tuple[str, ...]
    shape: tuple[int, ...]
    file_column: str = ""


def read_inputs(
    paths: Sequence[str], *, columns: tuple[str, ...], shape: tuple[int, ...], bytes_wanted: bool | None = None, file_column: str = ""
) -> Inputs:
    """Return the rows of every path in turn.

    Args:
        paths: files, folders of pictures, or `-` for JSON lines on stdin.
        columns: the input columns by name; empty when the network was trained on arrays or pictures.
        shape: of one row, before preprocessing.
        bytes_wanted: whether the network's dataset gave uint8; None takes what the files give.
        file_column: for a network of pictures: the column of a table that holds their paths.

    Raises:
        DataError: when an input is missing, broken, or not of the columns or the shape that the network wants.
    """
    if not paths:
        raise DataError("there is nothing to predict", fix="give a file, a folder of pictures, or - for JSON lines on stdin")
    wanted = _Wanted(columns, shape, file_column)
    read = [_read(path, wanted) for path in paths]
    several = len(paths) > 1
    labels = [f"{path}:{label}" if several else label for path, one in zip(paths, read, strict=True) for label in one.labels]
    notes = [note for one in read for note in one.notes]
    tensors = [_typed(one.x, path, bytes_wanted) for path, one in zip(paths, read, strict=True)]
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [tensor.to(torch.float32) for tensor in tensors]
    return Inputs(torch.cat(tensors) if several else tensors[0], labels, notes)


def read_scored(
    path: str, task: Task, *, columns: tuple[str, ...], shape: tuple[int, ...], bytes_wanted: bool | None = None, file_column: str = ""
) -> Rows:
    """Return the inputs and the targets of what has both: a table, an NPZ file with arrays x and y, a folder with one for each class.

    Raises:
        DataError: as `read_inputs`, and when the target is missing or has a class that the network does not know.
    """
    import numpy as np

    ending = Path(path).suffix.lower()
    if ending == ".npz":
        x, y = read_npz(path, {"x": (), "y": ()})
        y_NT = y if y.ndim == 2 else y[:, None]
        columns_of_y = {name: y_NT[:, number] for number, name in enumerate(task.targets[: y_NT.shape[1]])}
        _, targets = targets_from_arrays(columns_of_y, task.kind, known=task.classes)
        inputs = _shaped(as_tensor(x, path), path, _Wanted(columns, shape))
    elif Path(path).is_dir() or (file_column and ending in PICTURE_TABLES):
        found = labelled_pictures(Path(path), file_column, task.targets[0])
        _, targets = targets_from_arrays({task.targets[0]: np.array(found.labels, object)}, task.kind, known=task.classes)
        inputs = _pictures(found.files, found.files, _Wanted(columns, shape), [])
    elif ending in TABLES:
        table = TABLES[ending](path)
        table.require(task.targets)
        _, cells = read_columns(table, (), task.targets)
        _, targets = targets_from_cells(cells, task.kind, table.place, task.classes)
        inputs = _from_table(table, _Wanted(columns, shape))
    else:
        raise DataError(f"{path}: a file to score is a table or an NPZ file", fix=f"give {' '.join(TABLES)} .npz or a folder of classes")
    if len(inputs.x) != len(targets):
        raise DataError(f"{path} has {len(inputs.x)} rows of inputs and {len(targets)} targets", fix="give one target for each row")
    return Rows(_typed(inputs.x, path, bytes_wanted), targets)


def digest(dataset: Dataset) -> str:
    """Return the SHA-256 of a dataset: its values, their types and shapes, its columns and its classes."""
    found = hashlib.sha256()
    for tensor in (dataset.x, dataset.y):
        found.update(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    for names in (dataset.columns, dataset.task.targets, dataset.task.classes):
        found.update(repr(names).encode())
    return found.hexdigest()


def _read(path: str, wanted: _Wanted) -> Inputs:
    if path == "-":
        return _json_lines(sys.stdin.buffer.read(), "stdin", wanted)
    if Path(path).is_dir():
        files, others = picture_files(Path(path))
        notes = [f"{path}: ignored files: {_listed(others)}"] if others else []
        return _pictures(files, [file.relative_to(path) for file in files], wanted, notes)
    ending = Path(path).suffix.lower()
    if ending in ENDINGS:
        return _pictures([Path(path)], [Path(path).name], wanted, [])
    if wanted.file_column and ending in PICTURE_TABLES:
        files, names = picture_table(Path(path), wanted.file_column)
        return _pictures(files, names, wanted, [])
    if ending in (".npz", ".npy"):
        return _shaped(as_tensor(read_npy(path) if ending == ".npy" else read_npz(path, {"": ()})[0], path), path, wanted)
    if ending in LINES:
        return _json_lines(read_bytes(path), path, wanted)
    if ending in TABLES:
        return _from_table(TABLES[ending](path), wanted)
    what = f"{path}: {ending or 'a file without an ending'} is not something to predict from"
    kinds = f"{' '.join(TABLES)} .npz .npy, a picture ({' '.join(ENDINGS)}), a folder of pictures, or - for JSON lines"
    raise DataError(what, fix=f"give {kinds}")


def _any_csv(path: str) -> Table:
    """A table to predict from need not have the separator of the training table: one that gives a single column is not the right one."""
    tables = (read_csv(path, separator) for separator in ",;\t")
    return next((table for table in tables if len(table.names) > 1), None) or read_csv(path)


def _json_lines(data: bytes, file: str, wanted: _Wanted) -> Inputs:
    if wanted.columns:
        return _from_table(_json_table(data, file), wanted)
    rows = []
    for line, value in json_values(data, file):
        row = _row(value, wanted.shape)
        if row is None:
            what = f"this line is not a list of finite numbers of the shape {list(wanted.shape)}, which the network wants"
            raise DataError(what, fix="write one list of numbers in each line", place=Place(file, line, 1))
        rows.append(row)
    if not rows:
        raise DataError(f"{file} is empty", fix="write one list of numbers in each line")
    return Inputs(torch.stack(rows).reshape(-1, *wanted.shape), _numbered(len(rows)))


def _json_table(data: bytes, file: str) -> Table:
    """Return the table of JSON objects; a key that one of them has twice is refused, because which value was meant cannot be known."""
    table = json_table(data, file)
    for line, source in enumerate(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig"), 1):
        if source.count(":") > len(table.names):  # else none is there twice
            twice: list[str] = []
            with contextlib.suppress(ValueError, RecursionError):  # told with its place when the table is read
                json.loads(source, object_pairs_hook=partial(_noting_twice, twice))
            if twice:
                place = Place(file, line, source.rfind(f'"{twice[0]}"') + 1, source.rstrip("\r\n"), len(twice[0]) + 2)
                raise DataError(f"the key {twice[0]!r} is given twice in this line", fix="keep one of them", place=place)
    return table


def _noting_twice(twice: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice += [name for name in dict.fromkeys(names) if names.count(name) > 1]
    return dict(pairs)


def _from_table(table: Table, wanted: _Wanted) -> Inputs:
    names, notes = wanted.columns or table.names, []
    table.require(names)
    count = math.prod(wanted.shape)
    if len(names) != count:
        what = f"{table.file} has {len(names)} columns, and the network wants {count} inputs (of the shape {list(wanted.shape)})"
        raise DataError(what, fix="give only the inputs, in the order the network was trained on")
    ignored = [name for name in table.names if name not in names]
    if ignored:
        notes.append(f"ignored columns: {_listed(ignored)}")
    try:
        x_ND, _ = read_columns(table, names)
    except DataError as error:  # a column cannot be left out here, and one row cannot be told from a whole column of such cells
        fix = "the network needs a number in every cell of this column: mend the row, or leave it out"
        raise DataError([replace(one, fix=fix) if "column '" in one.what else one for one in error.faults]) from None
    return Inputs(torch.from_numpy(x_ND).reshape(-1, *wanted.shape), _numbered(len(x_ND)), notes)


def _shaped(x: Tensor, path: str, wanted: _Wanted) -> Inputs:
    if tuple(x.shape[1:]) == wanted.shape[1:] and wanted.shape[:1] == (1,):
        x = x.reshape(-1, *wanted.shape)  # pictures without an axis for their one channel
    if tuple(x.shape[1:]) != wanted.shape:
        what = f"{path} holds rows of the shape {list(x.shape[1:])}, and the network wants {list(wanted.shape)}"
        raise DataError(what, fix=f"reshape the array to (rows, {', '.join(map(str, wanted.shape))})")
    return Inputs(x, _numbered(len(x)))


def _pictures(files: Sequence[Path], labels: Sequence[object], wanted: _Wanted, notes: list[str]) -> Inputs:
    x = torch.empty((len(files), *wanted.shape), dtype=torch.uint8)
    resized = []
    for number, path in enumerate(files):
        picture, had = read_picture(path, wanted.shape)
        x[number] = torch.from_numpy(picture.copy())
        if had != (wanted.shape[2], wanted.shape[1]):
            resized.append(f"{path.name} from {had[0]} × {had[1]}")
    if resized:
        notes = [*notes, f"resized to {wanted.shape[2]} × {wanted.shape[1]}: {_listed(resized)}"]
    return Inputs(x, [str(label) for label in labels], notes)


def _typed(x: Tensor, path: str, bytes_wanted: bool | None) -> Tensor:
    """Return the rows in the type of the dataset that the network was trained on."""
    if bytes_wanted is None or bytes_wanted == (x.dtype == torch.uint8):
        return x
    if not bytes_wanted:
        return x.to(torch.float32)
    as_bytes = x.to(torch.uint8)
    if not torch.equal(as_bytes.to(torch.float32), x):
        raise DataError(f"{path} holds numbers that are not bytes", fix="the network wants pixels: whole numbers from 0 to 255")
    return as_bytes


def _jsonl(path: str) -> Table:
    return _json_table(read_bytes(path), path)


TABLES: dict[str, Callable[[str], Table]] = {
    ".csv": _any_csv,
    ".tsv": lambda path: read_csv(path, "\t"),
    ".parquet": read_parquet,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
}
LINES = (".jsonl", ".ndjson")


def _row(value: Any, shape: tuple[int, ...]) -> Tensor | None:
    """Return nested lists as a row; None when they are not finite numbers of the shape."""
    import numpy as np

    try:
        row = torch.from_numpy(np.array(value, np.float64)).to(torch.float32)
    except (ValueError, TypeError):
        return None
    return row if row.shape == shape and bool(row.isfinite().all()) else None


def _numbered(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")
