"""The part `peers`: every work trained by every peer that can do it, in rounds; each peer is a process that lives as long as its work."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from bench.measure import Child, moment, rounds, spread, times
from bench.peers.work import WORK, work


@dataclass(frozen=True)
class Peer:
    """How a peer is measured.

    Args:
        slow: only when all are asked for, and with fewer epochs where `FEWER` says so; told is the time of a step.
        cannot: works that it has no layers for.
    """

    slow: bool = False
    cannot: tuple[str, ...] = ()


PEERS = {
    "nnrun": Peer(),
    "notebook": Peer(),
    "sklearn": Peer(cannot=("lenet",)),
    "skorch": Peer(slow=True),
    "keras": Peer(slow=True),
    "lightning_defaults": Peer(slow=True),
    "lightning": Peer(slow=True),
    "lightning_batches": Peer(slow=True),
    "bare": Peer(),
    "arithmetic": Peer(),
}
FEWER = {"iris": 20, "thermometer": 300}
"""Work → epochs of a slow peer."""

LARGE = ("fashion_mnist", "lenet")
"""Works of which a round takes long: half as many rounds."""


def measure(name: str, peers: Sequence[str], repeats: int) -> dict[str, Any]:
    """Return the figures of one work: microseconds of a step, of the clock and of the processor, and each peer's over those of nnrun."""
    when, what = moment(), work(name)
    epochs = {peer: FEWER.get(name, what.spec.epochs) if PEERS[peer].slow else what.spec.epochs for peer in peers}
    with ExitStack() as stack:
        children = {
            peer: stack.enter_context(closing(Child("bench.peers.turn", peer, name, str(epochs[peer]), ours=peer == "nnrun")))
            for peer in peers
        }

        def once(number: int) -> dict[tuple[str, str], float]:
            first = number % len(peers)  # so that nobody always comes after the same one
            turns = {peer: children[peer].ask() for peer in [*peers[first:], *peers[:first]]}
            return {(peer, key): value for peer, turn in turns.items() for key, value in turn.items()}

        found = rounds(once, repeats)
    told = {"us": "times_nnrun", "processor_us": "processor_times_nnrun", "GFLOP_a_second": ""}
    figures: dict[str, dict[str, Any]] = {}
    for peer in peers:
        figures[peer] = {"epochs": epochs[peer], "steps": int(found[peer, "steps"][0])}
        for key, of_nnrun in told.items():
            if (peer, key) in found:
                figures[peer] |= {key: spread(found[peer, key])}
                figures[peer] |= {of_nnrun: times(found[peer, key], found["nnrun", key])} if of_nnrun else {}
    return {"measured": when, "rounds": repeats, "threads": int(found["nnrun", "threads"][0]), "peers": figures}


def main(repeats: int, *, full: bool = False, only: Collection[str] = ()) -> dict[str, Any]:
    """Return work → figures, of all works or of those named; the slow peers are left out of a short run."""
    return {
        name: measure(
            name,
            [peer for peer, how in PEERS.items() if name not in how.cannot and (full or not how.slow)],
            max(2, (repeats + 1) // 2) if name in LARGE else repeats,
        )
        for name in WORK
        if not only or name in only
    }
