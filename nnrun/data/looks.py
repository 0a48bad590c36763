"""What the cells of a column show of it, added up over the pieces of a table: enough to say what it is, and which categories it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnrun.data.tables import Table
from nnrun.errors import DataError

if TYPE_CHECKING:
    import polars

DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m")
MOST_DIFFERENT = 1_000_000  # texts of a column that are remembered


class Look:
    """What is known of a column; `add` takes in another piece of it.

    Args:
        table: the first piece, for the places of faults.
        kind: what the config says that it is; "" when it says nothing. Categories and truth values are taken as they are written.
    """

    def __init__(self, table: Table, name: str, kind: str = "") -> None:
        self.table, self.name, self._kind = table, name, kind
        self.types: set[str] = set()
        self.filled = 0
        self.hours = False
        self._different: polars.Series | None = None
        self.add(table)

    def add(self, table: Table) -> None:
        """Take in the cells of a piece."""
        import polars

        series = table.frame[self.name]
        if series.null_count() == len(series) or self._kind == "number":
            return
        as_text = self._kind in ("boolean", "category")
        timed = series.dtype in (polars.Date, polars.Datetime)
        if not as_text and (series.dtype.is_numeric() or timed):
            self.types.add("date" if timed else "number")
            self.filled += len(series) - series.null_count()
            self.hours |= timed and bool((moments(series).dt.hour() > 0).any())
            return
        if not as_text and series.dtype not in (polars.Boolean, polars.String, polars.Categorical, polars.Enum):
            self.types.add(f"holds {series.dtype}, which is neither number, text, truth value nor date")
            self.filled += 1
            return
        texts = table.texts(self.name).drop_nulls()
        self.types |= {"boolean" if series.dtype == polars.Boolean else "text"} if len(texts) else set()
        self.filled += len(texts)
        here = texts.unique(maintain_order=True)
        if len(self.different) > MOST_DIFFERENT:  # enough is known
            self.hours |= bool((moments(here).dt.hour() > 0).any())
        else:
            self._different = polars.concat([self.different, here]).unique(maintain_order=True) if self._different is not None else here

    @property
    def different(self) -> polars.Series:
        """The different texts, in the order in which they come; none of a column of numbers or typed dates."""
        import polars

        return self._different if self._different is not None else polars.Series([], dtype=polars.String)

    def refused(self, what: str, fix: str = "write `columns: {{{name}: ignore}}`") -> DataError:
        """Return the error of a column that cannot be an input."""
        place = self.table.place(0, self.name)
        said = f"column {self.name!r} {what}"
        return DataError(said if place else f"{self.table.file}: {said}", fix=fix.format(name=self.name), place=place, at=("dataset",))


def moments(values: polars.Series) -> polars.Series:
    """Return dates, or texts of dates, as moments; null for what is none."""
    import polars

    if values.dtype != polars.String:
        return values.cast(polars.Datetime)
    found, missing = polars.Series(values.name, [None], polars.Datetime("us")).new_from_index(0, len(values)), values.null_count()
    for form in DATES:  # nearly always the first one does
        found = found.zip_with(found.is_not_null(), values.str.to_datetime(form, strict=False, time_unit="us"))
        if found.null_count() == missing:
            break
    return found
