"""Every failure a user can cause, one class each, with its exit code.

    NnrunError               base: catch this one to catch them all
    ├─ InputError        2   the command, config, data or checkpoint cannot be used as given
    │   ├─ SpecError         … the config says something we cannot run
    │   ├─ DataError         … the data is missing, or not what the config promised
    │   └─ CheckpointError   … absent, torn, or of another kind
    ├─ DivergedError     3   the loss stopped being a finite number
    ├─ EnvironmentFault  4   disk, permission, memory, device, worker
    ├─ RequirementError  5   a score asked for was not reached, or a rule of `check` found an error
    └─ Interrupted       130 or 143: a signal asked to stop, and the state is saved

Anything else that escapes is our bug and keeps its traceback. How an error reads is decided here, in `Fault.__str__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

WINDOW = 160  # characters of a source line that are shown


@dataclass(frozen=True)
class Place:
    """A stretch of one source line that an error points at.

    Args:
        file: as the user named it.
        line: counted from 1; 0 for an option of the command line, which has no line.
        column: counted from 1.
        source: the whole line, without its end.
        width: how many characters the carets underline.
    """

    file: str
    line: int
    column: int
    source: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def excerpt(self) -> str:
        """Return the source line with carets under the faulty stretch; of a very long line, what is around it."""
        number, start = f"{self.line:>5}", max(0, self.column - 1 - WINDOW // 2) if len(self.source) > WINDOW else 0
        shown = self.source[start : start + WINDOW]
        indent = "".join("\t" if char == "\t" else " " for char in shown[: self.column - 1 - start])
        width = max(1, min(self.width, len(shown) - len(indent)))
        left, right = "…" if start else "", "…" if start + WINDOW < len(self.source) else ""
        return f"{number} | {left}{shown}{right}\n{' ' * len(number)} | {' ' * len(left)}{indent}{'^' * width}"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, where, and what to do about it.

    `at` is a path in the config, such as ("layers", 3): who found the fault knew the spec, and who read the file adds the place.
    """

    what: str
    fix: str = ""
    place: Place | None = None
    at: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        lines = [f"error: {self.place}: {self.what}" if self.place else f"error: {self.what}"]
        if self.place and self.place.line:
            lines.append(self.place.excerpt())
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class NnrunError(Exception):
    """A failure that the user can mend; carries one or more faults."""

    exit_code = 2

    def __init__(self, what: str | Sequence[Fault], *, fix: str = "", place: Place | None = None, at: tuple[int | str, ...] = ()) -> None:
        self.faults = (Fault(what, fix, place, at),) if isinstance(what, str) else tuple(what)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    def placed(self, find: Callable[[tuple[int | str, ...]], Place | None]) -> Self:
        """Return the same error with a place for each fault that names a path in the config."""
        known = [replace(one, place=one.place or (find(one.at) if one.at else None)) for one in self.faults]
        return type(self)(known)


class InputError(NnrunError):
    """The command, config, data or checkpoint cannot be used as given."""


class SpecError(InputError):
    """The config says something we cannot run."""


class DataError(InputError):
    """The data is missing, or not what the config promised."""


class CheckpointError(InputError):
    """The checkpoint is absent, torn, or of another kind."""


class DivergedError(NnrunError):
    """The loss stopped being a finite number."""

    exit_code = 3


class EnvironmentFault(NnrunError):  # noqa: N818 (EnvironmentError is Python's)
    """The disk, a permission, the memory or the device failed."""

    exit_code = 4


class RequirementError(NnrunError):
    """A score that was asked for was not reached, or a rule of `check` found an error."""

    exit_code = 5


class Interrupted(NnrunError):  # noqa: N818 (it is a wish, not an error)
    """A signal asked to stop, and the state of training is saved."""

    def __init__(self, what: str, *, fix: str = "", number: int = 2) -> None:
        super().__init__(what, fix=fix)
        self.exit_code = 128 + number


def not_writable(path: object, error: OSError) -> EnvironmentFault:
    """Return the error for a path that the system refused to write."""
    reason = (error.strerror or str(error)).partition(" (os error")[0]  # polars adds the number and the path again
    return EnvironmentFault(f"{path} cannot be written: {reason}", fix="check the folder, its permissions, and the space on the disk")


ELSEWHERE: dict[str, tuple[str, ...]] = {  # what other tools say → what nnrun says; the first that is allowed is meant
    "acc": ("accuracy",),
    "batch": ("batch_size",),
    "bce": ("bce_with_logits",),
    "bf16": ("bfloat16",),
    "ce": ("cross_entropy",),
    "criterion": ("loss",),
    "data": ("dataset",),
    "double": ("float32",),
    "early_stop": ("early_stopping",),
    "f1": ("f1_macro",),
    "fp16": ("float16",),
    "fp32": ("float32",),
    "full": ("all", "float32"),
    "gpu": ("cuda",),
    "half": ("float16",),
    "in_features": ("out_features",),
    "learning_rate": ("lr",),
    "loss": ("val.loss",),
    "loss_fn": ("loss",),
    "max_epochs": ("epochs",),
    "model": ("layers",),
    "network": ("layers",),
    "normalize": ("standardize",),
    "num_epochs": ("epochs",),
    "random_seed": ("seed",),
    "random_state": ("seed",),
    "scheduler": ("schedule",),
    "lr_scheduler": ("schedule",),
    "validation": ("val",),
}


def closest(wrong: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that `wrong` was meant to be: what it is called elsewhere, the fewest letters to mend, or how it begins."""
    names = list(allowed)
    word = wrong.lower().replace("-", "_")
    meant = next((name for name in ELSEWHERE.get(word, ()) if name in names), None)
    if meant or not word:
        return meant
    reach = max(1, len(word) // 3)
    near = [(edits(word, name.lower()), name[:1].lower() != word[0], name) for name in names if abs(len(name) - len(word)) <= reach]
    near = [one for one in near if one[0] <= reach and (len(word) > 1 or not one[1])]  # any letter is one step from any other
    best = min(near, key=lambda one: one[:2], default=None)
    begun = [name for name in names if len(word) >= 3 and name.lower().startswith(word)]
    return best[2] if best else begun[0] if begun else None


def edits(wrong: str, right: str) -> int:
    """Return how many letters must be added, left out or changed, or neighbours swapped, to turn one word into the other."""
    earlier: list[int] = []
    last = list(range(len(right) + 1))
    for i, x in enumerate(wrong):
        row = [i + 1]
        for j, y in enumerate(right):
            row.append(min(last[j + 1] + 1, row[j] + 1, last[j] + (x != y)))
            if i and j and x == right[j - 1] and y == wrong[i - 1]:
                row[-1] = min(row[-1], earlier[j - 1] + 1)
        earlier, last = last, row
    return last[-1]
