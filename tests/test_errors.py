"""Bad input: one clear error each, the right exit code, no traceback, and no run folder that looks whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

from tests.conftest import IRIS, Program

Call = Callable[..., Result]

TABLE = "a,b,kind\n1,2,x\n2,3,y\n3,4,x\n4,5,y\n5,6,x\n6,7,y\n"

CONFIGS = {
    "a misspelt key": (
        "dataset: iris\nepoch: 3\n",
        2,
        "error: it.yaml:2:1: key 'epoch' does not exist\n    2 | epoch: 3\n      | ^^^^^\n"
        "fix: did you mean 'epochs'? (allowed: name, seed, dataset, split, preprocess, augment, layers, activation, loss, optimizer, lr, "
        "schedule, …)\n",
    ),
    "a wrong type": (
        "dataset: iris\nlr: fast\n",
        2,
        "error: it.yaml:2:5: lr: 'fast' is not a number\n    2 | lr: fast\n      |     ^^^^\n",
    ),
    "a missing file": (
        "dataset: {csv: tables.csv, target: kind}\n",
        2,
        "error: it.yaml:1:16: FOLDER/tables.csv does not exist\n    1 | dataset: {csv: tables.csv, target: kind}\n"
        "      |                ^^^^^^^^^^\nfix: did you mean 'FOLDER/table.csv'?\n",
    ),
    "a missing target": (
        "dataset: {csv: table.csv, target: kinds}\n",
        2,
        "error: it.yaml:1:35: FOLDER/table.csv has no column 'kinds'",
    ),
    "an empty part": (
        "dataset: {csv: table.csv, target: kind}\nsplit: {train: 0.9, val: 0.0, test: 0.1}\n",
        0,
        "",
    ),
    "a part that comes out empty": (
        "dataset: {csv: table.csv, target: kind}\nsplit: {train: 0.85, val: 0.1, test: 0.05}\n",
        2,
        "error: it.yaml:2:27: split.val: 0.1 of 6 rows is 0 rows\n    2 | split: {train: 0.85, val: 0.1, test: 0.05}\n"
        "      |                           ^^^\nfix: give it more rows, or write 0\n",
    ),
    "drop_last with no batch": (
        "dataset: iris\nsplit: {train: 0.6, val: 0.2, test: 0.2}\nbatch_size: 100\ndrop_last: true\n",
        2,
        "error: it.yaml:3:13: batch_size 100 with drop_last leaves no batch: the training part has 90 rows\n    3 | batch_size: 100\n"
        "      |             ^^^\nfix: write `batch_size: 90` or less, or `drop_last: false`\n",
    ),
    "a last batch of one with batch_norm": (
        "dataset: iris\nsplit: {train: 91, val: 30, test: 29}\nbatch_size: 10\nlayers: [{linear: 4}, batch_norm, relu, {linear: auto}]\n",
        2,
        "error: it.yaml:3:13: the last batch of 91 training rows in batches of 10 has one row, and batch_norm needs two\n"
        "    3 | batch_size: 10\n      |             ^^\nfix: write `drop_last: true`, or another batch_size\n",
    ),
    "a last layer of another width": (
        "dataset: iris\nlayers: [{linear: 4}, relu, {linear: 2}]\n",
        2,
        "error: it.yaml:2:29: the last layer gives (2,), and the data has 3 classes",
    ),
    "a layer that does not fit": (
        "dataset: iris\nlayers: [{conv2d: {out_channels: 6, kernel_size: 3, name: c}}, {linear: auto}]\n",
        2,
        "error: it.yaml:2:10: layer 0 (conv2d 'c'): wants",
    ),
    "a GPU that is not there": (
        "dataset: iris\ndevice: cuda:7\n",
        4,
        "error: it.yaml:2:9: device 'cuda:7' ",
    ),
    "a loss for numbers": (
        "dataset: iris\nloss: poisson_nll\n",
        2,
        "error: it.yaml:2:7: the loss 'poisson_nll' compares numbers, and 'class' has 3 classes: 'setosa', 'versicolor', 'virginica'",
    ),
    "a metric for numbers": ("dataset: iris\nmetrics: [accuracy, rmse]\n", 2, "error: it.yaml:2:21: "),
    "early stopping on nothing": (
        "dataset: iris\nsplit: {train: 0.8, test: 0.2}\nearly_stopping: {patience: 2}\n",
        2,
        "error: it.yaml:3:17: early_stopping watches the validation part, and split.val is 0\n    3 | early_stopping: {patience: 2}\n"
        "      |                 ^^^^^^^^^^^^^\nfix: give split a val share, or watch train.loss\n",
    ),
    "a monitor that is not measured": (
        "dataset: iris\ncheckpoint: {monitor: val.f1_macro}\n",
        2,
        "error: it.yaml:2:23: 'val.f1_macro' is not measured in this run\n    2 | checkpoint: {monitor: val.f1_macro}\n"
        "      |                       ^^^^^^^^^^^^\nfix: measured are train.loss, val.loss, val.accuracy\n",
    ),
    "a learning rate that explodes": (
        "dataset: {name: points, x: [1, 2, 3, 4], y: [100, 200, 300, 400]}\nsplit: {method: rows}\noptimizer: sgd\nlr: 1e30\n",
        3,
        "error: the training loss (inf) or a gradient of it is not finite in epoch 2 of 100, after step 1, at lr 1e+30, in the batch of rows ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS)
def test_a_bad_config_is_told_before_a_folder_is_made(case: str, call: Call, tmp_path: Path):
    """Config, data and machine are checked before the run folder exists; only divergence comes later."""
    config, code, sentence = CONFIGS[case]
    (tmp_path / "it.yaml").write_text(config)
    (tmp_path / "table.csv").write_text(TABLE)
    done = call("train", "it.yaml", "--quiet")
    assert (done.exit_code, done.stderr.replace(str(tmp_path), "FOLDER")[: len(sentence) or None]) == (code, sentence)
    assert "Traceback" not in done.output
    if code not in (0, 3):
        assert done.stdout == ""
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("nan", "error: FOLDER/table.csv:5:1: "),
        ("", "error: FOLDER/table.csv:5:1: "),
        ("inf", "error: FOLDER/table.csv:5:1: "),
        ("four", "error: FOLDER/table.csv:5:1: "),
    ],
)
def test_a_cell_that_is_no_number_is_pointed_at(cell: str, sentence: str, call: Call, tmp_path: Path):
    """A missing value must not become 0, and not a nan in the loss."""
    (tmp_path / "table.csv").write_text(TABLE.replace("\n4,", f"\n{cell},"))
    (tmp_path / "it.yaml").write_text("dataset: {csv: table.csv, target: kind}\n")
    done = call("train", "it.yaml")
    assert done.exit_code == 2
    assert done.stderr.replace(str(tmp_path), "FOLDER").startswith(sentence)


def test_a_folder_that_cannot_be_written_is_an_environment_fault(nnrun: Program, tmp_path: Path, iris_config: Path):
    """Exit 4, the path, and the system's reason; a file where a folder should be stops even root."""
    (tmp_path / "file").write_text("")
    done = nnrun("train", iris_config, "--out", "file/run")
    assert done.returncode == 4
    assert (
        done.stderr
        == "error: file/run cannot be written: Not a directory\nfix: check the folder, its permissions, and the space on the disk\n"
    )


def test_a_folder_with_a_run_is_refused(call: Call, tmp_path: Path, iris_config: Path):
    """A run is never overwritten; without --out the next one gets the next number."""
    assert call("train", iris_config, "--out", "run", "-q").exit_code == 0
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    done = call("train", iris_config, "--out", "run")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: the run folder run is not empty\nfix: give a new folder, or go on with the run in it by --resume\n",
    )
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    assert [call("train", iris_config, "-q").stdout for _ in range(2)] == ["runs/tiny\n", "runs/tiny-2\n"]


CHECKPOINTS: dict[str, tuple[Callable[[Path, bytes], object], str]] = {
    "absent": (lambda file, good: None, "error: it.safetensors does not exist\nfix: give a run folder or one of its .safetensors files\n"),
    "empty": (lambda file, good: file.write_bytes(b""), "error: it.safetensors is not a checkpoint: it is empty"),
    "a torn header": (lambda file, good: file.write_bytes(good[:200]), "error: it.safetensors is not a checkpoint: its header is torn"),
    "torn": (lambda file, good: file.write_bytes(good[:-10]), "error: it.safetensors is damaged: "),
    "a pickle": (lambda file, good: torch.save({"a": 1}, file), "error: it.safetensors is not a checkpoint: it looks like a zip file"),
    "text": (lambda file, good: file.write_text("a,b\n1,2\n3,4\n5,6\n"), "error: it.safetensors is not a checkpoint: "),
    "foreign": (lambda file, good: save_file({"a": torch.ones(2)}, file), "error: it.safetensors is not a checkpoint that nnrun wrote"),
    "a flipped bit": (lambda file, good: file.write_bytes(good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]), "error: it.safetensors is damaged: "),
    "a changed config": (lambda file, good: file.write_bytes(good.replace(b"cross_entropy", b"cross_entrapy")), "error: it.safetensors is "),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINTS)
@pytest.mark.parametrize("command", ["eval", "predict"])
def test_a_bad_checkpoint_is_refused(case: str, command: str, call: Call, tmp_path: Path, iris_config: Path):
    """Whatever is wrong with the file, it is exit 2 and one sentence."""
    assert call("train", iris_config, "--out", "run", "-q").exit_code == 0
    make, sentence = CHECKPOINTS[case]
    make(tmp_path / "it.safetensors", (tmp_path / "run" / "best.safetensors").read_bytes())
    (tmp_path / "in.csv").write_text("a\n1\n")
    done = call(command, "--checkpoint", "it.safetensors", *(["in.csv"] if command == "predict" else []))
    assert (done.exit_code, done.stderr[: len(sentence)], done.stdout) == (2, sentence, "")


USAGE = {
    "an unknown option": (["train", "it.yaml", "--lr", "1"], 2, "error: nnrun train has no option --lr\nfix: a value of the config is set by --set lr=1\n"),
    "an unknown part": (["eval", "--checkpoint", "run", "--split", "tets"], 2, "error: --split tets is not a part\nfix: write train, val or test"),
    "no comparison": (["eval", "--checkpoint", "run", "--require", "accuracy"], 2, "error: --require 'accuracy' is not a comparison"),
    "a figure not made": (["eval", "--checkpoint", "run", "--require", "f1>1"], 2, "error: --require f1: this checkpoint is not scored by it\nfix: it is scored by loss, accuracy"),
    "a requirement missed": (["eval", "--checkpoint", "run", "--require", "accuracy>=1.5"], 5, "error: accuracy is "),
    "an unknown ending": (["predict", "--checkpoint", "run", "in.csv", "--out", "x.xls"], 2, "error: --out x.xls: the ending '.xls' is not known"),
    "an unknown kind": (["list", "layer"], 2, "error: kind 'layer' does not exist\nfix: did you mean 'layers'?"),
    "a folder without a run": (["show", "."], 2, "error: . holds no checkpoint\nfix: give a run folder (runs/NAME) or a .safetensors file"),
    "a file that is not there": (["train", "absent.yaml"], 2, "error: absent.yaml does not exist\nfix: there is it.yaml"),
}  # fmt: skip


@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_command_line_is_told(case: str, call: Call, tmp_path: Path):
    """Usage, names and requirements, each with its exit code."""
    arguments, code, sentence = USAGE[case]
    (tmp_path / "it.yaml").write_text(IRIS)
    if "run" in arguments:
        assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    done = call(*arguments)
    assert (done.exit_code, sentence in done.stderr) == (code, True), done.stderr


def test_a_changed_table_is_noticed_by_eval(call: Call, tmp_path: Path):
    """The figures would belong to other rows than those that were split at training."""
    (tmp_path / "table.csv").write_text(TABLE * 1)
    (tmp_path / "it.yaml").write_text("dataset: {csv: table.csv, target: kind}\nsplit: {train: 4, val: 1, test: 1}\nepochs: 1\n")
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    (tmp_path / "table.csv").write_text(TABLE.replace("6,7", "6,8"))
    done = call("eval", "--checkpoint", "run")
    assert done.exit_code == 2
    said = "error: the data of dataset 'csv' has changed since the network was trained: 1 of 6 rows has changed: row "
    assert done.stderr.startswith(said)
    assert "\nfix: restore it (digest " in done.stderr
