"""Tables from files: CSV, JSON lines and Parquet, several files of one table, compressed or not.

polars reads them. Where it stumbles over a CSV file, or could have passed over a broken row, Python's csv module reads the file again: it
alone says where in the file it is, and finds the place of a cell when there is something to tell. Blank lines are passed over.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.data.csv_bytes import count_bytes, well_quoted
from nnrun.data.files import as_utf8, read_bytes, regular_file
from nnrun.data.tables import MISSING, Table, is_number, listed
from nnrun.errors import DataError, Place, closest
from nnrun.spec.base import Location

if TYPE_CHECKING:
    import polars

COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
EVERY = "*"
LOOKED_AT = 2_000  # rows by which polars chooses the type of a column; a later row that differs makes it text
Texts = Collection[str]
"""The columns that must come as they are written, `007` and all; EVERY for all of them."""


PARQUET, LINES = (".parquet",), (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Reading:
    """How tables are read.

    Args:
        separator: what stands between two cells of CSV; "" tries a comma, a semicolon and a tab.
        encoding: what CSV is written in.
        missing: the texts that stand for no value.
        numbers: columns of CSV that are known to hold numbers; where there are any, no types need to be guessed, which takes time.
    """

    separator: str = ""
    encoding: str = "utf-8"
    missing: tuple[str, ...] = MISSING
    numbers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Reading:
        """Return how new tables are read, by what the config says of a dataset; where it has a comma, another file may have a semicolon."""
        separator, missing = arguments["separator"], arguments["missing"]
        return cls("" if separator == "," else separator, arguments["encoding"], MISSING if missing is None else tuple(missing))

    def table(self, path: str | Path, texts: Texts = EVERY, *, at: Location = ()) -> Table:
        """Return the table of one file: Parquet, JSON lines or CSV, by its ending.

        Raises:
            DataError: it is missing, or not a table.
        """
        kind = kind_of(path)
        if kind in PARQUET:
            return _read_parquet(path, self.missing, at=at)
        data = _contents(path, at=at)
        if kind in LINES:
            return json_table(data, str(path), self.missing)
        data = as_utf8(data, path, self.encoding, at=at)
        return csv_table(data, str(path), self.separator or separator_of(data, str(path)), self, texts)


def kind_of(path: str | Path) -> str:
    """Return the ending that says what a file is, that of its compression left out."""
    path = Path(path)
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def found_files(paths: str | Sequence[str], *, at: Location = ()) -> list[str]:
    """Return the files that paths and patterns such as data/*.csv stand for, in the order given; those of a pattern sorted by name."""
    files: list[str] = []
    for path in [paths] if isinstance(paths, str) else paths:
        if any(char in path for char in "*?[") and not Path(path).exists():
            matching = sorted(name for name in glob(path, recursive=True) if Path(name).is_file())
            if not matching:
                raise DataError(f"no file is called like {path}", fix="check the pattern; * stands for any part of a name", at=at)
            files += matching
        else:
            files.append(path)
    if not files:
        raise DataError("no file is given", fix="write the path of a table", at=at)
    twice = next((name for name in files if files.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{twice} is given twice", fix="name each file once", at=at)
    return files


def joined(files: Sequence[str], reading: Reading, texts: Texts, *, at: Location = ()) -> Table:
    """Return the rows of several files, one after another, as one table.

    Raises:
        DataError: a file has other columns than the first.
    """
    import polars

    tables = [reading.table(file, texts, at=at) for file in files]
    first = tables[0]
    if len(tables) == 1:
        return first
    for table in tables[1:]:
        if set(table.names) != set(first.names):
            raise other_columns(first.file, first.names, table.file, table.names, at=at)
    mixed = {name for name in first.names if len({table.frame[name].dtype for table in tables}) > 1}
    if mixed:  # a column of numbers here, of text there: as text it is the same everywhere
        texts = EVERY if texts == EVERY else {*texts, *mixed}
        tables = [reading.table(file, texts, at=at) for file in files]
    starts = [0]
    for table in tables:
        starts.append(starts[-1] + len(table))

    def mark(row: int, name: str) -> Place:
        number = next(number for number in range(len(tables)) if row < starts[number + 1])
        found = tables[number].place(row - starts[number], name)
        return found or Place(tables[number].file, row - starts[number] + 1, 1)

    try:
        frame = polars.concat([table.frame.select(first.names) for table in tables], how="vertical_relaxed")
    except polars.exceptions.PolarsError as error:
        raise DataError(f"the files do not fit together: {str(error).splitlines()[0]}", fix="give files of the same table") from None
    places = dict(zip(files, starts, strict=False))
    return Table(f"{first.file} and {len(files) - 1} more", frame, first.missing, mark if first.mark else None, starts=places)


def other_columns(first: str, names: Sequence[str], file: str, others: Sequence[str], *, at: Location = ()) -> DataError:
    """Return the error of a file that has other columns than the first one."""
    lists = (("it lacks", sorted({*names} - {*others})), ("only it has", sorted({*others} - {*names})))
    what = f"{file} has other columns than {first}: " + "; ".join(f"{said} {listed(found)}" for said, found in lists if found)
    return DataError(what, fix="give files of the same table", at=at)


def separator_of(data: bytes, file: str) -> str:
    """Return the separator that gives the first line of CSV more than one cell."""
    tried = "\t,;" if kind_of(file) == ".tsv" else ",;\t"
    return next((one for one in tried if len(next(csv_records(data, file, one))[1]) > 1), ",")


def csv_table(data: bytes, file: str, separator: str, reading: Reading, texts: Texts) -> Table:
    """Return the table of CSV in UTF-8 whose first line names the columns."""
    if len(separator) != 1 or separator in '"\r\n':
        raise DataError(
            f"the separator {separator!r} is not one character that can separate cells",
            fix='write `separator: ";"`',
            at=("dataset", "separator"),
        )
    line, header = next(csv_records(data, file, separator))
    names = tuple(name.strip() for name in header)
    mark = _csv_mark(data, file, separator)
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

    def place(row: int, name: str) -> Place:
        found, _ = next(islice(csv_records(data, file, separator, len(names)), 1 + row, None))
        return mark(found, names.index(name))

    whole = data if data[-2:].strip(b"\r\n") else data.rstrip(b"\r\n")  # one line feed does no harm, and a copy takes time
    frame = _by_polars(whole, separator, names, reading, texts)
    if frame is None:
        frame = _by_python(data, file, separator, names)
    if not frame.height:
        raise DataError(f"{file} has a header but no rows", fix="add rows of data below it")
    return Table(file, frame, reading.missing, place)


def _by_polars(data: bytes, separator: str, names: Sequence[str], reading: Reading, texts: Texts) -> polars.DataFrame | None:
    """Return the frame as polars reads it; None when it cannot, or when it could have read a broken row in silence."""
    import polars

    mark = separator.encode()
    if len(mark) > 1 or count_bytes(data, b"\n\n") or (b"\r" in data and b"\n\r" in data) or not well_quoted(data, mark):
        return None
    for typed in (True, False) if texts != EVERY else (False,):
        try:
            header = polars.read_csv(io.BytesIO(data), separator=separator, n_rows=0, infer_schema=False).columns
            known = {name: polars.Float64 for name in header if name.strip() in reading.numbers}
            frame = polars.read_csv(
                io.BytesIO(data),
                separator=separator,
                infer_schema=typed and not known,
                infer_schema_length=LOOKED_AT,
                schema_overrides=(known or {name: polars.String for name in header if name.strip() in texts}) if typed else None,
                null_values=list(reading.missing) if typed else None,
                raise_if_empty=False,
            )
        except (polars.exceptions.PolarsError, OSError, ValueError):
            continue
        break
    else:
        return None
    if frame.width != len(names):
        return None
    frame.columns = list(names)
    return frame if _all_rows_whole(frame, data, mark) else None


def _all_rows_whole(frame: polars.DataFrame, data: bytes, mark: bytes) -> bool:
    """Whether every row had a cell for each column: polars refuses one with more, and fills one with fewer up with nulls."""
    if frame.width > 1 and b'"' not in data:
        return count_bytes(data, mark) == (frame.height + 1) * (frame.width - 1)
    return frame[frame.columns[-1]].null_count() == 0


def _by_python(data: bytes, file: str, separator: str, names: Sequence[str]) -> polars.DataFrame:
    import polars

    records = islice(csv_records(data, file, separator, len(names)), 1, None)
    columns = list(zip(*(cells for _, cells in records), strict=True)) or [()] * len(names)
    return polars.DataFrame({name: polars.Series(cells, dtype=polars.String) for name, cells in zip(names, columns, strict=True)})


def _contents(path: str | Path, *, at: Location = ()) -> bytes:
    """Return the bytes of a file, unpacked when its ending says that it is compressed."""
    opened = COMPRESSED.get(Path(path).suffix.lower())
    if opened is None:
        return read_bytes(path, at=at)
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 if hasattr(os, "sysconf") else 1 << 32
    try:
        with opened(regular_file(path, at=at)) as file:
            data: bytes = file.read(most + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}", fix="write the file again", at=at) from None
    if len(data) > most:
        raise DataError(f"{path} unpacks to more than {most} bytes, a quarter of the memory", fix="give it in several files", at=at)
    if not data.strip():
        raise DataError(f"{path} is empty", fix="is this the right file?", at=at)
    return data


def csv_records(data: bytes, file: str, separator: str, width: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of every record that is not blank, the header among them; each must have `width` cells, if given."""
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    line = 1
    try:
        for cells in reader:
            if len(cells) == width and width > 1:  # nearly all
                yield line, cells
            elif len(cells) > 1 or (cells and cells[0].strip()):
                if width not in (0, len(cells)):
                    what = (
                        f"this row has {len(cells)} cell{'s' * (len(cells) != 1)}, and the header names {width} column{'s' * (width != 1)}"
                    )
                    fix = "mend the row; a cell that holds the separator wants quotes"
                    fix = fix if width > 1 else "the names of the columns stand in the first line: remove what is above them"
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
    """Yield the line and the value of each line of JSON; numbers come as the text they were written in.

    Raises:
        DataError: a line is not JSON, or names a key twice.
    """
    for line, source in enumerate(io.TextIOWrapper(io.BytesIO(as_utf8(data, file)), "utf-8-sig"), 1):
        if not source.strip():
            continue
        place = Place(file, line, 1, source.rstrip("\r\n")[:200])

        def pairs(items: list[tuple[str, Any]], line: int = line, source: str = source, place: Place = place) -> dict[str, Any]:
            keys = [key for key, _ in items]
            twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
            if twice is not None:
                there = Place(file, line, max(0, source.rfind(f'"{twice}"')) + 1, place.source, len(twice) + 2)
                raise DataError(f"the key {twice!r} is given twice in this line", fix="keep one of them", place=there)
            return dict(items)

        try:
            yield line, json.loads(source, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=pairs)
        except (ValueError, RecursionError) as error:
            place = Place(file, line, min(getattr(error, "pos", 0), len(place.source)) + 1, place.source)
            why = f": {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"this line is not JSON{why}", fix="write one JSON value in each line", place=place) from None


def json_table(data: bytes, file: str, missing: tuple[str, ...] = MISSING, names: tuple[str, ...] = ()) -> Table:
    """Return the table of JSON objects, one in each line. A null is a missing value.

    Args:
        names: its columns; by default those that the first object names.
    """
    import polars

    lines: list[int] = []
    rows: list[list[str | None]] = []

    def mark(row: int, name: str) -> Place:
        return Place(file, lines[row], 1, _line(data, lines[row])[:200])

    for line, value in json_values(data, file):
        lines.append(line)
        if not isinstance(value, dict):
            raise DataError("this line is not an object of columns", fix='write {"column": value, …}', place=mark(-1, ""))
        names = names or tuple(value)
        if not names:
            raise DataError("this line names no column", fix='write {"column": value, …}', place=mark(-1, ""))
        lacking = [name for name in names if name not in value]
        if lacking:
            near = closest(lacking[0], [key for key in value if key not in names])
            fix = (
                f"did you mean {near!r} to be {lacking[0]!r}?" if near else "give every line the same columns; null where there is no value"
            )
            raise DataError(f"this line has no {lacking[0]!r}", fix=fix, place=mark(-1, ""))
        if len(value) > len(names):
            what = f"this line has {next(name for name in value if name not in names)!r}, and the first one has not"
            raise DataError(what, fix="give every line the same columns; null where there is no value", place=mark(-1, ""))
        rows.append([_cell(value[name]) for name in names])
    if not rows:
        raise DataError(f"{file} is empty", fix="write one JSON object in each line")
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return Table(file, polars.DataFrame({name: polars.Series(cells, dtype=polars.String) for name, cells in columns}), missing, mark)


def _cell(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _read_parquet(path: str | Path, missing: tuple[str, ...], *, at: Location) -> Table:
    """Return the table of a Parquet file."""
    import polars

    with readable_parquet(path, at=at):
        frame = polars.read_parquet(regular_file(path, at=at))
    if not frame.height:
        raise DataError(f"{path} has no rows", fix="is this the right file?", at=at)
    return Table(str(path), frame, missing)


@contextmanager
def readable_parquet(path: str | Path, *, at: Location = ()) -> Iterator[None]:
    """Say of what polars cannot read that the file is broken."""
    import polars

    try:
        yield
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is not a readable Parquet file: {reason}", fix="write the file again", at=at) from None
