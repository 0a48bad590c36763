"""R3: every pair of optimizer, schedule and device of training resumes to the byte from the middle of an epoch. And what may not resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from nnrun.run import Run, open_run
from nnrun.runs.checkpoint import load, to_bytes
from nnrun.runs.folder import BEST, LAST, commit
from nnrun.runs.signals import Signals
from nnrun.spec.reader import read_spec

Call = Callable[..., Result]

OPTIMIZERS = {"sgd": "{sgd: {momentum: 0.9}}", "adam": "adam", "adamw": "adamw"}
SCHEDULES = {
    "none": "schedule: none\n",
    "step": "schedule: {step: {step_size: 1, gamma: 0.5}}\n",
    "cosine": "schedule: cosine\n",
    "plateau": "schedule: {plateau: {patience: 0, factor: 0.5}}\n",
    "warm-up": "schedule: one_cycle\nwarmup_epochs: 1.5\n",
}
FEATURES = {
    "dropout": "layers: [{linear: 8}, relu, {dropout: 0.3}, {linear: auto}]\n",
    "batch norm": "layers: [{linear: 8}, batch_norm, relu, {linear: auto}]\ndrop_last: true\n",
    "early stopping": "layers: [8]\nearly_stopping: {patience: 2}\n",
    "accumulation": "layers: [8]\naccumulate_batches: 2\n",
    "bf16": "layers: [8]\nprecision: bfloat16\n",
    "clipping": "layers: [8]\nclip_grad_norm: 0.1\n",
}
BASE = "dataset: iris\npreprocess: [standardize]\nlr: 0.05\nbatch_size: 8\nepochs: 4\ncheckpoint: {every: 2 steps}\n"


class StopAt(Signals):
    """A wish to stop that comes true after a number of steps."""

    def __init__(self, run: Run, step: int) -> None:
        super().__init__()
        self._run, self._step = run, step

    @property
    def wish(self) -> bool:
        self.stop = 15 if self._run.state.step >= self._step else 0
        return bool(self.stop)


def finish(run: Run, signals: Signals | None = None) -> None:
    for _ in run.train(signals):
        pass


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_pair_resumes_to_the_byte(optimizer: str, schedule: str, feature: str, tmp_path: Path):
    """Stopped in the middle of the second epoch, and again in the third."""
    from nnrun.errors import Interrupted

    config = tmp_path / "it.yaml"
    config.write_text(f"{BASE}optimizer: {OPTIMIZERS[optimizer]}\n{SCHEDULES[schedule]}{FEATURES[feature]}")
    straight, hurt = tmp_path / "straight", tmp_path / "hurt"
    finish(open_run(*read_spec(config), out=straight))
    per_epoch = json.loads((straight / "metrics.jsonl").read_text().splitlines()[0])["step"]
    for number, step in enumerate((per_epoch + per_epoch // 2, 2 * per_epoch + 1)):
        run = open_run(*read_spec(config), out=hurt, resume=number > 0)
        with pytest.raises(Interrupted):
            finish(run, StopAt(run, step))
        assert run.state.step == step
        run.lock.release()
    finish(open_run(*read_spec(config), out=hurt, resume=True))
    for name in (BEST, LAST):
        assert (hurt / name).read_bytes() == (straight / name).read_bytes()
    rows = [[{**json.loads(line), "seconds": 0} for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (straight, hurt)]
    assert rows[0] == rows[1]


TINY = "dataset: {csv: table.csv, target: kind}\nsplit: {train: 12, val: 4, test: 4}\npreprocess: [standardize]\nlayers: [4]\nbatch_size: 4\nepochs: 3\n"
TABLE = "a,b,kind\n" + "".join(f"{row},{row * row % 7},{'xy'[row % 2]}\n" for row in range(20))


@pytest.fixture
def run(call: Call, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that trains TINY, with changes, into `run`; the first time it has been done already."""
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "it.yaml").write_text(TINY)
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    return lambda *arguments: call("train", "it.yaml", "--out", "run", "--resume", *arguments)


def test_a_finished_run_says_so(run: Call, tmp_path: Path):
    """Exit 0, and nothing is written anew."""
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    done = run()
    assert (done.exit_code, done.stdout) == (0, "run\n")
    assert "note: the run in run is finished: 3 epochs; more epochs in the config would go on with it\n" in done.stderr
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


def test_more_epochs_go_on_and_equal_the_longer_run(run: Call, call: Call, tmp_path: Path):
    """3 epochs and 2 more are the bits of 5; the config in the checkpoint is the one of now."""
    assert run("--set", "epochs=5", "-q").exit_code == 0
    assert call("train", "it.yaml", "--out", "straight", "--set", "epochs=5", "-q").exit_code == 0
    for name in (BEST, LAST):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_schedule_over_all_epochs_does_not_go_on_longer(call: Call, tmp_path: Path):
    """A cosine over 3 epochs is another one than over 5."""
    (tmp_path / "it.yaml").write_text("dataset: iris\nepochs: 3\nschedule: cosine\n")
    assert call("train", "it.yaml", "--out", "run", "-q").exit_code == 0
    done = call("train", "it.yaml", "--out", "run", "--resume", "--set", "epochs=5")
    assert done.exit_code == 2
    assert "the run was started with another epochs: 3 then, 5 now" in done.stderr
    assert "fix: cosine is planned over all epochs; go back to it, start a new run, or give --allow-change epochs" in done.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("lr=0.5", "the run was started with another lr: 0.001 then, 0.5 now"),
        ("seed=1", "the run was started with another seed: 0 then, 1 now"),
        ("layers=[5]", "the run was started with another layers: [4] then, [5] now"),
        ("optimizer=sgd", "the run was started with another optimizer: name adam, "),
        ("batch_size=2", "the run was started with another batch_size: 4 then, 2 now"),
    ],
)
def test_a_changed_config_is_refused_by_its_key(change: str, sentence: str, run: Call):
    """Both values are told, and what would allow it."""
    done = run("--set", change, "--set", "epochs=5")
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert f"give --allow-change {change.partition('=')[0]}" in done.stderr


def test_what_is_allowed_to_change_may(run: Call, tmp_path: Path):
    """The rate changes from the checkpoint on."""
    assert run("--set", "lr=0.5", "--set", "epochs=4", "--allow-change", "lr", "-q").exit_code == 0
    assert [json.loads(line)["lr"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == [0.001] * 3 + [0.5]


def test_changed_data_is_refused_by_its_file(run: Call, tmp_path: Path):
    """The name of the file, and both digests."""
    (tmp_path / "table.csv").write_text(TABLE.replace("5,4,y", "5,3,y"))
    done = run("--set", "epochs=5")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: the data of dataset 'csv' ({tmp_path}/table.csv) has changed since the run was started (digest ")


def test_a_torn_newest_checkpoint_falls_back_and_says_so(run: Call, call: Call, tmp_path: Path):
    """The one before it takes its place, and the run ends with the same bytes."""
    last = tmp_path / "run" / LAST
    whole = last.read_bytes()
    last.write_bytes(whole[:-10])
    done = run()
    assert done.exit_code == 0, done.stderr
    assert "note: run/last.safetensors is damaged: the tensors do not fill the file" in done.stderr
    assert "note: going on from last-1.safetensors, made after epoch 0" in done.stderr
    assert last.read_bytes() == whole


def test_nothing_whole_is_an_error(run: Call, tmp_path: Path):
    """A run is never started anew in silence."""
    for file in (tmp_path / "run").glob("last*.safetensors"):
        file.write_bytes(b"torn")
    done = run()
    assert done.exit_code == 2
    assert done.stderr.startswith("error: no checkpoint in run is whole: ")


def test_no_run_to_go_on_with(call: Call, tmp_path: Path):
    """Neither a missing folder nor a missing --out starts from scratch."""
    (tmp_path / "it.yaml").write_text("dataset: iris\n")
    assert call("train", "it.yaml", "--out", "nowhere", "--resume").stderr == (
        "error: nowhere holds no run to go on with\nfix: check the folder, or leave --resume out to start one\n"
    )
    assert call("train", "it.yaml", "--resume").stderr == (
        "error: --resume needs --out, the folder of the run to go on with\nfix: give --out runs/NAME --resume\n"
    )
    assert not (tmp_path / "nowhere").exists()


def test_what_keeps_the_bits_from_being_the_same_is_told(run: Call):
    """One line, with what and why."""
    done = run("--set", "threads=2", "--set", "epochs=4", "--allow-change", "threads")
    assert done.exit_code == 0, done.stderr
    assert "note: not the same bits from here on: threads 1 → 2\n" in done.stderr


def test_a_key_that_the_config_of_a_run_lacks_counts_as_its_default(iris_config: Path, tmp_path: Path, call: Call):
    """An older nnrun wrote it: the run goes on, unless the key now says something else; the number of processes is no matter."""
    out = tmp_path / "out"
    finish(open_run(*read_spec(iris_config), out=out))
    stored = load(out / LAST)
    for key in ("changed_rows", "sync_batch_norm"):
        del stored.facts["spec"][key]
    del stored.facts["spec"]["split"]["seed"]
    commit(out / LAST, to_bytes(stored))
    again = call("train", iris_config, "--out", out, "--resume", "--set", "epochs=3", "--set", "strategy={ddp: {timeout: 9}}", "-q")
    assert (again.exit_code, again.stderr) == (0, "")
    commit(out / LAST, to_bytes(stored))
    other = call("train", iris_config, "--out", out, "--resume", "--set", "sync_batch_norm=true", "-q")
    assert other.exit_code == 2
    assert "the run was started with another sync_batch_norm: False then, True now\n" in other.stderr
