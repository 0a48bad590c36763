"""Spec and data → the plan of the loop and its first state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from nnrun.data.augment import Augmentation
from nnrun.data.prepare import Prepared
from nnrun.errors import SpecError
from nnrun.spec.base import Location
from nnrun.spec.experiment import Experiment
from nnrun.training.evaluate import ROWS_AT_ONCE
from nnrun.training.group import ALONE, Group
from nnrun.training.loop import Plan, State, stream_seed
from nnrun.training.schedules import Plateau, warmed_up
from nnrun.training.step import batches_per_epoch


def make_plan(spec: Experiment, data: Prepared, model: nn.Module, group: Group = ALONE) -> tuple[Plan, Plateau | None]:
    """Return the plan of a resolved spec for its prepared data, and a schedule that follows a figure.

    Raises:
        SpecError: the rows are no pictures to augment; the batches leave nothing to train on, or leave one row to a layer that needs two;
            the optimizer is none for many processes.
    """
    row_numbers = data.row_numbers["train"]
    rows = len(row_numbers)
    size = rows if spec.batch_size == "all" else spec.batch_size
    steps = batches_per_epoch(rows, size, drop_last=spec.drop_last)
    if steps == 0:
        what = f"batch_size {spec.batch_size} with drop_last leaves no batch: the training part has {rows} rows"
        raise SpecError(what, fix=f"write `batch_size: {rows}` or less, or `drop_last: false`", at=("batch_size",))
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        _refuse_single_rows(spec, rows, size, group)
    if group.world_size > 1 and spec.optimizer.entry.traits.get("closure"):
        what = f"{spec.optimizer.entry.name} looks at the loss several times in one step, which {group.world_size} processes cannot share"
        raise SpecError(what, fix="take another optimizer, or train in one process", at=("optimizer",))
    if group.shards(spec.strategy.build()) and not spec.optimizer.entry.traits.get("by_number"):
        what = f"{spec.optimizer.entry.name} looks at whole weights, of which {spec.strategy.entry.name} gives each process a share"
        raise SpecError(what, fix="take another optimizer, such as adamw, or write `strategy: ddp`", at=("optimizer",))
    schedule: Any = spec.schedule.build(max(spec.epochs - spec.warmup_epochs, 1.0))
    plateau = schedule if isinstance(schedule, Plateau) else None
    factor = (lambda epoch: schedule.factor) if plateau else schedule
    augment = _augmentation(spec, data) if spec.augment else None
    plan = Plan(
        seed=spec.seed,
        epochs=spec.epochs,
        batch_size=size,
        shuffle=spec.shuffle,
        drop_last=spec.drop_last,
        lr=spec.lr,
        factor=warmed_up(factor, spec.warmup_epochs, steps),
        by_step=spec.schedule.entry.traits.get("every") == "step" or spec.warmup_epochs > 0,
        row_numbers=row_numbers,
        accumulate=spec.accumulate_batches,
        clip_grad_norm=spec.clip_grad_norm,
        precision=spec.precision,
        augment=augment,
        two_targets=augment is not None and augment.two_targets,
    )
    return plan, plateau


def _refuse_single_rows(spec: Experiment, rows: int, size: int, group: Group) -> None:
    """Refuse batches that leave one row to batch_norm, which needs two; where it is not synchronised, two in each process."""
    last = 0 if spec.drop_last else rows % size
    if last == 1 or size == 1:
        what = f"the last batch of {rows} training rows in batches of {size} has one row, and batch_norm needs two"
        raise SpecError(what, fix="write `drop_last: true`, or another batch_size", at=("batch_size",))
    fewest = min(size, last or size)
    if group.world_size > 1 and not spec.sync_batch_norm and fewest < 2 * group.world_size:
        what = f"a batch of {fewest} rows leaves less than two to some of {group.world_size} processes, and batch_norm needs two"
        raise SpecError(what, fix="write `sync_batch_norm: true`, `drop_last: true`, or another batch_size", at=("batch_size",))


def _augmentation(spec: Experiment, data: Prepared) -> Augmentation:
    key = partial(stream_seed, spec.seed, "augment")
    some = data.parts["train"].x[:ROWS_AT_ONCE]
    return Augmentation(spec.augment, some, key, data.row_numbers["train"], classes=bool(data.task.classes))


def first_state(spec: Experiment, model: nn.Module, device: torch.device, group: Group = ALONE) -> State:
    """Return the state before the first step; the stream of dropout begins here, in each process its own."""
    optimizer = spec.optimizer.build(list(model.parameters()), spec.lr)
    exact = torch.float32 if device.type == "mps" else torch.float64
    scaler = torch.amp.GradScaler("cuda") if spec.precision == "float16" and device.type == "cuda" else None
    torch.manual_seed(stream_seed(spec.seed, "dropout", *([] if group.first else [group.rank])))
    return State(model, optimizer, torch.zeros((), device=device, dtype=exact), scaler)


def check_monitors(spec: Experiment, rows: Mapping[str, int], plateau: Plateau | None) -> None:
    """Refuse to watch a figure that is not measured every epoch.

    Args:
        rows: part → number of rows.

    Raises:
        SpecError: placed at the key that names the figure.
    """
    measured = ["train.loss"]
    if "val" in spec.evaluate and rows["val"]:
        measured += [f"val.{name}" for name in ("loss", *(spec.metrics or ()))]
    watched: list[tuple[str | None, Location]] = [
        (spec.checkpoint.monitor, ("checkpoint", "monitor")),
        (spec.early_stopping.monitor if spec.early_stopping else None, ("early_stopping",)),
        (plateau.monitor if plateau else None, ("schedule",)),
    ]
    for monitor, at in watched:
        if monitor is not None and monitor not in measured:
            raise SpecError(f"{monitor!r} is not measured in this run", fix=f"measured are {', '.join(measured)}", at=at)


def saving_intervals(every: int | str) -> tuple[int, int]:
    """Return `checkpoint.every` as steps and epochs; (0, 0) is `auto`."""
    count, unit = (every, "epoch") if isinstance(every, int) else re.match(r"(\d*) ?(\w*)", every).groups()  # type: ignore[union-attr]
    return (int(count), 0) if str(unit).startswith("step") else (0, int(count) if count else 0)
