"""Losses: each builds a module that maps (output (N, K), target) to the mean loss, 0-d.

Three traits of a loss tell `nnrun.training.head` how the last layer, the targets and the predictions fit it:

    classes   how a class is written for it: `number` (N,), or a float row, `one_hot`, `zero_one`, `plus_minus`; absent: takes no classes
    numbers   how many outputs it wants for each number to be predicted; absent: takes no numbers
    scores    what the outputs are: logits, log_probabilities, binary_logits, margins, rates, or values

The last layer must give what a loss expects: no softmax before cross_entropy, a log_softmax before nll. No loss broadcasts: an output and a
target of other shapes are an error (`nnrun.training.loss_modules`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nnrun.lazy import nn, torch
from nnrun.registry import LOSSES

Weights = list[Annotated[float, Field(gt=0)]]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


@LOSSES.register("cross_entropy", classes="number", scores="logits")
def cross_entropy(*, weight: Weights | None = None, label_smoothing: Share = 0.0) -> nn.Module:
    """Cross-entropy of classes; expects raw scores (N, K), and applies log_softmax itself.

    Args:
        weight: one number for each class, in the order of the classes; the mean is weighted by them.
        label_smoothing: the share of the target that is spread evenly over all classes.
    """
    from nnrun.training.loss_modules import ByClass

    return ByClass(nn.CrossEntropyLoss(weight=_tensor(weight), label_smoothing=label_smoothing))


@LOSSES.register("nll", classes="number", scores="log_probabilities")
def nll(*, weight: Weights | None = None) -> nn.Module:
    """Negative log-likelihood of classes; expects log-probabilities (N, K): let the last layer be log_softmax.

    Args:
        weight: one number for each class, in the order of the classes; the mean is weighted by them.
    """
    from nnrun.training.loss_modules import ByClass

    return ByClass(nn.NLLLoss(weight=_tensor(weight)))


@LOSSES.register("bce_with_logits", classes="zero_one", scores="binary_logits")
def bce_with_logits(*, pos_weight: Weights | None = None) -> nn.Module:
    """Binary cross-entropy; expects raw scores, (N, 1) for two classes, else (N, K): each class against the rest.

    Args:
        pos_weight: how much more a positive row counts: one number for two classes (the second is the positive one), else one for each.
    """
    from nnrun.training.loss_modules import SameShape

    return SameShape(nn.BCEWithLogitsLoss(pos_weight=_tensor(pos_weight)))


@LOSSES.register("mse", classes="one_hot", numbers=1, scores="values")
def mse() -> nn.Module:
    """Mean squared error; classes are compared as one-hot rows (N, K)."""
    from nnrun.training.loss_modules import SameShape, SquaredError

    return SameShape(SquaredError())


@LOSSES.register("l1", classes="one_hot", numbers=1, scores="values")
def l1() -> nn.Module:
    """Mean absolute error: outliers count less than in mse."""
    from nnrun.training.loss_modules import SameShape

    return SameShape(nn.L1Loss())


@LOSSES.register("smooth_l1", classes="one_hot", numbers=1, scores="values")
def smooth_l1(*, beta: Positive = 1.0) -> nn.Module:
    """Squared error near zero, absolute error beyond `beta`: d²/(2·beta) if |d| < beta, else |d| - beta/2.

    Args:
        beta: where the square becomes a line, in units of the target.
    """
    from nnrun.training.loss_modules import SameShape

    return SameShape(nn.SmoothL1Loss(beta=beta))


@LOSSES.register("huber", classes="one_hot", numbers=1, scores="values")
def huber(*, delta: Positive = 1.0) -> nn.Module:
    """Huber's loss: d²/2 if |d| <= delta, else delta·(|d| - delta/2).

    Args:
        delta: where the square becomes a line, in units of the target.
    """
    from nnrun.training.loss_modules import SameShape

    return SameShape(nn.HuberLoss(delta=delta))


@LOSSES.register("multi_margin", classes="number", scores="margins")
def multi_margin(*, p: Literal[1, 2] = 1, margin: Positive = 1.0, weight: Weights | None = None) -> nn.Module:
    """Hinge loss over classes: the mean over i ≠ y of max(0, margin - s_y + s_i)^p; expects raw scores (N, K).

    Args:
        p: power of the hinge.
        margin: how far, in score units, the right class must lead.
        weight: one number for each class, in the order of the classes.
    """
    from nnrun.training.loss_modules import ByClass

    return ByClass(nn.MultiMarginLoss(p=p, margin=margin, weight=_tensor(weight)))


@LOSSES.register("kl_div", classes="one_hot", scores="log_probabilities")
def kl_div(*, label_smoothing: Share = 0.0) -> nn.Module:
    """Kullback-Leibler divergence from the smoothed target, summed over classes and averaged over rows; never below 0.

    sum over k of q_k·(log q_k - log p_k), where q = (1 - s)·one_hot + s/K. Expects log-probabilities (N, K): let the last layer be
    log_softmax. They are normalised once more, which leaves log-probabilities as they are and makes log-probabilities of raw scores;
    unnormalised, the sum could fall without end.

    Args:
        label_smoothing: s, the share of the target that is spread evenly over all classes.
    """
    from nnrun.training.loss_modules import KLDivergence

    return KLDivergence(label_smoothing)


@LOSSES.register("poisson_nll", numbers=1, scores="rates")
def poisson_nll(*, log_input: bool = True, full: bool = False, eps: Positive = 1e-8) -> nn.Module:
    """Negative log-likelihood of counts from a Poisson distribution; targets are 0 or more.

    Args:
        log_input: whether the outputs are logarithms of rates, and not rates.
        full: whether the constant term, log(y!) by Stirling's formula, is added.
        eps: keeps log(0) away when the outputs are rates.
    """
    from nnrun.training.loss_modules import SameShape

    return SameShape(nn.PoissonNLLLoss(log_input=log_input, full=full, eps=eps))


@LOSSES.register("gaussian_nll", numbers=2, scores="values")
def gaussian_nll(*, full: bool = False, eps: Positive = 1e-6) -> nn.Module:
    """Negative log-likelihood of numbers from normal distributions: the network gives a mean and a variance for each.

    Expects (N, 2T): first the T means, then T raw numbers r, made variances by softplus(r) + eps. Nix and Weigend, "Estimating the mean
    and variance of the target probability distribution", 1994.

    Args:
        full: whether the constant term, log(2π)/2, is added.
        eps: the smallest variance.
    """
    from nnrun.training.loss_modules import GaussianNLL

    return GaussianNLL(full=full, eps=eps)


@LOSSES.register("hinge", classes="plus_minus", scores="margins")
def hinge(*, margin: Positive = 1.0) -> nn.Module:
    """Hinge loss max(0, margin - t·s) with t = ±1; raw scores (N, 1) for two classes, else (N, K): each class against the rest.

    Args:
        margin: how far from 0, in score units, a right score must be.
    """
    from nnrun.training.loss_modules import Hinge

    return Hinge(margin)


def _tensor(weight: list[float] | None) -> torch.Tensor | None:
    return None if weight is None else torch.tensor(weight)
