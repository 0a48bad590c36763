"""What one sees of a run while it trains and when it is done: on a real terminal, in a pipe, and nothing with --quiet."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from nnrun.live import live_texts
from nnrun.terminal import say_summary

Call = Callable[..., Result]
CONFIG = "dataset: breast_cancer\npreprocess: [standardize]\nlayers: [8]\nbatch_size: 16\nlr: 0.01\nepochs: 60\n"


def on_a_terminal(folder: Path, width: int, *arguments: str) -> list[str]:
    """Return what `nnrun ARGUMENTS…` writes on a terminal, one text for each time that a line was drawn."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    command = [sys.executable, "-m", "nnrun", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm"}
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        written = b""
        while chunk := _read(ours):
            written += chunk
    os.close(ours)
    assert running.returncode == 0, written.decode()
    return re.split(r"\r\n|\r", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other side has gone
        return b""


def test_one_live_line_on_a_terminal(tmp_path: Path):
    """At 80 columns it holds epoch, loss, metric, best so far, rate and time left, is drawn over itself, and is never wrapped."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    written = on_a_terminal(tmp_path, 80, "train", "it.yaml")
    pattern = r"(it .*?)?\d+/60 +loss [\d.e-]+ +val [\d.e-]+ +accuracy [\d.]+ +best [\d.e-]+@\d+ +lr 0.01 +\d:\d\d left *"
    drawn = [line for line in written if re.fullmatch(pattern, line)]
    assert len(drawn) > 1
    assert "60/60" in drawn[-1]
    assert max(map(len, drawn)) <= 80
    summary = written[written.index(next(line for line in written if line.startswith("rows "))) - 1 :]
    assert [line.split()[0] for line in summary[:4]] == ["train", "rows", "loss", "accuracy"]
    assert "runs/it" in summary
    assert "next:   nnrun eval --checkpoint runs/it" in summary


def test_plain_lines_in_a_pipe(call: Call, tmp_path: Path):
    """A quick run has two: the first epoch and the last; stdout has the folder alone, and --quiet has nothing else."""
    (tmp_path / "it.yaml").write_text(CONFIG.replace("60", "20"))
    done = call("train", "it.yaml", "--out", "run")
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert done.stdout == "run\n"
    assert "\x1b" not in done.stderr
    assert [line.split()[1] for line in lines] == ["1/20", "20/20"]
    assert re.fullmatch(r"epoch 20/20  loss \S+  val \S+  accuracy \S+  best \S+@\d+  lr 0.01  0:00 left", lines[-1])
    quiet = call("train", "it.yaml", "--out", "quiet", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("quiet\n", "")


FIGURES = ["a-long-name", "7/100", "loss 0.1", "val 0.2", "accuracy 0.9", "best 0.2@7", "lr 0.01", "0:09 left"]


@pytest.mark.parametrize("width", [10, 30, 60, 80, 120])
def test_a_narrow_line_drops_the_least(width: int):
    """What is left fits, in its order; the epoch and the time left stay last."""
    shown, gap, room = live_texts(FIGURES, width)
    assert len((" " * gap).join(shown)) == width - room - gap
    assert [text for text in FIGURES if text in shown] == shown
    assert "0:09 left" in shown
    if width >= 30:
        assert len((" " * gap).join(shown)) <= width
        assert "7/100" in shown
    if width >= 80:
        assert {"best 0.2@7", "lr 0.01"} <= set(shown)


def test_a_verdict_stands_for_the_baselines(capsys: pytest.CaptureFixture[str]):
    """Where the summary has one, in its own words."""
    parts = {"rows": {"test": 50}, "metrics": {"test": {"loss": 0.1}}, "best_epoch": 7, "epochs": 9, "seconds": {"train": 1.25}}
    say_summary({**parts, "baselines": {"majority": {"metrics": {"loss": 1.0}}}, "verdict": "it beats the majority class"})
    assert capsys.readouterr().err.splitlines()[-2:] == ["it beats the majority class", "best epoch 7 of 9, 1.2 s of training"]


def test_the_summary_with_intervals_and_baselines(capsys: pytest.CaptureFixture[str]):
    """A column for each part however many figures there are; what is wide stays aligned; a figure that is not finite is a dash."""
    say_summary(
        {
            "rows": {"train": 100, "val": 0, "test": 50},
            "metrics": {"train": {"loss": 0.1, "precision_macro": 0.95}, "test": {"loss": None, "precision_macro": 0.98}},
            "intervals": {"test": {"precision_macro": [0.895, 0.9965]}},
            "baselines": {"majority": {"metrics": {"precision_macro": 0.34, "other": 1.0}}},
            "best_epoch": 7,
            "epochs": 9,
            "seconds": {"train": 1.25},
        }
    )
    assert capsys.readouterr().err == (
        "\n"
        "                 train   test\n"
        "rows             100     50\n"
        "loss             0.1000  –\n"
        "precision_macro  0.9500  0.98 [0.90, 1.00]\n"
        "baseline majority: precision_macro 0.3400\n"
        "best epoch 7 of 9, 1.2 s of training\n"
    )
