"""`nnrun train --seeds`: many networks at once, each the one that it would be alone, and what they say together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call
from typer.testing import Result

import nnrun.builtin  # noqa: F401
from nnrun.data.dataset import Task
from nnrun.data.stored import StoredRows
from nnrun.errors import DivergedError, NnrunError
from nnrun.run import Run, open_run
from nnrun.runs.signals import Signals
from nnrun.seeds import Seeds
from nnrun.spec.reader import check, read_spec
from nnrun.trained import load
from nnrun.training.ensemble import joined
from nnrun.training.head import head_for
from nnrun.training.network import build_network
from nnrun.training.stack import Stack
from nnrun.training.stackable import unstackable
from tests.networks import NETWORKS, some_rows, written

Call = Callable[..., Result]
IRIS = "dataset: iris\nsplit: {train: 0.6, val: 0.2, test: 0.2}\npreprocess: [standardize]\nlr: 0.02\nbatch_size: 20\nepochs: 3\nseed: 3\nlayers: [5]\n"
DEEP = IRIS.replace("[5]", "[{linear: 6}, relu, {dropout: 0.3}, {linear: 6}, tanh, {dropout: 0.2}, {linear: auto}]")
DIGITS = (
    "dataset: digits\nsplit: {train: 200, val: 50, test: 50}\npreprocess: [{scale: 0.0625}]\nlr: 0.01\nbatch_size: 64\nepochs: 2\nseed: 1\n"
)
CNN = DIGITS + "layers: [{conv2d: {out_channels: 3, kernel_size: 3}}, {dropout2d: 0.3}, relu, {max_pool2d: 2}, flatten, {linear: auto}]\n"
NUMBERS = "dataset: diabetes\npreprocess: [standardize]\nscale_target: standardize\nlayers: [6]\nlr: 0.01\nepochs: 2\n"


def seeds_of(folder: Path, text: str, count: int = 3, out: str = "all", **options: Any) -> Seeds:
    """Return the seeds of a config, ready to train."""
    (folder / "it.yaml").write_text(text)
    return Seeds(*read_spec(folder / "it.yaml"), count, out=folder / out, **options)


def train(seeds: Seeds, signals: Signals | None = None) -> Seeds:
    """Train all of them."""
    for _, run in seeds.runs():
        for _ in seeds.train(run, signals or Signals()):
            pass
    return seeds


def alone(seeds: Seeds, folder: Path) -> Iterator[Run]:
    """Yield a finished run of each seed, trained by itself as its config says."""
    for spec in seeds.specs:
        run = open_run(spec, seeds.source, out=folder / f"alone-{spec.seed}")
        for _ in run.train():
            pass
        yield run


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def require_same(seeds: Seeds, folder: Path) -> None:
    """Hold each network of a stack against the one that is trained alone: every loss of every epoch, the best epoch, every prediction."""
    assert seeds.stacked, seeds.notes
    rows = rows_of(seeds.folder)
    for place, run in enumerate(alone(seeds, folder)):
        for row, mine in zip(rows, rows_of(run.folder), strict=False):
            assert row["lr"] == mine["lr"]
            for part in {"train", "val"} & set(mine):
                for name, value in mine[part].items():
                    assert row[part][name][place] == pytest.approx(value, rel=1e-4, abs=1e-6), (place, row["epoch"], part, name)
        member = seeds.members[place]
        assert (member.epochs, member.best_epoch) == (run.summary["epochs"], run.summary["best_epoch"])
        for row in rows[member.epochs :]:
            assert row["train"]["loss"][place] is None  # it was frozen there
        test = run.data.parts["test"]
        expected = run.network.head.predict(run.network.outputs(test.x))
        run.network.model.load_state_dict(member.weights)
        found = run.network.head.predict(run.network.outputs(test.x))
        assert torch.equal(found, expected) if run.data.task.classes else torch.allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(DEEP + "clip_grad_norm: 0.5\nclass_weight: {setosa: 3}\nmetrics: [accuracy, roc_auc_ovr, f1_macro]\n", id="classes"),
        pytest.param(IRIS + "accumulate_batches: 3\ndrop_last: true\nschedule: one_cycle\nwarmup_epochs: 1.5\n", id="schedule"),
        pytest.param(IRIS.replace("epochs: 3", "epochs: 40") + "early_stopping: {patience: 1, min_delta: 0.003}\n", id="early-stopping"),
        pytest.param(IRIS.replace("val: 0.2, test: 0.2", "test: 0.4").replace("epochs: 3", "epochs: 40").replace("0.02", "0.3") + "early_stopping: {monitor: train.loss, patience: 1}\n", id="last-epoch"),
        pytest.param(IRIS.replace("20", "all"), id="one-batch"),
        pytest.param(NUMBERS + "loss: gaussian_nll\n", id="numbers"),
        pytest.param(CNN + "augment: [flip, {crop: 1}]\n", id="pictures"),
        pytest.param(CNN.replace("{dropout2d: 0.3}", "batch_norm").replace("3}}", "3, bias: false}}"), id="batch-norm"),
        pytest.param(IRIS.replace("[5]", "[{linear: 6}, batch_norm, relu, {linear: auto}]") + "optimizer: {sgd: {momentum: 0.9}}\n", id="batch-norm-sgd"),
    ],
)  # fmt: skip
def test_networks_side_by_side_are_those_trained_alone(tmp_path: Path, text: str):
    """Weights, order, dropout, augmentation, loss, schedule, best epoch and patience: to 1e-4, and the same predictions."""
    require_same(train(seeds_of(tmp_path, text)), tmp_path)


@pytest.mark.parametrize(
    "optimizer",
    ["{sgd: {momentum: 0.9, nesterov: true}}", "adam", "adamw", "nadam", "radam", "{rmsprop: {momentum: 0.5, centered: true}}", "adagrad", "adadelta"],
)  # fmt: skip
def test_an_optimizer_moves_each_network_as_if_it_were_alone(tmp_path: Path, optimizer: str):
    """Every one that is not on the list of exceptions."""
    require_same(train(seeds_of(tmp_path, IRIS + f"optimizer: {optimizer}\n", 2)), tmp_path)


@pytest.mark.parametrize(("layers", "shape", "loss", "classes"), NETWORKS)
def test_losses_and_gradients_of_a_stack(layers: list[Any], shape: tuple[int, ...], loss: Any, classes: str):
    """Of every layer and every loss that is not on the list of exceptions: those of each network alone."""
    specs = [written(layers, loss, classes, seed=seed) for seed in range(3)]
    networks = [build_network(spec, Task(("y",), tuple(classes)), shape, torch.device("cpu")) for spec in specs]
    assert unstackable(specs[0], networks[0].model, torch.device("cpu"), torch.zeros(0)) == ""
    stack = Stack({seed: seed for seed in range(3)}, (network.model for network in networks), networks[0].loss_fn, shape)
    x, y = some_rows((3, 5), shape, classes)
    targets = torch.stack([networks[0].head.encode(one) for one in y])
    losses = stack.losses((x, targets), shared=False)
    losses.sum().backward()
    for place, network in enumerate(networks):
        expected = network.loss_fn(network.model(x[place]), targets[place])
        expected.backward()
        assert losses[place].item() == pytest.approx(expected.item(), rel=1e-5)
        for name, weight in network.model.named_parameters():
            found = dict(stack.model.named_parameters())[name].grad
            assert torch.allclose(found[place], weight.grad, rtol=1e-4, atol=1e-6), name


EXCEPTIONS = {
    "lbfgs": (IRIS.replace("20", "all") + "optimizer: lbfgs\n", "lbfgs looks at the loss of one network several times in a step"),
    "muon": (IRIS + "optimizer: muon\n", "muon makes the steps of one matrix orthogonal, and a stack has three dimensions"),
    "gru": (IRIS.replace("[5]", "[{unflatten: [2, 2]}, {gru: 3}, {linear: auto}]"), "torch.func has no rule for recurrent layers"),
    "rrelu": (IRIS.replace("[5]", "[{linear: 4}, rrelu, {linear: auto}]"), "torch.func has no rule for rrelu, which draws a slope for each value"),
    "plateau": (IRIS + "schedule: plateau\n", "plateau gives each network a learning rate of its own"),
    "bfloat16": (IRIS + "precision: bfloat16\n", "products in bfloat16 are rounded otherwise in a stack"),
    "batch_norm": (IRIS.replace("[5]", "[{linear: 4}, {dropout: 0.1}, batch_norm, relu, {linear: auto}]"), "a bias before batch_norm has no gradient but rounding errors, and adam makes steps of them"),
    "momentum": (IRIS.replace("[5]", "[{linear: 4}, {batch_norm: {momentum: null}}, {linear: auto}]"), "torch.func has no rule for a batch_norm with momentum null"),
    "mixup": (DIGITS + "augment: [mixup]\n", "mixup gives each row two targets"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "why"), EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_what_cannot_be_stacked_is_trained_one_by_one(tmp_path: Path, text: str, why: str):
    """By the normal run: the same bytes as alone; it is told why, and the folder looks the same."""
    seeds = train(seeds_of(tmp_path, text.replace("epochs: 3", "epochs: 2"), 2))
    assert seeds.notes == [f"the 2 networks are trained one after another: {why}"]
    assert seeds.summary["notes"][0] == seeds.notes[0]
    for run in alone(seeds, tmp_path):
        mine = seeds.folder / f"seed-{run.spec.seed}"
        assert (mine / "best.safetensors").read_bytes() == (run.folder / "best.safetensors").read_bytes()
    chosen = seeds.folder / f"seed-{seeds.summary['chosen']['seed']}" / "best.safetensors"
    assert (seeds.folder / "best.safetensors").read_bytes() == chosen.read_bytes()
    assert [len(row["val"]["accuracy"]) for row in rows_of(seeds.folder)] == [2, 2]


def test_dropout_on_another_device_is_an_exception():
    """There its random numbers are made within the kernel, and no other stream gives them."""
    spec = check({"name": "it", "dataset": "iris", "layers": ["{dropout: 0.1}", {"linear": "auto"}][1:], "loss": "cross_entropy"})
    model = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(4, 3))
    assert unstackable(spec, model, torch.device("cpu"), torch.zeros(0)) == ""
    assert "dropout are made within its kernel on cuda" in unstackable(spec, model, torch.device("cuda"), torch.zeros(0))


def test_rows_on_the_disk_are_an_exception():
    """They are gathered for one network at a time."""
    spec = check({"name": "it", "dataset": "iris", "loss": "cross_entropy"})
    held = StoredRows(2, 4, torch.device("cpu"))
    assert unstackable(spec, torch.nn.Linear(4, 3), torch.device("cpu"), held) == "the rows do not fit into memory"


def test_the_split_is_that_of_the_config_unless_it_is_varied(tmp_path: Path):
    """All networks see the same rows, and one of them can be trained again alone, by its config; with --vary split, each has its own."""
    seeds = train(seeds_of(tmp_path, IRIS, 2))
    digests = {spec.seed: open_run(spec, seeds.source, out=tmp_path / f"{spec.seed}").data.digests["split"] for spec in seeds.specs}
    assert set(digests.values()) == {seeds.summary["provenance"]["digests"]["split"]}
    varied = train(seeds_of(tmp_path, IRIS, 2, out="varied", vary="split"))
    assert varied.notes == ["the 2 networks are trained one after another: each has rows of its own"]
    splits = {load(varied.folder / f"seed-{seed}").facts["digests"]["split"] for seed in (3, 4)}
    assert len(splits) == 2
    assert varied.summary["vary"] == ["weights", "order", "split"]
    assert load(varied.folder).evaluate("test")[0] == 30


@pytest.mark.parametrize("text", [IRIS, NUMBERS, IRIS.replace("dataset: iris", "dataset: breast_cancer") + "loss: bce_with_logits\n"])
def test_the_ensemble_predicts_with_the_mean(tmp_path: Path, text: str):
    """Computed by hand from the networks: of probabilities for classes, of numbers else; from the checkpoint alone."""
    seeds = train(seeds_of(tmp_path, text, 3, ensemble=True))
    net = load(seeds.folder / "ensemble.safetensors")
    rows = net.rows("test")
    single = load(seeds.folder)
    made = []
    for member in seeds.members:
        output = functional_call(single.network.model.eval(), dict(member.weights), (rows.x,))
        head = single.network.head
        made.append(head.probabilities(output) if net.task.classes else head.predict(output))
    mean = torch.stack(made).mean(0)
    output = net.network.outputs(rows.x)
    found = net.network.head.probabilities(output) if net.task.classes else net.network.head.predict(output)
    assert torch.allclose(found, mean, atol=1e-6, rtol=1e-5)
    if net.task.classes:
        assert torch.equal(net.network.head.predict(output), mean.argmax(1))
    assert net.evaluate("test")[1] == seeds.summary["ensemble"]["metrics"]["test"]


@pytest.mark.parametrize(
    ("loss", "classes"),
    [("nll", 3), ("bce_with_logits", 3), ("hinge", 3), ("mse", 3), ("poisson_nll", 0), ("gaussian_nll", 0), ("l1", 0)],
)
def test_outputs_are_joined_for_every_kind_of_loss(loss: str, classes: int):
    """Probabilities where the outputs are some, scores where they are not, rates, and normal distributions with their variance."""
    spec = check({"name": "it", "dataset": "iris", "loss": loss})
    assert spec.loss
    head, loss_fn = head_for(spec.loss, Task(("y",), tuple("abc"[:classes]))), spec.loss.build()
    outputs = torch.randn(4, 5, head.outputs, generator=torch.Generator().manual_seed(1))
    outputs = outputs.log_softmax(2) if loss == "nll" else outputs
    found = joined(outputs, head, loss_fn)
    if head.calibrated and classes:
        assert torch.allclose(head.probabilities(found), torch.stack([head.probabilities(one) for one in outputs]).mean(0), atol=1e-6)
    elif classes:
        assert torch.allclose(found, outputs.mean(0))
    else:
        assert torch.allclose(head.predict(found), torch.stack([head.predict(one) for one in outputs]).mean(0), atol=1e-6)
    if loss == "gaussian_nll":
        variances = torch.nn.functional.softplus(outputs[:, :, 1:]).mean(0) + outputs[:, :, :1].var(0, correction=0)
        assert torch.allclose(torch.nn.functional.softplus(found[:, 1:]), variances, atol=1e-5)


def test_the_summary_says_how_much_is_luck(call: Call, tmp_path: Path):
    """Mean, deviation, Student's interval of the mean and all values; the best by the validation part; eval, show, compare and report open it."""
    (tmp_path / "it.yaml").write_text(IRIS + "metrics: [accuracy, f1_macro]\n")
    done = call("train", "it.yaml", "--seeds", "4", "--ensemble", "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    folder = tmp_path / "runs" / "it-seeds"
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["seeds"] == [3, 4, 5, 6]
    loss = summary["metrics"]["test"]["loss"]
    half = 3.182446 * statistics.stdev(loss["values"]) / 2  # t with three degrees of freedom
    assert loss["mean"] == pytest.approx(statistics.fmean(loss["values"]))
    assert loss["interval"] == pytest.approx([loss["mean"] - half, loss["mean"] + half])
    best_of_seed = [min(row["val"]["loss"][place] for row in rows_of(folder)) for place in range(4)]
    chosen = summary["chosen"]
    assert (chosen["seed"], chosen["value"], chosen["by"]) == (3 + best_of_seed.index(min(best_of_seed)), min(best_of_seed), "val.loss")
    assert load(folder).evaluate("test")[1]["loss"] == loss["values"][chosen["seed"] - 3]
    assert "4 seeds (3 to 6), 30 test rows" in done.stderr
    assert "nnrun eval --checkpoint runs/it-seeds" in done.stderr
    shown = call("show", "runs/it-seeds")
    assert "the mean of 4 networks, seeds 3 to 6; this is that of seed" in shown.stdout
    assert "4 networks, seeds 3 to 6, whose predictions are averaged" in call("show", folder / "ensemble.safetensors").stdout
    assert call("train", "it.yaml", "--out", "one", "-q").exit_code == 0
    compared = json.loads(call("compare", "runs/it-seeds", "one", "--json").stdout)
    assert next(run for run in compared["runs"] if run["seeds"])["metrics"]["loss"] == pytest.approx(loss["mean"])
    assert compared["paired"]["sentence"].endswith("of several seeds, the network in best.safetensors was taken")
    assert call("report", "runs/it-seeds").stdout == "runs/it-seeds/report.html\n"
    page = (folder / "report.html").read_text()
    assert "4 seeds" in page
    assert (folder / "plots" / "seeds.png").stat().st_size > 5000


def test_without_validation_the_training_loss_chooses(tmp_path: Path):
    """And it is told that the test part did not."""
    seeds = train(seeds_of(tmp_path, IRIS.replace("val: 0.2, test: 0.2", "test: 0.4")))
    last = rows_of(seeds.folder)[-1]["train"]["loss"]
    best = 3 + last.index(min(last))
    told = (
        f"there is no validation part: best.safetensors is of the seed with the lowest training loss, {best}; the test part did not choose"
    )
    assert seeds.summary["notes"] == [told]
    assert load(seeds.folder).spec.seed == best


def test_a_network_that_diverges_is_left_out(tmp_path: Path):
    """It is told, it is in no figure, and the others are what they would be without it; when all do, the run fails."""
    others = train(seeds_of(tmp_path, IRIS, 3, "others"))
    seeds = seeds_of(tmp_path, IRIS, 3)
    assert seeds.stacked
    next(seeds.stacked.stack.model.parameters()).data[1] = torch.nan
    train(seeds)
    values = seeds.summary["metrics"]["test"]["loss"]["values"]
    assert values[1] is None
    assert [values[0], values[2]] == pytest.approx([others.summary["metrics"]["test"]["loss"]["values"][place] for place in (0, 2)])
    assert "seed 4 has diverged, and is in no figure: epoch 1" in seeds.summary["notes"]
    assert rows_of(seeds.folder)[0]["train"]["loss"][1] is None
    with pytest.raises(DivergedError, match="a number of each of the 2 networks is not finite"):
        train(seeds_of(tmp_path, IRIS.replace("0.02", "1e30") + "optimizer: sgd\n", 2, "wild"))
    with pytest.raises(DivergedError, match="each of the 2 networks has diverged"):
        train(seeds_of(tmp_path, IRIS.replace("0.02", "1e30") + "optimizer: sgd\nschedule: plateau\n", 2, "wilder"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "0"], "error: --seeds 0: there is nothing to train\nfix: write --seeds 32\n"),
        (["--seeds", "1"], "error: --seeds 1: one network is a run of its own\nfix: leave --seeds out\n"),
        (["--seeds", "3", "--folds", "3"], "error: --seeds and --folds do not go together\n"),
        (["--seeds", "3", "--vary", "weights"], "error: --vary weights: weights, order of rows, dropout and augmentation always differ, and only the split can be added\n"),
        (["--vary", "split"], "error: --vary is for several seeds\nfix: add --seeds 32\n"),
        (["--ensemble"], "error: --ensemble is for several seeds\n"),
        (["--seeds", "3", "--vary", "split", "--ensemble"], "test rows of one are training rows of another\n"),
        (["--seeds", "3", "--vary", "split", "--set", "split={seed: 4}"], "error: --vary split, and split.seed is 4\n"),
        (["--seeds", "3", "--resume"], "error: --resume needs --out, the folder of the run to go on with\n"),
        (["--seeds", "3", "--out", "there", "--resume"], "error: there/it.yaml:7:7: there holds the seeds 3 to 4\n"),
        (["--out", "there", "--resume"], "error: there holds several networks, trained side by side\nfix: add --seeds 2\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(call: Call, tmp_path: Path, arguments: list[str], told: str):
    """In a sentence, before anything is trained."""
    (tmp_path / "it.yaml").write_text(IRIS)
    if "there" in arguments:
        assert call("train", "it.yaml", "--seeds", "2", "--out", "there", "-q").exit_code == 0
    done = call("train", "it.yaml", *arguments)
    assert done.exit_code == 2
    assert told.replace("there/it.yaml", "it.yaml") in done.stderr


def test_memory_is_reckoned_for_all_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One network would fit, and so many do not: told before any weight is drawn."""
    monkeypatch.setattr("nnrun.training.memory.free_memory", lambda: 3_000_000)
    with pytest.raises(NnrunError, match=r"5000 networks learn 215,000 numbers together: adam and its checkpoints take \d+ bytes for each"):
        seeds_of(tmp_path, IRIS, 5000)
    with pytest.raises(NnrunError, match=r"the layers of 20 networks make [\d.]+ MB of values for batches of 60 rows"):
        seeds_of(tmp_path, CNN.replace("batch_size: 64", "batch_size: 60").replace("out_channels: 3", "out_channels: 7"), 20, "wide")
    assert not (tmp_path / "all").exists()


def test_a_damaged_ensemble_is_refused(tmp_path: Path):
    """Weights that are not those of so many networks are told, as of any checkpoint; the state of a stack is no network."""
    from nnrun.errors import CheckpointError
    from nnrun.runs.checkpoint import Checkpoint, to_bytes
    from nnrun.runs.checkpoint import load as read

    seeds = train(seeds_of(tmp_path, IRIS, 2, ensemble=True))
    stored = read(seeds.folder / "ensemble.safetensors")
    facts = {key: value for key, value in stored.facts.items() if key != "format"}
    tensors = {name: torch.cat([tensor, tensor]) if name.endswith("bias") else tensor for name, tensor in stored.tensors.items()}
    (tmp_path / "bad.safetensors").write_bytes(to_bytes(Checkpoint(tensors, facts)))
    with pytest.raises(CheckpointError, match="does not fit together"):
        load(tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match="is the state of 2 networks in training"):
        load(seeds.folder / "last.safetensors")
