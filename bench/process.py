"""Commands that answer without training: the help, a list, what a run holds, a fault of a config."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import process, rounds, spread


def main(repeats: int) -> dict[str, Any]:
    """Return the seconds of each, in turns."""
    config, nnrun = str(Path("configs/iris.yaml").absolute()), [sys.executable, "-m", "nnrun"]
    commands = {
        "help": ([*nnrun, "--help"], 0),
        "list": ([*nnrun, "list"], 0),
        "show": ([*nnrun, "show", "run"], 0),
        "config_fault": ([*nnrun, "train", config, "--set", "lr=fast"], 2),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process([*nnrun, "train", config, "--quiet", "--no-report", "--out", "run"], folder)
        times = rounds(
            lambda number: {what: process(command, folder, expected=code)[0] for what, (command, code) in commands.items()}, repeats
        )
    return {what: {"seconds": spread(found)} for what, found in times.items()}
