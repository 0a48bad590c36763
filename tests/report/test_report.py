"""The report of a run: what is in it, that it stands alone, that it can be made again to the byte, and that it never costs a run."""

from __future__ import annotations

import ast
import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from html import escape
from pathlib import Path

import matplotlib
import pytest
from PIL import Image
from typer.testing import Result

from nnrun.errors import CheckpointError, DataError
from nnrun.report.style import COLOURS, DASHES, MARKERS
from nnrun.report.words import results
from nnrun.report.write import write_report
from nnrun.runs.checkpoint import read_header
from tests.conftest import ROOT
from tests.report.conftest import FLOWERS, KINDS, SCRIPT, flowers, trained

Call = Callable[..., Result]
CURVES = {"loss", "lr", "metrics"}


def plots(run: Path) -> dict[str, bytes]:
    return {file.stem: file.read_bytes() for file in (run / "plots").iterdir()}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("flower_run", CURVES | {"confusion", "roc", "precision_recall", "reliability"}),
        ("line_run", {"loss", "lr", "fit", "predicted", "residuals"}),
        ("digit_run", CURVES | {"confusion", "roc", "precision_recall", "reliability", "mistakes", "sample", "filters"}),
    ],
)
def test_the_page_holds_every_plot(name: str, names: set[str], request: pytest.FixtureRequest):
    """The pictures in the page are those in `plots/`, each with its words for those who cannot see it."""
    run: Path = request.getfixturevalue(name)
    assert set(plots(run)) == names
    page = (run / "report.html").read_text()
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="[^"]{20,}">', page)
    assert {base64.b64decode(one) for one in shown} == set(plots(run).values())
    for one in plots(run).values():
        Image.open(io.BytesIO(one)).verify()


def test_the_page_stands_alone(flower_run: Path):
    """No script, no style, font or picture from anywhere else; and a policy that forbids them."""
    page = (flower_run / "report.html").read_text()
    assert set(re.findall(r"(?:src|href)\s*=\s*[\"']?([a-z]+:)", page)) == {"data:"}
    assert not re.search(r"<script|<link|<iframe|@import|url\(", page, re.IGNORECASE)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page


def test_a_users_text_is_only_text(flower_run: Path):
    """A class called <script> and a column called <b> are shown, and do nothing."""
    page = (flower_run / "report.html").read_text()
    assert SCRIPT not in page
    assert "<b>height" not in page
    for kind in KINDS:
        assert f"<td>{escape(kind)}</td>" in page.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")


def test_it_tells_what_was_trained(flower_run: Path):
    """The network by layer, the config as it was run, what the bits depend on, the figures of every part."""
    page = (flower_run / "report.html").read_text()
    summary = json.loads((flower_run / "summary.json").read_text())
    assert re.search(r"<td>Linear</td><td>2</td><td>4</td><td>12</td>", page)
    assert re.search(r"<td>all</td>(<td></td>)*<td>27</td>", page)
    assert escape((flower_run / "config.yaml").read_text()).replace("&#x27;", "&#39;") in page
    assert summary["provenance"]["digests"]["data"] in page
    told = results(summary)
    assert f"test accuracy {told['test']['accuracy']}" in page
    for part in ("train", "val", "test"):
        assert f"<td>{told[part]['f1_macro']}</td>" in page
    assert "[" in told["test"]["accuracy"]


def test_the_best_epoch_is_marked_where_one_was_judged(flower_run: Path, line_run: Path):
    """With a validation part; without one the last epoch is kept, and nothing is the best of anything."""
    marked = "the dotted line is the best epoch, whose weights are kept"
    assert marked in (flower_run / "report.html").read_text()
    assert marked not in (line_run / "report.html").read_text()


def test_intervals_baselines_and_health_are_shown(flower_run: Path, tmp_path: Path):
    """Where summary.json has them."""
    run = tmp_path / "run"
    shutil.copytree(flower_run, run)
    summary = json.loads((run / "summary.json").read_text())
    summary["metrics"]["test"]["accuracy"] = 0.98
    summary |= {
        "intervals": {"test": {"accuracy": [0.895, 0.9965]}},
        "baselines": {"majority": {"metrics": {"accuracy": 0.375}, "seconds": 0.1}},
        "health": [{"code": "NN401", "epoch": 3, "message": "half of <layer> 1 is dead"}],
        "notes": ["NN301: one class <only>"],
        "verdict": "the network beats <the majority class>",
    }
    (run / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "flowers.csv").write_text(flowers())
    page = write_report(run, data=trained(tmp_path, FLOWERS, out="other", epochs=1).data).read_text()
    assert "test accuracy 0.98 [0.90, 1.00]" in page
    assert re.search(r"<th>baseline majority</th>.*<td>0.3750</td>", page, re.DOTALL)
    assert "<p>the network beats &lt;the majority class&gt;</p>" in page
    assert "<li>NN401, epoch 3: half of &lt;layer&gt; 1 is dead</li>" in page
    assert "<li>NN301: one class &lt;only&gt;</li>" in page


def test_metrics_as_csv(flower_run: Path):
    """The numbers of metrics.jsonl, a column each."""
    rows = [json.loads(line) for line in (flower_run / "metrics.jsonl").read_text().splitlines()]
    table = list(csv.DictReader(io.StringIO((flower_run / "metrics.csv").read_text())))
    assert list(table[0]) == ["epoch", "step", "train.loss", "val.loss", "val.accuracy", "val.f1_macro", "lr", "seconds"]
    assert [float(row["val.f1_macro"]) for row in table] == [row["val"]["f1_macro"] for row in rows]
    assert len(table) == 12


@pytest.mark.parametrize("name", ["flower_run", "digit_run"])
def test_made_again_it_is_the_same(call: Call, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """By `nnrun report`, from the folder and the data alone, whatever the user's own style says; and that style is left as it was."""
    run: Path = request.getfixturevalue(name)
    before = {file: file.read_bytes() for file in [*(run / "plots").iterdir(), run / "report.html"]}
    for file in before:
        file.unlink()
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    done = call("report", run)
    assert (done.exit_code, done.stdout) == (0, f"{run}/report.html\n")
    assert {file: file.read_bytes() for file in before} == before
    assert matplotlib.rcParams["axes.facecolor"] == "red"


def test_the_same_training_gives_the_same_plots_and_they_cost_no_bit(
    call: Call, flower_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Trained by the command, with a report: plots and checkpoints are those of the run that was trained without one."""
    monkeypatch.setenv("NNRUN_REPORT", "1")
    (tmp_path / "flowers.csv").write_text(flowers())
    (tmp_path / "it.yaml").write_text(FLOWERS)
    done = call("train", "it.yaml", "--out", "run")
    assert (done.exit_code, done.stdout) == (0, "run\n"), done.stderr
    assert "report: run/report.html\nnext:   nnrun eval --checkpoint run\n        nnrun predict --checkpoint run FILE\n" in done.stderr
    assert plots(tmp_path / "run") == plots(flower_run)
    for name in ("best.safetensors", "last.safetensors"):
        digests = [read_header(run / name).facts["tensors"] for run in (tmp_path / "run", flower_run)]
        assert digests[0] == digests[1]


def test_no_report_draws_none(call: Call, iris_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither page nor plots nor CSV; the option wins over the environment."""
    monkeypatch.setenv("NNRUN_REPORT", "1")
    assert call("train", iris_config, "--out", "run", "--no-report", "-q").exit_code == 0
    assert not {"report.html", "plots", "metrics.csv"} & {file.name for file in (tmp_path / "run").iterdir()}


def test_a_report_that_cannot_be_drawn_fails_no_run(call: Call, iris_config: Path, tmp_path: Path):
    """A file stands where `plots` should: a note says what to do, the result is printed, the exit code is 0."""
    assert call("train", iris_config, "--out", "run", "-q").exit_code == 0
    (tmp_path / "run" / "plots").write_text("mine")
    done = call("train", iris_config, "--out", "run", "--resume", "--report")
    assert (done.exit_code, done.stdout) == (0, "run\n")
    assert (
        "note: there is no report, though the run is whole: run/plots cannot be written: File exists; `nnrun report run` tries again"
        in done.stderr
    )
    assert call("report", "run").exit_code == 4
    assert (tmp_path / "run" / "plots").read_text() == "mine"


def test_a_stopped_run_has_one_too(tmp_path: Path):
    """As far as it came, and it says so; a torn last line of the metrics is left out."""
    (tmp_path / "flowers.csv").write_text(flowers())
    run = trained(tmp_path, FLOWERS + "checkpoint: {every: 1}\n", epochs=3).folder
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    page = write_report(run).read_text()
    assert "stopped after 3 epochs, not finished" in page
    assert len((run / "metrics.csv").read_text().splitlines()) == 4


def test_no_run_and_other_data_are_told(tmp_path: Path, flower_run: Path):
    """With the words of the other commands."""
    with pytest.raises(CheckpointError, match="holds no run"):
        write_report(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(flower_run, run)
    data = flower_run.parent / "flowers.csv"
    whole = data.read_text()
    try:
        data.write_text(whole.replace("1", "2"))
        with pytest.raises(DataError, match="the data of dataset 'csv' has changed since the network was trained"):
            write_report(run)
    finally:
        data.write_text(whole)


def test_lines_are_told_apart_in_grey():
    """Every line of a plot has its own dashes and its own marker beside its colour."""
    assert len(set(map(str, DASHES))) == len(set(MARKERS)) == len(COLOURS)


def test_the_plot_library_is_imported_only_to_draw():
    """Nowhere but in nnrun/report, only inside functions, and pyplot nowhere: training starts without it."""
    heavy = ("matplotlib", "jinja2")
    for file in (ROOT / "nnrun").rglob("*.py"):
        tree = ast.parse(file.read_text())
        top = {node for branch in tree.body for node in ([branch] if isinstance(branch, ast.Import | ast.ImportFrom) else [])}
        for node in ast.walk(tree):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [one.name for one in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            assert not any("pyplot" in name for name in names), file
            if any(name.startswith(heavy) for name in names):
                inside_type_checking = any(isinstance(branch, ast.If) and node in branch.body for branch in tree.body)
                assert file.parent.name == "report", file
                assert node not in top or inside_type_checking, file
