"""Workers that are killed, and workers side by side: no finished trial is lost, none is tried twice, and each is what it would be undisturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

CONFIG = """dataset: iris
split: {train: 0.6, val: 0.2, test: 0.2}
preprocess: [standardize]
layers: [8]
batch_size: 8
epochs: EPOCHS
threads: 1
checkpoint: {every: 1 epoch}
sweep:
  params: {lr: "log:1e-3..1e-1", activation: [relu, tanh], "layers[0]": "int:4..12"}
  trials: TRIALS
  sampler: SAMPLER
"""


def worked(folder: Path, out: str, *, trials: int = 8, epochs: int = 6, sampler: str = "tpe", **case: Any) -> dict[str, Any]:
    """Return what workers of a sweep have left behind, run by the harness in a process of its own."""
    folder.mkdir(exist_ok=True)
    config = folder / "it.yaml"
    config.write_text(CONFIG.replace("EPOCHS", str(epochs)).replace("TRIALS", str(trials)).replace("SAMPLER", sampler))
    file = folder / f"{Path(out).name}.json"
    file.write_text(json.dumps({"config": str(config), "out": str(folder / out), **case}))
    done = subprocess.run([sys.executable, "-m", "tests.sweep.workers", str(file)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["codes"] == [0] * case.get("workers", 1), done.stderr
    return found


def require_same(found: dict[str, Any], undisturbed: dict[str, Any], *, same_values: bool = True) -> None:
    """Hold trials against those that nobody disturbed: their values, their scores, the bytes of their networks."""
    mine, theirs = found["summary"]["sweep"]["trials"], undisturbed["summary"]["sweep"]["trials"]
    assert [one["number"] for one in mine] == list(range(len(theirs)))
    assert {one["state"] for one in mine} == {"complete"}
    assert [one["seed"] for one in mine] == [one["seed"] for one in theirs]
    if same_values:
        kept = ("values", "value", "epoch", "epochs")
        assert [[one[key] for key in kept] for one in mine] == [[one[key] for key in kept] for one in theirs]
        assert found["digests"] == undisturbed["digests"]
        assert found["summary"]["metrics"] == undisturbed["summary"]["metrics"]


def kills(count: int, most: float) -> list[float]:
    draw = random.Random(count)
    return [draw.uniform(0.05, most) for _ in range(count)]


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """Return a folder in memory, where that can be: a thousand synced files take their time on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def undisturbed(memory: Path) -> dict[str, Any]:
    """Return what one worker makes of the sweep that the others are held against."""
    return worked(memory, "undisturbed")


def test_a_killed_worker_loses_nothing(memory: Path, undisturbed: dict[str, Any]):
    """Its trial goes on where the last checkpoint was made, with its values and its seed; a journal torn by each kill is read on."""
    found = worked(memory, "killed", kills=kills(3, 0.5), tear=True)
    assert (found["lost"], found["torn"] > 0) == (0, True)
    require_same(found, undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_twenty_kills(memory: Path, storage: str):
    """The same, of enough trials that what comes of some decides which are tried next."""
    url = {"storage": f"sqlite:///{memory}/twenty.db"} if storage == "sqlite" else {"tear": True}
    alone = worked(memory, "alone", trials=25)
    found = worked(memory, f"twenty-{storage}", trials=25, kills=kills(20, 0.6), **url)
    assert found["lost"] == 0
    require_same(found, alone)


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_workers_side_by_side(memory: Path, undisturbed: dict[str, Any], storage: str):
    """Four begin at the same moment, on a study that is not there yet; each trial is one worker's, and a kill before changes nothing."""
    url = {"storage": f"sqlite:///{memory}/four.db", "kills": [0.4]} if storage == "sqlite" else {}
    require_same(worked(memory, f"four-{storage}", workers=4, **url), undisturbed)


@pytest.fixture(scope="module")
def postgres(memory: Path) -> Iterator[str]:
    """Return the URL of a database of PostgreSQL, started for these tests as the user that Debian makes for it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs or os.getuid() != 0 or shutil.which("runuser") is None:
        pytest.skip("PostgreSQL cannot be started here")
    bin, data = programs[-1].parent, memory / "postgres"
    data.mkdir()
    shutil.chown(data, "postgres")
    memory.chmod(0o755)

    def run(*command: object) -> None:
        done = subprocess.run(["runuser", "-u", "postgres", "--", *map(str, command)], cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run(bin / "initdb", "-D", data / "db", "-A", "trust", "--no-sync")
    run(bin / "pg_ctl", "-D", data / "db", "-w", "-l", data / "log", "-o", f"-k {data} -c listen_addresses= -c fsync=off", "start")
    try:
        yield f"postgresql+psycopg2://postgres@/postgres?host={data}"
    finally:
        run(bin / "pg_ctl", "-D", data / "db", "-m", "immediate", "stop")


def test_workers_on_postgresql(memory: Path, undisturbed: dict[str, Any], postgres: str):
    """Four at once, on a database that has no tables yet."""
    require_same(worked(memory, "postgresql", workers=4, storage=postgres), undisturbed)
