"""The activations: layers without sizes of their own, which `activation:` may name too. Names and defaults are torch's.

All keep the shape of what comes in, but for glu, which halves one dimension.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nnrun.lazy import nn
from nnrun.model.incoming import Incoming, LayerError
from nnrun.registry import LAYERS

AboveZero = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NotZero = Annotated[int, Field(ge=1)] | Annotated[int, Field(le=-1)]


def _check_dim(at: Incoming, dim: int) -> None:
    """Refuse a dimension that a row does not have: the batch, which is 0, would mix rows with each other."""
    last = len(at.shape)
    if not (1 <= dim <= last or -last <= dim <= -1):
        raise LayerError(f"dim is {dim}, and {at.shape} has 1 to {last}, or -{last} to -1", "write `dim: -1` for the last dimension")


@LAYERS.register("relu", activation=True)
def relu(at: Incoming, /) -> nn.Module:
    """max(0, x)."""
    return nn.ReLU()


@LAYERS.register("relu6", activation=True)
def relu6(at: Incoming, /) -> nn.Module:
    """x held between 0 and 6."""
    return nn.ReLU6()


@LAYERS.register("leaky_relu", activation=True)
def leaky_relu(at: Incoming, /, *, negative_slope: float = 0.01) -> nn.Module:
    """x above 0, a small multiple of x below.

    Args:
        negative_slope: the multiple below 0.
    """
    return nn.LeakyReLU(negative_slope)


@LAYERS.register("prelu", activation=True)
def prelu(at: Incoming, /, *, num_parameters: Annotated[int, Field(ge=1)] = 1, init: float = 0.25) -> nn.Module:
    """x above 0, a learned multiple of x below.

    Args:
        num_parameters: 1, or the number of channels for a slope of each.
        init: the slope to begin with.
    """
    if num_parameters not in (1, *at.shape[:1]):
        raise LayerError(f"num_parameters is {num_parameters}, and {at.shape} has {at.shape[0]} channels", "write 1, or the channels")
    return nn.PReLU(num_parameters, init)


@LAYERS.register("rrelu", activation=True)
def rrelu(at: Incoming, /, *, lower: NotNegative = 1 / 8, upper: NotNegative = 1 / 3) -> nn.Module:
    """x above 0, a multiple of x below that is random in training and the mean otherwise.

    Args:
        lower: the smallest multiple.
        upper: the largest multiple.
    """
    if lower > upper:
        raise LayerError(f"lower is {lower:g}, above upper, {upper:g}", "exchange them")
    return nn.RReLU(lower, upper)


@LAYERS.register("elu", activation=True)
def elu(at: Incoming, /, *, alpha: float = 1.0) -> nn.Module:
    """x above 0, alpha * (exp(x) - 1) below.

    Args:
        alpha: minus the value far below 0.
    """
    return nn.ELU(alpha)


@LAYERS.register("selu", activation=True)
def selu(at: Incoming, /) -> nn.Module:
    """elu scaled so that mean 0 and variance 1 are kept."""
    return nn.SELU()


@LAYERS.register("celu", activation=True)
def celu(at: Incoming, /, *, alpha: AboveZero = 1.0) -> nn.Module:
    """x above 0, alpha * (exp(x / alpha) - 1) below.

    Args:
        alpha: minus the value far below 0.
    """
    return nn.CELU(alpha)


@LAYERS.register("gelu", activation=True)
def gelu(at: Incoming, /, *, approximate: Literal["none", "tanh"] = "none") -> nn.Module:
    """x times the normal distribution function of x.

    Args:
        approximate: tanh for a faster formula that is nearly the same.
    """
    return nn.GELU(approximate)


@LAYERS.register("silu", activation=True)
def silu(at: Incoming, /) -> nn.Module:
    """x * sigmoid(x), also called swish."""
    return nn.SiLU()


@LAYERS.register("mish", activation=True)
def mish(at: Incoming, /) -> nn.Module:
    """x * tanh(softplus(x))."""
    return nn.Mish()


@LAYERS.register("sigmoid", activation=True)
def sigmoid(at: Incoming, /) -> nn.Module:
    """1 / (1 + exp(-x)), between 0 and 1."""
    return nn.Sigmoid()


@LAYERS.register("logsigmoid", activation=True)
def logsigmoid(at: Incoming, /) -> nn.Module:
    """The logarithm of sigmoid(x)."""
    return nn.LogSigmoid()


@LAYERS.register("hardsigmoid", activation=True)
def hardsigmoid(at: Incoming, /) -> nn.Module:
    """sigmoid drawn with three straight lines."""
    return nn.Hardsigmoid()


@LAYERS.register("hardswish", activation=True)
def hardswish(at: Incoming, /) -> nn.Module:
    """x * hardsigmoid(x)."""
    return nn.Hardswish()


@LAYERS.register("tanh", activation=True)
def tanh(at: Incoming, /) -> nn.Module:
    """The hyperbolic tangent, between -1 and 1."""
    return nn.Tanh()


@LAYERS.register("hardtanh", activation=True)
def hardtanh(at: Incoming, /, *, min_val: float = -1.0, max_val: float = 1.0) -> nn.Module:
    """x held between two values.

    Args:
        min_val: the lower one.
        max_val: the upper one.
    """
    if min_val >= max_val:
        raise LayerError(f"min_val is {min_val:g}, not below max_val, {max_val:g}", "exchange them")
    return nn.Hardtanh(min_val, max_val)


@LAYERS.register("tanhshrink", activation=True)
def tanhshrink(at: Incoming, /) -> nn.Module:
    """x - tanh(x)."""
    return nn.Tanhshrink()


@LAYERS.register("softplus", activation=True)
def softplus(at: Incoming, /, *, beta: AboveZero = 1.0, threshold: float = 20.0) -> nn.Module:
    """log(1 + exp(beta * x)) / beta, a smooth relu.

    Args:
        beta: how sharp the bend is.
        threshold: where beta * x is above it, x itself is given.
    """
    return nn.Softplus(beta, threshold)


@LAYERS.register("softsign", activation=True)
def softsign(at: Incoming, /) -> nn.Module:
    """x / (1 + |x|), between -1 and 1."""
    return nn.Softsign()


@LAYERS.register("softshrink", activation=True)
def softshrink(at: Incoming, /, *, lambd: NotNegative = 0.5) -> nn.Module:
    """x moved towards 0 by lambd; 0 where it is nearer than that.

    Args:
        lambd: the distance.
    """
    return nn.Softshrink(lambd)


@LAYERS.register("hardshrink", activation=True)
def hardshrink(at: Incoming, /, *, lambd: NotNegative = 0.5) -> nn.Module:
    """x; 0 where it is nearer to 0 than lambd.

    Args:
        lambd: the distance.
    """
    return nn.Hardshrink(lambd)


@LAYERS.register("threshold", activation=True)
def threshold(at: Incoming, /, *, threshold: float, value: float) -> nn.Module:
    """x above a threshold, a fixed value elsewhere.

    Args:
        threshold: what x must be above.
        value: what is given elsewhere.
    """
    return nn.Threshold(threshold, value)


@LAYERS.register("softmax", activation=True)
def softmax(at: Incoming, /, *, dim: NotZero = -1) -> nn.Module:
    """Shares that add up to 1 over one dimension; cross_entropy does it itself.

    Args:
        dim: the dimension, counted with the batch as 0.
    """
    _check_dim(at, dim)
    return nn.Softmax(dim)


@LAYERS.register("log_softmax", activation=True)
def log_softmax(at: Incoming, /, *, dim: NotZero = -1) -> nn.Module:
    """The logarithm of softmax; what the loss nll expects.

    Args:
        dim: the dimension, counted with the batch as 0.
    """
    _check_dim(at, dim)
    return nn.LogSoftmax(dim)


@LAYERS.register("softmin", activation=True)
def softmin(at: Incoming, /, *, dim: NotZero = -1) -> nn.Module:
    """softmax of -x.

    Args:
        dim: the dimension, counted with the batch as 0.
    """
    _check_dim(at, dim)
    return nn.Softmin(dim)


@LAYERS.register("glu", activation=True)
def glu(at: Incoming, /, *, dim: NotZero = -1) -> nn.Module:
    """One half of a dimension times the sigmoid of the other half; the dimension becomes half as long.

    Args:
        dim: the dimension, counted with the batch as 0; its size must be even.
    """
    _check_dim(at, dim)
    size = at.shape[dim] if dim < 0 else at.shape[dim - 1]
    if size % 2:
        raise LayerError(f"halves dimension {dim} of {at.shape}, which is odd", "make that size even")
    return nn.GLU(dim)
