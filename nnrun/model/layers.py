"""The layers that are neither activations nor over a grid; importing this module registers all three kinds.

Shapes are of one row, without the batch: a vector (D,), a sequence (T, D), a series (C, L), a picture (C, H, W), a volume (C, D, H, W).
How many inputs a layer has always comes from the data.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated, Any, Literal

from pydantic import Field

from nnrun.lazy import nn
from nnrun.model import activations as activations
from nnrun.model import grids as grids
from nnrun.model.incoming import Incoming, LayerError, check_room, wants
from nnrun.registry import LAYERS
from nnrun.spec.parts import LayerPart

Size = Annotated[int, Field(ge=1, le=1_000_000_000)]
TableSize = Annotated[int, Field(ge=1, le=16_000_000)]  # float32 holds every whole number up to 16 777 216
Chance = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]
NO_LAYERS: list[LayerPart] = []


@LAYERS.register("linear")
def linear(at: Incoming, /, *, out_features: Size | Literal["auto"], bias: bool = True) -> nn.Module:
    """Multiply by a learned matrix: (D,) → (out_features,); of a sequence each step.

    Args:
        out_features: how many values come out; auto is one for each class or target of the data.
        bias: whether a learned constant is added.
    """
    width = at.outputs if out_features == "auto" else out_features
    check_room([*at.shape[:-1], width], at)
    return nn.Linear(at.shape[-1], width, bias)


@LAYERS.register("flatten")
def flatten(at: Incoming, /, *, start_dim: Size = 1, end_dim: int = -1) -> nn.Module:
    """Lay all values of a row in one vector: (C, H, W) → (C * H * W,).

    Args:
        start_dim: the first dimension that is joined, counted with the batch as 0.
        end_dim: the last dimension that is joined; -1 is the last of all.
    """
    last = len(at.shape)
    if not start_dim <= (end_dim + last + 1 if end_dim < 0 else end_dim) <= last:
        raise LayerError(f"joins dimensions {start_dim} to {end_dim}, and {at.shape} has 1 to {last}", "write `flatten` to join all")
    return nn.Flatten(start_dim, end_dim)


@LAYERS.register("unflatten")
def unflatten(at: Incoming, /, *, shape: Annotated[list[Size], Field(min_length=1)]) -> nn.Module:
    """Give a vector (D,) another shape with as many values.

    Args:
        shape: the shape that comes out, such as [1, 28, 28].
    """
    if at.shape != (math.prod(shape),):
        raise wants(f"a vector of {' × '.join(map(str, shape))} = {math.prod(shape)} values", at)
    return nn.Unflatten(1, tuple(shape))


@LAYERS.register("identity")
def identity(at: Incoming, /) -> nn.Module:
    """Change nothing."""
    return nn.Identity()


@LAYERS.register("dropout")
def dropout(at: Incoming, /, *, p: Chance = 0.5) -> nn.Module:
    """Set single values to 0 at random in training, and scale up the others.

    Args:
        p: the chance of each value.
    """
    return nn.Dropout(p)


@LAYERS.register("dropout2d")
def dropout2d(at: Incoming, /, *, p: Chance = 0.5) -> nn.Module:
    """Set whole channels of a picture (C, H, W) to 0 at random in training, and scale up the others.

    Args:
        p: the chance of each channel.
    """
    if len(at.shape) != 3:
        raise wants("a picture (C, H, W)", at, "write `dropout`, which takes any shape")
    return nn.Dropout2d(p)


@LAYERS.register("batch_norm")
def batch_norm(at: Incoming, /, *, eps: Epsilon = 1e-5, momentum: Chance | None = 0.1, affine: bool = True) -> nn.Module:
    """Bring each channel to mean 0 and variance 1 over the batch; later with the means seen in training. Any shape up to (C, D, H, W).

    Args:
        eps: added to the variance.
        momentum: the weight of a new batch in the means that are kept; null for their plain average.
        affine: whether a learned factor and constant follow.
    """
    kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
    if len(at.shape) not in kinds:
        raise wants("(D,), (C, L), (C, H, W) or (C, D, H, W)", at)
    return kinds[len(at.shape)](at.shape[0], eps, momentum, affine)


@LAYERS.register("instance_norm")
def instance_norm(at: Incoming, /, *, eps: Epsilon = 1e-5, affine: bool = False) -> nn.Module:
    """Bring each channel of each row to mean 0 and variance 1; a series (C, L), a picture (C, H, W) or a volume (C, D, H, W).

    Args:
        eps: added to the variance.
        affine: whether a learned factor and constant follow.
    """
    kinds = {2: nn.InstanceNorm1d, 3: nn.InstanceNorm2d, 4: nn.InstanceNorm3d}
    if len(at.shape) not in kinds or math.prod(at.shape[1:]) < 2:
        raise wants("(C, L), (C, H, W) or (C, D, H, W) with more than one value in a channel", at)
    return kinds[len(at.shape)](at.shape[0], eps, affine=affine)


@LAYERS.register("layer_norm")
def layer_norm(
    at: Incoming,
    /,
    *,
    normalized_shape: Size | Annotated[list[Size], Field(min_length=1)] | None = None,
    eps: Epsilon = 1e-5,
    elementwise_affine: bool = True,
    bias: bool = True,
) -> nn.Module:
    """Bring each row to mean 0 and variance 1 over its last dimension, or its last few.

    Args:
        normalized_shape: the sizes of the last few dimensions; by default the last one alone.
        eps: added to the variance.
        elementwise_affine: whether a learned factor and constant follow.
        bias: whether the constant is among them.
    """
    given = [normalized_shape] if isinstance(normalized_shape, int) else normalized_shape
    shape = tuple(given) if given else at.shape[-1:]
    if at.shape[-len(shape) :] != shape:
        raise wants(f"a shape that ends in {', '.join(map(str, shape))}", at, "leave normalized_shape out for the last dimension")
    return nn.LayerNorm(shape, eps, elementwise_affine, bias)


@LAYERS.register("group_norm")
def group_norm(at: Incoming, /, *, num_groups: Size, eps: Epsilon = 1e-5, affine: bool = True) -> nn.Module:
    """Bring each group of channels of each row to mean 0 and variance 1; channels come first.

    Args:
        num_groups: how many groups; the channels must divide by it.
        eps: added to the variance.
        affine: whether a learned factor and constant follow.
    """
    if at.shape[0] % num_groups:
        raise wants(f"channels that divide into {num_groups} groups", at)
    return nn.GroupNorm(num_groups, at.shape[0], eps, affine)


@LAYERS.register("embedding")
def embedding(at: Incoming, /, *, num_embeddings: TableSize, embedding_dim: Size) -> nn.Module:
    """Look up a learned vector for each whole number: (T,) → (T, embedding_dim).

    Args:
        num_embeddings: how many vectors there are, for the numbers 0 to num_embeddings - 1.
        embedding_dim: how long each vector is.
    """
    from nnrun.model.modules import Embedding

    check_room([*at.shape, embedding_dim], at)
    return Embedding(num_embeddings, embedding_dim)


@LAYERS.register("rnn")
def rnn(
    at: Incoming,
    /,
    *,
    hidden_size: Size,
    num_layers: Size = 1,
    nonlinearity: Literal["tanh", "relu"] = "tanh",
    bias: bool = True,
    dropout: Chance = 0.0,
    bidirectional: bool = False,
) -> nn.Module:
    """Read a sequence with a plain recurrent net: (T, D) → its last state (hidden_size,).

    Args:
        hidden_size: how many values the state has.
        num_layers: how many nets are stacked.
        nonlinearity: tanh or relu.
        bias: whether learned constants are added.
        dropout: the chance of a value to be set to 0 between two stacked nets in training.
        bidirectional: whether a second net reads backwards; its last state follows the first, (2 * hidden_size,).
    """
    from nnrun.model.modules import RNN

    return RNN(*_sizes(at, hidden_size, num_layers, dropout), nonlinearity=nonlinearity, bias=bias, **_recurrent(dropout, bidirectional))


@LAYERS.register("gru")
def gru(
    at: Incoming, /, *, hidden_size: Size, num_layers: Size = 1, bias: bool = True, dropout: Chance = 0.0, bidirectional: bool = False
) -> nn.Module:
    """Read a sequence with a GRU: (T, D) → its last state (hidden_size,).

    Args:
        hidden_size: how many values the state has.
        num_layers: how many nets are stacked.
        bias: whether learned constants are added.
        dropout: the chance of a value to be set to 0 between two stacked nets in training.
        bidirectional: whether a second net reads backwards; its last state follows the first, (2 * hidden_size,).
    """
    from nnrun.model.modules import GRU

    return GRU(*_sizes(at, hidden_size, num_layers, dropout), bias=bias, **_recurrent(dropout, bidirectional))


@LAYERS.register("lstm")
def lstm(
    at: Incoming, /, *, hidden_size: Size, num_layers: Size = 1, bias: bool = True, dropout: Chance = 0.0, bidirectional: bool = False
) -> nn.Module:
    """Read a sequence with an LSTM: (T, D) → its last hidden state (hidden_size,).

    Args:
        hidden_size: how many values the state has.
        num_layers: how many nets are stacked.
        bias: whether learned constants are added.
        dropout: the chance of a value to be set to 0 between two stacked nets in training.
        bidirectional: whether a second net reads backwards; its last state follows the first, (2 * hidden_size,).
    """
    from nnrun.model.modules import LSTM

    return LSTM(*_sizes(at, hidden_size, num_layers, dropout), bias=bias, **_recurrent(dropout, bidirectional))


def _sizes(at: Incoming, hidden_size: int, num_layers: int, dropout: float) -> tuple[int, int, int]:
    """Return what torch's recurrent nets take first, after the checks that they share."""
    if len(at.shape) != 2:
        raise wants("a sequence (T, D)", at, "write `embedding` before it for a sequence of numbers (T,)" if len(at.shape) == 1 else "")
    if dropout and num_layers == 1:
        raise LayerError("dropout is between stacked nets, and num_layers is 1", "write a `dropout` layer after it, or num_layers: 2")
    if num_layers > 1000:
        raise LayerError(f"num_layers is {num_layers}, more than 1000")
    return at.shape[1], hidden_size, num_layers


def _recurrent(dropout: float, bidirectional: bool) -> dict[str, Any]:
    return {"batch_first": True, "dropout": dropout, "bidirectional": bidirectional}


@LAYERS.register("residual", nested=True)
def residual(
    at: Incoming, /, *, layers: Annotated[list[LayerPart], Field(min_length=1)], shortcut: list[LayerPart] = NO_LAYERS
) -> nn.Module:
    """Add what comes in, or what a shortcut makes of it, to what a list of layers makes of it; both must have one shape (He et al., 2015).

    Args:
        layers: the layers inside, written as those outside.
        shortcut: the layers on the way around them, where they change the shape; without any, what comes in is added as it is.
    """
    from nnrun.model.flow import numbered, stack
    from nnrun.model.modules import Residual

    inside, shape = stack(numbered(layers), at)
    around, same = stack(numbered(shortcut), at)
    if shape != same:
        what = f"adds {same} to what its layers give, and that is {shape}"
        raise LayerError(what, "end them with a layer that gives the same shape, or write a `shortcut` that gives this one")
    if shortcut and hasattr(inside, "shortcut"):
        raise LayerError("one of its layers is named 'shortcut', which is the name of the way around them", "give it another name")
    return Residual(OrderedDict(inside.named_children()), around=around if shortcut else None)
