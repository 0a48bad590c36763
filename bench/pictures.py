"""3,000 JPEGs of 256 × 192: decoded by one thread and by all, and an epoch of training, held in memory and decoded anew in each epoch."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.measure import rounds, seconds
from nnrun.data.pictures import decode, picture_files, read_picture
from nnrun.run import open_run
from nnrun.spec.reader import read_spec

PICTURES, WIDTH, HEIGHT, SIZE = 3000, 256, 192, 64
CONFIG = """
dataset: {{pictures: {{path: {folder}/pictures, size: {size}}}}}
preprocess: [pixels]
augment: {augment}
layers:
  - conv2d: {{out_channels: 16, kernel_size: 3, stride: 2}}
  - relu
  - conv2d: {{out_channels: 32, kernel_size: 3, stride: 2}}
  - relu
  - flatten
  - linear: auto
epochs: 2
batch_size: 64
evaluate: []
"""
AUGMENT = {"plain": "[]", "augmented": "[flip, randaugment, mixup]"}


def make(folder: Path) -> None:
    """Write the pictures: noise of two coarsenesses, as a camera's files are large and smooth."""
    noise = np.random.default_rng(0)
    for number in range(PICTURES):
        kind = number % 2
        coarse = noise.integers(0, 256, (HEIGHT >> 3 + kind, WIDTH >> 3 + kind, 3), dtype=np.uint8)
        path = folder / "pictures" / "ab"[kind] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)


def once(folder: Path, files: list[Path], x: torch.Tensor, number: int) -> dict[str, float]:
    """Return pictures a second of one round."""
    one = seconds(lambda: [read_picture(file, (3, SIZE, SIZE)) for file in files])
    figures = {"decoded_one_thread": PICTURES / one, "decoded": PICTURES / seconds(lambda: decode(files, x))}
    for kind, augment in AUGMENT.items():
        (folder / "it.yaml").write_text(CONFIG.format(folder=folder, size=SIZE, augment=augment))
        for how, stream in (("held", "false"), ("streamed", "true")):
            run = open_run(*read_spec(folder / "it.yaml", [f"dataset.stream={stream}"]), out=folder / f"{kind}-{how}-{number}")
            figures[f"{kind}_{how}"] = run.rows["train"] * run.spec.epochs / sum(record.seconds for record in run.train())
    return figures


def main(repeats: int) -> dict[str, Any]:
    """Return the medians of pictures a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        files, _ = picture_files(folder / "pictures")
        x = torch.empty((len(files), 3, SIZE, SIZE), dtype=torch.uint8)
        found = rounds(partial(once, folder, files, x), repeats)
    return {"pictures_a_second": {key: round(median(values)) for key, values in found.items()}}
