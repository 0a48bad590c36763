"""The site: the pages with their pictures, the reference, and MkDocs, which refuses a link, an anchor or a picture that is not there.

Everything is laid out in a folder of its own and built from there; nothing is written beside the sources.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.make.pages import ROOT, Page
from docs.make.reference import reference

DOCS = ROOT / "docs"
RUN = ("index.md", "tutorial.md", "ideas/*.md")
"""The pages that are run. The others tell of more than one machine and one run can show."""

LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)")


def build(out: Path, *, docs: Path = DOCS, write: bool = False) -> list[str]:
    """Run the pages and build the site; return all that is wrong, nothing when the site stands in `out`."""
    with TemporaryDirectory() as temporary:
        staged = Path(temporary) / "docs"
        staged.mkdir()
        faults = [fault for pattern in RUN for file in sorted(docs.glob(pattern)) for fault in _run(file, docs, staged, write=write)]
        for file in sorted(docs.rglob("*.md")):
            _stage(file, docs, staged)
        lay_out(staged, {f"reference/{name}": text for name, text in reference().items()} | {"code.css": _colours()})
        for file in (*docs.glob("*.css"), *docs.glob("*.yml")):
            shutil.copy2(file, staged if file.suffix == ".css" else staged.parent)
        return faults or strict(staged.parent, out)


def lay_out(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts to files, by their path in a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


def _run(file: Path, docs: Path, staged: Path, *, write: bool) -> list[str]:
    """Run a page, and lay its pictures beside where it will stand."""
    with TemporaryDirectory() as folder:
        page = Page(file, Path(folder))
        faults = page.run(write=write)
        for name in page.pictures() if not faults else ():
            target = (staged / file.relative_to(docs)).parent / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                faults.append(f"{file}: another page has a picture called {name}")
            shutil.copy2(Path(folder) / name, target)
    return faults


def _stage(file: Path, docs: Path, staged: Path) -> None:
    """Copy a page; the files of the project that it links to come along, as on the site there is nothing above it."""
    target = staged / file.relative_to(docs)
    target.parent.mkdir(parents=True, exist_ok=True)

    def brought(link: re.Match[str]) -> str:
        linked = (file.parent / link[1]).resolve()
        if linked.is_relative_to(docs) or linked.suffix == ".md" or not linked.is_file():
            return link[1]
        copied = staged / "source" / linked.relative_to(docs.parent)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(linked, copied)
        return f"{'../' * (len(target.relative_to(staged).parts) - 1)}{copied.relative_to(staged)}"

    target.write_text(LINK.sub(brought, file.read_text("utf-8")), "utf-8")


def _colours() -> str:
    """Return the colours of code, for a light and a dark page."""
    from pygments.formatters import HtmlFormatter

    styles = {"light": "tango", "dark": "github-dark"}
    return "\n".join(HtmlFormatter(style=name).get_style_defs(f"[data-bs-theme={theme}] .codehilite") for theme, name in styles.items())


def strict(folder: Path, out: Path) -> list[str]:
    """Build what is laid out in a folder; return what MkDocs says against it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out.absolute())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # `--quiet` would count no warnings
    told = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    return ["\n".join(told)] if done.returncode else []
