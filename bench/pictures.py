"""3,000 JPEGs of 256 × 192: decoded by one thread and by all, and an epoch of training, held in memory and decoded anew in each epoch."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

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


def main(repeats: int) -> dict[str, Any]:
    """Return the medians of pictures a second; the first round warms up."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        files, _ = picture_files(folder / "pictures")
        x = torch.empty((len(files), 3, SIZE, SIZE), dtype=torch.uint8)
        for repeat in range(repeats + 1):
            started = time.perf_counter()
            for file in files:
                read_picture(file, (3, SIZE, SIZE))
            one = time.perf_counter()
            decode(files, x)
            figures = {"decoded_one_thread": PICTURES / (one - started), "decoded": PICTURES / (time.perf_counter() - one)}
            for kind, augment in AUGMENT.items():
                (folder / "it.yaml").write_text(CONFIG.format(folder=folder, size=SIZE, augment=augment))
                for how in ("false", "true"):
                    spec, source = read_spec(folder / "it.yaml", overrides=[f"dataset.stream={how}"])
                    run = open_run(spec, source, out=folder / f"{kind}-{how}-{repeat}")
                    seconds = sum(record.seconds for record in run.train())
                    figures[f"{kind}_{'streamed' if how == 'true' else 'held'}"] = run.rows["train"] * spec.epochs / seconds
            for key, value in figures.items():
                found.setdefault(key, []).append(value)
    return {"pictures_a_second": {key: round(median(values[1:])) for key, values in found.items()}}
