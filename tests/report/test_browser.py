"""The page in a real browser, where there is one: no picture is missing, nothing is asked of the network, and dark is dark."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
PROBE = """<script>
const broken = [...document.images].filter(one => !one.complete || one.naturalWidth == 0).length;
document.documentElement.innerHTML = `${document.images.length} pictures, ${broken} broken, ${document.body.scrollWidth > innerWidth ? "too wide" : "fits"}`;
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Return what a headless browser printed of a page."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=2000"]
    command = [str(BROWSER), *flags, *options, page.absolute().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=page.parent)


@pytest.mark.parametrize(("name", "pictures"), [("digit_run", 10), ("flower_run", 7), ("line_run", 5)])
def test_every_picture_is_there(name: str, pictures: int, request: pytest.FixtureRequest, tmp_path: Path):
    """Asked by a script that is added to a copy of the page, on a narrow screen; a page with a torn picture shows that it would be seen."""
    page = (request.getfixturevalue(name) / "report.html").read_text()
    asked = page.replace("default-src 'none';", "").replace("</body>", f"{PROBE}</body>")
    (tmp_path / "asked.html").write_text(asked)
    assert f"{pictures} pictures, 0 broken, fits" in browse(tmp_path / "asked.html", "--dump-dom", "--window-size=500,800").stdout
    if name == "line_run":
        (tmp_path / "torn.html").write_text(asked.replace("base64,iVBOR", "base64,AAAAA", 1))
        assert f"{pictures} pictures, 1 broken" in browse(tmp_path / "torn.html", "--dump-dom").stdout


def test_nothing_is_said_on_the_console(flower_run: Path):
    """No script error, no refused request: the console is where a browser tells them; the class that is a script has not run."""
    done = browse(flower_run / "report.html", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert "<title>it</title>" in done.stdout


def test_light_and_dark(line_run: Path, tmp_path: Path):
    """The ground of the page, and that of the plots in it, follow the user's choice."""
    shares = {}
    for scheme in ("light", "dark"):
        file = tmp_path / f"{scheme}.png"
        choice = "--blink-settings=preferredColorScheme=" + ("0" if scheme == "dark" else "1")
        browse(line_run / "report.html", f"--screenshot={file}", "--window-size=1000,2500", choice)
        with Image.open(file) as picture:
            counts = picture.convert("L").histogram()
        shares[scheme] = sum(counts[200:]) / sum(counts)
    assert shares["light"] > 0.9
    assert shares["dark"] < 0.1
