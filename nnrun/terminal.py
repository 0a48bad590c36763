"""What a person or a script sees: errors with their exit codes, progress, the summary, tables. Only this module and `cli.py` print.

Results go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import json as jsonlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nnrun.errors import EnvironmentFault, NnrunError
from nnrun.report import words

if TYPE_CHECKING:
    from nnrun.run import Run
    from nnrun.training.record import Record
    from nnrun.training.watch import Watch


SMALLER = "lower batch_size, or take a smaller network"


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what a user can cause into its message on stderr and its exit code; anything else is our bug and keeps its traceback."""
    try:
        yield
        sys.stdout.flush()
    except NnrunError as error:
        raise _told(error) from None
    except MemoryError:
        raise _told(EnvironmentFault("there is not enough memory", fix=SMALLER)) from None
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        raise _told(EnvironmentFault(f"there is not enough memory: {str(error).splitlines()[0]}", fix=SMALLER)) from None
    except BrokenPipeError:  # the reader of our output has gone: `nnrun predict … | head`
        _drop_output()
        raise typer.Exit(141) from None
    except OSError as error:
        _drop_output()
        fault = EnvironmentFault(f"the system refused: {error.strerror or error}", fix="check the disk, and where the output goes")
        raise _told(fault) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(130) from None


def _told(error: NnrunError) -> typer.Exit:
    """Print the error, and return what ends the program with its code."""
    say(str(error))
    return typer.Exit(error.exit_code)


def _drop_output() -> None:
    """What could not be written to stdout is not tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether it is what torch raises when a device, or the machine, has no memory left."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def say(text: str) -> None:
    """Print to stderr."""
    print(text, file=sys.stderr, flush=True)


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
        for record in _now_and_then(records, epochs, 0.1 if live else 1.0):
            left = (time.monotonic() - started) / (record.epoch - done) * (epochs - record.epoch)
            show(name, record.epoch, epochs, [*_figures(record, best), f"{_clock(left)} left"])


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


SMALLEST_BAR = 6


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


def say_summary(summary: dict[str, Any]) -> None:
    """Print the final figures to stderr: a column for each part, with intervals and the baselines where the summary has them."""
    columns, others = words.results(summary), words.baselines(summary)
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    table = [["", *columns], ["rows", *(words.number(summary["rows"][part]) for part in columns)]]
    table += [[name, *(figures.get(name, "") for figures in columns.values())] for name in names]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    say("")
    for line in table:
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    beaten = (
        f"baseline {name}: {', '.join(f'{key} {text}' for key, text in told.items() if key in names)}" for name, told in others.items()
    )
    for sentence in [summary["verdict"]] if summary.get("verdict") else beaten:
        say(sentence)
    say(f"best epoch {summary['best_epoch']} of {summary['epochs']}, {summary['seconds']['train']:.1f} s of training")


def say_next(folder: Path, report: Path | None) -> None:
    """Print to stderr where the report is, and what a person may want to type next."""
    run = shlex.quote(str(folder))
    if report:
        say(f"report: {report}")
    say(f"next:   nnrun eval --checkpoint {run}\n        nnrun predict --checkpoint {run} FILE")


def try_report(run: Run) -> Path | None:
    """Draw the report of a finished run and return its page. Whatever goes wrong there is a note: the run itself is whole, and on disk."""
    try:
        from nnrun.report.write import write_report

        return write_report(run.folder, data=run.data, device=str(run.device))
    except Exception as error:  # noqa: BLE001 (no fault of a plot may fail a run that has succeeded; `nnrun report` shows it in full)
        what = error.faults[0].what if isinstance(error, NnrunError) else f"{type(error).__name__}: {error}"
        say(f"note: there is no report, though the run is whole: {what}; `nnrun report {shlex.quote(str(run.folder))}` tries again")
        return None


def write_table(table: dict[str, list[Any]], out: Path | None, *, json: bool) -> None:
    """Write columns to a file by its ending, or to stdout as CSV or one JSON document."""
    import polars

    frame = polars.DataFrame(table)
    if json and out is None:
        print(jsonlib.dumps({"predictions": frame.to_dicts()}))
    elif out is None:
        sys.stdout.write(frame.write_csv())
    else:
        try:
            write: dict[str, Any] = {".csv": frame.write_csv, ".json": frame.write_json, ".parquet": frame.write_parquet}
            write[out.suffix](out)
        except OSError as error:
            raise EnvironmentFault(
                f"{out} cannot be written: {error.strerror or error}", fix="check the folder and its permissions"
            ) from None
        if json:
            print(jsonlib.dumps({"out": str(out), "rows": frame.height}))


def write_text(text: str, out: Path | None) -> None:
    """Write a document to a file, or to stdout."""
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{out} cannot be written: {error.strerror or error}", fix="check the folder and its permissions") from None
