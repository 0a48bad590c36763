"""Dataset → split → preprocessing fitted on the training rows alone → tensors on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from nnrun.data.categories import coding, completed, fills
from nnrun.data.columns import Column, missing_values, narrowed
from nnrun.data.dataset import Dataset, Rows, Task
from nnrun.data.fingerprint import Known, difference, fingerprint, marks
from nnrun.data.leaks import Leak, leaks
from nnrun.data.preprocess import apply_steps, columns_after, fit_steps
from nnrun.data.source import ROWS_AT_ONCE, RowSource, applied, blocks, taken
from nnrun.data.split import split_rows
from nnrun.data.stored import StoredRows
from nnrun.errors import DataError
from nnrun.spec.experiment import METHOD_COLUMNS, Experiment
from nnrun.spec.parts import Part


@dataclass(frozen=True)
class Prepared:
    """Data that is ready for a network.

    Args:
        task: what the targets mean.
        raw_columns: what the columns of a table mean, with the categories that the training rows have; empty for pictures and arrays.
        columns: the same after preprocessing.
        raw_shape: the shape of one row as the dataset gives it.
        raw_bytes: whether the dataset gives bytes (pictures from 0 to 255).
        parts: train, val, test: prepared inputs float32 (N, ...) and targets, on the device.
        row_numbers: the numbers (N,) of each part's rows in the dataset.
        weight: how much each training row counts, by the dataset, float32 (N,) on the device; None when all count alike.
        steps: the preprocessing, with what it takes by default.
        fitted: what each of these steps learned from the training rows.
        known: what the checkpoint keeps of the data and of the split, to know them again.
        notes: what the user should know, one sentence each.
        leaks: what could make the test part look better than the network is; also in the notes.
    """

    task: Task
    raw_columns: tuple[Column, ...]
    columns: tuple[Column, ...]
    raw_shape: tuple[int, ...]
    raw_bytes: bool
    parts: dict[str, Rows]
    row_numbers: dict[str, Tensor]
    weight: Tensor | None
    steps: list[Part]
    fitted: list[dict[str, Tensor]]
    known: Known
    notes: list[str]
    leaks: list[Leak]

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of the data and of the split."""
        return self.known.digests

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one prepared row."""
        return tuple(self.parts["train"].x.shape[1:])


def prepare(
    spec: Experiment, device: torch.device, *, fitted: Sequence[Mapping[str, Tensor]] | None = None, stored: Known | None = None
) -> Prepared:
    """Load, split and prepare the data of an experiment.

    Args:
        fitted: what the steps learned when the network was trained; None learns it from the training rows.
        stored: what a checkpoint knows of the data; None for a network that is not trained yet.

    Raises:
        DataError: the data is missing, not usable, or not what it was when the network was trained.
    """
    dataset = load_dataset(spec)
    rows = split_rows(spec.split, dataset, spec.seed)
    data_digest, keys = fingerprint(dataset, by_row=stored is None)
    known = Known({"data": data_digest, "split": _split_digest(rows)}, len(dataset), marks(keys) if stored is None else stored.marks)
    changed = _changes(spec, dataset, known, stored) if stored else []
    found = leaks(spec, dataset, rows, keys) if stored is None else []
    notes = [*dataset.notes, *changed, *(f"{one.what}; {one.fix}" for one in found)]
    notes += _unlearned(dataset, rows["train"]) if stored is None else ()
    _refuse_missing(spec, dataset)
    at_least, other = coding(spec.preprocess)
    columns, x = narrowed(dataset.columns, dataset.x, rows["train"], at_least=at_least, other=other)
    notes += _unknown(columns, x, rows)
    steps = completed(spec.preprocess, columns)
    raw = {name: Rows(taken(x, part), dataset.y.index_select(0, part)) for name, part in rows.items()}
    learned = [dict(step) for step in fitted] if fitted is not None else fit_steps(steps, raw["train"].x, columns)

    def prepared(x: Tensor) -> Tensor:
        return apply_steps(steps, learned, x, columns).contiguous().to(device)

    parts = {name: Rows(_laid_down(applied(prepared, part.x), dataset), part.y.to(device)) for name, part in raw.items()}
    return Prepared(
        dataset.task,
        columns,
        columns_after(steps, learned, columns),
        tuple(dataset.x.shape[1:]),
        dataset.x.dtype == torch.uint8,
        parts,
        rows,
        None if dataset.weight is None else dataset.weight[rows["train"]].to(device),
        steps,
        learned,
        known,
        notes,
        found,
    )


def _changes(spec: Experiment, dataset: Dataset, known: Known, stored: Known) -> list[str]:
    """Return a note of what has changed since the network was trained, where the config wants no more.

    Raises:
        DataError: the rows are not those it was trained with, or not in the same parts.
    """
    notes = []
    for name, value in stored.digests.items():
        if known.digests[name] != value:
            what = f"the {name} of dataset {spec.dataset.entry.name!r} has changed since the network was trained"
            told = f"{what}: {difference(dataset, stored)}" if name == "data" else what
            if name != "data" or spec.changed_rows == "error":
                raise DataError(told, fix=f"restore it (digest {value[:12]}, found {known.digests[name][:12]}), or train again")
            notes.append(told)
    return notes


def check_columns(found: Prepared, facts: Sequence[Any]) -> None:
    """Refuse data whose columns mean something else than a checkpoint says, which its weights were not made for.

    Raises:
        DataError: naming the first of them.
    """
    stored = tuple(map(Column.of, facts))
    for now, was in zip_longest(found.raw_columns, stored):
        if now != was:
            what = f"column {str(now or was)!r} is no longer what it was when the network was trained: another kind, or other categories"
            raise DataError(what, fix="restore it, or train again")


def changed_rows(spec: Experiment, stored: Known) -> str:
    """Return which rows of an experiment's dataset are not those that a checkpoint knows, as `difference`."""
    return difference(load_dataset(spec), stored)


def _split_digest(rows: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of which rows are in which part, in their order."""
    found = hashlib.sha256()
    for part in rows.values():
        found.update(part.contiguous().numpy().data)
        found.update(b"/")
    return found.hexdigest()


def load_dataset(spec: Experiment) -> Dataset:
    """Return the dataset of an experiment; a column that the split goes by is no input of a table unless the dataset says what it is."""
    aside = {name: key for key in METHOD_COLUMNS.values() if (name := getattr(spec.split, key)) is not None}
    made: Dataset = spec.dataset.build(*([aside] if spec.dataset.entry.traits.get("table") else []))
    return made


def _laid_down(x: Tensor | RowSource, dataset: Dataset) -> Tensor | RowSource:
    """Return the prepared rows of a table that is not in memory as a file of their own, in their order, unless that would be far larger."""
    table = isinstance(x, RowSource) and dataset.table is not None and len(x) > 0
    return StoredRows.of(x) if table and isinstance(x, RowSource) and x.shape[1] <= 2 * dataset.x.shape[1] else x


def _refuse_missing(spec: Experiment, dataset: Dataset) -> None:
    """Refuse values that are missing and that no step fills in."""
    if fills(spec.preprocess):
        return
    steps = ", ".join(["impute", *(step.entry.name for step in spec.preprocess)])
    found = missing_values(
        dataset.table, dataset.columns, dataset.x, f"write `preprocess: [{steps}]`, or `columns: {{{{{{name}}: ignore}}}}`"
    )
    if found:
        raise found


def _unlearned(dataset: Dataset, train: Tensor) -> list[str]:
    """Return a note of the classes that no training row has.

    Raises:
        DataError: every training row has the weight 0.
    """
    if dataset.weight is not None and not bool(dataset.weight[train].any()):
        what = "the weight is 0 in every training row"
        raise DataError(what, fix="give some of them a weight, or split in another way", at=("dataset", "weight"))
    classes = dataset.task.classes
    found = dataset.y[train].bincount(minlength=len(classes)).tolist() if classes else []
    absent = [name for name, count in zip(classes, found, strict=True) if not count]
    return [f"no training row is of the class {', '.join(map(repr, absent[:8]))}: the network cannot learn it"] if absent else []


def _unknown(columns: Sequence[Column], x: Tensor | RowSource, rows: Mapping[str, Tensor]) -> list[str]:
    """Return a note of the rows outside training that hold a category which no training row has."""
    notes = []
    coded = [number for number, column in enumerate(columns) if column.kind == "category"]
    for part in ("val", "test") if coded else ():
        count, where = 0, torch.zeros(len(coded), dtype=torch.bool)
        for some in blocks(taken(applied(lambda rows: rows[:, coded], x), rows[part]), ROWS_AT_ONCE):
            unknown = some == -1
            count += int(unknown.any(1).sum())
            where |= unknown.any(0)
        if count:
            which = ", ".join(str(columns[coded[number]]) for number in torch.nonzero(where).flatten().tolist()[:4])
            notes.append(f"{count} {part} rows hold a category that is not known from training (in {which})")
    return notes
