"""A run while it trains: one live line on a terminal, plain lines elsewhere; all of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from nnrun.terminal import say

if TYPE_CHECKING:
    from nnrun.run import Run
    from nnrun.training.record import Record
    from nnrun.training.watch import Watch

SMALLEST_BAR = 6


def show_training(run: Run, records: Iterable[Record], name: str, *, quiet: bool, said: Container[str] = ()) -> None:
    """Train a run, saying what there is to say before (but for what was said already), on the way and after."""
    told = len(run.notes)
    for note in run.notes if not quiet else ():
        if note not in said:
            say(f"note: {note}")
    show_progress(records, name, best=run.progress.best, done=run.state.epoch, epochs=run.spec.epochs, quiet=quiet)
    for note in run.notes[told:] if not quiet else ():
        say(f"note: {note}")


def show_progress(records: Iterable[Record], name: str, *, best: Watch, done: int, epochs: int, quiet: bool) -> None:
    """Go through the records, showing how far the run is: one live line on a terminal, at most one plain line a second elsewhere.

    Args:
        best: the best value so far, kept up to date by the run.
        done: epochs that were finished before.
    """
    if quiet:
        for _ in records:
            pass
        return
    started = time.monotonic()
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with _live_line() if live else nullcontext(_plain_line) as show:
        if live:
            show(name, done, epochs, [])
        for record in _now_and_then(_telling(records), epochs, 0.1 if live else 1.0):
            left = (time.monotonic() - started) / (record.epoch - done) * (epochs - record.epoch)
            show(name, record.epoch, epochs, [*_figures(record, best), f"{_clock(left)} left"])


def _telling(records: Iterable[Record]) -> Iterator[Record]:
    """Pass on every record, and tell what there is to say about it."""
    for record in records:
        for note in record.notes:
            say(f"note: {note}")
        yield record


def _plain_line(name: str, epoch: int, epochs: int, figures: Sequence[str]) -> None:
    say(f"epoch {epoch}/{epochs}  {'  '.join(figures)}")


@contextmanager
def _live_line() -> Iterator[Callable[[str, int, int, Sequence[str]], None]]:
    """Yield what draws the one line of a run anew: as many figures as the terminal has room for, and a bar in what is left."""
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False) as live:

        def show(name: str, epoch: int, epochs: int, figures: Sequence[str]) -> None:
            texts, gap, room = live_texts([name, f"{epoch}/{epochs}", *figures], console.width)
            line = Table.grid(padding=(0, gap, 0, 0))
            bar = [ProgressBar(epochs, epoch, width=min(room, 40))] if room >= SMALLEST_BAR else []
            line.add_row(*texts[:1], *bar, *texts[1:])
            live.update(line, refresh=True)

        yield show


def live_texts(texts: Sequence[str], width: int) -> tuple[list[str], int, int]:
    """Return the texts that fit into a line, how many blanks stand between them, and how many columns a bar could have.

    In a narrow line the blanks go first, then the name, the first text; then those before the last one, the time that is left.
    """
    shown, gap = list(texts), 2
    while (needed := sum(map(len, shown)) + gap * (len(shown) - 1)) > width and len(shown) > 2:
        if gap == 2:
            gap = 1
        else:
            shown.pop(0 if len(shown) == len(texts) else -2)
    return shown, gap, width - needed - gap


def _now_and_then(records: Iterable[Record], epochs: int, seconds: float) -> Iterator[Record]:
    """Pass on the first record, the last, and one every so many seconds."""
    passed_at, held = 0.0, None
    for record in records:
        if passed_at == 0.0 or record.epoch == epochs or time.monotonic() - passed_at > seconds:
            passed_at, held = time.monotonic(), None
            yield record
        else:
            held = record
    if held:  # early stopping ended the run
        yield held


def _figures(record: Record, best: Watch) -> list[str]:
    """Return what is worth saying of an epoch, the most important first."""
    part, scores = ("val", record.val) if record.val else ("test", record.test)
    metrics = [f"{name} {value:.3g}" for name, value in scores.items() if name != "loss"]
    losses = [f"loss {record.train['loss']:.3g}", *([f"{part} {scores['loss']:.3g}"] if scores else [])]
    return [*losses, *metrics[:1], *([f"best {best.value:.3g}@{best.epoch}"] if best.epoch else []), f"lr {record.lr:.3g}", *metrics[1:]]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
