"""An epoch beside a busy process, against the same epoch on a quiet machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

BUSY = "while True: pass"


def epoch_seconds(folder: str, name: str, epochs: int) -> float:
    """Return the mean seconds of an epoch in a process of its own, the first left out."""
    config = str(Path("configs") / f"{name}.yaml")
    out = Path(folder) / f"{name}-{time.monotonic_ns()}"
    command = [
        sys.executable,
        "-m",
        "nnrun",
        "train",
        config,
        "--quiet",
        "--out",
        str(out),
        "--set",
        f"epochs={epochs}",
        "--set",
        "evaluate=[]",
    ]
    subprocess.run(command, check=True, capture_output=True)
    import json

    rows = [json.loads(line)["seconds"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return median(rows[1:])


def main(repeats: int) -> dict[str, Any]:
    """Return busy against quiet for a small and a large step."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, epochs in (("iris", 100), ("fashion_mnist", 3)):
            ratios = []
            for _ in range(repeats):
                quiet = epoch_seconds(folder, name, epochs)
                neighbour = subprocess.Popen([sys.executable, "-c", BUSY])
                try:
                    busy = epoch_seconds(folder, name, epochs)
                finally:
                    neighbour.kill()
                    neighbour.wait()
                ratios.append(busy / quiet)
            figures[f"{name}_busy_over_quiet"] = median(ratios)
    return figures
