"""Tables with named columns: their numbers and texts read exactly, and every bad cell told with its place.

A table is a list of names and a stream of records; a record is a list of cells, each the text that stood in the file. Nothing is guessed
from the first rows: the caller says which columns are numbers. A place is looked up only when there is something to tell. Spaces around a
cell are ignored. Where tables come from is the matter of `table_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nnrun.errors import DataError, Fault, Place, closest
from nnrun.spec.base import Location

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Record = tuple[int, list[str]]
"""The line where a record begins (0: it has none), and its cells, one for each name."""

CHUNK = 20_000  # rows held as Python text at a time
MOST_FAULTS = 20


@dataclass(frozen=True)
class Table:
    """A table that is read when it is asked for.

    Args:
        file: its path, as errors show it.
        names: its columns, in order.
        records: begins reading its records anew.
        mark: (line, number of a column) → the place of that cell; None for a file without lines.
    """

    file: str
    names: tuple[str, ...]
    records: Callable[[], Iterator[Record]]
    mark: Callable[[int, int], Place] | None = None

    def place(self, row: int, name: str) -> Place | None:
        """Return where the cell of a row, counted from 0, stands in the file."""
        line, _ = next(islice(self.records(), row, None))
        return self.mark(line, self.names.index(name)) if self.mark else None

    def require(self, wanted: Iterable[str], *, at: Location = ()) -> None:
        """Refuse a table that lacks one of the wanted columns, naming the nearest that it has."""
        missing = [name for name in wanted if name not in self.names]
        if missing:
            near = closest(missing[0], self.names)
            hint = f"did you mean {near!r}? " if near else ""
            lacks = f"column {missing[0]!r}" if len(missing) == 1 else f"columns {', '.join(map(repr, missing[:8]))}"
            raise DataError(f"{self.file} has no {lacks}", fix=f"{hint}(its columns are {_listed(self.names)})", at=at)


def read_columns(table: Table, numbers: Sequence[str], texts: Sequence[str] = ()) -> tuple[npt.NDArray[np.float32], dict[str, list[str]]]:
    """Return the columns of numbers as an array (N, D), and each column of text as a list of N stripped cells.

    Raises:
        DataError: with one fault for each column that holds a cell which is not a finite number.
    """
    import numpy as np

    index = {name: number for number, name in enumerate(table.names)}
    bad: dict[str, BadCells] = {}
    blocks: list[npt.NDArray[np.float32]] = []
    kept: dict[str, list[str]] = {name: [] for name in texts}
    records, rows = table.records(), 0
    while chunk := [cells for _, cells in islice(records, CHUNK)]:
        columns = list(zip(*chunk, strict=True))
        block = np.empty((len(chunk), len(numbers)), np.float32)
        for number, name in enumerate(numbers):
            with np.errstate(over="ignore"):
                block[:, number], wrong = floats(columns[index[name]])
            if len(wrong):
                first = bad.setdefault(name, BadCells(rows + int(wrong[0]), columns[index[name]][int(wrong[0])]))
                first.count += len(wrong)
        for name in texts:
            kept[name].extend(cell.strip() for cell in columns[index[name]])
        blocks.append(block)
        rows += len(chunk)
    if not rows:
        raise DataError(f"{table.file} has a header but no rows", fix="add rows of data below it")
    if bad:
        raise DataError(_told(table, bad, rows))
    return np.concatenate(blocks), kept


@dataclass
class BadCells:
    """The cells of one column that are not finite numbers: the first, and how many."""

    row: int
    text: str
    count: int = 0

    def told(self, name: str, place: Place | None, rows: int) -> Fault:
        """Return the fault for a column of `rows` cells."""
        cells = "the only such cell" if self.count == 1 else f"the first of {self.count} such cells"
        what = f"column {name!r}: {_why(self.text)} ({cells}, row {self.row} counted from 0)"
        mostly = self.count > rows / 2
        return Fault(what, "remove the column, or code it as numbers" if mostly else "mend or remove these rows", place)


def floats(cells: Sequence[str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return the cells as numbers, NaN where one is none, and which of them are not finite as float32."""
    import numpy as np

    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.array([_float(cell) for cell in cells], np.float64)
    if "_" in "".join(cells):  # Python reads 2021_05 as 202105
        values[["_" in cell for cell in cells]] = np.nan
    with np.errstate(over="ignore"):
        wrong = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
    return values, wrong


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def is_number(text: str) -> bool:
    """Whether a text reads as a finite number."""
    return abs(_float(text)) < float("inf")


def _why(cell: str) -> str:
    """Say why a cell is not a finite float32."""
    text = cell.strip()
    if not text:
        return "an empty cell is not a number"
    shown = repr(text if len(text) <= 40 else text[:39] + "…")
    try:
        value = float(text)
    except ValueError:
        return f"{shown} is not a number"
    finite = value == value and abs(value) != float("inf") and "_" not in text
    return f"{shown} is too large for float32" if finite else f"{shown} is not a finite number"


def _told(table: Table, bad: dict[str, BadCells], rows: int) -> list[Fault]:
    told = [
        cells.told(name, table.place(cells.row, name), rows)
        for name, cells in sorted(bad.items(), key=lambda item: item[1].row)[:MOST_FAULTS]
    ]
    if table.mark is None:
        told = [Fault(f"{table.file}: {fault.what}", fault.fix) for fault in told]
    return told + ([Fault(f"{table.file}: {len(bad) - len(told)} more columns hold such cells")] if len(bad) > len(told) else [])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
