"""The gallery of bad data: `tests/bad_data/NAME.yaml` with its data file, and what `train` says of them in `NAME.txt`.

`tests/bad_data/predict/` holds inputs that `predict` refuses, beside the table of the network that it is asked for. What no repository can
hold is made in a copy: a pipe, a file that nobody may read. `python -m tests.data.bad_cases` writes every text anew; read the difference.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner, Result

from nnrun.cli import app
from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "bad_data"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
INPUTS = sorted(file.name for file in (FOLDER / "predict").iterdir() if file.stem != "good" and file.suffix != ".txt")

PLACED_WORD = r"yaml:(\d+):(\d+): .*\n +\d+ \| .*\n +\| +(\^+)\nfix: did you mean '(.+?)'"


@contextmanager
def gallery(folder: Path) -> Iterator[None]:
    """Stand in a copy of the gallery, with a pipe and a locked file."""
    before = Path.cwd()
    shutil.copytree(FOLDER, folder / "bad_data")
    os.chdir(folder / "bad_data")
    try:
        os.mkfifo("pipe.csv")
        Path("locked.csv").write_text("a,ripe\n1,yes\n")
        Path("locked.csv").chmod(0)
        yield
    finally:
        os.chdir(before)


def trained(name: str) -> Result:
    """Return what comes of training a config of the gallery, in the copy."""
    return CliRunner().invoke(app, ["train", f"{name}.yaml", "--out", "run", "-q", "--no-report"])


def train_good() -> None:
    """Train the network that the inputs of `predict` are given to, in the copy."""
    os.chdir("predict")
    done = CliRunner().invoke(app, ["train", "good.yaml", "--out", "run", "-q", "--no-report"])
    assert done.exit_code == 0, done.stderr


def predicted(name: str) -> Result:
    """Return what comes of predicting from an input of the gallery, after `train_good`."""
    return CliRunner().invoke(app, ["predict", "--checkpoint", "run", name])


def said(result: Result) -> str:
    """Return what was printed on stderr, or what shows that it was no refusal."""
    unlike = "" if result.exit_code == 2 and not result.stdout else f"exit {result.exit_code}, {result.exception!r}: {result.stdout}"
    told = f"{unlike}{result.stderr}".replace(f"{Path.cwd()}/", "").replace(str(Path.cwd()), ".")
    return re.sub(r"the [0-9]+ of memory", "the N of memory", told)


def text_of(name: str) -> Path:
    """Return the file with what is said of an input: `row_short.csv` → `row_short.txt`."""
    return FOLDER / "predict" / f"{name.partition('.')[0]}.txt"


def mended(name: str) -> bool:
    """Do what is printed about one case, where a machine can: change a word of the config, or write a key; return whether anything was."""
    config, said = Path(f"{name}.yaml"), (FOLDER / f"{name}.txt").read_text()
    before = text = config.read_text()
    lines = text.split("\n")
    for line, column, width, right in reversed(re.findall(PLACED_WORD, said)):
        number, start = int(line) - 1, int(column) - 1
        lines[number] = (
            lines[number][:start]
            + re.sub(r"[\w./]+", right, lines[number][start : start + len(width)], count=1)
            + lines[number][start + len(width) :]
        )
    text = "\n".join(lines)
    for key, value in re.findall(r"write `(\w+): (.+?)`", said)[:1]:
        if key in ("separator", "encoding", "missing_target", "task", "columns"):
            text = re.sub(rf"^    {key}: .*\n", "", text, flags=re.MULTILINE)
            text = text.replace("split:", f"    {key}: {value}\nsplit:", 1)
        elif key in ("method", "folds"):
            text = re.sub(rf"{key}: \w+", f"{key}: {value}", text)
        else:
            text = re.sub(rf"^{key}: .*\n", "", text, flags=re.MULTILINE) + f"{key}: {value}\n"
    config.write_text(text)
    return text != before


def main() -> None:
    """Write every text anew."""
    with tempfile.TemporaryDirectory() as folder, gallery(Path(folder)):
        for name in NAMES if os.getuid() else [name for name in NAMES if name != "path_locked"]:  # nothing is locked for root
            (FOLDER / f"{name}.txt").write_text(said(trained(name)))
            if Path("run").exists():
                shutil.rmtree("run")
                print(f"{name} leaves a run folder behind")
        train_good()
        for name in INPUTS:
            text_of(name).write_text(said(predicted(name)))


if __name__ == "__main__":
    main()
