"""What a person or a script sees: errors with their exit codes, the summary, tables. Only this module and `cli.py` print.

Results go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import json as jsonlib
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nnrun import actions
from nnrun.errors import EnvironmentFault, NnrunError, not_writable
from nnrun.peers import peers, tell_once
from nnrun.plugins import fault_in_plugin
from nnrun.report import words

if TYPE_CHECKING:
    import polars

    from nnrun.check.report import Report
    from nnrun.data.prepare import Prepared
    from nnrun.tracking.tracker import Trackers
    from nnrun.trained import Predictions


SMALLER = "lower batch_size, or take a smaller network"


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what a user can cause into its message on stderr and its exit code; anything else is our bug and keeps its traceback."""
    try:
        yield
        sys.stdout.flush()
    except NnrunError as error:
        raise _told(error) from None
    except BrokenPipeError:  # the reader of our output has gone: `nnrun predict … | head`
        _drop_output()
        raise typer.Exit(141) from None
    except OSError as error:
        refused = EnvironmentFault(f"the system refused: {error.strerror or error}", fix="check the disk, and where the output goes")
        fault = fault_in_plugin(error) or refused
        if fault is refused:
            _drop_output()
        raise _told(fault) from None
    except KeyboardInterrupt:
        raise typer.Exit(tell_once(130, lambda: say("interrupted"))) from None
    except Exception as error:
        meant = _meant(error)
        if meant is None:
            if peers() is None:
                raise
            raise typer.Exit(tell_once(1, traceback.print_exc)) from None
        raise _told(meant) from None


def _told(error: NnrunError) -> typer.Exit:
    """Print the error, of many processes once, and return what ends the program with its code."""

    def tell() -> None:
        say(str(error))
        for line in actions.of_faults(error.faults) if actions.listening() else ():
            say(line)

    return typer.Exit(tell_once(error.exit_code, tell))


def _drop_output() -> None:
    """What could not be written to stdout is not tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _meant(error: Exception) -> NnrunError | None:
    """Return what the user can do something about: no memory left on the machine or a device, or a fault of a plug-in; None for our bug."""
    if isinstance(error, MemoryError):
        return EnvironmentFault("there is not enough memory", fix=SMALLER)
    if isinstance(error, RuntimeError) and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)):
        return EnvironmentFault(f"there is not enough memory: {str(error).splitlines()[0]}", fix=SMALLER)
    return fault_in_plugin(error)


def say(text: str) -> None:
    """Print to stderr; words that cannot be written are no reason to stop."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


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


def try_report(folder: Path, *, data: Prepared | None = None, device: str = "auto", trackers: Trackers | None = None) -> Path | None:
    """Draw the report of a run, folds or seeds; return its page. Whatever goes wrong is a note: what was trained is whole, and on disk."""
    try:
        from nnrun.report.write import write_report

        page = write_report(folder, data=data, device=device)
    except Exception as error:  # noqa: BLE001 (no fault of a plot may fail a run that has succeeded; `nnrun report` shows it in full)
        what = error.faults[0].what if isinstance(error, NnrunError) else f"{type(error).__name__}: {error}"
        say(f"note: there is no report, though the run is whole: {what}; `nnrun report {shlex.quote(str(folder))}` tries again")
        return None
    if trackers:
        trackers.tell("report", page)
        for note in trackers.notes():
            say(f"note: {note}")
    return page


def print_comparison(found: dict[str, Any]) -> None:
    """Print runs side by side, what differs between them, and what the paired test says."""
    runs, by = found["runs"], found["sorted_by"]
    names = [by, *dict.fromkeys(name for run in runs for name in run["metrics"] if name != by)]
    rows = [["run", "part", "rows", "epoch", *names, "seconds"]]
    for run in runs:
        figures = [_figure(run, name) for name in names]
        seconds = "not finished" if run["seconds"] is None else f"{run['seconds']:.1f}"
        rows.append([run["run"], run["part"] or "–", _text(run["rows"]), _text(run["epoch"]), *figures, seconds])
    width = shutil.get_terminal_size((80, 24)).columns
    print("\n".join(_blocks(rows, width)))
    if found["differences"]:
        print()
        by_key = [["", *(run["run"] for run in runs)], *([key, *map(_text, values)] for key, values in found["differences"].items())]
        fits = max(map(len, _aligned(by_key))) <= width
        print("\n".join(_blocks(by_key if fits else list(zip(*by_key, strict=True)), width)))
    if found["paired"]:
        print(f"\n{found['paired']['sentence']}")


def _figure(run: dict[str, Any], name: str) -> str:
    """Return a figure of a run with its interval, or of folds with its deviation."""
    if name in run["deviations"]:
        return words.spread({"mean": run["metrics"][name], "deviation": run["deviations"][name]})
    return words.figure(run["metrics"].get(name), run["intervals"].get(name))


def _blocks(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table as lines; one that is too wide in several tables, each with the first column."""
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    blocks, used = [[0]], widths[0]
    for number in range(1, len(widths)):
        if used + widths[number] - 2 > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(number)
        used += widths[number]
    tables = (_aligned([[row[number] for number in block] for row in rows]) for block in blocks)
    return [line for number, table in enumerate(tables) for line in ([""] * (number > 0) + table)]


def _text(value: Any) -> str:
    """Return a value of a config as a cell of a table."""
    text = "–" if value is None else value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
    return text if len(text) <= 24 else text[:23] + "…"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def annotate(report: Report) -> None:
    """Show a check's findings in GitHub Actions, if that is where this runs."""
    for one in report.advice if actions.listening() else ():
        say(actions.annotation(one.severity, one.rule.name, one.finding.evidence, one.finding.fix, one.place))


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


def noted(predictions: Iterable[Predictions]) -> Iterator[Predictions]:
    """Yield predictions as they come; each note of theirs is printed to stderr once."""
    said: set[str] = set()
    for one in predictions:
        for note in one.notes:
            if note not in said:
                say(f"note: {note}")
        said.update(one.notes)
        yield one


def write_frames(frames: Iterable[polars.DataFrame], out: Path | None, *, json: bool) -> None:
    """Write the rows of frames, one after another, to a file by its ending, or to stdout as CSV or one JSON document.

    The file is written beside and then renamed: whatever goes wrong on the way, none that is half written takes its name.
    """
    if out is None:
        for text in _texts(frames, "document" if json else ".csv"):
            sys.stdout.write(text)
        return
    rows = 0

    def counted() -> Iterator[polars.DataFrame]:
        nonlocal rows
        for frame in frames:
            rows += frame.height
            yield frame

    path = out.resolve()
    beside = path.is_file() or not path.exists()  # a pipe or a device is never replaced by a file
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp") if beside else path
    try:
        if out.suffix == ".parquet":
            _write_parquet(counted(), aside)
        else:
            with aside.open("w", encoding="utf-8", newline="") as file:
                file.writelines(_texts(counted(), out.suffix))
        if beside:
            os.replace(aside, path)
    except OSError as error:
        raise not_writable(out, error) from None
    finally:
        if beside:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
    if json:
        print(jsonlib.dumps({"out": str(out), "rows": rows}))


def _texts(frames: Iterable[polars.DataFrame], kind: str) -> Iterator[str]:
    """Yield frames as one text of a kind: .csv, .json, .jsonl, or the document that --json prints."""
    start, between, end = {".json": ("[", ",", "]"), "document": ('{"predictions": [', ", ", "]}\n")}.get(kind, ("", "", ""))
    for number, frame in enumerate(frames):
        if kind == ".csv":
            yield frame.write_csv(include_header=number == 0)
        elif kind == ".jsonl":
            yield frame.write_ndjson()
        else:
            rows = frame.write_json() if kind == ".json" else jsonlib.dumps(frame.to_dicts())
            yield (between if number else start) + rows[1:-1]
    yield end


def _write_parquet(frames: Iterator[polars.DataFrame], path: Path) -> None:
    from polars.io.plugins import register_io_source

    first = next(frames)
    register_io_source(lambda *_: chain([first], frames), schema=first.schema).sink_parquet(path, maintain_order=True)


def write_text(text: str, out: Path | None) -> None:
    """Write a document to a file, or to stdout."""
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_writable(out, error) from None
