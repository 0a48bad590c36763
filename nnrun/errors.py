"""Every failure a user can cause, one class each, with its exit code.

    NnrunError               base: catch this one to catch them all
    ├─ InputError        2   the command, config, data or checkpoint cannot be used as given
    │   ├─ SpecError         … the config says something we cannot run
    │   ├─ DataError         … the data is missing, or not what the config promised
    │   └─ CheckpointError   … absent, torn, or of another kind
    ├─ DivergedError     3   the loss stopped being a finite number
    ├─ EnvironmentFault  4   disk, permission, memory, device, worker
    └─ RequirementError  5   a score asked for was not reached

Anything else that escapes is our bug and keeps its traceback. How an error reads is decided here, in `Fault.__str__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Self


@dataclass(frozen=True)
class Place:
    """A stretch of one source line that an error points at.

    Args:
        file: as the user named it.
        line: counted from 1.
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
        return f"{self.file}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """Return the source line with carets under the faulty stretch."""
        number = f"{self.line:>5}"
        indent = "".join("\t" if char == "\t" else " " for char in self.source[: self.column - 1])
        return f"{number} | {self.source}\n{' ' * len(number)} | {indent}{'^' * max(1, self.width)}"


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
        lines = [f"error: {self.place}: {self.what}", self.place.excerpt()] if self.place else [f"error: {self.what}"]
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
    """A score that was asked for was not reached."""

    exit_code = 5


def closest(wrong: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name most like `wrong`, or None when none is close."""
    lowered = {name.lower(): name for name in allowed}
    found = get_close_matches(wrong.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None
