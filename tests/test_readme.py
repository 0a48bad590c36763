"""The README is true: every command in it is run here, in the order it is written, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, Program

README = (ROOT / "README.md").read_text()
BY_CI = "make test"  # this very suite: it cannot run itself


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_command_works(tmp_path: Path):
    """`make train` finds the environment that runs this test, so that nothing is installed again."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "configs", "nnrun"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    os.utime(tmp_path / ".venv" / "ready") if (tmp_path / ".venv" / "ready").exists() else (tmp_path / ".venv" / "ready").touch()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    commands = [block for block in blocks("sh") if not block.startswith(BY_CI)]
    assert len(commands) == len(blocks("sh")) - 1
    for command in commands:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if "--checkpoint my-flats --split test" in command:
            assert "rmse\t" in done.stdout, "prices are numbers, and must not be taken for classes"
        if command.startswith("make train"):
            assert done.stdout.splitlines()[0] == "runs/iris"
            assert "accuracy\t0.98" in done.stdout
    python = subprocess.run([sys.executable, "-c", blocks("python")[0]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert python.returncode == 0, python.stderr


def test_the_error_it_shows_is_the_error_one_gets(nnrun: Program, tmp_path: Path):
    """To the letter."""
    config = re.search(r"cat > flats.yaml <<'END'\n(.*?)END", README, re.DOTALL)
    shown = re.search(r"\$ nnrun (train flats.yaml.*)\n((?:.*\n)*?)```", README)
    assert config
    assert shown
    (tmp_path / "flats.yaml").write_text(config[1])
    done = nnrun(*shown[1].split())
    assert (done.returncode, done.stderr) == (2, shown[2])


def test_the_config_it_shows_is_a_config(nnrun: Program, tmp_path: Path):
    """Every key of the schema is in it, and it trains."""
    from nnrun import builtin  # noqa: F401
    from nnrun.spec.experiment import Experiment
    from nnrun.spec.reader import read_spec

    table, whole = blocks("yaml")
    (tmp_path / "it.yaml").write_text(table)
    assert read_spec(tmp_path / "it.yaml")
    (tmp_path / "it.yaml").write_text(whole)
    spec, source = read_spec(tmp_path / "it.yaml")
    assert set(source.values) | {"threads"} == set(Experiment.model_fields)
    assert nnrun("train", "it.yaml", "--set", "epochs=1").returncode == 0
    del spec
