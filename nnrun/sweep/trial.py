"""The run of a trial: a normal run without a test part, which a pruner may end, and what has become of it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnrun.data.dataset import Rows
from nnrun.data.prepare import Prepared, prepare
from nnrun.errors import CheckpointError, EnvironmentFault, NnrunError
from nnrun.plugins import fault_in_plugin
from nnrun.run import Run
from nnrun.runs.folder import Metrics
from nnrun.spec.experiment import Experiment
from nnrun.spec.source import Source
from nnrun.sweep.study import OtherRowsError
from nnrun.training.device import choose_device
from nnrun.training.loop import Moment
from nnrun.training.record import Record


@dataclass(frozen=True)
class Ended:
    """What has become of a trial.

    Args:
        state: complete, pruned or failed.
        value: the metric at its best epoch; None of one that failed.
        epoch: the best one.
        epochs: how many it has trained.
        seconds: of training.
        error: why it failed.
    """

    state: str
    value: float | None = None
    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    error: str = ""


def without_test(data: Prepared) -> Prepared:
    """Return data whose test part is empty: nothing of a sweep can look at its rows."""
    test = data.parts["test"]
    rows = {**data.row_numbers, "test": data.row_numbers["test"][:0]}
    return replace(data, parts={**data.parts, "test": Rows(test.x[:0], test.y[:0])}, row_numbers=rows)


def prepared_for(spec: Experiment) -> Prepared:
    """Return the data of a trial, prepared anew, without its test part."""
    return without_test(prepare(spec, choose_device(spec.device)))


def never(value: float, epoch: int) -> bool:
    """Return that a trial is not given up."""
    return False


class TrialRun(Run):
    """A run that may be ended between two epochs.

    Args:
        data: without a test part.
        hopeless: (figure of the metric, epoch) → whether the pruner gives it up.
    """

    def __init__(self, number: int, spec: Experiment, data: Prepared, hopeless: Callable[[float, int], bool] = never) -> None:
        super().__init__(spec, data)
        self.number, self._hopeless, self.pruned = number, hopeless, False

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.pruned or super().finished

    def _take_in(self, moment: Moment, before: float, metrics: Metrics) -> Record:
        record = super()._take_in(moment, before, metrics)
        value = record.figure(self.progress.best.monitor)
        self.pruned = math.isfinite(value) and not super().finished and self._hopeless(value, record.epoch)
        return record

    def ended(self) -> dict[int, Ended]:
        """Return what has become of it, after its training, by its number."""
        return {self.number: self._ended()}

    def _ended(self) -> Ended:
        best, seconds = self.progress.best, float(self.summary["seconds"]["train"])
        if not best.epoch:
            return Ended("failed", epochs=self.state.epoch, seconds=seconds, error=f"{best.monitor} was not finite in any epoch")
        return Ended("pruned" if self.pruned else "complete", best.value, best.epoch, self.state.epoch, seconds)


def open_trial(
    number: int, spec: Experiment, source: Source, folder: Path, data: Prepared, hopeless: Callable[[float, int], bool]
) -> TrialRun:
    """Return the run of a trial, ready to train: a new one, or one that a worker has left, which goes on from its last checkpoint.

    Raises:
        NnrunError: this config cannot be trained.
    """
    if (folder / "config.yaml").is_file():
        run = TrialRun(number, spec, data, hopeless)
        try:
            run.go_on(folder)
        except CheckpointError:  # no checkpoint of it is whole: it is trained anew
            run.lock.release()
        else:
            return run
    shutil.rmtree(folder, ignore_errors=True)  # made by a worker that was killed before it had written the config
    run = TrialRun(number, spec, data, hopeless)
    run.begin(source, folder)
    return run


OF_THE_CONFIG = ("layers", "batch_size")
"""Keys of which too much is asked when there is no memory for a config; others find some."""


def of_no_trial(error: Exception, folder: Path) -> NnrunError | None:
    """Return the error that ends a worker, because no config can help it: the disk, a device, other rows; None for a fault of the config.

    Args:
        folder: of the trial.
    """
    if fault_in_plugin(error) is not None:
        return None
    if isinstance(error, OSError):
        where, reason = error.filename or folder, error.strerror or str(error)
        error = EnvironmentFault(f"{where}: {reason}", fix="check the folder, its permissions, and the space on the disk")
    if isinstance(error, EnvironmentFault) and not any(fault.at[:1] and fault.at[0] in OF_THE_CONFIG for fault in error.faults):
        return EnvironmentFault(
            [replace(fault, fix=f"{fault.fix}; the same command goes on with it".lstrip("; ")) for fault in error.faults]
        )
    return error if isinstance(error, OtherRowsError) else None


def fault_of(error: Exception) -> str:
    """Return in one sentence why a trial failed."""
    known = error if isinstance(error, NnrunError) else fault_in_plugin(error)
    return known.faults[0].what if known else f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def attributes(ended: Ended, seed: int) -> dict[str, Any]:
    """Return what the study keeps of a trial beside its value."""
    told = {"seed": seed, "epoch": ended.epoch, "epochs": ended.epochs, "seconds": round(ended.seconds, 3)}
    return told | ({"error": ended.error} if ended.error else {})
