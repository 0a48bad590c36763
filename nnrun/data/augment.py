"""Augmentation: the training pictures changed at random, a little differently in each epoch, batch by batch on the device.

What happens to a row is a pure function of the seed, the epoch and the row's number in the dataset: its random numbers are hashes of these
(`uniform`), so neither the order of rows, the size of a batch, nor a resume in the middle of an epoch can change it. `mixup` takes a second
row of the training part, found by the same hashes, and not by what else is in the batch. Pictures come as the preprocessing leaves them;
0 fills what is cut away or comes in from outside.

Shapes: B rows of a batch, pictures (B, C, H, W); u (B, P) are P random numbers for each row, in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nnrun.data import colours
from nnrun.data.colours import each
from nnrun.data.source import RowSource
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
        unit: whether it wants pictures of numbers from 0 to 1.
    """

    numbers: int
    apply: Callable[[Tensor, Tensor], Tensor]
    check: Callable[[tuple[int, ...]], None] = lambda shape: None
    unit: bool = False


@dataclass(frozen=True)
class Mix:
    """A second row mixed into each: `share` makes of u (B, 2) how much of itself (B,) each row keeps."""

    share: Callable[[Tensor], Tensor]


class Augmentation:
    """All the changes of an experiment, in order.

    Args:
        x: some prepared training rows: their shape and their range decide what can be changed.
        key: (epoch) → the key of its random numbers.
        row_numbers: the numbers (N,) that the training rows have in the dataset.
        classes: whether the targets are classes.
    """

    def __init__(self, steps: Sequence[Part], x: Tensor, key: Callable[[int], int], row_numbers: Tensor, *, classes: bool) -> None:
        if x.ndim != 4:
            what = f"augment changes pictures (channels, height, width), and a prepared row has the shape {list(x.shape[1:])}"
            raise SpecError(what, fix="remove it, or take flatten out of preprocess: layers can begin with it", at=("augment",))
        self._key, self._row_numbers, self._classes = key, row_numbers, classes
        self._mix: tuple[int, Mix] | None = None
        self._changes: dict[bool, list[tuple[int, Change]]] = {False: [], True: []}  # before two rows are mixed, and after
        for number, step in enumerate(steps):
            change: Change | Mix = step.build()
            try:
                if isinstance(change, Mix):
                    if self._mix:
                        raise SpecError(f"{step.entry.name} is given twice", fix="remove one")
                    self._mix = number, change
                    continue
                _check(step.entry.name, change, x)
            except SpecError as error:
                raise SpecError(error.faults[0].what, fix=error.faults[0].fix, at=("augment", number)) from None
            self._changes[self._mix is not None].append((number, change))

    @property
    def two_targets(self) -> bool:
        """Whether a batch has two targets for each row, and the weight of each as a third tensor."""
        return self._mix is not None and self._classes

    def __call__(self, data: Sequence[Tensor | RowSource], batch: tuple[Tensor, ...], places: Tensor, epoch: int) -> tuple[Tensor, ...]:
        """Return what the loss is asked of in an epoch counted from 1, for a batch: inputs (B, C, H, W), targets, and perhaps weights.

        Args:
            data: the training part: inputs (N, …), targets (N, …) as the loss wants them, and perhaps the weight of each row (N,).
            batch: the same of the rows of the batch.
            places: where these rows (B,) stand in `data`; on the CPU.
        """
        key, rows, rest = self._key(epoch), self._row_numbers[places], batch[1:]
        x = self._changed(batch[0], key, rows, after=False)
        if self._mix:
            number, mix = self._mix
            u = uniform(key, rows, number * MOST, 3).double()
            others = (u[:, 0] * len(data[0])).long()
            second, share = [one[others.to(one.device)] for one in data], mix.share(u[:, 1:]).to(x)
            x = mixed(x, self._changed(second[0], key, self._row_numbers[others], after=False), share)
            rest = self._both(rest, second[1:], share)
        return self._changed(x, key, rows, after=True), *rest

    def _changed(self, x: Tensor, key: int, rows: Tensor, *, after: bool) -> Tensor:
        """Return pictures after the changes that come before two rows are mixed, or after."""
        for number, change in self._changes[after]:
            x = change.apply(x, uniform(key, rows, number * MOST, change.numbers).to(x.device))
        return x

    def _both(self, own: Sequence[Tensor], other: Sequence[Tensor], share: Tensor) -> tuple[Tensor, ...]:
        """Return the targets of mixed rows, and their weights: of classes the own ones, then the others; of numbers their mean."""
        if not self._classes:
            return tuple(mixed(a, b, share) for a, b in zip(own, other, strict=True))
        (y, *weight), (y_other, *weight_other) = own, other
        weights = [share, 1 - share]
        if weight:
            weights = [weights[0] * weight[0], weights[1] * weight_other[0]]
        return torch.cat([y, y_other]), torch.cat(weights)


def mixed(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Return `share` (B,) of one and the rest of the other; both are (B, …)."""
    mine = share.reshape(-1, *[1] * (own.ndim - 1))
    return own * mine + other * (1 - mine)


def _check(name: str, change: Change, x: Tensor) -> None:
    """Refuse what cannot be done to pictures such as x.

    Raises:
        SpecError: with its mend, not yet placed.
    """
    change.check(tuple(x.shape[1:]))
    low, high = (float(end) for end in x.aminmax())
    if change.unit and not 0 <= low <= high <= 1:
        what = f"{name} wants numbers from 0 to 1, and the prepared pictures go from {low:.4g} to {high:.4g}"
        raise SpecError(what, fix="write `preprocess: [pixels]`; what else it did, layers such as batch_norm can do")


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
    return Change(1, lambda x, u: torch.where(each(u[:, 0] < p), x.flip(dimension), x))


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
        return colours.moved(x, _turn((2 * _exact(u[:, 0]) - 1) * degrees), mode="bilinear")

    return Change(1, apply)


@AUGMENT.register("colour_jitter")
def colour_jitter(
    *, brightness: Strength = 0.2, contrast: Strength = 0.2, saturation: Strength = 0.0, hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
) -> Change:
    """Make a picture brighter or darker, stronger or paler, more or less colourful, of other colours; wants `preprocess: [pixels]`.

    torchvision's ColorJitter, in this order; each factor is drawn from 1 - s … 1 + s.

    Args:
        brightness: s of the factor of all values.
        contrast: s of the factor of their distance from the picture's mean grey.
        saturation: s of the factor of their distance from grey, in a picture of 3 channels.
        hue: how far its hues move around the circle of colours, at most, either way, in a picture of 3 channels; 0.5 is half of it.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}

    def apply(x: Tensor, u: Tensor) -> Tensor:
        for number, (name, strength) in enumerate(strengths.items()):
            if strength:
                x = getattr(colours, name)(x, (name != "hue") + (2 * u[:, number] - 1) * strength)
        return x

    def check(shape: tuple[int, ...]) -> None:
        for name in ("saturation", "hue"):
            if strengths[name] and shape[0] != 3:
                raise SpecError(f"{name} wants pictures of 3 channels, and these have {shape[0]}", fix=f"write `{name}: 0`")

    return Change(4, apply, check, unit=True)


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
        erased = inside_H[:, None, :, None] & inside_W[:, None, None, :] & each(u[:, 0] < p)
        return x.masked_fill(erased, 0)

    return Change(5, apply)


@AUGMENT.register("mixup")
def mixup(*, alpha: Annotated[float, Field(gt=0, le=100)] = 0.2) -> Mix:
    """Mix each picture with another one of the training part, and their targets in the same shares (Zhang et al., 2018, arXiv:1710.09412).

    The share of a row is drawn from the Beta distribution; the other row goes through the steps before this one as itself.
    Of classes the loss is that of both, weighted by their shares; numbers are mixed as they are.

    Args:
        alpha: both parameters of the Beta distribution: near 0 one of the two is nearly alone, 1 gives all shares alike.
    """

    def share(u: Tensor) -> Tensor:
        # Devroye, "Random variate generation in one line of code", 1996: a symmetric Beta variate of two uniform ones, for every alpha.
        circle = (2 * math.pi * u[:, 1]).cos()
        odds = ((1 - u[:, 0]) ** (-1 / alpha) - 1) * circle**2
        return (1 + circle.sign() * (odds / (1 + odds)).sqrt().nan_to_num(1.0)) / 2

    return Mix(share)


@AUGMENT.register("randaugment")
def randaugment(*, num_ops: Annotated[int, Field(ge=1, le=8)] = 2, magnitude: Annotated[int, Field(ge=0, le=30)] = 9) -> Change:
    """Do some of 14 operations to a picture, all of one strength (Cubuk et al., 2020, arXiv:1909.13719); wants `preprocess: [pixels]`.

    identity, shear_x, shear_y, translate_x, translate_y, rotate, brightness, color, contrast, sharpness, posterize, solarize,
    autocontrast and equalize, with torchvision's ranges; an operation may come twice.

    Args:
        num_ops: how many, one after another.
        magnitude: how strong they are, of 30.
    """

    def apply(x: Tensor, u: Tensor) -> Tensor:
        for number in range(num_ops):
            x = x.clone()
            which, sign = (u[:, 2 * number] * len(OPERATIONS)).long(), torch.where(u[:, 2 * number + 1] < 0.5, -1.0, 1.0)
            for operation, change in enumerate(OPERATIONS.values()):
                rows = (which == operation).nonzero()[:, 0]
                if len(rows):
                    x[rows] = change(x[rows], _exact(sign[rows] * (magnitude / STRONGEST)))
        return x

    return Change(2 * num_ops, apply, unit=True)


STRONGEST = 30
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda x, m: x,
    "shear_x": lambda x, m: colours.moved(x, _sheared(0.3 * m, x.shape[2] / 2, 1)),
    "shear_y": lambda x, m: colours.moved(x, _sheared(0.3 * m, x.shape[3] / 2, 3)),
    "translate_x": lambda x, m: colours.moved(x, _matrix(m, {2: -(150 / 331 * x.shape[3] * m).trunc()})),
    "translate_y": lambda x, m: colours.moved(x, _matrix(m, {5: -(150 / 331 * x.shape[2] * m).trunc()})),
    "rotate": lambda x, m: colours.moved(x, _turn(30 * m)),
    "brightness": lambda x, m: colours.brightness(x, (1 + 0.9 * m).to(x)),
    "color": lambda x, m: colours.saturation(x, (1 + 0.9 * m).to(x)),
    "contrast": lambda x, m: colours.contrast(x, (1 + 0.9 * m).to(x)),
    "sharpness": lambda x, m: colours.sharpness(x, (1 + 0.9 * m).to(x)),
    "posterize": lambda x, m: colours.posterize(x, (8 - 4 * m.abs()).round().to(x)),
    "solarize": lambda x, m: colours.solarize(x, (1 - m.abs()).to(x)),
    "autocontrast": lambda x, m: colours.autocontrast(x),
    "equalize": lambda x, m: colours.equalize(x),
}
"""What randaugment may do: (pictures (B, C, H, W), strength and side of each (B,), from -1 to 1) → pictures."""


def _matrix(like: Tensor, entries: dict[int, Tensor]) -> Tensor:
    """Return the matrices (B, 2, 3) that leave pictures as they are, but for these entries (B,), by their place in a row of six."""
    one = torch.ones_like(like)
    return torch.stack([entries.get(place, one * (place in (0, 4))) for place in range(6)], 1).reshape(-1, 2, 3)


def _sheared(by: Tensor, middle: float, place: int) -> Tensor:
    """Return the matrices (B, 2, 3) of a shear that leaves the top left corner where it is."""
    return _matrix(by, {place: by, place + (1 if place == 1 else 2): by * middle})


def _turn(degrees: Tensor) -> Tensor:
    """Return the matrices (B, 2, 3) of a turn around the middle, counterclockwise."""
    angle = degrees * (math.pi / 180)
    return _matrix(angle, {0: angle.cos(), 1: -angle.sin(), 3: angle.sin(), 4: angle.cos()})


def _between(places: Tensor, first: Tensor, count: Tensor) -> Tensor:
    return (places >= first[:, None]) & (places < (first + count)[:, None])


def _exact(u: Tensor) -> Tensor:
    """Return numbers in float64, where the device has it: the last bit of a float32 sine depends on its place in the tensor."""
    return u if u.device.type == "mps" else u.double()
