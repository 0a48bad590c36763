"""Open checkpoints under an audit hook and a memory limit; print what each did. Run as `python -m tests.watched GOOD FILE...`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

import nnrun.model.modules  # noqa: F401 (what a residual imports when it is built)
from nnrun.errors import NnrunError
from nnrun.model.flow import shape_after
from nnrun.registry import KINDS
from nnrun.spec.parts import part_class
from nnrun.trained import load

FORBIDDEN = ("exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class", "marshal.loads",
             "socket.connect", "ctypes.dlopen", "os.rename", "os.remove", "os.link", "os.symlink", "code.__new__", "import")  # fmt: skip

events: list[str] = []


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in FORBIDDEN or (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        events.append(f"{event} {arguments[:1]!r}"[:120])


def status(file: str) -> dict[str, Any]:
    events.clear()
    started = time.monotonic()
    try:
        load(Path(file))
        outcome = "opened"
    except NnrunError as error:
        outcome = type(error).__name__
    except Exception as error:  # noqa: BLE001 (the outcome is what is tested)
        outcome = repr(error)[:200]
    return {"outcome": outcome, "events": list(events), "fast_enough": time.monotonic() - started < 5}


def main() -> None:
    good, *files = sys.argv[1:]
    for registry in KINDS.values():  # a part's own annotations are resolved, by Python's typing, when it is first named
        for name in registry:
            part_class(registry, name)
    found = [status(good), status(good)][1:]  # the first time imports what opening needs
    for layer in (torch.nn.Conv2d(1, 1, 3), torch.nn.Upsample(scale_factor=2), torch.nn.MaxPool2d(3), torch.nn.AdaptiveAvgPool2d(1)):
        shape_after(layer, (1, 3000, 3000))  # torch's own imports for its meta device
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + (1 << 30), pages + (1 << 30)))
    sys.addaudithook(hook)
    print(json.dumps(found + [status(file) for file in files]))


main()
