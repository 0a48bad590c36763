"""`nnrun sweep`: what it leaves behind, what it refuses, and that it never looks at the test part."""

from __future__ import annotations

import builtins
import gc
import json
import random
import re
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

import nnrun.builtin  # noqa: F401
from nnrun.errors import EnvironmentFault, NnrunError
from nnrun.report.style import axes, drawing, png
from nnrun.report.sweep import _panel
from nnrun.run import Run
from nnrun.spec.ranges import Parameter, parameter
from nnrun.spec.reader import read_spec
from nnrun.sweep.finish import finish
from nnrun.sweep.journal import Journal
from nnrun.sweep.samplers import Grid
from nnrun.sweep.space import trial_seed
from nnrun.sweep.sweep import Sweep
from nnrun.sweep.trial import of_no_trial
from nnrun.trained import load
from nnrun.training.loop import stream_seed

Call = Callable[..., Result]
IRIS = "dataset: iris\nsplit: {train: 0.6, val: 0.2, test: 0.2}\npreprocess: [standardize]\nbatch_size: 20\nepochs: 4\nseed: 3\nlayers: [8]\nlr: 0.01\n"
SECTION = "sweep:\n  params: {lr: 'log:1e-3..1e-1', activation: [relu, tanh]}\n  trials: 6\n"


def opened(folder: Path, text: str = IRIS + SECTION, out: str = "all") -> Sweep:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "it.yaml").write_text(text)
    return Sweep(*read_spec(folder / "it.yaml"), out=folder / out)


def train(sweep: Sweep, most: int | None = None) -> Sweep:
    """Train to the end, or so many turns."""
    for number, turn in enumerate(sweep.turns(), 1):
        for _ in sweep.records(turn):
            pass
        if number == most:
            break
    return sweep


def same_weights(*folders: Path) -> bool:
    first, second = (load(folder).network.model.state_dict() for folder in folders)
    return all(torch.equal(first[name], second[name]) for name in first)


def told(sweep: Sweep) -> list[Any]:
    return [(one.params, one.value, one.user_attrs["ended"]["seed"]) for one in sweep.ended()]


def test_a_sweep_from_the_command_line(call: Call, tmp_path: Path):
    """The folder on stdout; a run folder for each trial, for compare and report; the best config, which gives the best network again."""
    (tmp_path / "it.yaml").write_text(IRIS)
    command = [
        "sweep",
        "it.yaml",
        "--param",
        "lr=log:1e-3..1e-1",
        "--param",
        "activation=relu,tanh",
        "--param",
        "layers[0]=int:4..8",
        "--report",
    ]
    done = call(*command, "--trials", "5")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "runs/it-sweep\n"
    assert "trial 4: val.loss " in done.stderr
    assert "5 configs tried: 5 complete" in done.stderr
    assert "next:   nnrun train runs/it-sweep/best.yaml" in done.stderr
    folder = tmp_path / "runs/it-sweep"
    summary = json.loads((folder / "summary.json").read_text())
    best, trials = summary["sweep"]["best"], summary["sweep"]["trials"]
    assert best["value"] == min(one["value"] for one in trials)
    assert [one["seed"] for one in trials] == [stream_seed(3, "trial", number) >> 32 for number in range(5)]
    for number in range(5):  # scored by the best epoch, whichever is the last
        rows = [json.loads(line) for line in (folder / f"trial-{number}/metrics.jsonl").read_text().splitlines()]
        assert trials[number]["value"] == min(row["val"]["loss"] for row in rows)
        assert "test" not in json.loads((folder / f"trial-{number}/summary.json").read_text())["metrics"]
    assert load(folder).evaluate("test")[1] == summary["metrics"]["test"]
    assert summary["intervals"]["test"].keys() == summary["metrics"]["test"].keys()
    assert call("train", "runs/it-sweep/best.yaml", "-q").stdout == "runs/it-best\n"
    assert same_weights(tmp_path / "runs/it-best", folder)
    page = (folder / "report.html").read_text()
    assert "best of 5 configs tried: test accuracy" in page
    assert "the test part was looked at once, for the chosen config alone" in page
    assert {plot.name for plot in (folder / "plots").iterdir()} == {"history.png", "values.png"}  # so few say nothing of importance
    compared = json.loads(call("compare", "runs/it-sweep/trial-0", "runs/it-sweep/trial-1", "--json").stdout)
    assert (compared["runs"][0]["part"], compared["paired"]["part"]) == ("val", "val")
    assert "one is reported on val, the other on test" in call("compare", "runs/it-sweep/trial-0", "runs/it-best").stdout
    assert call("report", "runs/it-sweep/trial-2").stdout == "runs/it-sweep/trial-2/report.html\n"
    assert "val accuracy" in (folder / "trial-2/report.html").read_text()
    again = call(*command, "--trials", "5")
    assert "trial" not in again.stderr.partition("5 configs tried")[0].replace("5 of 5 trials", "")
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert "runs/it-sweep has 5 of 5 trials; nothing is left to try\n" in again.stderr
    assert "importance: 5 complete trials do not tell it; 8 may\n" in again.stderr
    longer = json.loads(call(*command, "--trials", "12", "--json", "-q").stdout)["sweep"]
    assert longer["trials"][:5] == trials
    assert longer["looks"] == 1 + (longer["best"]["number"] != best["number"])
    same = json.loads(call(*command, "--trials", "13", "--json", "-q").stdout)["sweep"]
    assert same["looks"] == longer["looks"] + (same["best"]["number"] != longer["best"]["number"])
    assert "has 13 trials, more than the 12 that are asked for; nothing is left to try\n" in call(*command, "--trials", "12").stderr
    assert "importance.png" in {plot.name for plot in (folder / "plots").iterdir()}


def test_the_test_part_is_never_looked_at(tmp_path: Path):
    """With other numbers and other classes in its rows, every trial is the same, to the last bit; only the one score at the end is not."""
    draw, found = random.Random(0), []
    rows = [[draw.gauss(0, 1), draw.gauss(0, 1)] for _ in range(90)]
    for name, wrong in (("right", False), ("wrong", True)):
        lines = [
            f"{a + 50 * (wrong and number >= 70)},{b},{'no' if (a > b) != (wrong and number >= 70) else 'yes'}"
            for number, (a, b) in enumerate(rows)
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "it.csv").write_text("a,b,kind\n" + "\n".join(lines) + "\n")
        text = IRIS.replace("dataset: iris", "dataset: {csv: it.csv, target: kind}").replace(
            "{train: 0.6, val: 0.2, test: 0.2}", "{method: rows, train: '0:50', val: '50:70', test: '70:90'}"
        )
        found.append(train(opened(tmp_path / name, text + SECTION + "leaks: ignore\nevaluate: [val, test]\n")))
    assert told(found[0]) == told(found[1])
    assert same_weights(*(sweep.trial_folder(3) for sweep in found))
    first, second = (finish(sweep)["metrics"] for sweep in found)
    assert first["val"] == second["val"]
    assert first["test"]["accuracy"] > 0.8 > second["test"]["accuracy"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_the_same_seed_gives_the_same_trials(tmp_path: Path, sampler: str):
    """Also when the sweep is stopped and goes on in between; another seed gives others, and no two trials are the same."""
    text = IRIS.replace("epochs: 4", "epochs: 1") + (
        f"sweep: {{sampler: {sampler}, side_by_side: false, trials: 14, params: {{lr: 'log:1e-3..1e-1', 'layers[0]': 'int:4..8'}}}}\n"
    )
    whole = train(opened(tmp_path, text))
    for most in (3, 5, None):
        stopped = train(opened(tmp_path, text, "stopped"), most)
        stopped.worker.close()
    assert told(stopped) == told(whole)
    assert len({str(one.params) for one in whole.ended()}) == 14
    other = train(opened(tmp_path / "other", text.replace("seed: 3", "seed: 4")), 1)
    assert other.ended()[0].params != whole.ended()[0].params


def test_a_grid_has_every_combination_once(tmp_path: Path):
    """And so many trials; of a seed, too."""
    text = IRIS + "sweep: {sampler: grid, params: {lr: [0.01, 0.1], seed: 'int:1..3', activation: [relu, tanh]}}\n"
    sweep = train(opened(tmp_path, text))
    values = [sweep.values(one) for one in sweep.ended()]
    assert values == [{"lr": lr, "seed": seed, "activation": name} for lr in (0.01, 0.1) for seed in (1, 2, 3) for name in ("relu", "tanh")]
    assert [one.user_attrs["ended"]["seed"] for one in sweep.ended()] == [1, 1, 2, 2, 3, 3] * 2
    assert load(sweep.trial_folder(11)).facts["spec"]["split"]["seed"] == 3  # the rows are those of the config's seed
    summaries = [json.loads((sweep.trial_folder(number) / "summary.json").read_text()) for number in range(12)]
    assert len({json.dumps(one["baselines"]) for one in summaries}) == 1  # worked out once: the seconds of it, too, are the same
    parameters = [parameter("x", "0..0.3:0.1"), parameter("n", "logint:1..3")]
    assert [one.values() for one in parameters] == [[0.0, 0.1, 0.2, pytest.approx(0.3)], None]
    assert Grid([Parameter("x", "int", 1, 3, 1)], 2)._values == {"x": 3}


def test_a_failing_region(tmp_path: Path):
    """A trial that diverges, or whose config is none, is recorded with its error, and the others go on; too many stop the sweep."""
    text = IRIS + (
        "optimizer: {sgd: {momentum: 0.5}}\n"
        "sweep: {sampler: grid, side_by_side: false, max_failures: 0.8, params: {lr: [0.01, 1.0e+30], optimizer.nesterov: [false, true], optimizer.momentum: [0.5, 0.0]}}\n"
    )
    with pytest.raises(NnrunError, match=r"nesterov wants momentum above 0"):
        opened(tmp_path / "first", text.replace("nesterov: [false, true]", "nesterov: [true, false]"))
    sweep = train(opened(tmp_path, text))
    errors = [one.user_attrs["ended"].get("error", "") for one in sweep.ended()]
    assert [one.state.name == "FAIL" for one in sweep.ended()] == [False, False, False, True, True, True, True, True]
    assert "nesterov wants momentum above 0 and dampening 0" in errors[3]
    assert "is not finite in epoch 1 of 4" in errors[4]
    summary = finish(sweep)
    assert [one["error"] for one in summary["sweep"]["trials"] if one["state"] == "failed"] == errors[3:]
    with pytest.raises(NnrunError) as stopped:
        train(opened(tmp_path / "strict", text.replace("0.8", "0.5")))
    assert "5 of 8 trials have failed; trial 7, lr 1e+30, optimizer.nesterov true, optimizer.momentum 0: " in str(stopped.value)
    assert stopped.value.exit_code == 5


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_ends_bad_trials_early(tmp_path: Path, pruner: str):
    """Their folders are whole, with fewer epochs, and none of them is the best."""
    text = (
        IRIS.replace("epochs: 4", "epochs: 12")
        + f"sweep: {{pruner: {pruner}, sampler: random, trials: 18, params: {{lr: 'log:1e-5..1e-1'}}}}\n"
    )
    sweep = train(opened(tmp_path, text))
    pruned = [one for one in sweep.ended() if one.state.name == "PRUNED"]
    assert pruned
    for one in pruned:
        summary = json.loads((sweep.trial_folder(one.number) / "summary.json").read_text())
        assert summary["epochs"] == one.user_attrs["ended"]["epochs"] < 12
        load(sweep.trial_folder(one.number))
    assert finish(sweep)["sweep"]["best"]["number"] not in [one.number for one in pruned]


def test_without_a_test_part_it_is_told(tmp_path: Path):
    """The part that chose is the one that is reported."""
    sweep = train(opened(tmp_path, IRIS.replace("val: 0.2, test: 0.2", "val: 0.4") + SECTION))
    note = "there is no test part: val chose the best of 6 configs, and makes it look better than it is"
    assert note in finish(sweep)["notes"]


def test_a_trial_of_another_machine_is_trained_again(tmp_path: Path):
    """If its folder is not here when it is the best one; the same network comes of it."""
    import shutil

    sweep = train(opened(tmp_path))
    best = sweep.best()
    assert best
    before = (sweep.trial_folder(best.number) / "best.safetensors").read_bytes()
    shutil.rmtree(sweep.trial_folder(best.number))
    finish(sweep)
    assert (sweep.folder / "best.safetensors").read_bytes() == before


REFUSED = {
    "--param learning_rat=log:1e-4..1": "error: --param:1:1: key 'learning_rat' does not exist\n",
    "--param layers[3]=int:1..4": "error: --param:1:11: there is no [3]: the config has 1 items there\n",
    "--param lr=-1..1 --param batch_size=0..8": "error: --param:1:12: batch_size: 0 is not at least 1 or 'all'\n",
    "--param activation=relu,tanhh": "error: --param:1:12: layer 'tanhh' does not exist\n    1 | activation=relu,tanhh\n      |            ^^^^^^^^^^\nfix: did you mean 'tanh'?",
    "--param split.seed=1..3": "error: --param:1:1: a sweep does not vary split: the trials would be scored on other rows\n",
    "--param lr=log:1e-4..1 --sampler tpee": "fix: did you mean 'tpe'?\n",
    "--param lr=log:1e-4..1 --metric val.acc": "error: --metric: 'val.acc' is not measured in this run\nfix: measured are train.loss, val.loss, val.accuracy\n",
    "--param lr=log:1e-4..1 --metric test.loss": "metric: 'test.loss' is not text such as 'val.loss', 'val.accuracy'\nfix: only the validation part chooses: what a network was trained on says too little, and the test part is never looked at\n",
    "--param lr=log:1e-4..1 --metric train.loss": "\nfix: only the validation part chooses",
    "--param lr=log:1e-3..1e-3": "error: --param:1:14: the range begins and ends at 1e-3\nfix: give another end, or --set lr=1e-3\n",
    "--param weight_decay=0..1": "error: --param:1:1: key 'weight_decay' does not exist\nfix: did you mean optimizer.weight_decay?\n",
    "": "error: the sweep varies nothing\nfix: give --param lr=log:1e-4..1e-1, or write `sweep: {params: {lr: log:1e-4..1e-1}}`\n",
    "--param lr=log:1e-4..1 --sampler grid": "error: --param:1:4: a grid wants the values of lr\n",
    "--param lr=0.1,0.2 --sampler cmaes": "error: --param:1:4: cmaes varies numbers, and lr is chosen from a list\n",
    "--param loss=cross_entropy,multi_margin": "error: --param:1:1: with another loss val.loss is another figure",
    "--param lr=0.1,0.2 --sampler grid --trials 5": "error: --trials: a grid of 2 combinations has no 5 trials\nfix: write --trials 2, or leave it out\n",
    "--param lr=0.1,0.2 --storage foo://x": "error: --storage: Can't load plugin: sqlalchemy.dialects:foo\n",
    "--param lr=0.1,0.2 --storage abc": "error: --storage: Could not parse SQLAlchemy URL",
    "--param lr=0.1,0.2 --set 'split={train: rest, test: 0.4}'": "a sweep scores its trials on the validation part, and split.val is 0\n",
    "--param layers[0]=linear:8..16": "error: --param:1:11: kind of range 'linear' does not exist\n    1 | layers[0]=linear:8..16\n      |           ^^^^^^\nfix: write one of float, int, log, logint\n",
    "--param lr=log:0..1": "error: --param:1:8: a range by magnitude begins above 0, not at 0\n    1 | lr=log:0..1\n      |        ^\n",
    "--param lr=0.5..0.1": "error: --param:1:9: the range ends at 0.1, and begins at 0.5\n",
    "--param lr=1e-3...1e-1": "error: --param:1:4: '1e-3...1e-1' is no range\n",
    "--param lr=1...2": "error: --param:1:4: '1...2' is no range\n",
    "--param lr=0.1,0.2 --set lr=0.1": "error: --param:1:1: lr is varied, and --set lr says what it is\nfix: leave one of them out\n",
    "--param optimizer=sgd,adam --set optimizer.weight_decay=0.1": "optimizer is varied, and --set optimizer.weight_decay says what it is\n",
    "--param layers[0]=int:2..4 --param layers=[16],[32,32]": "error: --param:1:1: layers[0] lies inside layers, and both are varied\nfix: leave layers[0] or layers out\n",
    "--param optimizer=sgd,{sgd:{momentum:0.9}} --param optimizer.momentum=0.1..0.9": "optimizer.momentum lies inside optimizer, and both are varied\n",
    "--param lr=0.1": "error: --param:1:4: 0.1 alone is nothing to choose from\n",
    "--param lr=0.1,0.1": "error: --param:1:4: 0.1 is given twice\n",
    "--param batch_size=int:8..10.5": "error: --param:1:19: 10.5 is not a whole number\nfix: write one, or float in place of int\n",
    "--param lr=log:1e-4..1:0.1": "error: --param:1:16: a range by magnitude has no step\n",
    "--param lr=0..1:3": "error: --param:1:9: a step of 3 leads nowhere in 0..1\n",
    "--param lr=[0.1": "error: --param:1:4: '[0.1' is no list of YAML values\n",
    "--param lr": "error: --param:1:1: 'lr' is no parameter\n",
    "--param lr=0.1,0.2 --param lr=1,2": "error: --param:1:1: lr is given twice\n",
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.items(), ids=lambda text: text[:40])
def test_what_cannot_be_is_told_before_the_first_trial(call: Call, tmp_path: Path, arguments: str, sentence: str):
    """With its place, and nothing is trained."""
    (tmp_path / "it.yaml").write_text(IRIS)
    done = call("sweep", "it.yaml", *shlex.split(arguments))
    assert done.exit_code == 2, done.stderr
    lines = [line for line in done.stderr.splitlines(keepends=True) if " | " not in line and "^" not in line]
    assert sentence in (done.stderr if " | " in sentence else "".join(lines)), done.stderr
    assert not list(tmp_path.glob("runs/*/trial-*"))


def test_faults_of_the_section_have_their_places(call: Call, tmp_path: Path):
    """All at once, in the file."""
    (tmp_path / "it.yaml").write_text(IRIS + "sweep:\n  params: {lr: 0.1}\n  direction: maximize\n  trails: 3\n")
    done = call("sweep", "it.yaml")
    for line in (
        "it.yaml:10:16: 0.1 is neither",
        "it.yaml:11:14: to maximize val.loss would look for the worst",
        "it.yaml:12:3: key 'trails' does not",
    ):
        assert line in done.stderr


def test_a_section_is_called_by_its_key(call: Call, tmp_path: Path):
    """Not by the class that reads it."""
    (tmp_path / "it.yaml").write_text(IRIS + "sweep: [lr]\nearly_stopping: [3]\n")
    done = call("sweep", "it.yaml")
    assert "it.yaml:9:8: sweep: ['lr'] is not a mapping\n" in done.stderr
    assert "it.yaml:10:17: early_stopping: [3] is not a mapping\n" in done.stderr


def test_another_sweep_in_the_folder_is_refused(call: Call, tmp_path: Path):
    """With what differs; so is a folder of something else, and a study that is kept elsewhere."""
    (tmp_path / "it.yaml").write_text(IRIS)
    grid = ["sweep", "it.yaml", "--param", "lr=0.01,0.1", "--sampler", "grid", "-q"]
    assert call(*grid).exit_code == 0
    other = call("sweep", "it.yaml", "--param", "lr=0.01,0.2", "--sampler", "grid", "-q")
    assert other.stderr.startswith("error: runs/it-sweep holds another sweep: params.lr is 0.01,0.1 there, and 0.01,0.2 here\n")
    assert "config.epochs is 4 there, and 5 here" in call(*grid, "--set", "epochs=5").stderr
    assert (
        "the study of runs/it-sweep is kept in its journal.log\nfix: leave --storage out"
        in call(*grid, "--storage", "sqlite:///x.db").stderr
    )
    assert call(*grid, "--out", ".").stderr == "error: . holds something that is no sweep\nfix: give another --out\n"
    assert call("train", "it.yaml", "--out", "runs/it-sweep/trial-0").exit_code == 2


def test_a_config_with_a_section_trains_as_it_is(call: Call, tmp_path: Path):
    """`nnrun train` is not concerned with what a sweep would vary, and no checkpoint knows of it."""
    (tmp_path / "it.yaml").write_text(IRIS + SECTION)
    assert call("train", "it.yaml", "-q").exit_code == 0
    assert "sweep" not in load(tmp_path / "runs/it").facts["spec"]
    assert trial_seed(3, 0) != trial_seed(4, 0)


def test_optuna_is_asked_for_by_its_extra(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When it is not installed."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *arguments, **options)

    (tmp_path / "it.yaml").write_text(IRIS)
    monkeypatch.setattr(builtins, "__import__", without)
    done = call("sweep", "it.yaml", "--param", "lr=0.01,0.1")
    assert done.stderr == "error: sweeps are built on Optuna, which is not installed\nfix: pip install 'nnrun[sweep]'\n"
    assert done.exit_code == 2


def test_a_journal_is_read_past_what_is_torn(tmp_path: Path):
    """What has no end is cut off by the next who writes; a whole line that says nothing is passed over, and counted."""
    entry = {"op_code": 0, "worker_id": "x"}
    path = tmp_path / "journal.log"
    first, second = Journal(path), Journal(path)
    assert list(first.read_logs(0)) == []
    first.append_logs([entry | {"n": 1}, entry | {"n": 2}])
    with path.open("ab") as file:
        file.write(b'{"op_code": 0, "wor')
    assert [one["n"] for one in second.read_logs(0)] == [1, 2]
    second.append_logs([entry | {"n": 3}])
    with path.open("ab") as file:
        file.write(b"\xff\x00{\r\n[]\n")
    first.append_logs([entry | {"n": 4}])
    assert [one["n"] for one in first.read_logs(2)] == [3, 4]
    assert [one["n"] for one in second.read_logs(0)] == [1, 2, 3, 4]
    assert [one["n"] for one in second.read_logs(3)] == [4]
    assert (second.damaged, len(path.read_bytes().splitlines())) == (2, 6)


def test_lines_that_are_written_together_stay_together(tmp_path: Path):
    """Nobody writes between them, and after an error the next can."""
    entry = {"op_code": 0, "worker_id": "x"}
    first, second = Journal(tmp_path / "journal.log"), Journal(tmp_path / "journal.log")
    other = threading.Thread(target=lambda: second.append_logs([entry | {"n": 3}]))
    with suppress(ZeroDivisionError), first.together():
        first.append_logs([entry | {"n": 1}])
        other.start()
        other.join(0.3)
        assert other.is_alive()
        first.append_logs([entry | {"n": 2}])
        assert [one["n"] for one in first.read_logs(0)] == [1, 2]
        raise ZeroDivisionError
    other.join()
    assert [one["n"] for one in first.read_logs(0)] == [1, 2, 3]


def table(folder: Path, more: str = "") -> None:
    draw = random.Random(0)
    lines = [f"{a:.6f},{b:.6f},{'no' if a > b else 'yes'}\n" for a, b in ([draw.gauss(0, 1), draw.gauss(0, 1)] for _ in range(60))]
    (folder / "it.csv").write_text("a,b,kind\n" + "".join(lines) + more)


def test_a_table_that_has_changed_is_refused_before_the_next_trial(call: Call, tmp_path: Path):
    """Also when it is read anew for a trial, in the middle of a sweep; with the table restored, the study goes on as if nothing had been."""
    table(tmp_path)
    (tmp_path / "it.yaml").write_text(IRIS.replace("dataset: iris", "dataset: {csv: it.csv, target: kind}"))
    command = ["sweep", "it.yaml", "--param", "lr=log:1e-3..1e-1", "-q", "--no-report", "--trials"]
    assert call(*command, "2").exit_code == 0
    table(tmp_path, "9.0,1.0,no\n")
    changed = call(*command, "3")
    assert changed.exit_code == 2
    assert re.fullmatch(
        r"error: the data of dataset 'csv' has changed since the sweep was started \(digest \w{12} then, \w{12} now\)\n"
        r"fix: restore it, or give another --out\n",
        changed.stderr,
    )
    assert not (tmp_path / "runs/it-sweep/trial-2").exists()
    table(tmp_path)
    assert len(json.loads(call(*command, "3", "--json").stdout)["sweep"]["trials"]) == 3
    text = (tmp_path / "it.yaml").read_text() + "sweep: {sampler: grid, params: {preprocess: [[standardize], []]}}\n"
    (tmp_path / "it.yaml").write_text(text)
    sweep = Sweep(*read_spec(tmp_path / "it.yaml"), out=tmp_path / "anew")
    table(tmp_path, "9.0,1.0,no\n")
    with pytest.raises(NnrunError, match="has changed since the sweep was started"):
        train(sweep)
    assert [one.state.name for one in sweep.ended()] == ["COMPLETE"]


@pytest.mark.parametrize(("side_by_side", "writes"), [(False, 0), (False, 5), (True, 0)], ids=["open", "train", "side by side"])
def test_a_full_disk_is_no_fault_of_a_config(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side_by_side: bool, writes: int):
    """The worker stops with the file that could not be written, no trial has failed, and with room again the sweep is what it would have been."""
    import nnrun.runs.folder

    real, left = nnrun.runs.folder._sync, [writes]

    def full(path: Path) -> None:
        left[0] -= 1
        if left[0] < 0 and "trial-" in str(path):
            raise OSError(28, "No space left on device")
        real(path)

    section = f"sweep: {{sampler: grid, side_by_side: {str(side_by_side).lower()}, params: {{lr: [0.01, 0.02, 0.03]}}}}\n"
    (tmp_path / "it.yaml").write_text(IRIS + section)
    command = ["sweep", "it.yaml", "-q", "--no-report", "--json", "--out"]
    whole = json.loads(call(*command, "whole").stdout)
    with monkeypatch.context() as patched:
        patched.setattr(nnrun.runs.folder, "_sync", full)
        stopped = call(*command, "full")
    assert stopped.exit_code == 4
    assert re.match(
        r"error: full/trial-0/\S+ cannot be written: No space left on device\nfix: .*; the same command goes on with it\n", stopped.stderr
    )
    assert '"ended"' not in (tmp_path / "full/journal.log").read_text()
    del stopped
    gc.collect()
    again = json.loads(call(*command, "full").stdout)
    kept = ("number", "state", "value", "values", "seed", "epoch", "epochs", "error")
    assert [[one[key] for key in kept] for one in again["sweep"]["trials"]] == [
        [one[key] for key in kept] for one in whole["sweep"]["trials"]
    ]


def test_what_is_good_is_written_when_too_many_have_failed(call: Call, tmp_path: Path):
    """The best of those that are complete, with exit code 5; and no advice that has been followed already."""
    (tmp_path / "it.yaml").write_text(IRIS + "sweep: {sampler: grid, side_by_side: false, params: {lr: [0.01, 1.0e+30, 1.0e+31]}}\n")
    done = call("sweep", "it.yaml", "-q", "--no-report")
    assert (done.exit_code, done.stdout) == (5, "runs/it-sweep\n")
    assert done.stderr.startswith("error: 2 of 3 trials have failed; trial 2, lr 1e+31: ")
    assert done.stderr.endswith("fix: narrow what is varied, or allow more: --max-failures 0.9\n")
    assert load(tmp_path / "runs/it-sweep").evaluate("test")
    none = call("sweep", "it.yaml", "-q", "--param", "lr=1e30,1e31", "--max-failures", "0.9", "--out", "none")
    assert (none.exit_code, none.stdout) == (5, "")
    assert none.stderr.endswith("fix: narrow what is varied\n")


def test_no_memory_for_a_config_is_its_own_fault(tmp_path: Path):
    """And a device that is gone is not; what a plug-in's code does is."""
    wide = EnvironmentFault("the layers make too much", fix="make the layers smaller", at=("layers",))
    gone = EnvironmentFault("device 'cuda' does not exist", fix="write `device: cpu`", at=("device",))
    assert of_no_trial(wide, tmp_path) is None
    assert of_no_trial(MemoryError(), tmp_path) is None
    stopped = of_no_trial(gone, tmp_path)
    assert stopped is not None
    assert stopped.exit_code == 4
    refused = of_no_trial(PermissionError(13, "Permission denied", "x/y"), tmp_path)
    assert str(refused).startswith("error: x/y: Permission denied\n")


def test_each_trial_has_its_own_preprocessing(tmp_path: Path):
    """The data is prepared for each as its config says, whichever stands in the config: a trial is the run of its config."""
    table(tmp_path)
    (tmp_path / "it.csv").write_text((tmp_path / "it.csv").read_text().replace(".", "").replace("-0", "-"))
    text = IRIS.replace("dataset: iris", "dataset: {csv: it.csv, target: kind}")
    sweep = train(opened(tmp_path, text + "sweep: {sampler: grid, params: {preprocess: [[], [standardize]]}}\n"))
    for one in sweep.ended():
        folder = sweep.trial_folder(one.number)
        alone = Run(read_spec(folder / "config.yaml")[0])
        alone.begin(sweep.source, tmp_path / f"alone-{one.number}")
        for _ in alone.train():
            pass
        assert same_weights(folder, tmp_path / f"alone-{one.number}")
        assert len(load(folder).facts["spec"]["preprocess"]) == one.number


def test_an_axis_by_magnitude_has_plain_numbers():
    """No formula, which would be drawn as it is typed, nor a number at each small step of a short axis."""
    trials = [{"number": number, "value": 0.1 * 3**number, "values": {"lr": 0.004 * 2**number}} for number in range(4)]
    found = {"metric": "val.loss", "best": trials[0], "params": {"lr": "log:1e-3..1e-1"}}
    with drawing():
        figure, (panel,) = axes()
        _panel(panel, found, trials, "lr")
        png(figure)
        labels = [label.get_text() for label in panel.get_xticklabels(which="both") if label.get_text()]
    assert not [label for label in labels if label != f"{float(label):g}"]
    assert {"0.005", "0.01", "0.02"} < set(labels)
    assert len(labels) < 9
