"""What the machine has: the memory that a run could take."""

from __future__ import annotations

import os
from pathlib import Path

UNKNOWN = 1 << 34


def free_memory() -> int:
    """Return how many bytes could be taken now: what the system counts as available, and no more than a container may hold."""
    try:
        pairs = (line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
        told = {name: int(amount) * 1024 for name, amount in pairs}
        free = told["MemAvailable:"] + told.get("SwapFree:", 0)
    except (OSError, ValueError, KeyError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else UNKNOWN
    try:
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return max(free, 0)
