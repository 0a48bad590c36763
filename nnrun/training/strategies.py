"""Strategies: how many processes share one network. They matter where there are several; one process trains as it always does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from nnrun.registry import STRATEGIES

if TYPE_CHECKING:
    from nnrun.lazy import nn
    from nnrun.training.group import Group, Strategy

Seconds = Annotated[float, Field(gt=0, le=10_000_000)]


@STRATEGIES.register("ddp")
def ddp(*, timeout: Seconds = 600.0) -> Strategy:
    """Each process has the whole network, and a slice of each batch; their gradients are averaged (DistributedDataParallel).

    Args:
        timeout: seconds that one process waits for another before the run ends.
    """
    from nnrun.training.group import Strategy

    return Strategy(timeout, _replicated)


def _replicated(model: nn.Module, group: Group) -> nn.Module:
    from torch.nn.parallel import DistributedDataParallel

    from nnrun.training.batch_norm import SyncedBatchNorm

    synced = any(isinstance(module, SyncedBatchNorm) for module in model.modules())
    device = next(model.parameters()).device
    made: nn.Module = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        forward_sync_buffers=not synced,
        find_unused_parameters=not all(type(module).__module__.startswith(("torch.nn.", "nnrun.")) for module in model.modules()),
    )
    return made
