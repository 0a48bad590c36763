"""Tables that are larger than memory: the same data, split, figures and weights as in memory, in memory that does not grow with the table."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from typer.testing import Result

from nnrun.data import chunks, source
from nnrun.data.prepare import Prepared, prepare
from nnrun.errors import DataError, EnvironmentFault
from nnrun.run import Run, open_run
from nnrun.spec.reader import read_spec
from nnrun.trained import load
from tests.conftest import ROOT

Call = Callable[..., Result]
ROWS = 1500
STEPS = "[{impute: {flag: true}}, {clip: 0.02}, standardize, {one_hot: {unknown: other}}]"
APART = ("run", "seconds", "provenance")


def frame(rows: int = ROWS) -> polars.DataFrame:
    """Return a table of every kind of column, some values of one missing; `y` are classes, `z` a number."""
    noise = np.random.default_rng(0)
    x, kind = noise.normal(size=(rows, 2)).round(3), noise.choice(list("abcde"), rows)
    gaps = [None if noise.random() < 0.05 else float(value) for value in x[:, 1]]
    return polars.DataFrame(
        {
            "x0": x[:, 0],
            "x1": gaps,
            "kind": kind,
            "when": [f"20{10 + row % 10}-0{1 + row % 9}-11" for row in range(rows)],
            "yes": noise.choice(["yes", "no"], rows),
            "whole": noise.integers(0, 50, rows),
            "owner": noise.integers(0, 100, rows).astype(str),
            "part": noise.choice(["train", "val", "test"], rows, p=[0.6, 0.2, 0.2]),
            "weight": noise.random(rows).round(2),
            "y": np.where(x[:, 0] + (kind == "a") > 0, "high", "low"),
            "z": (x[:, 0] * 3 + noise.normal(size=rows)).round(3),
        }
    )


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read a few hundred rows at a time, and gather as many."""
    monkeypatch.setattr(chunks, "BYTES", 1 << 14)
    monkeypatch.setattr(chunks, "CELLS", 1 << 12)
    monkeypatch.setattr(source, "WINDOW", 1 << 13)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return the folder that has the table in every form."""
    made = frame()
    made.write_csv(tmp_path / "t.csv")
    made.write_parquet(tmp_path / "t.parquet")
    made.write_ndjson(tmp_path / "t.jsonl")
    made[:700].write_csv(tmp_path / "first.csv")
    made[700:].write_csv(tmp_path / "second.csv")
    return tmp_path


def opened(folder: Path, stream: bool, *, target: str = "y", path: str = "t.csv", split: str = "{train: 0.6, val: 0.2, test: 0.2}", more: str = "", steps: str = STEPS) -> Run:  # fmt: skip
    """Open a run on the table."""
    ignored = "{%s: ignore}" % ("z" if target == "y" else "y")
    kind = "csv" if "csv" in path else path.rpartition(".")[2]
    (folder / "it.yaml").write_text(
        f"dataset: {{{kind}: {path}, target: {target}, weight: weight, columns: {ignored}, stream: {str(stream).lower()}}}\n"
        f"split: {split}\npreprocess: {steps}\nlayers: [8]\nepochs: 2\nbatch_size: 32\n{more}"
    )
    return open_run(*read_spec(folder / "it.yaml"), out=folder / f"run-{stream}")


def in_windows(data: Prepared) -> bool:
    """Return whether the rows are not in memory."""
    return all(isinstance(part.x, source.RowSource) for part in data.parts.values() if len(part))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"path": "t.parquet", "target": "z", "split": "{group: owner}"},
        {"path": "t.jsonl", "split": "{method: stratified, train: 0.6, val: 0.2, test: 0.2}"},
        {"path": "[first.csv, second.csv]", "target": "z", "split": "{train: first.csv, test: second.csv}"},
        {"split": "{id: owner}", "steps": "[impute, {quantile: 20}, {ordinal: {unknown: other}}]"},
        {
            "split": "{by: when}",
            "target": "z",
            "steps": "[{impute: {numbers: mean}}, robust, minmax, {embed: {unknown: other, at_least: 9}}]",
        },
        {"split": "{column: part}", "more": "batch_size: all\n".replace("batch_size", "accumulate_batches").replace("all", "3")},
        {"split": "{method: rows, train: '0:900', val: [1400, 1000, 1200], test: rest}", "more": "shuffle: false\n"},
    ],
    ids=["csv", "parquet by group", "jsonl stratified", "two files", "by hash", "by time", "by column", "by rows"],
)
def test_a_streamed_run_is_the_run_in_memory(table: Path, given: dict[str, Any]):
    """Digests, split, fitted numbers, notes, figures, intervals, baselines and weights are equal, whatever the table is read from."""
    runs = [opened(table, stream, **given) for stream in (False, True)]
    for run in runs:
        list(run.train())
    whole, streamed = runs
    assert in_windows(streamed.data)
    assert not in_windows(whole.data)
    assert whole.data.digests == streamed.data.digests
    assert whole.data.columns == streamed.data.columns
    for one, other in zip(whole.data.fitted, streamed.data.fitted, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    for name, weights in whole.network.model.state_dict().items():
        assert torch.equal(weights, streamed.network.model.state_dict()[name])
    for told in (whole.summary, streamed.summary):
        for baseline in told["baselines"].values():
            del baseline["seconds"]
    assert {key: whole.summary[key] for key in whole.summary if key not in APART} == {key: streamed.summary[key] for key in whole.summary if key not in APART}  # fmt: skip


def test_rows_without_a_target_are_dropped(tmp_path: Path):
    """The others are the same rows in the same order, and places are those in the file."""
    made = frame(600).with_columns(polars.when(polars.int_range(600) % 7 == 3).then(None).otherwise(polars.col("y")).alias("y"))
    made.write_csv(tmp_path / "t.csv")
    found = []
    for stream in ("false", "true"):
        (tmp_path / "it.yaml").write_text(f"dataset: {{csv: t.csv, target: y, missing_target: drop, columns: {{z: ignore}}, stream: {stream}}}\npreprocess: [impute]\nlayers: [4]\n")  # fmt: skip
        found.append(prepare(read_spec(tmp_path / "it.yaml")[0], torch.device("cpu")))
    assert found[0].digests == found[1].digests
    assert found[0].notes == found[1].notes
    assert any(note == "86 of 600 rows have no target and are left out" for note in found[1].notes)


@pytest.mark.parametrize(
    ("row", "column", "cell"),
    [(1400, "x0", "wide"), (1300, "x1", ""), (1490, "y", ""), (1200, "weight", "-1"), (1450, "when", "soon")],
)
def test_faults_far_down_are_told_as_in_memory(table: Path, row: int, column: str, cell: str):
    """File, line, column, value and mend are the same as when the table is read whole."""
    lines = (table / "t.csv").read_text().splitlines()
    cells = lines[row + 1].split(",")
    cells[frame(1).columns.index(column)] = cell
    (table / "t.csv").write_text("\n".join([*lines[: row + 1], ",".join(cells), *lines[row + 2 :]]) + "\n")
    told = []
    for stream in (False, True):
        with pytest.raises(DataError) as caught:
            opened(table, stream, steps="[standardize]" if column == "x1" else STEPS)
        told.append([(one.what, one.fix, one.place) for one in caught.value.faults])
    assert told[0] == told[1]
    place = told[1][0][2]
    assert place is not None
    assert place.line > 2
    if column != "x1":  # the first of all its gaps
        assert (place.file, place.line) == (str(table / "t.csv"), row + 2)


def test_a_column_of_numbers_with_words_further_down(tmp_path: Path):
    """What a column is, is read off the whole table, also where one piece shows something else than another."""
    codes = [*map(str, range(10))] * 120 + ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L"] * 10
    polars.DataFrame({"code": codes, "x": np.arange(len(codes)) % 17, "y": np.arange(len(codes)) % 2}).write_csv(tmp_path / "t.csv")
    kinds = []
    for stream in ("false", "true"):
        (tmp_path / "it.yaml").write_text(f"dataset: {{csv: t.csv, target: y, stream: {stream}}}\nlayers: [4]\n")
        data = prepare(read_spec(tmp_path / "it.yaml")[0], torch.device("cpu"))
        kinds.append((data.raw_columns, data.digests))
    assert kinds[0] == kinds[1]
    assert kinds[1][0][0].kind == "category"


def test_scored_and_reported_from_the_disk(call: Call, table: Path):
    """`eval`, `check` and `report` of a streamed run work, and `eval` gives the figures of the run."""
    run = opened(table, True)
    list(run.train())
    assert json.loads(call("eval", "--checkpoint", "run-True", "--json").stdout)["metrics"] == run.summary["metrics"]["test"]
    assert in_windows(load("run-True").prepare())
    assert call("check", "it.yaml").exit_code == 0
    assert call("report", "run-True").exit_code == 0
    assert (table / "run-True" / "report.html").is_file()


def test_streams_when_memory_is_short(table: Path, monkeypatch: pytest.MonkeyPatch):
    """`auto` leaves a small table in memory, and streams one that would take more than half of what is free, with a note."""
    monkeypatch.setattr("nnrun.data.large.free_memory", lambda: 1 << 40)
    (table / "it.yaml").write_text(f"dataset: {{csv: t.csv, target: y, columns: {{z: ignore}}}}\npreprocess: {STEPS}\nlayers: [4]\n")
    assert not in_windows(prepare(read_spec(table / "it.yaml")[0], torch.device("cpu")))
    monkeypatch.setattr("nnrun.data.large.free_memory", lambda: 1 << 16)
    data = prepare(read_spec(table / "it.yaml")[0], torch.device("cpu"))
    assert in_windows(data)
    assert any("its rows are streamed from the disk" in note for note in data.notes)


def test_killed_in_an_epoch_and_gone_on_with(table: Path, monkeypatch: pytest.MonkeyPatch):
    """After SIGKILL nothing is left of the rows on the disk, and the run goes on from within the epoch to the weights of a run in memory."""
    scratch = table / "scratch"
    scratch.mkdir()
    more = "epochs: 8\ncheckpoint: {every: 20 steps}\n"
    for name, stream in (("streamed", "true"), ("held", "false")):
        (table / f"{name}.yaml").write_text(f"name: it\ndataset: {{csv: t.csv, target: y, columns: {{z: ignore}}, stream: {stream}}}\npreprocess: {STEPS}\nlayers: [8]\nbatch_size: 32\nevaluate: []\n{more}")  # fmt: skip
    command = [sys.executable, "-m", "nnrun", "train", "streamed.yaml", "--out", "run", "-q"]
    with subprocess.Popen(command, cwd=table, env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)}) as child:
        while child.poll() is None and not (table / "run" / "metrics.jsonl").is_file():
            time.sleep(0.005)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert not list(scratch.glob("nnrun*"))
    monkeypatch.setenv("TMPDIR", str(scratch))
    resumed = open_run(*read_spec(table / "streamed.yaml"), out=table / "run", resume=True)
    assert in_windows(resumed.data)
    assert resumed.state.batch > 0 or resumed.state.step == 0  # 29 steps an epoch
    list(resumed.train())
    whole = open_run(*read_spec(table / "held.yaml"), out=table / "held")
    list(whole.train())
    for name, weights in whole.network.model.state_dict().items():
        assert torch.equal(weights, resumed.network.model.state_dict()[name])


def test_a_disk_without_room(table: Path):
    """It is told before any row is written, with how much is needed and where; nothing is left there."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (table / "it.yaml").write_text(
        "dataset: {csv: t.csv, target: z, columns: {y: ignore}, stream: true}\npreprocess: [impute]\nlayers: [4]\n"
    )
    spec, _ = read_spec(table / "it.yaml")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, limits[1]))
    try:
        with pytest.raises(EnvironmentFault, match=r"no room for the prepared rows: 0\.\d MB are needed .*File too large") as caught:
            prepare(spec, torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 4
    assert "TMPDIR" in caught.value.faults[0].fix


MEASURE = """
import sys, threading, time
from pathlib import Path
import torch
from nnrun.check import data_rules, examined
from nnrun.data import chunks, source
from nnrun.run import open_run
from nnrun.spec.reader import read_spec
from nnrun.training import baselines, uncertainty

chunks.BYTES, source.WINDOW = 1 << 20, 1 << 20
# What is looked at, or drawn, of a table of any size.
examined.MOST_VALUES = data_rules.MOST_VALUES = baselines.MOST_VALUES = 200_000
uncertainty.WORK, uncertainty.AT_ONCE = 200_000, 20_000
peak = 0

def watch():
    global peak
    while True:
        anonymous = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
        peak = max(peak, anonymous / 1000)
        time.sleep(0.003)

threading.Thread(target=watch, daemon=True).start()
for rows in ("5000", "200000"):
    config = Path("it.yaml").read_text().replace("ROWS", rows).replace("STREAM", sys.argv[1])
    Path("this.yaml").write_text(config)
    list(open_run(*read_spec(Path("this.yaml")), out=Path(f"run-{rows}-{sys.argv[1]}")).train())
    print(peak)
"""


def test_memory_does_not_grow_with_the_table(tmp_path: Path):
    """A table of 200,000 rows takes little more memory than one of 5,000 when it is streamed, and far more when it is held."""
    x_ND = np.random.default_rng(0).normal(size=(200_000, 40))
    whole = polars.DataFrame({f"x{number}": x_ND[:, number] for number in range(40)}).with_columns(y=x_ND[:, 0] - x_ND[:, 1])
    for rows in (5_000, 200_000):
        whole[:rows].write_csv(tmp_path / f"{rows}.csv", float_precision=3)
    dataset = "dataset: {csv: ROWS.csv, target: y, stream: STREAM}"
    (tmp_path / "it.yaml").write_text(f"{dataset}\npreprocess: [standardize]\nlayers: [4]\nbatch_size: 4096\nepochs: 1\nthreads: 1\n")
    grown = {}
    for stream in ("true", "false"):
        command = [sys.executable, "-c", MEASURE, stream]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
        small, large = map(float, done.stdout.split())
        grown[stream] = large - small
    assert grown["true"] < 130 < 180 < grown["false"], grown
