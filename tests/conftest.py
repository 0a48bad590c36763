"""What every test may use: the program as a user runs it, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nnrun.cli import app

ROOT = Path(__file__).parent.parent

os.environ.setdefault("NNRUN_REPORT", "0")  # hundreds of small runs would each draw one; tests/report asks for it

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def nnrun(tmp_path: Path) -> Program:
    """Return a function that runs `nnrun ARGUMENTS…` as a real process in the test's own folder."""

    def run(*arguments: str | Path, input: str | None = None, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nnrun", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, input=input, capture_output=True, text=True, env=os.environ | environment, check=False)

    return run


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs the same command line in this process: faster, for the many errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, input: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)

    return run


IRIS = "dataset: iris\nlayers: [4]\nepochs: 2\nbatch_size: 50\n"


@pytest.fixture
def iris_config(tmp_path: Path) -> Path:
    """Return a config that trains in milliseconds."""
    config = tmp_path / "tiny.yaml"
    config.write_text(IRIS)
    return config
