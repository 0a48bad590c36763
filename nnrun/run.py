"""One training run: a spec becomes parts, the parts go through the loop, this module keeps the records. It prints nothing.

run = open_run(*read_spec("configs/iris.yaml"))   # everything that can be known before training is checked here
for record in run.train():                        # one Record an epoch, already written
    ...
run.summary                                       # what summary.json holds
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nnrun.builtin  # noqa: F401 (fills the registries)
from nnrun.check.examined import before_training
from nnrun.check.health import Health
from nnrun.data.prepare import Prepared, changed_rows, check_columns, prepare
from nnrun.data.source import Applied, RowSource
from nnrun.errors import CheckpointError, InputError, Interrupted, NnrunError
from nnrun.model.build import forward_work
from nnrun.model.incoming import MAX_PARAMETERS
from nnrun.outcome import Outcome, final_outcome
from nnrun.runs.checkpoint import Checkpoint, to_bytes
from nnrun.runs.folder import BEST, LAST, Metrics, check_space, clear_leftovers, commit, lock, new_folder, strict_json
from nnrun.runs.provenance import git_commit, versions
from nnrun.runs.resume import capture, known, named, newest, not_bitwise, refuse_changes, restore
from nnrun.runs.signals import Signals
from nnrun.spec.experiment import Experiment, foreign_parts, plain
from nnrun.spec.source import Source
from nnrun.spec.writer import dump_spec
from nnrun.tracking.tracker import Begun, Trackers
from nnrun.training.device import choose_device, choose_threads
from nnrun.training.loop import Moment, train
from nnrun.training.loss_modules import training_loss
from nnrun.training.memory import check_activations, most_parameters
from nnrun.training.network import network_for, resolve, row_weights
from nnrun.training.plan import check_monitors, first_state, make_plan
from nnrun.training.progress import Progress
from nnrun.training.record import Record

SAVING_SHARE = 0.05
"""With `checkpoint.every: auto`, the share of the training time that may go into writing checkpoints."""


def open_run(
    spec: Experiment,
    source: Source,
    *,
    out: Path | None = None,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    data: Prepared | None = None,
) -> Run:
    """Return a run that is ready to train; its folder is made only after everything else has been checked.

    Args:
        out: the run folder; by default `runs/NAME`.
        resume: go on with the run in `out`.
        allow_change: keys of the config that may differ from those the run was started with.
        data: what `prepare` gives for this split, when another run has it already.

    Raises:
        NnrunError: of the kind that the config, the data, the machine or the folder deserves, placed in the config where it can be.
    """
    try:
        run = Run(spec, data)
        if resume:
            run.go_on(out, allow_change)
        else:
            run.begin(source, out)
    except NnrunError as error:
        raise error.placed(source.place) from None
    return run


class Run:
    """A run: its parts, its folder, and what it has found so far."""

    def __init__(self, spec: Experiment, data: Prepared | None = None) -> None:
        """Make the parts; the data is prepared here unless it is given, prepared for the same split on the same device."""
        started = time.perf_counter()
        self.trackers = Trackers(spec.track)
        self.device = choose_device(spec.device)
        self.data = data or prepare(spec, self.device)
        self.spec = resolve(spec, self.data)
        self.plugins = [[one.kind, one.name, one.plugin] for one in foreign_parts(self.spec)]
        self.notes = [*self.data.notes, *before_training(self.spec, self.data, self.device)]
        self.rows = {name: len(part) for name, part in self.data.parts.items()}
        monitor = self.spec.checkpoint.monitor or ("val.loss" if "val" in self.spec.evaluate and self.rows["val"] else "")
        self.weight = row_weights(self.spec, self.data)
        most, because = most_parameters(self.spec, self.device, keeps_best=bool(monitor))
        self.network = network_for(self.spec, self.data, self.device, room=min((most, because), (MAX_PARAMETERS, "")))
        for part in self.data.parts.values():
            self.network.head.check(part.y)
        self.plan, plateau = make_plan(self.spec, self.data, self.network.model)
        check_monitors(self.spec, self.rows, plateau)
        check_activations(self.network.model, self.data.shape, min(self.plan.batch_size, self.rows["train"]), self.device)
        self.work = 3 * forward_work(self.network.model, self.data.shape) * min(self.plan.batch_size, self.rows["train"])
        self.threads = choose_threads(self.spec.threads, self.work)
        torch.set_num_threads(self.threads)
        self.state = first_state(self.spec, self.network.model, self.device)
        self.progress = Progress(self.spec, self.network.model, plateau, monitor)
        self.health = Health(self.spec, self.data.task, self.network, self.data.parts["train"], self.plan.batch_size)
        self.every_steps, self.every_epochs = _intervals(self.spec.checkpoint.every)
        self._best_written: tuple[int, ...] | None = None  # which `best` is on the disk, as far as this process wrote it
        self.summary: dict[str, Any] = {}
        self.seconds = {"prepare": time.perf_counter() - started, "train": 0.0}

    def begin(self, source: Source, out: Path | None) -> None:
        """Make the folder of a new run, and prove with a first checkpoint that it can be written and has room."""
        self.folder, self.lock = new_folder(self.spec.name, out)
        commit(self.folder / "config.yaml", dump_spec(self.spec).encode())
        commit(self.folder / "config.source.yaml", "".join(line + "\n" for line in source.lines).encode())
        self._first_save()

    def go_on(self, out: Path | None, allow_change: Sequence[str] = ()) -> None:
        """Put the run back to where the newest whole checkpoint in `out` was made.

        Raises:
            InputError: there is no run in `out`.
            SpecError: the config is another one.
            CheckpointError: the data is, or no checkpoint is whole.
        """
        if out is None:
            raise InputError("--resume needs --out, the folder of the run to go on with", fix="give --out runs/NAME --resume")
        if not (out / "config.yaml").is_file():
            raise CheckpointError(f"{out} holds no run to go on with", fix="check the folder, or leave --resume out to start one")
        self.folder, self.lock = out, lock(out)
        clear_leftovers(out)
        stored, notes = newest(out, self.spec.checkpoint.keep)
        self.notes += notes
        if stored is None:  # stopped before its first checkpoint: this is the beginning still
            self._first_save()
            return
        path = self.spec.dataset.arguments().get("path")
        data = f"dataset {self.spec.dataset.entry.name!r}" + (f" ({path})" if path else "")
        digests = self.data.digests
        self._refuse_other_kind(stored)
        self.notes += refuse_changes(
            stored, learned_by(self.spec), digests, allow_change, data, lambda: changed_rows(self.spec, known(stored))
        )
        check_columns(self.data, stored.facts["columns"])
        self._put_back(stored)
        different = not_bitwise(stored, self._facts())
        self.notes += [different] if different else []
        if self.finished:
            self.notes.append(f"the run in {out} is finished: {self.state.epoch} epochs; more epochs in the config would go on with it")

    def _refuse_other_kind(self, stored: Checkpoint) -> None:
        """Refuse the state of several networks."""
        if "seeds" in stored.facts:
            what, count = f"{self.folder} holds several networks, trained side by side", len(stored.facts["seeds"])
            raise CheckpointError(what, fix=f"add --seeds {count}")

    def _put_back(self, stored: Checkpoint) -> None:
        """Restore the state, and what has been found so far."""
        restore(stored, self.state, self.progress, self.device)
        self.health.restore(stored.facts["resume"].get("health", ()))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.state.epoch >= self.plan.epochs or self.progress.out_of_patience()

    def train(self, signals: Signals | None = None) -> Iterator[Record]:
        """Train to the end, or until early stopping; yield each epoch's record when it has been written.

        Raises:
            DivergedError: a number stopped being finite; the last checkpoint is untouched.
            EnvironmentFault: the system refused a write; the checkpoint before it is untouched.
            Interrupted: a signal asked for it; the state has been saved.
        """
        if self.finished and self._is_known():
            self.lock.release()
            return
        try:
            yield from self._train(signals or Signals())
        except NnrunError as error:
            self.trackers.tell("stopped", error)
            raise

    def _train(self, signals: Signals) -> Iterator[Record]:
        signals.training = True
        began = time.perf_counter()
        self._saved_at, self._saving, before = began, 0.0, began
        with Metrics(self.folder / "metrics.jsonl", keep=self.state.epoch) as metrics:
            self._remember([json.loads(row) for row in metrics.kept])
            for moment in self._moments(signals) if not self.finished else ():
                if moment.finished:
                    record = self._take_in(moment, before, metrics)
                if signals.wish or self._time_to_save(moment):
                    self._save(metrics)
                    signals.save = False
                if moment.finished:
                    yield record
                    before = time.perf_counter()
                if signals.stop:
                    raise self._interrupted(signals.stop)
                if self.finished:
                    break
        signals.training = False
        self.seconds["train"] = time.perf_counter() - began
        self._finish()

    def _remember(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take in the rows of the epochs before."""
        self.health.remember(rows)
        self.trackers.tell("start", Begun(self.folder, plain(self.spec), self.rows, rows))

    def _is_known(self) -> bool:
        """Return whether summary.json was written already, and take it as it is."""
        summary = self.folder / "summary.json"
        if summary.is_file():
            self.summary = json.loads(summary.read_text("utf-8"))
        return summary.is_file()

    def _moments(self, signals: Signals) -> Iterator[Moment]:
        """Return the loop over what is left to train."""
        loss_fn = training_loss(self.network.loss_fn, self.plan, weighted=self.weight is not None)
        return train(self.state, loss_fn, self._training_data(), self.plan, due=self._due(signals))

    def _training_data(self) -> list[Tensor | RowSource]:
        part, encode = self.data.parts["train"], self.network.head.encode
        target = Applied(encode, part.y) if isinstance(part.x, RowSource) else encode(part.y)
        return [part.x, target, *([] if self.weight is None else [self.weight])]

    def _take_in(self, moment: Moment, before: float, metrics: Metrics) -> Record:
        """Score an epoch, write its row, and judge it."""
        record = self._record(moment, before)
        metrics.add(record.row())
        self.trackers.tell("record", record.row())
        self.progress.judge(record)
        said = [*map(str, self.health.look(record, self.state, last=self.finished)), *self.trackers.notes()]
        return replace(record, notes=tuple(said)) if said else record

    def _due(self, signals: Signals) -> Any:
        """Return what the loop asks after each step: is there a reason to pause before the next one?"""
        every = self.every_steps
        return (lambda state: signals.wish or state.step % every == 0) if every else (lambda state: signals.wish)

    def _time_to_save(self, moment: Moment) -> bool:
        if self.finished:
            return True
        if self.every_steps:
            return self.state.step % self.every_steps == 0
        if self.every_epochs:
            return moment.finished and moment.epoch % self.every_epochs == 0
        return time.perf_counter() - self._saved_at > max(1.0, self._saving / SAVING_SHARE)

    def _interrupted(self, number: int) -> Interrupted:
        batch = f", batch {self.state.batch}" if self.state.batch else ""
        what = (
            f"stopped by a signal in epoch {self.state.epoch + (self.state.batch > 0)}{batch}; everything so far is saved in {self.folder}"
        )
        return Interrupted(what, fix=f"go on with it: nnrun train CONFIG --out {self.folder} --resume", number=number)

    def _record(self, moment: Moment, before: float) -> Record:
        scores = {name: self.network.score(self.data.parts[name]) for name in self.spec.evaluate if self.rows[name]}
        seconds = time.perf_counter() - before
        train = {"loss": moment.train_loss}
        return Record(moment.epoch, moment.step, moment.lr, seconds, train, scores.get("val", {}), scores.get("test", {}))

    def _first_save(self) -> None:
        """Write the state before the first step: a folder that cannot be written, or a full disk, is told before any work is done."""
        before = to_bytes(self._checkpoint())
        check_space(self.folder, (self.spec.checkpoint.keep + 2) * 2 * len(before))
        commit(self.folder / LAST, before)

    def _save(self, metrics: Metrics) -> None:
        """Write `best` and `last`, after the rows that they count; each is replaced whole or not at all."""
        started = time.perf_counter()
        metrics.sync()
        best = self._best_is()
        if best is None or best != self._best_written:  # the same bytes again would cost as much as the first time
            commit(self.folder / BEST, to_bytes(self._best()))
            self._best_written = best
        commit(self.folder / LAST, to_bytes(self._checkpoint()), keep=self.spec.checkpoint.keep)
        self._saved_at = time.perf_counter()
        self._saving = self._saved_at - started

    def _best_is(self) -> tuple[int, ...] | None:
        """Return what tells the best weights from others that were the best before; None when they are those of now."""
        return (self.progress.best.epoch,) if self.progress.best_weights else None

    def _best(self) -> Checkpoint:
        """What eval and predict open: the weights of the best epoch, or those of now when there is nothing to judge by."""
        weights = self.progress.best_weights
        epoch = self.progress.best.epoch if weights else self.state.epoch
        tensors = named("model", weights or self.progress.live_weights) | self._fitted()
        return Checkpoint(tensors, {**self._facts(), "epoch": epoch})

    def _checkpoint(self) -> Checkpoint:
        tensors, resume = capture(self.state, self.progress, self.device)
        resume["health"] = self.health.state()
        return Checkpoint(tensors | self._fitted(), {**self._facts(), "epoch": self.state.epoch, "resume": resume})

    def _fitted(self) -> dict[str, Tensor]:
        steps = {f"preprocess/{number}/{name}": tensor for number, step in enumerate(self.data.fitted) for name, tensor in step.items()}
        return steps | named("target", self.network.head.scale) | {"rows/marks": self.data.known.marks}

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint says beside its tensors; nothing that differs between two equal runs."""
        data = self.data
        return {
            "spec": learned_by(self.spec),
            "task": {"targets": list(data.task.targets), "classes": list(data.task.classes)},
            "columns": [column.facts() for column in data.raw_columns],
            "layer_names": [name for name, _ in self.network.model.named_children()],
            "raw_shape": list(data.raw_shape),
            "raw_bytes": data.raw_bytes,
            "shape": list(data.shape),
            "digests": data.digests,
            "dataset_rows": data.known.rows,
            "versions": versions(),
            "device": str(self.device),
            "threads": self.threads,
            **({"plugins": self.plugins} if self.plugins else {}),
        }

    def _finish(self) -> None:
        """Score the best weights on every part, and write summary.json."""
        best = self.progress.best_weights
        if best:
            self.network.model.load_state_dict(best)
        found = final_outcome(self.network, self.data, self.spec, self.state.epoch)
        self.notes += found.notes
        best_epoch = self.progress.best.epoch if best else self.state.epoch
        git = git_commit(Path.cwd())
        self.summary = self._summed_up(found, self.spec.name, self.folder, self.state.epoch, best_epoch, self.seconds, git)
        commit(self.folder / "summary.json", (strict_json(self.summary, indent=2) + "\n").encode())
        self.trackers.tell("end", self.summary)
        self.notes = [*self.notes, *self.trackers.notes()]  # no part of the summary: the run is what it is without them
        self.lock.release()

    def _summed_up(
        self,
        found: Outcome,
        name: str,
        folder: Path,
        epochs: int,
        best_epoch: int,
        seconds: Mapping[str, float],
        git: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Return what summary.json says of a network of this run."""
        digests = self.data.digests
        return {
            "name": name,
            "run": str(folder),
            "epochs": epochs,
            "best_epoch": best_epoch,
            "rows": self.rows,
            "metrics": found.metrics,
            "intervals": found.intervals,
            "baselines": found.baselines,
            "verdict": found.verdict,
            "notes": self.notes,
            "health": [asdict(one) for one in self.health.findings],
            "provenance": {"versions": versions(), "device": str(self.device), "threads": self.threads, "git": git, "digests": digests},
            "seconds": {key: round(value, 3) for key, value in seconds.items()},
        }


def _intervals(every: int | str) -> tuple[int, int]:
    """Return `checkpoint.every` as steps and epochs; (0, 0) is `auto`."""
    count, unit = (every, "epoch") if isinstance(every, int) else re.match(r"(\d*) ?(\w*)", every).groups()  # type: ignore[union-attr]
    return (int(count), 0) if str(unit).startswith("step") else (0, int(count) if count else 0)


def learned_by(spec: Experiment) -> dict[str, Any]:
    """Return the config as far as the network depends on it: not on who is told of a run, nor on what a sweep varies."""
    return {key: value for key, value in plain(spec).items() if key not in ("track", "sweep")}
