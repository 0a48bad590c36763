"""What a picture's colours can be changed by: torchvision's definitions, for a batch whose rows each have a strength of their own.

Sums are written out and means are taken line by line, so that the bits of a row do not depend on the rows beside it.

Shapes: pictures x (B, C, H, W) of numbers from 0 to 1, strengths (B,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnrun.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

GREY = (0.2989, 0.587, 0.114)
LEVELS = 256


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Return all values times a factor, at most 1."""
    return (x * each(factor)).clamp(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Return the picture with its distance from grey times a factor; a grey one as it is."""
    return _blended(x, grey(x), factor) if x.shape[1] == 3 else x


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Return the picture with its distance from its mean grey times a factor."""
    return _blended(x, grey(x).mean(3, keepdim=True).mean(2, keepdim=True), factor)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Return the picture with its distance from a smoothed one times a factor, within its border of one pixel."""
    height, width = x.shape[2:]
    if min(height, width) < 3:
        return x
    inner = x[:, :, 1:-1, 1:-1]
    near = sum(x[:, :, down : height - 2 + down, right : width - 2 + right] for down in range(3) for right in range(3))
    made = x.clone()
    made[:, :, 1:-1, 1:-1] = _blended(inner, (near + inner * 4) / 13, factor)
    return made


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Return the picture with its hues moved around the circle of colours, of which 1 is the whole; a grey one as it is."""
    if x.shape[1] != 3:
        return x
    high, low = x.amax(1), x.amin(1)
    spread = torch.where(high == low, 1.0, high - low)
    red, green, blue = ((high[:, None] - x) / spread[:, None]).unbind(1)
    turned = torch.where(high == x[:, 0], blue - green, torch.where(high == x[:, 1], red - blue + 2, green - red + 4))
    sixth = ((turned / 6 + each(shift)[:, 0]) % 1) * 6
    made = []
    for offset in (5, 3, 1):  # of red, green, blue: v - v·s·max(0, min(k, 4 - k, 1)), k = (offset + 6·hue) mod 6
        k = (offset + sixth) % 6
        made.append(high - (high - low) * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(made, 1)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Return the picture in 2^bits levels."""
    levels = each(2.0**bits)
    return torch.minimum((x * levels).floor(), levels - 1) / levels


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Return the picture with all values from a threshold on inverted."""
    return torch.where(x >= each(threshold), 1 - x, x)


def autocontrast(x: Tensor) -> Tensor:
    """Return the picture with each channel stretched to 0 … 1."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = high == low
    return ((x - torch.where(flat, 0.0, low)) / torch.where(flat, 1.0, high - low)).clamp(0, 1)


def equalize(x: Tensor) -> Tensor:
    """Return the picture with the values of each channel spread evenly, in 256 levels, by Pillow's rule."""
    values = (x * (LEVELS - 1e-3)).long().flatten(2)
    counts = torch.zeros(*values.shape[:2], LEVELS, dtype=torch.int64, device=x.device).scatter_add_(2, values, torch.ones_like(values))
    so_far = counts.cumsum(2)
    largest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - largest) // (LEVELS - 1)
    table = ((so_far - counts + step // 2) // step.clamp(min=1)).clamp(max=LEVELS - 1)
    made = torch.where(step > 0, table.gather(2, values), values)
    return (made / (LEVELS - 1)).reshape(x.shape).to(x.dtype)


def moved(x: Tensor, matrix: Tensor, *, mode: str = "nearest") -> Tensor:
    """Return the picture with each pixel taken from where a matrix (B, 2, 3) says, in pixels from the middle; 0 comes in from outside.

    Args:
        mode: nearest or bilinear.
    """
    height, width = x.shape[2:]
    down = torch.arange(height, device=x.device).to(matrix.dtype)[:, None] - (height - 1) / 2
    right = torch.arange(width, device=x.device).to(matrix.dtype) - (width - 1) / 2
    a, b, c, d, e, f = matrix.flatten(1)[:, :, None, None].unbind(1)
    grid = torch.stack([(a * right + b * down + c) * (2 / width), (d * right + e * down + f) * (2 / height)], 3)
    return nn.functional.grid_sample(x, grid.to(x.dtype), mode=mode, align_corners=False)


def grey(x: Tensor) -> Tensor:
    """Return pictures in grey (B, 1, H, W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = x[:, None].unbind(2)
    return red * GREY[0] + green * GREY[1] + blue * GREY[2]


def each(values: Tensor) -> Tensor:
    """Return one value for each row as something that goes with pictures."""
    return values[:, None, None, None]


def _blended(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (x * each(share) + other * each(1 - share)).clamp(0, 1)
