"""R1, R2, C1, C2, C4: a run that is killed, starved or asked to stop anywhere ends with the bytes of one that never was.

The large counts are under `make soak`; here is a sample of each kind. Negative controls break nnrun and must turn the same harness red.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nnrun.data.idx import FASHION_MNIST, find
from tests.conftest import ROOT

IRIS = "dataset: iris\nsplit: {train: 0.67, test: 0.33, method: train_test_split}\nseed: 1\npreprocess: [{standardize: all}]\nlayers: [16]\nactivation: sigmoid\nbatch_size: 2\nepochs: 2\n"
CANCER = "dataset: breast_cancer\npreprocess: [standardize]\nlayers: [{linear: 10}, relu, dropout, {linear: auto}]\noptimizer: {sgd: {momentum: 0.9}}\nlr: 0.02\nbatch_size: 10\ndrop_last: true\nepochs: 3\n"
TANH = "dataset:\n  name: points\n  x: [35.7, 55.9, 58.2, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4, 68.4]\n  y: [0.5, 14, 15, 28, 11, 8, 3, -4, 6, 13, 21]\nsplit: {method: rows, val: [3, 7]}\npreprocess: [{scale: 0.1}]\nlayers:\n  - {linear: 13, name: hidden}\n  - tanh\n  - {linear: auto, name: output}\noptimizer: sgd\nlr: 1e-3\nbatch_size: all\nepochs: 60\n"
LENET = (
    (ROOT / "configs" / "lenet.yaml")
    .read_text()
    .replace("0:60000", "0:640")
    .replace("60000:70000", "60000:60100")
    .replace("epochs: 5", "epochs: 3")
)
SMALL = "dataset: iris\npreprocess: [standardize]\nlayers: [8]\nbatch_size: 30\nepochs: 3\n"


def harness(folder: Path, config: str, blows: list[dict[str, Any]], mutate: str = "") -> dict[str, Any]:
    """Run the harness in a process of its own; in memory where that can be, since syncing thousands of files takes minutes on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else folder) as work:
        return _harness(Path(work), config, blows, mutate)


def _harness(folder: Path, config: str, blows: list[dict[str, Any]], mutate: str) -> dict[str, Any]:
    case = folder / "case.json"
    case.write_text(json.dumps({"config": config, "blows": blows, "mutate": mutate}))
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.harness", str(folder), str(case)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def unequal(result: dict[str, Any]) -> list[Any]:
    return [(one["blow"], one["codes"]) for one in result["found"] if not one["equal"]]


EXPERIMENTS = {
    "iris-steps": (IRIS, "9 steps", 100),
    "cancer-epochs": (CANCER, "1 epoch", 102),
    "cancer-steps": (CANCER, "5 steps", 102),
    "tanh-epochs": (TANH, "4 epochs", 60),
    "tanh-auto": (TANH, "auto", 60),
}
"""Config, `checkpoint.every`, and the steps of the whole run."""

FEW = pytest.param(29, id="few")
ALL = pytest.param(1, id="all", marks=pytest.mark.soak)


@pytest.mark.parametrize("stride", [FEW, ALL])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_killed_after_any_step(name: str, stride: int, tmp_path: Path):
    """SIGKILL after the first step, the last, and those between; in the middle of an epoch and at its edge."""
    config, every, steps = EXPERIMENTS[name]
    blows = [{"kind": "step", "at": [at]} for at in sorted({*range(1, steps + 1, stride), steps // 2, steps})]
    result = harness(tmp_path, f"{config}checkpoint: {{every: {every}}}\n", blows)
    assert unequal(result) == []
    assert {one["codes"][0] for one in result["found"]} == {-9}


def test_killed_in_lenet(tmp_path: Path):
    """Convolutions, ten batches an epoch, a checkpoint every third step."""
    if find(FASHION_MNIST) is None:
        pytest.skip("FashionMNIST's files cannot be had on this machine (Debian's package dataset-fashion-mnist)")
    blows = [{"kind": "step", "at": [at]} for at in (1, 10, 17, 30)]
    assert unequal(harness(tmp_path, f"{LENET}checkpoint: {{every: 3 steps}}\n", blows)) == []


def test_killed_while_scoring_at_records_and_twice(tmp_path: Path):
    """During an evaluation, as a record comes out, twice in one epoch, and three times in a run."""
    blows: list[dict[str, Any]] = [{"kind": "score", "at": [at]} for at in (1, 2, 3, 4)]
    blows += [{"kind": "epoch", "at": [at]} for at in (1, 2, 3)]
    blows += [{"kind": "step", "at": at} for at in ([3, 4], [36, 5, 20])]
    result = harness(tmp_path, f"{CANCER}checkpoint: {{every: 2 steps}}\n", blows)
    assert unequal(result) == []


@pytest.mark.parametrize("stride", [pytest.param(3, id="few"), ALL])
def test_killed_before_every_file_call(stride: int, tmp_path: Path):
    """Nothing is torn, and no epoch that was told is lost, wherever a save is cut off."""
    blows = [{"kind": "file", "at": [at]} for at in range(1, 75, stride)]
    result = harness(tmp_path, f"{SMALL}checkpoint: {{every: 1 epoch}}\n", blows)
    assert unequal(result) == []
    assert [one["blow"] for one in result["found"] if one.get("lost_epochs") or one.get("torn") or one.get("leftovers")] == []
    assert sum(one["codes"][0] == -9 for one in result["found"]) * stride > 60, "the blows no longer reach to the end of the run"


@pytest.mark.parametrize("stride", [pytest.param(17, id="few"), ALL])
@pytest.mark.parametrize("number", ["ENOSPC", "EIO", "EROFS", "EACCES"])
def test_the_system_refuses_any_file_call(number: str, stride: int, tmp_path: Path):
    """Exit 4, the checkpoint before it is whole, and the run goes on once the disk does."""
    blows = [{"kind": "errno", "at": [at], "extra": number} for at in range(1, 75, stride)]
    result = harness(tmp_path, f"{SMALL}checkpoint: {{every: 1 epoch}}\n", blows)
    assert unequal(result) == []
    reached = [one for one in result["found"] if one["codes"][0] != 0]
    assert {one["codes"][0] for one in reached} == {4}
    assert len(reached) * stride > 50
    assert not any(one.get("torn") for one in result["found"])


def at_random(kind: str, count: int, seconds: float, **extra: Any) -> list[dict[str, Any]]:
    chance = random.Random(5)
    return [{"kind": kind, "at": [chance.uniform(0.001, seconds)], **extra} for _ in range(count)]


def test_killed_at_random_times(tmp_path: Path):
    """Whatever it was doing."""
    result = harness(tmp_path, f"{CANCER}checkpoint: {{every: 1 epoch}}\n", at_random("time", 8, 0.15))
    assert unequal(result) == []
    assert max(one.get("lost_epochs", 0) for one in result["found"]) == 0


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 0)])
def test_a_signal_saves_and_ends_with_its_code(name: str, code: int, tmp_path: Path):
    """At once before training begins, after the step it is in from then on; SIGUSR1 only saves."""
    config = CANCER.replace("epochs: 3", "epochs: 12")
    result = harness(tmp_path, config, at_random("signal", 4, 0.4, extra=name))
    assert unequal(result) == []
    assert {one["codes"][0] for one in result["found"]} <= {0, code}
    assert max(max(one["seconds"]) for one in result["found"]) < 10


@pytest.mark.parametrize("mutate", ["random state", "optimizer"])
def test_the_harness_sees_a_resume_that_is_not_exact(mutate: str, tmp_path: Path):
    """Negative control: nnrun is broken on purpose, and the same test must fail."""
    blows = [{"kind": "step", "at": [at]} for at in (5, 40)]
    assert len(unequal(harness(tmp_path, f"{CANCER}checkpoint: {{every: 2 steps}}\n", blows, mutate))) == 2


def test_the_harness_sees_a_file_written_in_place(tmp_path: Path):
    """Negative control: without the commit protocol some blow tears a file."""
    blows = [{"kind": "file", "at": [at]} for at in range(14, 30, 3)]
    result = harness(tmp_path, f"{SMALL}checkpoint: {{every: 1 epoch}}\n", blows, "in place")
    assert unequal(result) != []


@pytest.mark.soak
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_killed_at_hundreds_of_random_times(name: str, tmp_path: Path):
    """The large count: 70 times for each experiment, twice each."""
    blows = [{"kind": "time", "at": [one["at"][0], one["at"][0] / 2]} for one in at_random("time", 70, 0.3)]
    result = harness(tmp_path, f"{EXPERIMENTS[name][0]}checkpoint: {{every: 1 epoch}}\n", blows)
    assert unequal(result) == []
    assert max(one.get("lost_epochs", 0) for one in result["found"]) == 0


@pytest.mark.soak
def test_a_hundred_signals(tmp_path: Path):
    """Of every kind, at random times."""
    blows = [one for name in ("SIGINT", "SIGTERM", "SIGUSR1") for one in at_random("signal", 40, 0.5, extra=name)]
    result = harness(tmp_path, CANCER.replace("epochs: 3", "epochs: 12"), blows)
    assert unequal(result) == []
    assert max(max(one["seconds"]) for one in result["found"]) < 10


def test_of_ten_that_start_at_once_one_runs(tmp_path: Path):
    """The others are told, exit 2, and leave its folder alone; when it has died, the next start works at once."""
    (tmp_path / "it.yaml").write_text(CANCER.replace("epochs: 3", "epochs: 30"))
    command = [sys.executable, "-m", "nnrun", "train", "it.yaml", "--out", "run", "--quiet"]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(10)]
    told = [(*one.communicate(), one.returncode) for one in started]
    assert sorted(code for _, _, code in told) == [0] + [2] * 9, told
    assert all(
        "another process is training in run" in error or "the run folder run is not empty" in error for _, error, code in told if code
    )
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 30
