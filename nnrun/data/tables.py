"""A table in memory: named columns as the file has them, which cells are missing or no numbers, and where in the file each cell stands.

Columns keep what the file gives: text, or numbers, truth values and dates where the file has types. Nothing is guessed here; what a column
means is the matter of `columns`, and where tables come from that of `table_files`. Spaces around a text are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nnrun.errors import DataError, Fault, Place, closest
from nnrun.spec.base import Location

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
"""What stands in a cell that has no value, unless the config says otherwise; a null of a typed file always is one."""

LARGEST = 3.4028234663852886e38  # of float32
MOST_FAULTS = 20


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        file: its path, as errors show it.
        frame: its columns; those of text hold the cells as they stood in the file.
        missing: the texts that stand for no value.
        mark: (row counted from 0, column) → the place of that cell; None for a file without lines.
        rows: the number in the file of each row that was kept; None when all were.
        starts: file → the number of its first row, where the table is made of several files.
    """

    file: str
    frame: polars.DataFrame
    missing: tuple[str, ...] = MISSING
    mark: Callable[[int, str], Place] | None = None
    rows: npt.NDArray[np.intp] | None = None
    starts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(self.frame.columns)

    def texts(self, name: str) -> polars.Series:
        """Return a column as text without the spaces around it, null where a value is missing."""
        import polars

        series = self.frame[name].cast(polars.String).str.strip_chars()
        return series.set(series.is_in(list(self.missing)), None) if self.missing else series

    def numbers(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Return a column as numbers, NaN where a value is missing, and the rows of those that are not finite numbers in float32."""
        import numpy as np
        import polars

        series = self.frame[name]
        if series.dtype.is_numeric() or series.dtype == polars.Boolean:
            values = series.cast(polars.Float64).to_numpy()
            return values, np.flatnonzero(np.abs(values) > LARGEST)
        text = self.texts(name)
        values = text.cast(polars.Float64, strict=False).to_numpy()
        return values, np.flatnonzero(~(np.abs(values) <= LARGEST) & text.is_not_null().to_numpy())

    def place(self, row: int, name: str) -> Place | None:
        """Return where the cell of a row, counted from 0, stands in the file."""
        return self.mark(self.number(row), name) if self.mark else None

    def number(self, row: int) -> int:
        """Return the number in the file, counted from 0, of a row of this table."""
        return row if self.rows is None else int(self.rows[row])

    def files(self) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return which file each row came from, and the files."""
        import numpy as np

        numbers = np.arange(len(self)) if self.rows is None else self.rows
        names, first = list(self.starts) or [self.file], list(self.starts.values()) or [0]
        return np.searchsorted(first, numbers, side="right") - 1, names

    def without(self, dropped: npt.NDArray[np.bool_]) -> Table:
        """Return the table without the rows that are marked."""
        import numpy as np

        kept = np.flatnonzero(~dropped)
        return replace(self, frame=self.frame[kept], rows=kept if self.rows is None else self.rows[kept])

    def require(self, wanted: Iterable[str], *, at: Location = ()) -> None:
        """Refuse a table that lacks one of the wanted columns, naming the nearest that it has."""
        missing = [name for name in wanted if name not in self.names]
        if missing:
            near = closest(missing[0], self.names)
            hint = f"did you mean {near!r}? " if near else "is the line of names missing? " if any(map(is_number, self.names)) else ""
            lacks = f"column {missing[0]!r}" if len(missing) == 1 else f"columns {', '.join(map(repr, missing[:8]))}"
            raise DataError(f"{self.file} has no {lacks}", fix=f"{hint}(its columns are {listed(self.names)})", at=at)

    def fault(self, what: str, fix: str, name: str, rows: Sequence[int] | npt.NDArray[np.intp]) -> Fault:
        """Return the fault of some rows of a column: how many, which is the first, and its place."""
        cells = "the only such cell" if len(rows) == 1 else f"the first of {len(rows)} such cells"
        said = f"{what} ({cells}, row {self.number(int(rows[0]))} counted from 0)"
        return Fault(said if self.mark else f"{self.file}: {said}", fix, self.place(int(rows[0]), name))

    def told(self, faults: Sequence[Fault]) -> DataError:
        """Return the faults of many columns as one error, the first ones only."""
        more = len(faults) - MOST_FAULTS
        rest = [Fault(f"{self.file}: {more} more columns hold such cells")] if more > 0 else []
        return DataError([*sorted(faults[:MOST_FAULTS], key=_line), *rest])

    def not_a_number(self, name: str, rows: npt.NDArray[np.intp], *, fix: str = "mend or remove these rows", call: str = "column") -> Fault:
        """Return the fault of the cells of a column that are not finite numbers."""
        return self.fault(f"{call} {name!r}: {_why(str(self.frame[name][int(rows[0])]))}", fix, name, rows)


def is_number(text: str) -> bool:
    """Whether a text reads as a finite number."""
    try:
        return abs(float(text)) < float("inf") and "_" not in text
    except ValueError:
        return False


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return the first names in a row."""
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def quoted(cell: str, longest: int = 40) -> str:
    """Return a cell in quotes, cut when it is long."""
    return repr(cell if len(cell) <= longest else cell[: longest - 1] + "…")


def _why(cell: str) -> str:
    """Say why a cell is not a finite float32."""
    text = cell.strip()
    if is_number(text):
        return f"{quoted(text)} is too large for float32"
    try:
        float(text.replace("_", "-"))
    except ValueError:
        return f"{quoted(text)} is not a number"
    return f"{quoted(text)} is not a finite number"


def _line(fault: Fault) -> tuple[int, int]:
    return (fault.place.line, fault.place.column) if fault.place else (0, 0)
