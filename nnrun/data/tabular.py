"""A dataset from a table: which columns are the target, the inputs and the weight, and what each row is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nnrun.data.columns import columns_of, raw_rows
from nnrun.data.dataset import Dataset
from nnrun.data.looks import Look
from nnrun.data.table_files import Reading, found_files, joined
from nnrun.data.tables import Table
from nnrun.data.targets import AT, targets_from_table
from nnrun.errors import DataError
from nnrun.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

PATH = ("dataset", "path")


@dataclass(frozen=True)
class Wants:
    """What the config says of a table.

    Args:
        kinds: column → what it is, for those that the config speaks of.
        drop: whether rows without a target are left out.
        aside: columns that the split is made by, and the key that names each; they are no inputs, unless `kinds` says what they are.
    """

    target: str | Sequence[str]
    task: str
    kinds: Mapping[str, str]
    weight: str | None
    drop: bool
    aside: Mapping[str, str]

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def texts(self) -> set[str]:
        """The columns that must come as they are written."""
        return {*self.targets, *self.aside, *(name for name, kind in self.kinds.items() if kind != "number")}


def tabular(path: str | Sequence[str], reading: Reading, wants: Wants) -> Dataset:
    """Return the dataset of a table in one or more files.

    Raises:
        DataError: a file or a column is missing, or cells are not what they should be.
    """
    table = joined(found_files(path, at=PATH), reading, wants.texts, at=PATH)
    names, rows = input_names(table, wants), len(table)
    if wants.drop:
        empty = without_target(table, wants.targets)
        if empty.all():
            raise DataError(f"{table.file}: no row has a target", fix="is this the right column?", at=AT)
        table = table.without(empty) if empty.any() else table
    columns = columns_of([Look(table, name, wants.kinds.get(name, "")) for name in names], wants.kinds)
    task, y = targets_from_table(table, wants.targets, wants.task)
    x_ND = torch.from_numpy(raw_rows(table, columns))
    weight = row_weights(table, wants.weight) if wants.weight else None
    if wants.weight and weight is not None:
        check_some_weight([weight], wants.weight)
    return Dataset(x_ND, y, task, columns, table, weight, dropped_note(rows - len(table), rows))


def input_names(table: Table, wants: Wants) -> list[str]:
    """Return the names of the input columns."""
    targets = wants.targets
    if not targets:
        raise DataError("no target is named", fix="write the column that is to be predicted", at=AT)
    if len(set(targets)) < len(targets):
        raise DataError(f"target {list(targets)} does not name different columns", fix="name each target column once", at=AT)
    if len(table.names) == 1 and any(other in table.names[0] for other in ";\t,|"):
        other = next(repr(other)[1:-1] for other in ";\t,|" if other in table.names[0])
        raise DataError(f"{table.file} has one column, {table.names[0]!r}", fix=f'write `separator: "{other}"`', at=PATH)
    table.require(targets, at=AT)
    table.require(wants.kinds, at=("dataset", "columns"))
    table.require([wants.weight] if wants.weight else [], at=("dataset", "weight"))
    for name, key in wants.aside.items():
        table.require([name], at=("split", key))
    twice = next((name for name in targets if wants.kinds.get(name) or name == wants.weight), None)
    if twice is not None:
        at = ("dataset", "columns" if twice in wants.kinds else "weight")
        raise DataError(f"column {twice!r} is the target", fix="name it once: what a target is, `task` says", at=at)
    unused = {*targets, wants.weight, *(name for name in wants.aside if name not in wants.kinds)}
    unused |= {name for name, kind in wants.kinds.items() if kind == "ignore"}
    names = [name for name in table.names if name not in unused]
    if not names:
        ignored = " and the ignored ones" * (len(table.names) > len(targets))
        raise DataError(f"{table.file} has no column besides the target{ignored}", fix="a network needs at least one input column", at=AT)
    return names


def without_target(table: Table, targets: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which rows (N,) lack a target."""
    import polars

    empty = table.frame.select(polars.any_horizontal(table.texts(name).is_null() for name in targets).alias("empty"))["empty"]
    return empty.to_numpy()


def dropped_note(dropped: int, rows: int) -> tuple[str, ...]:
    """Return the note of rows that were left out for having no target."""
    return (f"{dropped} of {rows} rows have no target and are left out",) if dropped else ()


def row_weights(table: Table, name: str) -> Tensor:
    """Return how much each row counts, float32 (N,)."""
    import numpy as np

    values, bad = table.numbers(name)
    wrong = bad if len(bad) else np.flatnonzero(~(values >= 0))
    if len(wrong):
        fault = table.fault(f"weight {name!r} is not a number of at least 0", "give each row a weight, such as 1", name, wrong)
        raise DataError([replace(fault, at=("dataset", "weight"))])
    return torch.from_numpy(values.astype(np.float32))


def check_some_weight(weights: Sequence[Tensor], name: str) -> None:
    """Refuse weights that are all 0."""
    if not any(bool((some > 0).any()) for some in weights):
        raise DataError(f"weight {name!r} is 0 in every row", fix="give some rows a weight", at=("dataset", "weight"))
