"""The network as training, eval and predict share it: the model, its loss, and the head that gives its outputs their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnrun.data.dataset import Rows, Task
from nnrun.model.build import build_model
from nnrun.model.incoming import MAX_PARAMETERS
from nnrun.spec.experiment import Experiment
from nnrun.training.evaluate import figures, outputs
from nnrun.training.head import Head, default_loss, head_for
from nnrun.training.metrics import Scored, check_metrics, default_metrics
from nnrun.training.uncertainty import Interval, intervals


@dataclass(frozen=True)
class Network:
    """What turns prepared rows into outputs, figures and predictions; on one device."""

    model: nn.Sequential
    loss_fn: nn.Module
    head: Head
    metrics: list[str]
    precision: str

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs (N, K) of prepared inputs (N, ...)."""
        return outputs(self.model, x, precision=self.precision)

    def score(self, part: Rows) -> dict[str, float]:
        """Return the loss and the metrics of a prepared part."""
        return self.figures(self.outputs(part.x), part.y)

    def figures(self, output_NK: Tensor, y: Tensor) -> dict[str, float]:
        """Return the loss and the metrics of outputs beside their targets."""
        return figures(output_NK, self.loss_fn, self.head, y, self.metrics)

    def intervals(self, output_NK: Tensor, y: Tensor) -> dict[str, Interval]:
        """Return the 95 % interval of each of these figures."""
        return intervals(output_NK, y, self.loss_fn, self.head, self.metrics)

    def scored(self, output_NK: Tensor, y: Tensor) -> Scored:
        """Return outputs beside their targets on the CPU, for a comparison with others."""
        return Scored.of(self.head, output_NK.cpu(), y.cpu())


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model stored weights: just those that it has, each of its own type and shape.

    Raises:
        ValueError: they are not; torch alone would convert a type in silence.
    """
    for name, own in model.state_dict().items():
        if name in weights and weights[name].dtype != own.dtype:
            raise ValueError(f"{name} is {weights[name].dtype} in the checkpoint, and {own.dtype} in the network")
    model.load_state_dict(dict(weights))


def resolve(spec: Experiment, task: Task) -> Experiment:
    """Return the spec with the defaults filled in that depend on what is predicted."""
    metrics = spec.metrics if spec.metrics is not None else default_metrics(task)
    return spec.model_copy(update={"loss": spec.loss or default_loss(task), "metrics": metrics})


def build_network(
    spec: Experiment, task: Task, shape: tuple[int, ...], device: torch.device, *, max_parameters: int = MAX_PARAMETERS
) -> Network:
    """Return the untrained network of a resolved spec, its weights drawn from the seed.

    Raises:
        SpecError: the layers, the loss or the metrics do not fit the data.
    """
    if spec.loss is None or spec.metrics is None:
        raise ValueError("resolve(spec, task) comes first")
    check_metrics(spec.metrics, task)
    head = head_for(spec.loss, task)
    kind, count = ("class", len(task.classes)) if task.classes else ("target", len(task.targets))
    wanted = f"{count} {kind if count == 1 else kind + ('es' if kind == 'class' else 's')}"
    model = build_model(spec, shape, head.outputs, wanted, max_parameters=max_parameters).to(device)
    return Network(model, spec.loss.build().to(device), head, spec.metrics, spec.precision)
