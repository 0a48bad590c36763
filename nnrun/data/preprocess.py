"""What is done to the inputs before the network sees them, fitted on the training rows alone.

A step is two pure functions. `fit` learns from the training rows and returns tensors, which the checkpoint stores; `apply` replays the step
anywhere with those tensors. Statistics are taken in float64, a few thousand rows at a time, so that bytes need no large copy.

Shapes: tables are (N, D), pictures (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from nnrun.errors import DataError
from nnrun.lazy import nn, torch
from nnrun.registry import PREPROCESS

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.spec.parts import Part

CHUNK = 8192  # rows in float64 at a time


def _nothing(x: Tensor) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Step:
    """One step of preprocessing.

    Args:
        apply: (inputs (N, ...), what was learned) → inputs (N, ...).
        fit: training inputs (N, ...) → what is learned from them.
    """

    apply: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    fit: Callable[[Tensor], dict[str, Tensor]] = _nothing


def fit_steps(steps: Sequence[Part], x_train: Tensor) -> list[dict[str, Tensor]]:
    """Return what each step learns from the training inputs (N, ...), as the steps before it leave them.

    Raises:
        DataError: when a step does not suit the inputs, placed at ("preprocess", number).
    """
    fitted = []
    for number, part in enumerate(steps):
        with _placed(number):
            step: Step = part.build()
            fitted.append(step.fit(x_train))
            x_train = step.apply(x_train, fitted[-1]) if number < len(steps) - 1 else x_train
    return fitted


def apply_steps(steps: Sequence[Part], fitted: Sequence[Mapping[str, Tensor]], x: Tensor) -> Tensor:
    """Return the inputs (N, ...) after every step, as float32.

    Raises:
        DataError: when a step does not suit the inputs, placed at ("preprocess", number).
    """
    for number, (part, learned) in enumerate(zip(steps, fitted, strict=True)):
        with _placed(number):
            step: Step = part.build()
            x = step.apply(x, learned)
    return x.to(torch.float32)


@PREPROCESS.register("standardize")
def standardize(*, over: Literal["column", "all"] = "column") -> Step:
    """Subtract the mean and divide by the deviation (of the population, as scikit-learn's StandardScaler).

    A constant column is divided by 1: the sum of equal float32 numbers is exact in float64, so its deviation is exactly 0.

    Args:
        over: column: each input by itself, for a picture each pixel; all: one mean and one deviation for everything.
    """

    def fit(x: Tensor) -> dict[str, Tensor]:
        count = len(x) if over == "column" else x.numel()
        mean = _sum((rows for rows in _float64(x)), over) / count
        variance = _sum(((rows - mean) ** 2 for rows in _float64(x)), over) / count
        return {"mean": mean, "deviation": torch.where(variance > 0, variance.sqrt(), 1.0)}

    return Step(lambda x, learned: _shifted(x, learned["mean"], learned["deviation"]), fit)


@PREPROCESS.register("minmax")
def minmax() -> Step:
    """Bring each column to 0 … 1 over the training rows; for a picture, each pixel."""

    def fit(x: Tensor) -> dict[str, Tensor]:
        low, high = x.amin(0).to(torch.float64), x.amax(0).to(torch.float64)
        return {"low": low, "range": torch.where(high > low, high - low, 1.0)}

    return Step(lambda x, learned: _shifted(x, learned["low"], learned["range"]), fit)


@PREPROCESS.register("scale")
def scale(*, by: float) -> Step:
    """Multiply every input by a number.

    Args:
        by: the number, such as 0.0625 for pixels from 0 to 16.
    """
    return Step(lambda x, learned: x.to(torch.float32) * by)


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

    def apply(x: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        if x.dim() != 4:
            what = f"pad wants pictures (rows, channels, height, width), and a row here has the shape {list(x.shape[1:])}"
            raise DataError(what, fix="remove the step, or put it before flatten")
        return nn.functional.pad(x, (by, by, by, by))

    return Step(apply)


@PREPROCESS.register("pixels")
def pixels() -> Step:
    """Turn bytes from 0 to 255 into numbers from 0 to 1."""

    def apply(x: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        if x.dtype != torch.uint8:
            what = f"pixels wants bytes from 0 to 255, and the inputs are {str(x.dtype).removeprefix('torch.')}"
            raise DataError(what, fix="write `{scale: 0.0625}` for numbers from 0 to 16, or put pixels first")
        return x.to(torch.float32) / 255

    return Step(apply)


def _float64(x: Tensor) -> Iterator[Tensor]:
    return (rows.to(torch.float64) for rows in torch.split(x, CHUNK))


def _sum(chunks: Iterator[Tensor], over: str) -> Tensor:
    return torch.stack([rows.sum(0) if over == "column" else rows.sum() for rows in chunks]).sum(0)


def _shifted(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return (x - shift) / scale, reckoned in float64, as float32."""
    if shift.dim() and shift.shape != x.shape[1:]:
        what = f"the step was fitted on rows of the shape {list(shift.shape)}, and a row here has {list(x.shape[1:])}"
        raise DataError(what, fix="give the inputs that the network was trained on")
    shift, scale = shift.to(x.device), scale.to(x.device)
    return torch.cat([((rows - shift) / scale).to(torch.float32) for rows in _float64(x)])


@contextmanager
def _placed(number: int) -> Iterator[None]:
    """Say of every fault inside which step it belongs to."""
    try:
        yield
    except DataError as error:
        raise DataError([replace(one, at=("preprocess", number, *one.at)) for one in error.faults]) from None
