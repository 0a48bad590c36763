"""One, two and four processes train the same network: the same batches, the same mean losses, the same figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.conftest import Job, figures_of

BASE = "dataset: iris\nlayers: [16, 8]\npreprocess: [standardize]\nlr: 0.01\nepochs: 3\n"
CONFIGS = {
    "an uneven last batch, accumulation, clipping": f"{BASE}batch_size: 11\naccumulate_batches: 3\nclip_grad_norm: 0.5\n",
    "fewer rows in a batch than processes": f"{BASE.replace('[16, 8]', '[6]')}batch_size: 3\nsplit: {{train: 40, val: 30, test: rest}}\n",
    "weights of classes in the loss": f"{BASE}batch_size: 7\nloss: {{cross_entropy: {{weight: [0.2, 1.0, 3.5], label_smoothing: 0.1}}}}\n",
    "weights of rows by their class": f"{BASE}batch_size: 7\nclass_weight: {{setosa: 0, virginica: 4.5}}\n",
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
