"""torch and torch.nn, imported at their first use instead of at the first import of nnrun.

The registered parts are plain functions over torch. A config is read, and faults in it are told, from their signatures alone; waiting a
second and more for torch there would be rude. So a module of parts says `from nnrun.lazy import nn, torch` and keeps to two rules: it names
torch only inside functions, and it has `from __future__ import annotations`. Code that always computes imports torch as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import nn as nn
else:

    class _Lazy:
        """Stands in for a module until one of its names is asked for."""

        def __init__(self, load: Callable[[], ModuleType]) -> None:
            self._load = load

        def __getattr__(self, name: str) -> Any:
            self.__dict__.update(vars(self._load()))  # from now on a plain attribute: this method is not called again
            if name not in self.__dict__:
                raise AttributeError(f"torch has no {name!r}")
            return self.__dict__[name]

    def _torch() -> ModuleType:
        import torch

        return torch

    def _nn() -> ModuleType:
        from torch import nn

        return nn

    torch = _Lazy(_torch)
    nn = _Lazy(_nn)
