"""Tables from files: CSV, JSON lines and Parquet.

The csv module of Python reads the records, because it alone says where in the file it is. Blank lines are passed over.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from nnrun.data.files import check_utf8, read_bytes, regular_file
from nnrun.data.tables import Record, Table, is_number
from nnrun.errors import DataError, Place
from nnrun.spec.base import Location


def read_csv(path: str | Path, separator: str = ",", *, at: Location = ()) -> Table:
    """Return the table of a CSV file in UTF-8, whose first line names the columns."""
    if len(separator) != 1 or separator in '"\r\n':
        raise DataError(f"the separator {separator!r} is not one character", fix='write `separator: ";"`', at=("dataset", "separator"))
    data = read_bytes(path, at=at)
    check_utf8(data, path)
    line, header = next(_csv_records(data, str(path), separator))
    names = tuple(name.strip() for name in header)
    mark = _csv_mark(data, str(path), separator)
    if all(is_number(name) for name in names):
        raise DataError(
            "the first line holds numbers, not the names of the columns", fix="put a line of names above it", place=mark(line, 0)
        )
    seen: set[str] = set()
    for number, name in enumerate(names):
        if not name or name in seen:
            what = f"the column name {name!r} is given twice" if name else f"column {number + 1} has no name"
            raise DataError(what, fix="rename one of them" if name else "name it in this line", place=mark(line, number))
        seen.add(name)

    def records() -> Iterator[Record]:
        return islice(_csv_records(data, str(path), separator, len(names)), 1, None)

    return Table(str(path), names, records, mark)


def _csv_records(data: bytes, file: str, separator: str, width: int = 0) -> Iterator[Record]:
    """Yield every record that is not blank, the header among them; each must have `width` cells, where one is given."""
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    line = 1
    try:
        for cells in reader:
            if len(cells) == width and width > 1:  # nearly all
                yield line, cells
            elif len(cells) > 1 or (cells and cells[0].strip()):
                if width not in (0, len(cells)):
                    what = f"this row has {len(cells)} cells, and the header names {width} columns"
                    fix = "mend the row; a cell that holds the separator wants quotes"
                    raise DataError(what, fix=fix, place=Place(file, line, 1, _line(data, line)))
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        fix = "a quoted cell ends in a quote, and a quote inside it is written twice"
        raise DataError(f"this row cannot be read: {error}", fix=fix, place=Place(file, line, 1, _line(data, line))) from None


def _csv_mark(data: bytes, file: str, separator: str) -> Callable[[int, int], Place]:
    def mark(line: int, number: int) -> Place:
        source = _line(data, line)
        cells, quoted, start, at = 0, False, 0, 0
        for at, char in enumerate(source + separator):
            quoted ^= char == '"'
            if char == separator and not quoted:
                if cells == number:
                    break
                cells, start = cells + 1, at + 1
        return Place(file, line, start + 1, source, max(1, at - start))

    return mark


def _line(data: bytes, number: int) -> str:
    """Return one line of a text, counted from 1."""
    return next(islice(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), number - 1, None), "").rstrip("\r\n")


def json_values(data: bytes, file: str) -> Iterator[tuple[int, Any]]:
    """Yield the line and the value of each line of JSON; numbers come as the text they were written in."""
    check_utf8(data, file)
    for line, source in enumerate(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig"), 1):
        if not source.strip():
            continue
        try:
            yield line, json.loads(source, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            column = getattr(error, "colno", 1)
            place = Place(file, line, column, source.rstrip("\r\n")[:200])
            raise DataError("this line is not JSON", fix="write one JSON value in each line", place=place) from None


def json_table(data: bytes, file: str) -> Table:
    """Return the table of JSON objects, one in each line; the first object names the columns."""

    def mark(line: int, number: int) -> Place:
        return Place(file, line, 1, _line(data, line)[:200])

    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        for line, value in json_values(data, file):
            if not isinstance(value, dict):
                raise DataError("this line is not an object of columns", fix='write {"column": value, …}', place=mark(line, 0))
            yield line, value

    first = next(objects(), None)
    if first is None:
        raise DataError(f"{file} is empty", fix="write one JSON object in each line")
    names = tuple(first[1])

    def records() -> Iterator[Record]:
        for line, value in objects():
            missing = [name for name in names if name not in value]
            if missing:
                raise DataError(f"this line has no {missing[0]!r}", fix="give every line the same columns", place=mark(line, 0))
            yield line, [_cell(value[name]) for name in names]

    return Table(file, names, records, mark)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def read_parquet(path: str | Path) -> Table:
    """Return the table of a Parquet file."""
    import polars

    try:
        frame = polars.read_parquet(regular_file(path))
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is not a readable Parquet file: {reason}", fix="write the file again") from None

    def records() -> Iterator[Record]:
        for row in frame.iter_rows():
            yield 0, ["" if value is None else str(value) for value in row]

    if not frame.height:
        raise DataError(f"{path} has no rows", fix="is this the right file?")
    return Table(str(path), tuple(frame.columns), records)
