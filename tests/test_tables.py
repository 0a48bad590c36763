"""A table of mixed columns from end to end, by the commands: train, eval, predict, resume, show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.test_init import numbers

Call = Callable[..., Result]
CONFIG = """\
dataset: {{csv: t.csv, target: {target}, columns: {{id: ignore}}}}
split: {{train: 0.6, val: 0.2, test: 0.2}}
preprocess: {steps}
layers: [16]
epochs: {epochs}
batch_size: 16
lr: 0.01
"""


def lines(rows: int = 120, seed: int = 0) -> list[str]:
    """Return a table whose target follows from a number and a category: `high` when their sum is."""
    noise = np.random.default_rng(seed)
    made = ["id,size,zone,joined,member,label"]
    for row in range(rows):
        size, zone = noise.normal(), "nsew"[noise.integers(4)]
        high = size + {"n": -1, "s": 0, "e": 1, "w": 2}[zone] > 0.5
        joined, member = f"20{10 + row % 10}-0{1 + row % 9}-11", ("yes", "no")[row % 2]
        made.append(f"{row},{'' if row % 11 == 3 else round(size, 3)},{zone},{joined},{member},{'high' if high else 'low'}")
    return made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return the path of the table."""
    (tmp_path / "t.csv").write_text("\n".join(lines()) + "\n")
    return tmp_path / "t.csv"


def trained(call: Call, tmp_path: Path, steps: str, *arguments: str, epochs: int = 30) -> Result:
    """Train on the table with these steps of preprocessing, into `run`."""
    (tmp_path / "it.yaml").write_text(CONFIG.format(target="label", steps=steps, epochs=epochs))
    return call("train", "it.yaml", "--out", "run", "--json", "-q", *arguments)


@pytest.mark.parametrize("coding", ["{one_hot: {unknown: other}}", "{ordinal: {unknown: other}}", "{embed: {unknown: other, at_least: 2}}"])
def test_mixed_columns_from_train_to_predict(call: Call, tmp_path: Path, table: Path, coding: str):
    """Each way to code categories learns, scores the same from the file and from the run, and predicts rows it has never seen."""
    table.write_text("\n".join(lines(300)) + "\n")
    done = trained(call, tmp_path, f"[impute, standardize, {coding}]", epochs=40)
    assert done.exit_code == 0, done.stderr
    figures = json.loads(done.stdout)["metrics"]
    assert figures["test"]["accuracy"] > 0.8
    scored = json.loads(call("eval", "--checkpoint", "run", "--json").stdout)
    assert scored["metrics"] == figures["test"]
    whole = json.loads(call("eval", "--checkpoint", "run", "--data", "t.csv", "--json").stdout)
    rows = {part: json.loads((tmp_path / "run" / "summary.json").read_text())["rows"][part] for part in figures}
    mean = sum(rows[part] * figures[part]["accuracy"] for part in figures) / sum(rows.values())
    assert whole["metrics"]["accuracy"] == pytest.approx(mean)
    (tmp_path / "new.csv").write_text("member,zone,joined,size\nno,somewhere,2030-01-31,\nyes,w,2015-05-05,3\n")
    predicted = call("predict", "--checkpoint", "run", "new.csv", "--proba")
    assert predicted.exit_code == 0, predicted.stderr
    assert predicted.stdout.splitlines()[0] == "row,prediction,high,low"
    assert len(predicted.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("size,zone,joined,member\n1,n,2020-01-01,yes\n2,Q,2020-01-01,yes\n",
         "error: new.csv:3:3: column 'zone': 'Q' is a category that no training row has (the only such cell, row 1 counted from 0)\n"
         "    3 | 2,Q,2020-01-01,yes\n      |   ^\nfix: it knows e, n, s, w; or train with `one_hot: {unknown: other}`\n"),
        ("size,zone,joined\n1,n,2020-01-01\n", "error: new.csv has no column 'member'\nfix: (its columns are size, zone, joined)\n"),
        ("size,zone,joined,member\n1,n,yesterday,yes\n",
         "error: new.csv:2:5: column 'joined': 'yesterday' is not a date (the only such cell, row 0 counted from 0)\n"
         "    2 | 1,n,yesterday,yes\n      |     ^^^^^^^^^\nfix: write it like 2026-01-31 or 2026-01-31 12:00\n"),
        ("size,zone,joined,member\n1,n,2020-01-01,maybe\n",
         "error: new.csv:2:16: column 'member': 'maybe' is neither true nor false (the only such cell, row 0 counted from 0)\n"
         "    2 | 1,n,2020-01-01,maybe\n      |                ^^^^^\nfix: it knows no, yes\n"),
        ("size,zone,joined,member\nbig,n,2020-01-01,yes\n",
         "error: new.csv:2:1: column 'size': 'big' is not a number (the only such cell, row 0 counted from 0)\n"
         "    2 | big,n,2020-01-01,yes\n      | ^^^\nfix: the network needs a number in every cell of this column: mend the row, or leave it out\n"),
        ("size,zone,joined,member\n", "error: new.csv has a header but no rows\nfix: add rows of data below it\n"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_predicted(call: Call, tmp_path: Path, table: Path, text: str, told: str):
    """An unseen category, a missing column, a wrong type, an empty file: file, line, column and mend, and no prediction."""
    assert trained(call, tmp_path, "[impute, standardize]", epochs=1).exit_code == 0
    (tmp_path / "new.csv").write_text(text)
    done = call("predict", "--checkpoint", "run", "new.csv")
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", told)


def test_missing_values_are_refused_where_none_were_learned_from(call: Call, tmp_path: Path):
    """A network without `impute` cannot guess."""
    (tmp_path / "t.csv").write_text("\n".join(line for line in lines() if ",," not in line) + "\n")
    assert trained(call, tmp_path, "[standardize]", epochs=1).exit_code == 0
    (tmp_path / "new.csv").write_text("size,zone,joined,member\n,n,2020-01-01,yes\n")
    assert call("predict", "--checkpoint", "run", "new.csv").stderr == (
        "error: new.csv:2:1: column 'size' is missing in 1 of 1 rows (the first is row 0 counted from 0)\n"
        "    2 | ,n,2020-01-01,yes\n      | ^\nfix: fill it in, leave the row out, or train with `impute`: this network has no step for it\n"
    )


def test_a_run_on_mixed_columns_resumes_to_the_bit(call: Call, tmp_path: Path, table: Path):
    """Embeddings, weights of classes and scaled numbers come back from the checkpoint."""
    steps = "[{impute: {flag: true}}, standardize, embed]"
    assert trained(call, tmp_path, steps, "--set", "class_weight=balanced", epochs=4).exit_code == 0
    (tmp_path / "run").rename(tmp_path / "straight")
    assert trained(call, tmp_path, steps, "--set", "class_weight=balanced", epochs=2).exit_code == 0
    assert trained(call, tmp_path, steps, "--set", "class_weight=balanced", "--resume", epochs=4).exit_code == 0
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == (tmp_path / "straight" / "best.safetensors").read_bytes()
    assert "embed_columns" in call("show", "run").stdout


def test_the_config_of_a_run_trains_it_again(call: Call, tmp_path: Path, table: Path):
    """What was chosen by the data stands in it: the coding of the categories."""
    assert trained(call, tmp_path, "[impute, standardize]", epochs=2).exit_code == 0
    assert "- name: one_hot\n" in (tmp_path / "run" / "config.yaml").read_text()
    again = call("train", "run/config.yaml", "--out", "again", "-q")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == (tmp_path / "again" / "best.safetensors").read_bytes()


def test_new_tables_are_read_as_the_config_says(call: Call, tmp_path: Path, table: Path):
    """Separator, encoding and marks of missing values, for `predict` and for `eval --data`; a class that no training row has is told."""
    text = table.read_text().replace(",", "|").replace("||", "|unbekannt|").replace("|n|", "|nördlich|")
    rare = text.rstrip("\n").rpartition("|")[0] + "|neither\n"
    table.write_bytes(rare.encode("cp1252"))
    keys = 'separator: "|", encoding: cp1252, missing: [unbekannt]'
    config = CONFIG.format(target="label, " + keys, steps="[impute, standardize, one_hot]", epochs=2)
    (tmp_path / "it.yaml").write_text(config.replace("{train: 0.6, val: 0.2, test: 0.2}", "{train: '0:80', test: '80:120', method: rows}"))
    done = call("train", "it.yaml", "--out", "run")
    assert done.exit_code == 0, done.stderr
    assert "note: no training row is of the class 'neither': the network cannot learn it\n" in done.stderr
    predicted = call("predict", "--checkpoint", "run", "t.csv")
    assert (predicted.exit_code, len(predicted.stdout.splitlines())) == (0, 121), predicted.stderr
    scored = call("eval", "--checkpoint", "run", "--data", "t.csv", "--json")
    assert (scored.exit_code, json.loads(scored.stdout)["rows"]) == (0, 120), scored.stderr


def test_ignored_columns_are_neither_read_nor_wanted(call: Call, tmp_path: Path):
    """They may hold anything; eval and predict do without them, and with them."""
    lines = numbers(40, target=lambda row: row % 2).splitlines()
    (tmp_path / "it.csv").write_text("\n".join([lines[0] + ",note", *(f"{line},hello" for line in lines[1:])]) + "\n")
    (tmp_path / "bare.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "it.yaml").write_text("dataset: {csv: it.csv, target: y, columns: {note: ignore}}\nepochs: 1\n")
    done = call("train", "it.yaml", "--out", "run", "-q")
    assert done.exit_code == 0, done.stderr
    scored = [call("eval", "--checkpoint", "run", "--data", file).stdout for file in ("it.csv", "bare.csv")]
    assert scored[0] == scored[1] != ""
    predicted = [call("predict", "--checkpoint", "run", file) for file in ("it.csv", "bare.csv")]
    assert predicted[0].stdout == predicted[1].stdout
    assert predicted[0].stderr == "note: ignored columns: y, note\n"


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ("{nte: ignore}", "has no column 'nte'\n    1 | dataset: {csv: it.csv, target: y, columns: {nte: ignore}}"),
        ("{y: ignore}", "column 'y' is the target\n"),
        ("{a: ignore, b: ignore}", "has no column besides the target and the ignored ones\n"),
    ],
)
def test_columns_are_ignored_by_their_names(call: Call, tmp_path: Path, columns: str, sentence: str):
    """A name that is not there is a slip of the pen; the target cannot be ignored, nor every column."""
    (tmp_path / "it.csv").write_text(numbers(40, target=lambda row: row % 2))
    (tmp_path / "it.yaml").write_text(f"dataset: {{csv: it.csv, target: y, columns: {columns}}}\nepochs: 1\n")
    done = call("train", "it.yaml")
    assert done.exit_code == 2
    assert sentence in done.stderr
