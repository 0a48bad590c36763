"""What a step, an epoch and a start cost, in counts that no busy machine changes.

Each bound is the count of the day it was last lowered. When one grows, look for the call that came in: a step of a small network is made of
nothing else. Raise a bound only with the reason in LOG.md, and measure with `python -m bench peers process` what it costs.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from nnrun.run import open_run
from nnrun.spec.reader import read_spec
from tests.conftest import ROOT

FIRST, LAST = 17, 25
"""The epochs in between are counted: no look at the weights falls among them, two looks at the losses do."""
MOST: dict[str, dict[str, float]] = {
    "iris": {"python_calls": 867, "file_calls": 1, "operators": 1257, "tensors_made": 703, "host_reads": 51},
    "breast_cancer": {"python_calls": 653, "file_calls": 1, "operators": 803, "tensors_made": 491, "host_reads": 35},
    "thermometer": {"python_calls": 124, "file_calls": 1, "operators": 32, "tensors_made": 22, "host_reads": 2},
}
"""Experiment → the counts of an epoch: of 50 steps, of 34 steps and a validation, of one step and a validation."""
STARTS: list[tuple[list[str], int, set[str]]] = [
    (["--help"], 360, set()),
    (["list"], 395, set()),
    (["list", "layers"], 395, set()),
    (["show", "RUN"], 310, set()),
    (["train", "iris.yaml", "--set", "lr=fast"], 400, set()),
]


class Operators(TorchDispatchMode):
    """Counts torch's operators by name, and the tensors that they make anew."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name().partition(".")[0]] += 1
        self.made += sum(one.alias_info is None and "Tensor" in str(one.type) for one in func._schema.returns)
        return func(*args, **(kwargs or {}))


@contextmanager
def python_calls(counts: Counter[str]) -> Iterator[None]:
    """Count calls of Python functions, and from Python into C."""
    gc.disable()
    sys.setprofile(lambda frame, event, argument: counts.update(["python_calls"] if event in ("call", "c_call") else []))
    try:
        yield
    finally:
        sys.setprofile(None)
        gc.enable()


@contextmanager
def file_calls(counts: Counter[str]) -> Iterator[None]:
    """Count what is asked of the file system."""
    with pytest.MonkeyPatch.context() as patch:
        for call in ("open", "write", "fsync", "replace", "link", "ftruncate", "stat"):
            real = getattr(os, call)
            patch.setattr(os, call, lambda *given, real=real, **named: (counts.update(["file_calls"]), real(*given, **named))[1])
        yield


@contextmanager
def operators(counts: Counter[str]) -> Iterator[None]:
    """Count torch's operators, the tensors that they make, and how often the host reads a number of the device."""
    seen = Operators()
    with seen:
        yield
    reads = sum(count for name, count in seen.counts.items() if name.startswith("aten::_local_scalar_dense"))
    counts.update(operators=seen.counts.total(), tensors_made=seen.made, host_reads=reads)


def counts_of_an_epoch(name: str, folder: Path) -> dict[str, float]:
    """Return the counts of an epoch in the middle of a run with everything at its defaults; no time decides when it saves."""
    counts: Counter[str] = Counter()
    for watch in (python_calls, file_calls, operators):
        settings = [f"epochs={LAST + 1}", "checkpoint.every=1000"]
        records = open_run(*read_spec(ROOT / "configs" / f"{name}.yaml", settings), out=folder / watch.__name__).train()
        next(record for record in records if record.epoch == FIRST)
        with watch(counts):
            next(record for record in records if record.epoch == LAST)
        cast("Generator[object]", records).close()
    return {name: count / (LAST - FIRST) for name, count in counts.items()}


@pytest.mark.parametrize("name", MOST)
def test_an_epoch_costs_no_more_calls_than_it_did(name: str, tmp_path: Path):
    """Calls of Python and of torch, tensors, waits for the device, and calls of the file system: one write an epoch."""
    counts = counts_of_an_epoch(name, tmp_path)
    assert set(counts) == set(MOST[name])
    more = {what: (count, MOST[name][what]) for what, count in counts.items() if count > MOST[name][what]}
    assert not more, f"an epoch of {name} costs more than it did: {more}"


HEAVY = {"torch", "numpy", "polars", "pandas", "sklearn", "scipy", "PIL", "matplotlib", "jinja2", "safetensors"}


@pytest.mark.parametrize(("command", "most", "but"), STARTS)
def test_a_start_imports_no_more_than_it_did(command: list[str], most: int, but: set[str], tmp_path: Path):
    """A command that computes nothing imports nothing that does."""
    code = "import sys\nfrom nnrun.cli import app\ntry:\n    app(sys.argv[1:])\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    checkpoint = ROOT / "tests" / "golden" / "v1"
    given = [str(checkpoint) if word == "RUN" else str(ROOT / "configs" / word) if word.endswith(".yaml") else word for word in command]
    done = subprocess.run([sys.executable, "-c", code, *given], cwd=tmp_path, capture_output=True, text=True, check=False)
    imported = set(done.stderr.splitlines()[-1].split())
    assert "nnrun.cli" in imported, done.stderr
    assert not imported & (HEAVY - but)
    assert len(imported) <= most, f"{len(imported)} modules, where {most} were enough"


def test_a_start_looks_for_no_garbage(tmp_path: Path):
    """Until training is ready; from then on Python collects as ever, and what the start made is left alone."""
    code = """
import gc, sys
from nnrun import cli
usual, before = gc.get_threshold(), [kind["collections"] for kind in gc.get_stats()]
cli._collect_later()
from nnrun.run import open_run
from nnrun.spec.reader import read_spec
open_run(*read_spec(sys.argv[1]))
assert [kind["collections"] for kind in gc.get_stats()] == before
kept = [[] for _ in range(cli.OBJECTS_OF_A_START)]
assert gc.get_threshold() == usual
assert gc.get_freeze_count() > 100_000
ring = []
ring.append(ring)
del ring
assert gc.collect() > 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code, ROOT / "configs" / "iris.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
