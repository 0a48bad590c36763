"""What training will take of the machine's memory, reckoned before it is taken: the system kills in silence what takes too much."""

from __future__ import annotations

import math

import torch
from torch import nn

from nnrun.errors import EnvironmentFault
from nnrun.machine import free_memory
from nnrun.model.build import passed
from nnrun.spec.experiment import Experiment
from nnrun.training.eager import step_of
from nnrun.training.evaluate import ROWS_AT_ONCE, ROWS_OF_STACK
from nnrun.training.group import ALONE, Group

FLOAT = 4  # bytes
VIEWS = (nn.Flatten, nn.Unflatten, nn.Identity)


def most_parameters(
    spec: Experiment, device: torch.device, group: Group = ALONE, *, keeps_best: bool, shards: bool = False
) -> tuple[int, str]:
    """Return how many parameters there is memory to train, and the reckoning in words.

    Beside the weights there are their gradients, what the optimizer keeps, the weights of the best epoch, and, while a checkpoint is
    written, two copies of it all but the gradients. On a CUDA device only the copies of a checkpoint are in this memory. The processes of
    a machine share it. Where each holds a share of the weights, all have built it before, and the first makes whole what it writes.

    Args:
        group: who trains together.
        shards: whether each process holds no more than a share.
    """
    stored, here = 1 + keeps_best + numbers_kept(spec), group.local_world_size
    copies = 3 * stored if shards or device.type == "cuda" else 2 * stored
    held = 0 if device.type == "cuda" else (1 + stored) * here
    numbers = max(here, copies - (-held // group.world_size)) if shards else copies + held
    free = free_memory()
    why = f"{spec.optimizer.entry.name} and its checkpoints take {numbers * FLOAT} bytes for each, and {in_gb(free)} of memory are free"
    return free // (numbers * FLOAT), why


def numbers_kept(spec: Experiment) -> int:
    """Return how many numbers the optimizer keeps for each weight, found by a step on four weights."""
    if spec.optimizer.entry.traits.get("closure"):
        return 2 * int(spec.optimizer.arguments().get("history_size", 1))
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    optimizer: torch.optim.Optimizer = spec.optimizer.build([weight], spec.lr)
    step_of(optimizer)()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(value.numel() for value in kept) // weight.numel()


def check_activations(model: nn.Module, shape: tuple[int, ...], rows: int, device: torch.device) -> None:
    """Refuse batches whose values between the layers, kept for the gradients, do not fit into memory.

    Args:
        shape: of one prepared row.
        rows: of the largest batch.

    Raises:
        EnvironmentFault: with both sizes, placed at the batch size.
    """
    if device.type == "cuda":  # torch says so itself there
        return
    sizes = _values(model, shape)
    largest = max(sizes, default=0)
    training, scoring, free = FLOAT * rows * (sum(sizes) + largest), FLOAT * 2 * ROWS_AT_ONCE * largest, free_memory()
    if training > free:
        what = (
            f"the layers make {sum(sizes):,} values of each row, {in_gb(training)} for a batch of {rows} rows, and {in_gb(free)} are free"
        )
        raise EnvironmentFault(what, fix="lower batch_size, or make the layers smaller", at=("batch_size",))
    if scoring > free:
        what = f"a layer makes {largest:,} values of each row, {in_gb(scoring)} for the {ROWS_AT_ONCE} rows that are scored at once"
        raise EnvironmentFault(f"{what}, and {in_gb(free)} are free", fix="make the layers smaller", at=("layers",))


def check_stack(spec: Experiment, model: nn.Module, shape: tuple[int, ...], rows: int, count: int, device: torch.device) -> None:
    """Refuse to train so many networks like this one at once when their weights or the values between their layers do not fit in.

    Args:
        rows: of the largest batch; each network has one of its own.

    Raises:
        EnvironmentFault: with both sizes.
    """
    fix = "write a smaller --seeds, and train the others with another seed in another folder"
    most, because = most_parameters(spec, device, keeps_best=True)
    parameters = count * sum(parameter.numel() for parameter in model.parameters())
    if parameters > most:
        raise EnvironmentFault(f"{count} networks learn {parameters:,} numbers together: {because}", fix=fix)
    sizes, free = _values(model, shape), free_memory()
    needed = FLOAT * max(count * rows * (sum(sizes) + max(sizes, default=0)), 2 * ROWS_OF_STACK * max(sizes, default=0))
    if needed > free and device.type != "cuda":
        what = f"the layers of {count} networks make {in_gb(needed)} of values for batches of {rows} rows, and {in_gb(free)} are free"
        raise EnvironmentFault(what, fix=f"lower batch_size, or {fix}", at=("batch_size",))


def _values(model: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """Return how many values each layer makes of a row."""
    return [math.prod(gave) for module, _, gave in passed(model, shape) if not isinstance(module, VIEWS) and not list(module.children())]


def in_gb(size: int) -> str:
    """Return a number of bytes as a person reads it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
