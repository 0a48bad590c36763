"""torch's optimizers without the guards of torch.compile, whose import takes longer than torch's own, and of the profiler around each step.

Nothing here is compiled or profiled. A guard is left alone where torch no longer has it, or where the compiler has been imported anyway.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch.optim import Optimizer


def leave_the_compiler_out() -> None:
    """Have the methods of torch's optimizers called as they are.

    Their guard keeps them out of compiled code; it looks for the attribute that is set here, and imports the compiler where it is missing.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(Optimizer).values():
        if (guarded := getattr(method, "__wrapped__", None)) is not None and not hasattr(guarded, "__dynamo_disable"):
            guarded.__dynamo_disable = guarded


def step_of(optimizer: Optimizer) -> Callable[[], object]:
    """Return the step of an optimizer by itself: the same arithmetic as `optimizer.step()`, to the bit, without the hooks around it."""
    return torch.no_grad()(partial(inspect.unwrap(type(optimizer).step), optimizer))
