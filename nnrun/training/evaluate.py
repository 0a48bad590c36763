"""Outputs of a network over many rows, and the figures made of them. Nothing here draws a random number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnrun.data.source import Chosen, RowSource, blocks, joined
from nnrun.training.device import autocast
from nnrun.training.group import ALONE, Group
from nnrun.training.metrics import Scored, score

MODAL = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU, nn.RNNBase)
ROWS_AT_ONCE = 1024
"""Rows of one forward pass outside training; fixed, so that the same checkpoint gives the same bits."""
ROWS_OF_STACK = 16 * ROWS_AT_ONCE
"""The same for many networks at once: rows times networks."""


def has_modes(model: nn.Module) -> bool:
    """Return whether any layer behaves otherwise in evaluation than in training; a module that is not torch's own may.

    Switching a small network to and fro costs more than its forward pass, so it is done only where it matters.
    """
    return any(isinstance(module, MODAL) or not type(module).__module__.startswith("torch.nn.modules.") for module in model.modules())


def outputs(
    model: nn.Module, x: Tensor | RowSource, *, precision: str = "float32", modes: bool | None = None, group: Group = ALONE
) -> Tensor:
    """Return the network's outputs (N, K) for prepared inputs (N, …), in evaluation mode and in float32; many processes share the work.

    Args:
        modes: what `has_modes` says of the model, where that is known.
    """
    switch = model.training and (has_modes(model) if modes is None else modes)
    if switch:
        model.eval()
    with autocast(x.device, precision):
        own = _stretch(x, *group.stretch(len(x), ROWS_AT_ONCE))
        made = joined((model(x_B) for x_B in blocks(own, ROWS_AT_ONCE)), len(own))
    if switch:
        model.train()
    return group.whole(made.float(), len(x), ROWS_AT_ONCE)


def _stretch(x: Tensor | RowSource, first: int, end: int) -> Tensor | RowSource:
    """Return some rows one after another; all of them as they are."""
    if (first, end) == (0, len(x)):
        return x
    return Chosen(x, torch.arange(first, end)) if isinstance(x, RowSource) else x[first:end]


def figures(output_NK: Tensor, loss_fn: nn.Module, target: Tensor, scored: Scored, metrics: Sequence[str]) -> Tensor:
    """Return the loss and each metric (1 + metrics,) over all rows, as exact as the device has it; the loss alone when there are no rows.

    Args:
        target: the targets (N, …) as the loss wants them.
        scored: the outputs beside the targets as the data has them.
    """
    exact = torch.float32 if output_NK.device.type == "mps" else torch.float64
    made = [loss_fn(output_NK, target), *score(metrics, scored).values()]
    return torch.stack([torch.as_tensor(figure, dtype=exact, device=output_NK.device) for figure in made])
