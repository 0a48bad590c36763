"""GitHub Actions: what is wrong as annotations of the lines it stands in, and figures as a table on the page of the workflow.

A workflow command is a line that begins with `::`. The runner reads those of stderr as it reads those of stdout, so they go to stderr, and
stdout carries results only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnrun.errors import Fault, InputError, Place, not_writable
from nnrun.report import words
from nnrun.require import Requirement

LEVELS = {"error": "error", "warning": "warning", "note": "notice"}
SUMMARY = "GITHUB_STEP_SUMMARY"


def listening() -> bool:
    """Whether GitHub Actions reads what is printed."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def of_faults(faults: Iterable[Fault]) -> list[str]:
    """Return the workflow commands that show errors."""
    return [annotation("error", "nnrun", fault.what, fault.fix, fault.place) for fault in faults]


def annotation(severity: str, title: str, what: str, fix: str, place: Place | None) -> str:
    """Return the workflow command that shows a finding, on its line where it has one; the path is that in the repository."""
    in_file = place is not None and place.line > 0 and not place.file.startswith("--")  # an option of the command line is no file
    where: dict[str, object] = {"file": _in_repository(place.file), "line": place.line, "col": place.column} if in_file and place else {}
    given = ",".join(f"{key}={_property(str(value))}" for key, value in {**where, "title": title}.items())
    return f"::{LEVELS[severity]} {given}::{_data(what + (f'{chr(10)}fix: {fix}' if fix else ''))}"


def summary_file() -> Path:
    """Return the file to which a step of a workflow may append Markdown.

    Raises:
        InputError: there is none.
    """
    file = os.environ.get(SUMMARY)
    if not file:
        raise InputError(f"--summary appends to the file that {SUMMARY} names, and it is not set", fix=f"set it: {SUMMARY}=summary.md")
    return Path(file)


def append_summary(file: Path, text: str) -> None:
    """Append Markdown to a file.

    Raises:
        EnvironmentFault: the system refused.
    """
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise not_writable(file, error) from None


def scores(
    heading: str,
    rows: int,
    checkpoint: Path,
    figures: Mapping[str, float],
    intervals: Mapping[str, Sequence[float | None]],
    baselines: Mapping[str, Mapping[str, Any]],
    requirements: Sequence[Requirement],
) -> str:
    """Return figures as a section of Markdown: a table of them beside the baselines, and one of what was required.

    Args:
        baselines: name → its `metrics`, of the same rows; empty where they are not known.
    """
    table = [["figure", "value", "95 % interval", *(f"baseline {name}" for name in baselines)]]
    for name, value in figures.items():
        beside = [words.number(one["metrics"][name]) if name in one["metrics"] else "" for one in baselines.values()]
        table.append([name, f"{value:.6g}", words.between(intervals.get(name)), *beside])
    parts = [f"### {_cell(heading)}", _table(table), f"{rows} rows, checkpoint `{checkpoint}`"]
    if requirements:
        met = [[f"`{one}`", f"{figures[one.name]:.6g}", "yes" if one.holds(figures) else "**no**"] for one in requirements]
        parts.append(_table([["required", "value", "met"], *met]))
    return "\n\n".join(parts) + "\n\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _in_repository(file: str) -> str:
    """Return a path from the root of the repository, where it lies in one; the user named it from the current folder."""
    root = os.environ.get("GITHUB_WORKSPACE")
    whole = Path(file).absolute()
    return str(whole.relative_to(root)) if root and whole.is_relative_to(root) else file


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
