"""Training on a CUDA device: `python -m bench gpu`; there is nothing to measure without one.

Rows are random, of FashionMNIST's and of CIFAR's shape: a step takes as long whatever is in them, and no data has to be there. The
configs are those of `configs/` and `examples/`, with everything at its defaults but for the report.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.measure import ROOT, rounds, spread, times
from nnrun.run import Run, open_run
from nnrun.seeds import Seeds
from nnrun.spec.reader import read_spec
from nnrun.training.device import autocast
from nnrun.training.loss_modules import training_loss
from nnrun.training.step import Step, Use

EPOCHS, STEPS, SEEDS = 10, 100, 128
GREY, COLOUR = "grey.npz", "colour.npz"


def write_rows(file: Path, shape: tuple[int, ...], rows: int) -> None:
    """Write random pictures of ten classes."""
    draw = np.random.default_rng(0)
    np.savez(file, x=draw.integers(0, 256, (rows, *shape), dtype=np.uint8), y=draw.integers(0, 10, rows))


def written(folder: Path, config: str, dataset: str, device: str) -> Path:
    """Write one of our configs with other rows; return the file."""
    text = (ROOT / config).read_text().replace("dataset: fashion_mnist\n", f"dataset: {{npz: {{path: {folder / dataset}}}}}\n")
    if dataset == COLOUR:
        text = text.replace("60000", "5000").replace("70000", "6000").replace(", {pad: 2}", "")
    (folder / Path(config).name).write_text(text + f"device: {device}\n")
    return folder / Path(config).name


def trained(config: Path, *settings: str) -> float:
    """Return the seconds of training, saving and all."""
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(*read_spec(config, list(settings)), out=Path(folder) / "run")
        for _ in run.train():
            pass
        return run.seconds["train"]


def steps_of(run: Run) -> Callable[[int], None]:
    """Return what takes so many steps of a run, on the same few batches that lie on the device."""
    loss_fn = training_loss(run.network.loss_fn, run.plan, weighted=False)
    data, size = [one for one in run._training_data() if isinstance(one, Tensor)], run.plan.batch_size
    batches = [tuple(one[start : start + size] for one in data) for start in range(0, 4 * size, size)]
    step = Step(run.state, loss_fn, run.plan, run.device, run.group)
    run.state.model.train()

    def take(count: int) -> None:
        for number in range(count):
            step(Use(size, 1.0, True), batches[number % 4])

    return take


def compiled_steps(run: Run) -> Callable[[int], None]:
    """Return the same by torch.compile, tuned, without CUDA graphs: a fused optimiser, nothing read or checked."""
    model = run.network.model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=run.spec.lr, momentum=0.9, fused=True)
    context: AbstractContextManager[None] = autocast(run.device, run.spec.precision)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        with context:
            return nn.functional.cross_entropy(model(x), y)

    compiled = torch.compile(loss_of, mode="max-autotune-no-cudagraphs")
    size = run.plan.batch_size
    x, y = (one[:size] for one in run._training_data()[:2])
    x = x.contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr]

    def take(count: int) -> None:
        for _ in range(count):
            compiled(x, y).backward()
            optimizer.step()
            optimizer.zero_grad()

    return take


def waited(take: Callable[[int], None], count: int) -> tuple[float, float]:
    """Return the microseconds of a step for the host alone, and until the device is done."""
    take(10)
    torch.cuda.synchronize()
    started = time.perf_counter()
    take(count)
    told = time.perf_counter() - started
    torch.cuda.synchronize()
    return 1e6 * told / count, 1e6 * (time.perf_counter() - started) / count


def opened(config: Path, folder: Path, name: str) -> Run:
    """Return a run that is not going to be trained by itself."""
    return open_run(*read_spec(config), out=folder / name)


def main(repeats: int, device: str = "cuda") -> dict[str, Any]:
    """Return the figures, all of them of one device."""
    if not torch.cuda.is_available():
        raise SystemExit("bench gpu: this machine has no CUDA device")
    with tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        write_rows(folder / GREY, (1, 28, 28), 70_000)
        write_rows(folder / COLOUR, (3, 32, 32), 6_000)
        mlp, lenet = (written(folder, f"configs/{name}.yaml", GREY, device) for name in ("fashion_mnist", "lenet"))
        iris = written(folder, "configs/iris.yaml", "", device)
        resnet = written(folder, "examples/resnet18.yaml", COLOUR, device)
        small, large = (steps_of(opened(config, folder, config.stem)) for config in (iris, resnet))
        compiled = compiled_steps(opened(resnet, folder, "compiled"))

        def once(number: int) -> dict[str, float]:
            stacked = tempfile.mkdtemp(dir=folder)
            seeds = Seeds(*read_spec(iris, []), SEEDS, out=Path(stacked) / "run")
            started = time.perf_counter()
            for _, run in seeds.runs():
                for _ in run.train():
                    pass
            many = time.perf_counter() - started
            host, _ = waited(small, STEPS)
            _, ours = waited(large, STEPS)
            _, theirs = waited(compiled, STEPS)
            return {
                "fashion_mnist_s": trained(mlp, f"epochs={EPOCHS}"),
                "lenet_s": trained(lenet, f"epochs={EPOCHS}"),
                "host_us_per_step": host,
                "resnet_us_per_step": ours,
                "compiled_us_per_step": theirs,
                "iris_s": trained(iris),
                "seeds_s": many,
            }

        found = rounds(once, repeats)
        figures: dict[str, Any] = {name: spread(values) for name, values in found.items()}
        figures["compiled_over_resnet"] = times(found["compiled_us_per_step"], found["resnet_us_per_step"])
        figures["seeds_over_one"] = times(found["seeds_s"], found["iris_s"])
        return {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda, **figures}
