"""What a column of a table means, and how its cells become the numbers of a raw row.

    number    itself
    boolean   0 or 1
    category  the place of its name among the known ones; -1 for any other
    date      one column for each part: year, month, day, weekday, and the hour where there is one

A missing value is NaN in all of them, until a step of preprocessing fills it in. What a column is, is read off the whole table, unless the
config says it; which categories are known is learned from the training rows alone (`narrowed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from nnrun.data.looks import MOST_DIFFERENT, Look, moments
from nnrun.data.source import RowSource, applied, blocks, taken
from nnrun.data.tables import Table, listed, quoted
from nnrun.errors import DataError, Fault
from nnrun.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars
    from torch import Tensor

    Numbers = npt.NDArray[np.float64]
    RowNumbers = npt.NDArray[np.intp]

Kind = Literal["number", "boolean", "category", "date", "ignore"]
BOOLEANS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"), ("0", "1"))
PARTS = ("year", "month", "day", "weekday", "hour")
FEWEST_OF_A_CATEGORY = 3  # rows, on average, when texts are to be categories
FEW_CATEGORIES = 10  # so many different texts always are
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Column:
    """One column of the rows, raw or prepared.

    Args:
        name: its name in the table.
        kind: number, boolean, category, or date; prepared, also flag (0 or 1) and code (the row of an embedding).
        levels: the names of the categories in the order of their numbers; of a boolean, what stands for 0 and for 1.
        part: which part of a date.
        other: whether a category that is not known may come.
        size: how many numbers an embedding has for each category.
    """

    name: str
    kind: str = "number"
    levels: tuple[str, ...] = ()
    part: str = ""
    other: bool = False
    size: int = 0

    def __str__(self) -> str:
        return f"{self.name}.{self.part}" if self.part else self.name

    def facts(self) -> Any:
        """Return what a checkpoint stores: the name of a plain number, else every field that is not empty."""
        return self.name if self == Column(self.name) else {key: value for key, value in vars(self).items() if value}

    @classmethod
    def of(cls, facts: Any) -> Column:
        """Return the column that `facts` told of.

        Raises:
            TypeError: the facts are not those of a column.
        """
        if isinstance(facts, str):
            return cls(facts)
        return cls(**{**facts, "levels": tuple(map(str, facts.get("levels", ())))})


def columns_of(looks: Sequence[Look], kinds: Mapping[str, str]) -> tuple[Column, ...]:
    """Return the columns of the inputs that were looked at; a date gives several.

    Args:
        kinds: what the config says of some of them.

    Raises:
        DataError: with one fault for each column that is none of the kinds, or not of the kind that it should be.
    """
    found: list[Column] = []
    faults: list[Fault] = []
    for look in looks:
        try:
            found += _column(look, kinds.get(look.name) or _kind(look))
        except DataError as error:
            faults += error.faults
    if faults:
        raise looks[0].table.told(faults)
    return tuple(found)


def raw_rows(table: Table, columns: Sequence[Column], fix: str = "") -> npt.NDArray[np.float32]:
    """Return the cells of these columns as numbers (N, D), NaN where a value is missing.

    Args:
        fix: what to do about a cell that is no number; by default to mend or remove its row, or to write numbers.

    Raises:
        DataError: with one fault for each column that holds a cell which it cannot.
    """
    import numpy as np

    x_ND = np.empty((len(table), len(columns)), np.float32)
    faults: list[Fault] = []
    dates = dict.fromkeys(column.name for column in columns if column.kind == "date")
    cells, times = [], {name: _times(table, name) for name in dates}
    for number, column in enumerate(columns):
        values, fault = _values(table, column, fix, times)
        with np.errstate(over="ignore"):
            cells.append(values.astype(np.float32))
        if fault is not None and not any(column.name == other.name for other in columns[:number]):
            faults.append(fault)
    if faults:
        raise table.told(faults)
    for start in range(0, len(table), ROWS_AT_ONCE):  # a block of rows at a time: whole columns would each touch all of the memory
        for number, column_N in enumerate(cells):
            x_ND[start : start + ROWS_AT_ONCE, number] = column_N[start : start + ROWS_AT_ONCE]
    return x_ND


def missing_values(table: Table | None, columns: Sequence[Column], x: Tensor | RowSource, fix: str) -> DataError | None:
    """Return the error of the columns in which values are missing: how many, and where the first is; None when there are none."""
    start, counts, firsts = 0, [0] * len(columns), [0] * len(columns)
    for rows in blocks(x, ROWS_AT_ONCE) if columns else ():
        empty = torch.isnan(rows)
        for number in torch.nonzero(empty.any(0)).flatten().tolist() if bool(empty.any()) else ():
            firsts[number] = firsts[number] if counts[number] else start + int(empty[:, number].nonzero()[0])
            counts[number] += int(empty[:, number].sum())
        start += len(rows)
    faults: dict[str, Fault] = {}
    for number in [number for number, count in enumerate(counts) if count]:
        name, first = columns[number].name, firsts[number]
        at = table.number(first) if table else first
        count = f"column {name!r} is missing in {counts[number]} of {len(x)} rows (the first is row {at} counted from 0)"
        where = table.place(first, name) if table else None
        faults.setdefault(name, Fault(count if where or not table else f"{table.file}: {count}", fix.format(name=name), where))
    if not faults:
        return None
    return table.told([*faults.values()]) if table else DataError([*faults.values()])


def narrowed(
    columns: Sequence[Column], x: Tensor | RowSource, train: Tensor, *, at_least: int, other: bool
) -> tuple[tuple[Column, ...], Tensor | RowSource]:
    """Return columns that know just the categories of the training rows, and the rows (N, D) with their numbers; -1 is any other.

    Args:
        train: the numbers of the training rows.
        at_least: rows that a category must have among them to be known.
        other: whether a category that is not known may come later.
    """
    numbers = [number for number, column in enumerate(columns) if column.kind == "category"]
    if not numbers:
        return tuple(columns), x
    seen = [torch.zeros(len(columns[number].levels), dtype=torch.int64) for number in numbers]
    for rows in blocks(taken(applied(lambda rows: rows[:, numbers], x), train), ROWS_AT_ONCE):
        for count, codes in zip(seen, rows.T, strict=True):
            count += torch.bincount(codes[codes >= 0].long(), minlength=len(count))
    known, places = list(columns), []
    for number, count in zip(numbers, seen, strict=True):
        kept = torch.nonzero(count >= max(1, at_least)).flatten()
        place = torch.full((len(count) + 1,), -1.0)  # the last one is that of -1
        place[kept] = torch.arange(len(kept), dtype=torch.float32)
        places.append(place)
        known[number] = replace(columns[number], levels=tuple(columns[number].levels[one] for one in kept.tolist()), other=other)

    def numbered_anew(rows: Tensor) -> Tensor:
        rows = rows.clone()
        for number, place in zip(numbers, places, strict=True):
            codes = rows[:, number]
            rows[:, number] = torch.where(codes.isnan(), codes, place[codes.nan_to_num(-1).long()])
        return rows

    return tuple(known), applied(numbered_anew, x)


def _kind(look: Look) -> str:
    """Return what a column is, by its cells."""
    import polars

    if not look.filled:
        raise look.refused("has no value in any row")
    if len(look.types) == 1 and "text" not in look.types:
        (kind,) = look.types
        if kind not in ("number", "boolean", "date"):
            raise look.refused(kind)
        return kind
    different = look.different
    numbers = different.cast(polars.Float64, strict=False).is_not_null().sum()
    if numbers * 2 > len(different):
        return "number"
    if any(set(different.str.to_lowercase()) <= set(pair) for pair in BOOLEANS):
        return "boolean"
    if moments(different).null_count() * 2 < len(different):
        return "date"
    few = len(different) <= FEW_CATEGORIES or len(different) * FEWEST_OF_A_CATEGORY <= look.filled
    if few and len(different) <= MOST_DIFFERENT:
        return "category"
    if different.str.replace_all(",", "").cast(polars.Float64, strict=False).null_count() == 0:
        fix = "write a decimal comma as a point, and leave out a comma between thousands"
        raise look.refused(f"holds numbers with a comma, such as {quoted(different[0])}", fix)
    what = f"holds {len(different)} different texts in {look.filled} rows, such as {', '.join(map(quoted, different[:2]))}: no categories"
    raise look.refused(what, "write `columns: {{{name}: ignore}}`, or `category` if it is one")


def _column(look: Look, kind: str) -> list[Column]:
    """Return a column of a known kind; one for each part of a date."""
    name, different = look.name, look.different
    if kind == "boolean":
        words = set(different.str.to_lowercase())
        pair = next((pair for pair in BOOLEANS if words <= set(pair)), None)
        if pair is None:
            raise look.refused(f"holds {', '.join(map(quoted, sorted(words)[:3]))}, not true and false", "write `category` for it")
        return [Column(name, "boolean", pair)]
    if kind == "category":
        if len(different) > MOST_DIFFERENT:
            raise look.refused(f"holds more than {MOST_DIFFERENT:,} different texts, too many for categories")
        return [Column(name, "category", tuple(different.sort().to_list()))]
    if kind == "date":
        hours = look.hours or bool((moments(different).dt.hour() > 0).any())
        return [Column(name, "date", part=part) for part in PARTS if part != "hour" or hours]
    return [Column(name)]


def _times(table: Table, name: str) -> tuple[polars.Series, RowNumbers]:
    """Return the dates of a column as moments, and the rows of what is none."""
    import polars

    texts = table.texts(name) if table.frame[name].dtype == polars.String else table.frame[name]
    times = moments(texts)
    return times, _lost(texts, times)


def _lost(texts: polars.Series, values: polars.Series) -> RowNumbers:
    """Return the rows in which there is a text, and no value was made of it."""
    import numpy as np

    if values.null_count() == texts.null_count():
        return np.empty(0, np.intp)
    return np.flatnonzero((values.is_null() & texts.is_not_null()).to_numpy())


def _values(table: Table, column: Column, fix: str, times: Mapping[str, tuple[polars.Series, RowNumbers]]) -> tuple[Numbers, Fault | None]:
    """Return the cells of a column as numbers, NaN for a missing one, and the fault of those that cannot be.

    Args:
        times: the moments of each column of dates, which its parts share.
    """
    import polars

    name = column.name
    if column.kind == "number":
        values, bad = table.numbers(name)
        return values, table.not_a_number(name, bad, fix=fix or _mend(len(bad), len(table))) if len(bad) else None
    if column.kind == "date":
        moment, wrong = times[name]
        values = getattr(moment.dt, column.part)().cast(polars.Float64).to_numpy()
        why, fix = "is not a date", "write it like 2026-01-31 or 2026-01-31 12:00"
    else:
        texts = table.texts(name) if column.kind == "category" else table.texts(name).str.to_lowercase()
        codes = texts.cast(polars.Enum(column.levels), strict=False)
        values = codes.to_physical().cast(polars.Float64).to_numpy()
        wrong = _lost(texts, codes)
        if column.other and len(wrong):
            values = values.copy()
            values[wrong], wrong = -1.0, wrong[:0]
        why = "is a category that no training row has" if column.kind == "category" else "is neither true nor false"
        fix = f"it knows {listed(column.levels)}" + ("; or train with `one_hot: {unknown: other}`" if column.kind == "category" else "")
    if not len(wrong):
        return values, None
    return values, table.fault(f"column {name!r}: {quoted(str(table.frame[name][int(wrong[0])]).strip())} {why}", fix, name, wrong)


def _mend(bad: int, rows: int) -> str:
    return "write numbers in this column" if bad > rows / 2 else "mend or remove these rows"
