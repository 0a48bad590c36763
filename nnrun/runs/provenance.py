"""Where a run came from: versions, machine, commit. Facts that differ between two equal runs (times, paths) stay out of checkpoints."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun import __version__

if TYPE_CHECKING:
    from nnrun.lazy import torch


def versions() -> dict[str, str]:
    """Return the versions that the bits of a result depend on."""
    import numpy as np
    import torch

    return {"nnrun": __version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}


def git_commit(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the repository that a folder is in, and whether files differ from it; None outside of one."""
    try:
        ask = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
        done = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid")), None)
    return {"commit": commit, "changed": any(not line.startswith("#") for line in lines)} if commit and done.returncode == 0 else None


def provenance(device: torch.device, digests: Mapping[str, str], *, threads: int | None = None) -> dict[str, Any]:
    """Return where a result came from, as summary.json says it."""
    known = {} if threads is None else {"threads": threads}
    return {"versions": versions(), "device": str(device), **known, "git": git_commit(Path.cwd()), "digests": dict(digests)}
