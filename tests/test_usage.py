"""What a person types wrong on the command line: nnrun's own words, the nearest right one, exit 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import nnrun.machine
import nnrun.training.memory
from nnrun.spec.reader import check
from nnrun.training.memory import most_parameters, numbers_kept

Call = Callable[..., Result]

TABLE = "a,b,kind\n" + "".join(f"{row},{row * row % 7},{'xy'[row % 2]}\n" for row in range(20))
CONFIG = "dataset: {csv: table.csv, target: kind}\nlayers: [4]\nepochs: 1\n"

WRONG = {
    "a misspelt command": (["trian", "it.yaml"], "nnrun has no command 'trian'", "did you mean 'train'? (nnrun --help shows how it is used)"),
    "no command of ours": (["frobnicate", "--foo"], "nnrun has no command 'frobnicate'", "nnrun --help shows how it is used"),
    "a misspelt option": (["train", "it.yaml", "--sett", "lr=1"], "nnrun train has no option --sett", "did you mean --set? (nnrun train --help shows how it is used)"),
    "an option that is a key": (["train", "it.yaml", "--lr", "1"], "nnrun train has no option --lr", "a value of the config is set by --set lr=1"),
    "an option of no command": (["show", "run", "-z"], "nnrun show has no option -z", "nnrun show --help shows how it is used"),
    "no config": (["train"], "nnrun train: CONFIG is missing", "write nnrun train CONFIG"),
    "no checkpoint": (["eval"], "nnrun eval: --checkpoint CHECKPOINT is missing", "write nnrun eval --checkpoint CHECKPOINT"),
    "no input": (["predict", "--checkpoint", "run"], "nnrun predict: INPUT... is missing", "write nnrun predict INPUT... --checkpoint CHECKPOINT"),
    "no value": (["train", "it.yaml", "--set"], "nnrun train: --set wants a value", "write --set PATH=VALUE"),
    "a value too many": (["train", "it.yaml", "--json=3"], "nnrun train: --json takes no value", "write --json alone"),
    "an argument too many": (["train", "it.yaml", "b"], "nnrun train takes no further 'b'", "nnrun train --help shows how it is used"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line_is_told_as_any_other_error(case: str, call: Call):
    """One `error:`, one `fix:`, no box."""
    arguments, what, fix = WRONG[case]
    done = call(*arguments)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"error: {what}\nfix: {fix}\n")


def test_the_program_alone_shows_its_help(call: Call):
    """On stdout, exit 0."""
    done = call()
    assert (done.exit_code, done.stderr) == (0, "")
    assert "predict" in done.stdout


@pytest.fixture
def run(call: Call, tmp_path: Path) -> Path:
    """Return the folder of a small run."""
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "it.yaml").write_text(CONFIG)
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    return tmp_path / "run"


def test_a_fault_of_device_names_the_option(run: Path, call: Call):
    """Not an override that the user never typed; a device that is not there is the environment's fault, in eval too."""
    for arguments in (["train", "it.yaml"], ["eval", "--checkpoint", "run"], ["predict", "table.csv", "--checkpoint", "run"]):
        absent = call(*arguments, "--device", "cuda:99")
        assert absent.exit_code == 4
        assert absent.stderr.startswith("error: --device: device 'cuda:99' ")
        assert "\nfix: take " in absent.stderr
        wrong = call(*arguments, "--device", "frob")
        assert wrong.exit_code == 2
        assert wrong.stderr.startswith("error: --device: ")
        assert wrong.stderr.endswith("\nfix: write auto, cpu, cuda, cuda:1 or mps\n")


def test_every_missed_requirement_is_told(run: Path, call: Call):
    """Both, each with what to do; names that are not scored before any scoring."""
    done = call("eval", "--checkpoint", "run", "--require", "accuracy>=1.5", "--require", "loss<0", "--require", "loss>0")
    assert done.exit_code == 5
    first, second = done.stderr.split("\nerror: ")
    assert first.startswith("error: accuracy is ")
    assert second.startswith("loss is ")
    assert done.stderr.count("\nfix: train a better network, or require less") == 2
    unknown = call("eval", "--checkpoint", "run", "--require", "accurac>=1", "--require", "f1>=1")
    assert (unknown.exit_code, unknown.stdout, unknown.stderr) == (
        2,
        "",
        "error: --require accurac: this checkpoint is not scored by it\nfix: did you mean 'accuracy'? it is scored by loss, accuracy\n"
        "error: --require f1: this checkpoint is not scored by it\nfix: it is scored by loss, accuracy\n",
    )


def test_a_missing_folder_of_out_is_told_before_the_work(run: Path, call: Call):
    """Also when there is nothing to predict from."""
    done = call("predict", "absent.csv", "--checkpoint", "run", "--out", "nodir/p.csv")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: --out nodir/p.csv: the folder nodir does not exist\nfix: make it, or give another file\n",
    )


def test_a_file_that_cannot_be_written_is_worded_once(run: Path, call: Call, tmp_path: Path):
    """The reason of the system, without polars' number and the path again."""
    (tmp_path / "o.csv").symlink_to("/dev/full")
    done = call("predict", "table.csv", "--checkpoint", "run", "--out", "o.csv")
    assert (done.exit_code, done.stderr) == (
        4,
        "note: ignored columns: kind\nerror: o.csv cannot be written: No space left on device\n"
        "fix: check the folder, its permissions, and the space on the disk\n",
    )


def test_a_run_without_its_best_says_which_is_taken(run: Path, call: Call):
    """One note, for eval and for predict."""
    (run / "best.safetensors").unlink()
    note = "note: run holds no best.safetensors; this is last.safetensors, the state in which training stopped\n"
    for arguments in (["eval", "--checkpoint", "run"], ["predict", "table.csv", "--checkpoint", "run"]):
        done = call(*arguments)
        assert done.exit_code == 0
        assert done.stderr.count(note) == 1
    assert call("eval", "--checkpoint", "run/last.safetensors").stderr == ""


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"a": 1, "a": 3, "b": 2}', "stdin:2:10: the key 'a' is given twice in this line\n    2 | {\"a\": 1, \"a\": 3, \"b\": 2}\n      |          ^^^\nfix: keep one of them\n"),
        ('{"a": null, "b": 2}', "stdin:2:1: column 'a' is missing in 1 of 2 rows (the first is row 1 counted from 0)\n"
         "    2 | {\"a\": null, \"b\": 2}\n      | ^\nfix: fill it in, leave the row out, or train with `impute`: this network has no step for it\n"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_predicted_from(line: str, sentence: str, run: Path, call: Call, tmp_path: Path):
    """A key twice is not one of its values; a fix is something that can be done when predicting. From a file as from stdin."""
    text = '{"a": 1, "b": 2}\n' + line + "\n"
    assert call("predict", "--checkpoint", "run", "-", input=text).stderr == f"error: {sentence}"
    (tmp_path / "in.jsonl").write_text(text)
    assert call("predict", "--checkpoint", "run", "in.jsonl").stderr == f"error: {sentence.replace('stdin', 'in.jsonl')}"


def test_configs_that_are_there_are_counted(call: Call, tmp_path: Path):
    """The nearest name first; one is, several are."""
    (tmp_path / "iris.yaml").write_text(CONFIG)
    assert call("train", "irs.yaml").stderr == "error: irs.yaml does not exist\nfix: did you mean 'iris.yaml'?\n"
    assert call("train", "quite.yaml").stderr == "error: quite.yaml does not exist\nfix: there is iris.yaml\n"
    (tmp_path / "wine.yml").write_text(CONFIG)
    assert call("train", "something.yaml").stderr == "error: something.yaml does not exist\nfix: there are iris.yaml, wine.yml\n"


def test_what_is_no_text_is_not_another_encoding(call: Call, tmp_path: Path):
    """A program given as a config, or as a table."""
    rubbish = bytes(range(256)) * 4
    (tmp_path / "it.yaml").write_bytes(rubbish)
    assert call("train", "it.yaml").stderr == "error: it.yaml is not text\nfix: is this a config? it is a page of YAML\n"
    (tmp_path / "it.csv").write_bytes(rubbish)
    done = call("init", "it.csv", "--target", "y")
    assert done.stderr == "error: it.csv is not text\nfix: is this the right file? a table is text, one row in each line\n"


@pytest.mark.parametrize(("key", "mend"), [("clip_grad_norm", "write `clip_grad_norm: null`"), ("accumulate_batches", "raise batch_size")])
def test_what_lbfgs_would_pass_over_is_refused(key: str, mend: str, call: Call, tmp_path: Path):
    """Its step looks at the loss several times: gradients are neither clipped nor added up."""
    (tmp_path / "it.yaml").write_text(f"dataset: iris\noptimizer: lbfgs\n{key}: 2\n")
    column, caret = len(key) + 3, " " * (len(key) + 2) + "^"
    done = call("train", "it.yaml")
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: it.yaml:3:{column}: {key} does not go with lbfgs, which looks at the loss several times in one step\n"
        f"    3 | {key}: 2\n      | {caret}\nfix: {mend}, or take another optimizer\n",
    )


@pytest.mark.parametrize(
    ("optimizer", "count"),
    [
        ("sgd", 0),
        ({"sgd": {"momentum": 0.9}}, 1),
        ("adam", 2),
        ({"adam": {"amsgrad": True}}, 3),
        ("muon", 1),
        ({"lbfgs": {"history_size": 5}}, 10),
    ],
)
def test_what_an_optimizer_keeps_is_counted(optimizer: object, count: int):
    """Found by a step, so that a new optimizer needs no table."""
    spec = check({"name": "it", "dataset": "iris", "optimizer": optimizer})
    assert numbers_kept(spec) == count


def test_a_network_that_memory_cannot_train_is_refused(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before it is allocated, with the reckoning; so are batches whose values between the layers do not fit."""
    monkeypatch.setattr(nnrun.training.memory, "free_memory", lambda: 520_000)
    (tmp_path / "it.yaml").write_text("dataset: iris\nlayers: [8, 2000]\n")
    done = call("train", "it.yaml")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: it.yaml:2:13: layer 2 (linear): 18,000 parameters, and 40 before it, are more than 10,000: adam and its checkpoints take "
        "52 bytes for each, and 0.5 MB of memory are free\n    2 | layers: [8, 2000]\n      |             ^^^^\n"
        "fix: make it smaller, or reduce what reaches it\n",
    )
    wide = "dataset: iris\nlayers: [{linear: 40}, {unflatten: [40, 1]}, {upsample: {scale_factor: 100}}, flatten, {linear: auto}]\n"
    monkeypatch.setattr(nnrun.training.memory, "free_memory", lambda: 1_200_000)
    for config, code, sentence in (
        (wide + "batch_size: 90\n", 4, "error: it.yaml:3:13: the layers make 4,043 values of each row, 2.9 MB for a batch of 90 rows, and 1.2 MB are free\n"),
        (wide, 4, "error: it.yaml:2:9: a layer makes 4,000 values of each row, 32.8 MB for the 1024 rows that are scored at once, and 1.2 MB are free\n"),
    ):  # fmt: skip
        (tmp_path / "it.yaml").write_text(config)
        done = call("train", "it.yaml")
        assert (done.exit_code, done.stderr[: len(sentence)]) == (code, sentence)
    assert not (tmp_path / "runs").exists()


def test_the_device_has_its_own_memory(monkeypatch: pytest.MonkeyPatch):
    """On CUDA only the copies of a checkpoint are in the machine's memory."""
    monkeypatch.setattr(nnrun.training.memory, "free_memory", lambda: 48_000)
    spec = check({"name": "it", "dataset": "iris"})
    assert most_parameters(spec, torch.device("cuda"), keeps_best=True)[0] == 1000


def test_free_memory_is_a_share_of_the_machine():
    """Some of it, and never less than nothing."""
    assert 0 < nnrun.machine.free_memory() < 1 << 60
