"""Whole processes: the start of the program, and the Iris experiment, trained, scored and used, against a script that does all of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROWS = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n" + "5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n" * 25
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
        "iris_train": [sys.executable, "-m", "nnrun", "train", config, "--quiet", "--out", "run"],
        "iris_eval": [sys.executable, "-m", "nnrun", "eval", "--checkpoint", "run"],
        "iris_predict": [sys.executable, "-m", "nnrun", "predict", "--checkpoint", "run", "rows.csv", "--out", "predictions.csv"],
        "show": [sys.executable, "-m", "nnrun", "show", "run"],
        "iris_no_report": [sys.executable, "-m", "nnrun", "train", config, "--quiet", "--no-report"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rows.csv").write_text(ROWS)
        for repeat in range(repeats + 1):
            shutil.rmtree(Path(folder, "run"), ignore_errors=True)
            for name, command in commands.items():
                took = seconds(command, folder)
                if repeat:
                    times[name].append(took)
    times["iris_three"] = [sum(three) for three in zip(*(times[f"iris_{name}"] for name in ("train", "eval", "predict")), strict=True)]
    ratios = sorted(mine / other for mine, other in zip(times["iris_three"], times["iris_script"], strict=True))
    figures = {"iris_three_ratio": median(ratios), "iris_three_spread": [ratios[0], ratios[-1]]}
    return {f"{name}_seconds": median(values) for name, values in times.items()} | figures
