"""The run of many seeds side by side: a `Run` whose state has one more dimension in front, a network for each seed.

metrics.jsonl      one line an epoch; a figure is a list, a value for each seed in their order, null for one that has stopped
best.safetensors   the network of the best seed, as if it had been trained alone
last.safetensors   the state of all
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nnrun.data.prepare import Prepared
from nnrun.errors import CheckpointError, DivergedError, SpecError
from nnrun.model.build import forward_work
from nnrun.run import Run
from nnrun.runs.checkpoint import Checkpoint
from nnrun.runs.folder import Metrics
from nnrun.runs.resume import fitted, learned_by, named
from nnrun.runs.signals import Signals
from nnrun.spec.experiment import Experiment, plain
from nnrun.tracking.tracker import Begun
from nnrun.training.device import choose_threads
from nnrun.training.loop import Moment
from nnrun.training.memory import check_stack
from nnrun.training.network import load_weights, network_for, resolve
from nnrun.training.paces import paces_of
from nnrun.training.plan import first_state, make_plan
from nnrun.training.record import Record
from nnrun.training.stack import Stack, train_stack
from nnrun.training.together import Together


@dataclass(frozen=True)
class Member:
    """One network of several, trained to its end.

    Args:
        judged: the figure by which the best of them is chosen.
        figures: part → its figures.
        weights: those of its best epoch.
    """

    seed: int
    epochs: int
    best_epoch: int
    judged: float
    figures: dict[str, dict[str, float]]
    weights: dict[str, Tensor]


class StackedRun(Run):
    """A run of several networks.

    Args:
        spec: the experiment of them all.
        specs: key → that of each, in order; they differ in name and seed, and in numbers of their own pace where they have one.
        data: prepared for the split that they share.
        paced: whether they differ in learning rate, weight decay or dropout as well.
    """

    def __init__(self, spec: Experiment, specs: Mapping[int, Experiment], data: Prepared, *, paced: bool = False) -> None:
        super().__init__(next(iter(specs.values())), data)
        started = time.perf_counter()
        self.spec = resolve(spec, data)
        self.specs = {key: resolve(one, data) for key, one in specs.items()}
        paces, stepping = paces_of(list(self.specs.values()), self.device) if paced else (None, self.spec)
        size, count = min(self.plan.batch_size, self.rows["train"]), len(specs)
        check_stack(self.spec, self.network.model, data.shape, size, count, self.device)
        if any(isinstance(module, nn.Embedding) for module in self.network.model.modules()):
            for part in data.parts.values():  # a number outside of the table would be looked up in the table of the next network
                self.network.outputs(part.x)
        models = (network_for(one, data, self.device).model for one in self.specs.values())
        seeds = {key: one.seed for key, one in self.specs.items()}
        self.stack = Stack(seeds, models, self.network.loss_fn, data.shape, paces)
        plans = {key: make_plan(one, data, self.network.model)[0] for key, one in self.specs.items()}
        self.plans = {key: replace(plan, lr=1.0) for key, plan in plans.items()} if paces else plans
        self.threads = choose_threads(self.spec.threads, 3 * count * forward_work(self.network.model, data.shape) * size)
        torch.set_num_threads(self.threads)
        self.state = first_state(stepping, self.stack.model, self.device)
        self.state.loss_sum = self.state.loss_sum.new_zeros(count)
        self.together = self.progress = Together(self.spec, self.stack, self.progress.best.monitor)  # type: ignore[assignment]
        self.members: list[Member] = []
        self.seconds["prepare"] += time.perf_counter() - started

    def _refuse_other_kind(self, stored: Checkpoint) -> None:
        """Refuse the state of one network, or of other seeds."""
        seeds = stored.facts.get("seeds", [])
        if seeds != list(self.specs):
            what = f"{self.folder} holds {f'the seeds {seeds[0]} to {seeds[-1]}' if seeds else 'one network'}"
            raise SpecError(what, fix=f"give --seeds {len(seeds)}" if seeds else "leave --seeds out", at=("seed",))

    def _put_back(self, stored: Checkpoint) -> None:
        """Restore the state of the networks that still train, and what has been found of all."""
        try:
            self.stack.keep(stored.facts["resume"]["active"], self.state)
            for stream, state in zip(self.stack.streams, stored.tensors.get("rng/dropout", ()), strict=True):
                stream.set_state(state.clone())  # torch crashes on a view that begins within its storage
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            what = f"the checkpoint does not fit the networks: {str(error).splitlines()[0]}"
            raise CheckpointError(what, fix="start a new run") from None
        super()._put_back(stored)
        self.together.look_again()

    def _remember(self, rows: Sequence[dict[str, Any]]) -> None:
        """Tell the trackers, who see the mean of all networks; the health rules are asked of one network alone."""
        self.trackers.tell("start", Begun(self.folder, plain(self.spec), self.rows, [_mean_row(row) for row in rows]))

    def _is_known(self) -> bool:
        """What is said of all networks is made of their weights, each time."""
        return False

    def _moments(self, signals: Signals) -> Iterator[Moment]:
        """Return the loop over what is left to train."""
        data = [one for one in self._training_data() if isinstance(one, Tensor)]  # all are: what is gathered piece by piece is not stacked
        return train_stack(self.state, self.stack, data, self.plans, due=self._due(signals))

    def _take_in(self, moment: Moment, before: float, metrics: Metrics) -> Record:
        """Score an epoch of every network, write their row, and go on with those that neither diverged nor ran out of patience.

        Raises:
            DivergedError: all have diverged.
        """
        finite = dict(zip(self.stack.keys, self.stack.finite(), strict=True))
        parts = {name: self.data.parts[name] for name in self.spec.evaluate if self.rows[name]}
        network = self.network
        scores: dict[str, Any] = {name: self.stack.figures(part, network.head, network.metrics) for name, part in parts.items()}
        seconds = time.perf_counter() - before
        records = {
            seed: self._record_of(moment, seconds, {name: found[place] for name, found in scores.items()}, self.stack.train_losses[place])
            for place, (seed, is_finite) in enumerate(finite.items())
            if is_finite
        }
        going_on = self.together.judge(records, moment.epoch)
        if len(self.together.diverged) == len(self.specs):
            what = f"a number of each of the {len(self.specs)} networks is not finite, of the last in epoch {moment.epoch}"
            raise DivergedError(what, fix="lower lr, scale the inputs (`preprocess: [standardize]`), or set clip_grad_norm")
        metrics.add(self._row(records, moment, seconds))
        if going_on != self.stack.keys:
            self.stack.keep(going_on, self.state)
            self.together.look_again()
        mean = _mean(records, moment, seconds)
        self.together.best.improved(mean.figure(self.together.best.monitor), mean.epoch)
        self.trackers.tell("record", mean.row())
        return replace(mean, notes=tuple(self.trackers.notes()))

    def _record_of(self, moment: Moment, seconds: float, scores: dict[str, dict[str, float]], loss: float) -> Record:
        return Record(moment.epoch, moment.step, moment.lr, seconds, {"loss": loss}, scores.get("val", {}), scores.get("test", {}))

    def _row(self, records: dict[int, Record], moment: Moment, seconds: float) -> dict[str, Any]:
        """Return the line of an epoch, a list for each figure."""
        first = next(iter(records.values()), None)
        names = {part: list(getattr(first, part)) for part in ("train", "val", "test") if first and getattr(first, part)}
        every = [records.get(seed) for seed in self.specs]
        lists = {
            part: {name: [getattr(one, part)[name] if one else None for one in every] for name in found} for part, found in names.items()
        }
        return {"epoch": moment.epoch, "step": moment.step, **lists, "lr": moment.lr, "seconds": round(seconds, 6)}

    def _best_is(self) -> tuple[int, ...] | None:
        seed = self.together.chosen()
        return None if seed is None or not self.together.each[seed].best_weights else (seed, self.together.best_epoch(seed))

    def _best(self) -> Checkpoint:
        chosen = self.together.chosen()
        seed = next(iter(self.specs)) if chosen is None else chosen
        tensors = named("model", self.together.weights(seed)) | fitted(self.data, self.network)
        return Checkpoint(tensors, {**self._facts(), "spec": learned_by(self.specs[seed]), "epoch": self.together.best_epoch(seed)})

    def _checkpoint(self) -> Checkpoint:
        made = super()._checkpoint()
        streams = {"rng/dropout": torch.stack([stream.get_state() for stream in self.stack.streams])} if self.stack.streams else {}
        resume = {**made.facts["resume"], "active": self.stack.keys}
        return Checkpoint(made.tensors | streams, {**made.facts, "seeds": list(self.specs), "resume": resume})

    def _finish(self) -> None:
        """Score the best weights of each network on every part; the folder stays locked for what is said of all."""
        for seed in self.specs:
            if seed in self.together.diverged:
                continue
            load_weights(self.network.model, self.together.weights(seed))
            figures = {name: self.network.score(part) for name, part in self.data.parts.items() if len(part)}
            self.members.append(self._member(seed, figures))

    def _member(self, seed: int, figures: dict[str, dict[str, float]]) -> Member:
        found = self.together
        return Member(seed, found.epochs[seed], found.best_epoch(seed), found.judged(seed), figures, found.weights(seed))


def _mean(records: dict[int, Record], moment: Moment, seconds: float) -> Record:
    """Return the mean of each figure over the networks, for who watches; nan when none is left."""
    parts = {
        part: {name: sum(getattr(one, part)[name] for one in records.values()) / len(records) for name in names}
        for part in ("train", "val", "test")
        if (names := getattr(next(iter(records.values()), None), part, None))
    }
    return Record(moment.epoch, moment.step, moment.lr, seconds, **({"train": {"loss": math.nan}} | parts))


def _mean_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of all networks as one of a single network, with the means of those that were left."""
    made = dict(row)
    for part in ("train", "val", "test"):
        known = {name: [value for value in values if value is not None] for name, values in row.get(part, {}).items()}
        made |= {part: {name: sum(values) / len(values) for name, values in known.items() if values}} if known else {}
    return made
