"""`extends`: what is merged, what is replaced, and that every fault still points into the file it stands in."""

from __future__ import annotations

from pathlib import Path

import pytest

import nnrun.builtin  # noqa: F401
from nnrun.errors import SpecError
from nnrun.spec.experiment import Experiment
from nnrun.spec.reader import read_spec
from nnrun.spec.writer import dump_spec

BASE = """\
dataset: {csv: flowers.csv, target: kind}
split: {train: 0.6, val: 0.2, test: 0.2, method: stratified}
layers: [16, 8]
activation: {leaky_relu: 0.2}
optimizer: {sgd: {momentum: 0.9, nesterov: true}}
schedule: {step: 30}
lr: 0.1
early_stopping: {patience: 3}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return the folder of a config that extends one in a folder below, which has its data beside it."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "base.yaml").write_text(BASE)
    (tmp_path / "below" / "flowers.csv").write_text("a,kind\n1,x\n2,y\n")
    return tmp_path


def read(base: Path, text: str, *overrides: str) -> Experiment:
    (base / "own.yaml").write_text("extends: below/base.yaml\n" + text)
    return read_spec(base / "own.yaml", overrides)[0]


def said(base: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(base, text, *overrides)
    return str(caught.value).replace(f"{base}/", "")


def test_what_is_not_written_comes_from_the_base(base: Path):
    """Also the data beside the base; the name is that of the own file."""
    spec = read(base, "lr: 0.5\n")
    assert (spec.name, spec.lr, spec.layers, spec.optimizer.arguments()["momentum"]) == ("own", 0.5, [16, 8], 0.9)
    assert spec.dataset.arguments()["path"] == str(base / "below" / "flowers.csv")


def test_mappings_are_merged_and_lists_replaced(base: Path):
    """At any depth."""
    spec = read(base, "layers: [4]\nsplit: {val: 0.3, test: 0.1}\nearly_stopping: {min_delta: 0.5}\n")
    assert (spec.layers, spec.split.train, spec.split.val, spec.split.method) == ([4], 0.6, 0.3, "stratified")
    assert spec.early_stopping
    assert (spec.early_stopping.patience, spec.early_stopping.min_delta) == (3, 0.5)


@pytest.mark.parametrize(
    ("written", "name", "arguments"),
    [
        ("optimizer: {momentum: 0.5}", "sgd", {"momentum": 0.5, "nesterov": True}),
        ("optimizer: {name: sgd, momentum: 0.5}", "sgd", {"momentum": 0.5, "nesterov": True}),
        ("optimizer: {sgd: {momentum: 0.5}}", "sgd", {"momentum": 0.5, "nesterov": True}),
        ("optimizer: sgd", "sgd", {"momentum": 0.0, "nesterov": False}),
        ("optimizer: {name: rmsprop, alpha: 0.5}", "rmsprop", {"momentum": 0.0, "alpha": 0.5}),
        ("optimizer: {rmsprop: 0.5}", "rmsprop", {"momentum": 0.0, "alpha": 0.5}),
        ("schedule: {gamma: 0.5}", "step", {"step_size": 30, "gamma": 0.5}),
        ("activation: {negative_slope: 0.3}", "leaky_relu", {"negative_slope": 0.3}),
        ("activation: {elu: null}", "elu", {"alpha": 1.0}),
        ("loss: {multi_margin: 2}", "multi_margin", {"p": 2, "margin": 1.0}),
    ],
)
def test_a_part_keeps_its_arguments_under_its_own_name_only(base: Path, written: str, name: str, arguments: dict[str, object]):
    """However it is written there and here; another name, or a bare one, begins anew."""
    part = getattr(read(base, written + "\n"), written.partition(":")[0])
    assert part.entry.name == name
    assert part.arguments() | arguments == part.arguments()


def test_a_fault_points_into_its_own_file(base: Path):
    """The own file's faults first, then those of the base."""
    (base / "below" / "base.yaml").write_text(BASE.replace("step: 30", "step: often").replace("momentum: 0.9", "momentum: 9"))
    assert said(base, "optimizer: {nesterov: maybe}\nactivation: {negative_slop: 1}\n") == (
        "error: own.yaml:2:23: nesterov: 'maybe' is not true or false\n"
        "    2 | optimizer: {nesterov: maybe}\n"
        "      |                       ^^^^^\n"
        "error: own.yaml:3:14: key 'negative_slop' does not exist\n"
        "    3 | activation: {negative_slop: 1}\n"
        "      |              ^^^^^^^^^^^^^\n"
        "fix: did you mean 'negative_slope'? (allowed: negative_slope, name)\n"
        "error: below/base.yaml:5:29: momentum: 9 is not less than 1\n"
        "    5 | optimizer: {sgd: {momentum: 9, nesterov: true}}\n"
        "      |                             ^\n"
        "fix: write a number below 1\n"
        "error: below/base.yaml:6:18: step_size: 'often' is not a whole number\n"
        "    6 | schedule: {step: often}\n"
        "      |                  ^^^^^"
    )


def test_a_chain_and_an_option(base: Path):
    """The nearest file wins, and the command line over all; the written copy is flat."""
    (base / "middle.yaml").write_text("extends: below/base.yaml\nlr: 0.2\nepochs: 7\noptimizer: {momentum: 0.8}\n")
    (base / "own.yaml").write_text("extends: middle.yaml\nepochs: 8\n")
    spec, source = read_spec(base / "own.yaml", ["optimizer.momentum=0.7", "activation.negative_slope=0.1"])
    assert (spec.lr, spec.epochs, spec.optimizer.arguments()["momentum"]) == (0.2, 8, 0.7)
    assert source.lines == ["extends: middle.yaml", "epochs: 8"]
    (base / "copy.yaml").write_text(dump_spec(spec))
    assert "extends" not in dump_spec(spec)
    assert read_spec(base / "copy.yaml")[0] == spec


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        (
            "extends: below/bas.yaml\n",
            "error: first.yaml:1:10: below/bas.yaml does not exist\n    1 | extends: below/bas.yaml\n      |          ^^^^^^^^^^^^^^\n"
            "fix: did you mean 'below/base.yaml'?",
        ),
        (
            "extends: first.yaml\n",
            "error: first.yaml:1:10: extends goes round in a circle: first.yaml → first.yaml\n    1 | extends: first.yaml\n"
            "      |          ^^^^^^^^^^\nfix: remove one of them",
        ),
        (
            "extends: [below/base.yaml]\n",
            "error: first.yaml:1:10: extends: ['below/base.yaml'] is not the path of a config\n    1 | extends: [below/base.yaml]\n"
            "      |          ^^^^^^^^^^^^^^^^^\nfix: write a path relative to this file",
        ),
        (
            "extends: empty.yaml\n",
            "error: first.yaml:1:10: empty.yaml is empty\n    1 | extends: empty.yaml\n      |          ^^^^^^^^^^\n"
            "fix: a config names at least a dataset: `dataset: iris`",
        ),
    ],
)
def test_a_base_that_cannot_be_used(base: Path, first: str, sentence: str):
    """Told at the value of `extends`."""
    (base / "empty.yaml").write_text("")
    (base / "first.yaml").write_text(first)
    with pytest.raises(SpecError) as caught:
        read_spec(base / "first.yaml")
    assert str(caught.value).replace(f"{base}/", "") == sentence


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("extends=other.yaml", "error: --set:1:1: extends is read from a file only"),
        ("optimizer.momentum=9", "error: --set:1:20: momentum: 9 is not less than 1"),
        ("activation.negative_slop=1", "error: --set:1:1: key 'negative_slop' does not exist"),
    ],
)
def test_an_option_is_placed_on_the_command_line(base: Path, override: str, sentence: str):
    """Also when it reaches into what the base says."""
    assert said(base, "", override).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "override", "at", "value"),
    [
        ("optimizer: {sgd: {momentum: 0.9}}", "optimizer.momentum=0.5", ("optimizer", "momentum"), 0.5),
        ("optimizer: {sgd: {momentum: 0.9}}", "optimizer.sgd.momentum=0.5", ("optimizer", "momentum"), 0.5),
        ("layers: [leaky_relu]", "layers[0].negative_slope=0.5", ("layers", 0, "negative_slope"), 0.5),
        ("layers: [{linear: 3, name: a}]", "layers[0].out_features=auto", ("layers", 0, "out_features"), "auto"),
        ("activation: leaky_relu", "activation.negative_slope=0.5", ("activation", "negative_slope"), 0.5),
        ("split: {method: stratified}", "split.method=random", ("split", "method"), "random"),
        ("split: stratified", "split.train=1.0", ("split", "train"), 1.0),
        ("dataset: iris", "dataset={name: wine}", ("dataset", "entry", "name"), "wine"),
    ],
)
def test_an_option_reaches_into_every_way_to_write_a_part(
    tmp_path: Path, text: str, override: str, at: tuple[str | int, ...], value: object
):
    """A bare name, a key with its first argument, a mapping."""
    (tmp_path / "it.yaml").write_text(text + "\n" + ("" if text.startswith("dataset") else "dataset: iris\n"))
    found: object = read_spec(tmp_path / "it.yaml", [override])[0]
    for step in at:
        found = found[step] if isinstance(found, list) and isinstance(step, int) else getattr(found, str(step))
    assert found == value
