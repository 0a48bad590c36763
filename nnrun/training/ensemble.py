"""Several networks as one that predicts with their mean: of probabilities for classes, of the predicted numbers for numbers.

Shapes: M networks, N rows, K outputs, T numbers to predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from nnrun.training.head import Head
from nnrun.training.loss_modules import GaussianNLL
from nnrun.training.network import Network, load_weights


class Ensemble(nn.Module):
    """Networks of one shape whose outputs are such that a `Head` makes the mean of their predictions of it.

    Args:
        model: of their shape.
        weights: name → those of all networks (M, …).
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor], head: Head, loss_fn: nn.Module) -> None:
        super().__init__()
        self.model, self._head, self._loss_fn = model, head, loss_fn
        device = next(model.parameters()).device
        count = len(next(iter(weights.values())))
        self.members = [{name: tensor[place].to(device) for name, tensor in weights.items()} for place in range(count)]

    def forward(self, input: Tensor) -> Tensor:
        """Return outputs (N, K) for inputs (N, …)."""
        return joined(torch.stack([functional_call(self.model, member, (input,)) for member in self.members]), self._head, self._loss_fn)


def ensemble(network: Network, weights: Mapping[str, Tensor]) -> Network:
    """Return the network that predicts with the mean of many.

    Args:
        network: one of their shape.
        weights: name → those of all (M, …).

    Raises:
        ValueError, RuntimeError: they are not the weights of networks of this shape.
    """
    if len({len(tensor) for tensor in weights.values()}) != 1:
        raise ValueError("the networks of the ensemble are not equally many in all weights")
    made = Ensemble(network.model, weights, network.head, network.loss_fn)
    for member in made.members:
        load_weights(network.model, member)
    return replace(network, model=made)


def joined(output_MNK: Tensor, head: Head, loss_fn: nn.Module) -> Tensor:
    """Return outputs (N, K) of which the head makes the mean of what it makes of each network's.

    Scores that are no probabilities (margins, or the values of mse) are averaged as they are.
    """
    if head.task.classes:
        return _of_classes(output_MNK, head) if head.calibrated else output_MNK.mean(0)
    if head.scores == "log_rates":
        return output_MNK.logsumexp(0) - torch.tensor(len(output_MNK)).log()
    if isinstance(loss_fn, GaussianNLL):  # one normal distribution with mean and variance of the mixture
        mean_MNT, raw_MNT = output_MNK.chunk(2, dim=2)
        variance_NT = F.softplus(raw_MNT).mean(0) + mean_MNT.var(0, correction=0)
        return torch.cat([mean_MNT.mean(0), variance_NT + (-(-variance_NT).expm1()).log()], 1)  # softplus undone
    return output_MNK.mean(0)


def _of_classes(output_MNK: Tensor, head: Head) -> Tensor:
    """Return outputs whose probabilities are the mean of the networks' probabilities."""
    shares_NK = torch.stack([head.probabilities(output_NK.float()) for output_NK in output_MNK]).mean(0)
    logs_NK = shares_NK.clamp(min=torch.finfo(shares_NK.dtype).tiny).log()
    if head.outputs == 1:
        return logs_NK[:, 1:] - logs_NK[:, :1]
    if head.scores == "binary_logits":  # each class against the rest: what a sigmoid makes a share of
        return logs_NK - torch.log1p(-shares_NK.clamp(max=1 - torch.finfo(shares_NK.dtype).eps))
    return logs_NK
