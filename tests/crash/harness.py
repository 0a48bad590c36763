"""Runs that are hurt on purpose, each in a forked child of one process that has torch imported: a kill costs milliseconds, not seconds.

    python -m tests.crash.harness FOLDER CASE.json     → one JSON document with what was found

A case has the config, and the blows: {"kind": "step", "at": [12]}: SIGKILL after the 12th step of the process, and of the process that resumes
for each further number; "score": during the nth scoring; "epoch": when the nth record comes out; "file": before the nth file call;
"time": after so many seconds; "errno": the nth file call fails; "signal": a signal after so many seconds.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import nnrun.run
from nnrun.errors import CheckpointError, NnrunError
from nnrun.run import open_run
from nnrun.runs.folder import BEST, LAST
from nnrun.runs.resume import newest
from nnrun.runs.signals import Signals
from nnrun.spec.reader import read_spec
from nnrun.training.network import Network
from nnrun.training.step import Step

CALLS = ("open", "write", "fsync", "replace", "link", "ftruncate")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(count: int, call: Callable[..., Any], blow: Callable[[], None], *, before: bool = False) -> Callable[..., Any]:
    """Return the call with a blow at its nth time."""
    done = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        if before and done == count:
            blow()
        result = call(*arguments, **options)
        if not before and done == count:
            blow()
        return result

    return counted


def fail(number: int) -> Callable[[], None]:
    def blow() -> None:
        raise OSError(number, os.strerror(number))

    return blow


def arm(kind: str, at: float, extra: str) -> None:
    """Prepare this process to be hurt."""
    if kind == "step":
        Step.__call__ = after(int(at), Step.__call__, die)  # type: ignore[method-assign]
    elif kind == "score":
        Network.score = after(int(at), Network.score, die, before=True)  # type: ignore[method-assign]
    elif kind in ("file", "errno"):
        blow = die if kind == "file" else fail(getattr(errno, extra))
        done = 0
        for name in CALLS:
            real = getattr(os, name)

            def counted(*arguments: Any, real: Callable[..., Any] = real, **options: Any) -> Any:
                nonlocal done
                done += 1
                if done == int(at):
                    blow()
                return real(*arguments, **options)

            setattr(os, name, counted)
    elif kind == "time":
        signal.signal(signal.SIGALRM, lambda *_: die())
        signal.setitimer(signal.ITIMER_REAL, at)
    elif kind == "signal":
        number = getattr(signal, extra)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
        signal.setitimer(signal.ITIMER_REAL, at)


def child(config: Path, out: Path, *, resume: bool, blow: tuple[str, float, str] | None = None) -> tuple[int, int, float]:
    """Train in a forked process; return its exit code (negative: the signal that killed it), the last epoch it told, and its seconds."""
    read, write = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 0
        try:
            with Signals() as signals:
                if blow and blow[0] != "epoch":
                    arm(*blow)
                for number, record in enumerate(open_run(*read_spec(config), out=out, resume=resume).train(signals), 1):
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
                    os.writev(write, [b"%d\n" % record.epoch])
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
                    if blow and blow[0] == "epoch" and number == int(blow[1]):
                        die()
        except NnrunError as error:
            sys.stderr.write(f"{error}\n")
            code = error.exit_code
        except BaseException as error:  # noqa: BLE001 (a child must not go on as its parent)
            sys.stderr.write(f"{error!r}\n")
            code = 1
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as told:
        epochs = [int(line) for line in told if line.endswith("\n")]
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), max(epochs, default=0), time.monotonic() - started


def fingerprint(out: Path) -> dict[str, Any]:
    """Return everything about a finished run that must not depend on what happened to it."""
    rows = [{**json.loads(line), "seconds": 0} for line in (out / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((out / "summary.json").read_text())
    return {BEST: (out / BEST).read_bytes().hex(), LAST: (out / LAST).read_bytes().hex(), "rows": rows, "metrics": summary["metrics"]}


def hurt(config: Path, out: Path, blow: dict[str, Any], straight: dict[str, Any]) -> dict[str, Any]:
    """Train with one or more blows, resuming after each, then to the end; return what was found."""
    found: dict[str, Any] = {"blow": blow, "codes": [], "seconds": []}
    for number, at in enumerate(blow["at"]):
        code, told, seconds = child(config, out, resume=number > 0, blow=(blow["kind"], at, blow.get("extra", "")))
        found["codes"].append(code)
        found["seconds"].append(seconds)
        if not (out / "config.yaml").exists():  # it never got as far as a run
            found["equal"] = code != 0 and told == 0
            return found
        try:
            stored, notes = newest(out, 2)
        except CheckpointError as error:
            found["equal"], found["error"] = False, str(error)
            return found
        epoch = stored.facts["epoch"] if stored else 0
        found["lost_epochs"] = max(found.get("lost_epochs", 0), told - epoch)
        found["torn"] = found.get("torn", 0) + len(notes)
    code, _, _ = child(config, out, resume=True)
    found["codes"].append(code)
    found["leftovers"] = [file.name for file in out.glob(".*.tmp")]
    found["equal"] = code == 0 and fingerprint(out) == straight
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    case = json.loads(Path(sys.argv[2]).read_text())
    config = folder / "it.yaml"
    config.write_text(case["config"])
    torch.set_num_threads(1)
    for warm in ("Adam", "SGD"):  # torch imports a second's worth of modules with the first optimiser: once, before the forks
        getattr(torch.optim, warm)([torch.nn.Parameter(torch.zeros(1))])
    code, epochs, seconds = child(config, folder / "straight", resume=False)
    assert code == 0, code
    straight = fingerprint(folder / "straight")
    blows = case["blows"]
    if case.get("mutate"):  # a negative control: the harness must turn red
        exec_mutation(case["mutate"])
    found = [hurt(config, folder / f"run-{number}", blow, straight) for number, blow in enumerate(blows)]
    print(json.dumps({"epochs": epochs, "seconds": seconds, "found": found}))


def exec_mutation(name: str) -> None:
    """Break nnrun on purpose, in one of the ways that a change could."""
    real = nnrun.run.restore

    def without_random_state(stored: Any, *rest: Any) -> None:
        real(stored, *rest)
        torch.manual_seed(12345)

    def without_optimizer(stored: Any, state: Any, *rest: Any) -> None:
        kept = {key: dict(value) for key, value in state.optimizer.state_dict().items() if key == "state"}
        real(stored, state, *rest)
        state.optimizer.state.clear()
        del kept

    def in_place(path: Path, data: bytes, *, keep: int = 1) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        half = len(data) // 2
        os.write(descriptor, data[:half])
        os.write(descriptor, data[half:])
        os.close(descriptor)

    if name == "random state":
        nnrun.run.restore = without_random_state
    elif name == "optimizer":
        nnrun.run.restore = without_optimizer
    elif name == "in place":
        nnrun.run.commit = in_place
    else:
        raise ValueError(name)


if __name__ == "__main__":
    main()
