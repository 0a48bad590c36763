"""How the last layer, the targets and the predictions fit the loss: all that follows from a loss and a task, in one place.

Shapes: N rows, K outputs, T numbers to predict. "Binary" is a loss with one output for two classes; the second class is the positive one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from nnrun.data.dataset import Task
from nnrun.errors import DataError, SpecError
from nnrun.registry import LOSSES
from nnrun.spec.parts import Part, part_class

ONE_SCORE_FOR_TWO = ("zero_one", "plus_minus")
"""The codings in which two classes need one score only."""

WEIGHTS = ("weight", "pos_weight")
"""The arguments of a loss that hold one number for each class."""


@dataclass(frozen=True)
class Head:
    """What one loss asks of one task; made by `head_for`.

    Args:
        loss: the name of the loss.
        task: what is predicted.
        outputs: how wide the last layer must be.
        coding: how a class is written for the loss (`losses.py`, trait `classes`); for numbers `as_is`.
        scores: what the outputs are (`losses.py`, trait `scores`); `log_rates` when poisson_nll takes logarithms.
        scale: `shift` and `spread` (T,) of the target numbers: the network learns (y - shift) / spread. Empty: it learns y.
    """

    loss: str
    task: Task
    outputs: int
    coding: str
    scores: str
    scale: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool:
        """Whether the loss is one of probabilities; if not, `probabilities` is the softmax of the scores, and its reader should be told."""
        return self.scores in ("logits", "log_probabilities", "binary_logits")

    def check(self, y: Tensor) -> None:
        """Refuse targets that the loss cannot take; waits for the device, so it is called once, before training.

        Raises:
            DataError: the targets are not class numbers (N,) below K, or not numbers (N, T).
            SpecError: poisson_nll is asked to count below 0.
        """
        self._check_shape(y)
        if len(y) == 0:
            return
        if self.task.classes and not 0 <= int(y.min()) <= int(y.max()) < len(self.task.classes):
            wrong = int(y.min()) if int(y.min()) < 0 else int(y.max())
            raise DataError(f"the targets hold the class number {wrong}, and there are {len(self.task.classes)} classes, numbered from 0")
        if self.scores in ("rates", "log_rates") and float(y.min()) < 0:
            what = f"poisson_nll counts events, and the smallest target is {float(y.min()):g}"
            raise SpecError(what, fix="write `loss: mse`, or `loss: gaussian_nll`", at=("loss",))

    def encode(self, y: Tensor) -> Tensor:
        """Return the targets as the loss wants them: class numbers (N,), float rows (N, K), or the numbers (N, T) themselves."""
        self._check_shape(y)
        if self.scale:
            return (y - self.scale["shift"]) / self.scale["spread"]
        if self.coding in ("number", "as_is"):
            return y
        rows = y[:, None] if self.outputs == 1 else F.one_hot(y, self.outputs)
        return rows.float() * 2 - 1 if self.coding == "plus_minus" else rows.float()

    def predict(self, output: Tensor) -> Tensor:
        """Return class numbers int64 (N,), or numbers (N, T) in the unit of the target, from outputs (N, K)."""
        self._check_output(output)
        if self.task.classes:
            return (output[:, 0] > 0).long() if self.outputs == 1 else output.argmax(1)
        if self.scores == "log_rates":
            return output.exp()
        numbers = output if output.shape[1] == len(self.task.targets) else output[:, : len(self.task.targets)]
        return numbers * self.scale["spread"] + self.scale["shift"] if self.scale else numbers

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the probability of each class (N, K) from outputs (N, K) or, binary, (N, 1); rows add to 1.

        Scores of each class against the rest are made probabilities one by one and then normalised.
        """
        self._check_output(output)
        if not self.task.classes:
            raise ValueError(f"{self.loss} predicts numbers, which have no probabilities")
        if self.outputs == 1:
            return torch.cat([(-output).sigmoid(), output.sigmoid()], dim=1)
        return (F.logsigmoid(output) if self.scores == "binary_logits" else output).softmax(1)

    def _check_shape(self, y: Tensor) -> None:
        if self.task.classes and (y.ndim != 1 or y.dtype != torch.int64):
            raise DataError(f"class numbers must be int64 of shape (N,), and the targets are {_kind(y)}")
        if not self.task.classes and (y.ndim != 2 or y.shape[1] != len(self.task.targets) or not y.is_floating_point()):
            raise DataError(f"the targets must be floating-point numbers of shape (N, {len(self.task.targets)}), and are {_kind(y)}")

    def _check_output(self, output: Tensor) -> None:
        if output.ndim != 2 or output.shape[1] != self.outputs:
            what = f"the network gives {tuple(output.shape)}, and {self.loss} wants (N, {self.outputs})"
            raise SpecError(what, fix="end the layers with `flatten` and `{linear: auto}`", at=("layers",))


def default_loss(task: Task) -> Part:
    """Return the loss of a config that names none: cross_entropy for classes, mse for numbers."""
    return part_class(LOSSES, "cross_entropy" if task.classes else "mse").model_validate({})


def fit_scale(how: str, task: Task, y_train: Tensor) -> dict[str, Tensor]:
    """Return the `shift` and the `spread` (T,) that `scale_target` asks for, of the training targets (N, T); {} for none.

    Raises:
        SpecError: the targets are classes.
    """
    if how == "none":
        return {}
    if task.classes:
        raise SpecError("scale_target scales numbers, and the targets are classes", fix="leave it out", at=("scale_target",))
    y = y_train.to("cpu", torch.float64)
    low, high = y.amin(0), y.amax(0)
    shift, spread = (y.mean(0), y.std(0, correction=0)) if how == "standardize" else (low, high - low)
    return {"shift": shift.float(), "spread": torch.where(high > low, spread, 1.0).float()}


def head_for(loss: Part, task: Task, scale: Mapping[str, Tensor] | None = None) -> Head:
    """Return how a loss and a task fit together.

    Raises:
        SpecError: they do not, or the loss has weights for another number of classes.
    """
    name, traits = loss.entry.name, loss.entry.traits
    if task.kind not in traits:
        raise _unfit(name, task)
    if len(task.classes) == 1:
        what = f"the target {task.targets[0]!r} has one class only, {task.classes[0]!r}: there is nothing to tell apart"
        raise SpecError(what, fix="name another target", at=("dataset",))
    if not task.classes:
        scores = "log_rates" if loss.arguments().get("log_input") else traits["scores"]
        if scale and scores in ("rates", "log_rates"):
            raise SpecError("poisson_nll counts events, which scale_target would change", fix="leave it out", at=("scale_target",))
        return Head(name, task, traits["numbers"] * len(task.targets), "as_is", scores, scale or {})
    coding = traits["classes"]
    outputs = 1 if coding in ONE_SCORE_FOR_TWO and len(task.classes) == 2 else len(task.classes)
    _check_weights(loss, task, outputs)
    return Head(name, task, outputs, coding, traits["scores"])


def _check_weights(loss: Part, task: Task, outputs: int) -> None:
    for argument, value in loss.arguments().items():
        if argument in WEIGHTS and value is not None and len(value) != outputs:
            count = f"{argument} has {len(value)} number{'s' * (len(value) != 1)}"
            if outputs == 1:
                what = f"{count}, and two classes want one: the weight of {task.classes[1]!r}"
            else:
                what = f"{count}, and {task.targets[0]!r} has {outputs} classes: {_listed(task.classes)}"
            raise SpecError(what, fix=f"write {argument} as a list of {outputs}, in this order", at=("loss", argument))


def _unfit(name: str, task: Task) -> SpecError:
    fits = ", ".join(other for other in LOSSES if task.kind in LOSSES[other].traits)
    if task.classes:
        what = f"the loss {name!r} compares numbers, and {task.targets[0]!r} has {len(task.classes)} classes: {_listed(task.classes)}"
    else:
        what = (
            f"the loss {name!r} compares classes, and {_listed(task.targets)} {'is a number' if len(task.targets) == 1 else 'are numbers'}"
        )
    return SpecError(what, fix=f"losses for {task.kind}: {fits}", at=("loss",))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")


def _kind(y: Tensor) -> str:
    return f"{str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)}"
