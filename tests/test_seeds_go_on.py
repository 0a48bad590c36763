"""Many seeds that are stopped or killed go on, and end with the bytes of those that never were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nnrun.errors import Interrupted
from nnrun.runs.signals import Signals
from nnrun.stacked import StackedRun
from tests.test_seeds import DEEP, IRIS, rows_of, seeds_of, train


def fingerprint(folder: Path) -> dict[str, Any]:
    """Return all that must not depend on what happened to the seeds."""
    rows = [{**row, "seconds": 0} for row in rows_of(folder)]
    summary = {**json.loads((folder / "summary.json").read_text()), "run": "", "seconds": {}}
    files = {file.name: file.read_bytes().hex() for file in folder.glob("*.safetensors") if file.name != "last-1.safetensors"}
    return {"rows": rows, "summary": summary, **files}


LONGER = DEEP.replace("epochs: 3", "epochs: 30") + "early_stopping: {patience: 3, min_delta: 0.004}\n"


def test_seeds_that_are_stopped_go_on_to_the_same_bytes(tmp_path: Path):
    """SIGTERM in the middle of an epoch saves and says how to go on; some networks have stopped by then, and some still draw dropout."""
    straight = train(seeds_of(tmp_path, LONGER, 4, "straight", ensemble=True))
    ends = [member.epochs for member in straight.members]
    assert min(ends) < max(ends)
    stopped = seeds_of(tmp_path, LONGER, 4, "stopped", ensemble=True)
    assert isinstance(stopped.stacked, StackedRun)
    state, real = stopped.stacked.state, stopped.stacked.state.take_step

    def step() -> None:
        if state.step == 5 * min(ends) + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        real()

    state.take_step = step
    with Signals() as signals, pytest.raises(Interrupted) as told:
        train(stopped, signals)
    assert told.value.exit_code == 143
    assert f"nnrun train CONFIG --seeds 4 --ensemble --out {tmp_path}/stopped --resume" in str(told.value)
    stopped.lock.release()
    again = seeds_of(tmp_path, LONGER, 4, "stopped", ensemble=True, resume=True)
    assert again.stacked
    assert (again.stacked.state.batch, len(again.stacked.stack.keys) < 4) == (3, True)
    train(again)
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "straight")
    train(seeds_of(tmp_path, LONGER, 4, "stopped", ensemble=True, resume=True))  # finished: nothing changes
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "straight")


KILLED = """
import os, signal
from pathlib import Path
from nnrun.runs.signals import Signals
from nnrun.seeds import Seeds
from nnrun.spec.reader import read_spec
seeds = Seeds(*read_spec(Path("it.yaml")), 3, out=Path("killed"))
for _, run in seeds.runs():
    for record in seeds.train(run, Signals()):
        if record.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_seeds_that_are_killed_go_on_to_the_same_bytes(tmp_path: Path):
    """SIGKILL loses what lies after the last save, and no more."""
    text = DEEP + "checkpoint: {every: 1 epoch}\n"
    (tmp_path / "it.yaml").write_text(text)
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = seeds_of(tmp_path, text, 3, "killed", resume=True)
    assert again.stacked
    assert again.stacked.state.epoch == 2
    train(again)
    train(seeds_of(tmp_path, text, 3, "straight"))
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "straight")


def test_seeds_one_after_another_go_on_to_the_same_bytes(tmp_path: Path):
    """A network that was finished is not trained again, the one that was left goes on, the last one begins."""
    text = IRIS + "schedule: plateau\ncheckpoint: {every: 1 epoch}\n"
    left = seeds_of(tmp_path, text, 3, "left")
    runs = left.runs()
    _, first = next(runs)
    finished = [record.epoch for record in left.train(first, Signals())]
    _, second = next(runs)
    assert (next(left.train(second, Signals())).epoch, finished) == (1, [1, 2, 3])
    for lock in (second.lock, left.lock):
        lock.release()
    again = seeds_of(tmp_path, text, 3, "left", resume=True)
    trained = [(run.spec.seed, record.epoch) for _, run in again.runs() for record in again.train(run, Signals())]
    assert trained == [(4, 2), (4, 3), (5, 1), (5, 2), (5, 3)]
    train(seeds_of(tmp_path, text, 3, "straight"))
    assert fingerprint(tmp_path / "left") == fingerprint(tmp_path / "straight")
