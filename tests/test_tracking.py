"""`track: tensorboard | mlflow`: every epoch once, also after a stop; the run is the same, whatever becomes of its record elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

import nnrun.builtin  # noqa: F401
from nnrun.errors import Interrupted
from nnrun.registry import KINDS, TRACKERS
from nnrun.run import open_run
from nnrun.spec.reader import read_spec
from nnrun.tracking.tracker import Tracker
from tests.test_resume import StopAt, finish

Call = Callable[..., Result]
CONFIG = "dataset: iris\npreprocess: [standardize]\nlayers: [{linear: 6}, relu, {dropout: 0.2}, {linear: auto}]\nlr: 0.05\nbatch_size: 30\nepochs: 6\ncheckpoint: {every: 2 epochs}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config that trains in milliseconds."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    return tmp_path / "it.yaml"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of MLflow's records in files; its default, a database, takes seconds to make."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/records")
    from mlflow import MlflowClient

    return MlflowClient(f"file://{tmp_path}/records")


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Register a tracker that draws random numbers, and fails when the second epoch is told; return what it was told."""
    monkeypatch.setattr(TRACKERS, "_entries", dict(TRACKERS._entries))
    monkeypatch.setitem(KINDS, "trackers", TRACKERS)
    told: list[str] = []

    class Stray(Tracker):
        def start(self, begun: Any) -> None:
            told.append(f"start {begun.config['name']} {begun.rows['train']}")

        def record(self, row: Any) -> None:
            torch.rand(7)
            told.append(f"record {row['epoch']}")
            if row["epoch"] == 2:
                raise ConnectionError("the server has gone\nand much more of it")

        def end(self, summary: Any) -> None:
            told.append("end")

    def stray() -> Tracker:
        """Listen for two epochs."""
        return Stray()

    stray.__module__ = "nnrun.stray"  # no plug-in: a checkpoint needs no tracker either way
    TRACKERS.register("stray")(stray)
    return told


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard reads of a run folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def expected(folder: Path, part: str, name: str) -> list[tuple[int, float]]:
    return [(row["epoch"], pytest.approx(row[part][name])) for row in rows(folder)]


def stopped_and_resumed(config: Path, out: Path) -> None:
    """Train until the fourth epoch, of which no checkpoint knows, then to the end."""
    run = open_run(*read_spec(config), out=out)
    for record in run.train():
        if record.epoch == 3:
            break
    run.lock.release()
    del run
    finish(open_run(*read_spec(config), out=out, resume=True))


def test_tensorboard_reads_every_epoch(call: Call, config: Path, tmp_path: Path):
    """Names, steps and values are those of metrics.jsonl; the final figures and the plots are there as well."""
    done = call("train", "it.yaml", "--out", "run", "--set", "track=tensorboard", "--report")
    assert done.exit_code == 0, done.stderr
    assert "note:" not in done.stderr
    read = scalars(tmp_path / "run")
    assert read["train/loss"] == expected(tmp_path / "run", "train", "loss")
    assert read["val/accuracy"] == expected(tmp_path / "run", "val", "accuracy")
    assert [step for step, _ in read["lr"]] == [1, 2, 3, 4, 5, 6]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert read["best/test/accuracy"] == [(summary["best_epoch"], pytest.approx(summary["metrics"]["test"]["accuracy"]))]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    all_of_it = EventAccumulator(str(tmp_path / "run")).Reload()
    assert "plots/confusion" in all_of_it.Tags()["images"]
    (png,) = all_of_it.Images("plots/confusion")
    assert png.encoded_image_string == (tmp_path / "run" / "plots" / "confusion.png").read_bytes()
    told = all_of_it.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    config_of_it = plugin_data_pb2.HParamsPluginData.FromString(told).session_start_info.hparams
    assert (config_of_it["optimizer.name"].string_value, config_of_it["lr"].number_value) == ("adam", 0.05)


def test_tensorboard_after_a_kill_and_a_resume(config: Path, tmp_path: Path):
    """Rows that the last checkpoint does not know come again: each epoch is there once, even for a reader without purging."""
    config.write_text(CONFIG + "track: tensorboard\n")
    stopped_and_resumed(config, tmp_path / "run")
    assert scalars(tmp_path / "run")["train/loss"] == expected(tmp_path / "run", "train", "loss")
    assert [step for step, _ in scalars(tmp_path / "run")["seconds"]] == [1, 2, 3, 4, 5, 6]


def test_a_killed_run_has_its_rows(config: Path, tmp_path: Path):
    """Each epoch is in the event file before the next one begins."""
    config.write_text(CONFIG + "track: tensorboard\n")
    run = open_run(*read_spec(config), out=tmp_path / "run")
    for record in run.train():
        assert [step for step, _ in scalars(tmp_path / "run")["val/loss"]] == list(range(1, record.epoch + 1))
        if record.epoch == 3:
            break
    run.lock.release()


def test_mlflow_is_told(call: Call, config: Path, tmp_path: Path, store: Any):
    """Parameters, a figure for each epoch, artifacts; the run is finished there too."""
    done = call("train", "it.yaml", "--out", "run", "--set", "track={mlflow: {experiment: flowers}}", "--report")
    assert (done.exit_code, done.stdout) == (0, "run\n"), done.stderr
    assert "note:" not in done.stderr
    (found,) = store.search_runs([store.get_experiment_by_name("flowers").experiment_id])
    assert (found.info.run_name, found.info.status) == ("it", "FINISHED")
    assert {name: found.data.params[name] for name in ("lr", "optimizer.name", "rows.train")} == {
        "lr": "0.05",
        "optimizer.name": "adam",
        "rows.train": "90",
    }
    history = [(one.step, one.value) for one in store.get_metric_history(found.info.run_id, "val/loss")]
    assert history == expected(tmp_path / "run", "val", "loss")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found.data.metrics["best/test/loss"] == pytest.approx(summary["metrics"]["test"]["loss"])
    names = {one.path for one in store.list_artifacts(found.info.run_id)}
    assert names == {"best.safetensors", "config.yaml", "plots", "report.html", "summary.json"}
    stored = store.download_artifacts(found.info.run_id, "best.safetensors", str(tmp_path))
    assert Path(stored).read_bytes() == (tmp_path / "run" / "best.safetensors").read_bytes()


def test_mlflow_goes_on_with_its_run(config: Path, tmp_path: Path, store: Any):
    """Interrupted, it says so; resumed, it is the same run, and each epoch is there once."""
    config.write_text(CONFIG + "track: mlflow\n")
    run = open_run(*read_spec(config), out=tmp_path / "run")
    with pytest.raises(Interrupted):
        finish(run, StopAt(run, 10))  # three steps an epoch
    run.lock.release()
    (found,) = store.search_runs(["0"])
    assert found.info.status == "KILLED"
    assert [one.step for one in store.get_metric_history(found.info.run_id, "train/loss")] == [1, 2, 3]
    finish(open_run(*read_spec(config), out=tmp_path / "run", resume=True))
    (found,) = store.search_runs(["0"])
    assert found.info.status == "FINISHED"
    history = [(one.step, one.value) for one in store.get_metric_history(found.info.run_id, "train/loss")]
    assert history == expected(tmp_path / "run", "train", "loss")


def test_mlflow_that_is_gone_is_a_note(call: Call, config: Path, tmp_path: Path, store: Any):
    """Its records vanish in the third epoch; the run ends as if nothing had been."""
    config.write_text(CONFIG + "track: mlflow\n")
    run = open_run(*read_spec(config), out=tmp_path / "run")
    for record in run.train():
        if record.epoch == 3:
            shutil.rmtree(tmp_path / "records")
            (tmp_path / "records").write_text("")
    assert run.finished
    assert [note for note in run.notes if note.startswith("mlflow is not told of this run any more: ")]
    finish(open_run(*read_spec(config, ["track=[]"]), out=tmp_path / "other"))
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == (tmp_path / "other" / "best.safetensors").read_bytes()


def test_a_server_that_does_not_answer_is_told_before(call: Call, config: Path, monkeypatch: pytest.MonkeyPatch):
    """With its address, and no run folder is made."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = call("train", "it.yaml", "--out", "run", "--set", "track={mlflow: {uri: 'http://127.0.0.1:9'}}")
    assert done.exit_code == 4
    assert "MLflow's records at http://127.0.0.1:9 cannot be used: API request to " in done.stderr
    assert done.stderr.endswith("fix: check MLFLOW_TRACKING_URI and the server, or leave `track` out\n")
    assert not Path("run").exists()


def test_a_run_is_the_same_to_the_bit(call: Call, config: Path, tmp_path: Path, listener: list[str]):
    """Not a byte of its checkpoints and not a figure differs, though one tracker draws random numbers, and then fails."""
    done = call("train", "it.yaml", "--out", "told", "--set", "track=[tensorboard, stray]")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("note: stray is not told of this run any more: the server has gone\n") == 1
    assert call("train", "it.yaml", "--out", "alone").exit_code == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "told" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    figures = [[{**row, "seconds": 0} for row in rows(tmp_path / name)] for name in ("told", "alone")]
    assert figures[0] == figures[1]
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("told", "alone")]
    assert summaries[0]["notes"] == summaries[1]["notes"]
    assert listener == ["start it 90", "record 1", "record 2"]
    assert len(scalars(tmp_path / "told")["lr"]) == 6


def test_the_trackers_may_change_on_the_way(config: Path, tmp_path: Path):
    """One that comes later gets the rows from before; the checkpoint is opened and resumed without it."""
    run = open_run(*read_spec(config), out=tmp_path / "run")
    for record in run.train():
        if record.epoch == 3:
            break
    run.lock.release()
    finish(open_run(*read_spec(config, ["track=tensorboard"]), out=tmp_path / "run", resume=True))
    assert [step for step, _ in scalars(tmp_path / "run")["train/loss"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboard.compat.proto.event_pb2"), ("mlflow", "mlflow")])
def test_what_is_not_installed_is_told_before(name: str, module: str, call: Call, config: Path, monkeypatch: pytest.MonkeyPatch):
    """One sentence, at its place, with what to type; exit 2, and no run folder."""
    monkeypatch.setitem(sys.modules, module, None)
    config.write_text(CONFIG + f"track: {name}\n")
    done = call("train", "it.yaml", "--out", "run")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: it.yaml:8:8: track: {name} is not installed\n")
    assert done.stderr.endswith(f"fix: pip install 'nnrun[{name}]', or leave `track` out\n")
    assert not Path("run").exists()


def test_a_run_without_trackers_imports_none(config: Path, tmp_path: Path):
    """Nor does any command that reads its config."""
    code = "import sys; from nnrun.spec.reader import read_spec; import nnrun.builtin; read_spec('it.yaml', ['track=[tensorboard, mlflow]']); sys.exit(bool({'tensorboard', 'mlflow', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
