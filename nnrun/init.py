"""A first config for the user's own table or folder of pictures: what it holds decides, and the comments say why.

The table is read by the code of the `csv` dataset, the pictures by that of `pictures`, and the rows are split as training will split them:
the baseline in the config is that of its own test part.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from nnrun.data.dataset import Task
from nnrun.data.files import regular_file
from nnrun.data.pictures import class_folders, looks
from nnrun.data.split import split_rows
from nnrun.data.table_files import read_csv
from nnrun.data.tables import Table, floats, is_number, read_columns
from nnrun.data.targets import MOST_CLASSES, targets_from_cells
from nnrun.errors import DataError, InputError, not_writable
from nnrun.spec.experiment import Split

FEWEST_ROWS = 10
EMPTY = {"", "na", "n/a", "nan", "null", "none", "?", "-"}  # what people write for a missing cell
OTHER_FILES = {".parquet", ".npz", ".npy", ".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".feather", ".zip", ".gz"}
LARGEST = 1e7  # of a target that this learning rate still reaches
MOST_LR = 0.1
SCHEMA = "nnrun.schema.json"  # as the README has `nnrun schema` write it
LIKELY = re.compile(r"target|label|class|species|outcome|result|type|kind|price|y", re.IGNORECASE)
TO_CODE = "to use it, code it as numbers, such as one column of 0 and 1 for each value"


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


def first_config(path: Path, target: str | None, config: Path) -> FirstConfig:
    """Return a config for a CSV file, or for a folder that has one sub-folder of pictures for each class.

    Args:
        target: the column to predict; None for pictures.
        config: where it will stand; the path of the data is written relative to its folder.

    Raises:
        DataError: the data is missing, broken or too little, or the target is not given or cannot be predicted.
    """
    written = os.path.relpath(path.absolute(), config.parent.absolute())
    if path.is_dir():
        if target is not None:
            raise DataError(f"--target {target} does not go with a folder of pictures", fix="leave it out: the sub-folders are the classes")
        return _for_pictures(path, written, config)
    return _for_table(path, target, written, config)


def write_config(path: Path, text: str, *, force: bool) -> None:
    """Write a config; one that is there is replaced only when `force` says so.

    Raises:
        InputError: there is something at `path`.
        EnvironmentFault: it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"--out {path} is a folder", fix=f"give a file, such as {path / 'first.yaml'}")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} is there already", fix="give another with --out, or write over it with --force") from None
    except OSError as error:
        raise not_writable(path, error) from None


def _for_table(path: Path, target: str | None, written: str, config: Path) -> FirstConfig:
    table, separator = _open(path)
    if target is None:
        raise _which_target(path, table)
    table.require([target])
    _, cells = read_columns(table, (), table.names)
    task, y = _task(table, target, cells.pop(target))
    unused = {column: reason for column, texts in cells.items() if (reason := _unusable(texts))}
    inputs = [column for column in cells if column not in unused]
    if not inputs:
        told = "; ".join(f"{_plain(column)}: {reason}" for column, reason in unused.items())
        raise DataError(f"{path} has no column of numbers besides the target ({told})", fix="code a column as numbers, without empty cells")
    plan = _plan(str(path), task, y)
    size = next(size for size in SIZES if len(plan.parts["train"]) <= size.most)
    lr, schedule = _rate(task, y[plan.parts["train"]], size, len(plan.parts["train"]))
    widths = size.widths * 2 if lr == MOST_LR and len(size.widths) == 1 else size.widths  # a product of three matrices grows faster
    head = [
        f"{_plain(path.name)} → {_plain(target)}: " + _task_told(task),
        f"  nnrun train {_plain(str(config), 200)}",
        f"The table has {len(y)} rows and {len(table.names)} columns; {_count(len(inputs), 'column')} of numbers "
        f"{'is an input' if len(inputs) == 1 else 'are inputs'}.",
        *_target_told(task, y),
        plan.baseline,
    ]
    ignored = [f"      - {_yaml(column)}  # {reason}" for column, reason in unused.items()]
    lines = [
        "dataset:",
        "  csv:",
        f"    path: {_yaml(written)}",
        f"    target: {_yaml(target)}",
        f"    task: {task.kind}",
        *([f"    separator: {_yaml(separator)}"] if separator != "," else []),
        *(["    ignore:", *ignored] if ignored else []),
        *plan.lines,
        "preprocess: [standardize]  # each column to mean 0 and deviation 1, learned from the training rows alone",
        f"layers: {widths}  # widths; the output layer is added, {_count(len(task.classes) or 1, 'output')}",
        "activation: relu",
        *_training(task, y, size, lr, schedule),
    ]
    notes = [f"column {column!r} is not used: {reason}" for column, reason in unused.items()]
    if not task.classes and float(y.abs().max()) > LARGEST:
        notes.append(f"targets up to {float(y.abs().max()):.3g} are not scaled, and training may diverge: divide the column first")
    return FirstConfig(_text(config, head, lines), notes)


def _for_pictures(path: Path, written: str, config: Path) -> FirstConfig:
    folders = class_folders(path)
    files = [file for inside in folders.values() for file in inside]
    if len(folders) < 2:
        raise DataError(f"{path} has one single class, {next(iter(folders))!r}", fix="make a sub-folder for each class")
    (height, width), grey, same = looks(files)
    task = Task(("class",), tuple(folders))
    y = Tensor([number for number, inside in enumerate(folders.values()) for _ in inside]).long()
    plan = _plan(str(path), task, y)
    rows = len(plan.parts["train"])
    pools = 2 if min(height, width) >= 8 else 1 if min(height, width) >= 4 else 0
    blocks = [
        line
        for number in range(max(1, pools))
        for line in (
            f"  - conv2d: {{out_channels: {16 * 2**number}, kernel_size: 3, padding: 1}}",
            "  - relu",
            *(["  - max_pool2d: 2  # halves height and width"] if pools else []),
        )
    ]
    size = Size(0, [64], 32 if rows < 2000 else 64, 0.001, 60 if rows < 2000 else 20, 10 if rows < 2000 else 5)
    head = [
        f"{_plain(path.name)}: pictures of {_task_told(task)}",
        f"  nnrun train {_plain(str(config), 200)}",
        f"The folder has {len(y)} {'grey' if grey else 'colour'} pictures"
        + (f" of {height} × {width}." if same else f"; each is brought to {height} × {width}."),
        *_target_told(task, y),
        plan.baseline,
    ]
    lines = [
        "dataset:",
        "  pictures:",
        f"    path: {_yaml(written)}",
        f"    size: [{height}, {width}]  # height and width",
        f"    channels: {1 if grey else 3}  # {'grey' if grey else 'colour'}",
        *plan.lines,
        "preprocess: [pixels, standardize]  # bytes to 0 … 1, then each pixel to mean 0 and deviation 1 over the training rows",
        "layers:",
        *blocks,
        "  - flatten",
        "  - linear: 64",
        "  - relu",
        "  - dropout: 0.2  # against learning by heart",
        f"  - {{linear: auto, name: head}}  # {_count(len(task.classes), 'output')}",
        *_training(task, y, size, size.lr, "none"),
    ]
    return FirstConfig(_text(config, head, lines), [])


@dataclass(frozen=True)
class _Plan:
    """How the rows are split: the lines of the config, the row numbers of each part, and the baseline of the test part."""

    lines: list[str]
    parts: dict[str, Tensor]
    baseline: str


def _plan(file: str, task: Task, y: Tensor) -> _Plan:
    """Split as training will, with seed 1; a small table gives the larger shares to validation and test."""
    rows = len(y)
    if rows < FEWEST_ROWS:
        raise DataError(f"{file} has {_count(rows, 'row')}, too few to train, stop and test on", fix=f"give at least {FEWEST_ROWS}")
    held = 0.2 if rows < 1_000 else 0.15 if rows < 10_000 else 0.1
    method, why = "random", ""
    if task.classes:
        counts = np.bincount(y.numpy(), minlength=len(task.classes))
        rarest = int(counts.argmin())
        enough = counts[rarest] >= 5 and int(held * rows) >= len(counts)
        method = "stratified" if enough else "random"
        few = f"{_plain(task.classes[rarest])} has {_count(int(counts[rarest]), 'row')}, too few to share out"
        why = "each class has the same share in every part" if enough else few
    shares = {"train": round(1 - 2 * held, 2), "val": held, "test": held}
    parts = split_rows(Split.model_validate({**shares, "method": method}), y, 1, task.classes)
    told = ", ".join(f"{part}: {share:g}" for part, share in shares.items())
    comment = ", ".join(f"{len(numbers)} {part}" for part, numbers in parts.items()) + f" rows{'; ' * bool(why)}{why}"
    few_rows = f" {len(parts['test'])} rows say little: try other seeds." if len(parts["test"]) < 20 else ""
    lines = ["seed: 1", f"split: {{{told}, method: {method}}}  # {comment}"]
    return _Plan(lines, parts, _baseline(task, y[parts["train"]], y[parts["test"]]) + few_rows)


def _baseline(task: Task, train: Tensor, test: Tensor) -> str:
    """Return what the simplest answer scores on the test part."""
    if task.classes:
        most = int(train.bincount(minlength=len(task.classes)).argmax())
        share = float((test == most).double().mean())
        return f"To beat: test accuracy {share:.4f}, from always answering {_plain(task.classes[most])}."
    error = float((test.double() - train.double().mean(0)).square().mean().sqrt())
    return f"To beat: test rmse {error:.6g}, from always answering the mean, {float(train.double().mean()):.6g}."


def _rate(task: Task, y: Tensor, size: Size, rows: int) -> tuple[float, str]:
    """Return the learning rate and the schedule.

    Targets are not scaled, so the outputs must grow to their size: with Adam each weight moves by about lr a step, and an output by
    the square of that, times the width.
    """
    if task.classes:
        return size.lr, "none"
    steps = size.epochs * math.ceil(rows / size.batch_size) / 4
    reach = math.sqrt(max(1.0, float(y.double().square().mean().sqrt())) / size.widths[-1])
    needed = float(f"{2 * reach / steps:.1g}")
    return min(MOST_LR, max(size.lr, needed)), "plateau"


def _training(task: Task, y: Tensor, size: Size, lr: float, schedule: str) -> list[str]:
    metrics = "[rmse, mae, r2]"
    if task.classes:
        metrics = "[accuracy, balanced_accuracy, f1_macro]" if _imbalance(y) else "[accuracy, f1_macro]"
    half = max(2, size.patience // 3)
    plateau = f"schedule: {{plateau: val.loss, factor: 0.5, patience: {half}}}  # lr is halved when validation stands still"
    return [
        f"loss: {'cross_entropy' if task.classes else 'mse'}",
        "optimizer: adam",
        f"lr: {lr:g}" + ("  # high when the target's numbers are large: they are not scaled" if lr > size.lr else ""),
        *([plateau] if schedule == "plateau" else []),
        f"batch_size: {size.batch_size}",
        f"epochs: {size.epochs}  # at most",
        f"early_stopping: {{monitor: val.loss, patience: {size.patience}}}  # the best epoch is kept",
        f"metrics: {metrics}  # nnrun list metrics",
    ]


def _open(path: Path) -> tuple[Table, str]:
    """Return the table and what separates its cells: a comma, or what makes more than one column of it."""
    regular_file(path)
    if path.suffix.lower() in OTHER_FILES:
        raise DataError(f"{path}: init reads CSV tables and folders of pictures, not {path.suffix}", fix="write the table as CSV")
    separators = "\t,;" if path.suffix.lower() == ".tsv" else ",;\t"
    for separator in separators:
        with contextlib.suppress(DataError):  # a quoted cell that ends in another separator
            table = read_csv(path, separator)
            if len(table.names) > 1:
                return table, separator
    return read_csv(path, separators[0]), separators[0]


def _which_target(path: Path, table: Table) -> DataError:
    """Ask for the column to predict, naming the last one and those that are called like a target."""
    likely = [column for column in table.names[:-1] if LIKELY.fullmatch(column)]
    others = f", or perhaps {', '.join(map(repr, likely[:4]))}" if likely else f" (its columns are {', '.join(table.names[:12])})"
    last = table.names[-1]
    shown = last if re.fullmatch(r"[\w.-]+", last) else f"'{last}'"
    return DataError(f"{path}: which column is to be predicted?", fix=f"add --target {shown} if it is the last one{others}")


def _task(table: Table, target: str, texts: list[str]) -> tuple[Task, Tensor]:
    """Return what the target means: text and few whole numbers that come again and again are classes."""
    different = len(set(texts))
    numbers = all(is_number(text) for text in set(texts))
    again = len(texts) / different >= 5
    if not numbers and different > MOST_CLASSES and not again and sum(map(is_number, texts)) < len(texts) / 2:
        what = f"target {target!r} is text with {different} different values in {len(texts)} rows"
        raise DataError(what, fix="choose another column with --target: a class needs several rows")
    kind = "auto" if not numbers else "classes" if different <= (20 if again else 2) and _whole(texts) else "numbers"
    if kind == "auto" and different > MOST_CLASSES and again:
        kind = "classes"
    return targets_from_cells({target: texts}, kind, table.place)


def _whole(texts: Sequence[str]) -> bool:
    return all(float(text).is_integer() for text in set(texts))


def _unusable(texts: Sequence[str]) -> str:
    """Return why a column cannot be an input, and what to do about it; "" when it can."""
    different = list(dict.fromkeys(texts))
    values, bad = floats(texts)
    if len(bad):
        empty = sum(texts[row].lower() in EMPTY for row in bad)
        if empty == len(bad):
            return f"{empty} of its {len(texts)} cells are empty; to use it, fill them in"
        shown = ", ".join(map(_plain, different[:3])) + (", …" if len(different) > 3 else "")
        return f"it holds text, {len(different)} different: {shown}; {TO_CODE}"
    if len(different) == 1:
        return f"it is always {_plain(different[0])}"
    if len(values) > 2 and values[0] in (0, 1) and bool((np.diff(values) == 1).all()):
        return "it numbers the rows"
    return ""


def _task_told(task: Task) -> str:
    return _count(len(task.classes), "class", "classes") if task.classes else "a number"


def _target_told(task: Task, y: Tensor) -> list[str]:
    """Return how many rows each class has, or the range of the numbers."""
    if not task.classes:
        values = y.double()
        low, high = float(values.min()), float(values.max())
        mean, deviation = float(values.mean()), float(values.std())
        return [f"The target goes from {low:.6g} to {high:.6g}; its mean is {mean:.6g}, its deviation {deviation:.6g}."]
    counts = y.bincount(minlength=len(task.classes)).tolist()
    order = sorted(range(len(counts)), key=lambda number: -counts[number])
    shown = ", ".join(f"{_plain(task.classes[number])} {counts[number]}" for number in order[:10])
    told = [f"Rows of each class: {shown}{', …' if len(order) > 10 else ''}."]
    if _imbalance(y):
        told.append("The classes are far from even: look at balanced_accuracy, and perhaps give the loss a `weight` for each class.")
    return told


def _imbalance(y: Tensor) -> bool:
    counts = y.bincount()
    return int(counts.max()) > 4 * int(counts[counts > 0].min())


def _text(config: Path, head: Sequence[str], lines: Sequence[str]) -> str:
    """Return the file; an editor that finds the schema beside it explains every key."""
    schema = [f"# yaml-language-server: $schema={SCHEMA}\n"] if (config.parent / SCHEMA).is_file() else []
    return "".join([*schema, *(f"# {line}\n" for line in head), *(f"{line}\n" for line in lines)])


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _plain(text: str, longest: int = 30) -> str:
    """Return a text that can stand in a comment: on one line, and not long."""
    shown = "".join(char if char.isprintable() else "�" for char in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _yaml(text: str) -> str:
    """Return a text as a YAML scalar: bare where it cannot be taken for anything else, in quotes otherwise."""
    if re.fullmatch(r"[^\W\d][\w./-]*", text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'
