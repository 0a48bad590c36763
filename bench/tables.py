"""A table of 1,000,000 × 30 numbers: read and prepared, a step of training, and predicted from, each beside the least that can be done.

The least is polars reading the file, a bare loop over the same tensors, and polars reading the file with a bare forward pass. Each pair is
measured side by side; the median of the ratios is told.
"""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars
import torch

from bench.bare import bare_epochs
from bench.measure import rounds, seconds, spread
from nnrun.data.prepare import prepare
from nnrun.run import open_run
from nnrun.spec.reader import read_spec
from nnrun.terminal import write_frames
from nnrun.trained import Trained, load

ROWS, COLUMNS = 1_000_000, 30
CONFIG = (
    "dataset: {{csv: {folder}/t.csv, target: y}}\npreprocess: [standardize]\nlayers: [64, 64]\nepochs: 1\nbatch_size: 256\nevaluate: []\n"
)


def make(folder: Path) -> None:
    """Write the table as CSV and as Parquet."""
    noise = np.random.default_rng(0)
    x_ND = noise.normal(size=(ROWS, COLUMNS))
    columns = {f"x{number}": x_ND[:, number] for number in range(COLUMNS)}
    frame = polars.DataFrame(columns | {"y": x_ND @ noise.normal(size=COLUMNS) + noise.normal(size=ROWS)})
    frame.write_csv(folder / "t.csv", float_precision=4)
    polars.read_csv(folder / "t.csv").write_parquet(folder / "t.parquet")
    (folder / "it.yaml").write_text(CONFIG.format(folder=folder))


def once(folder: Path, x_ND: torch.Tensor, number: int) -> dict[str, float]:
    """Return the figures of one round."""
    spec, source = read_spec(folder / "it.yaml")
    prepared = seconds(lambda: prepare(spec, torch.device("cpu")))
    read = {"csv": seconds(lambda: polars.read_csv(folder / "t.csv")), "parquet": 0.0}
    run = open_run(spec, source, out=folder / f"run-{number}")
    model = copy.deepcopy(run.network.model)
    bare = bare_epochs(run, model, run.spec.optimizer.build(list(model.parameters()), run.spec.lr), 1)
    epoch = sum(record.seconds for record in run.train())
    figures = {
        "read": read["csv"],
        "prepare": prepared,
        "prepare_over_read": prepared / read["csv"],
        "epoch_over_bare": epoch / bare,
        "prepare_and_epoch": prepared + epoch,
        "prepare_and_epoch_over_read_and_bare": (prepared + epoch) / (read["csv"] + bare),
    }
    net = load(folder / f"run-{number}")
    forward = seconds(partial(bare_forward, net.network.model, x_ND))
    read["parquet"] = seconds(lambda: polars.read_parquet(folder / "t.parquet"))
    for kind, reading in read.items():
        took = seconds(partial(predict, net, folder / f"t.{kind}", folder / f"out.{kind}"))
        figures |= {f"predict_{kind}_rows_a_second": ROWS / took, f"predict_{kind}_speed": (reading + forward) / took}
    return figures


def main(repeats: int) -> dict[str, Any]:
    """Return the medians, and of the ratios and speeds the least and the most."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        x_ND = torch.from_numpy(polars.read_parquet(folder / "t.parquet").drop("y").to_numpy(order="c")).float()
        found = rounds(partial(once, folder, x_ND), repeats)
    return {key: median(values) for key, values in found.items()} | {"spread": {key: spread(values) for key, values in found.items()}}


def predict(net: Trained, file: Path, out: Path) -> None:
    """Predict from a file into another, as the command does."""
    write_frames((one.frame() for one in net.stream([str(file)])), out, json=False)


@torch.inference_mode()
def bare_forward(model: torch.nn.Module, x_ND: torch.Tensor) -> None:
    """Put the rows through the network, some at a time."""
    for rows in torch.split(x_ND, 1024):
        model(rows)
