"""A first config for a folder of pictures, read as the `pictures` dataset reads it: size, colour, a small convolutional net."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from nnrun.data.dataset import Dataset, Task
from nnrun.data.pictures import class_folders, looks
from nnrun.errors import DataError
from nnrun.init.parts import FirstConfig, Size, count, plain, plan_of, target_told, task_told, text, training, yaml


def for_pictures(path: Path, written: str, config: Path) -> FirstConfig:
    """Return the config of a folder that has one sub-folder of pictures for each class."""
    folders = class_folders(path)
    files = [file for inside in folders.values() for file in inside]
    if len(folders) < 2:
        raise DataError(f"{path} has one single class, {next(iter(folders))!r}", fix="make a sub-folder for each class")
    (height, width), grey, same = looks(files)
    task = Task(("class",), tuple(folders))
    y = Tensor([number for number, inside in enumerate(folders.values()) for _ in inside]).long()
    plan = plan_of(str(path), Dataset(y, y, task))
    rows = len(plan.parts["train"])
    pools = 2 if min(height, width) >= 8 else 1 if min(height, width) >= 4 else 0
    blocks = [
        line
        for number in range(max(1, pools))
        for line in (
            f"  - conv2d: {{out_channels: {16 * 2**number}, kernel_size: 3, padding: 1}}",
            "  - relu",
            *(["  - max_pool2d: 2  # halves height and width"] if pools else []),
        )
    ]
    size = Size(0, [64], 32 if rows < 2000 else 64, 0.001, 60 if rows < 2000 else 20, 10 if rows < 2000 else 5)
    head = [
        f"{plain(path.name)}: pictures of {task_told(task)}",
        f"  nnrun train {plain(str(config), 200)}",
        f"The folder has {len(y)} {'grey' if grey else 'colour'} pictures"
        + (f" of {height} × {width}." if same else f"; each is brought to {height} × {width}."),
        *target_told(task, y),
        plan.baseline,
    ]
    lines = [
        "dataset:",
        "  pictures:",
        f"    path: {yaml(written)}",
        f"    size: [{height}, {width}]  # height and width",
        f"    channels: {1 if grey else 3}  # {'grey' if grey else 'colour'}",
        *plan.lines,
        "preprocess: [pixels, standardize]  # bytes to 0 … 1, then each pixel to mean 0 and deviation 1 over the training rows",
        "layers:",
        *blocks,
        "  - flatten",
        "  - linear: 64",
        "  - relu",
        "  - dropout: 0.2  # against learning by heart",
        f"  - {{linear: auto, name: head}}  # {count(len(task.classes), 'output')}",
        *training(task, y, size),
    ]
    return FirstConfig(text(config, head, lines), [])
