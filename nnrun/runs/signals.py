"""SIGINT, SIGTERM and SIGUSR1 as wishes that the loop looks at between two steps.

A handler only notes the wish: saving inside it would store the middle of a step. Before training begins there is nothing to save, and a
signal ends the process at once; a second signal always does.
"""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """Notes signals while it is entered; `stop` is the number of the one that asks to end, `save` whether a save was asked for.

    Of several processes (`patient`) none ends by a second signal: the others would lose it, and their launcher ends them after a while.
    """

    def __init__(self) -> None:
        self.stop = 0
        self.save = False
        self.training = False
        self.patient = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                number = getattr(signal, name).value
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def wish(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.stop) or self.save

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            self.save = True
        elif not self.training or (self.stop and not self.patient):
            os._exit(128 + number)  # files are committed by renaming: there is nothing half-written to end
        else:
            self.stop = int(number)
