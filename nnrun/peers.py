"""What a launcher such as torchrun says of this process: which of how many it is, where they meet, and which of them tells of a failure.

All of a launcher's processes run the same command, so all find the same fault, or one fails and the others lose it. The first to fail tells
of it, the others end in silence with the same code: who was first is settled in the store that torchrun keeps for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

NAMED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(seconds=5)
"""How long a process that has failed waits for the store, and for the words of the one that was first."""
Answer = TypeVar("Answer")
STORES: dict[Peers, Store] = {}
"""The store of each launcher that this process has met in, which is one: it connects once."""


@dataclass(frozen=True)
class Peers:
    """The processes of a launcher, and which of them this is.

    Args:
        rank: of this process, counted from 0.
        world_size: how many there are.
        local_rank: of this process on its machine.
        local_world_size: how many there are on this machine.
        address: of the store they meet in.
        served: whether the launcher keeps that store; else the process of rank 0 does.
        run: what tells this job from others that meet in the same store.
        restarts: how often the launcher has started them anew.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: tuple[str, int]
    served: bool
    run: str
    restarts: int

    @property
    def keeps_store(self) -> bool:
        """Whether the store ends with this process."""
        return self.rank == 0 and not self.served

    def store(self, timeout: timedelta = PATIENCE) -> Store:
        """Return what is noted for all of them in this life of theirs; `job_store` outlives it.

        Raises:
            RuntimeError: nobody keeps the store.
        """
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        return PrefixStore(f"{self.restarts}/{self.world_size}", self.job_store(timeout))

    def job_store(self, timeout: timedelta = PATIENCE) -> Store:
        """Return what is noted for the whole job, however often its processes are started."""
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        return PrefixStore(f"nnrun/{self.run}", _connected(self, timeout))


def _connected(peers: Peers, timeout: timedelta) -> Store:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if peers not in STORES:
        STORES[peers] = TCPStore(*peers.address, peers.world_size, peers.keeps_store, timeout=timeout, wait_for_workers=False)
    return STORES[peers]


def tell_once(code: int, tell: Callable[[], None]) -> int:
    """Tell of a failure, unless another process of the launcher was first to fail; return the code to end with, that of the first.

    Args:
        tell: says what is wrong.
    """
    here = peers()
    if here is None:
        tell()
        return code
    try:
        notes = asked(here.store)
        first = asked(lambda: notes.add("failed", 1)) == 1
    except (ImportError, RuntimeError):  # nobody to ask: better said twice than not at all
        tell()
        return code
    with suppress(RuntimeError):
        if first:
            tell()
            asked(lambda: notes.set("code", str(code)))
        elif asked(lambda: noted(notes, ["code"], PATIENCE), 2 * PATIENCE):
            code = int(asked(lambda: notes.get("code")))
        asked(lambda: notes.set(f"heard/{here.rank}", ""))
        if here.keeps_store:  # it goes with this process, and those that find the same fault would find nobody to ask
            asked(lambda: noted(notes, [f"heard/{rank}" for rank in range(here.world_size)], PATIENCE), 2 * PATIENCE)
    return code


def asked(ask: Callable[[], Answer], limit: timedelta = PATIENCE) -> Answer:
    """Return what the store answers; a thread asks, since torch waits without end for one behind a network that is cut.

    Raises:
        RuntimeError: it does not answer in this time, or not well.
    """
    answers, faults = list[Answer](), list[RuntimeError]()

    def wait() -> None:
        try:
            answers.append(ask())
        except RuntimeError as error:
            faults.append(error)

    thread = Thread(target=wait, daemon=True)
    thread.start()
    thread.join(limit.total_seconds())
    if not answers:
        raise faults[0] if faults else RuntimeError("the store does not answer")
    return answers[0]


def noted(notes: Store, names: Sequence[str], limit: timedelta) -> bool:
    """Return whether all these names come to be noted in a while; torch's own waiting prints when it is over."""
    until = time.monotonic() + limit.total_seconds()
    while not notes.check(list(names)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def peers() -> Peers | None:
    """Return the processes of the launcher that has started this one; None where there is no other."""
    given = os.environ
    if any(name not in given for name in NAMED) or int(given["WORLD_SIZE"]) == 1:
        return None
    return Peers(
        rank=int(given["RANK"]),
        world_size=int(given["WORLD_SIZE"]),
        local_rank=int(given.get("LOCAL_RANK", "0")),
        local_world_size=int(given.get("LOCAL_WORLD_SIZE", "1")),
        address=(given["MASTER_ADDR"], int(given["MASTER_PORT"])),
        served=given.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        run=given.get("TORCHELASTIC_RUN_ID", ""),
        restarts=int(given.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )
