"""What a dataset's targets mean: classes or numbers, and how they are coded.

Text, booleans, and whole numbers of at most 50 different values with three rows each on average are classes, the rest are numbers; `task`
of a dataset says otherwise.
Class names are sorted: text by its characters, numbers by size. A class number is the place of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnrun.data.dataset import Task
from nnrun.data.tables import BadCells, floats
from nnrun.errors import DataError, Place
from nnrun.lazy import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    Values = npt.NDArray[Any]

FEWEST_OF_A_CLASS = 3  # rows, on average, when whole numbers are to be classes
MOST_CLASSES = 50  # with more different values, someone has to say that they are classes
AT = ("dataset", "target")


def targets_from_cells(
    cells: Mapping[str, Sequence[str]], task: str, locate: Callable[[int, str], Place | None], known: Sequence[str] = ()
) -> tuple[Task, Tensor]:
    """Return the task, and the coded targets, of one or more columns of text cells.

    Args:
        locate: (row, column) → the place of a cell in its file.
        known: the classes of a trained network, whose numbers they keep.
    """
    import numpy as np

    columns: dict[str, Values] = {}
    for name, texts in cells.items():
        missing = [row for row, text in enumerate(texts) if text.lower() in ("", "nan")]
        if missing:
            what = f"target {name!r} is missing in {len(missing)} rows (the first is row {missing[0]} counted from 0)"
            raise DataError(what, fix="fill in the target, or remove these rows", place=locate(missing[0], name))
        values, bad = floats(texts)
        as_text = len(cells) == 1 and task != "numbers" and bool(np.isnan(values[bad]).any()) and not _few_are_bad(texts, len(bad), task)
        if len(bad) and not as_text:
            fault = BadCells(int(bad[0]), texts[bad[0]], len(bad)).told(name, locate(int(bad[0]), name), len(texts))
            fix = "write `task: classes`, with one target column, if these are classes" if len(bad) > len(texts) / 2 else fault.fix
            raise DataError(f"target {fault.what}", fix=fix, place=fault.place)
        columns[name] = np.array(texts, dtype=object) if as_text else values
    return targets_from_arrays(columns, task, known=known)


def targets_from_arrays(
    columns: Mapping[str, Values], task: str, at: tuple[str, ...] = AT, known: Sequence[str] = ()
) -> tuple[Task, Tensor]:
    """Return the task, and the targets coded as class numbers (N,) or numbers (N, T), of one or more columns of N values."""
    import numpy as np

    names = tuple(columns)
    first = columns[names[0]]
    if task == "auto":
        task = "classes" if len(names) == 1 and _look_like_classes(names[0], first, at) else "numbers"
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


def _few_are_bad(texts: Sequence[str], bad: int, task: str) -> bool:
    """Whether a column is one of numbers in which a few cells are wrong, rather than one of text."""
    return task == "auto" and bad < len(texts) / 2 and len(set(texts)) > MOST_CLASSES


def _look_like_classes(name: str, values: Values, at: tuple[str, ...]) -> bool:
    import numpy as np

    text = values.dtype.kind not in "biuf"
    different = len(np.unique(values))
    if text and different > MOST_CLASSES:
        what = f"target {name!r} is text with {different} different values"
        raise DataError(what, fix="write `task: classes` if each of them is a class", at=at)
    seldom = different > 2 and different * FEWEST_OF_A_CLASS > len(values)  # twelve flats with twelve prices are not twelve classes
    return text or (different <= MOST_CLASSES and not seldom and bool(np.all(values == np.floor(values))))


def _class_name(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if value.dtype.kind == "b":
        return str(bool(value))
    return str(int(value)) if value == int(value) else repr(float(value))
