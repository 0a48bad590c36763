"""What a dataset has to say beside its rows, such as how many pictures it left out: noted where it is found, collected by who asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_COLLECTED: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Tell whoever collects notes; nobody may."""
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(text)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Collect what is noted inside."""
    notes: list[str] = []
    token = _COLLECTED.set(notes)
    try:
        yield notes
    finally:
        _COLLECTED.reset(token)
