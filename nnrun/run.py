"""One training run: a spec becomes parts, the parts go through the loop, this module keeps the records. It prints nothing.

run = open_run(*read_spec("configs/iris.yaml"))   # everything that can be known before training is checked here
for record in run.train():                        # one Record an epoch, already written
    ...
run.summary                                       # what summary.json holds
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nnrun.builtin  # noqa: F401 (fills the registries)
from nnrun.check.rules import config_notes, outcome_notes
from nnrun.data.prepare import prepare
from nnrun.errors import CheckpointError, InputError, NnrunError, SpecError
from nnrun.model.build import forward_work
from nnrun.runs import checkpoint as files
from nnrun.runs.checkpoint import Checkpoint
from nnrun.runs.folder import BEST, LAST, Metrics, commit, lock, new_folder, strict_json
from nnrun.runs.provenance import git_commit, versions
from nnrun.spec.base import Location
from nnrun.spec.experiment import Experiment, plain
from nnrun.spec.reader import Source, dump_spec
from nnrun.training.device import choose_device, choose_threads
from nnrun.training.loop import Moment, Plan, State, batches_per_epoch, stream_seed, train
from nnrun.training.network import build_network, resolve
from nnrun.training.schedules import Plateau, warmed_up
from nnrun.training.watch import Watch

SAVING_SHARE = 0.05
"""With `checkpoint.every: auto`, the share of the training time that may go into writing checkpoints."""


@dataclass(frozen=True)
class Record:
    """One finished epoch: a line of metrics.jsonl."""

    epoch: int
    step: int
    lr: float
    seconds: float
    train: dict[str, float]
    val: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)

    def figure(self, name: str) -> float:
        """Return a figure by its dotted name, such as `val.loss`; nan when it was not measured."""
        part, _, metric = name.partition(".")
        return float(getattr(self, part).get(metric, math.nan))

    def row(self) -> dict[str, Any]:
        """Return the line; parts that were not scored are left out."""
        parts = {name: scores for name in ("train", "val", "test") if (scores := getattr(self, name))}
        return {"epoch": self.epoch, "step": self.step, **parts, "lr": self.lr, "seconds": round(self.seconds, 6)}


def open_run(spec: Experiment, source: Source, *, out: Path | None = None, resume: bool = False) -> Run:
    """Return a run that is ready to train; its folder is made only after everything else has been checked.

    Raises:
        NnrunError: of the kind that the config, the data, the machine or the folder deserves, placed in the config where it can be.
    """
    try:
        return Run(spec, source, out, resume=resume)
    except NnrunError as error:
        raise error.placed(source.place) from None


class Run:
    """A run: its parts, its folder, and what it has found so far."""

    def __init__(self, spec: Experiment, source: Source, out: Path | None, *, resume: bool = False) -> None:
        started = time.perf_counter()
        self.device = choose_device(spec.device)
        self.data = prepare(spec, self.device)
        self.spec = resolve(spec, self.data.task)
        self.notes = config_notes(self.spec)
        self.network = build_network(self.spec, self.data.task, self.data.shape, self.device)
        self.rows = {name: len(part) for name, part in self.data.parts.items()}
        self.schedule = self.spec.schedule.build(max(self.spec.epochs - self.spec.warmup_epochs, 1.0))
        self.plateau = self.schedule if isinstance(self.schedule, Plateau) else None
        self._check_monitors()
        self.plan = self._make_plan()
        for part in self.data.parts.values():
            self.network.head.check(part.y)
        work = 3 * forward_work(self.network.model, self.data.shape) * min(self.plan.batch_size, self.rows["train"])
        self.threads = choose_threads(self.spec.threads, work)
        torch.set_num_threads(self.threads)
        self.state = self._fresh_state()
        monitor = self.spec.checkpoint.monitor or ("val.loss" if "val" in self.spec.evaluate and self.rows["val"] else "")
        self.best = Watch(monitor)
        self.best_weights: dict[str, Tensor] = {}
        self.live_weights = self.network.model.state_dict()
        stopping = self.spec.early_stopping
        self.patience = Watch(stopping.monitor, stopping.min_delta) if stopping else None
        self.summary: dict[str, Any] = {}
        self.seconds = {"prepare": 0.0, "train": 0.0}
        self.folder = self._resumed(out) if resume else new_folder(spec.name, out)
        self.lock = lock(self.folder)
        if not resume:
            commit(self.folder / "config.yaml", dump_spec(self.spec).encode())
            commit(self.folder / "config.source.yaml", "".join(line + "\n" for line in source.lines).encode())
        self.seconds["prepare"] = time.perf_counter() - started

    def train(self) -> Iterator[Record]:
        """Train to the end, or until early stopping; yield each epoch's record when it has been noted."""
        part, plan = self.data.parts["train"], self.plan
        before = saved = time.perf_counter()
        began, cost = before, 0.0
        done = self.state.epoch >= plan.epochs or self._out_of_patience()
        with Metrics(self.folder / "metrics.jsonl", keep=self.state.epoch) as metrics:
            for moment in train(self.state, self.network.loss_fn, part.x, self.network.head.encode(part.y), plan) if not done else ():
                record = self._record(moment, before)
                metrics.add(record.row())
                self._judge(record)
                done = moment.epoch == plan.epochs or self._out_of_patience()
                if done or self._due(moment.epoch, time.perf_counter() - saved, cost):
                    saving = time.perf_counter()
                    metrics.flush()
                    self.save()
                    saved = time.perf_counter()
                    cost = saved - saving
                yield record
                if done:
                    break
                before = time.perf_counter()
        self.seconds["train"] = time.perf_counter() - began
        self._finish()

    def save(self) -> None:
        """Write `best` and `last`; each is replaced whole or not at all."""
        best = self.best_weights or self.network.model.state_dict()
        epoch = self.best.epoch if self.best_weights else self.state.epoch
        files.save(self.folder / BEST, Checkpoint(_named("model", best) | self._fitted(), {**self._facts(), "epoch": epoch}))
        tensors = _named("model", self.network.model.state_dict()) | _named("best", self.best_weights) | self._fitted()
        tensors |= {"rng/torch": torch.get_rng_state(), "loop/loss_sum": self.state.loss_sum}
        if self.device.type == "cuda":
            tensors["rng/cuda"] = torch.cuda.get_rng_state(self.device)
        state, plateau = self.state, self.plateau
        resume = {
            "step": state.step,
            "batch": state.batch,
            "rows_seen": state.rows_seen,
            "optimizer": files.pack(state.optimizer.state_dict(), "optimizer", tensors),
            "scaler": files.pack(state.scaler.state_dict() if state.scaler else None, "scaler", tensors),
            "plateau": files.pack(plateau.state() if plateau else None, "plateau", tensors),
            "best": files.pack(self.best.state(), "watch", tensors),
            "patience": files.pack(self.patience.state() if self.patience else None, "watch", tensors),
        }
        files.save(self.folder / LAST, Checkpoint(tensors, {**self._facts(), "epoch": state.epoch, "resume": resume}))

    def _resumed(self, out: Path | None) -> Path:
        """Go back to where the run in `out` stood, and return its folder."""
        if out is None:
            raise InputError("--resume needs --out, the folder of the run to go on with", fix="give --out runs/NAME --resume")
        stored = files.load(out / LAST)
        written = plain(self.spec) | {"epochs": stored.facts["spec"]["epochs"]}
        changed = [key for key, value in stored.facts["spec"].items() if written.get(key) != value]
        if changed:
            fix = "resume with the config it was started with, or start a new run"
            raise SpecError(f"the run in {out} was started with another {changed[0]}", fix=fix, at=(changed[0],))
        if stored.facts["digests"] != self.data.digests:
            raise CheckpointError(f"the data has changed since the run in {out} was started", fix="restore it, or start a new run")
        facts, tensors = stored.facts["resume"], stored.tensors
        state, best = self.state, stored.under("best")
        self.network.model.load_state_dict(stored.under("model"))
        self.best_weights = {name: best[name].to(self.device) for name in self.live_weights if best}
        state.optimizer.load_state_dict(files.unpack(facts["optimizer"], tensors))
        if state.scaler:
            state.scaler.load_state_dict(files.unpack(facts["scaler"], tensors))
        if self.plateau:
            self.plateau.restore(files.unpack(facts["plateau"], tensors))
        self.best.restore(files.unpack(facts["best"], tensors))
        if self.patience:
            self.patience.restore(files.unpack(facts["patience"], tensors))
        state.epoch, state.step, state.batch, state.rows_seen = (stored.facts["epoch"], facts["step"], facts["batch"], facts["rows_seen"])
        state.loss_sum.copy_(tensors["loop/loss_sum"])
        torch.set_rng_state(tensors["rng/torch"])
        if "rng/cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng/cuda"], self.device)
        return out

    def _check_monitors(self) -> None:
        """A monitored figure must be one that is measured every epoch."""
        spec = self.spec
        stopping = spec.early_stopping.monitor if spec.early_stopping else None
        plateau = self.plateau.monitor if self.plateau else None
        at: Location
        for monitor, at in (
            (spec.checkpoint.monitor, ("checkpoint", "monitor")),
            (stopping, ("early_stopping",)),
            (plateau, ("schedule",)),
        ):
            if monitor is None:
                continue
            measured = ["train.loss"]
            if "val" in spec.evaluate and self.rows["val"]:
                measured += [f"val.{name}" for name in ("loss", *(spec.metrics or ()))]
            if monitor not in measured:
                raise SpecError(f"{monitor!r} is not measured in this run", fix=f"measured are {', '.join(measured)}", at=at)

    def _make_plan(self) -> Plan:
        spec, rows = self.spec, self.rows["train"]
        stepwise = spec.schedule.entry.traits.get("every") == "step"
        plan = Plan(
            seed=spec.seed,
            epochs=spec.epochs,
            batch_size=rows if spec.batch_size == "all" else spec.batch_size,
            shuffle=spec.shuffle,
            drop_last=spec.drop_last,
            lr=spec.lr,
            factor=lambda epoch: 1.0,
            accumulate=spec.accumulate_batches,
            clip_grad_norm=spec.clip_grad_norm,
            precision=spec.precision,
        )
        steps = batches_per_epoch(rows, plan)
        if steps == 0:
            what = f"batch_size {spec.batch_size} with drop_last leaves no batch: the training part has {rows} rows"
            raise SpecError(what, fix=f"write `batch_size: {rows}` or less, or `drop_last: false`", at=("batch_size",))
        if rows % plan.batch_size == 1 and not plan.drop_last and _normalises_batches(self.network.model):
            what = f"the last batch of {rows} training rows in batches of {plan.batch_size} has one row, and batch_norm needs two"
            raise SpecError(what, fix="write `drop_last: true`, or another batch_size", at=("batch_size",))
        plateau = self.plateau
        schedule = (lambda epoch: plateau.factor) if plateau else self.schedule
        factor = warmed_up(schedule, spec.warmup_epochs, steps)
        return dataclasses.replace(plan, factor=factor, by_step=stepwise or spec.warmup_epochs > 0)

    def _fresh_state(self) -> State:
        optimizer = self.spec.optimizer.build(list(self.network.model.parameters()), self.spec.lr)
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        scaler = torch.amp.GradScaler("cuda") if self.spec.precision == "float16" and self.device.type == "cuda" else None
        torch.manual_seed(stream_seed(self.spec.seed, "dropout"))
        return State(self.network.model, optimizer, torch.zeros((), device=self.device, dtype=exact), scaler)

    def _record(self, moment: Moment, before: float) -> Record:
        scores = {name: self.network.score(self.data.parts[name]) for name in self.spec.evaluate if self.rows[name]}
        seconds = time.perf_counter() - before
        return Record(moment.epoch, moment.step, moment.lr, seconds, {"loss": moment.train_loss}, **scores)

    def _judge(self, record: Record) -> None:
        """Keep the weights of the best epoch; with nothing to judge by, the last epoch is the best."""
        if self.plateau:
            self.plateau.update(record.figure(self.plateau.monitor))
        if self.best.monitor and self.best.improved(record.figure(self.best.monitor), record.epoch):
            self._keep_weights()
        if self.patience:
            self.patience.improved(record.figure(self.patience.monitor), record.epoch)

    def _keep_weights(self) -> None:
        """Copy the weights of this epoch beside those in training; the first time makes the copies, later ones fill them."""
        if not self.best_weights:
            self.best_weights = {name: tensor.clone() for name, tensor in self.live_weights.items()}
        else:
            torch._foreach_copy_(list(self.best_weights.values()), list(self.live_weights.values()))

    def _out_of_patience(self) -> bool:
        stopping = self.spec.early_stopping
        return bool(stopping and self.patience and self.patience.waited >= stopping.patience)

    def _due(self, epoch: int, since: float, cost: float) -> bool:
        every = self.spec.checkpoint.every
        return epoch % every == 0 if isinstance(every, int) else since > max(1.0, cost / SAVING_SHARE)

    def _fitted(self) -> dict[str, Tensor]:
        return {f"preprocess/{number}/{name}": tensor for number, step in enumerate(self.data.fitted) for name, tensor in step.items()}

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint says beside its tensors; nothing that differs between two equal runs."""
        data = self.data
        return {
            "spec": plain(self.spec),
            "task": {"targets": list(data.task.targets), "classes": list(data.task.classes)},
            "columns": list(data.columns),
            "layer_names": [name for name, _ in self.network.model.named_children()],
            "raw_shape": list(data.raw_shape),
            "raw_bytes": data.raw_bytes,
            "shape": list(data.shape),
            "digests": data.digests,
            "versions": versions(),
            "device": str(self.device),
            "threads": self.threads,
        }

    def _finish(self) -> None:
        """Score the best weights on every part, and write summary.json."""
        network, data = self.network, self.data
        if self.best_weights:
            network.model.load_state_dict(self.best_weights)
        scores, notes = {}, []
        for name, part in data.parts.items():
            if len(part):
                scores[name] = network.score(part)
                notes = outcome_notes(network.head.predict(network.outputs(part.x)), part.y, data.task)
        self.notes += notes
        self.summary = {
            "name": self.spec.name,
            "run": str(self.folder),
            "epochs": self.state.epoch,
            "best_epoch": self.best.epoch if self.best_weights else self.state.epoch,
            "rows": self.rows,
            "metrics": scores,
            "notes": self.notes,
            "provenance": {
                "versions": versions(),
                "device": str(self.device),
                "threads": self.threads,
                "git": git_commit(Path.cwd()),
                "digests": data.digests,
            },
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }
        commit(self.folder / "summary.json", (strict_json(self.summary, indent=2) + "\n").encode())
        self.lock.release()


def _normalises_batches(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for module in model.modules())


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
