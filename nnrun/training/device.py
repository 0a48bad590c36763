"""Where the arithmetic runs: the device, its precision, and how many CPU threads a step deserves."""

from __future__ import annotations

import contextlib
import os
import re

import torch
from torch import nn

from nnrun.errors import EnvironmentFault, InputError
from nnrun.spec.experiment import DEVICE
from nnrun.training.group import ALONE, Group

SMALL_STEP = 4_000_000
"""Multiply-adds of a step below which a second thread costs more than it brings (docs/benchmarks.md has the figures)."""


CHANNELS_LAST = ("cuda",)
"""Devices whose convolutions are faster on pictures that lie with their channels last; on CPUs a tenth is not worth other last bits."""


def choose_device(name: str, group: Group = ALONE) -> torch.device:
    """Return the device that a config names; `auto` takes CUDA, then MPS, then the CPU. Each of many processes has its own CUDA device.

    Raises:
        InputError: it is not the name of a device, or of one that several processes cannot have.
        EnvironmentFault: when the device is not there; a run never moves to another one silently.
    """
    if not re.fullmatch(DEVICE, name):
        raise InputError(f"device {name!r} is not a device", fix="write auto, cpu, cuda, cuda:1 or mps", at=("device",))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if group.world_size > 1:
        if device.type == "mps" or device.index is not None:
            what = f"device {name!r} is one device, and {group.world_size} processes want one each"
            raise InputError(what, fix=f"write `device: {'cpu' if device.type == 'mps' else device.type}`", at=("device",))
        device = torch.device("cuda", group.local_rank) if device.type == "cuda" else device
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, True)
    if not there:
        fix = "take auto or cpu"
        raise EnvironmentFault(f"device {name!r} was asked for, and this machine or this build of torch has none", fix=fix, at=("device",))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = ", ".join(f"cuda:{number}" for number in range(torch.cuda.device_count()))
        fix = f"take one of {found}" if group.world_size == 1 else f"start {torch.cuda.device_count()} processes on this machine"
        raise EnvironmentFault(f"device '{device}' does not exist; this machine has {found}", fix=fix, at=("device",))
    return device


def bring(model: nn.Module, device: torch.device) -> None:
    """Bring a model to a device, its filters laid as convolutions there like them; pictures on their way through the layers follow them."""
    for module in model.to(device).modules():
        if device.type in CHANNELS_LAST and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def choose_threads(threads: int | str, multiply_adds: int, processes: int = 1) -> int:
    """Return how many CPU threads to use for steps of this size; a pure function, so that the same config gives the same bits.

    Args:
        processes: how many share the cores.
    """
    if isinstance(threads, int):
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if multiply_adds < SMALL_STEP else max(1, cores // processes)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """Return the context in which products are computed in `precision`."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype={"bfloat16": torch.bfloat16, "float16": torch.float16}[precision])
