"""What a dataset's targets mean: classes or numbers, and how they are coded.

Text, booleans, and whole numbers of at most 50 different values with three rows each on average are classes, the rest are numbers; `task`
of a dataset says otherwise.
Class names are sorted: text by its characters, numbers by size. A class number is the place of its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnrun.data.dataset import Task
from nnrun.data.tables import Table, is_number
from nnrun.errors import DataError
from nnrun.lazy import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    Values = npt.NDArray[Any]

FEWEST_OF_A_CLASS = 3  # rows, on average, when whole numbers are to be classes
MOST_CLASSES = 50  # with more different values, someone has to say that they are classes
AT = ("dataset", "target")


def targets_from_table(
    table: Table, names: Sequence[str], task: str, *, known: Sequence[str] = (), as_text: bool = False
) -> tuple[Task, Tensor]:
    """Return the task, and the coded targets, of one or more columns of a table.

    Args:
        known: the classes of a trained network, whose numbers they keep.
        as_text: whether classes are known to be texts, even those that look like numbers.
    """
    import numpy as np
    import polars

    columns: dict[str, Values] = {}
    for name in names:
        values, bad = table.numbers(name)
        missing = missing_targets(table, name)
        if len(missing):
            raise missing_target(name, table, int(missing[0]), len(missing))
        words = as_text or table.frame[name].dtype == polars.Boolean or bool(np.isnan(values[bad]).any())
        if words and len(names) == 1 and task != "numbers" and not few_are_bad(name, np.delete(values, bad), len(bad), task):
            columns[name] = table.texts(name).to_numpy()
        elif len(bad):
            fix = "write `task: classes`, with one target column, if these are classes"
            fix = fix if len(bad) > len(table) / 2 else "mend or remove these rows"
            raise DataError([table.not_a_number(name, bad, fix=fix, call="target column")])
        else:
            columns[name] = values
    return targets_from_arrays(columns, task, known=known)


def missing_targets(table: Table, name: str) -> Values:
    """Return the rows of a target column that have no value."""
    series = table.frame[name]
    if series.dtype.is_numeric() and not any(map(is_number, table.missing)):  # no number stands for a missing one
        empty = series.is_null() | (series.is_nan() if series.dtype.is_float() else False)
    else:
        texts = table.texts(name)
        empty = texts.is_null() | texts.str.to_lowercase().is_in(["nan"])
    missing: Values = empty.arg_true().to_numpy()
    return missing


def missing_target(name: str, table: Table, first: int, count: int) -> DataError:
    """Return the error of targets that are missing, the first of them in a row of this table."""
    what = f"target {name!r} is missing in {count} row{'s' * (count != 1)} (the first is row {table.number(first)} counted from 0)"
    fix = "fill in the target, remove these rows, or write `missing_target: drop`"
    place = table.place(first, name)
    return DataError(what if place else f"{table.file}: {what}", fix=fix, place=place)


def targets_from_arrays(
    columns: Mapping[str, Values], task: str, at: tuple[str, ...] = AT, known: Sequence[str] = (), rows: int = 0
) -> tuple[Task, Tensor]:
    """Return the task, and the targets coded as class numbers (N,) or numbers (N, T), of one or more columns of N values.

    Args:
        rows: of how many rows these are the different values; by default each is a row of its own.
    """
    import numpy as np

    names = tuple(columns)
    first = columns[names[0]]
    if task == "auto":
        task = "classes" if len(names) == 1 and _look_like_classes(names[0], first, at, rows) else "numbers"
    if task == "classes":
        if len(names) > 1:
            raise DataError(f"classes want one target column, not {len(names)}", fix="name one column, or write `task: numbers`", at=at)
        found, codes = np.unique(first, return_inverse=True)
        classes = tuple(_class_name(value) for value in found)
        if known:
            unknown = [name for name in classes if name not in known]
            if unknown:
                what = f"target {names[0]!r} holds {unknown[0]!r}, a class that the network does not know"
                raise DataError(what, fix=f"it knows {', '.join(known)}")
            codes = np.array([known.index(name) for name in classes])[codes]
        elif len(classes) < 2:
            what = f"target {names[0]!r} has one single class, {classes[0]!r}"
            raise DataError(what, fix="a network needs at least two classes to tell apart", at=at)
        return Task(names, tuple(known) or classes), torch.from_numpy(codes.astype(np.int64).reshape(-1))
    wrong = next((name for name, values in columns.items() if values.dtype.kind not in "biuf"), None)
    if wrong is not None:
        raise DataError(f"target {wrong!r} holds text, and `task: numbers` wants numbers", fix="write `task: classes`", at=at)
    with np.errstate(over="ignore"):
        y_NT = np.stack([values.astype(np.float32) for values in columns.values()], axis=1)
    return Task(names), torch.from_numpy(y_NT)


def few_are_bad(name: str, good: Values, bad: int, task: str, rows: int = 0) -> bool:
    """Whether a column is one of numbers that are no classes, in which a few cells are wrong, rather than one of text."""
    return task == "auto" and bad < (rows or len(good)) and not _look_like_classes(name, good, AT, rows)


def _look_like_classes(name: str, values: Values, at: tuple[str, ...], rows: int) -> bool:
    import numpy as np

    text = values.dtype.kind not in "biuf"
    different = len(np.unique(values))
    if text and different > MOST_CLASSES:
        what = f"target {name!r} is text with {different} different values"
        raise DataError(what, fix="write `task: classes` if each of them is a class", at=at)
    seldom = different > 2 and different * FEWEST_OF_A_CLASS > (
        rows or len(values)
    )  # twelve flats with twelve prices are not twelve classes
    return text or (different <= MOST_CLASSES and not seldom and bool(np.all(values == np.floor(values))))


def _class_name(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if value.dtype.kind == "b":
        return str(bool(value))
    return str(int(value)) if value == int(value) else repr(float(value))
