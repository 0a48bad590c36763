"""The modules behind `losses.py`: what torch lacks, and guards, since torch's own losses broadcast (N, 1) against (N,), if with a warning.

Shapes: N rows of a batch, K outputs, T numbers to predict.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import _reduction as _Reduction  # noqa: N812
from torch.nn import functional as F  # noqa: N812

from nnrun.errors import SpecError
from nnrun.training.loop import Plan


def training_loss(loss: nn.Module, plan: Plan, *, weighted: bool) -> nn.Module:
    """Return the loss of training: with the weights of rows, or of their two targets, as a third argument where there are any."""
    return Weighted(loss) if weighted or plan.two_targets else loss


def divisor(loss: nn.Module, batch: Sequence[Tensor]) -> Tensor | None:
    """Return what the loss of a batch was divided by, 0-d: the weights of its rows, or of their classes; None where it was their count.

    Args:
        batch: inputs, targets, and perhaps weights, as the loss got them.
    """
    if isinstance(loss, Weighted):
        return batch[2].sum()
    weight = _class_weight(loss)
    return None if weight is None else weight[batch[1]].sum()


def row_losses(loss: nn.Module, output_NK: Tensor, target: Tensor) -> Tensor | None:
    """Return losses (N,) of which the loss is the plain mean; None of one that weighs its rows, or does not tell them apart."""
    losses: Tensor = _apart(loss)(output_NK, target)
    if losses.shape[:1] != output_NK.shape[:1]:
        return None
    found = _by_row(losses).double()
    return found if torch.isclose(found.mean(), loss(output_NK, target).double(), rtol=1e-5) else None


def _apart(loss: nn.Module) -> nn.Module:
    """Return a loss that gives those of rows, or of their elements, in place of the mean."""
    made = copy.deepcopy(loss)
    _inner(made).reduction = "none"  # type: ignore[assignment]
    return made


def _by_row(losses: Tensor) -> Tensor:
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


class ByClass(nn.Module):
    """A loss over scores (N, K) and class numbers (N,), and over nothing else."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output_NK: Tensor, y_N: Tensor) -> Tensor:
        if output_NK.ndim != 2 or y_N.shape != output_NK.shape[:1]:
            raise _unlike(output_NK, "a row of scores for each class number", y_N)
        loss: Tensor = self.loss(output_NK, y_N)
        return loss


class SameShape(nn.Module):
    """A loss that compares element with element: output and target (N, K) alike."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output_NK: Tensor, target_NK: Tensor) -> Tensor:
        _require_alike(output_NK, target_NK)
        loss: Tensor = self.loss(output_NK, target_NK)
        return loss


class SquaredError(nn.MSELoss):
    """torch's, called without the broadcasting that comes before it: in training that takes a quarter of a small step."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = torch._C._nn.mse_loss(input, target, _Reduction.get_enum(self.reduction))  # type: ignore[arg-type]
        return loss


class Weighted(nn.Module):
    """A loss in which each row counts by its weight: sum of w·l over sum of w, for losses l (N,) of rows.

    Rows may have several targets, each with its weight: those of the first (N,), then those of the second, …
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = _apart(loss)

    def forward(self, output_NK: Tensor, target: Tensor, weight_N: Tensor) -> Tensor:
        targets = len(target) // len(output_NK)
        losses: Tensor = self.loss(output_NK if targets == 1 else output_NK.repeat(targets, 1), target)
        if losses.ndim == 0:
            what = "the loss gives one number for a batch, and weights need one for each row"
            raise SpecError(what, fix="leave the weights out, or use a loss of nnrun", at=("loss",))
        return (_by_row(losses) * weight_N).sum() / weight_N.sum().clamp(min=torch.finfo(weight_N.dtype).tiny)


class OfEach(nn.Module):
    """The loss of each of many networks (M,): outputs (M, N, K), targets (M, N, …), and perhaps weights of the rows (M, N).

    Losses of single rows know nothing of networks, so those of all are computed at once, and averaged as the loss does it.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss, self.class_weight = _apart(loss), _class_weight(loss)

    def forward(self, output_MNK: Tensor, target: Tensor, weight_MN: Tensor | None = None) -> Tensor:
        losses: Tensor = self.loss(output_MNK.flatten(0, 1), target.flatten(0, 1))
        losses_MN = _by_row(losses).view(output_MNK.shape[:2])
        if weight_MN is not None:
            return (losses_MN * weight_MN).sum(1) / weight_MN.sum(1).clamp(min=torch.finfo(weight_MN.dtype).tiny)
        if self.class_weight is not None:
            return losses_MN.sum(1) / self.class_weight[target].sum(1)
        return losses_MN.mean(1)


class KLDivergence(nn.Module):
    """KL divergence of log-probabilities (N, K) from target distributions (N, K) after smoothing; the sum per row, the mean over rows."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.reduction = "mean"

    def forward(self, output_NK: Tensor, target_NK: Tensor) -> Tensor:
        _require_alike(output_NK, target_NK)
        smooth_NK = target_NK * (1 - self.label_smoothing) + self.label_smoothing / target_NK.shape[1]
        if self.reduction == "none":
            return F.kl_div(output_NK.log_softmax(1), smooth_NK, reduction="none").sum(1)
        return F.kl_div(output_NK.log_softmax(1), smooth_NK, reduction="batchmean")


class GaussianNLL(nn.Module):
    """Normal log-likelihood of targets (N, T) under outputs (N, 2T): means, then raw numbers that softplus makes variances."""

    def __init__(self, *, full: bool, eps: float) -> None:
        super().__init__()
        self.full = full
        self.eps = eps
        self.reduction = "mean"

    def forward(self, output: Tensor, target_NT: Tensor) -> Tensor:
        if output.ndim != 2 or target_NT.ndim != 2 or output.shape != (len(target_NT), 2 * target_NT.shape[1]):
            raise _unlike(output, "a mean and a variance for each number", target_NT)
        mean_NT, raw_NT = output.chunk(2, dim=1)
        variance_NT = F.softplus(raw_NT) + self.eps
        # As torch has it, without its look for variances below 0, which would wait for the device.
        losses = 0.5 * (variance_NT.log() + (mean_NT - target_NT) ** 2 / variance_NT)
        losses = losses + 0.5 * math.log(2 * math.pi) if self.full else losses
        return losses if self.reduction == "none" else losses.mean()


class Hinge(nn.Module):
    """max(0, margin - t·s) over scores and targets ±1, both (N, K)."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.reduction = "mean"

    def forward(self, output_NK: Tensor, sign_NK: Tensor) -> Tensor:
        _require_alike(output_NK, sign_NK)
        losses = torch.clamp(self.margin - sign_NK * output_NK, min=0)
        return losses if self.reduction == "none" else losses.mean()


def _inner(loss: nn.Module) -> nn.Module:
    """Return the module that has the `reduction`."""
    return loss.loss if isinstance(loss, ByClass | SameShape) else loss


def _class_weight(loss: nn.Module) -> Tensor | None:
    """Return the weights of the classes (K,) by which torch divides a loss; None where it divides by the count of rows."""
    inner = _inner(loss)
    return inner.weight if isinstance(inner, nn.CrossEntropyLoss | nn.NLLLoss) else None


def _require_alike(output: Tensor, target: Tensor) -> None:
    if output.ndim != 2 or output.shape != target.shape:
        raise _unlike(output, "the same shape, one output for each target number", target)


def _unlike(output: Tensor, wanted: str, target: Tensor) -> SpecError:
    what = f"the network gives {tuple(output.shape)}, the targets are {tuple(target.shape)}, and the loss wants {wanted}"
    return SpecError(what, fix="end the layers with `flatten` and `{linear: auto}`", at=("layers",))
