"""Shapes flow through a list of layers: each is built on what the layer before it gives.

A layer that is too large is found on torch's meta device, where building takes no memory and no random number. What a layer gives is found
by running it once on zeros, in eval mode, on the CPU; that takes no random number either, so the weights are those of a plain script. Where
that would be much work or memory, the meta device is used again: a shape in a forged checkpoint costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from nnrun.errors import Fault, SpecError
from nnrun.model.incoming import Incoming, LayerError
from nnrun.spec.base import Location
from nnrun.spec.parts import Part

MAX_LAYERS = 10_000
MUCH_MEMORY = 1 << 22  # values that reach a layer: 16 MB a row
MUCH_WORK = 20_000_000_000  # multiply-adds: about a second


def numbered(parts: Iterable[Part]) -> list[tuple[Location, Part]]:
    """Return each part of a list called `layers` with its path."""
    return [(("layers", number), part) for number, part in enumerate(parts)]


def title(number: int, part: Part) -> str:
    """Return how an error calls a layer: `layer 3 (conv2d 'conv2')`."""
    return f"layer {number} ({part.entry.name}{f' {part.label!r}' if part.label else ''})"


def stack(parts: list[tuple[Location, Part]], at: Incoming) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Return the layers in order, each named by its label or its number, and the shape that the last one gives for one row.

    Args:
        parts: each layer with the path that an error about it points at.
        at: what reaches the first layer.

    Raises:
        SpecError: for the first layer that cannot be built, is too large, or cannot take what reaches it.
    """
    if len(parts) > MAX_LAYERS:
        raise SpecError(f"{len(parts):,} layers are more than {MAX_LAYERS:,}", fix="leave some out", at=("layers",))
    model = nn.Sequential()
    used = 0
    for number, (path, part) in enumerate(parts):
        name = part.label or str(number)
        try:
            _check_name(model, name)
            with torch.random.fork_rng(devices=[]):  # a plug-in's layer may draw where ours do not
                _check_parameters(part, at, used)
            layer = part.build(at)
            shape = _tried(layer, at.shape)
        except LayerError as error:
            raise SpecError(f"{title(number, part)}: {error}", fix=error.fix, at=path) from None
        except SpecError as error:  # of a list inside this layer
            raise SpecError([_inside(fault, title(number, part), path) for fault in error.faults]) from None
        except (RuntimeError, ValueError, IndexError, OverflowError) as error:  # torch's own complaint
            raise SpecError(f"{title(number, part)}: cannot take {at.shape}: {str(error).partition(chr(10))[0]}", at=path) from None
        model.add_module(name, layer)
        used += count_parameters(layer)
        at = replace(at, shape=shape)
    return model, at.shape


def _tried(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    with torch.random.fork_rng(devices=[]):  # a plug-in's layer may draw
        return shape_after(layer, shape)


def shape_after(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one row after the layer; the layer is left in training mode."""
    places = max(shape) if len(shape) == 2 else math.prod(shape[1:])  # of a series either is a place: its steps, or its rows
    with torch.no_grad():
        if math.prod(shape) > MUCH_MEMORY or count_parameters(layer) * places > MUCH_WORK:  # worth a second of torch's imports
            held = {name: tensor.to("meta") for name, tensor in (*layer.named_parameters(), *layer.named_buffers())}
            output = torch.func.functional_call(layer.eval(), held, torch.zeros(2, *shape, device="meta"))
        else:
            output = layer.eval()(torch.zeros(2, *shape))
    layer.train()
    return tuple(output.shape[1:])


def count_parameters(layer: nn.Module) -> int:
    """Return how many numbers the layer learns."""
    return sum(parameter.numel() for parameter in layer.parameters())


def _check_parameters(part: Part, at: Incoming, used: int) -> None:
    """Refuse a layer that would give the model too many parameters, before it takes any memory.

    A layer made of layers is not asked: its own are counted one by one when it is built.
    """
    if part.entry.traits.get("nested"):
        return
    with torch.device("meta"):
        parameters = count_parameters(part.build(at))
    if used + parameters > at.max_parameters:
        what = f"{parameters:,} parameters, and {used:,} before it, are more than {at.max_parameters:,}{at.because and ': '}{at.because}"
        raise LayerError(what, "make it smaller, or reduce what reaches it")


def _check_name(model: nn.Sequential, name: str) -> None:
    if not hasattr(model, name):
        return
    if name in dict(model.named_children()):
        raise LayerError(f"the name {name!r} is given to another layer already", "give each layer a name of its own")
    raise LayerError(f"torch keeps the name {name!r} for itself", f"write {name}_layer")


def _inside(fault: Fault, outer: str, path: Location) -> Fault:
    return replace(fault, what=f"{outer}: {fault.what}", at=(*path, *fault.at))
