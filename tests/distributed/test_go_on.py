"""A run of several processes goes on: with as many to the byte, with more or fewer with the same figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnrun.runs.checkpoint import load
from nnrun.runs.folder import BEST, LAST
from tests.distributed.conftest import Job, figures_of, rows_of

CONFIG = "dataset: iris\npreprocess: [standardize]\nlr: 0.01\nbatch_size: 9\nepochs: 5\nsplit: {train: 90, val: 30, test: rest}\n"


def test_as_many_processes_go_on_to_the_byte(job: Job, tmp_path: Path):
    """Stopped by SIGTERM to one of them in the middle of an epoch; each goes on with its own dropout."""
    config = tmp_path / "it.yaml"
    config.write_text(CONFIG + "layers: [{linear: 16}, relu, {dropout: 0.4}, {linear: auto}]\n")
    assert job(2, "train", config, "--out", tmp_path / "straight", "-q").codes == [0, 0]
    stopped = job(2, "train", config, "--out", tmp_path / "hurt", "-q", stop_at=13)
    assert stopped.codes == [143, 143]
    assert stopped.out == ""
    assert stopped.err == (
        f"error: stopped by a signal in epoch 2, batch 5; everything so far is saved in {tmp_path / 'hurt'}\n"
        f"fix: go on with it: nnrun train CONFIG --out {tmp_path / 'hurt'} --resume\n"
    )
    assert job(2, "train", config, "--out", tmp_path / "hurt", "--resume", "-q").codes == [0, 0]
    for name in (BEST, LAST):
        assert (tmp_path / "hurt" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert rows_of(tmp_path / "hurt") == rows_of(tmp_path / "straight")


def test_another_number_of_processes_goes_on_with_the_same_figures(job: Job, tmp_path: Path):
    """2, then 1, then 4, then 2 again, each stopped in the middle of an epoch."""
    config = tmp_path / "it.yaml"
    config.write_text(CONFIG + "layers: [16]\n")
    assert job(0, "train", config, "--out", tmp_path / "straight", "-q").codes == [0]
    said = []
    for number, (count, stop) in enumerate(((2, 13), (0, 24), (4, 36), (2, None))):
        done = job(count, "train", config, "--out", tmp_path / "hurt", *["--resume"] * (number > 0), stop_at=stop)
        assert set(done.codes) == {0 if stop is None else 143}, done.err
        said += [line for line in done.err.splitlines() if "bits" in line]
    assert figures_of(tmp_path / "hurt") == pytest.approx(figures_of(tmp_path / "straight"), rel=1e-6, abs=1e-7)
    assert said == [f"note: not the same bits from here on: processes {before} → {now}" for before, now in ((2, 1), (1, 4), (4, 2))]
    assert load(tmp_path / "hurt" / LAST).facts["processes"] == 2
    assert "processes" not in load(tmp_path / "straight" / LAST).facts
