"""Layers over a grid: convolution, pooling and upsampling of a series (C, L), a picture (C, H, W) or a volume (C, D, H, W).

torch has each of them in one, two and three dimensions; here each is written once, and `each_dimension` registers it three times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal

from pydantic import Field

from nnrun.lazy import nn
from nnrun.model.incoming import Incoming, LayerError, check_room, wants
from nnrun.registry import LAYERS

Size = Annotated[int, Field(ge=1, le=1_000_000_000)]
Padding = Annotated[int, Field(ge=0, le=1_000_000_000)]
Sizes = Size | list[Size]  # one for every dimension, or one for each
Paddings = Padding | list[Padding]
Factor = Annotated[float, Field(gt=0, le=1_000_000)]

GRIDS = {1: "a series (C, L)", 2: "a picture (C, H, W)", 3: "a volume (C, D, H, W)"}


def each_dimension(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register a builder (at, dimensions, /, *, ...) as NAME1d, NAME2d and NAME3d; {grid} in its docstring becomes the shape it wants.

    What is the same for all is done here: another shape is refused, and a list gives one number for each dimension.
    """

    def add(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        for dimensions, grid in GRIDS.items():
            LAYERS.register(f"{name}{dimensions}d")(_for_dimensions(build, dimensions, grid))
        return build

    return add


def _for_dimensions(build: Callable[..., nn.Module], dimensions: int, grid: str) -> Callable[..., nn.Module]:
    @wraps(build)
    def built(at: Incoming, /, **arguments: Any) -> nn.Module:
        if len(at.shape) != dimensions + 1:
            raise wants(grid, at, "put `unflatten` before it" if len(at.shape) == 1 else "")
        for argument, value in arguments.items():
            if isinstance(value, list):
                if len(value) != dimensions:
                    raise LayerError(f"{argument} is {value}, and {grid} wants one number or {dimensions}")
                arguments[argument] = tuple(value)
        return build(at, dimensions, **arguments)

    built.__doc__ = (build.__doc__ or "").replace("{grid}", grid)
    return built


def _spread(value: Any, dimensions: int) -> tuple[Any, ...]:
    """Return one number for each dimension."""
    return value if isinstance(value, tuple) else (value,) * dimensions


def _padded(at: Incoming, padding: Any) -> list[int]:
    """Return the sizes of the grid with its padding on both sides."""
    return [size + 2 * more for size, more in zip(at.shape[1:], _spread(padding, len(at.shape) - 1), strict=True)]


def _check_window(at: Incoming, kernel_size: Any, padding: Any, dilation: Any = 1) -> None:
    """Refuse a window that is larger than the padded grid."""
    dimensions = len(at.shape) - 1
    pairs = zip(_spread(kernel_size, dimensions), _spread(dilation, dimensions), strict=True)
    reach = [step * (size - 1) + 1 for size, step in pairs]
    if any(window > size for window, size in zip(reach, _padded(at, padding), strict=True)):
        least = "×".join(str(window) for window in reach)
        raise wants(f"a grid of at least {least} with its padding", at, "make kernel_size smaller, or padding larger")


@each_dimension("conv")
def conv(
    at: Incoming,
    dimensions: int,
    /,
    *,
    out_channels: Size,
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Paddings | Literal["same", "valid"] = 0,
    dilation: Sizes = 1,
    groups: Size = 1,
    bias: bool = True,
) -> nn.Module:
    """Convolve {grid}; gives out_channels channels.

    Args:
        out_channels: how many filters are learned.
        kernel_size: the size of a filter.
        stride: how far a filter moves in one step.
        padding: zeros put around the grid; same keeps its size, valid puts none.
        dilation: the distance between the points of a filter.
        groups: parts of the channels that are convolved apart from each other.
        bias: whether each filter has a learned constant.
    """
    around = 0 if isinstance(padding, str) else padding
    if padding != "same":
        _check_window(at, kernel_size, around, dilation)
    check_room([max(at.shape[0], out_channels), *_padded(at, around)], at)
    made: nn.Module = getattr(nn, f"Conv{dimensions}d")(at.shape[0], out_channels, kernel_size, stride, padding, dilation, groups, bias)
    return made


@each_dimension("conv_transpose")
def conv_transpose(
    at: Incoming,
    dimensions: int,
    /,
    *,
    out_channels: Size,
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Paddings = 0,
    output_padding: Paddings = 0,
    groups: Size = 1,
    bias: bool = True,
    dilation: Sizes = 1,
) -> nn.Module:
    """Convolve {grid} the other way round, which makes it larger; gives out_channels channels.

    Args:
        out_channels: how many channels come out.
        kernel_size: the size of a filter.
        stride: by how much the grid grows.
        padding: how much is cut off on both sides of what comes out.
        output_padding: how much is added on one side of what comes out; smaller than stride or dilation.
        groups: parts of the channels that are convolved apart from each other.
        bias: whether each channel has a learned constant.
        dilation: the distance between the points of a filter.
    """
    given = [_spread(value, dimensions) for value in (stride, dilation, kernel_size, output_padding)]
    grown = [(size - 1) * s + d * (k - 1) + o + 1 for size, s, d, k, o in zip(at.shape[1:], *given, strict=True)]
    check_room([out_channels, *grown], at)
    maker = getattr(nn, f"ConvTranspose{dimensions}d")
    made: nn.Module = maker(at.shape[0], out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation)
    return made


@each_dimension("max_pool")
def max_pool(
    at: Incoming,
    dimensions: int,
    /,
    *,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Paddings = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> nn.Module:
    """Keep the largest value of each window of {grid}.

    Args:
        kernel_size: the size of the window.
        stride: how far the window moves in one step; by default its own size.
        padding: how much is put around the grid, at most half the window.
        dilation: the distance between the points of the window.
        ceil_mode: whether a last window may reach over the edge.
    """
    _check_window(at, kernel_size, padding, dilation)
    made: nn.Module = getattr(nn, f"MaxPool{dimensions}d")(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    return made


@each_dimension("avg_pool")
def avg_pool(
    at: Incoming,
    dimensions: int,
    /,
    *,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Paddings = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> nn.Module:
    """Take the mean of each window of {grid}.

    Args:
        kernel_size: the size of the window.
        stride: how far the window moves in one step; by default its own size.
        padding: zeros put around the grid, at most half the window.
        ceil_mode: whether a last window may reach over the edge.
        count_include_pad: whether the zeros count in the mean.
    """
    _check_window(at, kernel_size, padding)
    made: nn.Module = getattr(nn, f"AvgPool{dimensions}d")(kernel_size, stride, padding, ceil_mode, count_include_pad)
    return made


@each_dimension("adaptive_max_pool")
def adaptive_max_pool(at: Incoming, dimensions: int, /, *, output_size: Sizes) -> nn.Module:
    """Keep the largest values of {grid}, with windows chosen to give a certain size.

    Args:
        output_size: the size of the grid that comes out.
    """
    check_room([at.shape[0], *_spread(output_size, dimensions)], at)
    made: nn.Module = getattr(nn, f"AdaptiveMaxPool{dimensions}d")(output_size)
    return made


@each_dimension("adaptive_avg_pool")
def adaptive_avg_pool(at: Incoming, dimensions: int, /, *, output_size: Sizes) -> nn.Module:
    """Take means of {grid}, over windows chosen to give a certain size; 1 is global pooling.

    Args:
        output_size: the size of the grid that comes out.
    """
    check_room([at.shape[0], *_spread(output_size, dimensions)], at)
    made: nn.Module = getattr(nn, f"AdaptiveAvgPool{dimensions}d")(output_size)
    return made


@LAYERS.register("upsample")
def upsample(
    at: Incoming,
    /,
    *,
    scale_factor: Factor | list[Factor] | None = None,
    size: Sizes | None = None,
    mode: Literal["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear"] = "nearest",
    align_corners: bool = False,
) -> nn.Module:
    """Make a series (C, L), a picture (C, H, W) or a volume (C, D, H, W) larger; keeps the channels.

    Args:
        scale_factor: how many times larger.
        size: the size that comes out, instead of scale_factor.
        mode: nearest repeats values; linear (series), bilinear or bicubic (pictures) and trilinear (volumes) go between them.
        align_corners: whether the corner values are kept; not with nearest.
    """
    dimensions = len(at.shape) - 1
    if dimensions not in GRIDS:
        raise wants("a series (C, L), a picture (C, H, W) or a volume (C, D, H, W)", at)
    if (scale_factor is None) == (size is None):
        raise LayerError("wants either scale_factor or size", "write `upsample: 2` for twice the size")
    if align_corners and mode.startswith("nearest"):
        raise LayerError(f"align_corners means nothing with mode {mode}", "leave it out")
    for argument, value in (("scale_factor", scale_factor), ("size", size)):
        if isinstance(value, list) and len(value) != dimensions:
            raise LayerError(f"{argument} is {value}, and {GRIDS[dimensions]} wants one number or {dimensions}")
    wide = _spread(tuple(size) if isinstance(size, list) else size or 0, dimensions)
    factor = _spread(tuple(scale_factor) if isinstance(scale_factor, list) else scale_factor or 0.0, dimensions)
    grown = [w or int(old * f) for w, f, old in zip(wide, factor, at.shape[1:], strict=True)]
    if 0 in grown:
        raise LayerError(f"leaves nothing of {at.shape}", "make scale_factor larger")
    check_room([at.shape[0], *grown], at)
    return nn.Upsample(
        wide if size else None, factor if scale_factor else None, mode, None if mode.startswith("nearest") else align_corners
    )
