"""The datasets a config can name: each returns inputs, targets, and what the targets mean.

    iris wine breast_cancer digits diabetes    brought along by scikit-learn
    fashion_mnist mnist                        found on this machine, or fetched
    points                                     written in the config itself
    csv npz pictures                           the user's own files

Shapes: N rows, D input columns, T target columns; pictures are (N, C, H, W).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nnrun.data import bundled, idx
from nnrun.data.arrays import as_tensor, read_npz
from nnrun.data.dataset import Dataset, Task
from nnrun.data.pictures import labelled_pictures, read_pictures
from nnrun.data.table_files import read_csv
from nnrun.data.tables import read_columns
from nnrun.data.targets import AT, targets_from_arrays, targets_from_cells
from nnrun.errors import DataError
from nnrun.lazy import torch
from nnrun.registry import DATASETS
from nnrun.spec.parts import DataPath

if TYPE_CHECKING:
    from torch import Tensor

FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DIGITS = tuple("0123456789")
Side = Annotated[int, Field(ge=1, le=4096)]


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
        torch.from_numpy(values.astype(np.float32)), torch.from_numpy(y.astype(np.float32)), Task(("progression",)), bundled.DIABETES
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
    return Dataset(x_ND, y_NT, Task(_numbered("y", y_NT.shape[1])), _numbered("x", x_ND.shape[1]))


@DATASETS.register("csv")
def csv(
    *,
    path: DataPath,
    target: str | list[str],
    task: Literal["auto", "classes", "numbers"] = "auto",
    separator: str = ",",
    ignore: list[str] | None = None,
) -> Dataset:
    """A table in a CSV file whose first line names the columns; every column but the target and the ignored ones must hold numbers.

    Args:
        path: the file, in UTF-8.
        target: the column to predict, or a list of columns of numbers.
        task: classes or numbers; auto takes text, and few different whole numbers (at most 50, three rows each), for classes.
        separator: what stands between two cells.
        ignore: columns that are not used, and may hold anything; predict and eval do not need them.
    """
    table = read_csv(path, separator, at=("dataset", "path"))
    targets = [target] if isinstance(target, str) else target
    if not targets or len(set(targets)) < len(targets):
        raise DataError(f"target {targets} does not name different columns", fix="name each target column once", at=AT)
    if len(table.names) == 1 and separator == "," and any(other in table.names[0] for other in ";\t"):
        other = ";" if ";" in table.names[0] else "\\t"
        what = f"{path} has one column, {table.names[0]!r}"
        raise DataError(what, fix=f'write `separator: "{other}"`', at=("dataset", "path"))
    table.require(targets, at=AT)
    unused = ignore or []
    table.require(unused, at=("dataset", "ignore"))
    both = next((name for name in targets if name in unused), None)
    if both is not None:
        raise DataError(f"column {both!r} is the target, and ignored", fix="take it out of `ignore`", at=("dataset", "ignore"))
    columns = tuple(name for name in table.names if name not in targets and name not in unused)
    if not columns:
        raise DataError(
            f"{path} has no column besides the target{' and the ignored ones' * bool(unused)}",
            fix="a network needs at least one input column",
            at=AT,
        )
    x_ND, cells = read_columns(table, columns, targets)
    what_it_means, y = targets_from_cells(cells, task, table.place)
    return Dataset(torch.from_numpy(x_ND), y, what_it_means, columns)


@DATASETS.register("npz")
def npz(*, path: DataPath, x: str = "x", y: str = "y", task: Literal["auto", "classes", "numbers"] = "auto") -> Dataset:
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
    inputs = as_tensor(x_array, f"{path}: array {x!r}")
    y_NT = y_array if y_array.ndim == 2 else y_array[:, None]
    if y_NT.dtype.kind == "f":
        as_tensor(y_NT, f"{path}: array {y!r}")
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
    file: str = "file",
    target: str = "label",
) -> Dataset:
    """Pictures in a folder that has one sub-folder for each class, or named with their labels in a table; the classes are sorted by name.

    Args:
        path: the folder, or a .csv or .tsv table. Pictures deeper in a sub-folder are of its class, too.
        size: the height and the width that every picture is brought to, [28, 28]; one number for both.
        channels: 1 for grey, 3 for colour.
        broken: what becomes of pictures that cannot be read: refuse names them all, skip leaves them out and says how many.
        file: of a table: the column with the path of each picture, relative to the table's folder.
        target: of a table: the column with the class of each picture.
    """
    found = labelled_pictures(Path(path), file, target, at=("dataset", "path"))
    classes = sorted(set(found.labels))
    if len(classes) < 2:
        what = f"{path} has one single class, {classes[0]!r}"
        raise DataError(what, fix="a network needs at least two classes to tell apart", at=("dataset", "path"))
    height, width = size if isinstance(size, list) else (size, size)
    x, good = read_pictures(found.files, (channels, height, width), skip=broken == "skip")
    unread = sorted(set(classes) - {found.labels[row] for row in good})
    if unread:
        raise DataError(
            f"no picture of the class {unread[0]!r} can be read", fix="mend them, or take the class out", at=("dataset", "path")
        )
    y = torch.tensor([classes.index(found.labels[row]) for row in good])
    task = Task((target if Path(path).is_file() else "class",), tuple(classes))
    return Dataset(torch.from_numpy(x), y, task)


def _bundled(file: str, columns: tuple[str, ...]) -> Dataset:
    import numpy as np

    x_ND, y_N, classes = bundled.classes_file(file)
    return Dataset(torch.from_numpy(x_ND.astype(np.float32)), torch.from_numpy(y_N), Task(("class",), classes), columns)


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


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}{number}" for number in range(1, count + 1))
