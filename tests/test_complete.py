"""What the shell offers after Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnrun import complete


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with configs, run folders and other things."""
    for file in ("iris.yaml", "notes.txt", "configs/lenet.yml", "configs/iris.yaml", ".hidden/x.yaml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    for run in ("runs/iris", "runs/iris-2", "mine"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.yaml").touch()
    (tmp_path / "runs" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_config_files(folder: Path):
    """Here and one folder below, as they would be typed."""
    assert complete.configs("") == ["iris.yaml", "configs/iris.yaml", "configs/lenet.yml", "mine/config.yaml"]
    assert complete.configs("configs/l") == ["configs/lenet.yml"]
    assert complete.configs("./i") == ["./iris.yaml"]
    assert complete.configs(f"{folder}/configs/i") == [f"{folder}/configs/iris.yaml"]
    assert complete.configs("absent/") == []


def test_run_folders(folder: Path):
    """Those that hold a run; a folder without one is no run."""
    assert complete.runs("") == ["mine", "runs/iris", "runs/iris-2"]
    assert complete.runs("runs/iris-") == ["runs/iris-2"]
    assert complete.runs("ru") == ["runs/iris", "runs/iris-2"]


def test_kinds_and_names():
    """Each with its help, which zsh and fish show."""
    assert [kind for kind, _ in complete.kinds("l")] == ["layers", "losses"]
    context = SimpleNamespace(params={"kind": "optimizers"})
    assert [name for name, help in complete.names(context, "ad") if help] == ["adam", "adamw", "adagrad", "adadelta"]  # type: ignore[arg-type]
    assert complete.names(SimpleNamespace(params={"kind": "nothing"}), "") == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("nnrun train con", ["configs/iris.yaml", "configs/lenet.yml"]),
        ("nnrun list opt", ["optimizers"]),
        ("nnrun list optimizers ada", ["adam", "adamw", "adagrad", "adadelta"]),
        ("nnrun show runs/", ["runs/iris", "runs/iris-2"]),
        ("nnrun eval --checkpoint m", ["mine"]),
    ],
)
def test_a_real_shell_gets_them(folder: Path, typed: str, offered: list[str]):
    """As bash asks: the program itself answers, and does not import torch for it."""
    asked = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
        "_NNRUN_COMPLETE": "complete_bash",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    program = Path(sys.executable).parent / "nnrun"
    done = subprocess.run([program], cwd=folder, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == offered, done.stderr[-2000:]
    assert not [line for line in done.stderr.splitlines() if line.endswith((" torch", " numpy"))]
