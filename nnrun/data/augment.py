"""Augmentation: the training pictures changed at random, a little differently in each epoch, batch by batch on the device.

What happens to a row is a pure function of the seed, the epoch and the row's number in the dataset: its random numbers are hashes of these
(`uniform`), so neither the order of rows, the size of a batch, nor a resume in the middle of an epoch can change it. Pictures come as the
preprocessing leaves them; 0 fills what is cut away or comes in from outside.

Shapes: B rows of a batch, pictures (B, C, H, W); u (B, P) are P random numbers for each row, in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nnrun.errors import SpecError
from nnrun.lazy import nn, torch
from nnrun.registry import AUGMENT

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.spec.parts import Part

MOST = 16  # random numbers of one step
GOLDEN, MIX_1, MIX_2 = (constant - (1 << 64) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))  # as int64

Chance = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Change:
    """One kind of augmentation.

    Args:
        numbers: how many random numbers a row needs, at most 16.
        apply: (pictures (B, C, H, W), u (B, numbers)) → pictures of the same shape.
        check: raises SpecError when a picture of this shape (C, H, W) cannot be changed so.
    """

    numbers: int
    apply: Callable[[Tensor, Tensor], Tensor]
    check: Callable[[tuple[int, ...]], None] = lambda shape: None


class Augmentation:
    """All the changes of an experiment, in order.

    Args:
        key: (epoch) → the key of its random numbers.
    """

    def __init__(self, steps: Sequence[Part], shape: tuple[int, ...], key: Callable[[int], int]) -> None:
        if len(shape) != 3:
            what = f"augment changes pictures (channels, height, width), and a prepared row has the shape {list(shape)}"
            raise SpecError(what, fix="remove it, or take flatten out of preprocess: layers can begin with it", at=("augment",))
        self._changes: list[Change] = [step.build() for step in steps]
        self._key = key
        for number, change in enumerate(self._changes):
            try:
                change.check(shape)
            except SpecError as error:
                raise SpecError(error.faults[0].what, fix=error.faults[0].fix, at=("augment", number)) from None

    def __call__(self, x: Tensor, rows: Tensor, epoch: int) -> Tensor:
        """Return a batch (B, C, H, W) changed as these rows (B,) of the dataset are in an epoch counted from 1."""
        for number, change in enumerate(self._changes):
            x = change.apply(x, uniform(self._key(epoch), rows, number * MOST, change.numbers).to(x.device))
        return x


def uniform(key: int, rows: Tensor, first: int, count: int) -> Tensor:
    """Return numbers (B, count) in [0, 1), a hash of the key, the row and the place of each: splitmix64, 24 bits of it."""
    of_row = _mixed(rows.to(torch.int64) * GOLDEN + key)
    place = torch.arange(first + 1, first + count + 1, device=rows.device) * GOLDEN
    return _shifted(_mixed(of_row[:, None] + place), 40).to(torch.float32) * 2.0**-24


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * MIX_1
    z = (z ^ _shifted(z, 27)) * MIX_2
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Return z shifted right, its sign bit a bit as any other."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


@AUGMENT.register("flip")
def flip(*, p: Chance = 0.5, axis: Literal["horizontal", "vertical"] = "horizontal") -> Change:
    """Mirror a picture.

    Args:
        p: the chance of it.
        axis: horizontal swaps left and right, vertical top and bottom.
    """
    dimension = 3 if axis == "horizontal" else 2
    return Change(1, lambda x, u: torch.where(_each(u[:, 0] < p), x.flip(dimension), x))


@AUGMENT.register("crop")
def crop(*, by: Annotated[int, Field(ge=1, le=4096)]) -> Change:
    """Move a picture by whole pixels: pad it with zeros, and cut its size out of that at random.

    Args:
        by: how many pixels at most, in each direction.
    """

    def apply(x: Tensor, u: Tensor) -> Tensor:
        down, right = (u * (2 * by + 1)).long().unbind(1)
        height, width = x.shape[2:]
        padded = nn.functional.pad(x, (by, by, by, by))
        lines = down[:, None] + torch.arange(height, device=x.device)
        columns = right[:, None] + torch.arange(width, device=x.device)
        cut = padded.gather(2, lines[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[3]))
        return cut.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], height, -1))

    def check(shape: tuple[int, ...]) -> None:
        if by >= min(shape[1:]):
            what = f"crop by {by} could move a picture of {shape[1]} × {shape[2]} out of itself"
            raise SpecError(what, fix=f"write `crop: {max(1, min(shape[1:]) // 8)}`")

    return Change(2, apply, check)


@AUGMENT.register("rotation")
def rotation(*, degrees: Annotated[float, Field(gt=0, le=180)] = 15.0) -> Change:
    """Turn a picture around its middle, with bilinear interpolation.

    Args:
        degrees: how far at most, to either side.
    """

    def apply(x: Tensor, u: Tensor) -> Tensor:
        angle = (2 * _exact(u[:, 0]) - 1) * math.radians(degrees)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        stretch = x.shape[2] / x.shape[3]  # the grid is -1 … 1 on both axes, whatever their lengths
        turn = torch.stack([cos, -sin * stretch, zero, sin / stretch, cos, zero], 1).view(-1, 2, 3).to(x.dtype)
        grid = nn.functional.affine_grid(turn, list(x.shape), align_corners=False)
        return nn.functional.grid_sample(x, grid, align_corners=False)

    return Change(1, apply)


@AUGMENT.register("colour_jitter")
def colour_jitter(*, brightness: Strength = 0.2, contrast: Strength = 0.2, saturation: Strength = 0.0) -> Change:
    """Make a picture brighter or darker, stronger or paler, more or less colourful; each factor is drawn from 1 - s … 1 + s.

    Meant for `preprocess: [pixels]`; numbers are not cut off at 1.

    Args:
        brightness: s of the factor of all values.
        contrast: s of the factor of their distance from the picture's mean.
        saturation: s of the factor of their distance from grey, in a picture of 3 channels.
    """

    def apply(x: Tensor, u: Tensor) -> Tensor:
        bright, strong, full = (1 + (2 * u - 1) * torch.tensor([brightness, contrast, saturation], device=u.device)).unbind(1)
        x = x * _each(bright)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (x - mean) * _each(strong)
        grey = x.mean(1, keepdim=True)
        return grey + (x - grey) * _each(full) if saturation else x

    def check(shape: tuple[int, ...]) -> None:
        if saturation and shape[0] != 3:
            raise SpecError(f"saturation wants pictures of 3 channels, and these have {shape[0]}", fix="write `saturation: 0`")

    return Change(3, apply, check)


@AUGMENT.register("random_erasing")
def random_erasing(*, p: Chance = 0.5, smallest: Chance = 0.02, largest: Chance = 0.33) -> Change:
    """Set a rectangle at a random place to 0 (Zhong et al., 2020); its sides are as 0.3 to 3.3.

    Args:
        p: the chance of it.
        smallest: the least share of the picture.
        largest: the greatest share of the picture.
    """
    if largest < smallest:
        raise SpecError(f"largest is {largest:g}, and smallest {smallest:g}", fix="write `largest: 0.33`", at=("augment",))

    def apply(x: Tensor, u: Tensor) -> Tensor:
        height, width = x.shape[2:]
        wide = _exact(u)
        area = (smallest + (largest - smallest) * wide[:, 1]) * height * width
        ratio = (math.log(0.3) + (math.log(3.3) - math.log(0.3)) * wide[:, 2]).exp()
        tall = (area * ratio).sqrt().round().clamp(1, height)
        broad = (area / ratio).sqrt().round().clamp(1, width)
        top, left = (wide[:, 3] * (height - tall + 1)).floor(), (wide[:, 4] * (width - broad + 1)).floor()
        inside_H = _between(torch.arange(height, device=x.device), top, tall)
        inside_W = _between(torch.arange(width, device=x.device), left, broad)
        erased = inside_H[:, None, :, None] & inside_W[:, None, None, :] & _each(u[:, 0] < p)
        return x.masked_fill(erased, 0)

    return Change(5, apply)


def _each(values: Tensor) -> Tensor:
    """Return one value for each row as something that goes with pictures."""
    return values[:, None, None, None]


def _between(places: Tensor, first: Tensor, count: Tensor) -> Tensor:
    return (places >= first[:, None]) & (places < (first + count)[:, None])


def _exact(u: Tensor) -> Tensor:
    """Return numbers in float64, where the device has it: the last bit of a float32 sine depends on its place in the tensor."""
    return u if u.device.type == "mps" else u.double()
