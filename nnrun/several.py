"""Several runs of one experiment in one folder, as folds and seeds have them: the folder, its lock, going on, and figures over all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from nnrun.errors import CheckpointError, Interrupted
from nnrun.run import Run
from nnrun.runs.folder import commit, lock, new_folder, strict_json
from nnrun.runs.signals import Signals
from nnrun.spec.experiment import Experiment
from nnrun.spec.source import Source
from nnrun.spec.writer import dump_spec
from nnrun.training.record import Record

SHOWN = 10
"""Values of a figure that a line of text has room for."""


class Several:
    """Runs of one experiment.

    Args:
        option: what asks for them on the command line, such as `--folds 5`.
        out: the folder of them all; by default `runs/NAME`.
        resume: go on in `out`: finished runs are kept, the one that was stopped goes on.
        allow_change: keys of the config that may differ from those the runs were started with.

    Attributes:
        is_one_run: whether the folder is opened as that of one run is: it has a best checkpoint, and a report.
        notes: what the user should know of them all.
        summary: what summary.json holds, at the end.
    """

    folder: Path
    lock: BaseFileLock
    is_one_run = False

    def __init__(
        self, spec: Experiment, source: Source, option: str, *, out: Path | None, resume: bool = False, allow_change: Sequence[str] = ()
    ) -> None:
        self.spec, self.source, self.option = spec, source, option
        self.out, self.resume, self.allow_change = out, resume, allow_change
        self.notes: list[str] = []
        self.summary: dict[str, Any] = {}

    def open_folder(self) -> None:
        """Make the folder, or go on in the one that is there.

        Raises:
            CheckpointError: there are no runs to go on with.
            InputError: the folder cannot be used.
        """
        if self.resume:
            if self.out is None or not (self.out / "config.yaml").is_file():
                kind = self.option.partition(" ")[0].removeprefix("--")
                raise CheckpointError(
                    f"{self.out or '--resume'} holds no {kind} to go on with", fix=f"give --out, the folder of the {kind}"
                )
            self.folder, self.lock = self.out, lock(self.out)
        else:
            self.folder, self.lock = new_folder(self.spec.name, self.out)
            commit(self.folder / "config.yaml", dump_spec(self.spec).encode())

    def runs(self) -> Iterator[tuple[str, Run]]:
        """Yield what each run is called, and the run, ready to train; at the end the summary is there."""
        raise NotImplementedError

    def told(self) -> list[str]:
        """Return the lines that say how they came out."""
        raise NotImplementedError

    def train(self, run: Run, signals: Signals) -> Iterator[Record]:
        """Train one of the runs, as `Run.train` does.

        Raises:
            Interrupted: a signal asked for it; it says how to go on with all of them.
        """
        try:
            yield from run.train(signals)
        except Interrupted as error:
            fix = f"go on with them: nnrun train CONFIG {self.option} --out {self.folder} --resume"
            raise Interrupted(error.faults[0].what, fix=fix, number=error.exit_code - 128) from None

    def write_summary(self) -> None:
        """Write summary.json, and give the folder free."""
        commit(self.folder / "summary.json", (strict_json(self.summary, indent=2) + "\n").encode())
        self.lock.release()


def mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean and the deviation (of a sample) of a figure; None where there are too few values."""
    mean = statistics.fmean(values) if values else None
    return {"mean": mean, "deviation": statistics.stdev(values) if len(values) > 1 else None}


def lines_of(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each figure: its mean, its deviation, the interval of the mean where it has one, and its values."""
    width = max(map(len, figures), default=0)
    lines = []
    for name, over in figures.items():
        known = [value for value in over["values"] if value is not None]
        values = ", ".join(f"{value:.4g}" for value in known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
        spread = f" ± {over['deviation']:.2g}" if over["deviation"] is not None else ""
        interval = " [{:.4g}, {:.4g}]".format(*over["interval"]) if over.get("interval") else ""
        lines.append(f"{name:<{width}}  {over['mean'] or 0:.4g}{spread}{interval}  ({values})")
    return lines
