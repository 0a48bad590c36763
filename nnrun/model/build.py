"""The `layers:` of a config → a model whose weights are those of a plain PyTorch script, and a table of what it holds.

N rows in a batch; shapes are of one row unless they begin with N.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nnrun.errors import SpecError
from nnrun.model.flow import count_parameters, numbered, shape_after, stack, title
from nnrun.model.incoming import MAX_PARAMETERS, Incoming
from nnrun.model.modules import EmbedColumns
from nnrun.registry import LAYERS
from nnrun.spec.base import Location
from nnrun.spec.experiment import Experiment
from nnrun.spec.parts import Part, part_class


def build_model(
    spec: Experiment,
    input_shape: tuple[int, ...],
    outputs: int,
    wanted: str,
    *,
    embedded: Mapping[int, tuple[int, int]] | None = None,
    max_parameters: int = MAX_PARAMETERS,
    because: str = "",
) -> nn.Sequential:
    """Return the model on the CPU, with the weights that its seed gives.

    Args:
        input_shape: of one row, without the batch.
        outputs: how many values the model gives for one row.
        wanted: what they are, for an error: "3 classes", "1 target".
        embedded: input column → how many categories its numbers stand for, and how many numbers are learned for each.
        max_parameters: refuse a model that learns more numbers, before any memory is taken.
        because: what that bound comes from.

    Raises:
        SpecError: when a layer cannot be built or take what reaches it, or when the last one does not give (outputs,).
    """
    by_width = all(isinstance(layer, int) for layer in spec.layers)
    parts = _from_widths(spec, input_shape) if by_width else numbered(layer for layer in spec.layers if isinstance(layer, Part))
    torch.manual_seed(spec.seed)
    first: list[nn.Module] = []
    if embedded:
        first = [EmbedColumns(input_shape[0], _within(embedded, max_parameters))]
        input_shape = shape_after(first[0], input_shape)
        max_parameters -= count_parameters(first[0])
    model, shape = stack(parts, Incoming(input_shape, outputs, max_parameters, because))
    if first:
        model = nn.Sequential(OrderedDict([("embed_columns", first[0]), *model.named_children()]))
    if shape != (outputs,):
        number, fix = _mend([part for _, part in parts], shape)
        raise SpecError(f"the last layer gives {shape}, and the data has {wanted}", fix=fix, at=parts[number][0])
    return model


def _within(embedded: Mapping[int, tuple[int, int]], max_parameters: int) -> Mapping[int, tuple[int, int]]:
    numbers = sum(rows * size for rows, size in embedded.values())
    if numbers > max_parameters:
        raise SpecError(
            f"the embeddings have {numbers:,} numbers, more than {max_parameters:,}", fix="give embed a smaller size", at=("preprocess",)
        )
    return embedded


def _from_widths(spec: Experiment, input_shape: tuple[int, ...]) -> list[tuple[Location, Part]]:
    """Return the layers that widths stand for; each points at its width."""
    activation = spec.activation.model_copy(update={"label": None})  # one name cannot serve several layers
    parts: list[tuple[Location, Part]] = [(("layers",), _part("flatten"))] if len(input_shape) > 1 else []
    for number, width in enumerate(spec.layers):
        parts += [(("layers", number), _part("linear", out_features=width)), (("activation",), activation)]
    return [*parts, (("layers",), _part("linear", out_features="auto"))]


def _part(name: str, **arguments: Any) -> Part:
    return part_class(LAYERS, name).model_validate(arguments)


def _mend(parts: list[Part], shape: tuple[int, ...]) -> tuple[int, str]:
    """Return which layer to change so that the model gives what the data has, and how."""
    last = len(parts) - 1
    while last > 0 and parts[last].entry.traits.get("activation"):
        last -= 1
    if len(shape) == 1 and parts[last].entry.name == "linear":
        return last, f"write `linear: auto` for {title(last, parts[last])}"
    return len(parts) - 1, "end the list with " + ("`linear: auto`" if len(shape) == 1 else "`flatten` and `linear: auto`")


@dataclass(frozen=True)
class LayerRow:
    """One layer as `nnrun show` prints it: its name in the checkpoint, its class, the shapes of one row, and its parameters."""

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int


def layer_table(model: nn.Module, input_shape: tuple[int, ...]) -> list[LayerRow]:
    """Return a row for each layer of the list, in order; what is inside a layer counts with it."""
    names = {module: name for name, module in model.named_children()}
    return [
        LayerRow(names[module], type(module).__name__, came, gave, count_parameters(module))
        for module, came, gave in passed(model, input_shape)
        if module in names
    ]


def forward_work(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of one row's forward pass: the linear, convolution and recurrent layers, which are nearly all of it."""
    return sum(_multiply_adds(module, came, gave) for module, came, gave in passed(model, input_shape))


def passed(model: nn.Module, input_shape: tuple[int, ...]) -> Iterator[tuple[nn.Module, tuple[int, ...], tuple[int, ...]]]:
    """Run one row of zeros through the model; yield each module in it with the shapes that came in and went out, in that order."""
    seen: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        came, gave = (one[0] if isinstance(one, tuple) and one else one for one in (inputs, output))
        if isinstance(came, Tensor) and isinstance(gave, Tensor):  # within a layer of a plug-in, modules may take and make anything
            seen.append((module, tuple(came.shape[1:]), tuple(gave.shape[1:])))

    first = next(model.parameters(), torch.zeros(0))
    hooks = [module.register_forward_hook(note) for module in model.modules() if module is not model]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_shape, dtype=first.dtype, device=first.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    yield from seen


def _multiply_adds(module: nn.Module, came: tuple[int, ...], gave: tuple[int, ...]) -> int:
    if isinstance(module, nn.Linear):
        return math.prod(gave) * module.in_features
    if isinstance(module, _ConvTransposeNd):
        return math.prod(came) * module.weight[0].numel()
    if isinstance(module, _ConvNd):
        return math.prod(gave) * module.weight[0].numel()
    if isinstance(module, nn.RNNBase):
        return came[0] * sum(weight.numel() for name, weight in module.named_parameters() if name.startswith("weight"))
    return 0
