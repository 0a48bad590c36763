"""`eval --require 'accuracy>=0.95'`: a requirement as it is written, and whether figures fulfil it."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnrun.errors import Fault, InputError, RequirementError, closest

COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Requirement:
    """A bound on a figure."""

    name: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.bound:g}"

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether the figures keep the bound; nan keeps none."""
        return bool(COMPARE[self.sign](figures[self.name], self.bound))

    @classmethod
    def of(cls, text: str) -> Requirement:
        """Return the requirement that a text such as `accuracy>=0.95` states.

        Raises:
            InputError: it is not a comparison.
        """
        found = re.fullmatch(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*([-+0-9.eE]+)\s*", text)
        try:
            bound = float(found[3]) if found else None
        except ValueError:
            bound = None
        if found is None or bound is None:
            raise InputError(f"--require {text!r} is not a comparison", fix="write it like 'accuracy>=0.95'")
        return cls(found[1], found[2], bound)


def refuse_unscored(requirements: Sequence[Requirement], names: Sequence[str]) -> None:
    """Refuse requirements of figures that the checkpoint is not scored by, before any scoring."""
    faults = []
    for name in dict.fromkeys(one.name for one in requirements if one.name not in names):
        near = closest(name, names)
        hint = f"did you mean {near!r}? " if near else ""
        faults.append(Fault(f"--require {name}: this checkpoint is not scored by it", f"{hint}it is scored by {', '.join(names)}"))
    if faults:
        raise InputError(faults)


def require(requirements: Sequence[Requirement], figures: Mapping[str, float]) -> None:
    """Raise unless every requirement holds, telling all that fail."""
    missed = []
    for one in requirements:
        value = figures[one.name]
        if not one.holds(figures):
            what = f"{one.name} is {value:.6g}, and {one} was required"
            missed.append(Fault(f"{what}: it fails by {abs(value - one.bound):.3g}", "train a better network, or require less"))
    if missed:
        raise RequirementError(missed)
