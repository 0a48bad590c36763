"""`nnrun train --folds`: a network for each fold, and every row predicted by one that has not seen it."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Call = Callable[..., Result]
CONFIG = "dataset: iris\nsplit: {method: stratified, train: 0.6, val: 0.2, test: 0.2}\npreprocess: [standardize]\nlayers: [4]\nepochs: 3\nlr: 0.05\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config that trains in milliseconds."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    return tmp_path / "it.yaml"


def table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the out-of-fold predictions."""
    with (folder / "out_of_fold.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_predicted_by_a_network_that_has_not_seen_it(call: Call, tmp_path: Path, config: Path):
    """Mean and deviation over the folds; the table has each row once, in order, and its figures are those of the runs."""
    done = call("train", "it.yaml", "--folds", "4", "--out", "all", "--json", "-q")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "all" / "summary.json").read_text())
    folds = [json.loads((tmp_path / "all" / f"fold-{number}" / "summary.json").read_text()) for number in range(1, 5)]
    values = [fold["metrics"]["test"]["accuracy"] for fold in folds]
    assert summary["metrics"]["test"]["accuracy"] == {
        "mean": pytest.approx(statistics.fmean(values)),
        "deviation": pytest.approx(statistics.stdev(values)),
        "values": values,
    }
    rows = table(tmp_path / "all")
    assert [int(row["row"]) for row in rows] == list(range(150))
    for number, value in enumerate(values, 1):
        mine = [row for row in rows if row["fold"] == str(number)]
        assert len(mine) in (37, 38)
        assert sum(row["target"] == row["prediction"] for row in mine) / len(mine) == pytest.approx(value)
    assert all(float(row["p_setosa"]) + float(row["p_versicolor"]) + float(row["p_virginica"]) == pytest.approx(1) for row in rows)
    assert summary["out_of_fold"]["accuracy"] == pytest.approx(sum(row["target"] == row["prediction"] for row in rows) / 150)


def test_a_fold_is_a_run_like_any_other(call: Call, tmp_path: Path, config: Path):
    """Its config trains the same network again; preparation was fitted on its own training rows; eval opens it."""
    assert call("train", "it.yaml", "--folds", "3", "--out", "all", "-q").exit_code == 0
    assert call("train", "all/fold-2/config.yaml", "--out", "again", "-q").exit_code == 0
    assert (tmp_path / "again" / "best.safetensors").read_bytes() == (tmp_path / "all" / "fold-2" / "best.safetensors").read_bytes()
    assert (tmp_path / "all" / "fold-1" / "best.safetensors").read_bytes() != (
        tmp_path / "all" / "fold-2" / "best.safetensors"
    ).read_bytes()
    assert call("eval", "--checkpoint", "all/fold-3", "--json").exit_code == 0


def test_folds_go_on_where_they_were_stopped(call: Call, tmp_path: Path, config: Path):
    """A fold that is missing is trained, one that is there is kept; the outcome is the same to the bit."""
    import shutil

    assert call("train", "it.yaml", "--folds", "3", "--out", "all", "-q").exit_code == 0
    straight = (tmp_path / "all" / "out_of_fold.csv").read_bytes()
    shutil.rmtree(tmp_path / "all" / "fold-2")
    (tmp_path / "all" / "out_of_fold.csv").unlink()
    done = call("train", "it.yaml", "--folds", "3", "--out", "all", "--resume", "-q")
    assert (done.exit_code, done.stdout) == (0, "all\n"), done.stderr
    assert (tmp_path / "all" / "out_of_fold.csv").read_bytes() == straight
    assert call("train", "it.yaml", "--folds", "3", "--out", "all", "-q").exit_code == 2


def test_numbers_are_predicted_out_of_fold(call: Call, tmp_path: Path):
    """In the target's own unit."""
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{row % 7},{1000 + 10 * (row % 7)}\n" for row in range(40)))
    (tmp_path / "it.yaml").write_text(
        "dataset: {csv: t.csv, target: y, task: numbers}\nscale_target: standardize\nlayers: [8]\nlr: 0.05\nepochs: 30\n"
    )
    done = call("train", "it.yaml", "--folds", "4", "--out", "all")
    assert done.exit_code == 0, done.stderr
    assert "\n4 folds, 40 rows, each predicted by the network that has not seen it\n" in done.stderr
    assert all(abs(float(row["target"]) - float(row["prediction"])) < 30 for row in table(tmp_path / "all"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--folds", "1"], "error: --folds 1 is no cross-validation\nfix: write --folds 5\n"),
        (
            ["--folds", "3", "--set", "split={method: rows, train: '0:100', test: rest}"],
            "error: --folds: split method 'rows' has no folds\n",
        ),
        (
            ["--folds", "3", "--set", "split={train: 0.5, val: rest}"],
            "error: --folds: split.val is the rest, and the folds leave no rest\n",
        ),
        (["--folds", "60"], "class 'setosa' has 50 rows to share between 60 folds"),
        (["--folds", "3", "--resume"], "error: --resume holds no folds to go on with\n"),
    ],
)
def test_what_cannot_be_folded_is_told(call: Call, config: Path, arguments: list[str], told: str):
    """In a sentence."""
    done = call("train", "it.yaml", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr


def test_the_report_of_folds(call: Call, tmp_path: Path, config: Path):
    """One page in the folder of folds: each fold, mean and deviation, the confusion of all rows; `report` draws it again to the byte."""
    done = call("train", "it.yaml", "--folds", "3", "--out", "all", "--report")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "all\n"
    assert "\nreport: all/report.html\n" in done.stderr
    page = (tmp_path / "all" / "report.html").read_text()
    summary = json.loads((tmp_path / "all" / "summary.json").read_text())
    over, pooled = summary["metrics"]["test"]["accuracy"], summary["out_of_fold"]["accuracy"]
    assert f'<p class="headline">accuracy {over["mean"]:.4g} ± {over["deviation"]:.2g} over 3 folds</p>' in page
    assert page.count("<tr><td>setosa</td><td>50</td>") == 1
    rows = [line for line in page.splitlines() if line.startswith(("<tr><td>1</td>", "<tr><td>2</td>", "<tr><td>3</td>"))]
    for line, value in zip(rows, over["values"], strict=True):
        assert (
            f"<td>50</td><td>3</td><td>{summary['metrics']['test']['loss']['values'][rows.index(line)]:.4f}</td><td>{value:.4f}</td>"
            in line
        )
    assert f"<td>{pooled:.4f}</td></tr>" in page
    assert "Confusion matrix, out of fold" in page
    assert sorted(file.name for file in (tmp_path / "all" / "plots").iterdir())[0] == "confusion.png"
    assert not (tmp_path / "all" / "fold-1" / "report.html").exists()
    assert call("report", "all").stdout == "all/report.html\n"
    assert (tmp_path / "all" / "report.html").read_text() == page
    assert call("report", "all/fold-2").exit_code == 0
    call("report", "all")
    assert '<a href="fold-2/report.html">2</a>' in (tmp_path / "all" / "report.html").read_text()


def test_no_report_of_folds(call: Call, tmp_path: Path, config: Path):
    """When none is wanted; and folds that are not finished have none."""
    assert call("train", "it.yaml", "--folds", "3", "--out", "all", "-q", "--no-report").exit_code == 0
    assert not (tmp_path / "all" / "report.html").exists()
    (tmp_path / "all" / "summary.json").unlink()
    done = call("report", "all")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: the folds in all are not finished\nfix: go on with them: nnrun train CONFIG --folds K --out all --resume\n",
    )


def test_the_report_of_folds_of_numbers(call: Call, tmp_path: Path):
    """Several targets, in their own units, whose names could be taken for others of the table."""
    (tmp_path / "t.csv").write_text("a,row,<b>\n" + "".join(f"{row % 7},{10 * (row % 7)},{row % 7 - 3}\n" for row in range(40)))
    (tmp_path / "it.yaml").write_text("dataset: {csv: t.csv, target: [row, <b>], task: numbers}\nepochs: 2\n")
    done = call("train", "it.yaml", "--folds", "4", "--out", "all", "--report")
    assert "\nreport: all/report.html\n" in done.stderr, done.stderr
    page = (tmp_path / "all" / "report.html").read_text()
    assert "Predicted against true, out of fold" in page
    assert "Residuals, out of fold" in page
