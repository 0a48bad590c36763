"""What the builder of a layer is told, and how it says that it cannot work. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PARAMETERS = 2_000_000_000
MAX_VALUES = 1_000_000_000  # of one row, after one layer: 4 GB as float32
MAX_GROWTH = 16  # times what reaches a layer, where that is more than
SMALL_VALUES = 1 << 26


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


def check_room(shape: Iterable[int], at: Incoming) -> None:
    """Refuse a layer whose output for one row (or more than that output) has this shape, when no memory could hold it.

    Raises:
        LayerError: over `MAX_VALUES`, or over `MAX_GROWTH` times what reaches it; a layer that is tried on real zeros makes little.
    """
    values, most = math.prod(shape), min(MAX_VALUES, max(SMALL_VALUES, MAX_GROWTH * math.prod(at.shape)))
    if values > most:
        raise LayerError(f"makes {values:,} values of one row, more than {most:,}", "make its sizes smaller")
