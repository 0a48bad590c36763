"""torchrun itself: what it starts, what it starts again, and what it ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nnrun.runs.folder import BEST, LAST
from tests.conftest import Program
from tests.distributed.conftest import Job, rows_of

CONFIG = (
    "dataset: iris\npreprocess: [standardize]\nlayers: [{linear: 16}, relu, {dropout: 0.2}, {linear: auto}]\n"
    "epochs: 40\nbatch_size: 8\ncheckpoint: {every: 7 steps}\n"
)
Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def torchrun(tmp_path: Path) -> Started:
    """Return a function that starts `torchrun OPTIONS -m nnrun train it.yaml ARGUMENTS` in the test's folder."""
    (tmp_path / "it.yaml").write_text(CONFIG)

    def start(*options: str, arguments: tuple[str | Path, ...] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *options, "-m", "nnrun", "train", "it.yaml", "-q"]
        told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*command, *map(str, arguments)], cwd=tmp_path, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **told
        )  # type: ignore[call-overload]

    return start


def workers(agent: int) -> list[int]:
    """Return the processes that torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


def wait_for(file: Path, *, rows: int = 0) -> None:
    """Wait until a run has written a file, and so many rows of it."""
    until = time.monotonic() + 60
    while not file.exists() or (rows and file.read_bytes().count(b"\n") < rows):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_one_process_of_torchrun_is_a_plain_run(torchrun: Started, job: Job, tmp_path: Path):
    """To the byte; and stdout is the folder."""
    agent = torchrun("--nproc-per-node", "1", arguments=("--out", "one"))
    assert job(0, "train", "it.yaml", "--out", "plain", "-q", folder=tmp_path).codes == [0]
    assert agent.communicate(timeout=60) == ("one\n", "")
    assert agent.returncode == 0
    for name in (BEST, LAST):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_killed_process_is_started_again_and_the_end_is_the_same(torchrun: Started, job: Job, tmp_path: Path):
    """SIGKILL under --max-restarts, in a folder that nobody named: it goes on there, to the bytes of the undisturbed run."""
    agent = torchrun("--nproc-per-node", "2", "--max-restarts", "3")
    wait_for(tmp_path / "runs" / "it" / BEST)
    os.kill(workers(agent.pid)[1], signal.SIGKILL)
    out, err = agent.communicate(timeout=90)
    assert (agent.returncode, out) == (0, "runs/it\n"), err
    assert err.count("error: process 1 of 2 does not answer after step ") == 1
    assert job(2, "train", "it.yaml", "--out", "straight", "-q", folder=tmp_path).codes == [0, 0]
    for name in (BEST, LAST):
        assert (tmp_path / "runs" / "it" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert rows_of(tmp_path / "runs" / "it") == rows_of(tmp_path / "straight")


@pytest.mark.soak
def test_twenty_kills(torchrun: Started, job: Job, tmp_path: Path):
    """Ten runs, each killed twice: a process drawn by lot, in the first or the second half of the run, at any moment of a step or a save."""
    draw = random.Random(0)
    assert job(2, "train", "it.yaml", "--out", "straight", "-q", folder=tmp_path).codes == [0, 0]
    for number in range(10):
        out = tmp_path / f"hurt-{number}"
        agent = torchrun("--nproc-per-node", "2", "--max-restarts", "3", arguments=("--out", out.name))
        for epoch in (draw.randint(1, 18), draw.randint(20, 38)):
            wait_for(out / "metrics.jsonl", rows=epoch)
            time.sleep(draw.uniform(0, 0.02))
            os.kill(draw.choice(workers(agent.pid)), signal.SIGKILL)
        told = agent.communicate(timeout=120)[1]
        assert agent.returncode == 0, told
        assert told.count("error: process ") == 2, told
        for name in (BEST, LAST):
            assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
        assert rows_of(out) == rows_of(tmp_path / "straight")


def test_sigterm_to_torchrun_saves_and_the_run_goes_on(torchrun: Started, job: Job, tmp_path: Path):
    """All processes stop after the same step."""
    agent = torchrun("--nproc-per-node", "2", arguments=("--out", "hurt"))
    wait_for(tmp_path / "hurt" / BEST)
    agent.send_signal(signal.SIGTERM)
    out, err = agent.communicate(timeout=30)
    assert out == ""
    assert err.count("error: stopped by a signal in epoch ") == 1
    for folder, resume in (("hurt", ["--resume"]), ("straight", [])):
        assert job(2, "train", "it.yaml", "--out", folder, *resume, "-q", folder=tmp_path).codes == [0, 0]
    for name in (BEST, LAST):
        assert (tmp_path / "hurt" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_nproc_is_torchrun(nnrun: Program, job: Job, tmp_path: Path):
    """The bytes of torchrun's own two processes, one line on stdout, the exit code of the process that failed, and its words alone."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    done = nnrun("train", "it.yaml", "--nproc", "2", "--out", "two", "-q", OMP_NUM_THREADS="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "two\n", "")
    assert job(2, "train", "it.yaml", "--out", "straight", "-q", folder=tmp_path).codes == [0, 0]
    assert (tmp_path / "two" / LAST).read_bytes() == (tmp_path / "straight" / LAST).read_bytes()
    done = nnrun("train", "it.yaml", "--nproc=2", "--out", "two", "-q")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the run folder two is not empty\nfix: give a new folder, or go on with the run in it by --resume\n"
    done = nnrun("train", "it.yaml", "--nproc", "2", "--set", "lr=x")
    assert (done.returncode, done.stderr) == (2, "error: --set:1:4: lr: 'x' is not a number\n    1 | lr=x\n      |    ^\n")


def test_nproc_says_what_nnrun_says_and_nothing_of_torchrun(tmp_path: Path):
    """A process that is killed is a fault of the environment, 4; SIGTERM is 143: one error each, and no line of anybody else."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "nnrun", "train", "it.yaml", "--nproc", "2", "--set", "epochs=4000", "-q", "--out", "it"]

    def started(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, *more], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    killed = started()
    wait_for(tmp_path / "it" / BEST)
    os.kill(workers(killed.pid)[1], signal.SIGKILL)
    out, err = killed.communicate(timeout=60)
    assert (killed.returncode, out) == (4, "")
    assert [line[:5] for line in err.splitlines()] == ["error", "fix: "], err
    rows = len(rows_of(tmp_path / "it"))
    stopped = started("--resume")
    wait_for(tmp_path / "it" / "metrics.jsonl", rows=rows + 1)
    stopped.terminate()
    out, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, out) == (143, "")
    assert [line[:5] for line in err.splitlines()] == ["error", "fix: "], err
