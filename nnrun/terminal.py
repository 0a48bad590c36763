"""What a person or a script sees: errors with their exit codes, progress, the summary, tables. Only this module and `cli.py` print.

Results go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import json as jsonlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nnrun.errors import EnvironmentFault, NnrunError

if TYPE_CHECKING:
    from nnrun.training.record import Record


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


def show_progress(records: Iterable[Record], name: str, *, done: int, epochs: int, quiet: bool) -> None:
    """Go through the records, showing how far the run is: a bar on a terminal, at most one plain line a second elsewhere."""
    if quiet:
        for _ in records:
            pass
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        figures = TextColumn("{task.fields[figures]}")
        with Progress(
            TextColumn(name), BarColumn(), MofNCompleteColumn(), figures, TimeRemainingColumn(), console=Console(stderr=True)
        ) as bar:
            task = bar.add_task(name, total=epochs, completed=done, figures="")
            for record in _now_and_then(_telling(records, bar.console.out), epochs, 0.1):
                bar.update(task, completed=record.epoch, figures=_figures(record))
    else:
        for record in _now_and_then(_telling(records, say), epochs, 1.0):
            say(f"epoch {record.epoch}/{epochs}  {_figures(record)}")


def _telling(records: Iterable[Record], tell: Callable[[str], None]) -> Iterator[Record]:
    """Pass on every record, and tell what there is to say about it."""
    for record in records:
        for note in record.notes:
            tell(f"note: {note}")
        yield record


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


def _figures(record: Record) -> str:
    parts = (("train", record.train), ("val", record.val), ("test", record.test))
    return "  ".join(f"{part} {name} {value:.4g}" for part, scores in parts for name, value in scores.items())


def say_summary(summary: dict[str, Any]) -> None:
    """Print the final figures of each part to stderr."""
    metrics = summary["metrics"]
    names = list(dict.fromkeys(name for scores in metrics.values() for name in scores))
    width = max(len(name) for name in names) + 2
    say(f"\n{'part':<7}{'rows':>7}  " + "".join(f"{name:>{max(width, 10)}}" for name in names))
    for part, scores in metrics.items():
        say(f"{part:<7}{summary['rows'][part]:>7}  " + "".join(f"{scores[name]:>{max(width, 10)}.4f}" for name in names))
    for part, intervals in summary["intervals"].items():
        told = (f"{name} {rounded(metrics[part][name], interval)} {between(interval)}" for name, interval in intervals.items())
        say(f"{part}: {', '.join(told)} (95 % intervals, {summary['rows'][part]} rows)")
    say(summary["verdict"])
    say(f"best epoch {summary['best_epoch']} of {summary['epochs']}, {summary['seconds']['train']:.1f} s of training")


def print_comparison(found: dict[str, Any]) -> None:
    """Print runs side by side, what differs between them, and what the paired test says."""
    runs, by = found["runs"], found["sorted_by"]
    names = [by, *dict.fromkeys(name for run in runs for name in run["metrics"] if name != by)]
    rows = [["run", "part", "rows", "epoch", *names, "seconds"]]
    for run in runs:
        figures = [_cell(run["metrics"].get(name), run["intervals"].get(name)) for name in names]
        seconds = "not finished" if run["seconds"] is None else f"{run['seconds']:.1f}"
        rows.append([run["run"], run["part"] or "–", _text(run["rows"]), str(run["epoch"]), *figures, seconds])
    print("\n".join(_aligned(rows)))
    if found["differences"]:
        print()
        differences = [[key, *map(_text, values)] for key, values in found["differences"].items()]
        print("\n".join(_aligned([["", *(run["run"] for run in runs)], *differences])))
    if found["paired"]:
        print(f"\n{found['paired']['sentence']}")


def _cell(value: float | None, interval: Sequence[float | None] | None) -> str:
    if value is None or interval is None:
        return _text(value)
    return f"{rounded(value, interval)} {between(interval)}"


def _text(value: Any) -> str:
    """Return a value of a config as a cell of a table."""
    text = "–" if value is None else value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
    return text if len(text) <= 24 else text[:23] + "…"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def rounded(value: float | None, interval: Sequence[float | None]) -> str:
    """Return a figure with as many decimals as its 95 % interval lets it have."""
    return f"{math.nan if value is None else value:.{_decimals(interval)}f}"


def between(interval: Sequence[float | None]) -> str:
    """Return the 95 % interval of a figure: `[0.90, 1.00]`."""
    places = _decimals(interval)
    return f"[{', '.join(f'{math.nan if bound is None else bound:.{places}f}' for bound in interval)}]"


def _decimals(interval: Sequence[float | None]) -> int:
    """Return how many decimals are worth telling: no more than the first digit of half the interval's width, or two when that is small."""
    low, high = (math.nan if bound is None else bound for bound in interval)
    half = (high - low) / 2
    return max(0, math.floor(-math.log10(half / 3)) + 1) if math.isfinite(half) and half > 0 else 4


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
