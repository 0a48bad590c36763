"""Rows that have changed since training are counted and named, by eval, the report and a resume; an error, or a note where the config says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import nnrun.data.fingerprint
from nnrun.data.columns import Column
from nnrun.data.dataset import Dataset, Task
from nnrun.data.fingerprint import UNCHANGED, Known, difference, fingerprint, marks
from nnrun.runs.checkpoint import load

Call = Callable[..., Result]

LINES = [f"{row},{'pqr'[row % 3]},{row * row % 11},{'ab'[row % 2]}" for row in range(20)]
CONFIG = "dataset: {csv: t.csv, target: kind, columns: {n: number}}\nsplit: {train: 12, val: 4, test: 4}\npreprocess: [one_hot]\nlayers: [4]\nepochs: 2\n"


def dataset(rows: int = 12) -> Dataset:
    noise = torch.Generator().manual_seed(0)
    return Dataset(torch.randn(rows, 3, generator=noise), torch.arange(rows) % 2, Task(("k",), ("a", "b")), tuple(map(Column, "xyz")))


def known(data: Dataset) -> Known:
    return Known({}, len(data), marks(fingerprint(data)[1]))


def test_each_difference_is_told():
    """Changed rows by number; another order; rows that are new, and rows that are gone; and what is not in the rows."""
    data = dataset()
    stored, other = known(data), data.x.clone()
    assert difference(data, stored) == UNCHANGED
    other[[3, 7]] += 1
    assert difference(replace(data, x=other), stored) == "2 of 12 rows have changed: row 3, row 7"
    assert difference(replace(data, y=1 - data.y), stored) == "12 of 12 rows have changed: row 0, row 1, row 2, row 3, row 4, …"
    order = torch.tensor([0, 1, 2, 4, 3, *range(5, 12)])
    assert difference(replace(data, x=data.x[order], y=data.y[order]), stored) == "its rows are the same in another order, from row 3 on"
    fewer = replace(data, x=other[1:], y=data.y[1:])
    assert difference(fewer, stored) == "it has 11 rows now, and had 12; 2 of them are new: row 2, row 6, and 3 of those then are gone"
    assert difference(replace(data, weight=torch.ones(12)), stored) == UNCHANGED


def test_names_are_compared_and_not_their_places():
    """A category or a class that comes in, and moves the numbers of all others, changes its own rows alone."""
    columns = (Column("x"), Column("c", "category", ("p", "q")))
    data = Dataset(torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, torch.nan]]), torch.tensor([0, 1, 1]), Task(("k",), ("a", "b")), columns)
    moved = Dataset(torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, torch.nan]]), torch.tensor([1, 2, 2]), Task(("k",), ("_", "a", "b")), (columns[0], Column("c", "category", ("o", "p"))))  # fmt: skip
    assert fingerprint(data)[0] != fingerprint(moved)[0]
    assert difference(moved, known(data)) == "1 of 3 rows has changed: row 1"


def test_of_many_rows_blocks_are_known(monkeypatch: pytest.MonkeyPatch):
    """No more marks than a checkpoint should hold; each block by its first and its last row, the last one perhaps short."""
    monkeypatch.setattr(nnrun.data.fingerprint, "MOST", 4)
    data = dataset(10)
    stored, other = known(data), data.x.clone()
    assert len(stored.marks) == 4
    other[[4, 9]] += 1
    assert difference(replace(data, x=other), stored) == "rows have changed in 2 of 4 blocks of 3: rows 3 to 5, 9 to 9"
    assert difference(data, stored) == UNCHANGED
    assert difference(dataset(11), stored) == "it has 11 rows now, and had 10"


@pytest.fixture
def trained(call: Call, tmp_path: Path) -> Call:
    """Return the command line of a folder with a trained run, of which two rows have changed since."""
    (tmp_path / "t.csv").write_text("n,c,m,kind\n" + "\n".join(LINES) + "\n")
    (tmp_path / "it.yaml").write_text(CONFIG)
    done = call("train", "it.yaml", "--out", "run", "-q")
    assert done.exit_code == 0, done.stderr
    assert len(load(tmp_path / "run" / "last.safetensors").tensors["rows/marks"]) == 20
    changed = "\n".join(LINES).replace("4,q,5,a", "4,p,5,a").replace("17,r,3,b", "17,r,3.5,b")
    (tmp_path / "t.csv").write_text("n,c,m,kind\n" + changed + "\n")
    return call


TOLD = "2 of 20 rows have changed: row 4 (FOLDER/t.csv:6), row 17 (FOLDER/t.csv:19)"


@pytest.mark.parametrize("command", ["eval --checkpoint run", "report run", "train it.yaml --out run --resume --set epochs=3"])
def test_changed_rows_are_an_error(command: str, trained: Call, tmp_path: Path):
    """How many, and which, with file and line."""
    done = trained(*command.split())
    assert done.exit_code == 2, done.output
    assert TOLD.replace("FOLDER", str(tmp_path)) in done.stderr


def test_changed_rows_are_a_note_where_the_config_says_so(trained: Call, tmp_path: Path):
    """A run is gone on with, and knows the rows of now; the key itself may change. Another split stays an error."""
    told = TOLD.replace("FOLDER", str(tmp_path))
    done = trained("train", "it.yaml", "--out", "run", "--resume", "--set", "epochs=3", "--set", "changed_rows=note")
    assert done.exit_code == 0, done.stderr
    assert f"note: the data of dataset 'csv' ({tmp_path}/t.csv) has changed since the run was started (digest " in done.stderr
    assert f"now): {told}\n" in done.stderr
    assert "changed" not in trained("eval", "--checkpoint", "run").stderr
    (tmp_path / "t.csv").write_text("n,c,m,kind\n" + "\n".join(LINES) + "\n")
    done = trained("eval", "--checkpoint", "run")
    assert (done.exit_code, told in done.stderr) == (0, True), done.stderr
    (tmp_path / "t.csv").write_text("n,c,m,kind\n" + "\n".join(LINES).replace("p", "z") + "\n")
    done = trained("eval", "--checkpoint", "run")
    assert (done.exit_code, done.stderr.partition("\n")[0]) == (2, "error: column 'c' is no longer what it was when the network was trained: another kind, or other categories")  # fmt: skip
    (tmp_path / "t.csv").write_text("n,c,m,kind\n" + "\n".join([*LINES, "20,p,4,a"]) + "\n")
    done = trained("eval", "--checkpoint", "run")
    assert (done.exit_code, done.stderr.partition("\n")[0]) == (2, "error: the split of dataset 'csv' has changed since the network was trained")  # fmt: skip
