"""A first config for a table, read by the code of the `csv` dataset: what its columns are, what they need, and which are left out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnrun.data.columns import Column, columns_of
from nnrun.data.dataset import Dataset
from nnrun.data.files import regular_file
from nnrun.data.looks import Look, moments
from nnrun.data.source import ROWS_AT_ONCE, blocks
from nnrun.data.table_files import LINES, PARQUET, Reading, kind_of
from nnrun.data.tables import Table
from nnrun.data.tabular import Wants, tabular
from nnrun.data.targets import MOST_CLASSES
from nnrun.errors import DataError
from nnrun.init.parts import SIZES, FirstConfig, count, plain, plan_of, target_told, task_told, text, training, yaml

OTHER_FILES = {".npz", ".npy", ".json", ".xlsx", ".xls", ".feather", ".zip"}
MANY = 50  # categories of a column, for which a column each would be too much
MOSTLY = 10  # a column with fewer values than one row in ten is left out
LIKELY = re.compile(r"target|label|class|species|outcome|result|type|kind|price|y", re.IGNORECASE)


def for_table(path: Path, target: str | None, written: str, config: Path) -> FirstConfig:
    """Return the config of a table; see `first_config`."""
    reading, table = _open(path)
    if target is None:
        raise _which_target(path, table)
    table.require([target])
    names = [name for name in table.names if name != target]
    kinds = {name: found for name in names if (found := _kind_to_write(table, name))}
    unused = {name: reason for name, (kind, reason) in kinds.items() if kind == "ignore"}
    if len(unused) == len(names):
        told = "; ".join(f"{plain(name)}: {reason}" for name, reason in unused.items())
        raise DataError(f"{path} has no column to predict from ({told})", fix="add columns that tell something of each row")
    said = Wants(target, _task(table, target), {name: kind for name, (kind, _) in kinds.items()}, None, True, {})
    dataset = tabular(str(path), reading, said)
    task, y = dataset.task, dataset.y
    plan = plan_of(str(path), dataset)
    size = next(size for size in SIZES if len(plan.parts["train"]) <= size.most)
    head = [
        f"{plain(path.name)} → {plain(target)}: " + task_told(task),
        f"  nnrun train {plain(str(config), 200)}",
        f"The table has {len(table)} rows and {len(table.names)} columns; {_inputs_told(dataset.columns)}.",
        *target_told(task, y),
        plan.baseline,
    ]
    lines = [
        "dataset:",
        f"  {'parquet' if kind_of(path) in PARQUET else 'jsonl' if kind_of(path) in LINES else 'csv'}:",
        f"    path: {yaml(written)}",
        f"    target: {yaml(target)}",
        f"    task: {task.kind}",
        *([f"    separator: {yaml(reading.separator)}"] if reading.separator not in ("", ",") else []),
        *(["    missing_target: drop"] if len(y) < len(table) else []),
        *(["    columns:", *(f"      {yaml(name)}: {kind}  # {reason}" for name, (kind, reason) in kinds.items())] if kinds else []),
        *plan.lines,
        *_preparation(dataset),
        *(
            ["scale_target: standardize  # the network learns mean 0 and deviation 1; figures and predictions are in the target's own unit"]
            * (not task.classes)
        ),
        f"layers: {size.widths}  # widths; the output layer is added, {count(len(task.classes) or 1, 'output')}",
        "activation: relu",
        *training(task, y, size, "{adamw: {weight_decay: 0.1}}  # the decay keeps weights small: few rows are soon learned by heart"),
    ]
    notes = [f"column {name!r} is not used: {reason}" for name, reason in unused.items()]
    return FirstConfig(text(config, head, lines), [*dataset.notes, *notes])


def _preparation(dataset: Dataset) -> list[str]:
    """Return the lines of the preprocessing: what the columns need, and no more."""
    kinds = {column.kind for column in dataset.columns}
    most = max((len(column.levels) for column in dataset.columns if column.kind == "category"), default=0)
    missing = any(bool(rows.isnan().any()) for rows in blocks(dataset.x, ROWS_AT_ONCE))
    steps = {
        "  - impute  # missing values: the median of a column, a category of its own": missing,
        "  - standardize  # numbers to mean 0 and deviation 1, learned from the training rows alone": kinds & {"number", "date"},
        "  - one_hot: {unknown: other}  # a column of 0 and 1 for each category; all 0 for one that is not known": 0 < most <= MANY,
        "  - embed: {unknown: other, at_least: 2}  # a few learned numbers for each category": most > MANY,
    }
    return ["preprocess:", *(line for line, needed in steps.items() if needed)] if any(steps.values()) else []


def _inputs_told(columns: Sequence[Column]) -> str:
    """Return how many inputs there are of each kind."""
    names = {kind: len({column.name for column in columns if column.kind == kind}) for kind in ("number", "category", "boolean", "date")}
    words = {"number": "number", "category": "category", "boolean": "truth value", "date": "date"}
    told = [count(number, words[kind], "categories" if kind == "category" else "") for kind, number in names.items() if number]
    return f"inputs: {', '.join(told)}"


def _open(path: Path) -> tuple[Reading, Table]:
    """Return how the table is read, and the table: a comma, or what makes more than one column of it, separates its cells."""
    regular_file(path)
    kind = kind_of(path)
    if kind in OTHER_FILES:
        raise DataError(f"{path}: init reads tables and folders of pictures, not {kind}", fix="write the table as CSV or Parquet")
    if kind in (*PARQUET, *LINES):
        return Reading(), Reading().table(path)
    separators = "\t,;" if kind == ".tsv" else ",;\t"
    for separator in separators:
        with contextlib.suppress(DataError):  # a quoted cell that ends in another separator
            table = Reading(separator).table(path)
            if len(table.names) > 1:
                return Reading(separator), table
    return Reading(separators[0]), Reading(separators[0]).table(path)


def _which_target(path: Path, table: Table) -> DataError:
    """Ask for the column to predict, naming the last one and those that are called like a target."""
    likely = [column for column in table.names[:-1] if LIKELY.fullmatch(column)]
    others = f", or perhaps {', '.join(map(repr, likely[:4]))}" if likely else f" (its columns are {', '.join(table.names[:12])})"
    last = table.names[-1]
    shown = last if re.fullmatch(r"[\w.-]+", last) else f"'{last}'"
    return DataError(f"{path}: which column is to be predicted?", fix=f"add --target {shown} if it is the last one{others}")


def _task(table: Table, target: str) -> str:
    """Return `classes` or `numbers`: text, and few whole numbers that come again and again, are classes; `auto` lets the dataset say."""
    texts = table.texts(target).drop_nulls()
    values, bad = table.numbers(target)
    different, rows = max(1, texts.n_unique()), len(texts)
    again = rows / different >= 5
    if len(bad):
        if different > MOST_CLASSES and not again and len(bad) * 2 > rows:
            what = f"target {target!r} is text with {different} different values in {rows} rows"
            raise DataError(what, fix="choose another column with --target: a class needs several rows")
        return "classes" if different > MOST_CLASSES and again else "auto"
    values = values[~np.isnan(values)]
    return "classes" if different <= (20 if again else 2) and bool((values == np.floor(values)).all()) else "numbers"


def _kind_to_write(table: Table, name: str) -> tuple[str, str] | None:
    """Return what the config says of a column, and why; None when what its cells say is right."""
    try:
        (column, *_) = columns_of([Look(table, name)], {})
    except DataError as error:
        return "ignore", error.faults[0].what.partition(f"column {name!r} ")[2]
    texts = table.texts(name)
    present = texts.drop_nulls()
    if present.n_unique() == 1 and len(present) == len(texts):
        return "ignore", f"it is always {plain(present[0])}"
    if len(present) * MOSTLY < len(texts):
        return "ignore", f"{len(texts) - len(present)} of its {len(texts)} cells are empty"
    if column.kind == "date" and (wrong := present.filter(moments(present).is_null())).len():
        return "ignore", f"{count(len(wrong), 'cell')} {'is' if len(wrong) == 1 else 'are'} no date, such as {plain(wrong[0])}"
    if column.kind == "number":
        values, bad = table.numbers(name)
        if len(bad):
            few = present.n_unique() * 5 <= len(present)
            why = f"{count(len(bad), 'cell')} {'is' if len(bad) == 1 else 'are'} no number, such as {plain(texts[int(bad[0])])}"
            return "category" if few else "ignore", why
        if len(values) > 2 and values[0] in (0, 1) and bool((np.diff(values) == 1).all()):
            return "ignore", "it numbers the rows"
    return None
