"""The front door: values with their places, every fault at once, in whole sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

import nnrun.builtin  # noqa: F401
from nnrun.errors import SpecError
from nnrun.spec.experiment import Experiment, plain
from nnrun.spec.reader import check, read_spec
from nnrun.spec.writer import dump_spec


def read(tmp_path: Path, text: str | bytes, *overrides: str) -> Experiment:
    file = tmp_path / "it.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_spec(file, overrides)[0]


def message(tmp_path: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text, *overrides)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_every_fault_is_told_in_one_pass_with_its_place(tmp_path: Path):
    """A misspelt key, a wrong type and an unknown name come together, in the order of the file."""
    text = "dataset: iris\nlerning: 1\nepochs: many\noptimizer: admw\n"
    assert message(tmp_path, text) == (
        "error: it.yaml:2:1: key 'lerning' does not exist\n"
        "    2 | lerning: 1\n"
        "      | ^^^^^^^\n"
        "fix: allowed: name, seed, dataset, split, preprocess, augment, layers, activation, loss, optimizer, lr, schedule, …\n"
        "error: it.yaml:3:9: epochs: 'many' is not a whole number\n"
        "    3 | epochs: many\n"
        "      |         ^^^^\n"
        "error: it.yaml:4:12: optimizer 'admw' does not exist\n"
        "    4 | optimizer: admw\n"
        "      |            ^^^^\n"
        "fix: did you mean 'adamw'? (nnrun list optimizers shows all 10)"
    )


@pytest.mark.parametrize("written", ["1e-3", "0.001", "1E-3", ".001", "1.0e-3"])
def test_a_number_in_any_notation_is_a_number(tmp_path: Path, written: str):
    """`1e-3` is 0.001, not the text that YAML 1.1 makes of it."""
    assert read(tmp_path, f"dataset: iris\nlr: {written}\n").lr == 0.001


@pytest.mark.parametrize("word", ["yes", "no", "on", "off"])
def test_yes_and_no_are_text(tmp_path: Path, word: str):
    """A boolean is true or false; the others are words, and said to be none."""
    assert f"shuffle: '{word}' is not true or false" in message(tmp_path, f"dataset: iris\nshuffle: {word}\n")


def test_a_duplicate_key_is_refused_with_both_lines(tmp_path: Path):
    """In most tools the last one wins, silently."""
    assert message(tmp_path, "dataset: iris\nlr: 1\nlr: 2\n") == (
        "error: it.yaml:3:1: the key 'lr' is given twice, first in line 2\n    3 | lr: 2\n      | ^^\nfix: keep one of them"
    )


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!include other.yaml", "!!python/name:os.system"])
def test_a_tag_is_refused(tmp_path: Path, tag: str):
    """A config can never name code."""
    text = message(tmp_path, f"dataset: iris\nname: {tag}\n")
    assert "is not allowed" in text
    assert "fix: a config holds names and values, never code: remove it" in text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "error: it.yaml is empty\nfix: a config names at least a dataset: `dataset: iris`"),
        ("- iris\n", "error: it.yaml:1:1: a config is a mapping of keys to values\n    1 | - iris\n      | ^^^^^^\nfix: begin with `dataset: …`"),
        ("dataset: iris\n---\nlr: 1\n", "error: it.yaml:3:1: a second document begins here\n    3 | lr: 1\n      | ^^^^^\nfix: a config is one document: remove the line `---`"),
        ("dataset: iris\n\tlr: 1\n", "error: it.yaml:2:1: this is not YAML: found character '\\t' that cannot start any token\n    2 | \tlr: 1\n      | ^\nfix: YAML is indented by spaces: replace the tab"),
        ("dataset: アイリス\n".encode("cp932"), "error: it.yaml:1: this is not UTF-8; it looks like cp932 (Shift-JIS)\nfix: save the file as UTF-8"),
        ("dataset: iris\n".encode("utf-16"), "error: it.yaml:1: this is not UTF-8; it looks like UTF-16\nfix: save the file as UTF-8"),
        (b"#" * (1 << 20) + b"\nx: 1", "error: it.yaml is larger than 1 MiB\nfix: a config is a page of text; is this the data?"),
        ("seed: 1\n", "error: it.yaml: 'dataset' is missing\nfix: add `dataset: …` (Where the rows come from (nnrun list datasets))"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_config_says_so(tmp_path: Path, text: str | bytes, sentence: str):
    """Each way of not being a config has a sentence of its own."""
    assert message(tmp_path, text) == sentence


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path):
    """Windows editors write one."""
    assert read(tmp_path, b"\xef\xbb\xbfdataset: iris\n").dataset.entry.name == "iris"


def test_a_bomb_of_aliases_is_refused(tmp_path: Path):
    """Nine levels of nine aliases would unfold to 400 million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "more than 100000 values once aliases are expanded" in message(tmp_path, "\n".join(lines))


def test_a_missing_file_names_its_neighbours(tmp_path: Path):
    """The likeliest mistake is a wrong name in the right folder."""
    (tmp_path / "iris.yaml").write_text("dataset: iris\n")
    with pytest.raises(SpecError) as caught:
        read_spec(tmp_path / "irs.yaml")
    assert str(caught.value) == f"error: {tmp_path}/irs.yaml does not exist\nfix: did you mean '{tmp_path}/iris.yaml'?"


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("optimizer: {name: sgd, momentun: 0.9}", "it.yaml:2:24: key 'momentun' does not exist"),
        ("optimizer: {sgd: {momentum: 2}}", "it.yaml:2:29: momentum: 2 is not less than 1"),
        ("layers:\n  - max_pool2d: {kernal_size: 2}", "it.yaml:3:18: key 'kernal_size' does not exist"),
        ("layers:\n  - max_pool2d: two", "it.yaml:3:17: kernel_size: 'two' is not "),
        ("layers: [16, relu]", "it.yaml:2:14: layers mixes widths with named layers"),
        ("layers: [0]", "it.yaml:2:10: a width of 0 is not at least 1"),
        ("layers: [lineer]", "it.yaml:2:10: layer 'lineer' does not exist"),
        ("precision: fp16", "it.yaml:2:12: precision: 'fp16' is not one of 'float32', 'bfloat16', 'float16'"),
        ("split: {train: 0.5, val: 0.2, test: 0.2}", "it.yaml:2:16: the shares add up to 0.9, not 1"),
        ("split: {method: stratifed}", "it.yaml:2:17: split method 'stratifed' does not exist"),
        ("split: {val: [3, 7]}", "it.yaml:2:14: rows are given by number, and method is 'random'"),
        ("metrics: [acuracy]", "it.yaml:2:11: metric 'acuracy' does not exist"),
        ("early_stopping: {patience: 0}", "it.yaml:2:28: patience: 0 is not at least 1"),
        ("checkpoint: {every: 0}", "it.yaml:2:21: every: 0 is not at least 1"),
        ("seed: -1", "it.yaml:2:7: seed: -1 is not at least 0"),
        ("seed: 1.5", "it.yaml:2:7: seed: 1.5 is not a whole number"),
        ("epochs: '10'", "it.yaml:2:9: epochs: '10' is not a whole number"),
        ("epochs: true", "it.yaml:2:9: epochs: true is not a whole number"),
        ("lr: .nan", "it.yaml:2:5: lr: .nan is not "),
        ("device: gpu", "it.yaml:2:9: device: 'gpu' is not "),
        ("name: ../up", "it.yaml:2:7: name: '../up' is not "),
        ("activation: flatten", "it.yaml:2:13: 'flatten' is not an activation"),
    ],
)  # fmt: skip
def test_a_fault_is_placed_at_its_own_value(tmp_path: Path, written: str, sentence: str):
    """In every short and long form, and for rules between fields."""
    assert sentence in message(tmp_path, f"dataset: iris\n{written}\n")


def test_overrides_reach_into_parts_and_lists(tmp_path: Path):
    """A part written as a bare name takes arguments too."""
    spec = read(tmp_path, "dataset: iris\noptimizer: sgd\nlayers: [16]\n", "optimizer.momentum=0.5", "layers[0]=32", "lr=1e-2", "epochs=3")
    assert (spec.optimizer.arguments()["momentum"], spec.layers, spec.lr, spec.epochs) == (0.5, [32], 0.01, 3)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lr=fast", "error: --set:1:4: lr: 'fast' is not a number\n    1 | lr=fast\n      |    ^^^^"),
        ("lern=1", "error: --set:1:1: key 'lern' does not exist"),
        ("layers[3]=1", "error: --set:1:1: there is no [3]: the config has 1 items there"),
        ("lr", "error: --set:1:1: 'lr' is not an override"),
        ("lr.x.y=1", "error: --set:1:1: 'x' cannot be set inside a value that is not a mapping"),
        ("lr=[", "error: --set:1:1: '[' is not a YAML value"),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, override: str, sentence: str):
    """The error points into the option as it was typed."""
    assert message(tmp_path, "dataset: iris\nlayers: [16]\nlr: 0.1\n", override).startswith(sentence)


def test_the_written_copy_comes_back_equal(tmp_path: Path):
    """`config.yaml` in the run folder is complete and trains the same."""
    for file in sorted(Path("configs").glob("*.yaml")):
        spec, _ = read_spec(file)
        (tmp_path / "copy.yaml").write_text(dump_spec(spec))
        copy, source = read_spec(tmp_path / "copy.yaml")
        assert copy == spec
        assert set(source.values) == set(Experiment.model_fields)
        assert check(plain(spec)) == spec


def test_an_override_reaches_the_default_of_a_part_that_is_not_written(tmp_path: Path):
    """`optimizer` is adam unless said otherwise, so its arguments can be set."""
    spec = read(tmp_path, "dataset: iris\n", "optimizer.weight_decay=0.5", "split.method=stratified")
    assert (spec.optimizer.entry.name, spec.optimizer.arguments()["weight_decay"], spec.split.method) == ("adam", 0.5, "stratified")
    assert (spec.split.train, spec.split.val, spec.split.test) == (0.6, 0.2, 0.2)
