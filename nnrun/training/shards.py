"""Tensors of which each process holds a share: torch's DTensor, known by what it can do, since its import takes a second.

Shares are of rows: of the first dimension each process has as many, in order, and the last ones fewer or none.
"""

from __future__ import annotations

from torch import Tensor


def is_share(tensor: Tensor) -> bool:
    """Return whether a tensor is held in shares; its shape is that of the whole."""
    return hasattr(tensor, "full_tensor")


def own(tensor: Tensor) -> Tensor:
    """Return the share of this process, in the same memory; a tensor that is not shared as it is."""
    return tensor.to_local() if is_share(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as a whole; all processes call this. One that is not shared is returned as it is."""
    return tensor.full_tensor() if is_share(tensor) else tensor  # type: ignore[attr-defined]


def share_of(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Return a whole tensor, which all processes have, in shares like those of another, in memory of its own; as it is if that has none."""
    if like is None or not is_share(like) or like.shape != tensor.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]
