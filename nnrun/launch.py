"""`nnrun train --nproc N`: torchrun's own entry, with the arguments that torchrun would be given for one machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from nnrun.errors import EnvironmentFault


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run this program's command line on so many processes, and return the exit code of the one that failed first; 0 when none did.

    One that a signal killed has no code of its own: it is a fault of the environment, which the others have told of.

    Args:
        arguments: of this program, `--nproc` among them.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))  # else torchrun sets 1, and says so
    for name in logging.root.manager.loggerDict:  # what went wrong is told by the process that failed
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    given = ["--standalone", f"--nproc-per-node={count}", "-m", "nnrun", *_without_nproc(arguments)]
    try:
        torchrun.run(torchrun.parse_args(given))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else EnvironmentFault.exit_code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _without_nproc(arguments: Sequence[str]) -> list[str]:
    """Return the arguments but for `--nproc N` or `--nproc=N`."""
    kept, values = list[str](), iter(arguments)
    for one in values:
        if one == "--nproc":
            next(values, None)
        elif not one.startswith("--nproc="):
            kept.append(one)
    return kept
