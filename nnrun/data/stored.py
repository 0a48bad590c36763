"""Rows of float32 in a file that has no name: whatever way the process ends, the system takes it back, and nothing has to be cleared.

The file is in TMPDIR, or in /var/tmp, which is on a disk where /tmp may be in memory. It is read through a mapping whose pages are given
back after each use: they stay in the system's cache as long as there is room, and do not count as memory of the process.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from nnrun.data.source import ROWS_AT_ONCE, RowSource, blocks
from nnrun.errors import EnvironmentFault
from nnrun.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FLOAT = 4  # bytes
MAPPED = 1 << 28
"""Bytes of the file that are looked through before their pages are given back."""


class StoredRows(RowSource):
    """Rows (N, D) of float32 on the disk: `add` writes them in their order, and once all are there they can be gathered.

    Args:
        device: where gathered rows are to be.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        super().__init__((rows, width), torch.float32, device)
        folder, size = _folder(), rows * width * FLOAT
        try:
            with tempfile.TemporaryFile(prefix="nnrun-", dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told now; behind the mapping it would be a crash
                else:
                    file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)  # keeps the file as long as it is there itself
        except OSError as error:
            free = shutil.disk_usage(folder).free
            what = f"{folder} has no room for the prepared rows: {size / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB free"
            raise EnvironmentFault(f"{what} ({error.strerror})", fix="make room, or set TMPDIR to a folder on another disk") from None
        self._rows = torch.frombuffer(self._map, dtype=torch.float32).view(rows, width)
        self._written = 0

    @classmethod
    def of(cls, x: RowSource) -> StoredRows:
        """Return the rows of another source, laid down in their order."""
        stored = cls(len(x), x.shape[1], x.device)
        for rows in blocks(x, ROWS_AT_ONCE):
            stored.add(rows)
        return stored

    def add(self, rows: Tensor) -> None:
        """Write the next rows (B, D)."""
        self._rows[self._written : self._written + len(rows)] = rows
        self._written += len(rows)
        self._map.madvise(mmap.MADV_DONTNEED)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (B, D) with these numbers, read from the first in the file to the last."""
        ordered, places = rows.sort()
        made = torch.empty(len(rows), self.shape[1])
        ends = torch.searchsorted(ordered, torch.arange(0, len(self), max(1, MAPPED // (self.shape[1] * FLOAT)))).tolist()
        for start, end in pairwise([*ends, len(rows)]):
            if end > start:
                made[places[start:end]] = self._rows.index_select(0, ordered[start:end])
                self._map.madvise(mmap.MADV_DONTNEED)
        return made.to(self.device)


def _folder() -> Path:
    """Return the folder for files that may be large."""
    large = Path("/var/tmp")
    return large if "TMPDIR" not in os.environ and os.access(large, os.W_OK) else Path(tempfile.gettempdir())
