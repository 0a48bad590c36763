"""What a network shows of itself between two epochs: its activations, its gradient, and how far its next step would go.

Nothing here moves the run: the network is looked at in evaluation mode, gradients are taken beside `.grad`, the step is taken by copies of
the weights and of the optimiser's state, and no random number is drawn.

Shapes: N rows that are looked at, U units (channels) of a layer, K outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nnrun.data.dataset import HeldRows
from nnrun.training.eager import step_of
from nnrun.training.evaluate import has_modes
from nnrun.training.loop import State
from nnrun.training.network import Network
from nnrun.training.shards import own

RECTIFIERS = (nn.ReLU, nn.ReLU6)
ENDS: dict[type[nn.Module], Callable[[Any], tuple[float, float]]] = {
    nn.Sigmoid: lambda module: (0.0, 1.0),
    nn.Hardsigmoid: lambda module: (0.0, 1.0),
    nn.Tanh: lambda module: (-1.0, 1.0),
    nn.Hardtanh: lambda module: (module.min_val, module.max_val),
}
"""Activation → the lowest and highest value it can have, where it is flat."""
COPIED = 1_000_000
"""Numbers that are copied at once for the step that is not taken."""
NEAR_END = 0.01
"""How near to an end a value is flat, as a share of the way between the ends."""


@dataclass(frozen=True)
class Layer:
    """One activation layer.

    Args:
        hidden: whether weights follow; what comes after the last weights is an answer, and may well be 0 or 1.
        units: how many units (channels) it has.
        dead: of these, how many are 0 for every row; a rectifier learns nothing there.
        saturated: the share of its values that are so near an end that hardly any gradient comes through.
    """

    name: str
    kind: str
    hidden: bool
    units: int
    dead: int = 0
    saturated: float = 0.0


@dataclass(frozen=True)
class Signs:
    """A network between two epochs.

    Args:
        predicted: for some training rows, class numbers (N,) or numbers (N, T).
        y: their targets.
        gradients: weight matrix or filters → the norms of its gradient and of itself, in the order of the layers.
        gradient: the norm of the gradient of everything that learns, for one batch.
        size: the norm of all these numbers.
        step: the norm of the step that the optimiser would take now; None for one that searches.
    """

    predicted: Tensor
    y: Tensor
    layers: list[Layer]
    gradients: dict[str, tuple[float, float]]
    gradient: float
    size: float
    step: float | None


class Observer:
    """Looks at a network with the same rows each time.

    Args:
        rows: the training rows to look at (N, …).
        batch: of these, how many make a step.
        optimizer: (parameters, lr) → an optimiser as the run's; for the copies.
    """

    def __init__(
        self, network: Network, rows: HeldRows, batch: int, optimizer: Callable[[list[Tensor], float], Any], clip: float | None
    ) -> None:
        self._network, self._rows, self._batch = network, rows, batch
        self._optimizer, self._clip = optimizer, clip
        self._modes = has_modes(network.model)
        self._names = [(name, one.ndim > 1) for name, one in network.model.named_parameters() if one.requires_grad]
        modules = list(network.model.named_modules())
        learns = [number for number, (_, module) in enumerate(modules) if list(module.parameters(recurse=False))]
        self._watched = [
            (name, module, number < learns[-1]) for number, (name, module) in enumerate(modules) if type(module) in (*RECTIFIERS, *ENDS)
        ]
        recurrent = any(isinstance(module, nn.RNNBase) for module in network.model.modules())
        self._plain = recurrent and rows.x.device.type == "cuda"  # cuDNN has no gradient of a recurrent layer in evaluation mode

    def look(self, state: State) -> Signs:
        """Return what there is to see now."""
        network = self._network
        if self._modes:
            network.model.eval()
        try:
            output_NK, layers = self._activations()
            gradients = self._gradients(state.parameters)
        finally:
            if self._modes:
                network.model.train()
        norms = network.group.norms([*state.parameters, *gradients])
        sizes, norms = norms[: len(gradients)], norms[len(gradients) :]
        return Signs(
            predicted=network.head.predict(output_NK),
            y=self._rows.y,
            layers=layers,
            gradients={name: (norm, size) for (name, matrix), norm, size in zip(self._names, norms, sizes, strict=True) if matrix},
            gradient=_whole(norms),
            size=_whole(sizes),
            step=None if state.searches else self._step(state, gradients, _whole(norms)),
        )

    @torch.inference_mode()
    def _activations(self) -> tuple[Tensor, list[Layer]]:
        """Return the outputs (N, K), and what passes through each activation layer on the way."""
        found: list[tuple[str, nn.Module, bool, int, Tensor]] = []

        def note(name: str, hidden: bool) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, inputs, output: found.append((name, module, hidden, output.shape[1], _figure(module, output)))

        hooks = [module.register_forward_hook(note(name, hidden)) for name, module, hidden in self._watched]
        try:
            output_NK = self._network.model(self._rows.x).float()
        finally:
            for hook in hooks:
                hook.remove()
        figures = torch.stack([figure for *_, figure in found]).tolist() if found else []
        return output_NK, [
            Layer(name, type(module).__name__, hidden, units, dead=units - int(figure))
            if isinstance(module, RECTIFIERS)
            else Layer(name, type(module).__name__, hidden, units, saturated=figure)
            for (name, module, hidden, units, _), figure in zip(found, figures, strict=True)
        ]

    def _gradients(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """Return the gradient of the loss of one batch, without touching those of the run."""
        network, x, y = self._network, self._rows.x[: self._batch], self._rows.y[: self._batch]
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False) if self._plain else contextlib.nullcontext():
            loss = network.loss_fn(network.model(x), network.head.encode(y))
            found = network.group.gradients(loss, parameters)
        return [torch.zeros_like(parameter) if one is None else one for parameter, one in zip(parameters, found, strict=True)]

    def _step(self, state: State, gradients: list[Tensor], norm: float) -> float:
        """Return how far the optimiser would go; a few tensors at a time, so that the copies need little room."""
        lr = float(state.optimizer.param_groups[0]["lr"])
        shorter = min(1.0, self._clip / (norm + 1e-6)) if self._clip else 1.0
        moved: list[Tensor] = []
        for some in _together(zip(state.parameters, gradients, strict=True)):
            copies = [parameter.detach().clone().requires_grad_() for parameter, _ in some]
            trial = self._optimizer(copies, lr)
            for copy, (parameter, gradient) in zip(copies, some, strict=True):
                memory = state.optimizer.state.get(parameter, {})
                copy.grad = gradient * shorter if memory or not state.optimizer.state else None  # a weight that nothing uses is left alone
                if memory:
                    trial.state[copy].update({key: value.clone() if isinstance(value, Tensor) else value for key, value in memory.items()})
            step_of(trial)()
            moved += [(own(copy.detach()) - own(parameter.detach())).norm() for copy, (parameter, _) in zip(copies, some, strict=True)]
        return _whole(self._network.group.norms(moved))


def _together(pairs: Iterable[tuple[nn.Parameter, Tensor]]) -> Iterator[list[tuple[nn.Parameter, Tensor]]]:
    """Yield parameters with their gradients, as many at a time as have `COPIED` numbers, and at least one."""
    some: list[tuple[nn.Parameter, Tensor]] = []
    for parameter, gradient in pairs:
        if some and sum(one.numel() for one, _ in some) + parameter.numel() > COPIED:
            yield some
            some = []
        some.append((parameter, gradient))
    yield some


def _figure(module: nn.Module, output: Tensor) -> Tensor:
    """Return, 0-d, how many units of a rectifier are not 0 for some row, or the share of values near an end."""
    if isinstance(module, RECTIFIERS):
        return (output > 0).transpose(0, 1).flatten(1).any(1).float().sum()
    low, high = ENDS[type(module)](module)
    near = NEAR_END * (high - low)
    return ((output < low + near) | (output > high - near)).float().mean()


def _whole(norms: list[float]) -> float:
    return float(sum(norm**2 for norm in norms) ** 0.5)
