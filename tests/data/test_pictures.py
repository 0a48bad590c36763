"""Pictures of one's own: nested folders, a table of paths with labels, broken files refused by name or skipped and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import nnrun.data.pictures
from nnrun import builtin as _registers_all_parts  # noqa: F401
from nnrun.data.dataset import Dataset
from nnrun.errors import EnvironmentFault, NnrunError
from nnrun.registry import DATASETS

Call = Callable[..., Result]

CONFIG = "dataset: {pictures: {path: PATH, size: 6, channels: 1MORE}}\npreprocess: [pixels]\nlayers: [8]\nlr: 0.05\nepochs: 20\n"


def picture(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of two classes, some of their pictures deeper down."""
    for number in range(12):
        picture(tmp_path / "photos" / "dark" / ("" if number % 2 else f"{number % 3}/deep") / f"{number}.png", number)
        picture(tmp_path / "photos" / "light" / f"{number}.png", 255 - number)
    picture(tmp_path / "photos" / "dark" / ".hidden" / "x.png", 9)
    return tmp_path / "photos"


@pytest.fixture
def table(photos: Path) -> Path:
    """Return a table that names the same pictures."""
    lines = [
        f"{path.relative_to(photos)},{path.relative_to(photos).parts[0]}"
        for path in sorted(photos.rglob("*.png"))
        if ".hidden" not in path.parts
    ]
    (photos / "list.csv").write_text("file,label\n" + "\n".join(lines) + "\n\n")
    return photos / "list.csv"


def build(path: Path, **arguments: object) -> Dataset:
    options = {"size": 6, "channels": 1, "broken": "refuse", "file": "file", "target": "label"} | arguments
    made: Dataset = DATASETS["pictures"].build(path=str(path), **options)
    return made


def test_pictures_deeper_down_are_of_the_class(photos: Path):
    """Sorted by path; hidden folders are passed over."""
    data = build(photos)
    assert data.task.classes == ("dark", "light")
    assert data.y.tolist() == [0] * 12 + [1] * 12
    assert sorted(data.x[:12, 0, 0, 0].tolist()) == list(range(12))


def test_a_table_gives_what_the_folder_gives(photos: Path, table: Path):
    """Paths are relative to the table; the target is called as its column."""
    folder, listed = build(photos), build(table)
    assert listed.task.classes == folder.task.classes
    assert listed.task.targets == ("label",)
    assert (listed.x == folder.x).all()
    assert (listed.y == folder.y).all()
    table.write_text(table.read_text().replace("file,label", "where\tkind").replace(",", "\t"))
    assert (build(table.rename(table.with_suffix(".tsv")), file="where", target="kind").x == folder.x).all()


def test_a_table_trains_scores_and_predicts(table: Path, call: Call, tmp_path: Path):
    """By the same columns; one row out for each row in, called by its path."""
    (tmp_path / "it.yaml").write_text(CONFIG.replace("PATH", "photos/list.csv").replace("MORE", ""))
    done = call("train", "it.yaml", "--out", "run", "--json", "-q")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["test"]["accuracy"] == 1
    scored = json.loads(call("eval", "--checkpoint", "run", "--data", "photos/list.csv", "--json").stdout)
    assert (scored["rows"], scored["metrics"]["accuracy"]) == (24, 1)
    lines = call("predict", "--checkpoint", "run", "photos/list.csv").stdout.splitlines()
    assert lines[0] == "file,prediction"
    assert lines[1:] == table.read_text().splitlines()[1:25]
    assert sorted(call("predict", "--checkpoint", "run", "photos").stdout.splitlines()[1:]) == sorted(lines[1:])


TABLES = {
    "no such column": ("path,label\nlight/0.png,light\n", ["FOLDER/list.csv has no column 'file'\nfix: (its columns are path, label)"]),
    "a misspelt one": ("file,lable\nlight/0.png,light\n", ["FOLDER/list.csv has no column 'label'\nfix: did you mean 'lable'?"]),
    "no rows": ("file,label\n", ["FOLDER/list.csv has a header but no rows\nfix: add rows of data below it"]),
    "faulty rows": (
        "file,label\nlight/0.png,\nlight/99.png,light\nlight/1.png,light\n",
        ["FOLDER/list.csv:2:13: the row has no label\n", "FOLDER/list.csv:3:1: there is no file FOLDER/light/99.png\n"],
    ),
    "a name too long": (
        f"file,label\n{'a' * 5000},light\n",
        ["FOLDER/list.csv:2:1: there is no file FOLDER/aaa", "fix: a path is relative to"],
    ),
    "a column twice": ("file,label,label\nlight/0.png,a,b\n", ["FOLDER/list.csv:1:12: the column name 'label' is given twice\n"]),
    "an open quote": ('file,label\n"light/0.png,a\n', ["FOLDER/list.csv:2:1: this row cannot be read: unexpected end of data\n"]),
    "nothing but commas": (",,\n", ["FOLDER/list.csv:1:1: column 1 has no name\n"]),
    "one class": ("file,label\nlight/0.png,light\n", ["FOLDER/list.csv has one single class, 'light'\nfix: a network needs at least two"]),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_cannot_be_used(case: str, table: Path):
    """The column, or the line and what stands there."""
    text, sentences = TABLES[case]
    table.write_text(text)
    with pytest.raises(NnrunError) as caught:
        build(table)
    told = str(caught.value).replace(str(table.parent), "FOLDER")
    assert all(sentence in told for sentence in sentences), told


def test_broken_pictures_are_refused_or_skipped(photos: Path, call: Call, tmp_path: Path):
    """By name either way; a skipped one is a row less, and counted in the notes of the run."""
    for name in ("dark/3.png", "light/0.png"):
        (photos / name).write_bytes(b"no picture")
    with pytest.raises(NnrunError) as caught:
        build(photos)
    assert [fault.what for fault in caught.value.faults] == [
        f"{photos}/{name} is not a readable picture: it is none of PNG, JPEG, BMP, GIF, WEBP" for name in ("dark/3.png", "light/0.png")
    ]
    data = build(photos, broken="skip")
    told = f"2 of 24 pictures cannot be read, and are left out: {photos}/dark/3.png, {photos}/light/0.png"
    assert (len(data), data.notes) == (22, (told,))
    assert [data.y.tolist().count(label) for label in (0, 1)] == [11, 11]
    assert (data.x[data.y == 1, 0, 0, 0] > 200).all()
    (tmp_path / "it.yaml").write_text(CONFIG.replace("PATH", "photos").replace("MORE", ", broken: skip"))
    done = call("train", "it.yaml", "--out", "run")
    assert f"note: {told}\n" in done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["notes"][0] == told
    assert call("eval", "--checkpoint", "run").stderr == f"note: {told}\n"


def test_a_class_that_is_all_broken_is_refused(photos: Path):
    """A network cannot learn it."""
    for path in (photos / "light").iterdir():
        path.write_bytes(b"")
    with pytest.raises(NnrunError) as caught:
        build(photos, broken="skip")
    assert str(caught.value) == "error: no picture of the class 'light' can be read\nfix: mend them, or take the class out"


def test_more_pictures_than_memory_are_refused(photos: Path, monkeypatch: pytest.MonkeyPatch):
    """Before any is read, unless they may be streamed."""
    monkeypatch.setattr(nnrun.data.pictures, "free_memory", lambda: 800)
    with pytest.raises(EnvironmentFault) as caught:
        build(photos, stream=False)
    assert caught.value.faults[0].what.startswith("24 pictures of 1 × 6 × 6 take ")
