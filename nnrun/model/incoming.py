"""What the builder of a layer is told, and how it says that it cannot work. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PARAMETERS = 2_000_000_000
MAX_VALUES = 1_000_000_000  # of one row, after one layer: 4 GB as float32


@dataclass(frozen=True)
class Incoming:
    """What reaches a layer.

    Args:
        shape: of one row, without the batch.
        outputs: how many values the model must give for a row; what `linear: auto` becomes.
        max_parameters: how many numbers the whole model may learn; a checkpoint's model no more than the file holds.
        because: what the bound comes from, for an error.
    """

    shape: tuple[int, ...]
    outputs: int
    max_parameters: int = MAX_PARAMETERS
    because: str = ""


class LayerError(ValueError):
    """A layer cannot be built with these arguments on this shape; `nnrun.model.flow` adds which layer it is, and where it is written."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix


def wants(what: str, at: Incoming, fix: str = "") -> LayerError:
    """Return the error of a layer that needs another shape than the one that comes."""
    return LayerError(f"wants {what}, and gets {at.shape}", fix)


def check_room(shape: Iterable[int]) -> None:
    """Refuse a layer whose output for one row (or more than that output) has this shape, when no memory could hold it.

    Raises:
        LayerError: over `MAX_VALUES`.
    """
    values = math.prod(shape)
    if values > MAX_VALUES:
        raise LayerError(f"makes {values:,} values of one row, more than {MAX_VALUES:,}", "make its sizes smaller")
