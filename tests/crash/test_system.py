"""C2 without a shim: the kernel itself refuses a call of a real process (strace injects the error), or a real disk is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nnrun.runs.resume import newest
from tests.conftest import ROOT
from tests.crash.harness import fingerprint

CONFIG = "name: it\ndataset: iris\npreprocess: [standardize]\nlayers: [8]\nbatch_size: 30\nepochs: 3\ncheckpoint: {every: 1 epoch}\n"
TRAIN = [sys.executable, "-B", "-m", "nnrun", "train", "it.yaml", "--quiet", "--no-report", "--out"]
CALLS = {"fsync": (21, "EIO"), "rename": (13, "EROFS"), "link": (3, "ENOSPC"), "ftruncate": (1, "EACCES")}
"""How often a run of three epochs makes each of these calls; all of them are nnrun's own."""
SAMPLE = ("rename", 6)
EVERY = [(call, time) for call, (times, _) in CALLS.items() for time in range(1, times + 1)]


def begun(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the run is when nothing happens to it."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "it.yaml").write_text(CONFIG)
    assert begun([*TRAIN, "run"], folder).returncode == 0
    return fingerprint(folder / "run")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize(("call", "time"), [pytest.param(*one, marks=[] if one == SAMPLE else pytest.mark.soak) for one in EVERY])
def test_the_kernel_refuses(call: str, time: int, straight: dict[str, Any], tmp_path: Path):
    """Exit 4 with the system's reason; what was saved before is whole, and the run goes on from it to the same end."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    error = CALLS[call][1]
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={time}"]
    done = begun([*trace, *TRAIN, "run"], tmp_path)
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("this machine does not let a process be traced")
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: ")
    if not (tmp_path / "run" / "config.yaml").exists():  # refused before there was a run
        return
    stored, notes = newest(tmp_path / "run", 2)
    assert notes == []
    again = begun([*TRAIN, "run", "--resume"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert fingerprint(tmp_path / "run") == straight
    assert stored is None or stored.facts["epoch"] <= 3


def test_a_full_disk(straight: dict[str, Any], tmp_path: Path):
    """Exit 4, and once there is room again, the run goes on to the same end."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    (tmp_path / "disk").mkdir()
    (tmp_path / "short.yaml").write_text(CONFIG.replace("epochs: 3", "epochs: 1"))
    (tmp_path / "it.yaml").write_text(CONFIG)
    short = [word.replace("it.yaml", "short.yaml") for word in TRAIN]
    script = f"""
        mount -t tmpfs -o size=2m tmpfs disk || exit 77
        {" ".join(short)} disk/run || exit 78
        cat /dev/zero > disk/filler 2> /dev/null
        {" ".join(TRAIN)} disk/run --resume
        echo "code $?"
        cp -r disk/run full
        rm disk/filler
        {" ".join(TRAIN)} disk/run --resume
        cp -r disk/run run
    """
    done = begun(["unshare", "--map-root-user", "--mount", "sh", "-c", script], tmp_path)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine does not let a process mount a disk of its own")
    assert "code 4\n" in done.stdout, done
    stored, notes = newest(tmp_path / "full", 2)
    assert stored is not None
    assert (stored.facts["epoch"], notes) == (1, [])
    assert "No space left on device" in done.stderr
    assert fingerprint(tmp_path / "run") == straight
