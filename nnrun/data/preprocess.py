"""What is done to the inputs before the network sees them, fitted on the training rows alone.

A step is made of pure functions. `fit` learns from the training rows and returns tensors, which the checkpoint stores; `apply` replays the
step anywhere with those tensors. Statistics are taken in float64, a few thousand rows at a time, so that bytes need no large copy. Of a
table, a scaler sees the columns of numbers alone: truth values and categories are left as they are. The steps that fill in missing values
and code categories are in `categories`.

Shapes: tables are (N, D), pictures (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nnrun.data.columns import Column
from nnrun.data.source import RowSource, applied, blocks
from nnrun.data.source import columns as some_columns
from nnrun.errors import DataError
from nnrun.lazy import nn, torch
from nnrun.registry import PREPROCESS

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.spec.parts import Part

Columns = tuple[Column, ...]
Learned = Mapping[str, "Tensor"]
IN_CACHE = 32_768  # numbers at a time; torch does not share so few among threads, who would only wait for each other
SCALED = ("number", "date")
"""The kinds of columns that a scaler changes."""


@dataclass(frozen=True)
class Step:
    """One step of preprocessing.

    Args:
        apply: (inputs (N, ...), what was learned) → inputs (N, ...).
        fit: (training inputs (N, ...), the columns of a table) → what is learned from them.
        after: (the columns of a table, what was learned) → its columns after the step.
        scales: whether the step is given the columns of numbers alone, each of which stays a column.
    """

    apply: Callable[[Tensor, Learned], Tensor]
    fit: Callable[[Tensor | RowSource, Columns], dict[str, Tensor]] = lambda x, columns: {}
    after: Callable[[Columns, Learned], Columns] = lambda columns, learned: columns
    scales: bool = False

    def learn(self, x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        """Return what the step learns from training inputs (N, ...)."""
        chosen = self._chosen(columns)
        return self.fit(x if chosen is None else applied(lambda rows: rows[:, chosen], x), columns)

    def replay(self, x: Tensor, columns: Columns, learned: Learned) -> Tensor:
        """Return the inputs (N, ...) after the step."""
        chosen = self._chosen(columns)
        if chosen is None:
            return self.apply(x, learned)
        x = x.clone()
        x[:, chosen] = self.apply(x[:, chosen], learned)
        return x

    def _chosen(self, columns: Columns) -> list[int] | None:
        """Return the numbers of the columns that the step sees; None for all of them."""
        chosen = [number for number, column in enumerate(columns) if column.kind in SCALED]
        return chosen if self.scales and len(chosen) < len(columns) else None


def fit_steps(steps: Sequence[Part], x_train: Tensor | RowSource, columns: Columns = ()) -> list[dict[str, Tensor]]:
    """Return what each step learns from the training inputs (N, ...), as the steps before it leave them.

    Raises:
        DataError: when a step does not suit the inputs, placed at ("preprocess", number).
    """
    fitted: list[dict[str, Tensor]] = []
    for number, part in enumerate(steps):
        with _placed(number):
            step: Step = part.build()
            fitted.append(step.learn(x_train, columns))
            x_train = applied(partial(step.replay, columns=columns, learned=fitted[-1]), x_train) if number < len(steps) - 1 else x_train
            columns = step.after(columns, fitted[-1])
    return fitted


def apply_steps(steps: Sequence[Part], fitted: Sequence[Learned], x: Tensor, columns: Columns = ()) -> Tensor:
    """Return the inputs (N, ...) after every step, as float32.

    Raises:
        DataError: when a step does not suit the inputs, placed at ("preprocess", number).
    """
    for number, (part, learned) in enumerate(zip(steps, fitted, strict=True)):
        with _placed(number):
            step: Step = part.build()
            x, columns = step.replay(x, columns, learned), step.after(columns, learned)
    return x.to(torch.float32)


def columns_after(steps: Sequence[Part], fitted: Sequence[Learned], columns: Columns) -> Columns:
    """Return the columns of a table after every step."""
    for part, learned in zip(steps, fitted, strict=True):
        columns = part.build().after(columns, learned)
    return columns


@PREPROCESS.register("standardize")
def standardize(*, over: Literal["column", "all"] = "column") -> Step:
    """Subtract the mean and divide by the deviation (of the population, as scikit-learn's StandardScaler).

    A constant column is divided by 1: the sum of equal float32 numbers is exact in float64, so its deviation is exactly 0.

    Args:
        over: column: each input by itself, for a picture each pixel; all: one mean and one deviation for everything.
    """

    def fit(x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        count = len(x) if over == "column" else x.numel()
        mean = _sum((rows for rows in _float64(x)), over) / count
        variance = _sum((rows.sub_(mean).square_() for rows in _float64(x)), over) / count
        return {"mean": mean, "deviation": torch.where(variance > 0, variance.sqrt(), 1.0)}

    return Step(lambda x, learned: _shifted(x, learned["mean"], learned["deviation"]), fit, scales=True)


@PREPROCESS.register("minmax")
def minmax() -> Step:
    """Bring each column to 0 … 1 over the training rows; for a picture, each pixel."""

    def fit(x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        ends = [(rows.amin(0), rows.amax(0)) for rows in blocks(x)]
        low, high = torch.stack([low for low, _ in ends]).amin(0).double(), torch.stack([high for _, high in ends]).amax(0).double()
        return {"low": low, "range": torch.where(high > low, high - low, 1.0)}

    return Step(lambda x, learned: _shifted(x, learned["low"], learned["range"]), fit, scales=True)


@PREPROCESS.register("robust")
def robust() -> Step:
    """Subtract the median and divide by the distance between the quartiles, which outliers do not move (scikit-learn's RobustScaler)."""

    def fit(x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        low, median, high = _percentiles(x, (25.0, 50.0, 75.0))
        return {"median": median, "range": torch.where(high > low, high - low, 1.0)}

    return Step(lambda x, learned: _shifted(x, learned["median"], learned["range"]), fit, scales=True)


@PREPROCESS.register("quantile")
def quantile(*, quantiles: Annotated[int, Field(ge=2, le=100_000)] = 1000, to: Literal["normal", "uniform"] = "normal") -> Step:
    """Give each column a normal or an even distribution, by its quantiles in the training rows (scikit-learn's QuantileTransformer).

    Args:
        quantiles: how many are learned; at most as many as there are training rows.
        to: normal: mean 0 and deviation 1, cut off at ±5.2; uniform: 0 … 1.
    """

    def fit(x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        places = torch.linspace(0, 1, min(quantiles, len(x)), dtype=torch.float64)
        return {"quantiles": _percentiles(x, (places * 100).tolist())}

    def apply(x: Tensor, learned: Learned) -> Tensor:
        import numpy as np

        known = learned["quantiles"].numpy()
        even = np.linspace(0, 1, len(known))
        made = np.empty(tuple(x.shape))
        for number, values in enumerate(x.flatten(1).T.double().cpu().numpy()):
            ups, column = np.interp(values, known[:, number], even), known[::-1, number]
            made.reshape(len(x), -1)[:, number] = (ups - np.interp(-values, -column, -even[::-1])) / 2  # equal quantiles: their middle
        share = torch.from_numpy(made).to(x.device)
        return (share if to == "uniform" else torch.special.ndtri(share.clamp(1e-7, 1 - 1e-7))).to(torch.float32)

    return Step(apply, fit, scales=True)


@PREPROCESS.register("clip")
def clip(*, share: Annotated[float, Field(gt=0, lt=0.5)] = 0.01) -> Step:
    """Bring outliers to the edge: what is below or above nearly all training rows of its column becomes the value of that edge.

    Args:
        share: how much of the training rows lies beyond each of the two edges, such as 0.01.
    """

    def fit(x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        low, high = _percentiles(x, (100 * share, 100 - 100 * share))
        return {"low": low, "high": high}

    def apply(x: Tensor, learned: Learned) -> Tensor:
        return x.to(torch.float64).clamp(learned["low"].to(x.device), learned["high"].to(x.device)).to(torch.float32)

    return Step(apply, fit, scales=True)


@PREPROCESS.register("scale")
def scale(*, by: float) -> Step:
    """Multiply every input by a number.

    Args:
        by: the number, such as 0.0625 for pixels from 0 to 16.
    """
    return Step(lambda x, learned: x.to(torch.float32) * by, scales=True)


@PREPROCESS.register("flatten")
def flatten() -> Step:
    """Make each row one list of numbers: (N, C, H, W) → (N, C·H·W)."""
    return Step(lambda x, learned: x.flatten(1))


@PREPROCESS.register("pad")
def pad(*, by: int) -> Step:
    """Add zeros around pictures: (N, C, H, W) → (N, C, H+2·by, W+2·by).

    Args:
        by: how many pixels on each of the four sides.
    """
    if by < 0:
        raise DataError(f"pad by {by} would cut pixels off", fix="write a number of pixels, such as 2", at=("by",))

    def apply(x: Tensor, learned: Learned) -> Tensor:
        if x.dim() != 4:
            what = f"pad wants pictures (rows, channels, height, width), and a row here has the shape {list(x.shape[1:])}"
            raise DataError(what, fix="remove the step, or put it before flatten")
        return nn.functional.pad(x, (by, by, by, by))

    return Step(apply)


@PREPROCESS.register("pixels")
def pixels() -> Step:
    """Turn bytes from 0 to 255 into numbers from 0 to 1."""

    def apply(x: Tensor, learned: Learned) -> Tensor:
        if x.dtype != torch.uint8:
            what = f"pixels wants bytes from 0 to 255, and the inputs are {str(x.dtype).removeprefix('torch.')}"
            raise DataError(what, fix="write `{scale: 0.0625}` for numbers from 0 to 16, or put pixels first")
        return x.to(torch.float32) / 255

    return Step(apply)


def _percentiles(x: Tensor | RowSource, shares: Sequence[float]) -> Tensor:
    """Return percentiles (Q, …) of inputs (N, …), between two rows on the line that joins them, as float64."""
    import numpy as np

    found = [torch.from_numpy(np.percentile(some.to(torch.float64).cpu().numpy(), shares, axis=0)) for some in some_columns(x)]
    return torch.cat(found, 1).reshape(len(shares), *x.shape[1:])


def _float64(x: Tensor | RowSource) -> Iterator[Tensor]:
    return (rows.to(torch.float64, copy=True) for rows in blocks(x))


def _sum(chunks: Iterator[Tensor], over: str) -> Tensor:
    return torch.stack([rows.sum(0) if over == "column" else rows.sum() for rows in chunks]).sum(0)


def _shifted(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return (x - shift) / scale, reckoned in float64, as float32."""
    if shift.dim() and shift.shape != x.shape[1:]:
        what = f"the step was fitted on rows of the shape {list(shift.shape)}, and a row here has {list(x.shape[1:])}"
        raise DataError(what, fix="give the inputs that the network was trained on")
    shift, scale = shift.to(x.device), scale.to(x.device)
    made = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    size = max(1, IN_CACHE * len(x) // max(1, x.numel()))
    for rows, out in zip(torch.split(x, size), torch.split(made, size), strict=True):
        out.copy_(rows.to(torch.float64, copy=True).sub_(shift).div_(scale))
    return made


@contextmanager
def _placed(number: int) -> Iterator[None]:
    """Say of every fault inside which step it belongs to."""
    try:
        yield
    except DataError as error:
        raise DataError([replace(one, at=("preprocess", number, *one.at)) for one in error.faults]) from None
