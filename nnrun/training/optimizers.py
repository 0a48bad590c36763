"""Optimizers: torch's own, with torch's names and defaults. `lr` is not an argument here: it has a key of its own in the config.

A part is built with the parameters of the model and the learning rate. The trait `closure` marks an optimizer whose step looks at the loss
several times; `by_number` one whose step for a number depends on what stands at its place alone, so that a share of them can take it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nnrun.errors import SpecError
from nnrun.lazy import nn, torch
from nnrun.registry import OPTIMIZERS

if TYPE_CHECKING:
    from torch.optim import Optimizer

Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Betas = Annotated[list[Share], Field(min_length=2, max_length=2)]
BETAS = [0.9, 0.999]


@OPTIMIZERS.register("sgd", by_number=True)
def sgd(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    momentum: Share = 0.0,
    dampening: Share = 0.0,
    weight_decay: NotNegative = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    """Stochastic gradient descent, with momentum if wanted.

    Args:
        momentum: how much of the last step is kept in the next one.
        dampening: how much the gradient is held back in the momentum.
        weight_decay: pull of the weights toward 0, added to the gradient.
        nesterov: whether the gradient is that of the place where momentum leads; wants momentum, and no dampening.
    """
    if nesterov and (momentum == 0 or dampening != 0):
        what = f"nesterov wants momentum above 0 and dampening 0, and they are {momentum:g} and {dampening:g}"
        raise SpecError(what, fix="write momentum: 0.9, or leave nesterov out", at=("optimizer", "nesterov"))
    given = _given(parameters)
    return torch.optim.SGD(given, lr, momentum, dampening, weight_decay, nesterov, fused=_fused(given, of_shares=False))


@OPTIMIZERS.register("adam", by_number=True)
def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    betas: Betas = BETAS,
    eps: Positive = 1e-8,
    weight_decay: NotNegative = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam: steps of about `lr` for each weight, whatever the size of its gradient (Kingma and Ba, 2015).

    Args:
        betas: how slowly the means of the gradient and of its square move.
        eps: added to the root of the mean square.
        weight_decay: pull of the weights toward 0, added to the gradient; adamw keeps it apart.
        amsgrad: whether the largest mean square so far is used.
    """
    given = _given(parameters)
    return torch.optim.Adam(given, lr, _pair(betas), eps, weight_decay, amsgrad, fused=_fused(given))


@OPTIMIZERS.register("adamw", by_number=True)
def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    betas: Betas = BETAS,
    eps: Positive = 1e-8,
    weight_decay: NotNegative = 0.01,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with weight decay kept apart from the gradient (Loshchilov and Hutter, 2019).

    Args:
        betas: how slowly the means of the gradient and of its square move.
        eps: added to the root of the mean square.
        weight_decay: the share of each weight, times lr, that a step takes away.
        amsgrad: whether the largest mean square so far is used.
    """
    given = _given(parameters)
    return torch.optim.AdamW(given, lr, _pair(betas), eps, weight_decay, amsgrad, fused=_fused(given))


@OPTIMIZERS.register("nadam", by_number=True)
def nadam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    betas: Betas = BETAS,
    eps: Positive = 1e-8,
    weight_decay: NotNegative = 0.0,
    momentum_decay: NotNegative = 0.004,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """Adam with Nesterov's momentum (Dozat, 2016).

    Args:
        betas: how slowly the means of the gradient and of its square move.
        eps: added to the root of the mean square.
        weight_decay: pull of the weights toward 0.
        momentum_decay: how fast the momentum grows to its full size.
        decoupled_weight_decay: whether the decay is kept apart from the gradient, as in adamw.
    """
    return torch.optim.NAdam(_given(parameters), lr, _pair(betas), eps, weight_decay, momentum_decay, decoupled_weight_decay)


@OPTIMIZERS.register("radam", by_number=True)
def radam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    betas: Betas = BETAS,
    eps: Positive = 1e-8,
    weight_decay: NotNegative = 0.0,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """Adam that starts with care while its means are still rough: a warm-up built in (Liu et al., 2020).

    Args:
        betas: how slowly the means of the gradient and of its square move.
        eps: added to the root of the mean square.
        weight_decay: pull of the weights toward 0.
        decoupled_weight_decay: whether the decay is kept apart from the gradient, as in adamw.
    """
    return torch.optim.RAdam(_given(parameters), lr, _pair(betas), eps, weight_decay, decoupled_weight_decay)


@OPTIMIZERS.register("rmsprop", by_number=True)
def rmsprop(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    alpha: Share = 0.99,
    eps: Positive = 1e-8,
    weight_decay: NotNegative = 0.0,
    momentum: NotNegative = 0.0,
    centered: bool = False,
) -> Optimizer:
    """Gradient divided by the root of its mean square (Tieleman and Hinton, 2012).

    Args:
        alpha: how slowly the mean square moves.
        eps: added to the root of the mean square.
        weight_decay: pull of the weights toward 0, added to the gradient.
        momentum: how much of the last step is kept in the next one.
        centered: whether the variance of the gradient is used in place of its mean square.
    """
    return torch.optim.RMSprop(_given(parameters), lr, alpha, eps, weight_decay, momentum, centered)


@OPTIMIZERS.register("adagrad", by_number=True)
def adagrad(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    lr_decay: NotNegative = 0.0,
    weight_decay: NotNegative = 0.0,
    initial_accumulator_value: NotNegative = 0.0,
    eps: Positive = 1e-10,
) -> Optimizer:
    """Gradient divided by the root of the sum of all its squares so far (Duchi et al., 2011).

    Args:
        lr_decay: how fast lr falls with the steps.
        weight_decay: pull of the weights toward 0, added to the gradient.
        initial_accumulator_value: where the sum of squares starts.
        eps: added to the root of the sum.
    """
    given = _given(parameters)
    fused = _fused(given, on=("cpu", "cuda"), of_shares=False)
    return torch.optim.Adagrad(given, lr, lr_decay, weight_decay, initial_accumulator_value, eps, fused=fused)


@OPTIMIZERS.register("adadelta", by_number=True)
def adadelta(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    rho: Share = 0.9,
    eps: Positive = 1e-6,
    weight_decay: NotNegative = 0.0,
) -> Optimizer:
    """Steps in the unit of the weights, measured by the last ones; meant for lr 1 (Zeiler, 2012).

    Args:
        rho: how slowly the mean squares move.
        eps: added to the mean squares; the size of the first steps.
        weight_decay: pull of the weights toward 0, added to the gradient.
    """
    return torch.optim.Adadelta(_given(parameters), lr, rho, eps, weight_decay)


@OPTIMIZERS.register("lbfgs", closure=True)
def lbfgs(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    max_iter: Count = 20,
    max_eval: Count | None = None,
    tolerance_grad: NotNegative = 1e-7,
    tolerance_change: NotNegative = 1e-9,
    history_size: Count = 100,
    line_search_fn: Literal["strong_wolfe"] | None = None,
) -> Optimizer:
    """L-BFGS: Newton's method with a curvature learnt from the last steps; for small data, `batch_size: all` and lr 1.

    Args:
        max_iter: the most iterations in one step.
        max_eval: the most looks at the loss in one step; by default 1.25 times max_iter.
        tolerance_grad: a step ends when no gradient is larger.
        tolerance_change: a step ends when weights or loss change less.
        history_size: how many of the last changes make the curvature.
        line_search_fn: strong_wolfe searches how far to go; null goes `lr` far.
    """
    from nnrun.training.eager import Search

    return Search(
        _given(parameters),
        lr,
        max_iter=max_iter,
        max_eval=max_eval,
        tolerance_grad=tolerance_grad,
        tolerance_change=tolerance_change,
        history_size=history_size,
        line_search_fn=line_search_fn,
    )


@OPTIMIZERS.register("muon")
def muon(
    parameters: Iterable[nn.Parameter],
    lr: float,
    /,
    *,
    momentum: Share = 0.95,
    nesterov: bool = True,
    weight_decay: NotNegative = 0.1,
    ns_steps: Annotated[int, Field(ge=1, lt=100)] = 5,
    adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
    betas: Betas = BETAS,
) -> Optimizer:
    """Orthogonal steps for weight matrices (Jordan, 2024), AdamW for biases and all else.

    Args:
        momentum: how much of the last step is kept in the next one, for matrices.
        nesterov: whether the gradient is that of the place where momentum leads.
        weight_decay: the share of each weight, times lr, that a step takes away.
        ns_steps: Newton-Schulz iterations that make a step orthogonal.
        adjust_lr_fn: match_rms_adamw gives matrices steps as large as AdamW's, so that one lr suits both; original is Jordan's rule.
        betas: how slowly AdamW's means of the gradient and of its square move.
    """
    from nnrun.training.muon import MuonWithAdamW

    given = _given(parameters)
    matrices = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
    rest = {"betas": _pair(betas), "fused": _fused(given)}
    return MuonWithAdamW(given, lr, weight_decay, matrices=matrices, rest=rest)


def _given(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    from nnrun.training.eager import leave_the_compiler_out

    leave_the_compiler_out()
    given = list(parameters)
    if not given:
        raise SpecError("the network has no weights, so there is nothing to train", fix="add a layer with weights", at=("layers",))
    return given


def _fused(parameters: list[nn.Parameter], on: tuple[str, ...] = ("cpu", "cuda", "mps"), *, of_shares: bool = True) -> bool | None:
    """Return True where torch has one kernel for the whole step on the parameters' devices, else None: torch's own choice.

    Args:
        of_shares: whether it has one for weights of which each process holds a share.
    """
    from nnrun.training.shards import is_share

    fits = all(p.device.type in on and p.is_floating_point() and (of_shares or not is_share(p)) for p in parameters)
    return True if fits else None


def _pair(betas: list[float]) -> tuple[float, float]:
    return betas[0], betas[1]
