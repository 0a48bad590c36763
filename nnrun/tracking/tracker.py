"""Records that are kept elsewhere, beside the run folder: `track: tensorboard`. A tracker is told, and never asked.

It can neither stop nor change a run: what it raises while the run trains becomes a note, and the run goes on without it; what it draws at
random is not missed by the training.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.errors import NnrunError
from nnrun.lazy import torch

if TYPE_CHECKING:
    from nnrun.spec.parts import Part


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what another's library deprecates from the user, who can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Begun:
    """A run that begins to train, or goes on.

    Args:
        folder: the run folder.
        config: the whole config, as `config.yaml` has it.
        rows: part → how many rows it has.
        kept: the rows of metrics.jsonl that it goes on from; those after them will come again.
    """

    folder: Path
    config: dict[str, Any]
    rows: dict[str, int]
    kept: Sequence[Mapping[str, Any]]


class Tracker:
    """Who is told of a run; each method may be left as it is. It is built before the run folder is made: what is missing is told then."""

    def start(self, begun: Begun) -> None:
        """Training begins, or goes on."""

    def record(self, row: Mapping[str, Any]) -> None:
        """An epoch is finished: its line of metrics.jsonl."""

    def end(self, summary: Mapping[str, Any]) -> None:
        """The run is finished, and everything is in its folder but the report."""

    def stopped(self, error: NnrunError) -> None:
        """The run was interrupted, or cannot go on."""

    def report(self, page: Path) -> None:
        """The report is drawn, and its plots beside it."""


class Trackers:
    """The trackers of a run.

    Args:
        parts: as the config names them.

    Raises:
        NnrunError: one needs what is not there; placed at ("track", number).
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._listening: list[tuple[str, Tracker]] = []
        self._notes: list[str] = []
        self._begun = False
        for number, part in enumerate(parts):
            try:
                self._listening.append((part.entry.name, part.build()))
            except NnrunError as error:
                one = error.faults[0]
                raise type(error)(one.what, fix=one.fix, at=("track", number)) from None

    def tell(self, what: str, *given: Any) -> None:
        """Tell all of them, by the method of that name; one that fails is not told any more, and nothing before the start."""
        self._begun |= what == "start"
        for name, tracker in list(self._listening) if self._begun else ():
            try:
                with torch.random.fork_rng(devices=[]), quiet():
                    getattr(tracker, what)(*given)
            except Exception as error:  # noqa: BLE001 (whatever another's library raises: the run is worth more than its record)
                self._listening.remove((name, tracker))
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self._notes.append(f"{name} is not told of this run any more: {reason}")

    def notes(self) -> list[str]:
        """Return what has gone wrong since this was last asked."""
        found, self._notes = self._notes, []
        return found


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of metrics.jsonl by the names that trackers use: train/loss, val/accuracy, lr, seconds."""
    named = {key: value for key, value in row.items() if key not in ("epoch", "step")}
    return {name: float(value) for name, value in flat(named, "/").items() if value is not None}


def flat(values: Mapping[str, Any], mark: str = ".") -> dict[str, Any]:
    """Return nested mappings as one, whose keys are paths such as optimizer.momentum."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = (
            {f"{key}{mark}{below}": one for below, one in flat(value, mark).items()} if isinstance(value, Mapping) else {str(key): value}
        )
        found |= inner
    return found
