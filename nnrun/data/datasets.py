"""The datasets a config can name: each returns inputs, targets, and what the targets mean.

    iris wine breast_cancer digits diabetes    brought along by scikit-learn
    fashion_mnist mnist                        found on this machine, or fetched
    points                                     written in the config itself
    csv parquet jsonl npz pictures             the user's own files

Shapes: N rows, D input columns, T target columns; pictures are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nnrun.data import bundled, idx
from nnrun.data.arrays import as_tensor, read_npz
from nnrun.data.columns import Column, Kind
from nnrun.data.dataset import Dataset, Task
from nnrun.data.large import large_table, streams
from nnrun.data.pictures import labelled_pictures, read_pictures
from nnrun.data.table_files import Reading, found_files
from nnrun.data.tables import MISSING
from nnrun.data.tabular import Wants, tabular
from nnrun.data.targets import targets_from_arrays
from nnrun.errors import DataError
from nnrun.lazy import torch
from nnrun.registry import DATASETS
from nnrun.spec.parts import DataPath, DataPaths

if TYPE_CHECKING:
    from torch import Tensor

FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DIGITS = tuple("0123456789")
Side = Annotated[int, Field(ge=1, le=4096)]
TaskName = Literal["auto", "classes", "numbers"]


@DATASETS.register("iris")
def iris() -> Dataset:
    """Iris: 150 flowers, 4 lengths in cm, 3 species."""
    return _bundled("iris.csv", bundled.IRIS)


@DATASETS.register("wine")
def wine() -> Dataset:
    """Wine: 178 wines, 13 chemical measures, 3 growers."""
    return _bundled("wine_data.csv", tuple(bundled.WINE.split()))


@DATASETS.register("breast_cancer")
def breast_cancer() -> Dataset:
    """Breast cancer Wisconsin: 569 tumours, 30 measures, malignant or benign."""
    return _bundled("breast_cancer.csv", bundled.BREAST_CANCER)


@DATASETS.register("digits")
def digits() -> Dataset:
    """Handwritten digits: 1797 pictures of 8 × 8 pixels from 0 to 16, 10 classes."""
    import numpy as np

    values = bundled.number_file("digits.csv.gz", ",")
    x = torch.from_numpy(values[:, :-1].astype(np.float32).reshape(-1, 1, 8, 8))
    return Dataset(x, torch.from_numpy(values[:, -1].astype(np.int64)), Task(("digit",), DIGITS))


@DATASETS.register("diabetes")
def diabetes() -> Dataset:
    """Diabetes: 442 patients, 10 scaled measures, the progression after a year as a number."""
    import numpy as np

    values = bundled.number_file("diabetes_data_raw.csv.gz")
    values = (values - values.mean(0)) / values.std(0) / len(values) ** 0.5
    y = bundled.number_file("diabetes_target.csv.gz")[:, None]
    return Dataset(
        torch.from_numpy(values.astype(np.float32)),
        torch.from_numpy(y.astype(np.float32)),
        Task(("progression",)),
        _plain(bundled.DIABETES),
    )


@DATASETS.register("fashion_mnist")
def fashion_mnist() -> Dataset:
    """FashionMNIST: 70000 grey pictures of 28 × 28 pixels, 10 kinds of clothing.

    Rows 0:60000 are the publisher's training rows, 60000:70000 the test rows.
    """
    return _idx(idx.FASHION_MNIST, "clothing", FASHION_CLASSES)


@DATASETS.register("mnist")
def mnist() -> Dataset:
    """MNIST: 70000 grey pictures of 28 × 28 pixels, 10 handwritten digits.

    Rows 0:60000 are the publisher's training rows, 60000:70000 the test rows.
    """
    return _idx(idx.MNIST, "digit", DIGITS)


@DATASETS.register("points")
def points(*, x: list[float] | list[list[float]], y: list[float] | list[list[float]]) -> Dataset:
    """Points written in the config itself; the targets are numbers.

    Args:
        x: one number or one list of numbers for each row.
        y: one number or one list of numbers for each row.
    """
    x_ND, y_NT = _matrix("x", x), _matrix("y", y)
    if len(x_ND) != len(y_NT):
        raise DataError(f"x has {len(x_ND)} rows and y has {len(y_NT)}", fix="give one y for each x", at=("dataset", "y"))
    return Dataset(x_ND, y_NT, Task(_numbered("y", y_NT.shape[1])), _plain(_numbered("x", x_ND.shape[1])))


@DATASETS.register("csv", table=True)
@DATASETS.register("parquet", table=True)
@DATASETS.register("jsonl", table=True)
def table(
    aside: Mapping[str, str] | None = None,
    *,
    path: DataPaths,
    target: str | list[str],
    task: TaskName = "auto",
    columns: dict[str, Kind] | None = None,
    weight: str | None = None,
    missing: list[str] | None = None,
    missing_target: Literal["refuse", "drop"] = "refuse",
    separator: str = ",",
    encoding: str = "utf-8",
    stream: bool | Literal["auto"] = "auto",
) -> Dataset:
    """A table in CSV, Parquet or JSON lines, by the file's ending; every column but the target is an input, its kind read off its cells.

    Args:
        path: the file, a pattern such as data/*.csv, or a list of them; .gz, .bz2 and .xz are unpacked.
        target: the column to predict, or a list of columns of numbers.
        task: classes or numbers; auto takes text, and few different whole numbers (at most 50, three rows each), for classes.
        columns: what columns are, where their cells do not say it: {zip: category, id: ignore}.
        weight: a column of numbers, how much each row counts in training.
        missing: the texts that stand for no value; by default an empty cell, NA, N/A, NaN, null and ?.
        missing_target: whether rows without a target are refused, or dropped.
        separator: what stands between two cells of CSV.
        encoding: what CSV is written in: utf-8, cp932, cp1252, latin-1, utf-16.
        stream: whether the rows stay on the disk and are read as they are needed, with the same result; auto where memory is short.
    """
    reading = Reading(separator, encoding, MISSING if missing is None else tuple(missing))
    wants = Wants(target, task, columns or {}, weight, missing_target == "drop", aside or {})
    files = found_files(path, at=("dataset", "path"))
    streamed, notes = streams(files, stream)
    return large_table(files, reading, wants, notes) if streamed else tabular(files, reading, wants)


@DATASETS.register("npz")
def npz(*, path: DataPath, x: str = "x", y: str = "y", task: TaskName = "auto") -> Dataset:
    """Arrays in an NPZ file, as numpy.savez writes it.

    Args:
        path: the file.
        x: the array of inputs (N, ...); bytes stay bytes, other numbers become float32.
        y: the array of targets (N,) or (N, T).
        task: classes or numbers; auto takes text, and few different whole numbers (at most 50, three rows each), for classes.
    """
    import numpy as np

    x_array, y_array = read_npz(path, {x: ("dataset", "x"), y: ("dataset", "y")}, at=("dataset", "path"))
    if len(x_array) != len(y_array):
        what = f"array {x!r} has {len(x_array)} rows and {y!r} has {len(y_array)}"
        raise DataError(what, fix="give one target for each row", at=("dataset", "path"))
    if y_array.ndim > 2:
        raise DataError(f"array {y!r} has the shape {y_array.shape}", fix="targets are (N,) or (N, T)", at=("dataset", "y"))
    inputs = as_tensor(x_array, f"{path}: array {x!r}", at=("dataset", "x"))
    y_NT = y_array if y_array.ndim == 2 else y_array[:, None]
    if y_NT.dtype.kind == "f":
        as_tensor(y_NT, f"{path}: array {y!r}", at=("dataset", "y"))
    named = {name: y_NT[:, number] for number, name in enumerate(_numbered(y, y_NT.shape[1]))}
    named = {name: values.astype(np.str_) if values.dtype.kind == "S" else values for name, values in named.items()}
    what_it_means, targets = targets_from_arrays(named, task, at=("dataset", "y"))
    return Dataset(inputs[:, None] if inputs.ndim == 1 else inputs, targets, what_it_means)


@DATASETS.register("pictures")
def pictures(
    *,
    path: DataPath,
    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)],
    channels: Literal[1, 3] = 3,
    broken: Literal["refuse", "skip"] = "refuse",
    stream: bool | Literal["auto"] = "auto",
    file: str = "file",
    target: str = "label",
) -> Dataset:
    """Pictures in a folder that has one sub-folder for each class, or named with their labels in a table; the classes are sorted by name.

    Args:
        path: the folder, or a .csv or .tsv table. Pictures deeper in a sub-folder are of its class, too.
        size: the height and the width that every picture is brought to, [28, 28]; one number for both.
        channels: 1 for grey, 3 for colour.
        broken: what becomes of pictures that cannot be read: refuse names them all, skip leaves them out and says how many.
        stream: whether pictures are decoded anew in each epoch, by threads; auto holds them in memory as long as they fit.
        file: of a table: the column with the path of each picture, relative to the table's folder.
        target: of a table: the column with the class of each picture.
    """
    found = labelled_pictures(Path(path), file, target, at=("dataset", "path"))
    classes = sorted(set(found.labels))
    if len(classes) < 2:
        what = f"{path} has one single class, {classes[0]!r}"
        raise DataError(what, fix="a network needs at least two classes to tell apart", at=("dataset", "path"))
    height, width = size if isinstance(size, list) else (size, size)
    x, good, notes = read_pictures(found.files, (channels, height, width), skip=broken == "skip", stream=stream)
    unread = sorted(set(classes) - {found.labels[row] for row in good})
    if unread:
        raise DataError(
            f"no picture of the class {unread[0]!r} can be read", fix="mend them, or take the class out", at=("dataset", "path")
        )
    y = torch.tensor([classes.index(found.labels[row]) for row in good])
    task = Task((target if Path(path).is_file() else "class",), tuple(classes))
    return Dataset(x, y, task, files=[found.files[row] for row in good], notes=tuple(notes))


def _bundled(file: str, columns: tuple[str, ...]) -> Dataset:
    import numpy as np

    x_ND, y_N, classes = bundled.classes_file(file)
    return Dataset(torch.from_numpy(x_ND.astype(np.float32)), torch.from_numpy(y_N), Task(("class",), classes), _plain(columns))


def _idx(source: idx.Source, target: str, classes: tuple[str, ...]) -> Dataset:
    import numpy as np

    pictures_NHW, y_N = idx.load(source)
    return Dataset(torch.from_numpy(pictures_NHW[:, None]), torch.from_numpy(y_N.astype(np.int64)), Task((target,), classes))


def _matrix(name: str, rows: list[Any]) -> Tensor:
    """Return the rows as (N, K); one number is a row of one."""
    listed = [row if isinstance(row, list) else [row] for row in rows]
    if not listed or not listed[0]:
        raise DataError(f"{name} has no values", fix=f"write `{name}: [1, 2, 3]`", at=("dataset", name))
    for number, row in enumerate(listed):
        if len(row) != len(listed[0]):
            what = f"row {number} of {name} has {len(row)} values, and row 0 has {len(listed[0])}"
            raise DataError(what, fix="give every row the same number of values", at=("dataset", name, number))
        if any(not abs(value) < 3.4028235677973366e38 for value in row):
            raise DataError(f"row {number} of {name} is not finite in float32", fix="give finite numbers", at=("dataset", name, number))
    return torch.tensor(listed, dtype=torch.float32)


def _plain(names: Sequence[str]) -> tuple[Column, ...]:
    return tuple(map(Column, names))


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}{number}" for number in range(1, count + 1))
