"""What a person or a script sees: errors with their exit codes, progress, the summary, tables. Only this module and `cli.py` print.

Results go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nnrun.errors import EnvironmentFault, NnrunError

if TYPE_CHECKING:
    from nnrun.check.report import Report
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
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        figures = TextColumn("{task.fields[figures]}")
        with Progress(
            TextColumn(name), BarColumn(), MofNCompleteColumn(), figures, TimeRemainingColumn(), console=Console(stderr=True)
        ) as bar:
            task = bar.add_task(name, total=epochs, completed=done, figures="")
            for record in _now_and_then(records, epochs, 0.1):
                bar.update(task, completed=record.epoch, figures=_figures(record))
    else:
        for record in _now_and_then(records, epochs, 1.0):
            say(f"epoch {record.epoch}/{epochs}  {_figures(record)}")


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
    say(f"best epoch {summary['best_epoch']} of {summary['epochs']}, {summary['seconds']['train']:.1f} s of training")


def show_report(report: Report) -> None:
    """Print a check's report to stdout: the findings, a table of the layers, what was measured."""
    from nnrun.check import told

    for paragraph in told.findings(report):
        print(paragraph, end="\n\n")
    rows = told.layer_rows(report.facts) if "layers" in report.facts else []
    if rows and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*told.LAYERS)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    elif rows:
        print(told.plain_table(rows), end="\n\n")
    for line in told.measured(report.facts):
        print(line)
    print(told.summary(report))


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
