"""Many trials of one experiment, each a normal run with other values of some keys; several workers share them.

runs/iris-sweep/journal.log         the study: what was tried, by whom, and what came of it (or a database, by --storage)
runs/iris-sweep/trial-0 …           a run folder each, without a test part
runs/iris-sweep/best.yaml           the config of the best trial, ready to train; best.safetensors is its network
runs/iris-sweep/summary.json        the trials, and the best one scored on the test part, once
runs/iris-sweep/report.html

The same command again works on the same study: beside the first, or after it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from nnrun.data.prepare import Prepared
from nnrun.errors import Fault, InputError, Interrupted, NnrunError, RequirementError, not_writable
from nnrun.run import Run
from nnrun.runs.resume import learned_by
from nnrun.runs.signals import Signals
from nnrun.spec.experiment import Experiment
from nnrun.spec.source import Source
from nnrun.sweep.side_by_side import TrialStack, apart, how_many
from nnrun.sweep.space import Space, trial_seed
from nnrun.sweep.study import WORKERS, Worker, open_study, refuse_other_rows, require_optuna
from nnrun.sweep.trial import Ended, TrialRun, attributes, fault_of, never, of_no_trial, open_trial, prepared_for, without_test
from nnrun.sweep.words import told_values
from nnrun.training.baselines import Baseline, make_baselines
from nnrun.training.record import Record

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

DEFAULT = 50
"""Trials, where nothing says how many."""
ENOUGH = 10
"""So many trials have ended before the share of failures means anything; all, where there are fewer."""
PAUSE = 0.3
"""Seconds between two looks at the trials of other workers."""


@dataclass
class Tried:
    """A trial of this worker.

    Args:
        values: path → value.
        seed: of its network.
        ended: what has become of it.
    """

    trial: Trial
    number: int
    values: dict[str, Any]
    seed: int
    ended: Ended | None = None


@dataclass
class Turn:
    """What this worker trains next: a trial, or several side by side.

    Args:
        name: what it is called.
        run: ready to train by `Sweep.records`; None when the config cannot be trained.
    """

    tried: list[Tried]
    name: str
    run: TrialRun | TrialStack | None = None


class Sweep:
    """The trials of one experiment.

    Args:
        out: the folder of the sweep; by default `runs/NAME-sweep`.
        storage: the URL of a database for the study; by default it is a journal in the folder.

    Raises:
        NnrunError: of the kind that the options, the config, the data, the machine, the folder or the study deserves.
    """

    def __init__(self, spec: Experiment, source: Source, *, out: Path | None = None, storage: str | None = None) -> None:
        require_optuna()
        self.space = Space(spec, source)
        self.spec, self.source, self.settings = spec, source, self.space.sweep
        self.metric, self.sign = self.settings.metric, -1 if self.settings.better == "maximize" else 1
        self.count = self._count()
        if spec.split.val in (0, 0.0, []):
            what = "a sweep scores its trials on the validation part, and split.val is 0"
            raise InputError([_placed(what, "give split a val share", source, ("split",))])
        self.whole = self._try_out()
        self.folder = out or Path("runs") / f"{spec.name}-sweep"
        self._open(storage)

    def _count(self) -> int:
        wanted, count = self.settings.trials, 1
        if self.settings.sampler != "grid":
            return wanted or DEFAULT
        for one in self.space.parameters:
            count *= len(one.values() or ())
        if wanted is not None and wanted > count:
            what = f"a grid of {count} combinations has no {wanted} trials"
            raise InputError([_placed(what, f"write --trials {count}, or leave it out", self.source, ("sweep", "trials"))])
        return wanted or count

    def _try_out(self) -> Prepared:
        """Make a network of the ends of each range and of each choice; return the data that all trials share, with its test part."""
        data = None
        faults: list[Fault] = []
        runs: list[Run] = []
        for values in self.space.probes():
            try:
                spec = self.space.experiment(0, values)
                run = Run(spec, data if data is not None and spec.preprocess == self.preprocess else None)
                runs.append(run)
                if data is None:
                    data, self.notes, self.device, self.preprocess = run.data, list(run.notes), run.device, spec.preprocess
            except NnrunError as error:
                faults += self.space.placed(error).faults
                if data is None:
                    raise InputError(faults) from None
        if faults:
            raise InputError(list(dict.fromkeys(faults)))
        assert data is not None
        if not len(data.parts["val"]):
            raise InputError(
                [
                    _placed(
                        "the validation part has no rows, and a sweep scores its trials on it",
                        "give split a val share",
                        self.source,
                        ("split",),
                    )
                ]
            )
        self.data = without_test(data)
        why = apart(self.settings, runs)
        self.at_once = 1 if why else how_many(self.settings, max(runs, key=lambda run: run.step_work))
        return data

    def _open(self, storage: str | None) -> None:
        from nnrun.sweep.samplers import pruner_of, sampler_of

        try:
            if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / WORKERS).exists():
                raise InputError(f"{self.folder} holds something that is no sweep", fix="give another --out")
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / WORKERS).mkdir(exist_ok=True)
        except OSError as error:
            raise not_writable(self.folder, error) from None
        self.lock = FileLock(self.folder / ".lock")
        config = {key: value for key, value in learned_by(self.spec).items() if key not in ("name", "device", "threads")}
        with self.lock:
            definition = {**self.space.definition(), "config": config, "digests": dict(self.data.digests)}
            self.study = open_study(self.folder, storage, definition, self.settings.better)
            self.worker = Worker(self.folder, self.study)
        self.study.sampler = sampler_of(self.settings.sampler, self.spec.seed, self.space.parameters)
        self.study.pruner = pruner_of(self.settings.pruner, self.spec.epochs)

    @cached_property
    def baselines(self) -> list[Baseline]:
        """What trials have to beat; worked out once, since they share their rows, of which it is fitted on as many as a second allows."""
        return make_baselines(self.data.task, self.data.parts["train"], self.data.parts["val"], self.spec.seed)

    def turns(self) -> Iterator[Turn]:
        """Yield what this worker trains next until all trials have ended, also those of others; train each by `records`.

        Raises:
            RequirementError: too many have failed.
        """
        while True:
            self._refuse_failures()
            with self.lock, self.worker.together():
                taken = self._taken()
            if taken:
                yield from self._turns_of(taken)
            elif self.running():
                time.sleep(PAUSE)
            else:
                return

    def _taken(self) -> list[Tried]:
        """Return the trials that this worker takes: those that others have left come first."""
        found: list[Tried] = []
        while len(found) < self.at_once:
            trial = self.worker.left()
            if trial is None and len(self.study.get_trials(deepcopy=False)) < self.count:
                trial = self.worker.begun()
            if trial is None:
                break
            found.append(Tried(trial, trial.number, self.space.suggest(trial), trial_seed(self.spec.seed, trial.number)))
        return found

    def _turns_of(self, tried: list[Tried]) -> Iterator[Turn]:
        """Yield the turns of trials: one of all side by side, or one after another.

        Raises:
            NnrunError: what no trial can help; they are left as they are.
        """
        if len(tried) > 1:
            try:
                specs = {one.number: self.space.experiment(one.number, one.values) for one in tried}
                stack = TrialStack(specs, self.data, self.source, self.trial_folder)
                stack.baselines = self.baselines
            except Exception:  # noqa: BLE001 (one of them cannot be trained, or there is no memory for all: each tells of itself)
                self.at_once = 1
            else:
                for one in tried:
                    one.seed = specs[one.number].seed
                yield Turn(tried, f"{len(tried)} trials, {tried[0].number} to {tried[-1].number}", stack)
                if all(one.ended for one in tried):
                    return
        for one in tried:
            turn = Turn([one], f"trial {one.number}")
            try:
                turn.run = self.open(one.number, one.values, partial(self._hopeless, one.trial))
                one.seed = turn.run.spec.seed
            except Exception as error:  # noqa: BLE001 (no fault of one trial ends the others; the study keeps what it was)
                if stopped := of_no_trial(error, self.trial_folder(one.number)):
                    raise stopped from None
                self.tell(one, Ended("failed", error=fault_of(error)))
            yield turn

    def open(self, number: int, values: Mapping[str, Any], hopeless: Callable[[float, int], bool] = never) -> TrialRun:
        """Return the run of a trial, ready to train or to go on.

        Raises:
            NnrunError: this config cannot be trained.
            OtherRowsError: its data had to be prepared anew, and has changed.
        """
        spec = self.space.experiment(number, values)
        data = self.data if spec.preprocess == self.preprocess else prepared_for(spec)
        refuse_other_rows(self.data.digests, data.digests, spec.dataset.entry.name)
        baselines = self.baselines if data is self.data else None
        try:
            run = open_trial(number, spec, self.source, self.trial_folder(number), data, hopeless)
        except NnrunError as error:
            raise self.space.placed(error) from None
        run.baselines = baselines
        return run

    def trial_folder(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.folder / f"trial-{number}"

    def records(self, turn: Turn, signals: Signals | None = None) -> Iterator[Record]:
        """Train what a turn has; yield each epoch's record. What goes wrong with a config is the trial's failure, and the sweep goes on.

        Raises:
            EnvironmentFault: the disk or the machine failed; the trials are left as they are, and taken over by who goes on.
            Interrupted: a signal asked for it; the state of one trial has been saved, several begin anew.
        """
        run = turn.run
        if run is None:
            return
        try:
            with self.worker.beating([one.trial for one in turn.tried]):
                yield from run.train(signals)
            ended = run.ended()
        except Interrupted as error:
            raise Interrupted(error.faults[0].what, fix="the same command goes on with it", number=error.exit_code - 128) from None
        except Exception as error:  # noqa: BLE001 (no fault of one trial ends the others; the study keeps what it was)
            run.lock.release()
            if stopped := of_no_trial(error, run.folder):
                raise stopped from None
            if len(turn.tried) > 1:  # which of them is at fault is not known, or there was no memory for all: each tells of itself
                self.at_once = 1
                return
            failed = Ended("failed", epochs=run.state.epoch, error=fault_of(error))
            ended = {turn.tried[0].number: failed}
        with self.worker.together():
            for one in turn.tried:
                self.tell(one, ended[one.number])

    def _hopeless(self, trial: Trial, value: float, epoch: int) -> bool:
        if self.settings.pruner == "none":
            return False
        trial.report(value, epoch)
        return trial.should_prune()

    def tell(self, tried: Tried, ended: Ended) -> None:
        """Let the study know what has become of a trial."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        tried.ended = ended
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[ended.state]
        with suppress(UpdateFinishedTrialError, ValueError):  # a worker elsewhere took this one for gone, and has finished it as well
            tried.trial.set_user_attr("ended", attributes(ended, tried.seed))
            self.study.tell(tried.trial, ended.value if ended.state == "complete" else None, state)

    def running(self) -> list[int]:
        """Return the numbers of the trials that have not ended."""
        return [one.number for one in self.study.get_trials(deepcopy=False) if not one.state.is_finished()]

    def ended(self) -> list[FrozenTrial]:
        """Return the trials that have ended."""
        return [one for one in self.study.get_trials(deepcopy=False) if one.state.is_finished()]

    def best(self) -> FrozenTrial | None:
        """Return the best trial so far, the first of equals."""
        complete = [one for one in self.ended() if one.state.name == "COMPLETE" and one.value is not None and math.isfinite(one.value)]
        return min(complete, key=lambda one: (self.sign * (one.value or 0.0), one.number), default=None)

    def _refuse_failures(self) -> None:
        ended = self.ended()
        failed = [one for one in ended if one.state.name == "FAIL"]
        share = len(failed) / len(ended) if ended else 0.0
        if len(ended) >= min(ENOUGH, self.count) and share > self.settings.max_failures:
            last = failed[-1]
            why = f"trial {last.number}, {told_values(self.values(last))}: {last.user_attrs['ended'].get('error', '')}"
            what = f"{len(failed)} of {len(ended)} trials have failed; {why}"
            more = ", or allow more: --max-failures 0.9" if self.settings.max_failures < 0.9 else ""
            raise RequirementError(what, fix=f"narrow what is varied{more}")

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return the values of a trial as the config takes them."""
        return self.space.values_of(trial.params)


def _placed(what: str, fix: str, source: Source, at: tuple[int | str, ...]) -> Fault:
    return Fault(what, fix, source.place(at))
