"""One training run: a spec becomes parts, the parts go through the loop, this module keeps the records. It prints nothing.

run = open_run(*read_spec("configs/iris.yaml"))   # everything that can be known before training is checked here
for record in run.train():                        # one Record an epoch, already written
    ...
run.summary                                       # what summary.json holds
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock
from torch import Tensor

import nnrun.builtin  # noqa: F401 (fills the registries)
from nnrun.check.examined import before_training
from nnrun.check.health import Health
from nnrun.data.prepare import Prepared, changed_rows, check_columns, prepare
from nnrun.data.source import Applied, RowSource
from nnrun.errors import CheckpointError, InputError, Interrupted, NnrunError
from nnrun.model.build import forward_work
from nnrun.model.incoming import MAX_PARAMETERS
from nnrun.outcome import final_outcome, final_outputs, summed_up
from nnrun.runs.checkpoint import Checkpoint, to_bytes
from nnrun.runs.folder import BEST, LAST, Metrics, Unwritten, check_space, clear_leftovers, commit, lock, new_folder, strict_json
from nnrun.runs.provenance import provenance, versions
from nnrun.runs.resume import capture, fitted, known, learned_by, named, newest, not_bitwise, of_first, refuse_changes, restore, weight_of
from nnrun.runs.signals import Signals
from nnrun.spec.experiment import Experiment, foreign_parts, plain
from nnrun.spec.source import Source
from nnrun.spec.writer import dump_spec
from nnrun.tracking.tracker import Begun, Trackers
from nnrun.training.baselines import Baseline
from nnrun.training.device import choose_device, choose_threads
from nnrun.training.group import ALONE, Group
from nnrun.training.loop import Moment, train
from nnrun.training.loss_modules import training_loss
from nnrun.training.memory import check_activations, most_parameters
from nnrun.training.network import network_for, resolve, row_weights
from nnrun.training.plan import check_monitors, first_state, make_plan, saving_intervals
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
    group: Group = ALONE,
) -> Run:
    """Return a run that is ready to train; its folder is made only after everything else has been checked.

    Args:
        out: the run folder; by default `runs/NAME`.
        resume: go on with the run in `out`.
        allow_change: keys of the config that may differ from those the run was started with.
        data: what `prepare` gives for this split, when another run has it already.
        group: who trains together. A launcher that starts them again has them go on where they were.

    Raises:
        NnrunError: of the kind that the config, the data, the machine or the folder deserves, placed in the config where it can be.
    """
    try:
        run, before = Run(spec, data, group), group.begun_in()
        if resume or (before and (before / "config.yaml").is_file()):
            run.go_on(before or out, allow_change)
        else:
            run.begin(source, before or out)
    except NnrunError as error:
        raise error.placed(source.place) from None
    return run


class Run:
    """A run: its parts, its folder, and what it has found so far."""

    folder: Path
    lock: BaseFileLock
    baselines: Sequence[Baseline] | None = None
    """What the network has to beat, when it is known before."""

    def __init__(self, spec: Experiment, data: Prepared | None = None, group: Group = ALONE) -> None:
        """Make the parts; the data is prepared here unless it is given, prepared for the same split on the same device."""
        started = time.perf_counter()
        self.group = group
        self.trackers = Trackers(spec.track if group.first else ())
        self.device = choose_device(spec.device, group)
        self.data = data or prepare(spec, self.device)
        self.spec = resolve(spec, self.data)
        self.plugins = [[one.kind, one.name, one.plugin] for one in foreign_parts(self.spec)]
        self.notes = [*self.data.notes, *before_training(self.spec, self.data, self.device)]
        self.rows = {name: len(part) for name, part in self.data.parts.items()}
        monitor = self.spec.checkpoint.monitor or ("val.loss" if "val" in self.spec.evaluate and self.rows["val"] else "")
        self.weight = row_weights(self.spec, self.data)
        strategy = self.spec.strategy.build()
        shards = group.shards(strategy)
        most, because = most_parameters(self.spec, self.device, group, keeps_best=bool(monitor), shards=shards)
        room = min((most, because), (MAX_PARAMETERS, ""))
        self.network = replace(network_for(self.spec, self.data, self.device, room=room, moved=not shards), group=group)
        for part in self.data.parts.values():
            self.network.head.check(part.y)
        self.scoring = {name: self.network.scoring(self.data.parts[name]) for name in self.spec.evaluate if self.rows[name]}
        self.plan, plateau = make_plan(self.spec, self.data, self.network.model, group)
        check_monitors(self.spec, self.rows, plateau)
        size = min(self.plan.batch_size, self.rows["train"])
        self.notes += group.notes(size)
        check_activations(self.network.model, self.data.shape, group.size(size), self.device)
        self.work = 3 * forward_work(self.network.model, self.data.shape)
        self.threads = choose_threads(self.spec.threads, self.step_work, group.local_world_size)
        torch.set_num_threads(self.threads)
        group.take(self.network.model, strategy, self.device, sync_batch_norm=self.spec.sync_batch_norm)
        self.state = first_state(self.spec, self.network.model, self.device, group)
        self.progress = Progress(self.spec, self.network.model, plateau, monitor)
        self.health = Health(self.spec, self.data.task, self.network, self.data.parts["train"], self.plan.batch_size)
        self.every_steps, self.every_epochs = saving_intervals(self.spec.checkpoint.every)
        self._best_written: tuple[int, ...] | None = None  # which `best` is on the disk, as far as this process wrote it
        self.summary: dict[str, Any] = {}
        self.seconds = {"prepare": time.perf_counter() - started, "train": 0.0}

    def begin(self, source: Source, out: Path | None) -> None:
        """Make the folder of a new run, and prove with a first checkpoint that it can be written and has room."""
        self.folder = Path(self.group.told(lambda: str(self._made_folder(source, out))))
        self._first_save()

    def _made_folder(self, source: Source, out: Path | None) -> Path:
        self.folder, self.lock = new_folder(self.spec.name, out)
        self.group.begin_in(self.folder)
        clear_leftovers(self.folder)
        commit(self.folder / "config.yaml", dump_spec(self.spec).encode())
        commit(self.folder / "config.source.yaml", "".join(line + "\n" for line in source.lines).encode())
        return self.folder

    def go_on(self, out: Path | None, allow_change: Sequence[str] = ()) -> None:
        """Put the run back to where the newest whole checkpoint in `out` was made.

        Raises:
            InputError: there is no run in `out`.
            SpecError: the config is another one.
            CheckpointError: the data is, or no checkpoint is whole.
        """
        if out is None:
            raise InputError("--resume needs --out, the folder of the run to go on with", fix="give --out runs/NAME --resume")
        self.folder = out
        stored = of_first(self.group, self._newest, weight_of(self.state, self.progress))
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

    def _newest(self) -> Checkpoint | None:
        """Take the folder, and return its newest whole checkpoint."""
        if not (self.folder / "config.yaml").is_file():
            raise CheckpointError(f"{self.folder} holds no run to go on with", fix="check the folder, or leave --resume out to start one")
        self.lock = lock(self.folder)
        clear_leftovers(self.folder)
        stored, notes = newest(self.folder, self.spec.checkpoint.keep)
        self.notes += notes
        return stored

    def _refuse_other_kind(self, stored: Checkpoint) -> None:
        """Refuse the state of several networks."""
        if "seeds" in stored.facts:
            what, count = f"{self.folder} holds several networks, trained side by side", len(stored.facts["seeds"])
            raise CheckpointError(what, fix=f"add --seeds {count}")

    def _put_back(self, stored: Checkpoint) -> None:
        """Restore the state, and what has been found so far."""
        restore(stored, self.state, self.progress, self.device, self.spec.seed, self.group)
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
            if self.group.first:
                self.lock.release()
            return
        try:
            yield from self._train(signals or Signals())
        except NnrunError as error:
            self.trackers.tell("stopped", error)
            raise

    def _train(self, signals: Signals) -> Iterator[Record]:
        signals.training, signals.patient = True, self.group.world_size > 1
        began = time.perf_counter()
        self._saved_at, self._saving, before = began, 0.0, began
        kept = self.state.epoch
        with Metrics(self.folder / "metrics.jsonl", keep=kept) if self.group.first else Unwritten() as metrics:
            self._remember([json.loads(row) for row in metrics.kept])
            for moment in self._moments(signals) if not self.finished else ():
                if moment.finished:
                    record = self._take_in(moment, before, metrics)
                stop, save = self.group.agreed(signals.stop, signals.wish or self._time_to_save(moment))
                if save:
                    self._save(metrics)
                    signals.save = False
                if moment.finished:
                    yield record
                    before = time.perf_counter()
                if stop:
                    raise self._interrupted(stop)
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
        self.summary = json.loads(self.group.told(lambda: summary.read_text("utf-8") if summary.is_file() else "{}"))
        return bool(self.summary)

    def _moments(self, signals: Signals) -> Iterator[Moment]:
        """Return the loop over what is left to train."""
        loss_fn = training_loss(self.network.loss_fn, self.plan, weighted=self.weight is not None)
        return train(self.state, loss_fn, self._training_data(), self.plan, due=self._due(signals), group=self.group)

    def _training_data(self) -> list[Tensor | RowSource]:
        part, encode = self.data.parts["train"], self.network.head.encode
        target = Applied(encode, part.y) if isinstance(part.x, RowSource) else encode(part.y)
        return [part.x, target, *([] if self.weight is None else [self.weight])]

    def _take_in(self, moment: Moment, before: float, metrics: Metrics) -> Record:
        """Score an epoch, write its row, and judge it."""
        record = self._record(moment, before)
        row = record.row()
        metrics.add(row)
        self.trackers.tell("record", row)
        self.progress.judge(record)
        said = [*map(str, self.health.look(record, self.state, last=self.finished)), *self.trackers.notes()]
        return replace(record, notes=tuple(said)) if said else record

    def _due(self, signals: Signals) -> Any:
        """Return what the loop asks after each step: is there a reason to pause before the next one?"""
        every, wished = self.every_steps, self.group.wished
        return (lambda state: wished(signals.wish) or state.step % every == 0) if every else (lambda state: wished(signals.wish))

    def _time_to_save(self, moment: Moment) -> bool:
        if self.finished:
            return True
        if self.every_steps:
            return self.state.step % self.every_steps == 0
        if self.every_epochs:
            return moment.finished and moment.epoch % self.every_epochs == 0
        return self.group.first and time.perf_counter() - self._saved_at > max(1.0, self._saving / SAVING_SHARE)

    def _interrupted(self, number: int) -> Interrupted:
        batch = f", batch {self.state.batch}" if self.state.batch else ""
        what = (
            f"stopped by a signal in epoch {self.state.epoch + (self.state.batch > 0)}{batch}; everything so far is saved in {self.folder}"
        )
        return Interrupted(what, fix=f"go on with it: nnrun train CONFIG --out {self.folder} --resume", number=number)

    def _record(self, moment: Moment, before: float) -> Record:
        figures = self.group.same({"train": {"loss": moment.train_loss}, **{name: score() for name, score in self.scoring.items()}})
        seconds = time.perf_counter() - before
        return Record(moment.epoch, moment.step, moment.lr, seconds, figures["train"], figures.get("val", {}), figures.get("test", {}))

    def _first_save(self) -> None:
        """Write the state before the first step: a folder that cannot be written, or a full disk, is told before any work is done."""
        made = self._checkpoint()
        if self.group.first:
            before = to_bytes(made)
            check_space(self.folder, (self.spec.checkpoint.keep + 2) * 2 * len(before))
            commit(self.folder / LAST, before)
        self.group.wait()

    def _save(self, metrics: Metrics) -> None:
        """Write `best` and `last`, after the rows that they count; each is replaced whole or not at all. All wait until it is done."""
        started = time.perf_counter()
        metrics.sync()
        best = self._best_is()
        if best is None or best != self._best_written:  # the same bytes again would cost as much as the first time
            self._write(BEST, self._best())
            self._best_written = best
        self._write(LAST, self._checkpoint(), keep=self.spec.checkpoint.keep)
        self.group.wait()
        self._saved_at = time.perf_counter()
        self._saving = self._saved_at - started

    def _write(self, name: str, made: Checkpoint, keep: int = 1) -> None:
        if self.group.first:
            commit(self.folder / name, to_bytes(made), keep=keep)

    def _best_is(self) -> tuple[int, ...] | None:
        """Return what tells the best weights from others that were the best before; None when they are those of now."""
        return (self.progress.best.epoch,) if self.progress.best_weights else None

    def _best(self) -> Checkpoint:
        """What eval and predict open: the weights of the best epoch, or those of now when there is nothing to judge by."""
        weights = self.progress.best_weights
        epoch = self.progress.best.epoch if weights else self.state.epoch
        tensors = self.group.whole_ones(named("model", weights or self.progress.live_weights)) | fitted(self.data, self.network)
        return Checkpoint(tensors, {**self._facts(), "epoch": epoch})

    def _checkpoint(self) -> Checkpoint:
        tensors, resume = capture(self.state, self.progress, self.device, self.group)
        resume["health"] = self.health.state()
        return Checkpoint(tensors | fitted(self.data, self.network), {**self._facts(), "epoch": self.state.epoch, "resume": resume})

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
            **({"processes": self.group.world_size, "strategy": self.spec.strategy.entry.name} if self.group.world_size > 1 else {}),
        }

    def _finish(self) -> None:
        """Score the best weights on every part, and write summary.json; what is worked out of the outputs the first process does alone."""
        best = self.progress.best_weights
        if best:
            self.network.model.load_state_dict(best)
        outputs = final_outputs(self.network, self.data)
        if not self.group.first:
            return
        work = self.work * self.rows["train"] * self.state.epoch
        found = final_outcome(self.network, self.data, self.spec, outputs, work=work, baselines=self.baselines)
        self.notes += found.notes
        self.summary = summed_up(
            found,
            name=self.spec.name,
            folder=self.folder,
            epochs=self.state.epoch,
            best_epoch=self.progress.best.epoch if best else self.state.epoch,
            rows=self.rows,
            notes=self.notes,
            provenance=self.provenance(),
            seconds=self.seconds,
            health=self.health.findings,
        )
        commit(self.folder / "summary.json", (strict_json(self.summary, indent=2) + "\n").encode())
        self.trackers.tell("end", self.summary)
        self.notes = [*self.notes, *self.trackers.notes()]  # no part of the summary: the run is what it is without them
        self.lock.release()

    def provenance(self) -> dict[str, Any]:
        """Return what a result comes from: versions, machine, commit, data."""
        return provenance(self.device, self.data.digests, threads=self.threads)

    @property
    def step_work(self) -> int:
        """The multiply-adds of a step, as far as this process takes it."""
        return self.work * self.group.size(min(self.plan.batch_size, self.rows["train"]))
