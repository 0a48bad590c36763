"""One process fails, and all end: with its error, told once, and its exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.distributed.conftest import Job

CONFIG = "dataset: iris\nlayers: [8]\nbatch_size: 8\nepochs: 20\nstrategy: {ddp: {timeout: 2}}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the config of a run of 240 steps."""
    path = tmp_path / "it.yaml"
    path.write_text(CONFIG)
    return path


def test_an_error_of_one_process_is_the_only_one(job: Job, config: Path):
    """The others lose it, and say nothing."""
    done = job(3, "train", config, "-q", folder=config.parent, fail=[1, 20, "OSError"])
    assert done.codes == [4, 4, 4]
    assert done.err == "error: the system refused: No space left on device\nfix: check the disk, and where the output goes\n"
    assert done.out == ""


def test_a_bug_of_ours_shows_its_traceback_once(job: Job, config: Path):
    """And nothing of the others."""
    done = job(2, "train", config, "-q", folder=config.parent, fail=[0, 20, "ValueError"])
    assert done.codes == [1, 1]
    assert done.err.count("Traceback (most recent call last)") == 1
    assert done.err.endswith("ValueError: a fault of ours\n")


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_a_process_that_is_gone_or_hangs_is_named(signal: str, job: Job, config: Path):
    """With the step, and a way to go on; a hang when the timeout of the strategy is over."""
    done = job(3, "train", config, "-q", folder=config.parent, fail=[1, 20, signal])
    assert sorted(done.codes) == [-9, 4, 4]
    first, fix = done.err.splitlines()
    here = r"error: process 1 of 3 does not answer after step 2[01] \(counted from 0, this is process [02]\): killed, out of memory, or hanging"
    assert re.fullmatch(here, first)
    assert fix == "fix: go on from the last checkpoint with --resume; `torchrun --max-restarts 3` does so by itself"


REFUSED = {
    "a config fault": (["--set", "lr=x"], "error: --set:1:4: lr: 'x' is not a number\n    1 | lr=x\n      |    ^\n"),
    "an option": (["--nothing"], "error: nnrun train has no option --nothing\n"),
    "a fault of the data": (
        ["--set", "split={train: 500, val: 0, test: 0}"],
        "error: --set:1:7: the dataset has 150 rows, and the split wants 500 train\n",
    ),
    "many networks": (
        ["--seeds", "4"],
        "error: --seeds trains many networks, each in one process\nfix: leave --seeds out, or start one process\n",
    ),
    "processes within processes": (["--nproc", "2"], "error: --nproc starts processes, and torchrun has started some already\n"),
    "an optimizer that searches": (
        ["--set", "optimizer=lbfgs"],
        "error: --set:1:11: lbfgs looks at the loss several times in one step, which 2 processes cannot share\n",
    ),
    "batch norm of single rows": (
        [
            "--set",
            "layers=[{linear: 8}, batch_norm, {linear: auto}]",
            "--set",
            "split={train: 90, val: 0, test: rest}",
            "--set",
            "batch_size=87",
        ],
        "error: --set:1:12: a batch of 3 rows leaves less than two to some of 2 processes, and batch_norm needs two\n",
    ),
    "one device": (["--set", "device=cuda:1"], "error: --set:1:8: device 'cuda:1' is one device, and 2 processes want one each\n"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_all_find_is_told_once(what: str, job: Job, config: Path):
    """Before torch is imported, and after."""
    arguments, told = REFUSED[what]
    done = job(2, "train", config, "-q", *arguments, folder=config.parent)
    assert done.codes == [2, 2]
    assert done.err.startswith(told)
    assert done.err.count("error: ") == 1
    assert done.out == ""


def test_a_command_that_is_misspelt_is_told_once(job: Job, config: Path):
    """As by one process: no fault of ours, and exit code 2."""
    done = job(2, "trian", config, folder=config.parent)
    assert (done.codes, done.err.splitlines()[0], done.err.count("error: ")) == ([2, 2], "error: nnrun has no command 'trian'", 1)


@pytest.mark.parametrize("fault", [[], ["--set", "optimizer=lbfgs"]])
def test_without_torchrun_the_first_process_keeps_the_store(fault: list[str], job: Job, config: Path):
    """RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are enough, as Kubernetes sets them."""
    done = job(2, "train", config, "-q", *fault, folder=config.parent, served=False)
    assert done.codes == [2 if fault else 0] * 2, done.err
    assert (done.out, done.err.count("error: ")) == (("", 1) if fault else ("runs/it\n", 0))
