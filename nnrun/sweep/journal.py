"""The journal of a study: a line of JSON for whatever happens, appended by one write and on the disk before anything follows from it.

journal.append_logs([entry])       # on the disk when it returns
with journal.together():           # for all trials of a turn: many lines, and on the disk at the end of the block
    …

Optuna's own file backend reads no study with a torn line, and frees its lock after 30 s, held or not. Here the system frees the lock of a
process that is gone; what a kill or a power cut has left of a line is cut off by the next one who writes, and is not read before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import BaseJournalBackend

from nnrun.errors import not_writable


class Journal(BaseJournalBackend):
    """The file of a journal.

    Attributes:
        damaged: how many whole lines were no JSON, and were passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.damaged = path, 0
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._offsets = [0]  # of each line that counts, and where the next one begins
        self._open: int | None = None

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the lines from a number on; a last one without its end is not there yet, or torn."""
        found: list[dict[str, Any]] = []
        first = min(log_number_from, len(self._offsets) - 1)
        try:
            with self._path.open("rb") as file:
                file.seek(self._offsets[first])
                data = file.read()
        except FileNotFoundError:
            return found
        number, at = first, self._offsets[first]
        del self._offsets[first + 1 :]
        for line in data.split(b"\n")[:-1]:
            at += len(line) + 1
            if (entry := _entry(line)) is None:
                self.damaged += 1
                self._offsets[-1] = at
                continue
            self._offsets.append(at)
            if number >= log_number_from:
                found.append(entry)
            number += 1
        return found

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines, after what is whole.

        Raises:
            EnvironmentFault: the system refused; then no line is there.
        """
        lines = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in logs).encode()
        with self.together() as descriptor:
            try:
                end = _whole(descriptor)
                os.ftruncate(descriptor, end)
                _write(descriptor, lines, end)
            except OSError as error:
                raise not_writable(self._path, error) from None

    @contextmanager
    def together(self) -> Iterator[int]:
        """Let nobody else write, and have all that is appended within on the disk at the end; yield the file.

        Raises:
            EnvironmentFault: the system refused.
        """
        if self._open is not None:
            yield self._open
            return
        try:
            self._lock.acquire()
            self._open = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            self._lock.release()
            raise not_writable(self._path, error) from None
        try:
            yield self._open
        finally:
            descriptor, self._open = self._open, None
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise not_writable(self._path, error) from None
            finally:
                os.close(descriptor)
                self._lock.release()


def _write(descriptor: int, lines: bytes, end: int) -> None:
    """Write at the end; a full disk leaves none of it."""
    try:
        written = os.pwrite(descriptor, lines, end)
        while written < len(lines):
            written += os.pwrite(descriptor, lines[written:], end + written)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _whole(descriptor: int) -> int:
    """Return where the last whole line ends."""
    end = os.fstat(descriptor).st_size
    at = end
    while at > 0:
        first = max(0, at - 4096)
        found = os.pread(descriptor, at - first, first).rfind(b"\n")
        if found >= 0:
            return first + found + 1
        at = first
    return 0


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None when it is damaged."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"op_code", "worker_id"} <= entry.keys() else None
