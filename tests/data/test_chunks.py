"""A table read some rows at a time is the table that is read whole: its rows, its places, its faults; and memory stays bounded."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pytest

from nnrun.data import chunks
from nnrun.data.chunks import table_chunks
from nnrun.data.table_files import Reading
from nnrun.errors import DataError

LINES = [f'{row},"name {row}",{row / 4},x{row % 3}' for row in range(40)]
CSV = "id,who,size,kind\n" + "\n".join(LINES) + "\n"
TABLES = {
    "plain.csv": CSV,
    "crlf.csv": CSV.replace("\n", "\r\n"),
    "mark.csv": "\ufeff" + CSV,
    "blank.csv": "\n\n" + CSV.replace("\n7,", "\n\n\n\n7,") + "\n\n" + " " * 300 + "\n",
    "no_end.csv": CSV.rstrip("\n"),
    "semicolon.csv": CSV.replace(",", ";"),
    "tab.tsv": CSV.replace(",", "\t"),
    "quoted.csv": CSV.replace("name 1", 'two\nlines, ""é""\n1'),
    "header.csv": CSV.replace("who", '"who\nis it"'),
    "inches.csv": CSV.replace("size", 'size 5" or').replace("x1", '5" pipe'),
    "few.csv": "a,b\n1,2\n",
    "one.csv": "a\n" + "1\n" * 90,
    "gz.csv.gz": CSV,
    "lines.jsonl": "".join(f'{{"id": {row}, "who": "é\\n{row}", "size": null}}\n' for row in range(40)),
    "blank.ndjson": '\n\n{"a": 1}\n' + "\n" * 200 + '{"a": 2}\n',
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A few rows are a chunk here."""
    monkeypatch.setattr(chunks, "BYTES", 128)
    monkeypatch.chdir(tmp_path)


def written(name: str, text: str) -> str:
    """Return the path of a file with this text."""
    Path(name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return name


@pytest.mark.parametrize("name", TABLES)
def test_chunks_make_the_whole_table(name: str):
    """The same cells, and for each of them the same place."""
    whole = Reading().table(written(name, TABLES[name]))
    read = list(table_chunks(name, Reading(), "*"))
    assert polars.concat([table.frame for table in read]).equals(whole.frame)
    assert (len(read) == 1) == (name in ("few.csv", "inches.csv"))  # a quote within a cell: where a row ends is not seen at a glance
    numbers = [table.number(row) for table in read for row in range(len(table))]
    assert numbers == list(range(len(whole)))
    places = [table.place(row, column) for table in read for row in range(len(table)) for column in whole.names]
    assert places == [whole.place(row, column) for row in range(len(whole)) for column in whole.names]


def test_parquet_comes_in_its_order(monkeypatch: pytest.MonkeyPatch):
    """By rows, over the borders of its groups."""
    monkeypatch.setattr(chunks, "CELLS", 0)
    frame = polars.DataFrame({"a": np.arange(5000.0), "b": [str(row) for row in range(5000)]})
    frame.write_parquet("t.parquet", row_group_size=700)
    read = list(table_chunks("t.parquet", Reading(), "*"))
    assert len(read) > 3
    assert polars.concat([table.frame for table in read]).equals(frame)
    assert [table.number(0) for table in read] == np.cumsum([0, *map(len, read[:-1])]).tolist()


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("row.csv", "40,b,3\n"),
        ("quote.csv", '40,"b,3,4\n'),
        ("wide.csv", "40,b,3,4,5\n"),
        ("broken.jsonl", '{"id": 1\n'),
        ("lacks.jsonl", '{"id": 1, "who": "x"}\n'),
        ("list.jsonl", "[1]\n"),
    ],
)
def test_a_fault_far_down_is_told_as_if_read_whole(name: str, late: str):
    """File, line, column and the line itself."""
    text = TABLES["quoted.csv" if name.endswith("csv") else "lines.jsonl"]
    file = written(name, text + late)
    with pytest.raises(DataError) as whole:
        Reading().table(file)
    with pytest.raises(DataError) as streamed:
        list(table_chunks(file, Reading(), "*"))
    assert str(streamed.value) == str(whole.value)
    assert f"{name}:" in str(whole.value)


def test_what_is_not_utf8_is_named_by_its_line():
    """Far down the file."""
    Path("t.csv").write_bytes(CSV.encode() + "41,Müller,1,x\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"t\.csv:42: this is not UTF-8; it looks like cp1252"):
        list(table_chunks("t.csv", Reading(), "*"))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.csv.gz"])
def test_an_empty_file_is_refused(name: str):
    """Blank lines are no rows."""
    with pytest.raises(DataError, match="is empty"):
        list(table_chunks(written(name, " \n" * 300), Reading(), "*"))


def test_a_file_that_is_not_compressed_is_told():
    """Its ending says that it is."""
    Path("t.csv.gz").write_text(CSV)
    with pytest.raises(DataError, match=r"t\.csv\.gz cannot be unpacked"):
        list(table_chunks("t.csv.gz", Reading(), "*"))


CHILD = """
import resource, sys
from nnrun.data import chunks
from nnrun.data.columns import Column
from nnrun.data.inputs import Wanted, in_batches, stream_inputs
from nnrun.lazy import torch
chunks.BYTES, chunks.CELLS = 1 << 20, 1 << 17
rows, peaks = 0, []
wanted = Wanted(tuple(Column(f"x{number}") for number in range(10)), (10,))
for inputs in in_batches(stream_inputs([sys.argv[1]], wanted), 1024):
    rows += len(inputs.x)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(rows, peaks[-1] - peaks[len(peaks) // 4])
"""


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_file(ending: str):
    """After a quarter of the rows the rest costs next to nothing, though it is some 100 MB."""
    rows = 750_000
    noise = np.random.default_rng(0).normal(size=(rows, 10))
    frame = polars.DataFrame({f"x{number}": noise[:, number] for number in range(10)})
    file = f"t.{ending}"
    if ending == "csv":
        frame.write_csv(file)
    else:
        frame.write_parquet(file, row_group_size=20_000, compression="uncompressed")
    size = Path(file).stat().st_size
    done = subprocess.run([sys.executable, "-c", CHILD, file], capture_output=True, text=True, check=True)
    read, grown = map(int, done.stdout.split())
    assert read == rows
    assert grown * 1024 < size / 3, (grown, size)
