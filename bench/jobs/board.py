"""The parts `jobs` and `start`: whole processes, seconds of the clock and of the processor, since the machine may be shared.

`jobs` is iris from nothing to predictions, three commands each. `start` is what the help of each program takes. All take turns.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bench.measure import ROOT, moment, process, rounds, spread, times
from nnrun.data import bundled

HERE = Path(__file__).parent
NNRUN = (sys.executable, "-m", "nnrun")
BY_HAND = (sys.executable, HERE / "by_hand.py")
LIGHTNING = (sys.executable, HERE / "lightning_cli.py")
LUDWIG_PYTHON = ROOT / "bench/.venv-ludwig/bin/python"
LUDWIG = (LUDWIG_PYTHON, HERE / "run_ludwig.py")

Command = tuple[str | Path, ...]


def nnrun_job(*options: str) -> Callable[[Path], list[Command]]:
    """Return the three commands of nnrun, with options of `train`."""
    return lambda folder: [
        (*NNRUN, "train", ROOT / "configs/iris.yaml", "--out", "run", *options),
        (*NNRUN, "eval", "--checkpoint", "run"),
        (*NNRUN, "predict", "--checkpoint", "run", "flowers.csv", "--out", "out.csv"),
    ]


def by_hand(folder: Path) -> list[Command]:
    """Return those of a script of 80 lines."""
    return [(*BY_HAND, "train"), (*BY_HAND, "eval"), (*BY_HAND, "predict", "flowers.csv", "out.csv")]


def lightning(folder: Path) -> list[Command]:
    """Return those of LightningCLI, whose checkpoint is named after its epoch and step."""
    checkpoint = "checkpoints/epoch=99-step=5000.ckpt"
    return [(*LIGHTNING, "fit"), (*LIGHTNING, "test", f"--ckpt_path={checkpoint}"), (*LIGHTNING, "predict", f"--ckpt_path={checkpoint}")]


def ludwig(folder: Path) -> list[Command]:
    """Return those of Ludwig."""
    use = ("--model_path", "out/experiment_run/model", "--dataset", "flowers.csv")
    return [
        (*LUDWIG, "train", "--config", HERE / "ludwig.yaml", "--dataset", "flowers.csv", "--output_directory", "out"),
        (*LUDWIG, "evaluate", *use, "--split", "test", "--output_directory", "evaluated"),
        (*LUDWIG, "predict", *use, "--output_directory", "predicted"),
    ]


JOBS: dict[str, Callable[[Path], list[Command]]] = {
    "nnrun": nnrun_job(),
    "nnrun_no_report": nnrun_job("--no-report"),
    "by_hand": by_hand,
    "lightning_cli": lightning,
    "ludwig": ludwig,
}
STARTS: dict[str, Command] = {"nnrun": (*NNRUN, "--help"), "lightning_cli": (*LIGHTNING, "--help"), "ludwig": (*LUDWIG, "train", "--help")}
SLOW = ("lightning_cli", "ludwig")


def flowers(file: Path) -> None:
    """Write all flowers of iris with their species, as a table."""
    x_ND, y_N, species = bundled.classes_file("iris.csv")
    with file.open("w") as out:
        csv.writer(out).writerows([[*bundled.IRIS, "species"], *([*x, species[y]] for x, y in zip(x_ND.tolist(), y_N, strict=True))])


def job(commands: Callable[[Path], list[Command]]) -> tuple[float, float]:
    """Return the seconds of one job in a folder of its own, of the clock and of the processor."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flowers(folder / "flowers.csv")
        took = [process(command, folder) for command in commands(folder)]
    return sum(clock for clock, _ in took), sum(processor for _, processor in took)


def compared(turns: Mapping[str, Callable[[], tuple[float, float]]], repeats: int) -> dict[str, Any]:
    """Let all take turns; return the seconds of each, and how many times as many those are as nnrun's."""
    when = moment()

    def once(number: int) -> dict[tuple[str, str], float]:
        return {
            (name, key): value for name, turn in turns.items() for key, value in zip(("seconds", "processor_seconds"), turn(), strict=True)
        }

    found = rounds(once, repeats)
    return {
        name: {
            "measured": when,
            "rounds": repeats,
            "seconds": spread(found[name, "seconds"]),
            "processor_seconds": spread(found[name, "processor_seconds"]),
            "times_nnrun": times(found[name, "seconds"], found["nnrun", "seconds"]),
            "processor_times_nnrun": times(found[name, "processor_seconds"], found["nnrun", "processor_seconds"]),
        }
        for name in turns
    }


def jobs(repeats: int, *, full: bool = False, only: Collection[str] = ()) -> dict[str, Any]:
    """Return the figures of the whole experiment; LightningCLI and Ludwig are left out of a short run."""
    chosen = _chosen(JOBS, full, only)
    return compared({name: lambda commands=JOBS[name]: job(commands) for name in chosen}, max(2, repeats // 2))


def start(repeats: int, *, full: bool = False, only: Collection[str] = ()) -> dict[str, Any]:
    """Return the figures of `--help`."""
    chosen = _chosen(STARTS, full, only)
    return compared({name: lambda command=STARTS[name]: process(command, ROOT) for name in chosen}, max(2, repeats // 2))


def _chosen(names: Collection[str], full: bool, only: Collection[str]) -> list[str]:
    """Return who takes turns: nnrun, and of the others those that were asked for and are installed."""
    there = [name for name in names if name != "ludwig" or LUDWIG_PYTHON.is_file()]
    return [name for name in there if name == "nnrun" or (name in only if only else full or name not in SLOW)]


def ludwig_version() -> dict[str, str]:
    """Return the version of Ludwig in its own environment; {} where that was not set up."""
    found = next(LUDWIG_PYTHON.parent.parent.glob("lib/*/site-packages/ludwig-*.dist-info"), None)
    return {"ludwig": found.stem.partition("-")[2]} if found else {}
