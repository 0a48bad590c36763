"""Rows in memory, as Python gives them to `Trained.predict`: arrays, tensors, frames, mappings, paths.

Rows of named columns become a table, and go the way of a file's; rows of numbers alone, the most usual by far, are an array at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from nnrun.data.arrays import as_tensor
from nnrun.data.inputs import Inputs, Wanted, from_table, read_inputs, shaped, typed
from nnrun.data.tables import Table
from nnrun.errors import DataError
from nnrun.lazy import torch

if TYPE_CHECKING:
    import polars

TOLD = "the input"
KINDS = "an array, a tensor, a frame of polars or pandas, a list of mappings, or paths of files"


def inputs_of(rows: Any, wanted: Wanted) -> Inputs:
    """Return rows as the network's dataset would have given them.

    Args:
        rows: an array or a tensor of one row or of many, a frame of polars or pandas, mappings or one of them, paths or one of them.

    Raises:
        DataError: they are none of these, or not what the network wants.
    """
    if isinstance(rows, Inputs):
        return rows
    several = rows if isinstance(rows, list | tuple) else [rows]
    if several and all(isinstance(one, str | PathLike) for one in several):
        return read_inputs([fspath(one) for one in several], wanted)
    if several and all(isinstance(one, Mapping) for one in several):
        return _from_mappings(several, wanted)
    library = type(rows).__module__.partition(".")[0]
    if library in ("polars", "pandas") and hasattr(rows, "columns"):
        made = from_table(Table(TOLD, rows if library == "polars" else _polars_of(rows)), wanted)
    else:
        made = _from_array(rows, wanted)
    return replace(made, x=typed(made.x, TOLD, wanted.as_bytes))


def _from_mappings(rows: Sequence[Mapping[str, Any]], wanted: Wanted) -> Inputs:
    import polars

    names = [column.name for column in wanted.columns]
    if names and all(column.kind == "number" for column in wanted.columns):
        values = [row.get(name) for row in rows for name in names]
        if all(type(value) is float or type(value) is int for value in values):  # as a table it would take ten times as long
            x = as_tensor(_array(values).reshape(len(rows), len(names)), TOLD)
            return Inputs(x.reshape(-1, *wanted.shape), range(len(rows)))
    columns = dict.fromkeys(name for row in rows for name in row)
    return from_table(Table(TOLD, polars.DataFrame([_series(name, [row.get(name) for row in rows]) for name in columns])), wanted)


def _series(name: str, values: list[Any]) -> polars.Series:
    """Return a column; one of several types becomes text, as the column of a file would be."""
    import polars

    try:
        return polars.Series(name, values)
    except TypeError:
        return polars.Series(name, [None if value is None else str(value) for value in values], dtype=polars.String)


def _polars_of(frame: Any) -> polars.DataFrame:
    """Return a frame of pandas as one of polars; through Python where pandas has types of its own, so that pyarrow is not needed."""
    import polars

    made = []
    for name, column in frame.items():
        plain = getattr(column.dtype, "kind", "O") in "biufM" and not hasattr(column.dtype, "na_value")
        if plain:
            made.append(polars.Series(str(name), column.to_numpy()))
        else:
            made.append(_series(str(name), [None if empty else one for one, empty in zip(column.tolist(), column.isna(), strict=True)]))
    return polars.DataFrame(made)


def _from_array(rows: Any, wanted: Wanted) -> Inputs:
    """Return the rows of an array or a tensor; one of the shape of a row is one row."""
    values = rows.detach().cpu().numpy() if isinstance(rows, torch.Tensor) else _array(rows)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{TOLD} is {type(rows).__name__}, which is not rows of numbers", fix=f"give {KINDS}")
    if values.shape == wanted.shape:
        values = values[None]
    if values.ndim == 0 or not len(values):
        raise DataError(f"{TOLD} has no rows (its shape is {list(values.shape)})", fix=f"give {KINDS}")
    return shaped(as_tensor(values, TOLD), TOLD, wanted)


def _array(rows: Any) -> Any:
    import numpy as np

    try:
        return np.asarray(rows)
    except ValueError:  # rows of different lengths
        raise DataError(f"{TOLD} is not rows of one shape", fix=f"give {KINDS}") from None
