"""eval and predict from the checkpoint alone: another day, another folder, other files."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image
from typer.testing import Result

from tests.conftest import Program

Call = Callable[..., Result]

FLOWERS = "id,height,width,kind\n" + "".join(
    f"{row},{row % 7 + (3 if row % 2 else 0)},{row % 5},{'tall' if row % 2 else 'short'}\n" for row in range(40)
)
CONFIG = "dataset: {csv: flowers.csv, target: kind}\npreprocess: [standardize]\nlayers: [8]\nlr: 0.05\nepochs: 30\n"


@pytest.fixture
def flowers(call: Call, tmp_path: Path) -> Path:
    """Return the folder of a run on a small table of two kinds."""
    (tmp_path / "flowers.csv").write_text(FLOWERS)
    (tmp_path / "it.yaml").write_text(CONFIG)
    done = call("train", "it.yaml", "--out", "run", "-q")
    assert done.exit_code == 0, done.stderr
    return tmp_path / "run"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_eval_repeats_the_summary_to_the_bit(flowers: Path, nnrun: Program, tmp_path: Path):
    """In a new process, started in another folder, after the run folder was moved."""
    summary = json.loads((flowers / "summary.json").read_text())
    moved = tmp_path / "far" / "away"
    shutil.move(flowers, moved)
    for part in ("train", "val", "test"):
        done = nnrun("eval", "--checkpoint", moved, "--split", part, "--json", cwd=tmp_path / "far")
        assert json.loads(done.stdout) == {
            "checkpoint": f"{moved}/best.safetensors", "split": part, "data": None,
            "rows": summary["rows"][part], "metrics": summary["metrics"][part],
            "intervals": summary["intervals"].get(part, json.loads(done.stdout)["intervals"]),
        }  # fmt: skip
    assert list(summary["intervals"]) == ["test"]


def test_eval_scores_a_file_that_has_the_target(flowers: Path, call: Call, tmp_path: Path):
    """The class numbers are those of training, also when the file holds one class only."""
    (tmp_path / "talls.csv").write_text("\n".join(line for line in FLOWERS.splitlines() if not line.endswith("short")) + "\n")
    done = call("eval", "--checkpoint", flowers, "--data", "talls.csv", "--json")
    assert done.exit_code == 0, done.stderr
    predicted = rows_of(call("predict", "--checkpoint", flowers, "talls.csv").stdout)
    share = sum(row["prediction"] == "tall" for row in predicted) / len(predicted)
    assert json.loads(done.stdout)["metrics"]["accuracy"] == share


@pytest.mark.parametrize(("wanted", "code"), [("accuracy>=0.0", 0), ("accuracy<=1", 0), ("accuracy>1", 5), ("loss<0", 5)])
def test_require_decides_the_exit_code(flowers: Path, call: Call, wanted: str, code: int):
    """The figures are printed either way."""
    done = call("eval", "--checkpoint", flowers, "--require", wanted)
    assert done.exit_code == code
    columns = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(name, float(value) >= 0, interval[0] + interval[-1]) for name, value, interval in columns] == [
        ("loss", True, "[]"),
        ("accuracy", True, "[]"),
    ]


def test_columns_go_by_name(flowers: Path, call: Call, tmp_path: Path):
    """Another order, no target, and a column more, which is told."""
    expected = [row["prediction"] for row in rows_of(call("predict", "--checkpoint", flowers, "flowers.csv").stdout)]
    frame = polars.read_csv(io.StringIO(FLOWERS))
    frame.select("width", "id", "height").with_columns(colour=polars.lit("red")).write_csv(tmp_path / "other.csv")
    done = call("predict", "--checkpoint", flowers, "other.csv")
    assert [row["prediction"] for row in rows_of(done.stdout)] == expected
    assert "note: ignored columns: colour" in done.stderr


def test_every_kind_of_input_gives_the_same(flowers: Path, call: Call, tmp_path: Path):
    """CSV, Parquet, JSON lines on stdin, NPY and NPZ hold the same rows."""
    frame = polars.read_csv(io.StringIO(FLOWERS)).drop("kind")
    frame.write_parquet(tmp_path / "in.parquet")
    np.save(tmp_path / "in.npy", frame.to_numpy())
    np.savez(tmp_path / "in.npz", x=frame.to_numpy())
    lines = "\n".join(json.dumps(row) for row in frame.to_dicts())
    expected = rows_of(call("predict", "--checkpoint", flowers, "flowers.csv", "--proba").stdout)
    for name in ("in.parquet", "in.npy", "in.npz", "-"):
        done = call("predict", "--checkpoint", flowers, name, "--proba", input=lines)
        assert rows_of(done.stdout) == expected, done.stderr


def test_probabilities_come_a_column_a_class(flowers: Path, call: Call):
    """They add to 1, and the largest is the prediction."""
    rows = rows_of(call("predict", "--checkpoint", flowers, "flowers.csv", "--proba").stdout)
    assert list(rows[0]) == ["row", "prediction", "short", "tall"]
    for row in rows:
        shares = {name: float(row[name]) for name in ("short", "tall")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
        assert max(shares, key=lambda name: shares[name]) == row["prediction"]


def test_the_ending_of_out_decides_the_format(flowers: Path, call: Call, tmp_path: Path):
    """CSV, JSON and Parquet hold the same table; stdout stays empty."""
    expected = [row["prediction"] for row in rows_of(call("predict", "--checkpoint", flowers, "flowers.csv").stdout)]
    for name, read in (("o.csv", polars.read_csv), ("o.json", polars.read_json), ("o.parquet", polars.read_parquet)):
        done = call("predict", "--checkpoint", flowers, "flowers.csv", "--out", name)
        assert (done.exit_code, done.stdout) == (0, "")
        assert read(tmp_path / name)["prediction"].to_list() == expected
    document = json.loads(call("predict", "--checkpoint", flowers, "flowers.csv", "--json").stdout)
    assert [row["prediction"] for row in document["predictions"]] == expected


def test_a_missing_column_is_named(flowers: Path, call: Call, tmp_path: Path):
    """With the name that is most like it."""
    (tmp_path / "in.csv").write_text("id,hight,width\n1,2,3\n")
    done = call("predict", "--checkpoint", flowers, "in.csv")
    assert done.exit_code == 2
    assert "height" in done.stderr
    assert "'hight'" in done.stderr
    assert done.stdout == ""


def test_numbers_are_predicted_in_their_unit(call: Call, tmp_path: Path):
    """A line y = 3x + 2 without noise; --proba makes no sense here and says so."""
    (tmp_path / "line.csv").write_text("x,y\n" + "".join(f"{x},{3 * x + 2}\n" for x in range(20)))
    (tmp_path / "it.yaml").write_text(
        "dataset: {csv: line.csv, target: y, task: numbers}\npreprocess: [standardize]\nlr: 0.5\nepochs: 300\nbatch_size: all\n"
    )
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    done = call("predict", "--checkpoint", "run", "-", input='{"x": 5}\n{"x": 100}\n')
    assert [float(row["prediction"]) for row in rows_of(done.stdout)] == pytest.approx([17, 302], rel=1e-2)
    refused = call("predict", "--checkpoint", "run", "-", "--proba", input='{"x": 5}\n')
    assert (refused.exit_code, refused.stderr) == (
        2,
        "error: --proba needs classes, and this network predicts numbers\nfix: leave --proba out\n",
    )


def test_pictures_go_by_file_name(call: Call, tmp_path: Path):
    """A folder of pictures, one of which has another size, against a network trained on digits."""
    config = "dataset: digits\npreprocess: [{scale: 0.0625}]\nlayers: [16]\nepochs: 3\n"
    (tmp_path / "it.yaml").write_text(config)
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    (tmp_path / "pictures").mkdir()
    for name, size in (("a.png", 8), ("b.png", 16)):
        Image.fromarray(np.full((size, size), 7, dtype=np.uint8)).save(tmp_path / "pictures" / name)
    done = call("predict", "--checkpoint", "run", "pictures")
    assert [row["file"].rpartition("/")[2] for row in rows_of(done.stdout)] == ["a.png", "b.png"]
    assert len({row["prediction"] for row in rows_of(done.stdout)}) == 1


def test_show_reads_without_torch(flowers: Path, nnrun: Program):
    """The page has the config, the network and the figures; torch is not imported for it."""
    done = nnrun("show", flowers, PYTHONPROFILEIMPORTTIME="1")
    assert "run/best.safetensors (format 1, epoch" in done.stdout
    assert "0.weight" in done.stdout
    assert " torch\n" not in done.stderr
    assert json.loads(nnrun("show", flowers, "--json").stdout)["columns"] == ["id", "height", "width"]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["list"], ["list", "layers"], ["schema"], ["--version"]])
def test_help_and_list_do_not_import_torch(arguments: list[str], nnrun: Program):
    """They answer in a fraction of a second."""
    done = nnrun(*arguments, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith((" torch", " sklearn", " torchvision", " numpy"))]


def test_a_config_fault_is_told_without_torch(nnrun: Program, tmp_path: Path):
    """The front door is open before torch has been carried in."""
    (tmp_path / "base.yaml").write_text("dataset: {csv: absent.csv, target: y}\nlayers: [{linear: 3}, rleu]\n")
    (tmp_path / "it.yaml").write_text(
        "extends: base.yaml\noptimizer: {name: sgd, momentum: 9}\nsplit: {train: 0.5, val: 0.2, test: 0.2}\nepochs: 0\n"
    )
    done = nnrun("train", "it.yaml", "--set", "lr=fast", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 5, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith((" torch", " sklearn", " numpy", " polars"))]


def test_the_input_is_never_overwritten(flowers: Path, call: Call, tmp_path: Path):
    """Not by another spelling of its path either."""
    done = call("predict", "--checkpoint", flowers, "flowers.csv", "--out", "run/../flowers.csv")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: --out run/../flowers.csv is the input itself\nfix: give another file; the input is never overwritten\n",
    )
    assert (tmp_path / "flowers.csv").read_text() == FLOWERS


def test_a_class_may_have_the_name_of_a_column(call: Call, tmp_path: Path):
    """No column is lost."""
    names = ("row", "prediction", "p_row")
    (tmp_path / "it.csv").write_text("a,kind\n" + "".join(f"{row},{names[row % 3]}\n" for row in range(30)))
    (tmp_path / "it.yaml").write_text("dataset: {csv: it.csv, target: kind}\nepochs: 1\n")
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    header = call("predict", "--checkpoint", "run", "it.csv", "--proba").stdout.splitlines()[0].split(",")
    assert len(header) == len(set(header)) == 5


def test_a_full_disk_behind_stdout_is_an_environment_fault(flowers: Path, nnrun: Program):
    """Exit 4 and a sentence, no traceback."""
    import subprocess
    import sys

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nnrun", "eval", "--checkpoint", str(flowers)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.splitlines()[0]) == (4, "error: the system refused: No space left on device")


def test_words_that_cannot_be_written(tmp_path: Path):
    """The help and the version are results, and a fault of the environment; what stderr would have said is lost, and no more."""
    import subprocess
    import sys

    (tmp_path / "it.yaml").write_text("dataset: iris\nepochs: 2\n")
    for command, code in (
        ("--version >/dev/full", 4),
        ("--help >/dev/full", 4),
        ("list nonsense 2>/dev/full", 2),
        ("train it.yaml --out run --no-report 2>/dev/full", 0),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m nnrun {command}"], check=False, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == code, command
        assert done.stderr in ("", "error: the system refused: No space left on device\nfix: check the disk, and where the output goes\n")
    assert (tmp_path / "run" / "summary.json").exists()


def test_closed_streams_are_no_fault(tmp_path: Path):
    """As a daemon may start it; what it tells goes nowhere."""
    import subprocess
    import sys

    for command, code in (("list", 0), ("lst", 2)):
        done = subprocess.run(["sh", "-c", f"{sys.executable} -m nnrun {command} <&- >&- 2>&-"], check=False)
        assert done.returncode == code


def test_a_streamed_prediction_is_the_whole_one(flowers: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In every format, byte for byte, however few rows are read at a time; `--out` of JSON lines too."""
    rows = 5000
    frame = polars.DataFrame({"id": range(rows), "height": [row % 10 for row in range(rows)], "width": [row % 5 for row in range(rows)]})
    frame.write_csv(tmp_path / "in.csv")

    def made() -> dict[str, bytes]:
        found = {name: call("predict", "in.csv", "--checkpoint", flowers, "--proba", *flags) for name, flags in
                 {"csv": [], "json": ["--json"], "o.csv": ["--out", "o.csv"], "o.json": ["--out", "o.json"],
                  "o.jsonl": ["--out", "o.jsonl"], "o.parquet": ["--out", "o.parquet", "--json"]}.items()}  # fmt: skip
        assert [done.exit_code for done in found.values()] == [0] * 6, [done.stderr for done in found.values()]
        assert json.loads(found["o.parquet"].stdout) == {"out": "o.parquet", "rows": rows}
        assert polars.read_parquet("o.parquet").equals(polars.read_csv("o.csv"))
        return {name: Path(name).read_bytes() if "." in name and "parquet" not in name else found[name].stdout_bytes for name in found}

    whole = made()
    for name, read in (("o.json", polars.read_json), ("o.jsonl", polars.read_ndjson)):
        assert read(tmp_path / name).equals(polars.read_csv("o.csv"))
    monkeypatch.setattr("nnrun.data.chunks.BYTES", 4096)
    monkeypatch.setattr("nnrun.data.inputs.BATCHES", 1)
    assert made() == whole


@pytest.mark.parametrize("name", ["o.csv", "o.json", "o.jsonl", "o.parquet"])
def test_a_bad_cell_far_down_leaves_no_half_of_a_file(
    name: str, flowers: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The old file is as it was, nothing lies beside it, and the place of the cell is told."""
    (tmp_path / "in.csv").write_text("id,height,width\n" + "1,2,3\n" * 5000 + "1,tall,3\n")
    (tmp_path / name).write_text("old")
    monkeypatch.setattr("nnrun.data.chunks.BYTES", 4096)
    before = sorted(tmp_path.iterdir())
    done = call("predict", "in.csv", "--checkpoint", flowers, "--out", name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error: in.csv:5002:3: column 'height': 'tall' is not a number (the only such cell, row 5000 counted from 0)" in done.stderr
    assert (tmp_path / name).read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


def test_a_pipe_is_written_to_and_not_replaced(flowers: Path, call: Call, tmp_path: Path):
    """What is no regular file stays what it is."""
    import os
    import threading

    os.mkfifo(tmp_path / "o.csv")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "o.csv").read_text()))
    reader.start()
    done = call("predict", "flowers.csv", "--checkpoint", flowers, "--out", "o.csv")
    reader.join()
    assert (done.exit_code, len(rows_of(read[0]))) == (0, 40)
    assert (tmp_path / "o.csv").is_fifo()


def test_top_k_names_the_likeliest_classes(flowers: Path, call: Call):
    """From the likeliest down, with their probabilities; more than there are is refused."""
    shares = rows_of(call("predict", "flowers.csv", "--checkpoint", flowers, "--proba").stdout)
    top = rows_of(call("predict", "flowers.csv", "--checkpoint", flowers, "--top-k", "2").stdout)
    assert list(top[0]) == ["row", "prediction", "top_1", "p_1", "top_2", "p_2"]
    for row, share in zip(top, shares, strict=True):
        assert row["top_1"] == row["prediction"]
        assert [(row[f"top_{place}"], row[f"p_{place}"]) for place in (1, 2)] == sorted(
            ((name, share[name]) for name in ("short", "tall")), key=lambda one: -float(one[1])
        )
    refused = call("predict", "flowers.csv", "--checkpoint", flowers, "--top-k", "3")
    assert (refused.exit_code, refused.stderr.splitlines()[0]) == (2, "error: --top-k 3: there are 2 classes")
