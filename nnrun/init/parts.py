"""What every first config has: how the rows are split, the training, the baseline to beat, and how names become YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from nnrun.data.dataset import Dataset, Task
from nnrun.data.split import split_rows
from nnrun.errors import DataError
from nnrun.spec.experiment import Split

FEWEST_ROWS = 10
SCHEMA = "nnrun.schema.json"  # as the README has `nnrun schema` write it


@dataclass(frozen=True)
class FirstConfig:
    """A config that trains at once.

    Args:
        text: the YAML, with its comments.
        notes: what of the data is not used, one sentence each.
    """

    text: str
    notes: list[str]


@dataclass(frozen=True)
class Size:
    """What goes with a number of training rows.

    Args:
        most: up to how many rows it is meant for.
        patience: epochs without improvement before training stops.
    """

    most: float
    widths: list[int]
    batch_size: int
    lr: float
    epochs: int
    patience: int


SIZES = (
    Size(100, [16], 8, 0.01, 500, 50),
    Size(200, [16], 16, 0.01, 200, 30),
    Size(2_000, [32, 16], 32, 0.005, 100, 15),
    Size(20_000, [64, 32], 64, 0.002, 60, 10),
    Size(math.inf, [128, 64], 256, 0.001, 40, 5),
)


@dataclass(frozen=True)
class Plan:
    """How the rows are split: the lines of the config, the row numbers of each part, and the baseline of the test part."""

    lines: list[str]
    parts: dict[str, Tensor]
    baseline: str


def plan_of(file: str, dataset: Dataset) -> Plan:
    """Split as training will, with seed 1; a small table gives the larger shares to validation and test."""
    task, y, rows = dataset.task, dataset.y, len(dataset.y)
    if rows < FEWEST_ROWS:
        raise DataError(f"{file} has {count(rows, 'row')}, too few to train, stop and test on", fix=f"give at least {FEWEST_ROWS}")
    held = 0.2 if rows < 1_000 else 0.15 if rows < 10_000 else 0.1
    method, why = "random", ""
    if task.classes:
        counts = np.bincount(y.numpy(), minlength=len(task.classes))
        rarest = int(counts.argmin())
        enough = counts[rarest] >= 5 and int(held * rows) >= len(counts)
        method = "stratified" if enough else "random"
        few = f"{plain(task.classes[rarest])} has {count(int(counts[rarest]), 'row')}, too few to share out"
        why = "each class has the same share in every part" if enough else few
    shares = {"train": round(1 - 2 * held, 2), "val": held, "test": held}
    parts = split_rows(Split.model_validate({**shares, "method": method}), dataset, 1)
    told = ", ".join(f"{part}: {share:g}" for part, share in shares.items())
    comment = ", ".join(f"{len(numbers)} {part}" for part, numbers in parts.items()) + f" rows{'; ' * bool(why)}{why}"
    few_rows = f" {len(parts['test'])} rows say little: try other seeds." if len(parts["test"]) < 20 else ""
    lines = ["seed: 1", f"split: {{{told}, method: {method}}}  # {comment}"]
    return Plan(lines, parts, _baseline(task, y[parts["train"]], y[parts["test"]]) + few_rows)


def _baseline(task: Task, train: Tensor, test: Tensor) -> str:
    """Return what the simplest answer scores on the test part."""
    if task.classes:
        most = int(train.bincount(minlength=len(task.classes)).argmax())
        share = float((test == most).double().mean())
        return f"To beat: test accuracy {share:.4f}, from always answering {plain(task.classes[most])}."
    error = float((test.double() - train.double().mean(0)).square().mean().sqrt())
    return f"To beat: test rmse {error:.6g}, from always answering the mean, {float(train.double().mean()):.6g}."


def training(task: Task, y: Tensor, size: Size, optimizer: str = "adam") -> list[str]:
    """Return the lines of the loss, the optimiser and the metrics."""
    metrics = "[rmse, mae, r2]"
    if task.classes:
        metrics = "[accuracy, balanced_accuracy, f1_macro]" if _imbalance(y) else "[accuracy, f1_macro]"
    half = max(2, size.patience // 3)
    plateau = f"schedule: {{plateau: val.loss, factor: 0.5, patience: {half}}}  # lr is halved when validation stands still"
    return [
        f"loss: {'cross_entropy' if task.classes else 'mse'}",
        f"optimizer: {optimizer}",
        f"lr: {size.lr:g}",
        *([] if task.classes else [plateau]),
        f"batch_size: {size.batch_size}",
        f"epochs: {size.epochs}  # at most",
        f"early_stopping: {{monitor: val.loss, patience: {size.patience}}}  # the best epoch is kept",
        f"metrics: {metrics}  # nnrun list metrics",
    ]


def task_told(task: Task) -> str:
    """Return what is predicted, in a word or two."""
    return count(len(task.classes), "class", "classes") if task.classes else "a number"


def target_told(task: Task, y: Tensor) -> list[str]:
    """Return how many rows each class has, or the range of the numbers."""
    if not task.classes:
        values = y.double()
        low, high = float(values.min()), float(values.max())
        mean, deviation = float(values.mean()), float(values.std())
        return [f"The target goes from {low:.6g} to {high:.6g}; its mean is {mean:.6g}, its deviation {deviation:.6g}."]
    counts = y.bincount(minlength=len(task.classes)).tolist()
    order = sorted(range(len(counts)), key=lambda number: -counts[number])
    shown = ", ".join(f"{plain(task.classes[number])} {counts[number]}" for number in order[:10])
    told = [f"Rows of each class: {shown}{', …' if len(order) > 10 else ''}."]
    if _imbalance(y):
        told.append("The classes are far from even: look at balanced_accuracy, and perhaps give the loss a `weight` for each class.")
    return told


def _imbalance(y: Tensor) -> bool:
    counts = y.bincount()
    return int(counts.max()) > 4 * int(counts[counts > 0].min())


def text(config: Path, head: Sequence[str], lines: Sequence[str]) -> str:
    """Return the file; an editor that finds the schema beside it explains every key."""
    schema = [f"# yaml-language-server: $schema={SCHEMA}\n"] if (config.parent / SCHEMA).is_file() else []
    return "".join([*schema, *(f"# {line}\n" for line in head), *(f"{line}\n" for line in lines)])


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def plain(text: str, longest: int = 30) -> str:
    """Return a text that can stand in a comment: on one line, and not long."""
    shown = "".join(char if char.isprintable() else "�" for char in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def yaml(text: str) -> str:
    """Return a text as a YAML scalar: bare where it cannot be taken for anything else, in quotes otherwise."""
    if re.fullmatch(r"[^\W\d][\w./-]*", text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'
