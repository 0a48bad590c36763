"""What the tests of many processes share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT

Job = Callable[..., Any]


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Return a function that runs `nnrun ARGUMENTS…` on so many processes: their exit codes, stdout and stderr."""
    folder = tmp_path_factory.mktemp("jobs")
    command = [sys.executable, "-W", "ignore", "-m", "tests.distributed.harness"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as harness:
        assert harness.stdin
        assert harness.stdout

        def run(processes: int, *arguments: str | Path, folder: Path = folder, **more: Any) -> Any:
            asked = {"processes": processes, "arguments": [*map(str, arguments)], "folder": str(folder), **more}
            print(json.dumps(asked), file=harness.stdin, flush=True)
            return SimpleNamespace(**json.loads(harness.stdout.readline()))

        yield run
        harness.stdin.close()


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl, without the time that they took."""
    return [{**json.loads(line), "seconds": 0} for line in (out / "metrics.jsonl").read_text().splitlines()]


def figures_of(out: Path) -> dict[str, float]:
    """Return every figure of a run by its path: of each epoch, and at the end."""
    made = {
        f"{row['epoch']}.{part}.{name}": value
        for row in rows_of(out)
        for part in ("train", "val")
        for name, value in row.get(part, {}).items()
    }
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    return made | {f"end.{part}.{name}": value for part, figures in metrics.items() for name, value in figures.items()}
