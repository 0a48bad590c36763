"""Training on a table larger than memory: the most memory that `nnrun train` takes, and an epoch streamed beside one in memory.

The table is Parquet, 30 inputs and a target as float64, in files of 500,000 rows; `--gigabytes` says how large (1 by default).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars

ROWS, COLUMNS = 500_000, 30
ROW_BYTES = (COLUMNS + 1) * 8
WATCHED = ("RssAnon", "VmRSS")
CONFIG = """\
dataset: {{parquet: {{path: '{folder}/{files}', target: y, stream: {stream}}}}}
preprocess: [standardize]
layers: [64, 64]
epochs: 1
batch_size: 1024
evaluate: []
"""


def make(folder: Path, gigabytes: float) -> int:
    """Write the files of the table, and return how many rows they have; no two are equal."""
    noise = np.random.default_rng(0)
    x_ND, weights = noise.normal(size=(ROWS, COLUMNS)), noise.normal(size=COLUMNS)
    files = max(2, round(gigabytes * 1e9 / (ROWS * ROW_BYTES)))
    for number in range(files):
        x_ND += 1e-4
        columns = {f"x{column}": x_ND[:, column] for column in range(COLUMNS)}
        y = x_ND @ weights + noise.normal(size=ROWS)
        polars.DataFrame(columns | {"y": y}).write_parquet(folder / f"t-{number:04}.parquet", compression="uncompressed")
    return files * ROWS


def train(folder: Path, files: str, *, stream: bool) -> dict[str, Any]:
    """Train for one epoch in a process of its own; return its summary, its peaks in MB and the seconds of the whole and of the epoch."""
    name = "streamed" if stream else "held"
    config, out = folder / f"{name}.yaml", folder / f"run-{name}-{len(files)}"
    config.write_text(CONFIG.format(folder=folder, files=files, stream=str(stream).lower()))
    peaks, started = dict.fromkeys(WATCHED, 0), time.perf_counter()
    command = [sys.executable, "-m", "nnrun", "train", str(config), "--out", str(out), "--quiet", "--no-report"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        now = {key: int(value.split()[0]) // 1000 for key, _, value in (line.partition(":") for line in lines) if key in WATCHED}
        peaks = {key: max(peak, now.get(key, 0)) for key, peak in peaks.items()}
        time.sleep(0.05)
    assert child.returncode == 0
    summary = json.loads((out / "summary.json").read_text())
    steps = json.loads((out / "metrics.jsonl").read_text())["step"]
    return {
        "rows": sum(summary["rows"].values()),
        **{f"{key}_MB": peak for key, peak in peaks.items()},
        "seconds": time.perf_counter() - started,
        "prepare_seconds": summary["seconds"]["prepare"],
        "step_microseconds": 1e6 * summary["seconds"]["train"] / steps,
        "rmse": summary["metrics"]["test"]["rmse"],
    }


def main(repeats: int, gigabytes: float = 1.0) -> dict[str, Any]:
    """Return the figures of the whole table streamed, and of its first files both ways; each once, for it takes long."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        make(folder, gigabytes)
        first = "t-000[01].parquet"
        return {
            "gigabytes": sum(file.stat().st_size for file in folder.glob("*.parquet")) / 1e9,
            "streamed": train(folder, "t-*.parquet", stream=True),
            "first_files_streamed": train(folder, first, stream=True),
            "first_files_in_memory": train(folder, first, stream=False),
        }
