"""Many runs on many processes, each process forked from one that has torch imported: a job costs a second, not ten.

    python -m tests.distributed.harness     reads jobs from stdin, one JSON document a line, and answers each in a line

A job: {"processes": 2, "arguments": ["train", …], "folder": …, "stop_at": 20, "fail": [1, 20, "OSError"]}. What torchrun would set and keep is
set and kept here: the environment, and the store. `processes: 0` is a plain run, without any of it. `stop_at`: the last process gets SIGTERM
before that step. `fail`: in this process, at this step, that happens. `served: false`: nobody keeps the store, as without torchrun.
`held: [path, 20]`: before that step each process adds to this file how many bytes it has for weights, gradients, and what the optimizer keeps.
`imports`: modules that are imported once, for this job and all that follow.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import sklearn.model_selection
import torch._dynamo.utils
from torch.distributed import TCPStore
from torch.nn.parallel import DistributedDataParallel

import nnrun.run
import nnrun.training.processes
from nnrun.cli import app
from nnrun.training.shards import own
from nnrun.training.step import Step

LOADED = (sklearn.model_selection, torch._dynamo.utils, DistributedDataParallel, nnrun.run, nnrun.training.processes)
"""What each process would take seconds to import."""


def child(job: dict[str, Any], rank: int, port: int) -> None:
    """Be one process of a job, to its end."""
    for name, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{job['told']}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(job["folder"])
    if count := job["processes"]:
        places = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count}
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": job.get("served", True)}
        os.environ.update({name: str(value) for name, value in (places | meeting).items()})
    arm(job, rank)
    signal.alarm(60)
    code: Any = 1
    try:
        app(job["arguments"])
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def arm(job: dict[str, Any], rank: int) -> None:
    """Have happen at a step what the job asks for."""
    take, update, (who, at, what) = Step.__call__, Step._update, job.get("fail", (-1, -1, ""))

    def taken(self: Step, *given: Any) -> Any:
        step = self._state.step
        if step == job.get("stop_at") and rank == max(0, job["processes"] - 1):
            os.kill(os.getpid(), signal.SIGTERM)
        if (rank, step) == (who, at):
            if what.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, what))
            raise {"OSError": OSError(28, "No space left on device"), "ValueError": ValueError("a fault of ours")}[what]
        return take(self, *given)

    def updated(self: Step, loss: Any) -> None:
        path, step = job.get("held", ("", -1))
        if self._state.step == step:
            with Path(path).open("a") as file:
                print(json.dumps([rank, *held(self._state)]), file=file)
        update(self, loss)

    Step.__call__, Step._update = taken, updated  # type: ignore[method-assign]


def held(state: Any) -> list[int]:
    """Return the bytes of memory that this process has for weights, for their gradients, and for what the optimizer keeps of them."""
    kept = [tensor for of_one in state.optimizer.state.values() for tensor in of_one.values() if tensor.ndim > 0]
    gradients = [parameter.grad for parameter in state.parameters]
    stores = [[own(one.detach()).untyped_storage() for one in some] for some in (state.parameters, gradients, kept)]
    return [sum({store.data_ptr(): store.nbytes() for store in some}.values()) for some in stores]


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; return the exit code of each process, and what all of them told."""
    for name in job.get("imports", ()):
        importlib.import_module(name)
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    port = store.port
    if not job.get("served", True):
        del store
    with tempfile.TemporaryDirectory() as told:
        pids = []
        for rank in range(max(1, job["processes"])):
            pid = os.fork()
            if pid == 0:
                child({**job, "told": told}, rank, port)
            pids.append(pid)
        who, _, what = job.get("fail", (-1, -1, ""))
        if what == "SIGSTOP":  # it would wait for ever
            pids.append(pids.pop(who))
        codes = []
        for pid in pids:
            if what == "SIGSTOP" and pid == pids[-1]:
                os.kill(pid, signal.SIGKILL)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return {"codes": codes, **{name: Path(told, name).read_text() for name in ("out", "err")}}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
