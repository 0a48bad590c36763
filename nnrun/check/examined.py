"""What the rules on the data are given: the resolved experiment, its prepared parts, and figures of them that several rules look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nnrun.check.rules import advise
from nnrun.data.prepare import Prepared
from nnrun.data.preprocess import SCALED
from nnrun.errors import RequirementError
from nnrun.spec.experiment import Experiment

MOST_VALUES = 5_000_000
"""How many values of the training part are looked at, in evenly spaced rows."""

LEAKS = ("NN214", "NN215", "NN216")
"""The rules that repeat what the leak guard has noted already, as preparing the data found it."""


@dataclass(frozen=True)
class Examined:
    """An experiment and its data, before training. Shapes: N rows, D columns, T numbers to predict."""

    spec: Experiment
    data: Prepared

    @property
    def is_table(self) -> bool:
        """Whether a row of the dataset is a list of columns, and not a picture or a series."""
        return len(self.data.raw_shape) == 1 and len(self.data.shape) == 1

    @cached_property
    def x(self) -> Tensor:
        """Prepared training rows (N, D), each laid out flat, as float64 on the CPU."""
        rows = self.data.parts["train"].x
        every = max(1, math.ceil(rows.numel() / MOST_VALUES))
        return rows[::every].flatten(1).cpu().to(torch.float64)

    @cached_property
    def y(self) -> Tensor:
        """Targets of the training part on the CPU: class numbers (N,), or numbers (N, T) in float64."""
        y = self.data.parts["train"].y.cpu()
        return y.to(torch.float64) if y.is_floating_point() else y

    @cached_property
    def sizes(self) -> Tensor:
        """The root of the mean square of each column (D,)."""
        return self.x.square().mean(0).sqrt()

    @cached_property
    def constant(self) -> Tensor:
        """Which columns (D,) hold one value only."""
        return self.x.amin(0) == self.x.amax(0)

    @property
    def measures(self) -> list[int]:
        """The numbers of the columns that hold measures, and not the 0 and 1 of a category."""
        columns = self.data.columns
        return [number for number in range(self.x.shape[1]) if not columns or columns[number].kind in SCALED]

    @property
    def target_size(self) -> float:
        """The root of the mean square of the targets, as the loss sees them."""
        return 1.0 if self.spec.scale_target != "none" else float(self.y.square().mean().sqrt())

    @property
    def steps(self) -> int:
        """How many updates the whole run has."""
        rows, size = len(self.data.parts["train"]), self.spec.batch_size
        batches = 1 if size == "all" else max(1, rows // size if self.spec.drop_last else math.ceil(rows / size))
        return self.spec.epochs * math.ceil(batches / self.spec.accumulate_batches)

    def name(self, number: int) -> str:
        """Return the name of a column; "" when it has none."""
        names = [str(column) for column in self.data.columns]
        return names[number] if len(names) == self.x.shape[1] else ""

    def column(self, number: int) -> str:
        """Return how a sentence calls a column: by its name, or by its number."""
        return repr(self.name(number)) if self.name(number) else f"column {number}"


def before_training(spec: Experiment, data: Prepared, device: torch.device) -> list[str]:
    """Ask the rules on the config and on the data; return what they warn of.

    Raises:
        RequirementError: with every error that they find.
    """
    asked = spec.model_copy(update={"device": device.type})
    said = advise("config", asked, ignore=spec.ignore) + advise("data", Examined(spec, data), ignore=spec.ignore)
    errors = [one.fault for one in said if one.severity == "error"]
    if errors:
        raise RequirementError(errors)
    return [str(one) for one in said if one.severity == "warning" and one.rule.name not in LEAKS]
