"""Whole processes: the start of the program, and the Iris experiment against a hand-written script that does the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

SCRIPT = Path(__file__).with_name("iris_script.py")


def seconds(command: list[str], folder: str) -> float:
    """Return how long a process took."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True)
    took = time.perf_counter() - started
    assert done.returncode == (2 if "--set" in command else 0), done.stderr.decode()
    return took


def main(repeats: int) -> dict[str, Any]:
    """Return the medians, interleaved."""
    config = str(Path("configs/iris.yaml").absolute())
    commands = {
        "help": [sys.executable, "-m", "nnrun", "--help"],
        "config_fault": [sys.executable, "-m", "nnrun", "train", config, "--set", "lr=fast"],
        "list": [sys.executable, "-m", "nnrun", "list"],
        "iris_script": [sys.executable, str(SCRIPT)],
        "iris_nnrun": [sys.executable, "-m", "nnrun", "train", config, "--quiet"],
        "iris_no_report": [sys.executable, "-m", "nnrun", "train", config, "--quiet", "--no-report"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 1):
            for name, command in commands.items():
                took = seconds(command, folder)
                if repeat:
                    times[name].append(took)
    ratio = median(mine / other for mine, other in zip(times["iris_nnrun"], times["iris_script"], strict=True))
    return {f"{name}_seconds": median(values) for name, values in times.items()} | {"iris_ratio": ratio}
