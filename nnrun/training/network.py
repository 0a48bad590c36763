"""The network as training, eval and predict share it: the model, its loss, and the head that gives its outputs their meaning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from nnrun.data.columns import Column
from nnrun.data.dataset import Rows, Task
from nnrun.data.prepare import Prepared
from nnrun.data.source import RowSource
from nnrun.errors import SpecError
from nnrun.model.build import build_model
from nnrun.model.incoming import MAX_PARAMETERS
from nnrun.spec.base import no_such_name
from nnrun.spec.experiment import Experiment, foreign_parts
from nnrun.training.capture import Captured, can_capture
from nnrun.training.device import bring
from nnrun.training.evaluate import ROWS_AT_ONCE, figures, has_modes, outputs
from nnrun.training.group import ALONE, Group
from nnrun.training.head import Head, default_loss, fit_scale, head_for
from nnrun.training.metrics import Scored, Targets, check_metrics, default_metrics
from nnrun.training.uncertainty import Interval, intervals


@dataclass(frozen=True)
class Network:
    """What turns prepared rows into outputs, figures and predictions; on one device.

    Args:
        foreign: whether a part of it belongs to a plug-in.
        group: who works out outputs together.
    """

    model: nn.Module
    loss_fn: nn.Module
    head: Head
    metrics: list[str]
    precision: str
    foreign: bool = False
    group: Group = ALONE

    @cached_property
    def modes(self) -> bool:
        """Whether any layer behaves otherwise in evaluation than in training."""
        return has_modes(self.model)

    @torch.inference_mode()
    def outputs(self, x: Tensor | RowSource) -> Tensor:
        """Return the outputs (N, K) of prepared inputs (N, ...)."""
        with self._undrawn(x.device):
            return outputs(self.model, x, precision=self.precision, modes=self.modes, group=self.group)

    def score(self, part: Rows) -> dict[str, float]:
        """Return the loss and the metrics of a prepared part."""
        return self.figures(self.outputs(part.x), part.y)

    def scoring(self, part: Rows) -> Callable[[], dict[str, float]]:
        """Return what scores a prepared part epoch after epoch; of few rows, what follows from the targets alone is found once."""
        x = part.x
        if len(part) > ROWS_AT_ONCE or isinstance(x, RowSource):
            return partial(self.score, part)
        target, targets = self.head.encode(part.y), Targets(part.y)

        @torch.no_grad()  # in inference mode, recurrent layers in bfloat16 make other calls once they are looked at
        def scored(x: Tensor) -> Tensor:
            with self._undrawn(x.device):
                output_NK = outputs(self.model, x, precision=self.precision, modes=self.modes, group=self.group)
                beside = Scored.of(self.head, output_NK, part.y, targets)
                return figures(output_NK, self.loss_fn, target, beside, self.metrics)

        modules = [*self.model.modules(), *self.loss_fn.modules()]
        alone = self.group.world_size == 1 and not self.foreign
        run = Captured(scored) if alone and can_capture(modules, x.device) else scored
        return lambda: self._named(run(x))

    @torch.inference_mode()
    def figures(self, output_NK: Tensor, y: Tensor) -> dict[str, float]:
        """Return the loss and the metrics of outputs beside their targets."""
        with self._undrawn(output_NK.device):
            scored = Scored.of(self.head, output_NK, y)
            return self._named(figures(output_NK, self.loss_fn, self.head.encode(y), scored, self.metrics))

    def _named(self, figures: Tensor) -> dict[str, float]:
        """Return figures by their names; one wait for the device."""
        return dict(zip(["loss", *self.metrics], figures.tolist(), strict=False))

    def _undrawn(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """Return the context in which random numbers that a plug-in draws for an evaluation are not missed by the training."""
        if not self.foreign:
            return contextlib.nullcontext()
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

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


def resolve(spec: Experiment, data: Prepared) -> Experiment:
    """Return the spec with the defaults filled in that depend on the data."""
    metrics = spec.metrics if spec.metrics is not None else default_metrics(data.task)
    return spec.model_copy(update={"loss": spec.loss or default_loss(data.task), "metrics": metrics, "preprocess": data.steps})


def row_weights(spec: Experiment, data: Prepared) -> Tensor | None:
    """Return how much each training row counts, by the dataset and by its class, float32 (N,); None when all count alike.

    Balanced is N / (K·n_k) for a row of class k, as scikit-learn has it.

    Raises:
        SpecError: `class_weight` is for numbers, or names a class that there is not.
    """
    weights, y, classes = spec.class_weight, data.parts["train"].y, data.task.classes
    if weights == "none":
        return data.weight
    if not classes:
        what = f"class_weight weighs classes, and {data.task.targets[0]!r} is a number"
        raise SpecError(what, fix="leave it out, or give the dataset a `weight` column", at=("class_weight",))
    if isinstance(weights, dict):
        unknown = next((name for name in weights if name not in classes), None)
        if unknown is not None:
            what, fix = no_such_name("class", unknown, classes, see=f"the classes are {', '.join(classes[:10])}")
            raise SpecError(what, fix=fix, at=("class_weight",))
        of_class = torch.tensor([weights.get(name, 1.0) for name in classes])
    else:
        counts = torch.bincount(y.cpu(), minlength=len(classes))
        of_class = (len(y) / (len(classes) * counts.clamp(min=1))).float()
    of_row = of_class.to(y.device)[y]
    return of_row if data.weight is None else of_row * data.weight


def network_for(
    spec: Experiment, data: Prepared, device: torch.device, *, room: tuple[int, str] = (MAX_PARAMETERS, ""), moved: bool = True
) -> Network:
    """Return the untrained network of a resolved spec for its prepared data; see `build_network`."""
    scale = fit_scale(spec.scale_target, data.task, data.parts["train"].y)
    return build_network(spec, data.task, data.shape, device, columns=data.columns, scale=scale, room=room, moved=moved)


def build_network(
    spec: Experiment,
    task: Task,
    shape: tuple[int, ...],
    device: torch.device,
    *,
    columns: Sequence[Column] = (),
    scale: Mapping[str, Tensor] | None = None,
    room: tuple[int, str] = (MAX_PARAMETERS, ""),
    moved: bool = True,
) -> Network:
    """Return the untrained network of a resolved spec, its weights drawn from the seed.

    Args:
        shape: of one prepared row.
        columns: of a prepared table; those of categories that are to be embedded are looked up by the first layer.
        scale: `shift` and `spread` (T,) of the target numbers, as `fit_scale` gives them.
        room: how many numbers the model may learn, and what that bound comes from.
        moved: whether the model comes to the device; else it stays on the CPU, where it was built.

    Raises:
        SpecError: the layers, the loss or the metrics do not fit the data.
    """
    if spec.loss is None or spec.metrics is None:
        raise ValueError("resolve(spec, task) comes first")
    check_metrics(spec.metrics, task)
    head = head_for(spec.loss, task, {name: tensor.to(device) for name, tensor in (scale or {}).items()})
    kind, count = ("class", len(task.classes)) if task.classes else ("target", len(task.targets))
    wanted = f"{count} {kind if count == 1 else kind + ('es' if kind == 'class' else 's')}"
    embedded = {number: (len(column.levels) + 1, column.size) for number, column in enumerate(columns) if column.kind == "code"}
    most, because = room
    model = build_model(spec, shape, head.outputs, wanted, embedded=embedded, max_parameters=most, because=because)
    if moved:
        bring(model, device)
    return Network(model, spec.loss.build().to(device), head, spec.metrics, spec.precision, bool(foreign_parts(spec)))
