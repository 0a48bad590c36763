"""Strategies: how many processes share one network. They matter where there are several; one process trains as it always does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from nnrun.errors import SpecError
from nnrun.lazy import nn, torch
from nnrun.registry import STRATEGIES

if TYPE_CHECKING:
    from nnrun.training.group import Group, Strategy

Seconds = Annotated[float, Field(gt=0, le=10_000_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000_000)]


@STRATEGIES.register("ddp")
def ddp(*, timeout: Seconds = 600.0) -> Strategy:
    """Each process has the whole network, and a slice of each batch; their gradients are averaged (DistributedDataParallel).

    Args:
        timeout: seconds that one process waits for another before the run ends.
    """
    from nnrun.training.group import Strategy

    return Strategy(timeout, _replicated)


@STRATEGIES.register("fsdp")
def fsdp(*, timeout: Seconds = 600.0, unit: Count = 1_000_000) -> Strategy:
    """Each process holds a share of the weights, of their gradients and of what the optimizer keeps, for networks that do not fit (FSDP2).

    Layers are gathered as they are used, forward and backward: half as much again is sent as with ddp, and in every batch.

    Args:
        timeout: seconds that one process waits for another before the run ends.
        unit: layers that follow each other are gathered together until they have so many weights.
    """
    from nnrun.training.group import Strategy

    return Strategy(timeout, partial(_sharded, unit=unit), shards=True)


def _replicated(model: nn.Module, group: Group, device: torch.device) -> nn.Module:
    from torch.nn.parallel import DistributedDataParallel

    from nnrun.training.batch_norm import SyncedBatchNorm

    synced = any(isinstance(module, SyncedBatchNorm) for module in model.modules())
    made: nn.Module = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        forward_sync_buffers=not synced,
        find_unused_parameters=not all(type(module).__module__.startswith(("torch.nn.", "nnrun.")) for module in model.modules()),
    )
    return made


def _sharded(model: nn.Module, group: Group, device: torch.device, *, unit: int) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            what = f"{name} is a single number without a dimension, and fsdp has no share of it for each process"
            raise SpecError(what, fix="write `strategy: ddp`, or make it a vector of one number", at=("strategy",))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # FSDP takes the current one, and moves each unit there as it shares it
    mesh = init_device_mesh(device.type, (group.world_size,))
    for layers in units(model, unit):
        fully_shard(layers, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # what is left over
    if buffers := list(model.buffers()):
        model.register_forward_pre_hook(lambda module, inputs: group.give_out(buffers))
    return model


def units(model: nn.Module, unit: int) -> Iterator[list[nn.Module]]:
    """Yield layers that follow each other and have so many weights together; those left over at the end are in none."""
    some: list[nn.Module] = []
    count = 0
    for layer in _layers(model):
        some.append(layer)
        count += sum(parameter.numel() for parameter in layer.parameters())
        if count >= unit:
            yield some
            some, count = [], 0


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers with weights in the order in which they are used; what is within a layer stays together."""
    for layer in model.children():
        if isinstance(layer, nn.Sequential):
            yield from _layers(layer)
        elif any(True for _ in layer.parameters()):
            yield layer
