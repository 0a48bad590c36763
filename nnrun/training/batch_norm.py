"""Batch norm over the rows of all processes; torch's own is for CUDA alone, and counts a row that stands in for none.

Shapes: B rows of this process, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

if TYPE_CHECKING:
    from nnrun.training.processes import Processes

BatchNorm = nn.modules.batchnorm._BatchNorm


class SyncedBatchNorm(BatchNorm):
    """A batch norm whose mean and variance are those of the whole batch, however it is shared; its weights have the names of torch's.

    Means and squares of each process, weighted by its rows, are added up in float64: one exchange forward, one backward.
    """

    group: Processes

    @classmethod
    def put_into(cls, model: nn.Module, group: Processes) -> None:
        """Put one in place of each batch norm of a model; the parameters are the same ones."""
        for name, module in list(model.named_modules()):
            if isinstance(module, BatchNorm):
                made = cls(module.num_features, module.eps, module.momentum, module.affine)
                made.group = group
                made.weight, made.bias = module.weight, module.bias
                for buffer, value in module.named_buffers():
                    setattr(made, buffer, value)
                model.set_submodule(name, made)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take what the batch norm took that stood here."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        over = [dim for dim in range(x.ndim) if dim != 1]
        variance_C, mean_C = torch.var_mean(x, over, correction=0)
        mean_C, variance_C, count = self._of_all(mean_C.double(), variance_C.double(), x.numel() // x.shape[1])
        self._remember(mean_C.detach(), variance_C.detach(), count)
        shape = (-1, *[1] * (x.ndim - 2))
        made = (x - mean_C.float().view(shape)) * (variance_C + self.eps).rsqrt().float().view(shape)
        if self.affine:
            made = made * self.weight.view(shape) + self.bias.view(shape)
        return made.to(input.dtype)

    def _of_all(self, mean_C: Tensor, variance_C: Tensor, values: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean and the variance (C,) over all processes, and how many values they are of."""
        count = mean_C.new_full((1,), values * self.group.counts)
        sums = _Sum.apply(torch.cat([mean_C * count, (variance_C + mean_C.square()) * count, count]))  # type: ignore[no-untyped-call]
        sum_C, squares_C, total = sums.split([len(mean_C), len(mean_C), 1])
        mean_C = sum_C / total
        return mean_C, (squares_C / total - mean_C.square()).clamp(min=0), total.detach()

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor, count: Tensor) -> None:
        """Move the kept mean and the kept variance, without bias, towards those of the batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.double()
        for kept, new in ((self.running_mean, mean_C), (self.running_var, variance_C * count / (count - 1))):
            kept.copy_(kept.double() * (1 - weight) + new * weight)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed
