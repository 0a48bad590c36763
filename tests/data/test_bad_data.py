"""The gallery of bad data: what is said of each case, to the letter, before the first step and before there is a run folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data import bad_cases as bad
from tests.data.bad_cases import FOLDER, INPUTS, NAMES


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand in a copy of the gallery."""
    with bad.gallery(tmp_path_factory.mktemp("gallery")):
        yield Path.cwd()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand in another copy, beside a trained network."""
    with bad.gallery(tmp_path_factory.mktemp("inputs")):
        bad.train_good()
        yield Path.cwd()


@pytest.mark.parametrize("name", NAMES)
def test_what_train_says(copy: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """Place, source line, caret, fix; exit 2; nothing on stdout; no run folder. `python -m tests.data.bad_cases` writes the texts anew."""
    if name == "path_locked" and os.getuid() == 0:
        pytest.skip("nothing is locked for root")
    monkeypatch.chdir(copy)
    result = bad.trained(name)
    assert bad.said(result) == (FOLDER / f"{name}.txt").read_text()
    assert (result.exit_code, result.stdout) == (2, "")
    assert not Path("run").exists()


@pytest.mark.parametrize("name", INPUTS)
def test_what_predict_says(network: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """The same of the inputs of one small network; not a single prediction is printed."""
    monkeypatch.chdir(network)
    result = bad.predicted(name)
    assert bad.said(result) == bad.text_of(name).read_text()
    assert (result.exit_code, result.stdout) == (2, "")


def test_the_printed_fixes_work(tmp_path: Path):
    """A machine that changes the word that was meant, or writes the key that is shown, gets at least 45 of the cases to train."""
    passing = []
    with bad.gallery(tmp_path):
        for name in NAMES:
            if bad.mended(name) and bad.trained(name).exit_code == 0:
                passing.append(name)
                shutil.rmtree("run")
    print(f"{len(NAMES)} cases of bad data, {len(passing)} train after the printed fix")
    assert len(passing) >= 45


def test_every_text_points_and_mends():
    """Each error names a line of the config or of the data, or a file that has no lines; and says what to do, or what is allowed."""
    texts = {file: file.read_text() for file in FOLDER.rglob("*.txt")}
    assert (len(NAMES), len(INPUTS), len(texts)) >= (60, 10, 70)
    for file, text in texts.items():
        for one in text.split("error: ")[1:]:
            assert "\nfix: " in one or "is not one of" in one, file
            assert "\n      | " in one or one.startswith(file.stem), file
            assert "Traceback" not in one, file
