"""The csv dataset: what is taken, and the exact sentence and place for what is not."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import polars
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nnrun.data.datasets  # registers csv
from nnrun.data.dataset import Dataset
from nnrun.data.table_files import Reading
from nnrun.data.tables import MISSING, is_number
from nnrun.errors import DataError
from nnrun.registry import DATASETS

assert nnrun.data.datasets


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a table."""
    return tmp_path / "t.csv"


def read(file: Path, content: str | bytes, **arguments: object) -> Dataset:
    """Return the dataset of a table; its target is `y`."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    made: Dataset = DATASETS["csv"].build(path=str(file), **{"target": "y", **arguments})
    return made


def refusal(file: Path, content: str | bytes, **arguments: object) -> str:
    """Return the whole error for a table, its path written as FILE."""
    with pytest.raises(DataError) as caught:
        read(file, content, **arguments)
    return str(caught.value).replace(str(file), "FILE")


def test_text_becomes_classes(file: Path) -> None:
    """Text targets are classes, sorted by name; spaces, blank lines, quotes, a BOM and CRLF do not matter."""
    data = read(file, b'\xef\xbb\xbfa, "b b",y\r\n1,2.5, no\r\n\r\n-3e1,"4",yes\r\n1,1,"no"\r\n\r\n')
    assert data.x.tolist() == [[1, 2.5], [-30, 4], [1, 1]]
    assert (data.y.tolist(), data.y.dtype) == ([0, 1, 0], torch.int64)
    assert (data.task.targets, data.task.classes, tuple(map(str, data.columns))) == (("y",), ("no", "yes"), ("a", "b b"))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["10", "9", "10"], ("9", "10")),
        (["1.0", "0", "1"], ("0", "1")),
        (["True", "False", "True"], ("False", "True")),
        (["1", "x", "1"], ("1", "x")),
        (["1.5", "2", "2"], ()),
        ([str(number) for number in range(50)] * 3, tuple(str(number) for number in range(50))),
        ([str(number) for number in range(51)] * 3, ()),
        ([str(number) for number in range(12)], ()),  # twelve prices of twelve flats
    ],
)
def test_what_is_a_class(file: Path, values: list[str], classes: tuple[str, ...]) -> None:
    """Text, booleans and at most 50 different whole numbers are classes; numbers are sorted by size."""
    data = read(file, "a,y\n" + "".join(f"1,{value}\n" for value in values))
    assert data.task.classes == classes


def test_task_says_otherwise(file: Path) -> None:
    """`task` makes numbers of whole numbers, and classes of fractions."""
    assert read(file, "a,y\n1,0\n2,1\n", task="numbers").y.tolist() == [[0], [1]]
    assert read(file, "a,y\n1,0.5\n2,1.5\n", task="classes").task.classes == ("0.5", "1.5")


def test_several_targets(file: Path) -> None:
    """A list of targets gives (N, T), in the order of the list; separators other than a comma work."""
    data = read(file, "u;a;v\n1;2;3\n4;5;6\n", target=["v", "u"], separator=";")
    assert (data.y.tolist(), data.task.targets, tuple(map(str, data.columns))) == ([[3, 1], [6, 4]], ("v", "u"), ("a",))


def test_bad_cells_are_told_at_once_with_their_places(file: Path) -> None:
    """Every column with a cell that is not a finite float32 is told: the cell, how many, the row, the line and the column."""
    assert refusal(file, 'a,"b,b",c,d,y\n1,2,3,4,x\n2,4x,3,1e39,x\n3,3,n/a,5,x\n4,5x,n/a,6,z\ninf,1,1,7,z\n5,6,2,8,z\n') == (
        "error: FILE:3:3: column 'b,b': '4x' is not a number (the first of 2 such cells, row 1 counted from 0)\n"
        "    3 | 2,4x,3,1e39,x\n      |   ^^\nfix: mend or remove these rows\n"
        "error: FILE:3:8: column 'd': '1e+39' is too large for float32 (the only such cell, row 1 counted from 0)\n"
        "    3 | 2,4x,3,1e39,x\n      |        ^^^^\nfix: mend or remove these rows\n"
        "error: FILE:4:5: column 'c': 'n/a' is not a number (the first of 2 such cells, row 2 counted from 0)\n"
        "    4 | 3,3,n/a,5,x\n      |     ^^^\nfix: mend or remove these rows\n"
        "error: FILE:6:1: column 'a': 'inf' is not a finite number (the only such cell, row 4 counted from 0)\n"
        "    6 | inf,1,1,7,z\n      | ^^^\nfix: mend or remove these rows"
    )


def test_a_text_column_is_refused_by_name(file: Path) -> None:
    """A column of texts that do not come again is told with the first ones, and what to write."""
    assert refusal(file, "a,y\n" + "".join(f"text {row},{row % 2}\n" for row in range(12))) == (
        "error: FILE:2:1: column 'a' holds 12 different texts in 12 rows, such as 'text 0', 'text 1': no categories\n"
        "    2 | text 0,0\n      | ^^^^^^\nfix: write `columns: {a: ignore}`, or `category` if it is one"
    )


def test_dates_with_underscores_are_not_numbers(file: Path) -> None:
    """Python reads 2021_05 as 202105; a table does not mean that."""
    assert "'2021_05' is not a" in refusal(file, "a,y\n2021_05,1\n1,0\n2,1\n")


def test_places_count_lines_not_rows(file: Path) -> None:
    """Quoted line breaks and blank lines move the rows, and the place is still that of the file."""
    assert refusal(file, 'a,b,y\n"1",2,"x\ny"\n\n1,3,z\n1,!,z\n').startswith("error: FILE:6:3: column 'b': '!' is not a number")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "error: FILE is empty\nfix: is this the right file?"),
        ("\n \n", "error: FILE is empty\nfix: is this the right file?"),
        ("a,y\n", "error: FILE has a header but no rows\nfix: add rows of data below it"),
        ("y\n1\n2\n", "error: FILE has no column besides the target\nfix: a network needs at least one input column"),
        ("a,Y\n1,2\n", "error: FILE has no column 'y'\nfix: did you mean 'Y'? (its columns are a, Y)"),
        ("a;y\n1;2\n", "error: FILE has one column, 'a;y'\nfix: write `separator: \";\"`"),
        (
            "a,a,y\n1,2,3\n",
            "error: FILE:1:3: the column name 'a' is given twice\n    1 | a,a,y\n      |   ^\nfix: rename one of them",
        ),
        ("a,,y\n1,2,3\n", "error: FILE:1:3: column 2 has no name\n    1 | a,,y\n      |   ^\nfix: name it in this line"),
        (
            "1,2\n3,4\n",
            "error: FILE:1:1: the first line holds numbers, not the names of the columns\n    1 | 1,2\n      | ^\n"
            "fix: put a line of names above it",
        ),
        (
            "a,y\n1,0\n1\n",
            "error: FILE:3:1: this row has 1 cell, and the header names 2 columns\n    3 | 1\n      | ^\n"
            "fix: mend the row; a cell that holds the separator wants quotes",
        ),
        (
            "a,y\n1,0\n1,2,3\n",
            "error: FILE:3:1: this row has 3 cells, and the header names 2 columns\n    3 | 1,2,3\n      | ^\n"
            "fix: mend the row; a cell that holds the separator wants quotes",
        ),
        (
            'a,y\n1,0\n"1,2\n',
            'error: FILE:3:1: this row cannot be read: unexpected end of data\n    3 | "1,2\n      | ^\n'
            "fix: a quoted cell ends in a quote, and a quote inside it is written twice",
        ),
        (
            "a,y\n1,b\n2,b\n",
            "error: target 'y' has one single class, 'b'\nfix: a network needs at least two classes to tell apart",
        ),
        (
            "a,y\n1,b\n2,\n3,NaN\n",
            "error: FILE:3:3: target 'y' is missing in 2 rows (the first is row 1 counted from 0)\n    3 | 2,\n      |   ^\n"
            "fix: fill in the target, remove these rows, or write `missing_target: drop`",
        ),
        (
            "a,y\n1,東\n".encode("cp932"),
            "error: FILE:2: this is not UTF-8; it looks like cp932 (Shift-JIS)\nfix: save the file as UTF-8, or write `encoding: cp932`",
        ),
        (
            "a,y\n1,2\n".encode("utf-16"),
            "error: FILE:1: this is not UTF-8; it looks like UTF-16\nfix: save the file as UTF-8, or write `encoding: utf-16`",
        ),
        (
            "a,y\n1,2\n".encode("utf-16-le"),
            "error: FILE:1: this is not UTF-8; it looks like UTF-16-LE\nfix: save the file as UTF-8, or write `encoding: utf-16-le`",
        ),
    ],
)
def test_unusable_tables(file: Path, content: str | bytes, told: str) -> None:
    """Each kind of unusable table has one clear sentence, with the place and the mend."""
    assert refusal(file, content) == told


def test_targets_that_do_not_fit_the_task(file: Path) -> None:
    """Text where numbers are wanted, many texts, and one bad cell among many numbers."""
    assert refusal(file, "a,y\n1,b\n2,c\n", task="numbers") == (
        "error: FILE:2:3: target column 'y': 'b' is not a number (the first of 2 such cells, row 0 counted from 0)\n"
        "    2 | 1,b\n      |   ^\nfix: write `task: classes`, with one target column, if these are classes"
    )
    names = "".join(f"1,n{number}\n" for number in range(51))
    assert refusal(file, "a,y\n" + names) == (
        "error: target 'y' is text with 51 different values\nfix: write `task: classes` if each of them is a class"
    )
    assert len(read(file, "a,y\n" + names, task="classes").task.classes) == 51
    numbers = "".join(f"1,{number}.5\n" for number in range(60))
    assert refusal(file, f"a,y\n{numbers}1,n/a\n") == (
        "error: FILE:62:3: target column 'y': 'n/a' is not a number (the only such cell, row 60 counted from 0)\n"
        "   62 | 1,n/a\n      |   ^^^\nfix: mend or remove these rows"
    )
    assert refusal(file, "a,y,z\n1,0,0\n2,1,1\n", target=["y", "z"], task="classes") == (
        "error: classes want one target column, not 2\nfix: name one column, or write `task: numbers`"
    )


def test_faults_about_the_config_carry_their_path(file: Path) -> None:
    """A wrong target points at `dataset.target`, a missing file at `dataset.path`."""
    with pytest.raises(DataError) as caught:
        read(file, "a,b\n1,2\n")
    assert caught.value.faults[0].at == ("dataset", "target")
    file.unlink()
    with pytest.raises(DataError) as caught:
        DATASETS["csv"].build(path=str(file), target="y")
    assert caught.value.faults[0].at == ("dataset", "path")


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.text(st.characters(codec="utf-8"), min_size=1))))
def test_any_table_is_read_exactly_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str]]) -> None:
    """What a CSV writer writes is read back exactly: numbers to the bit, texts but for the spaces around them."""
    texts = (
        polars.Series([name for _, name in rows], dtype=polars.String).str.strip_chars().to_list()
    )  # Unicode's white space, not Python's
    names = {name.lower() for name in texts}
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "y"], *rows])
    file = tmp_path_factory.mktemp("csv") / "t.csv"
    try:
        data = read(file, text.getvalue(), task="classes")
    except DataError:
        empty = {name.lower() for name in MISSING}
        assert len(names) < 2 or names & empty or all(is_number(name) for name in names) or "\0" in "".join(names)
        return
    assert data.x[:, 0].tolist() == [number for number, _ in rows]
    assert all(is_number(name) for name in names) or [data.task.classes[code] for code in data.y] == texts


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever follows a good header is read or refused in a sentence."""
    file = tmp_path_factory.mktemp("csv") / "t.csv"
    with contextlib.suppress(DataError):
        read(file, b"a,y\n1,0\n" + data)


@pytest.mark.parametrize("rows", range(1, 7))
@pytest.mark.parametrize("header", ["id,inches,kind", 'id,size 5" or,kind', '"id","inches","kind"'])
def test_a_quote_within_a_cell_loses_no_row(header: str, rows: int, tmp_path: Path):
    """As Python's csv module reads it, wherever the quote stands."""
    last = ('5" pipe', "x", 'a 3" b', '"y"')
    lines = [f'{row},"name {row}",{last[row % 4]}' for row in range(rows)]
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    table = Reading().table(tmp_path / "t.csv")
    assert table.frame.rows() == [tuple(cells) for cells in csv.reader(lines)]
