"""The configs that a sweep can try: its parameters, the config of each trial, and what is known to be wrong with one before the first."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nnrun.errors import Fault, InputError, NnrunError, Place, SpecError
from nnrun.spec.experiment import Experiment, Split
from nnrun.spec.overrides import put, stand, steps_of
from nnrun.spec.parts import Part
from nnrun.spec.ranges import Parameter, parameter
from nnrun.spec.reader import check
from nnrun.spec.source import Source
from nnrun.spec.sweep import SweepSpec
from nnrun.training.loop import stream_seed

if TYPE_CHECKING:
    from optuna.trial import Trial

FIXED = {
    "name": "it names the run folder",
    "extends": "it is read from a file only",
    "sweep": "it is the sweep itself",
    "track": "it changes nothing that is learned",
    "dataset": "the trials would be scored on other rows",
    "split": "the trials would be scored on other rows",
    "evaluate": "a trial is scored on the validation part alone",
    "metrics": "the trials would be scored by other figures",
    "checkpoint": "the metric of the sweep picks the best epoch",
}
"""Key → why a sweep does not vary it."""
OF_THE_LOSS = ("loss", "scale_target")
"""Keys that make of val.loss another figure."""


class Space:
    """What a sweep varies.

    Args:
        spec: the config as it is beside the sweep.
        source: where each value of it stands.

    Raises:
        SpecError: with every parameter that cannot be varied, and every value of one that the config does not allow.
    """

    def __init__(self, spec: Experiment, source: Source) -> None:
        self.spec, self.source = spec, source
        self.sweep = spec.sweep or SweepSpec()
        self.parameters = [parameter(path, written) for path, written in self.sweep.params.items()]
        if not self.parameters:
            fix = "give --param lr=log:1e-4..1e-1, or write `sweep: {params: {lr: log:1e-4..1e-1}}`"
            raise InputError("the sweep varies nothing", fix=fix)
        faults = [one for each in self.parameters for one in self._refused(each)] + [*self._overlapping()]
        if faults:
            raise SpecError(faults)
        for one in self.parameters:  # in the order in which they are set; a value of one may need that of another
            faults += [fault for value in one.ends() for fault in self._faults({**self.middle(), one.path: value})]
        if faults:
            raise SpecError(list(dict.fromkeys(faults)))

    def _refused(self, one: Parameter) -> list[Fault]:
        at = ("sweep", "params", one.path)
        place, key = self.source.places.get(at), self.source.keys.get(at)
        first = steps_of(one.path)[:1]
        if not first or isinstance(first[0], int):
            return [Fault(f"{one.path!r} is not the path of a key", "write lr, optimizer.momentum or layers[0]", key)]
        if inside := self._inside(str(first[0])):
            return [Fault(f"key {first[0]!r} does not exist", f"did you mean {inside}.{one.path}?", key)]
        if (why := FIXED.get(str(first[0]))) is not None:
            return [Fault(f"a sweep does not vary {first[0]}: {why}", "leave it out", key)]
        if first[0] in OF_THE_LOSS and self.sweep.metric == "val.loss":
            what = f"with another {first[0]} val.loss is another figure, and the trials cannot be compared by it"
            return [Fault(what, "score them by a metric: --metric val.accuracy or val.rmse", key)]
        if self.sweep.sampler == "grid" and one.values() is None:
            return [Fault(f"a grid wants the values of {one.path}", "list them, 1e-4,1e-3,1e-2, or add a step: 0..0.5:0.1", place)]
        if self.sweep.sampler == "cmaes" and one.kind == "choice":
            return [Fault(f"cmaes varies numbers, and {one.path} is chosen from a list", "write `sampler: tpe`", place)]
        return []

    def _inside(self, name: str) -> str:
        """Return the key whose part has an argument of this name, when no key has it; else nothing."""
        parts = ((key, getattr(self.spec, key)) for key in Experiment.model_fields if name not in Experiment.model_fields)
        return next((key for key, part in parts if isinstance(part, Part) and name in part.arguments()), "")

    def _overlapping(self) -> Iterator[Fault]:
        """Yield a fault for each parameter that is inside another one, and for each that stands over what --set says."""
        paths = {one.path: steps_of(one.path) for one in self.parameters}
        given = {at: key.source.partition("=")[0] for at, key in self.source.keys.items() if key.file == "--set" and key.column == 1}
        for path, steps in paths.items():
            key = self.source.keys.get(("sweep", "params", path))
            for other in (name for name, at in paths.items() if name != path and steps[: len(at)] == at):
                yield Fault(f"{path} lies inside {other}, and both are varied", f"leave {path} or {other} out", key)
            for name in (name for at, name in given.items() if at[: len(steps)] == steps):
                yield Fault(f"{path} is varied, and --set {name} says what it is", "leave one of them out", key)

    def middle(self) -> dict[str, Any]:
        """Return a value for every parameter: the first choice, or the lower end."""
        return {one.path: one.ends()[0] for one in self.parameters}

    def probes(self) -> Iterator[dict[str, Any]]:
        """Yield values that show whether a network can be made of each end of a range and of each choice."""
        yield self.middle()
        for one in self.parameters:
            for value in one.ends()[1:]:
                yield {**self.middle(), one.path: value}

    def _faults(self, values: Mapping[str, Any]) -> list[Fault]:
        try:
            self._read(values)
        except NnrunError as error:
            return list(error.faults)
        return []

    def _read(self, values: Mapping[str, Any]) -> Experiment:
        """Return the config with these values in it."""
        known = self.source
        plain = {key: copy.deepcopy(value) for key, value in known.values.items() if key != "sweep"}
        source = replace(known, values=plain, keys=dict(known.keys), places=dict(known.places))
        for path, value in values.items():
            steps, at = steps_of(path), ("sweep", "params", path)
            here = source.places.get(at) or Place("--param", 0, 0)
            put(source, steps, copy.deepcopy(value), here)
            stand(source, steps, source.keys.get(at, here), here)
        return check({"name": self.spec.name, **source.values}, source=source)

    def experiment(self, number: int, values: Mapping[str, Any]) -> Experiment:
        """Return the config of a trial: its seed is a function of the sweep's seed and its number, its rows are those of all.

        Raises:
            SpecError: these values together are not allowed.
        """
        made = self._read(values)
        seed = made.seed if "seed" in values else trial_seed(self.spec.seed, number)
        split = made.split
        if split.seed is None:
            split = Split.model_validate(split.model_dump() | {"seed": self.spec.seed})
        checkpoint = made.checkpoint.model_copy(update={"monitor": self.sweep.metric})
        name = f"{self.spec.name[:40]}-trial-{number}"
        alone = {"name": name, "seed": seed, "split": split, "checkpoint": checkpoint, "evaluate": ["val"], "sweep": None}
        return made.model_copy(update=alone)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return the values of a trial; those that it has already, by a worker that is gone, stay."""
        return {one.path: _suggested(trial, one) for one in self.parameters}

    def values_of(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a trial as the config takes them, from those that the study keeps."""
        return {one.path: _value(one, stored[one.path]) for one in self.parameters if one.path in stored}

    def definition(self) -> dict[str, Any]:
        """Return what two calls must have in common to work on the same study."""
        sweep = self.sweep
        return {"sampler": sweep.sampler, "metric": sweep.metric, "pruner": sweep.pruner, "params": dict(sweep.params)}

    def placed(self, error: NnrunError) -> NnrunError:
        """Return an error about a config that was tried, with the places of what is varied in it."""
        known = {steps_of(one.path): self.source.places.get(("sweep", "params", one.path)) for one in self.parameters}

        def find(at: tuple[int | str, ...]) -> Place | None:
            if at == ("checkpoint", "monitor"):
                return self.source.place(("sweep", "metric"))
            varied = next((place for steps, place in known.items() if steps[: len(at)] == at or at[: len(steps)] == steps), None)
            return varied or self.source.place(at)

        return type(error)([replace(one, place=one.place or (find(one.at) if one.at else None)) for one in error.faults])


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a trial: 31 bits, which a person can type."""
    return stream_seed(seed, "trial", number) >> 32


def _suggested(trial: Trial, one: Parameter) -> Any:
    if one.kind == "choice":
        return _value(one, trial.suggest_categorical(one.path, one.labels))
    if one.kind == "int":
        return _value(one, trial.suggest_int(one.path, int(one.low), int(one.high), step=int(one.step or 1), log=one.log))
    return trial.suggest_float(one.path, one.low, one.high, step=one.step, log=one.log)


def _value(one: Parameter, stored: Any) -> Any:
    return one.choices[one.labels.index(stored)] if one.kind == "choice" else one.number(stored)
