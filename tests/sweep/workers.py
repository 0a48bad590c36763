"""Workers of a sweep, each a forked child of one process that has torch and Optuna imported, some of them killed.

    python -m tests.sweep.workers CASE.json     → one JSON document with what was found

A case has the config, the options `trials`, `sampler` and `storage`, the folder `out`, how many `workers` work at once, after how many
seconds each blow falls (`kills`), and whether the journal is torn after each (`tear`).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import cmaes  # noqa: F401
import optuna.importance  # noqa: F401
import sklearn.ensemble  # noqa: F401
import torch

from nnrun.spec.reader import read_spec
from nnrun.sweep.finish import finish
from nnrun.sweep.study import require_optuna
from nnrun.sweep.sweep import Sweep


def work(case: dict[str, Any]) -> None:
    """Do what `nnrun sweep` does."""
    torch.set_num_threads(1)
    sweep = Sweep(*read_spec(case["config"]), out=Path(case["out"]), storage=case.get("storage"))
    for turn in sweep.turns():
        for _ in sweep.records(turn):
            pass
    finish(sweep)


def forked(case: dict[str, Any]) -> int:
    """Return the number of a new process that works."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        work(case)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(out: Path) -> dict[int, float]:
    """Return the number and the value of each trial that the journal says is complete, read line by line."""
    numbers: list[dict[str, Any]] = []
    for line in (out / "journal.log").read_bytes().split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entry, dict) or "worker_id" not in entry:
            continue
        if entry["op_code"] == 4:
            numbers.append({})
        elif entry["op_code"] == 6 and entry["state"] == 1:
            numbers[entry["trial_id"]].setdefault("value", entry["values"][0])
    return {number: one["value"] for number, one in enumerate(numbers) if one}


def main(case: dict[str, Any]) -> dict[str, Any]:
    """Kill workers one after another, then let the last ones work to the end."""
    require_optuna()
    out, draw, lost, torn = Path(case["out"]), random.Random(case.get("seed", 0)), 0, 0
    for seconds in case.get("kills", []):
        number = forked(case)
        for _ in range(6000 if case.get("tear") and not torn else 0):  # however slow the machine, there is something to tear
            if (out / "journal.log").exists():
                break
            time.sleep(0.01)
        time.sleep(seconds)
        before = ended(out) if (out / "journal.log").exists() and not case.get("storage") else {}
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        if case.get("tear") and (out / "journal.log").exists():
            with (out / "journal.log").open("ab") as file:
                file.write(draw.choice([b'{"op_code":6,"worker_id":"x","trial', b"\x00" * 9, b'{"op_code":4}\n', b"\xff\xfe\n{", b"[]\n"]))
            torn += 1
        after = ended(out) if before else {}
        lost += sum(after.get(trial) != value for trial, value in before.items())
    codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in [forked(case) for _ in range(case.get("workers", 1))]]
    summary = json.loads((out / "summary.json").read_text())
    digests = {one.parent.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in out.glob("trial-*/best.safetensors")}
    return {"codes": codes, "lost": lost, "torn": torn, "summary": summary, "digests": digests}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
