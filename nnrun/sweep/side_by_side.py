"""Trials that differ in numbers alone, trained side by side: what keeps them from it, and their stack, which leaves a folder for each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from nnrun.data.prepare import Prepared
from nnrun.errors import DivergedError, EnvironmentFault, Interrupted
from nnrun.outcome import final_outcome, final_outputs, summed_up
from nnrun.run import Run
from nnrun.runs.checkpoint import Checkpoint, to_bytes
from nnrun.runs.folder import BEST, commit_all, strict_json
from nnrun.runs.resume import fitted, learned_by, named
from nnrun.runs.signals import Signals
from nnrun.spec.experiment import Experiment, plain
from nnrun.spec.source import Source
from nnrun.spec.sweep import SweepSpec
from nnrun.spec.writer import dump_spec
from nnrun.stacked import StackedRun
from nnrun.sweep.trial import Ended
from nnrun.training.device import choose_threads
from nnrun.training.memory import check_stack
from nnrun.training.network import load_weights
from nnrun.training.record import Record
from nnrun.training.stackable import unstackable

AT_ONCE = {"random": 64, "grid": 64, "tpe": 10, "cmaes": 10}
"""Trials that a worker trains at once: of those chosen by what came before, only so many that they do not know of each other."""
MOST_WORK = 5_000_000
"""Multiplications of a step of one network beyond which there is nothing to gain: the processor is busy with it alone."""
DROPOUT = ("dropout", "dropout2d")


def apart(sweep: SweepSpec, runs: Sequence[Run]) -> str:
    """Return why the trials of a sweep are trained one after another; empty when they can be side by side.

    Args:
        runs: of the ends of what is varied.
    """
    if not sweep.side_by_side:
        return "side_by_side is false"
    if sweep.pruner != "none":
        return f"{sweep.pruner} ends each by itself"
    if any(_common(run.spec) != _common(runs[0].spec) for run in runs[1:]):
        return "they differ in more than lr, weight_decay, seed and dropout"
    if any(run.spec.track for run in runs):
        return "each is tracked by itself"
    if (work := max(run.step_work for run in runs)) > MOST_WORK:
        return f"a step of one takes {work:,} multiplications"
    return next((why for run in runs if (why := unstackable(run.spec, run.network.model, run.device, run.data.parts["train"].x))), "")


def how_many(sweep: SweepSpec, run: Run) -> int:
    """Return how many trials a worker trains at once, as far as there is memory."""
    count = AT_ONCE[sweep.sampler]
    while count > 1:
        try:
            check_stack(run.spec, run.network.model, run.data.shape, min(run.plan.batch_size, run.rows["train"]), count, run.device)
        except EnvironmentFault:
            count //= 2
        else:
            break
    return count


def _common(spec: Experiment) -> Any:
    """Return what networks side by side have in common."""
    written = plain(spec)
    written["optimizer"] = {key: value for key, value in written["optimizer"].items() if key != "weight_decay"}
    written["layers"] = _without_chances(written["layers"])
    return {key: value for key, value in written.items() if key not in ("name", "seed", "lr")}


def _without_chances(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_chances(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: {**one, "p": 0} if key in DROPOUT and isinstance(one, dict) else _without_chances(one) for key, one in value.items()}


class TrialStack(StackedRun):
    """The run of several trials.

    Args:
        specs: number → config of each trial.
        data: without a test part.
        source: where the config was read.
        folder: number → run folder.
    """

    def __init__(self, specs: Mapping[int, Experiment], data: Prepared, source: Source, folder: Callable[[int], Path]) -> None:
        super().__init__(next(iter(specs.values())), specs, data, paced=True)
        self._source, self._folder_of = source, folder
        self.folder = folder(next(iter(specs))).parent
        self.lock = FileLock(self.folder / ".stack")  # never taken: the trials are this worker's
        self._rows: list[dict[str, Any]] = []

    def train(self, signals: Signals | None = None) -> Iterator[Record]:
        """Train all to their ends; yield the mean record of each epoch, then write a run folder for each.

        Raises:
            Interrupted: a signal asked for it; nothing of these trials is kept.
        """
        signals, began = signals or Signals(), time.perf_counter()
        signals.training, before = True, began
        try:
            for moment in self._moments(signals):
                if moment.finished:
                    yield self._take_in(moment, before, self)  # type: ignore[arg-type]
                    before = time.perf_counter()
                if signals.stop:
                    what = f"stopped by a signal in epoch {self.state.epoch + 1} of trials that are trained side by side: they begin anew"
                    raise Interrupted(what, number=signals.stop)
                if self.finished:
                    break
        except DivergedError:  # all of them have; each is told by itself
            pass
        signals.training = False
        self.seconds["train"] = time.perf_counter() - began
        self.members = [self._member(number, {}) for number in self.specs if number not in self.together.diverged]
        torch.set_num_threads(choose_threads(self.spec.threads, self.step_work))  # what follows is a matter of one network at a time
        self._write_folders()

    def add(self, row: dict[str, Any]) -> None:
        """Take the row of an epoch, as metrics.jsonl does."""
        self._rows.append(row)

    def ended(self) -> dict[int, Ended]:
        """Return what has become of each trial, by its number."""
        each = self.seconds["train"] / len(self.specs)
        made = {one.seed: Ended("complete", one.judged, one.best_epoch, one.epochs, each) for one in self.members if one.best_epoch}
        return {number: made.get(number, self._failed(number, each)) for number in self.specs}

    def _failed(self, number: int, seconds: float) -> Ended:
        epoch = self.together.diverged.get(number)
        error = f"a number of it is not finite in epoch {epoch}" if epoch else f"{self.together.monitor} was not finite in any epoch"
        return Ended("failed", epochs=epoch or self.state.epoch, seconds=seconds, error=error)

    def _write_folders(self) -> None:
        """Write the run folder of each trial, as a run by itself leaves it, but for the state to go on from."""
        seconds = {name: value / len(self.specs) for name, value in self.seconds.items()}
        facts, learned, made_by = self._facts(), fitted(self.data, self.network), self.provenance()
        source = "".join(line + "\n" for line in self._source.lines).encode()
        files: dict[Path, bytes] = {}
        for member in self.members:
            folder, spec = self._folder_of(member.seed), self.specs[member.seed]
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            files[folder / "config.yaml"] = dump_spec(spec).encode()
            files[folder / "config.source.yaml"] = source
            files[folder / "metrics.jsonl"] = "".join(strict_json(row) + "\n" for row in self._rows_of(member.seed, member.epochs)).encode()
            own = facts | {"spec": learned_by(spec), "epoch": member.best_epoch}
            files[folder / BEST] = to_bytes(Checkpoint(named("model", member.weights) | learned, own))
            load_weights(self.network.model, member.weights)
            outputs = final_outputs(self.network, self.data)
            summary = summed_up(
                final_outcome(self.network, self.data, spec, outputs, work=0, baselines=self.baselines),
                name=spec.name,
                folder=folder,
                epochs=member.epochs,
                best_epoch=member.best_epoch,
                rows=self.rows,
                notes=self.notes,
                provenance=made_by,
                seconds=seconds,
            )
            files[folder / "summary.json"] = (strict_json(summary, indent=2) + "\n").encode()
        commit_all(files)

    def _rows_of(self, number: int, epochs: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of one trial."""
        place, rate = list(self.specs).index(number), self.specs[number].lr
        for row in self._rows[:epochs]:
            there = [part for part in ("train", "val") if part in row]
            parts: dict[str, Any] = {part: {name: values[place] for name, values in row[part].items()} for part in there}
            seconds = round(row["seconds"] / len(self.specs), 6)
            yield {"epoch": row["epoch"], "step": row["step"], **parts, "lr": rate * row["lr"], "seconds": seconds}
