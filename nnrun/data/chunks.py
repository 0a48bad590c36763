"""Tables read some rows at a time, for files that are larger than memory: CSV and JSON lines by whole lines, Parquet by rows.

Each chunk is read just as a small file is, and is a table of its own, whose rows and places are counted in the whole file.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from nnrun.data.csv_bytes import count_bytes, well_quoted
from nnrun.data.files import as_utf8, regular_file
from nnrun.data.table_files import (
    COMPRESSED,
    LINES,
    PARQUET,
    Reading,
    Texts,
    csv_records,
    csv_table,
    json_table,
    kind_of,
    readable_parquet,
    separator_of,
)
from nnrun.data.tables import MISSING, Table
from nnrun.errors import DataError, Place

BYTES = 1 << 24  # of text at a time
CELLS = 1 << 21  # of Parquet
SEPARATORS = b",;\t|:"


def table_chunks(path: str | Path, reading: Reading, texts: Texts) -> Iterator[Table]:
    """Yield the rows of a table in UTF-8 or Parquet, in their order, as tables of bounded size.

    Raises:
        DataError: as `Reading.table`, when the chunk is read in which the fault is.
    """
    if kind_of(path) in PARQUET:
        yield from _parquet_chunks(path, reading)
        return
    with opened(path) as file:
        yield from json_chunks(file, str(path), reading.missing) if kind_of(path) in LINES else _csv_chunks(file, str(path), reading, texts)


def json_chunks(file: IO[bytes], name: str, missing: tuple[str, ...] = MISSING) -> Iterator[Table]:
    """Yield the rows of JSON objects, one in each line; the first object names the columns."""
    first = 0
    names: tuple[str, ...] = ()
    for lines, block in text_blocks(file, name, fix="write one JSON object in each line"):
        with counted_from(lines):
            table = json_table(block, name, missing, names=names)
        names = table.names
        yield _counted(table, first, lines)
        first += len(table)


def _csv_chunks(file: IO[bytes], name: str, reading: Reading, texts: Texts) -> Iterator[Table]:
    header, first = b"", 0
    for lines, block in text_blocks(file, name, quotes=True, encoding=reading.encoding):
        if header:
            before = lines - header.count(b"\n")
        else:
            separator, before = reading.separator or separator_of(block, name), 0
        with counted_from(before):
            table = csv_table(header + block, name, separator, reading, texts)
        header = header or _first_record(block, name, separator)
        yield _counted(table, first, before)
        first += len(table)


def _parquet_chunks(path: str | Path, reading: Reading) -> Iterator[Table]:
    import polars

    first, file = 0, regular_file(path)
    with readable_parquet(path):
        scanned = polars.scan_parquet(file)
        size = max(1024, CELLS // max(1, len(scanned.collect_schema())))
        batches = iter(scanned.collect_batches(chunk_size=size, maintain_order=True))
    while True:
        with readable_parquet(path):
            batch = next(batches, None)
        if batch is None:
            break
        if batch.height:
            yield _counted(Table(str(path), batch, reading.missing), first, 0)
        first += batch.height
    if not first:
        raise DataError(f"{path} has no rows", fix="is this the right file?")


@contextmanager
def opened(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file of text, unpacked as it is read when its ending says that it is compressed."""
    unpack = COMPRESSED.get(Path(path).suffix.lower(), open)
    file = regular_file(path)
    try:
        with unpack(file, "rb") as stream:
            yield stream
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        what = f"{path} cannot be {'read' if unpack is open else 'unpacked'}: {getattr(error, 'strerror', None) or error}"
        raise DataError(what, fix="check its permissions" if unpack is open else "write the file again") from None


def text_blocks(
    file: IO[bytes], name: str, *, quotes: bool = False, encoding: str = "utf-8", fix: str = "is this the right file?"
) -> Iterator[tuple[int, bytes]]:
    """Yield some whole lines at a time as UTF-8, with the number of lines before them; blank ones alone are passed over.

    Args:
        quotes: whether a line feed between two quotes ends no line.
        encoding: what the text is written in.
        fix: what to do about a file that is empty.
    """
    lines, rest, empty = 0, b"", True
    while data := file.read(BYTES):
        rest += data
        if (quotes and not well_quoted(rest, SEPARATORS)) or encoding.lower().startswith(("utf-16", "utf-32")):
            rest += file.read()  # only a reader that goes from the first cell to the last can tell where a row ends
            break
        end = _last_end(rest, quotes)
        block, rest = rest[:end], rest[end:]
        if block and not block.isspace():
            empty = False
            yield lines, as_utf8(block, name, encoding, before=lines)
        lines += count_bytes(block, b"\n")
    if rest and not rest.isspace():
        yield lines, as_utf8(rest, name, encoding, before=lines)
    elif empty:
        raise DataError(f"{name} is empty", fix=fix)


@contextmanager
def counted_from(lines: int) -> Iterator[None]:
    """Count the lines of faults from the beginning of the file."""
    try:
        yield
    except DataError as error:
        raise DataError([replace(one, place=one.place and _moved(one.place, lines)) for one in error.faults]) from None


def _moved(place: Place, lines: int) -> Place:
    return replace(place, line=place.line + lines)


def _counted(table: Table, first: int, lines: int) -> Table:
    """Return a chunk whose rows and places are counted from the beginning of the file.

    Args:
        first: the number of its first row in the file.
        lines: how many more lines stand before it in the file than in the chunk.
    """
    import numpy as np

    within = table.mark
    mark = (lambda row, name: _moved(within(row - first, name), lines)) if within else None
    return replace(table, rows=np.arange(first, first + len(table)), mark=mark)


def _last_end(data: bytes, quotes: bool) -> int:
    """Return where the last whole line ends; 0 when none does."""
    import numpy as np

    if not quotes or b'"' not in data:
        return data.rfind(b"\n") + 1
    values = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(values == ord("\n"))
    outside = ends[np.searchsorted(np.flatnonzero(values == ord('"')), ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


def _first_record(block: bytes, name: str, separator: str) -> bytes:
    """Return the header of CSV, with blank lines around it."""
    records = csv_records(block, name, separator)
    next(records)
    second, _ = next(records)
    end = 0
    for _ in range(second - 1):
        end = block.index(b"\n", end) + 1
    return block[:end]
