"""Three small runs, each trained once for all tests of the report: classes with hostile names, a line, pictures."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nnrun.report.write import write_report
from nnrun.run import Run, open_run
from nnrun.spec.reader import read_spec

SCRIPT = "<script>document.title = 'run'</script>"
KINDS = (SCRIPT, "_hidden $x", "a & b")


def flowers() -> str:
    """Return a table of three kinds that overlap, whose names would run, vanish or be taken for mathematics."""
    draw = random.Random(1)
    rows = [f"{row % 3 + draw.gauss(0, 0.6):.3f},{draw.gauss(0, 1):.3f},{KINDS[row % 3]}\n" for row in range(90)]
    return "<b>height</b>,width,kind\n" + "".join(rows)


def trained(folder: Path, text: str, *, out: str = "run", epochs: int | None = None) -> Run:
    """Return a run in `folder`, trained to its end, or left after some epochs."""
    (folder / "it.yaml").write_text(text)
    spec, source = read_spec(folder / "it.yaml")
    run = open_run(spec, source, out=folder / out)
    for record in run.train():
        if record.epoch == epochs:
            break
    run.lock.release()
    return run


FLOWERS = "dataset: {csv: flowers.csv, target: kind}\nlayers: [4]\nlr: 0.05\nepochs: 12\nmetrics: [accuracy, f1_macro]\n"
LINE = "dataset: {name: points, x: [0, 1, 2, 3, 4, 5], y: [1, 3, 5, 7, 9, 11]}\nsplit: {train: 6}\nlr: 0.1\nepochs: 5\n"
DIGITS = "dataset: digits\npreprocess: [{pad: 1}, {scale: 0.0625}]\nlayers: [{conv2d: {out_channels: 4, kernel_size: 3}}, relu, flatten, {linear: auto}]\nlr: 0.01\nepochs: 1\n"


def reported(folder: Path, text: str) -> Path:
    """Return the folder of a run with its report."""
    (folder / "flowers.csv").write_text(flowers())
    run = trained(folder, text)
    write_report(run.folder, data=run.data)
    return run.folder


@pytest.fixture(scope="package")
def flower_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with a report: three classes, a table, train, val and test."""
    return reported(tmp_path_factory.mktemp("flowers"), FLOWERS)


@pytest.fixture(scope="package")
def line_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one that predicts a number from one input, trained on all rows."""
    return reported(tmp_path_factory.mktemp("line"), LINE)


@pytest.fixture(scope="package")
def digit_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one that looks at pictures."""
    return reported(tmp_path_factory.mktemp("digits"), DIGITS)
