"""What every measurement shares: rounds in which all take turns, medians with their spread, and processes of their own.

Machines are shared, and faster in one minute than in the next. So whatever is compared takes turns, a ratio is made within a round, and
told is the median of the rounds with the least and the most of them.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from nnrun.cli import WAITING

ROOT = Path(__file__).parent.parent

Figures = Mapping[Any, float]


def seconds(work: Callable[[], object]) -> float:
    """Return how long something took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds(once: Callable[[int], Figures], count: int) -> dict[Any, list[float]]:
    """Return the figures of `count` rounds, each as a list; round 0 comes before them, warms up, and is not told.

    Args:
        once: number of the round → name → figure; everything that is compared has its turn in it.
    """
    found: dict[Any, list[float]] = {}
    for number in range(count + 1):
        for name, value in once(number).items():
            found.setdefault(name, []).extend([value] if number else [])
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median of the rounds, the least and the most."""
    return {"median": median(values), "least": min(values), "most": max(values)}


def times(these: Sequence[float], those: Sequence[float]) -> dict[str, float]:
    """Return how many times as much the one is as the other, each ratio made within its round."""
    return spread([this / that for this, that in zip(these, those, strict=True)])


def process(command: Sequence[str | Path], folder: Path, *, expected: int = 0) -> tuple[float, float]:
    """Return the seconds that a process took, of the clock and of the processor (its children counted).

    Raises:
        RuntimeError: it ended otherwise than expected; with the end of what it said.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([str(word) for word in command], cwd=folder, check=False, capture_output=True, text=True, env=environment())
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expected:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Child:
    """A process that answers each line with a line of JSON: one for each who takes turns, for their imports would disturb each other."""

    def __init__(self, *arguments: str, ours: bool = False) -> None:
        """Start `python -m ARGUMENTS…` in the folder of the project; see `environment`."""
        command = [sys.executable, "-m", *arguments]
        self.name = " ".join(arguments)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`; a pipe that nobody reads would fill up)
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=environment(ours=ours)
        )

    def ask(self) -> dict[str, Any]:
        """Let it have its turn, and return what it found.

        Raises:
            RuntimeError: it is no more; with the end of what it said.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            print("go", file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())  # type: ignore[no-any-return]
        except (BrokenPipeError, ValueError):
            self._process.kill()
            self._process.wait()
            self._said.seek(0)
            raise RuntimeError(f"{self.name} ended:\n{self._said.read()[-3000:]}") from None

    def close(self) -> None:
        """End it, and wait until it is gone."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


def answer(turn: Callable[[], Mapping[str, Any]]) -> None:
    """Be such a child: take a turn for each line that comes; whatever the work prints goes to nobody."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for _ in sys.stdin:
        print(json.dumps(turn()), file=answers, flush=True)


def environment(*, ours: bool = False) -> dict[str, str]:
    """Return the environment of a process that is measured: threads wait as the tool has it, bytecode is kept as of what is installed.

    Args:
        ours: whether it is nnrun without its program, which sees to that.
    """
    plain = {name: value for name, value in os.environ.items() if name not in (*WAITING, "PYTHONDONTWRITEBYTECODE")}
    return plain | (WAITING if ours else {}) | {"PYTHONUNBUFFERED": "1"}


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, Python, torch."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"processor": name, "cores": os.cpu_count(), "python": platform.python_version(), **versions("torch")}


def versions(*names: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def moment() -> dict[str, Any]:
    """Return when a part was measured, and how busy the machine was as it began."""
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "load": round(os.getloadavg()[0], 1)}
