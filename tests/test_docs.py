"""The documentation: its pages say what is printed, its site has no dead end, and each part has its place in the reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nnrun.builtin  # noqa: F401
from docs.make.pages import Page, says
from docs.make.site import DOCS, build, lay_out, strict
from nnrun.cli import app
from nnrun.errors import NnrunError
from nnrun.registry import KINDS
from nnrun.spec.experiment import Experiment
from tests.conftest import ROOT


def page(folder: Path, text: str) -> Page:
    (folder / "page.md").write_text(text)
    (folder / "run").mkdir()
    return Page(folder / "page.md", folder / "run")


def test_the_site_is_built_and_every_page_says_what_is_printed(tmp_path: Path):
    """As `make docs` builds it; then every registered part, key, command and exit code is in the reference, and nothing is fetched from elsewhere."""
    assert build(tmp_path / "site") == []

    def reference(name: str) -> str:
        return (tmp_path / "site" / "reference" / f"{name}.html").read_text()

    for kind, registry in KINDS.items():
        ids = set(re.findall(r'<h2 id="([^"]+)"', reference(kind)))
        assert ids == {name.lower() for name in registry}
    assert set(re.findall(r"<td><code>(\w+)</code></td>", reference("config"))) >= set(Experiment.model_fields)
    commands = re.findall(r'<h2 id="nnrun-(\w+)"', reference("commands"))
    assert len(commands) == len(set(commands)) == len(app.registered_commands)
    codes = re.findall(r"<td>(\d+)(?:, 143)?</td>", reference("exit-codes"))
    assert sorted(map(int, codes)) == sorted(
        {0, 1, 130, *(error.exit_code for error in NnrunError.__subclasses__() if error.exit_code != 2), 2} - {143}
    )
    for file in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]*"', file.read_text()), file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```sh\nnnrun --version\n```\n\n```\nnnrun 9.9.9\n```\n", "-nnrun 9.9.9\n+nnrun 0.1.0"),
        ("```sh\nnnrun show nothing\n```\n", "nnrun show nothing ended with 2"),
        ("```sh\necho one | grep two\n```\n", "grep two ended with 1"),
        ("```python\nprint(1 / 0)\n```\n", "ZeroDivisionError"),
        ("```python\nprint(6)\n```\n\n```\n7\n```\n", "-7\n+6"),
        ("![A plot](plot.png)\n", "no block makes the picture plot.png"),
    ],
)
def test_what_is_not_true_is_told(text: str, told: str, tmp_path: Path):
    """A page that shows what is not printed, a command or a block that fails, a picture that nobody made."""
    faults = page(tmp_path, text).run()
    assert len(faults) == 1
    assert told in faults[0]
    assert str(tmp_path / "page.md") in faults[0]


def test_a_page_is_made_true(tmp_path: Path):
    """`--write` puts what is printed in its place, and leaves everything else as it was; a line whose `…` is true stays."""
    text = "# A page\n\n```sh\necho 'made by nnrun 0.1.0'; seq 2\n```\n\n```\nmade by …\n1\n3\n```\n\nAnd on.\n"
    one = page(tmp_path, text)
    assert one.run(write=True) == []
    assert one.file.read_text() == text.replace("1\n3\n", "1\n2\n")


@pytest.mark.parametrize(
    ("shown", "printed", "true"),
    [
        ("loss 0.1234\n", "loss 0.1235\n", True),
        ("loss 0.1234\n", "loss 0.1300\n", False),
        ("differs by 8e-12\n", "differs by 3e-11\n", True),
        ("40 rows\n", "41 rows\n", False),
        ("a  0.5 [0.4, 0.6]   0.3\n", "a  0.5 [0.4, 0.6]  1.7\n", True),
        ("best epoch 3 of 9, 0.4 s of training\n", "best epoch 3 of 9, 12.1 s of training\n", True),
        ("best epoch 3 of 9, 0.4 s of training\n", "best epoch 4 of 9, 0.4 s of training\n", False),
        ("epoch 9/9  loss 1.5  0:00 left\n", "epoch 1/9  loss 3.1  0:07 left\nepoch 9/9  loss 1.5  0:01 left\n", True),
        ("one\n…\nthree\n", "one\ntwo\ntwo\nthree\n", True),
        ("one\n…\nthree\n", "one\ntwo\n", False),
    ],
)
def test_what_counts_as_the_same(shown: str, printed: str, true: bool):
    """Words and counts to the letter; measured numbers to their last digit; times not at all."""
    assert says(shown, printed) == true


@pytest.mark.parametrize(
    ("text", "extra", "told"),
    [
        ("[on](other.md)\n", {}, "other.md"),
        ("[on](#there)\n", {}, "there is no such anchor"),
        ("![plot](plot.png)\n", {}, "plot.png"),
        ("[on](/absolute.md)\n", {}, "absolute"),
        ("fine\n", {"docs/alone.md": "# Alone\n"}, "alone.md"),
    ],
)
def test_a_dead_end_is_an_error(text: str, extra: dict[str, str], told: str, tmp_path: Path):
    """A link, an anchor or a picture that is not there, and a page that no menu leads to."""
    config = (DOCS / "mkdocs.yml").read_text().partition("nav:")[0] + "nav: [{Home: index.md}]\n"
    lay_out(tmp_path, {"mkdocs.yml": config, "docs/index.md": f"# Home\n\n{text}", **extra})
    faults = strict(tmp_path, tmp_path / "site")
    assert len(faults) == 1
    assert told in faults[0]


def test_a_sound_site_is_none(tmp_path: Path):
    """The same, without a fault."""
    config = (DOCS / "mkdocs.yml").read_text().partition("nav:")[0] + "nav: [{Home: index.md}]\n"
    lay_out(tmp_path, {"mkdocs.yml": config, "docs/index.md": "# Home\n\n## Here\n\n[on](#here)\n"})
    assert strict(tmp_path, tmp_path / "site") == []


def test_the_readme_leads_to_every_page():
    """By its first link into docs/, or over the index."""
    index = (DOCS / "index.md").read_text()
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()
    pages = {str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\(([\w/.-]+\.md)\)", index))
