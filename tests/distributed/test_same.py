"""One, two and four processes train the same network: the same batches, the same mean losses, the same figures."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.distributed.conftest import Job, figures_of

BASE = "dataset: iris\nlayers: [16, 8]\npreprocess: [standardize]\nlr: 0.01\nepochs: 3\n"
CONFIGS = {
    "an uneven last batch, accumulation, clipping": f"{BASE}batch_size: 11\naccumulate_batches: 3\nclip_grad_norm: 0.5\n",
    "fewer rows in a batch than processes": f"{BASE.replace('[16, 8]', '[6]')}batch_size: 3\nsplit: {{train: 40, val: 30, test: rest}}\n",
    "weights of classes in the loss": f"{BASE}batch_size: 7\nloss: {{cross_entropy: {{weight: [0.2, 1.0, 3.5], label_smoothing: 0.1}}}}\n",
    "weights of rows by their class": f"{BASE}batch_size: 3\nclass_weight: {{setosa: 0, virginica: 4.5}}\n",
    "batch norm over all processes, one row left for the last batch of some": (
        BASE.replace(
            "[16, 8]",
            "[{linear: {out_features: 8, bias: false}}, batch_norm, relu, {residual: [{linear: {out_features: 8, bias: false}}, batch_norm]}, {linear: auto}]",
        )
        + "sync_batch_norm: true\nbatch_size: 11\n"
    ),
    "one batch of all rows, a schedule that follows a figure": f"{BASE}batch_size: all\nschedule: {{plateau: {{patience: 0}}}}\nearly_stopping: {{patience: 2}}\n",
}


@pytest.mark.parametrize("what", CONFIGS)
def test_the_figures_do_not_depend_on_the_number_of_processes(what: str, job: Job, tmp_path: Path):
    """Every figure of every epoch, and those at the end, to 1e-6."""
    config = tmp_path / "it.yaml"
    config.write_text(CONFIGS[what])
    assert job(0, "train", config, "--out", tmp_path / "1").codes == [0]
    plain = figures_of(tmp_path / "1")
    for count in (2, 4):
        done = job(count, "train", config, "--out", tmp_path / str(count))
        assert done.codes == [0] * count, done.err
        assert figures_of(tmp_path / str(count)) == pytest.approx(plain, rel=1e-6, abs=1e-7)


def test_rows_that_are_not_in_memory_and_their_weights(job: Job, tmp_path: Path):
    """A table that is streamed, with a weight for each row and numbers to predict: each process gathers its own rows."""
    draw = random.Random(1)
    lines = [",".join(f"{draw.gauss(0, 1):.4f}" for _ in range(4)) + f",{draw.random() * 3:.3f}" for _ in range(2600)]
    (tmp_path / "t.csv").write_text("a,b,c,y,w\n" + "\n".join(lines) + "\n")
    config = tmp_path / "it.yaml"
    config.write_text(
        "dataset: {csv: t.csv, target: y, weight: w, stream: true}\nsplit: {train: 400, val: 1100, test: rest}\n"
        "layers: [8]\nbatch_size: 30\nepochs: 2\nlr: 0.01\n"
    )
    for count in (0, 3):
        done = job(count, "train", config, "--out", tmp_path / str(count))
        assert set(done.codes) == {0}, done.err
    assert figures_of(tmp_path / "3") == pytest.approx(figures_of(tmp_path / "0"), rel=1e-6, abs=1e-7)


def test_figures_of_equal_weights_are_equal(job: Job, tmp_path: Path):
    """A learning rate that moves nothing: 1,100 validation rows are two blocks, worked out by two processes of three, and every bit is the same."""
    config = tmp_path / "it.yaml"
    config.write_text("dataset: digits\nsplit: {train: 100, val: 1100, test: rest}\nlayers: [8]\nlr: 1e-30\nbatch_size: 50\nepochs: 1\n")
    for count in (0, 3):
        assert set(job(count, "train", config, "--out", tmp_path / str(count)).codes) == {0}
    found = [figures_of(tmp_path / str(count)) for count in (0, 3)]
    assert {name: value for name, value in found[0].items() if "train.loss" not in name} == {
        name: value for name, value in found[1].items() if "train.loss" not in name
    }


def test_what_is_said_of_the_batches(job: Job, tmp_path: Path):
    """One line on stdout, and on stderr what one process says, once; and how the batches are shared."""
    config = tmp_path / "it.yaml"
    config.write_text(BASE)
    done = job(2, "train", config, "--out", tmp_path / "out", "--set", "batch_size=33")
    assert done.out == f"{tmp_path / 'out'}\n"
    assert done.err.startswith("note: 2 processes share each batch of 33 rows: 17 rows for 1 of them, 16 for the others\nepoch 1/3 ")
    assert done.err.count("best epoch") == 1
