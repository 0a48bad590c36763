"""The Python API: what `predict` takes and gives, and that docs/python.md is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import polars
import pytest
import torch
from PIL import Image

import nnrun
from nnrun.errors import DataError, SpecError
from nnrun.trained import Trained
from tests.conftest import ROOT

COLOURS = ("white", "blue", "red")
FLOWERS = "length,width,colour,seen,kind\n" + "".join(
    f"{1 + row % 2 * 4 + row % 5 / 10},{row % 2 * 2 + row % 3 / 10},{COLOURS[row % 3]},2026-0{1 + row % 9}-11,{'large' if row % 2 else 'small'}\n"
    for row in range(60)
)
CONFIG = "dataset: {csv: flowers.csv, target: kind}\npreprocess: [standardize]\nlayers: [8]\nlr: 0.05\nepochs: 10\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run on a table of mixed columns."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "flowers.csv").write_text(FLOWERS)
    (folder / "flowers.yaml").write_text(CONFIG)
    nnrun.train(folder / "flowers.yaml", out=folder / "mixed")
    return folder


@pytest.fixture(scope="module")
def net(folder: Path) -> Trained:
    return nnrun.load(folder / "mixed")


def test_the_page_is_true(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Its code runs from top to bottom, and prints what it says."""
    monkeypatch.chdir(folder)
    Path("flowers.yaml").write_text(CONFIG.replace("kind}", "kind, columns: {seen: ignore}}"))
    nnrun.train("flowers.yaml", out="runs/plain", **{"dataset.columns": {"seen": "ignore", "colour": "ignore"}})
    page = (ROOT / "docs" / "python.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), {})
    told = capsys.readouterr().out
    assert "runs/flowers 1.0\n" in told
    assert "['small', 'large']\n('large', 'small')\n" in told
    assert "error: the input: column 'colour': 'green' is a category that no training row has" in told


def test_every_kind_of_rows_gives_what_the_file_gives(folder: Path, net: Trained):
    """To the bit: mappings, frames of polars and pandas (with types of its own too), and the path."""
    expected = net.predict(folder / "flowers.csv")
    frame = polars.read_csv(folder / "flowers.csv")
    kinds = {
        "dates as dates": frame.with_columns(polars.col("seen").str.to_date()),
        "mappings": frame.to_dicts(),
        "pandas": pandas.read_csv(folder / "flowers.csv"),
        "pandas with categories and dates": pandas.read_csv(
            folder / "flowers.csv", parse_dates=["seen"], dtype={"colour": "category", "width": "Float64"}
        ),
        "paths": [str(folder / "flowers.csv")],
        "what was read": net.read([str(folder / "flowers.csv")]),
    }
    for name, rows in kinds.items():
        made = net.predict(rows)
        assert torch.equal(made.shares, expected.shares), name
        assert made.values == expected.values, name
    assert net.predict(frame).notes == ["ignored columns: kind"]
    assert made.frame().columns == ["row", "prediction", "large", "small"]
    assert net.predict(frame, probabilities=False).probabilities is None


def test_rows_of_numbers(folder: Path):
    """Arrays, tensors, lists, mappings: many rows or one; the numbers come back in the target's unit."""
    text = "a,b,y\n" + "".join(f"{row},{row % 4},{1000 + 3 * row}\n" for row in range(30))
    (folder / "n.csv").write_text(text)
    (folder / "n.yaml").write_text(
        "dataset: {csv: n.csv, target: y}\npreprocess: [standardize]\nscale_target: standardize\nlr: 0.1\nepochs: 60\n"
    )
    run = nnrun.train(folder / "n.yaml", out=folder / "numbers", batch_size="all")
    net = nnrun.load(run.folder)
    rows = np.array([[3.0, 3.0], [20.0, 0.0]])
    made = net.predict(rows)
    assert made.values == pytest.approx([1009, 1060], abs=5)
    assert (made.classes, made.probabilities) == ((), None)
    for same in (
        rows.astype(np.float32),
        torch.tensor(rows),
        torch.tensor(rows, requires_grad=True),
        rows.tolist(),
        [{"b": 3, "a": 3}, {"a": 20.0, "b": 0}],
        polars.DataFrame({"b": [3, 0], "a": [3, 20]}),
    ):
        assert net.predict(same).values == made.values
    for one in (rows[0], rows[:1], torch.tensor(rows[0]), {"a": 3, "b": 3}, [{"a": "3", "b": 3}]):
        assert net.predict(one).values == pytest.approx(made.values[:1], rel=1e-6)
    assert net.predict({"a": np.float32(3), "b": True}).values == pytest.approx(net.predict([3.0, 1.0]).values)


def test_pictures_by_their_paths_and_as_arrays(tmp_path: Path):
    """Named after their files; grey ones as (N, 1, H, W) or (N, H, W)."""
    for kind, shade in (("dark", 20), ("light", 230)):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (4, 4), shade + number).save(tmp_path / "photos" / kind / f"{number}.png")
    (tmp_path / "it.yaml").write_text(
        "dataset: {pictures: {path: photos, size: 4}}\npreprocess: [{scale: 0.004}]\nlayers: [flatten, {linear: auto}]\nlr: 0.1\nepochs: 20\n"
    )
    net = nnrun.load(nnrun.train(tmp_path / "it.yaml", out=tmp_path / "run").folder)
    made = net.predict([tmp_path / "photos" / "dark" / "1.png", tmp_path / "photos" / "light" / "2.png"])
    assert made.values == ["dark", "light"]
    assert [name.endswith(end) for name, end in zip(made.rows, ("1.png", "2.png"), strict=True)] == [True, True]
    channels = net.facts["raw_shape"][0]
    arrays = np.stack([np.full((channels, 4, 4), shade, np.uint8) for shade in (21, 232)])
    assert torch.equal(net.predict(arrays).shares, made.shares)
    assert net.predict(arrays.astype(float)).values == made.values


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"length": 1.0, "width": 2.0, "color": "red", "seen": "2026-01-01"}], "error: the input has no column 'colour'\nfix: did you mean 'color'?"),
        ([{"length": "x", "width": 2.0, "colour": "red", "seen": "2026-01-01"}], "error: the input: column 'length': 'x' is not a number (the only such cell, row 0"),
        ([{"length": 1.0, "width": None, "colour": "red", "seen": "2026-01-01"}], "error: the input: column 'width' is missing in 1 of 1 rows"),
        ([{"length": 1.0}, {"width": 2.0, "colour": "red", "seen": "2026-01-01"}], "error: the input: column 'length' is missing in 1 of 2 rows"),
        ([{"length": 1.0, "width": 2.0, "colour": "red", "seen": "soon"}], "error: the input: column 'seen': 'soon' is not a date"),
        (np.zeros((3, 2)), "error: the input holds rows of the shape [2], and the network wants [7]"),
        (np.full((1, 7), np.nan), "error: the input: nan is not a finite number in float32"),
        (np.zeros((0, 7)), "error: the input has no rows (its shape is [0, 7])"),
        ([[1.0], [1.0, 2.0]], "error: the input is not rows of one shape"),
        (None, "error: the input is NoneType, which is not rows of numbers"),
        ([], "error: the input has no rows (its shape is [0])"),
        ("nowhere.csv", "error: nowhere.csv does not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted_is_told(net: Trained, rows: object, sentence: str):
    """As on the command line: what, where, and what to do."""
    with pytest.raises(DataError) as error:
        net.predict(rows)
    assert str(error.value).startswith(sentence)
    assert "fix: " in str(error.value)


def test_a_wrong_value_names_its_key(folder: Path, tmp_path: Path):
    """And nothing is trained."""
    with pytest.raises(SpecError, match="optimizer 'admw' does not exist"):
        nnrun.train(folder / "flowers.yaml", out=tmp_path / "run", optimizer="admw")
    assert not (tmp_path / "run").exists()


def test_importing_nnrun_imports_nothing_else():
    """Neither torch, nor what reads configs and tables."""
    code = "import sys, nnrun; nnrun.load; sys.exit(bool({'torch', 'numpy', 'pydantic', 'polars', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
