"""The schedules: torch's values from pure functions, a plateau that can be saved, and the warm-up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

import nnrun.training.metrics  # noqa: F401  the plateau looks up which way a metric is better
from nnrun.errors import SpecError
from nnrun.registry import SCHEDULES
from nnrun.spec.parts import part_class
from nnrun.training.schedules import Plateau, warmed_up

EPOCHS = 30
ARGUMENTS: dict[str, dict[str, Any]] = {
    "step": {"step_size": 4, "gamma": 0.5},
    "multistep": {"milestones": [20, 3, 9], "gamma": 0.3},
    "exponential": {"gamma": 0.9},
    "cosine": {"floor": 0.05},
}
THEIRS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "none": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
    "step": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [3, 9, 20], 0.3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.05),
}


def build(name: str, epochs: float = EPOCHS, **arguments: Any) -> Any:
    return part_class(SCHEDULES, name).model_validate(arguments or ARGUMENTS.get(name, {})).build(epochs)


def sgd(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)


def rates(scheduler: Any, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", list(THEIRS))
def test_each_schedule_is_that_of_torch(name: str):
    """Epoch by epoch, to 1e-9."""
    optimizer = sgd()
    theirs = rates(THEIRS[name](optimizer), optimizer, EPOCHS)
    assert [build(name)(float(epoch)) for epoch in range(EPOCHS)] == pytest.approx(theirs, abs=1e-9, rel=1e-9)


def test_one_cycle_is_that_of_torch():
    """torch ends its phases at the steps pct·S - 1 and S - 1; told in those numbers, the curves are one."""
    steps, pct = 40, 0.3
    optimizer = sgd()
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps, pct_start=pct, cycle_momentum=False)
    theirs = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        theirs.append(optimizer.param_groups[0]["lr"])
    ours = build("one_cycle", steps - 1.0, pct_start=(pct * steps - 1) / (steps - 1))
    assert [ours(float(step)) for step in range(steps)] == pytest.approx(theirs, abs=1e-9)


def test_one_cycle_rises_to_lr_and_falls_to_almost_nothing():
    """The peak is `lr` itself: the factor is 1 there."""
    factor = build("one_cycle", 10.0)
    assert [factor(0.0), factor(3.0), factor(10.0)] == pytest.approx([1 / 25, 1.0, 1 / 25e4])


@pytest.mark.parametrize("name", [name for name in SCHEDULES if not SCHEDULES[name].traits.get("plateau")])
def test_every_schedule_is_a_pure_positive_factor(name: str):
    """Asked in any order it gives the same numbers, from 0 to 1, and stays where it ends; `every: epoch` is flat within an epoch."""
    factor = build(name)
    times = [step / 7 for step in range(7 * EPOCHS)]
    forward = [factor(epoch) for epoch in times]
    assert [build(name)(epoch) for epoch in reversed(times)] == forward[::-1]
    assert all(0 <= value <= 1 for value in forward)
    assert factor(EPOCHS + 5.0) <= factor(EPOCHS - 1.0)
    if SCHEDULES[name].traits["every"] == "epoch":
        assert forward == [factor(float(math.floor(epoch))) for epoch in times]


@settings(deadline=None)  # the first case imports and warms up
@given(
    values=st.lists(st.floats(0.1, 10) | st.just(math.nan), max_size=60),
    patience=st.integers(0, 4),
    cooldown=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.2]),
    rising=st.booleans(),
)
def test_plateau_falls_when_that_of_torch_does(values: list[float], patience: int, cooldown: int, threshold: float, rising: bool):
    """The same factor after each figure, nan among them, in both directions."""
    optimizer = sgd()
    mode: Any = "max" if rising else "min"
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.5, patience, threshold, cooldown=cooldown, min_lr=0.01, eps=0)
    monitor = "val.accuracy" if rising else "val.loss"
    ours = build("plateau", monitor=monitor, factor=0.5, patience=patience, threshold=threshold, cooldown=cooldown, min_factor=0.01)
    for value in values:
        theirs.step(value)
        ours.update(value)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])


@settings(deadline=None)
@given(values=st.lists(st.floats(-10, 10) | st.just(math.nan), max_size=30), cut=st.integers(0, 30))
def test_a_restored_plateau_goes_on_as_if_never_stopped(values: list[float], cut: int):
    """All it knows is in `state`, and that is finite numbers only: strict JSON can hold it."""
    straight, first, second = (build("plateau", patience=1, cooldown=1) for _ in range(3))
    for value in values:
        straight.update(value)
    for value in values[:cut]:
        first.update(value)
    assert all(math.isfinite(number) for number in first.state().values())
    second.restore(first.state())
    for value in values[cut:]:
        second.update(value)
    assert second == straight


def test_nan_is_no_improvement():
    """Not even as the first figure."""
    plateau = build("plateau", patience=1)
    for _ in range(2):
        plateau.update(math.nan)
    assert plateau.best is None
    assert plateau.factor == 0.1


def test_a_worse_figure_below_zero_is_no_improvement():
    """torch takes the threshold as a share of a signed number, so that there -0.95 would improve on -1 by a threshold of 0.1."""
    plateau = build("plateau", patience=5, threshold=0.1)
    for value in (-1.0, -0.95):
        plateau.update(value)
    assert (plateau.best, plateau.waited) == (-1.0, 1)


@pytest.mark.parametrize(("monitor", "falls"), [("val.loss", True), ("val.rmse", True), ("val.accuracy", False), ("train.loss", True)])
def test_plateau_knows_which_way_is_better(monitor: str, falls: bool):
    """From the metric's own trait."""
    plateau: Plateau = build("plateau", monitor=monitor)
    assert plateau.falls == falls


def test_plateau_refuses_a_figure_that_does_not_exist():
    """With the nearest name."""
    with pytest.raises(SpecError) as error:
        build("plateau", monitor="val.acuracy")
    assert str(error.value) == (
        "error: the schedule watches 'val.acuracy', and there is no metric 'acuracy'\nfix: did you mean 'val.accuracy'?"
    )
    assert error.value.faults[0].at == ("schedule", "monitor")


def test_the_warm_up_rises_from_the_first_step_to_the_full_rate():
    """Two epochs of five steps: 0.1, 0.2, … 1.0; then the schedule from its own beginning."""
    factor = warmed_up(build("exponential", gamma=0.5), 2.0, 5)
    found = [factor(epoch + step / 5) for epoch, step in itertools.product(range(4), range(5))]
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0] + [1.0] * 5 + [0.5] * 5)


@settings(deadline=None)
@given(warmup=st.floats(0.01, 5), steps=st.integers(1, 40))
def test_a_warm_up_of_any_length_never_stands_still_nor_overshoots(warmup: float, steps: int):
    """Each step of the rise is above 0, no less than the one before, and at most 1; the schedule never sees a time below 0."""
    seen: list[float] = []

    def schedule(epoch: float) -> float:
        seen.append(epoch)
        return 1.0

    factor = warmed_up(schedule, warmup, steps)
    found = [factor(step / steps) for step in range(8 * steps)]
    assert found[0] > 0
    assert found == sorted(found)
    assert found[-1] == 1
    assert min(seen) >= 0


def test_no_warm_up_is_the_schedule_itself():
    """Nothing is wrapped."""
    schedule = build("cosine")
    assert warmed_up(schedule, 0.0, 5) is schedule
