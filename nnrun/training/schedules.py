"""Learning-rate schedules as pure functions of the epoch, so that a resumed run has the rates of one that never stopped.

A builder gets the number of epochs after the warm-up and returns a function: the epoch as a real number counted from 0 (2.5 is half-way
through the third) → the factor on `lr`. The trait `every` says when it changes: at whole `epoch`s, and then the function is flat between
them, or at each `step`. The formulas are the closed forms of torch.optim.lr_scheduler.

`plateau` alone has a memory, since it follows a figure: its builder returns a `Plateau`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from nnrun.errors import SpecError, closest
from nnrun.registry import METRICS, SCHEDULES

Factor = Callable[[float], float]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


@SCHEDULES.register("none", every="epoch")
def none(epochs: float, /) -> Factor:
    """The same learning rate throughout."""
    return lambda epoch: 1.0


@SCHEDULES.register("step", every="epoch")
def step(epochs: float, /, *, step_size: Count, gamma: Positive = 0.1) -> Factor:
    """Multiplied by gamma every `step_size` epochs: gamma^floor(epoch / step_size).

    Args:
        step_size: epochs from one fall to the next.
        gamma: the factor of each fall.
    """
    return lambda epoch: gamma ** (_whole(epoch) // step_size)


@SCHEDULES.register("multistep", every="epoch")
def multistep(epochs: float, /, *, milestones: list[Count], gamma: Positive = 0.1) -> Factor:
    """Multiplied by gamma at each milestone.

    Args:
        milestones: after how many epochs the rate falls, such as [30, 80].
        gamma: the factor of each fall.
    """
    at = sorted(milestones)
    return lambda epoch: gamma ** bisect_right(at, _whole(epoch))


@SCHEDULES.register("exponential", every="epoch")
def exponential(epochs: float, /, *, gamma: Positive) -> Factor:
    """Multiplied by gamma after each epoch: gamma^epoch.

    Args:
        gamma: the factor of each epoch, such as 0.95.
    """
    return lambda epoch: gamma ** _whole(epoch)


@SCHEDULES.register("cosine", every="epoch", spans_run=True)
def cosine(epochs: float, /, *, floor: Share = 0.0) -> Factor:
    """Half a cosine from 1 down to `floor`: floor + (1 - floor)·(1 + cos(π·epoch / epochs)) / 2 (Loshchilov and Hutter, 2017).

    Args:
        floor: the factor at the end.
    """
    return lambda epoch: _between(1.0, floor, _whole(epoch) / epochs)


@SCHEDULES.register("one_cycle", every="step", spans_run=True)
def one_cycle(
    epochs: float,
    /,
    *,
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Factor:
    """A cosine up to `lr`, then one down to almost nothing, changing at each step (Smith and Topin, 2018).

    torch's OneCycleLR, told in time in place of steps: there a phase ends one step earlier.

    Args:
        pct_start: the share of the epochs in which the rate rises.
        div_factor: the rate starts at lr / div_factor.
        final_div_factor: and ends that much below its start.
    """
    start, top = 1 / div_factor, pct_start * epochs

    def factor(epoch: float) -> float:
        if epoch < top:
            return _between(start, 1.0, epoch / top)
        return _between(1.0, start / final_div_factor, (epoch - top) / (epochs - top))

    return factor


@dataclass
class Plateau:
    """A factor that falls when a figure stops improving.

    A figure improves when it is better than the best so far by more than `threshold` of its size; nan never is.

    Args:
        monitor: the figure to `update` with, such as `val.loss`.
        falls: whether lower is better.
        factor: the factor now.
        best: the best figure so far, if there is one.
        waited: epochs without improvement.
        resting: epochs of cooldown that are left.
    """

    monitor: str
    falls: bool
    by: float
    patience: int
    threshold: float
    cooldown: int
    min_factor: float
    factor: float = 1.0
    best: float | None = None
    waited: int = 0
    resting: int = 0

    def update(self, value: float) -> None:
        """Take in the figure of one epoch; the factor may fall."""
        if self._improves(value):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.resting > 0:
            self.resting, self.waited = self.resting - 1, 0
        if self.waited > self.patience:
            self.factor = max(self.factor * self.by, self.min_factor)
            self.resting, self.waited = self.cooldown, 0

    def _improves(self, value: float) -> bool:
        if math.isnan(value) or self.best is None:
            return not math.isnan(value)
        gain = self.best - value if self.falls else value - self.best
        return gain > self.threshold * abs(self.best)

    def state(self) -> dict[str, float | int]:
        """Return what `restore` needs; `best` is left out while there is none."""
        best = {} if self.best is None else {"best": self.best}
        return {"factor": self.factor, **best, "waited": self.waited, "resting": self.resting}

    def restore(self, state: Mapping[str, float | int]) -> None:
        """Go on from where `state` was taken."""
        self.factor, self.best = float(state["factor"]), state.get("best")
        self.waited, self.resting = int(state["waited"]), int(state["resting"])


@SCHEDULES.register("plateau", every="epoch", plateau=True)
def plateau(
    epochs: float,
    /,
    *,
    monitor: Annotated[str, Field(pattern=r"^(train|val)\.[a-z0-9_]+$")] = "val.loss",
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    patience: Annotated[int, Field(ge=0)] = 10,
    threshold: Annotated[float, Field(ge=0)] = 1e-4,
    cooldown: Annotated[int, Field(ge=0)] = 0,
    min_factor: Share = 0.0,
) -> Plateau:
    """Multiplied by `factor` when a figure has not improved for more than `patience` epochs.

    Args:
        monitor: the figure to watch: val.loss, val.accuracy, train.loss.
        factor: the factor of each fall.
        patience: how many epochs without improvement are allowed.
        threshold: how much better a figure must be, as a share of the best.
        cooldown: epochs after a fall that are not counted.
        min_factor: the lowest factor.
    """
    name = monitor.partition(".")[2]
    if name != "loss" and name not in METRICS:
        near = closest(name, ["loss", *METRICS])
        fix = f"did you mean {monitor.replace(name, near)!r}?" if near else "nnrun list metrics shows the names, and there is val.loss"
        raise SpecError(f"the schedule watches {monitor!r}, and there is no metric {name!r}", fix=fix, at=("schedule", "monitor"))
    falls = name == "loss" or METRICS[name].traits["better"] == "lower"
    return Plateau(monitor, falls, factor, patience, threshold, cooldown, min_factor)


def warmed_up(factor: Factor, warmup_epochs: float, steps_per_epoch: int) -> Factor:
    """Return the schedule with a linear rise before it; its own clock starts when the rise ends.

    With W = warmup_epochs · steps_per_epoch, the step number s, counted from 0, has the factor (s + 1) / W: the first step moves already,
    and the last one of the warm-up has the full rate. The result changes at each step while it rises, whatever the schedule's `every`.
    """
    if warmup_epochs <= 0:
        return factor

    def warmed(epoch: float) -> float:
        if epoch < warmup_epochs:
            return min(1.0, (epoch + 1 / steps_per_epoch) / warmup_epochs)
        return factor(epoch - warmup_epochs)

    return warmed


def _whole(epoch: float) -> int:
    """Return the whole epochs that have passed; a rounding error of 3.3 - 0.3 does not cost one."""
    return math.floor(epoch + 1e-9)


def _between(start: float, end: float, share: float) -> float:
    """Return the point of half a cosine from `start` to `end`; past either end it stays there."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2
