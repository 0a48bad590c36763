"""What a sweep varies, as it is written: `log:1e-4..1e-1`, `0..0.5`, `int:8..256:8`, `relu,tanh,gelu` or a list of values.

RANGE    [KIND:]LOW..HIGH[:STEP]     KIND is float, int, log (numbers spread over their magnitudes) or logint
CHOICES  VALUE,VALUE,…               values of YAML: 16,32 or [16],[32,32] or adam,{sgd: {momentum: 0.9}}
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from nnrun.errors import Fault, Place, SpecError, closest
from nnrun.spec.source import Source, as_number, read_value
from nnrun.spec.wording import no_such_name, shown

KINDS = ("float", "int", "log", "logint")
EXAMPLES = "log:1e-4..1e-1, 0..0.5, int:8..256 or relu,tanh"
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_RANGE = re.compile(
    rf"\s*(?:(?P<kind>\w+):)?\s*(?P<low>{_NUMBER})\s*(?<!\.)\.\.(?!\.)\s*(?P<high>{_NUMBER})\s*(?::\s*(?P<step>{_NUMBER})\s*)?"
)
_LIKE_A_RANGE = re.compile(r"\s*(\w+:.*|[-+]?[.0-9].*)\.\.|\s*(float|int|log|logint):")


class ParameterError(ValueError):
    """What is wrong with a parameter as it is written, and at which of its characters."""

    def __init__(self, what: str, fix: str, start: int = 0, width: int = 0) -> None:
        super().__init__(what)
        self.what, self.fix, self.start, self.width = what, fix, start, width


@dataclass(frozen=True)
class Parameter:
    """One thing that a sweep varies.

    Args:
        path: of the key in the config, such as `optimizer.momentum` or `layers[0]`.
        kind: whether it is a real number, a whole one, or one of `choices`.
        low, high: the ends of a range; both belong to it.
        step: how far its numbers are apart; None for all numbers, and for whole ones by magnitude.
        log: whether its numbers are spread over their magnitudes.
    """

    path: str
    kind: Literal["float", "int", "choice"]
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The choices as a person reads them; no two are the same."""
        return [label(choice) for choice in self.choices]

    def ends(self) -> list[Any]:
        """Return the values that show whether every one can be trained: both ends, or each choice."""
        return list(self.choices) if self.kind == "choice" else [self.number(self.low), self.number(self.high)]

    def values(self) -> list[Any] | None:
        """Return all values, for a grid; None of a range of real numbers without a step."""
        if self.kind == "choice" or self.step is None:
            return list(self.choices) or None
        return [self.number(self.low + place * self.step) for place in range(math.floor((self.high - self.low) / self.step + 1e-9) + 1)]

    def number(self, value: float) -> int | float:
        """Return a value of a range as the config takes it."""
        return round(value) if self.kind == "int" else float(value)


def label(choice: Any) -> str:
    """Return a choice as text: a word as it is, unless it reads as something else, and all else as JSON."""
    word = isinstance(choice, str) and as_number(choice) is None and choice not in ("true", "false", "null") and choice[:1] not in '[{"'
    return choice if word else json.dumps(choice, ensure_ascii=False)


def parameter(path: str, written: Any) -> Parameter:
    """Return a parameter as a config or the command line writes it.

    Raises:
        ParameterError: it is neither a range nor choices.
    """
    if isinstance(written, list):
        return _chosen(path, written)
    if not isinstance(written, str):
        raise ParameterError(f"{shown(written)} is neither a range nor choices", f"write {EXAMPLES}")
    return _ranged(path, written) if _LIKE_A_RANGE.match(written) else _chosen(path, _listed(written))


def _listed(written: str) -> list[Any]:
    try:
        values = read_value(f"[{written}]", (), Source("--param", [f"[{written}]"]))
    except (yaml.YAMLError, RecursionError, SpecError):
        raise ParameterError(f"{shown(written)} is no list of YAML values", "put what holds a comma in quotes or brackets") from None
    return values if isinstance(values, list) else []


def _chosen(path: str, values: Sequence[Any]) -> Parameter:
    if len(values) < 2:
        told = "nothing to choose from" if not values else f"{shown(values[0])} alone is nothing to choose from"
        raise ParameterError(told, f"write {EXAMPLES}; what does not vary is set by --set or in the config")
    labels = [label(value) for value in values]
    twice = next((one for one in labels if labels.count(one) > 1), None)
    if twice is not None:
        raise ParameterError(f"{twice} is given twice", "leave one of them out")
    return Parameter(path, "choice", choices=tuple(values))


def _ranged(path: str, written: str) -> Parameter:
    found = _RANGE.fullmatch(written)
    if found is None:
        raise ParameterError(f"{shown(written)} is no range", "write LOW..HIGH, such as 0..0.5, log:1e-4..1e-1 or int:8..256:8")
    kind, low, high = found["kind"], as_number(found["low"]), as_number(found["high"])
    step = as_number(found["step"]) if found["step"] else None
    assert low is not None
    assert high is not None
    whole = all(one is None or isinstance(one, int) for one in (low, high, step))
    kind = kind or ("int" if whole else "float")

    def wrong(group: str, what: str, fix: str) -> ParameterError:
        return ParameterError(what, fix, found.start(group), found.end(group) - found.start(group))

    if kind not in KINDS:
        what, fix = no_such_name("kind of range", kind, KINDS)
        raise wrong("kind", what, fix if closest(kind, KINDS) else f"write one of {', '.join(KINDS)}")
    log, integer = kind in ("log", "logint"), kind in ("int", "logint")
    if low == high:
        raise wrong("high", f"the range begins and ends at {found['low']}", f"give another end, or --set {path or 'PATH'}={found['low']}")
    if low > high:
        raise wrong("high", f"the range ends at {found['high']}, and begins at {found['low']}", "write the smaller number first")
    if log and low <= 0:
        raise wrong("low", f"a range by magnitude begins above 0, not at {found['low']}", "write a small number, such as 1e-5")
    if integer and not whole:
        name = next(name for name in ("low", "high", "step") if found[name] and not isinstance(as_number(found[name]), int))
        raise wrong(name, f"{found[name]} is not a whole number", f"write one, or {'log' if log else 'float'} in place of {kind}")
    if step is not None and log:
        raise wrong("step", "a range by magnitude has no step", "leave the step out, or list the values: 1e-4,1e-3,1e-2")
    if step is not None and not 0 < step <= high - low:
        raise wrong("step", f"a step of {found['step']} leads nowhere in {found['low']}..{found['high']}", "write a smaller one")
    return Parameter(path, "int" if integer else "float", low, high, step or (1 if integer and not log else None), log)


def parameters_given(texts: Sequence[str]) -> dict[str, tuple[str, Place, Place]]:
    """Return path → what is written, and where the path and the value stand, of `--param path=value` options.

    Raises:
        SpecError: with every one that cannot be read, pointing at what is wrong in it.
    """
    given: dict[str, tuple[str, Place, Place]] = {}
    faults = []
    for text in texts:
        path, equals, written = text.partition("=")
        key = Place("--param", 1, 1, text, len(path) or 1)
        if not equals or not path:
            faults.append(
                Fault(f"{shown(text)} is no parameter", f"write path=RANGE or path=CHOICES: lr={EXAMPLES.partition(',')[0]}", key)
            )
            continue
        if path in given:
            faults.append(Fault(f"{path} is given twice", "leave one of them out", key))
        try:
            parameter(path, written)
        except ParameterError as error:
            begins = len(path) + 2 + error.start
            faults.append(Fault(error.what, error.fix, Place("--param", 1, begins, text, error.width or len(written) or 1)))
        given[path] = (written, key, Place("--param", 1, len(path) + 2, text, len(written) or 1))
    if faults:
        raise SpecError(faults)
    return given
