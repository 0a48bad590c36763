"""The inputs of predict: what each kind of file gives, and one sentence for each that cannot be used."""

from __future__ import annotations

import io
import itertools
import json
import zlib
from pathlib import Path
from struct import pack

import numpy as np
import polars
import pytest
import torch
from PIL import Image

from nnrun.data.columns import Column
from nnrun.data.inputs import Inputs, Wanted, in_batches, read_inputs
from nnrun.errors import DataError

COLUMNS = (Column("a"), Column("b"))


def read(*paths: object, columns: tuple[Column, ...] = COLUMNS, shape: tuple[int, ...] = (2,), bytes_wanted: bool | None = None) -> Inputs:
    """Return the inputs of a network with two named columns, or of another."""
    return read_inputs([str(path) for path in paths], Wanted(columns, shape, bytes_wanted))


def refusal(*paths: object, columns: tuple[Column, ...] = COLUMNS, shape: tuple[int, ...] = (2,), bytes_wanted: bool | None = None) -> str:
    """Return the whole error of inputs that cannot be used, the folder of the first left out."""
    with pytest.raises(DataError) as caught:
        read(*paths, columns=columns, shape=shape, bytes_wanted=bytes_wanted)
    return str(caught.value).replace(f"{Path(str(paths[0])).parent}/", "") if paths else str(caught.value)


def write(path: Path, content: str) -> Path:
    """Return the path of a text file."""
    path.write_text(content)
    return path


def picture(path: Path, size: tuple[int, int] = (2, 2), mode: str = "L", value: int = 7) -> Path:
    """Return the path of a picture of one colour."""
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path)
    return path


@pytest.mark.parametrize("name", ["t.csv", "semicolon.csv", "t.tsv", "t.parquet", "t.jsonl", "t.NDJSON"])
def test_tables_are_read_by_name(tmp_path: Path, name: str) -> None:
    """Columns are found by name in any order; others are ignored with a note, and a target is not needed."""
    rows = [{"b": 2.5, "id": "x", "a": 1}, {"b": 4.0, "id": "y", "a": 3}]
    path = tmp_path / name
    if name.endswith("parquet"):
        polars.DataFrame(rows).write_parquet(path)
    elif name.lower().endswith("json") or "json" in name.lower():
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        polars.DataFrame(rows).write_csv(path, separator={"t.csv": ",", "semicolon.csv": ";", "t.tsv": "\t"}[name])
    found = read(path)
    assert found.x.tolist() == [[1, 2.5], [3, 4]]
    assert (found.x.dtype, found.labels, found.notes) == (torch.float32, range(2), ["ignored columns: id"])


def test_tables_are_read_by_position_for_a_network_without_names(tmp_path: Path) -> None:
    """With no column names the order counts, and the number of columns must be right."""
    path = write(tmp_path / "t.csv", "p,q,r,s\n1,2,3,4\n")
    assert read(path, columns=(), shape=(1, 2, 2)).x.tolist() == [[[[1, 2], [3, 4]]]]
    assert refusal(path, columns=(), shape=(3,)) == (
        "error: t.csv has 4 columns, and the network wants 3 inputs (of the shape [3])\n"
        "fix: give only the inputs, in the order the network was trained on"
    )


def test_several_files_are_read_in_turn(tmp_path: Path) -> None:
    """The rows of every file follow one another, and their labels say which file they are from."""
    one, two = write(tmp_path / "1.csv", "a,b\n1,2\n"), write(tmp_path / "2.csv", "b,a\n4,3\n")
    found = read(one, two)
    assert found.x.tolist() == [[1, 2], [3, 4]]
    assert found.labels == [f"{one}:0", f"{two}:0"]


def test_arrays(tmp_path: Path) -> None:
    """The array `x`, or the only one, of rows of the right shape; pictures may come without an axis for their one channel."""
    np.savez(tmp_path / "x.npz", x=np.ones((3, 2)), y=np.zeros(3))
    np.savez(tmp_path / "only.npz", inputs=np.ones((3, 2)))
    np.save(tmp_path / "a.npy", np.ones((3, 28, 28), np.uint8))
    assert read(tmp_path / "x.npz").x.shape == (3, 2)
    assert read(tmp_path / "only.npz").labels == range(3)
    found = read(tmp_path / "a.npy", columns=(), shape=(1, 28, 28))
    assert (found.x.shape, found.x.dtype) == ((3, 1, 28, 28), torch.uint8)
    assert refusal(tmp_path / "a.npy") == (
        "error: a.npy holds rows of the shape [28, 28], and the network wants [2]\nfix: reshape the array to (rows, 2)"
    )
    np.savez(tmp_path / "two.npz", p=np.ones((3, 2)), q=np.zeros(3))
    assert refusal(tmp_path / "two.npz") == "error: two.npz holds the arrays p, q\nfix: name the array of inputs `x`"
    write(tmp_path / "broken.npy", "\x93NUMPY")
    assert refusal(tmp_path / "broken.npy").startswith("error: broken.npy cannot be read: ")


def test_a_picture_and_a_folder_of_pictures(tmp_path: Path) -> None:
    """Pictures come sorted by name, grey or in colour and of the size the network wants, with notes of what was changed."""
    picture(tmp_path / "b.png", value=9)
    picture(tmp_path / "a.PNG", size=(8, 8), mode="RGB", value=200)
    write(tmp_path / "notes.txt", "no picture")
    write(tmp_path / ".hidden", "")
    found = read(tmp_path, columns=(), shape=(1, 2, 2))
    assert (found.x.dtype, found.x.flatten().tolist()) == (torch.uint8, [200] * 4 + [9] * 4)
    assert found.labels == ["a.PNG", "b.png"]
    assert found.notes == [f"{tmp_path}: ignored files: notes.txt", "resized to 2 × 2: a.PNG from 8 × 8"]
    assert read(tmp_path / "b.png", columns=(), shape=(3, 2, 2)).x.flatten().tolist() == [9] * 12


def test_colour_is_channels_first(tmp_path: Path) -> None:
    """A pixel's red, green and blue are three planes."""
    colours = Image.new("RGB", (2, 1))
    colours.putpixel((0, 0), (1, 2, 3))
    colours.putpixel((1, 0), (4, 5, 6))
    colours.save(tmp_path / "c.bmp")
    assert read(tmp_path / "c.bmp", columns=(), shape=(3, 1, 2)).x.tolist() == [[[[1, 4]], [[2, 5]], [[3, 6]]]]


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    """A picture with 16 bits a pixel is not cut off at 255."""
    Image.fromarray(np.full((2, 2), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert read(tmp_path / "deep.png", columns=(), shape=(1, 2, 2)).x.flatten().tolist() == [128] * 4


def test_the_type_of_the_training_data_is_kept(tmp_path: Path) -> None:
    """Pictures for a network of numbers become numbers; numbers for a network of bytes must be bytes."""
    picture(tmp_path / "b.png", value=9)
    assert read(tmp_path / "b.png", columns=(), shape=(1, 2, 2), bytes_wanted=False).x.dtype == torch.float32
    np.save(tmp_path / "a.npy", np.full((1, 2), 255.0))
    assert read(tmp_path / "a.npy", bytes_wanted=True).x.dtype == torch.uint8
    np.save(tmp_path / "a.npy", np.full((1, 2), 0.5))
    assert refusal(tmp_path / "a.npy", bytes_wanted=True) == (
        "error: a.npy holds numbers that are not bytes\nfix: the network wants pixels: whole numbers from 0 to 255"
    )
    np.save(tmp_path / "a.npy", np.full((1, 2), -1.0))
    assert "not bytes" in refusal(tmp_path / "a.npy", bytes_wanted=True)


def stdin(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Put text on stdin."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


def test_json_lines_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects by column name; lists of numbers for a network without names."""
    stdin(monkeypatch, '{"b": 2, "a": 1e0}\n\n{"a": -3, "b": 4}\n')
    assert read("-").x.tolist() == [[1, 2], [-3, 4]]
    stdin(monkeypatch, "[[1, 2]]\n[[3, 4.5]]\n")
    assert read("-", columns=(), shape=(1, 2)).x.tolist() == [[[1, 2]], [[3, 4.5]]]


@pytest.mark.parametrize(
    ("content", "columns", "told"),
    [
        ("", COLUMNS, "error: stdin is empty\nfix: write one JSON object in each line"),
        ("", (), "error: stdin is empty\nfix: write one list of numbers in each line"),
        (
            "{",
            COLUMNS,
            "error: stdin:1:2: this line is not JSON: Expecting property name enclosed in double quotes\n    1 | {\n      |  ^\nfix: write one JSON value in each line",
        ),
        (
            "[1, 2]",
            COLUMNS,
            'error: stdin:1:1: this line is not an object of columns\n    1 | [1, 2]\n      | ^\nfix: write {"column": value, …}',
        ),
        ('{"a": 1}', COLUMNS, "error: stdin has no column 'b'\nfix: (its columns are a)"),
        (
            '{"a": 1, "b": 2}\n{"a": 1}',
            COLUMNS,
            "error: stdin:2:1: this line has no 'b'\n    2 | {\"a\": 1}\n      | ^\n"
            "fix: give every line the same columns; null where there is no value",
        ),
        (
            '{"a": 1, "b": null}',
            COLUMNS,
            "error: stdin:1:1: column 'b' is missing in 1 of 1 rows (the first is row 0 counted from 0)\n"
            '    1 | {"a": 1, "b": null}\n      | ^\nfix: fill it in, leave the row out, or train with `impute`: this network has no step for it',
        ),
    ],
)
def test_unusable_lines(monkeypatch: pytest.MonkeyPatch, content: str, columns: tuple[Column, ...], told: str) -> None:
    """Each fault of JSON lines has its line and its mend."""
    stdin(monkeypatch, content)
    assert refusal("-", columns=columns) == told


@pytest.mark.parametrize(
    "content", ["[1]", "[1, [2]]", "[1, NaN]", "[1, null]", "[1, 1e300]", '{"a": 1}', "3", '["x", "y"]', "[" * 100_000]
)
def test_lines_that_are_no_row(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """A line that is not a list of finite numbers of the right shape is told by its number."""
    stdin(monkeypatch, "[1, 2]\n" + content)
    assert refusal("-", columns=()).startswith("error: stdin:2:1: this line is not ")


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    """A missing column, a bad cell, an unknown ending, no file, no rows: one sentence each."""
    assert (
        refusal(write(tmp_path / "t.csv", "a,B\n1,2\n")) == "error: t.csv has no column 'b'\nfix: did you mean 'B'? (its columns are a, B)"
    )
    assert refusal(write(tmp_path / "t.csv", "p,q\n1,2\n")) == "error: t.csv has no columns 'a', 'b'\nfix: (its columns are p, q)"
    assert refusal(write(tmp_path / "t.csv", "a,b\n1,2\n1,two\n1,3\n")) == (
        "error: t.csv:3:3: column 'b': 'two' is not a number (the only such cell, row 1 counted from 0)\n"
        "    3 | 1,two\n      |   ^^^\nfix: the network needs a number in every cell of this column: mend the row, or leave it out"
    )
    assert refusal(write(tmp_path / "t.csv", "a,b\n")) == "error: t.csv has a header but no rows\nfix: add rows of data below it"
    assert refusal(write(tmp_path / "t.xlsx", "")) == (
        "error: t.xlsx: .xlsx is not something to predict from\nfix: give .csv .tsv .parquet .jsonl .ndjson .npz .npy, "
        "a picture (.png .jpg .jpeg .bmp .gif .webp), a folder of pictures, or - for JSON lines"
    )
    assert refusal(tmp_path / "u.csv") == f"error: u.csv does not exist\nfix: did you mean '{'t.csv'}'?"
    assert refusal() == "error: there is nothing to predict\nfix: give a file, a folder of pictures, or - for JSON lines on stdin"
    assert refusal(write(tmp_path / "t.parquet", "x")).startswith("error: t.parquet is not a readable Parquet file: ")
    polars.DataFrame({"a": [1.0, None], "b": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    assert refusal(tmp_path / "t.parquet") == (
        "error: t.parquet: column 'a' is missing in 1 of 2 rows (the first is row 1 counted from 0)\n"
        "fix: fill it in, leave the row out, or train with `impute`: this network has no step for it"
    )


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that claims a size."""
    head = b"IHDR" + pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [pack(">I", len(chunk) - 4) + chunk + pack(">I", zlib.crc32(chunk)) for chunk in (head, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    """A broken, cut-off or absurdly large picture, an empty folder, a network that does not take pictures: one sentence each."""
    grey = {"columns": (), "shape": (1, 2, 2)}
    assert refusal(write(tmp_path / "t.png", "text"), **grey) == (  # type: ignore[arg-type]
        "error: t.png is not a readable picture: it is none of PNG, JPEG, BMP, GIF, WEBP\nfix: open and save it again, or leave it out"
    )
    whole = picture(tmp_path / "w.png", size=(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    assert refusal(tmp_path / "cut.png", **grey).startswith("error: cut.png is not a readable picture: ")  # type: ignore[arg-type]
    for side in (10_000, 60_000):
        (tmp_path / "bomb.png").write_bytes(png_of(side, side))
        assert refusal(tmp_path / "bomb.png", **grey).startswith("error: bomb.png is too large: ")  # type: ignore[arg-type]
    (tmp_path / "none").mkdir()
    assert refusal(tmp_path / "none", **grey) == (  # type: ignore[arg-type]
        "error: none has no pictures\nfix: pictures end in .png .jpg .jpeg .bmp .gif .webp"
    )
    assert refusal(tmp_path / "w.png") == (
        "error: w.png is a picture, and the network wants rows of the shape [2]\nfix: give a table or an array"
    )


def test_rows_are_predicted_in_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are read, a row goes through the network beside the same others: its last bits hang on that."""
    monkeypatch.setattr("nnrun.data.inputs.BATCHES", 2)
    x = torch.arange(100.0)[:, None]
    starts = [0, 3, 4, 40, 41, 99, 100]
    parts = [Inputs(x[start:stop], range(start, stop), ["a note"]) for start, stop in itertools.pairwise(starts)]
    made = list(in_batches(parts, 8))
    assert [len(part.x) % 8 for part in made] == [0] * (len(made) - 1) + [4]
    assert max(len(part.x) for part in made) == 16
    assert torch.equal(torch.cat([part.x for part in made]), x)
    assert [row for part in made for row in part.labels] == list(range(100))
    assert Inputs.joined(made).labels == range(100)
