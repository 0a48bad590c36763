"""The gallery of broken configs: `tests/broken/NAME.yaml` with what is said of it in `NAME.txt`, and the printed fix carried out by a machine.

Lines `# --set path=value` at the head of a file are options of its command line. `python -m tests.spec.broken` writes every text anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nnrun.builtin  # noqa: F401
from nnrun.errors import Fault, NnrunError
from nnrun.spec.reader import read_spec
from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "broken"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def faults_of(file: Path) -> tuple[Fault, ...]:
    """Return what is wrong with a config; () when it passes."""
    options = re.findall(r"^# --set (.+)$", file.read_bytes().decode("utf-8", "replace"), re.MULTILINE)
    try:
        read_spec(file, options)
    except NnrunError as error:
        return error.faults
    return ()


def message_of(name: str) -> str:
    """Return what is printed about a broken config, its path as seen from the gallery."""
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        said = "\n".join(str(fault) for fault in faults_of(Path(f"{name}.yaml"))) + "\n"
        return re.sub(r"shows all [0-9]+", "shows all N", said)  # a new part is no news here
    finally:
        os.chdir(before)


def mended(file: Path, faults: tuple[Fault, ...]) -> bool:
    """Do what the printed fixes say, from the last to the first; return whether each of them could be carried out."""
    by_place = sorted(faults, key=lambda one: (one.place.line, one.place.column) if one.place else (0, 0), reverse=True)
    done = [_mended(file, fault) for fault in by_place]
    return all(done)


def _mended(file: Path, fault: Fault) -> bool:
    data = file.read_bytes()
    if fault.fix == "save the file as UTF-8":
        file.write_text(data.decode("utf-16" if "UTF-16" in fault.what else "cp932"))
        return True
    if fault.place is None or Path(fault.place.file).name != file.name:
        return False
    lines = data.decode().split("\n")
    number, start = fault.place.line - 1, fault.place.column - 1
    line, end = lines[number], start + fault.place.width
    meant = re.match(r"did you mean '(.+?)'\?", fault.fix) or re.match(r"(?:write|write its name, such as) `([^`]+)`", fault.fix)
    new_item = re.match(r"begin a new item before it: `(.+)`", fault.fix)
    if meant:
        lines[number] = line[:start] + meant[1] + line[end:]
    elif new_item:
        lines[number] = line[: start - 2] + new_item[1]
    elif fault.fix == "keep one of them" and line.strip().startswith(line[start:end]):
        del lines[number]
    elif fault.fix == "a config is one document: remove the line `---`":
        lines.remove("---")
    elif fault.fix == "YAML is indented by spaces: replace the tab":
        lines[number] = line.replace("\t", "  ")
    elif fault.fix.endswith("remove it"):
        lines[number] = line[:start] + line[end:].lstrip()
    else:
        return False
    file.write_text("\n".join(lines))
    return True


if __name__ == "__main__":
    for name in NAMES:
        (FOLDER / f"{name}.txt").write_text(message_of(name))
