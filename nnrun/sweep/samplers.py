"""What chooses the values of a trial. Each is a function of (seed, number of the trial, what has come of the others): nothing is replayed.

A sampler of Optuna draws from one stream for the whole study, which begins anew when a sweep goes on, or in a second worker, and repeats
the same trials. Here each trial has a stream of its own, by its number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nnrun.spec.ranges import Parameter
from nnrun.training.loop import stream_seed

if TYPE_CHECKING:
    from optuna.study import Study

STARTUP = 10
"""Trials before a pruner judges."""


def sampler_of(name: str, seed: int, parameters: Sequence[Parameter]) -> BaseSampler:
    """Return the sampler of a study."""
    make: dict[str, Callable[[int, int], BaseSampler]] = {
        "tpe": lambda stream, number: TPESampler(seed=stream, constant_liar=True),
        "random": lambda stream, number: RandomSampler(seed=stream),
        "grid": lambda stream, number: Grid(parameters, number),
        "cmaes": lambda stream, number: Evolution(stream),
    }
    return OneForEach(lambda number: make[name](stream_seed(seed, "sweep", number) >> 32, number))


def pruner_of(name: str, epochs: int) -> BasePruner:
    """Return the pruner of a study whose trials train for so many epochs."""
    if name == "hyperband":
        return HyperbandPruner(min_resource=max(1, epochs // 27), max_resource=epochs)
    return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=epochs // 10) if name == "median" else NopPruner()


class OneForEach(BaseSampler):
    """Asks a new sampler for each trial.

    Args:
        make: the number of a trial → its sampler.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._made: tuple[int, BaseSampler] | None = None

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._made is None or self._made[0] != trial.number:
            self._made = trial.number, self._make(trial.number)
        return self._made[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is chosen together."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Return the values of what is chosen together."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Return the value of one parameter."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


class _Alone(BaseSampler):
    """Chooses each value by itself."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}


class Grid(_Alone):
    """Every combination once, in order: the last parameter changes first."""

    def __init__(self, parameters: Sequence[Parameter], number: int) -> None:
        values = [one.labels if one.kind == "choice" else one.values() or [] for one in parameters]
        combined = next(islice(product(*values), number % max(1, math.prod(map(len, values))), None))
        self._values = dict(zip((one.path for one in parameters), combined, strict=True))

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Return the value of this combination."""
        return self._values[param_name]


class Evolution(_Alone):
    """CMA-ES (Hansen, 2016): each generation is drawn from a normal distribution that the generations before have shaped.

    Its state is made anew of the finished trials: Optuna's own sampler keeps it pickled in the study, and would run whatever stands there.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters of the trials that are complete; the first generation is drawn at random."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return dict(done[0].distributions) if done else {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Return the next one of the newest generation."""
        import numpy as np
        from cmaes import CMA

        if not search_space:
            return {}
        names = sorted(search_space)
        bounds = np.tile([0.0, 1.0], (len(names), 1))
        evolution = CMA(mean=np.full(len(names), 0.5), sigma=0.3, bounds=bounds, seed=self._seed)
        done = sorted(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), key=lambda one: one.number)
        sign = -1 if study.direction.name == "MAXIMIZE" else 1
        size = evolution.population_size
        for first in range(0, len(done) - size + 1, size):
            evolution.tell([(_unit(one.params, search_space, names), sign * (one.value or 0.0)) for one in done[first : first + size]])
        drawn = evolution.ask()
        return {name: _from_unit(search_space[name], float(share)) for name, share in zip(names, drawn, strict=True)}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Return a value at random, before there is a distribution."""
        return RandomSampler(seed=stream_seed(self._seed, param_name) >> 32).sample_independent(
            study, trial, param_name, param_distribution
        )


def _unit(values: Mapping[str, Any], space: Mapping[str, BaseDistribution], names: Sequence[str]) -> Any:
    """Return where values lie in their ranges, from 0 to 1 each."""
    import numpy as np

    ends = {name: _ends(space[name]) for name in names}
    return np.array([(_scaled(values[name], space[name]) - ends[name][0]) / (ends[name][1] - ends[name][0]) for name in names])


def _from_unit(distribution: BaseDistribution, share: float) -> int | float:
    low, high = _ends(distribution)
    scaled = low + min(1.0, max(0.0, share)) * (high - low)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    value = math.exp(scaled) if distribution.log else scaled
    value = min(distribution.high, max(distribution.low, value))
    if distribution.step:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    return min(round(value), distribution.high) if isinstance(distribution, IntDistribution) else float(min(value, distribution.high))


def _ends(distribution: BaseDistribution) -> tuple[float, float]:
    if isinstance(distribution, CategoricalDistribution):
        raise TypeError("choices have no ends")
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return _scaled(distribution.low, distribution), _scaled(distribution.high, distribution)


def _scaled(value: float, distribution: BaseDistribution) -> float:
    return math.log(value) if getattr(distribution, "log", False) else float(value)
