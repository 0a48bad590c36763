"""A page is run as its reader would run it: its commands and its Python in order, in a folder of its own, and what they print is compared.

    ```sh        commands; `nnrun …` runs in this process, so that torch is imported once, and anything else in bash
    ```python    Python; all blocks of a page share their names
    ```          what the block right before it prints; without one, what is printed is not looked at

What a page says is true when the words are the same, and so are the numbers but for the last digit: another processor rounds otherwise.
`…` stands for anything in a line, and alone in a line for any lines. Times are not compared; of the lines that tell of epochs, the last.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from nnrun.cli import app

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:\n^```\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
COMMAND = re.compile(r"(?:[^\n]*<<'(\w+)'\n.*?^\1$|(?:[^\n]*\\\n)*[^\n]+)\n?", re.DOTALL | re.MULTILINE)  # with its here-document
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?e[-+]?\d+|-?\d+\.\d+)")
TIMES = (
    (re.compile(r"\d+:\d\d left"), "0:00 left"),
    (re.compile(r"\d+(\.\d+)? s of training"), "0.0 s of training"),
    (re.compile(r"(?<=\]) +\d+\.\d$", re.MULTILINE), "  0.0"),  # the last column of `nnrun compare`
)


@dataclass
class Page:
    """A page that is run: its file, the folder it runs in, and what its Python has named."""

    file: Path
    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def run(self, *, write: bool = False) -> list[str]:
        """Run every block; return what is not as the page says. With `write` the page is made to say what was printed."""
        text, faults, made, end = self.file.read_text("utf-8"), list[str](), "", 0
        for name in ("configs", "examples"):  # a reader types in the folder of the project
            (self.folder / name).symlink_to(ROOT / name)
        with contextlib.chdir(self.folder), _unset():
            for block in BLOCK.finditer(text):
                language, code, shown = block.groups()
                place = f"{self.file}:{text.count(chr(10), 0, block.start()) + 1}"
                printed, failed = self._python(code) if language == "python" else _shell(code)
                if failed and (shown is None or not (write or "error" in shown)):
                    return [*faults, f"{place}: {failed}\n{code}{printed}"]
                if shown is not None and not (says(shown, printed) and (not write or _exactly(shown, printed))):
                    told = difflib.unified_diff(tidy(shown).splitlines(), tidy(printed).splitlines(), "shown", "printed", lineterm="", n=1)
                    faults.append(f"{place}: the page shows what is not printed\n" + "\n".join(told))
                    made += text[end : block.start(3)] + kept(shown, printed)
                    end = block.end(3)
        if write and faults:
            self.file.write_text(made + text[end:], "utf-8")
            faults = []
        missing = (name for name in self.pictures() if not (self.folder / name).is_file())
        return faults + [f"{self.file}: no block makes the picture {name}" for name in missing]

    def pictures(self) -> list[str]:
        """Return the pictures that the page shows, as paths from its folder."""
        return PICTURE.findall(self.file.read_text("utf-8"))

    def _python(self, code: str) -> tuple[str, str]:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                exec(compile(code, str(self.file), "exec"), self.names)
            except Exception:  # noqa: BLE001 (whatever it is, the page is wrong)
                return printed.getvalue(), traceback.format_exc(limit=-1)
        return printed.getvalue(), ""


def says(shown: str, printed: str) -> bool:
    """Return whether a page that shows one text tells the truth about another."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else "".join(map(_pattern, re.split(rf"(…| +|{NUMBER.pattern[1:-1]})", line))) + " *\n"
        for line in tidy(shown).splitlines()
    )
    found = re.fullmatch(pattern, tidy(printed))
    return bool(found) and all(map(_near, found.groups(), NUMBER.findall(tidy(shown))))


def _exactly(shown: str, printed: str) -> bool:
    """Return whether not even a last digit is another; what a `…` leaves out cannot be."""
    return "\n…\n" in f"\n{shown}" or tidy(kept(shown, printed)) == tidy(shown)


def _near(printed: str, shown: str) -> bool:
    """Return whether two numbers are the same but for rounding: by a unit of the last digit, or by 1 %, or both next to nothing."""
    unit = 1e-6 if "e" in shown else 10.0 ** -len(shown.partition(".")[2])
    return math.isclose(float(printed), float(shown), rel_tol=0.01, abs_tol=unit * 1.01)


def _pattern(piece: str) -> str:
    if NUMBER.fullmatch(piece):
        return NUMBER.pattern
    return {"…": ".*"}.get(piece, " +" if piece.isspace() else re.escape(piece))


def tidy(printed: str) -> str:
    """Return a text without what is never the same twice: times, and all lines of epochs but the last, which is what a terminal keeps."""
    for varying, fixed in TIMES:
        printed = varying.sub(fixed, printed)
    lines = [line.rstrip() for line in printed.splitlines()]
    epochs = [number for number, line in enumerate(lines) if re.match(r"epoch \d+/\d+  ", line)]
    return "".join(f"{line}\n" for number, line in enumerate(lines) if number not in epochs[:-1])


def kept(shown: str, printed: str) -> str:
    """Return what is printed as a page shows it; a line with a `…` that is true stays."""
    old = [line for line in shown.splitlines(keepends=True) if "…" in line and line.strip() != "…"]
    epochs = [line for line in printed.splitlines(keepends=True) if re.match(r"epoch \d+/\d+  ", line)]
    new = [line for line in printed.splitlines(keepends=True) if line not in epochs[:-1]]
    return "".join(next((one for one in old if says(one, line)), line.rstrip() + "\n") for line in new)


def _shell(code: str) -> tuple[str, str]:
    """Run commands until one fails; return what they print, and which failed."""
    printed = ""
    for found in COMMAND.finditer(code):
        passed, stages = "", _stages(found[0])
        for number, words in enumerate(stages, 1):
            status, passed = (_nnrun if words[0] == "nnrun" else _program)(words, passed, last=number == len(stages))
            if status:
                return printed + passed, f"{shlex.join(words)} ended with {status}"
        printed += passed
    return printed, ""


def _stages(command: str) -> list[list[str]]:
    """Return the words of each part of a pipe; a command that wants more of a shell than that is given to bash as it is."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    if any(set(word) <= set("&;<>()") for word in words):
        return [["bash", "-euo", "pipefail", "-c", command]]
    return [list(stage) for bar, stage in groupby(words, "|".__eq__) if not bar]


def _nnrun(words: list[str], given: str, *, last: bool) -> tuple[int, str]:
    """Run nnrun in this process; what it says on stderr comes between its results, as on a terminal, unless they go on through a pipe."""
    out, keyboard = _written(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out if last else _written()):
        try:
            app(words[1:], prog_name="nnrun")
        except SystemExit as end:
            return int(end.code or 0), out.buffer.getvalue().decode()
        finally:
            sys.stdin = keyboard
    raise AssertionError("a command ends with SystemExit")


def _written() -> Any:
    return io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)


def _program(words: list[str], given: str, *, last: bool) -> tuple[int, str]:
    done = subprocess.run(words, input=given, env=_environment(), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + (done.stderr if last else "")


def _environment() -> dict[str, str]:
    """Return an environment in which `nnrun` is the one that this process runs."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def _unset() -> Iterator[None]:
    """Run as on a reader's terminal, with reports and without what a test run or CI asks for."""
    before = dict(os.environ)
    for name in ("NNRUN_REPORT", "NNRUN_DATA", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "FORCE_COLOR"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.update(before)
