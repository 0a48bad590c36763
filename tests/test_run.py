"""A run's records: the folder, the rows, the best epoch, the same bits again, and going on with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

import nnrun.run
from nnrun.run import Run, open_run
from nnrun.runs.checkpoint import load, read_header
from nnrun.spec.reader import read_spec
from tests.conftest import Program

Call = Callable[..., Result]
CONFIG = "dataset: iris\npreprocess: [standardize]\nlayers: [8]\noptimizer: {sgd: {momentum: 0.9}}\nlr: 0.05\nbatch_size: 16\nepochs: 6\n"


def opened(folder: Path, text: str = CONFIG, **options: Any) -> Run:
    (folder / "it.yaml").write_text(text)
    spec, source = read_spec(folder / "it.yaml")
    return open_run(spec, source, **options)


def digests(file: Path) -> dict[str, str]:
    return dict(read_header(file).facts["tensors"])


def test_the_folder_holds_what_the_readme_says(call: Call, tmp_path: Path):
    """Six files, and a config that is complete."""
    (tmp_path / "it.yaml").write_text(f"# mine\n{CONFIG}")
    done = call("train", "it.yaml", "--out", "run", "--json")
    names = {
        "config.yaml",
        "config.source.yaml",
        "metrics.jsonl",
        "best.safetensors",
        "last.safetensors",
        "last-1.safetensors",
        "summary.json",
        ".lock",
    }
    assert {file.name for file in (tmp_path / "run").iterdir()} == names
    assert (tmp_path / "run" / "config.source.yaml").read_text() == f"# mine\n{CONFIG}"
    assert json.loads(done.stdout) == json.loads((tmp_path / "run" / "summary.json").read_text())
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (saved["loss"]["name"], saved["metrics"], saved["split"]["train"]) == ("cross_entropy", ["accuracy"], 0.6)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"epoch", "step", "train", "val", "lr", "seconds"}] * 6


def test_the_same_config_gives_the_same_bytes(nnrun: Program, tmp_path: Path):
    """Two processes, two hash seeds, two folders; and once more from the saved config."""
    (tmp_path / "it.yaml").write_text(CONFIG + "layers: []\n" if False else CONFIG)
    (tmp_path / "elsewhere").mkdir()
    nnrun("train", "it.yaml", "--out", "a", PYTHONHASHSEED="1")
    nnrun("train", "../it.yaml", "--out", "b", cwd=tmp_path / "elsewhere", PYTHONHASHSEED="2")
    nnrun("train", "a/config.yaml", "--set", "name=it", "--out", "c")
    for name in ("best.safetensors", "last.safetensors"):
        first = (tmp_path / "a" / name).read_bytes()
        assert (tmp_path / "elsewhere" / "b" / name).read_bytes() == first
        assert (tmp_path / "c" / name).read_bytes() == first


def test_the_best_epoch_is_kept_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`best` has the weights of the epoch with the lowest validation loss, and the summary is made from them."""
    monkeypatch.chdir(tmp_path)
    run = opened(tmp_path, CONFIG.replace("lr: 0.05", "lr: 2.0").replace("epochs: 6", "epochs: 20"))
    records = list(run.train())
    best = min(records, key=lambda record: record.val["loss"])
    assert best.epoch < 20, "the case is no test of anything if the last epoch is the best"
    assert run.summary["best_epoch"] == best.epoch == load(run.folder / "best.safetensors").facts["epoch"]
    assert run.summary["metrics"]["val"] == best.val


def test_early_stopping_waits_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three epochs without improvement, and not one more."""
    monkeypatch.chdir(tmp_path)
    text = CONFIG.replace("lr: 0.05", "lr: 2.0").replace("epochs: 6", "epochs: 200")
    records = list(opened(tmp_path, text + "early_stopping: {patience: 3}\n").train())
    best = min(records, key=lambda record: record.val["loss"])
    assert records[-1].epoch == best.epoch + 3 < 200


def test_plateau_lowers_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The rate falls by its factor when the validation loss does not improve."""
    monkeypatch.chdir(tmp_path)
    text = CONFIG.replace("lr: 0.05", "lr: 2.0").replace("epochs: 6", "epochs: 40")
    rates = [record.lr for record in opened(tmp_path, text + "schedule: {plateau: {factor: 0.5, patience: 1}}\n").train()]
    assert rates[0] == 2.0
    assert rates[-1] < 0.5
    assert sorted(rates, reverse=True) == rates


@pytest.mark.parametrize("extra", ["", "schedule: {plateau: {patience: 0}}\n", "schedule: one_cycle\nwarmup_epochs: 1\n"])
def test_a_stopped_run_goes_on_as_if_never_stopped(extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Left after 3 of 6 epochs; the checkpoints and the rows end equal, to the byte but for the times."""
    monkeypatch.chdir(tmp_path)
    text = CONFIG.replace("layers: [8]", "layers: [{linear: 8}, relu, dropout, {linear: auto}]") + extra + "checkpoint: {every: 1}\n"
    straight = opened(tmp_path, text, out=Path("straight"))
    for _ in straight.train():
        pass
    stopped = opened(tmp_path, text, out=Path("stopped"))
    for record in stopped.train():
        if record.epoch == 3:
            break
    stopped.lock.release()
    resumed = opened(tmp_path, text, out=Path("stopped"), resume=True)
    assert [record.epoch for record in resumed.train()] == [4, 5, 6]
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    rows = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("straight", "stopped")
    ]
    assert rows[0] == rows[1]


def test_evaluation_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Scoring val, test or nothing each epoch leaves the weights as they are, dropout and all."""
    monkeypatch.chdir(tmp_path)
    text = CONFIG.replace("layers: [8]", "layers: [{linear: 8}, relu, dropout, {linear: auto}]")
    made = []
    for number, evaluate in enumerate(("[val]", "[val, test]", "[]")):
        run = opened(tmp_path, text + f"evaluate: {evaluate}\n", out=Path(str(number)))
        for _ in run.train():
            pass
        made.append({name: digest for name, digest in digests(run.folder / "last.safetensors").items() if name.startswith("model/")})
    assert made[0] == made[1] == made[2]


def test_a_changed_config_is_not_resumed(call: Call, tmp_path: Path):
    """The key is named and pointed at."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    (tmp_path / "it.yaml").write_text(CONFIG.replace("lr: 0.05", "lr: 0.06"))
    done = call("train", "it.yaml", "--out", "run", "--resume")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (
        2,
        "error: it.yaml:5:5: the run was started with another lr: 0.05 then, 0.06 now",
    )


def test_two_processes_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call):
    """The second is told, and the first goes on."""
    monkeypatch.chdir(tmp_path)
    run = opened(tmp_path, out=Path("run"))
    for _ in run.train():
        done = call("train", "it.yaml", "--out", "run", "--resume")
        assert (done.exit_code, done.stderr) == (
            2,
            "error: another process is training in run\nfix: wait for it, or give another --out\n",
        )
        break
    run.lock.release()


def test_best_is_written_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A save at which no epoch was better leaves the file alone: it would be the same bytes."""
    text = "dataset: iris\nlr: 0.3\nbatch_size: 8\nepochs: 12\ncheckpoint: {every: 1 epoch}\n"
    written: list[str] = []
    real = nnrun.run.commit

    def counted(path: Path, data: bytes, **options: Any) -> None:
        written.append(path.name)
        real(path, data, **options)

    monkeypatch.setattr(nnrun.run, "commit", counted)
    for _ in opened(tmp_path, text, out=tmp_path / "run").train():
        pass
    losses = [json.loads(line)["val"]["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    better = [loss for number, loss in enumerate(losses) if loss < min(losses[:number], default=math.inf)]
    assert 1 < len(better) < 12
    assert written.count("best.safetensors") == len(better)
    assert written.count("last.safetensors") == 13
