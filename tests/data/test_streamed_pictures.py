"""Pictures that are decoded anew whenever they are wanted: the same network to the bit, in bounded memory, broken files told beforehand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import Result

import nnrun.data.pictures
from nnrun import builtin as _registers_all_parts  # noqa: F401
from nnrun.data import source
from nnrun.data.pictures import Pictures, read_picture, read_pictures
from nnrun.errors import DataError, Interrupted, NnrunError
from nnrun.run import open_run
from nnrun.runs.checkpoint import load
from nnrun.spec.reader import read_spec
from tests.test_resume import StopAt, finish

Call = Callable[..., Result]

CONFIG = """
dataset: {pictures: {path: PATH, size: [12, 10], stream: STREAM}}
preprocess: [pixels, {standardize: {over: all}}]
augment: [flip, {crop: 2}, {rotation: 10}, random_erasing, {mixup: 0.5}]
layers: [{conv2d: {out_channels: 4, kernel_size: 3}}, batch_norm, relu, {dropout: 0.2}, flatten, {linear: auto}]
batch_size: 8
accumulate_batches: 2
epochs: 3
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of three classes with JPEGs of many sizes."""
    noise = np.random.default_rng(0)
    for number in range(70):
        height, width = noise.integers(5, 30, 2)
        path = tmp_path / "photos" / "abc"[number % 3] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture(params=[1 << 12, 1 << 26], ids=["small windows", "one window"])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode some pictures at a time, or all."""
    monkeypatch.setattr(source, "WINDOW", request.param)


def config(folder: Path, stream: str) -> Path:
    path = folder.parent / "it.yaml"
    path.write_text(CONFIG.replace("PATH", str(folder)).replace("STREAM", stream))
    return path


def state(run: Path) -> tuple[dict[str, Tensor], list[Any], Any]:
    """Return what a run is worth: every tensor of both checkpoints, its rows, and its summary but for times, names and notes."""
    tensors = {f"{name}/{key}": value for name in ("best", "last") for key, value in load(run / f"{name}.safetensors").tensors.items()}
    rows = [{**json.loads(line), "seconds": 0} for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    told = {key: summary[key] for key in ("metrics", "intervals", "verdict")} | summary["provenance"]["digests"]
    return tensors, rows, told


def same(one: Path, other: Path) -> bool:
    (tensors, *figures), (others, *as_well) = state(one), state(other)
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors) and figures == as_well


def test_a_streamed_run_has_the_bits_of_one_in_memory(photos: Path, window: None, monkeypatch: pytest.MonkeyPatch):
    """Weights, optimiser, figures, digests: decoded anew in each epoch, held as bytes, or prepared as a whole."""
    runs = {name: photos.parent / name for name in ("whole", "streamed", "bytes")}
    finish(open_run(*read_spec(config(photos, "false")), out=runs["whole"]))
    streamed = open_run(*read_spec(config(photos, "true")), out=runs["streamed"])
    assert all(isinstance(part.x, source.RowSource) for part in streamed.data.parts.values())
    assert not any("decoded anew" in note for note in streamed.notes)
    finish(streamed)
    monkeypatch.setattr(nnrun.data.pictures, "free_memory", lambda: 5 * 70 * 360)
    held = open_run(*read_spec(config(photos, "auto")), out=runs["bytes"])
    assert isinstance(held.data.parts["train"].x, source.RowSource)
    monkeypatch.setattr(nnrun.data.pictures, "read_picture", None)  # nothing is decoded again
    finish(held)
    assert same(runs["whole"], runs["streamed"])
    assert same(runs["whole"], runs["bytes"])


def test_it_resumes_from_the_middle_of_an_epoch(photos: Path, window: None):
    """Stopped twice between two steps: to the byte what the run would have been, and what it is in memory."""
    path, straight, hurt = config(photos, "true"), photos.parent / "straight", photos.parent / "hurt"
    finish(open_run(*read_spec(path), out=straight))
    for number, step in enumerate((4, 8)):
        run = open_run(*read_spec(path), out=hurt, resume=number > 0)
        with pytest.raises(Interrupted):
            finish(run, StopAt(run, step))
        run.lock.release()
    finish(open_run(*read_spec(path), out=hurt, resume=True))
    for name in ("best.safetensors", "last.safetensors"):
        assert (hurt / name).read_bytes() == (straight / name).read_bytes()


def test_what_does_not_fit_is_streamed_and_told(photos: Path, monkeypatch: pytest.MonkeyPatch):
    """By itself: prepared as a whole while there is plenty of memory, then as bytes, then not at all."""
    files, size = sorted(photos.rglob("*.jpg")), 70 * 360
    kinds = {}
    for free in (20 * size, 5 * size, 2 * size):
        monkeypatch.setattr(nnrun.data.pictures, "free_memory", lambda free=free: free)
        x, good, notes = read_pictures(files, (3, 12, 10), stream="auto")
        assert good == list(range(70))
        kinds[free // size] = (isinstance(x, Pictures), notes)
        assert (x[:] == torch.stack([torch.from_numpy(read_picture(file, (3, 12, 10))[0].copy()) for file in files])).all()
    told = "70 pictures of 3 × 12 × 10 take 0.0 GB, and 0.0 GB of memory are free: they are decoded anew whenever they are wanted"
    assert kinds == {20: (False, []), 5: (True, []), 2: (True, [told])}


def test_broken_pictures_are_told_before_training(photos: Path, call: Call):
    """All of them by name, also those in the middle; skipped ones are counted, and the rows are those of a run in memory."""
    broken = sorted(photos.rglob("*.jpg"))[20:50:9]
    for path in broken:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    config(photos, "true")
    done = call("train", "it.yaml")
    assert done.exit_code == 2
    assert [str(path) in done.stderr for path in broken] == [True] * 4
    assert done.stderr.count("is not a readable picture") == 4
    assert not (photos.parent / "runs").exists()
    for stream in ("true", "false"):
        done = call("train", "it.yaml", "--out", stream, "--set", f"dataset.stream={stream}", "--set", "dataset.broken=skip")
        assert done.exit_code == 0, done.output
        assert f"note: 4 of 70 pictures cannot be read, and are left out: {broken[0]}, " in done.stderr
    assert same(photos.parent / "true", photos.parent / "false")


def test_a_picture_that_breaks_while_training_is_named(photos: Path):
    """The checkpoint before it is untouched, and the run can be gone on with."""
    run = open_run(*read_spec(config(photos, "true")), out=photos.parent / "run")
    records = run.train()
    next(records)
    path = sorted(photos.rglob("*.jpg"))[33]
    whole = path.read_bytes()
    path.write_bytes(b"gone")
    with pytest.raises(DataError, match=str(path)):
        list(records)
    run.lock.release()
    path.write_bytes(whole)
    finish(open_run(*read_spec(config(photos, "true")), out=photos.parent / "run", resume=True))


def test_a_pixel_bomb_is_refused_by_threads_too(photos: Path):
    """By its header, before it is decoded."""
    Image.new("1", (12_000, 12_000)).save(photos / "a" / "bomb.png")
    with pytest.raises(NnrunError) as caught:
        read_pictures(sorted((photos / "a").iterdir()), (3, 12, 10), stream=True)
    assert str(caught.value).startswith(f"error: {photos}/a/bomb.png is too large: Image size (144000000 pixels) exceeds limit of ")


PEAKS = """
from pathlib import Path
from nnrun.check import examined
from nnrun.data import source
from nnrun.run import open_run
from nnrun.spec.reader import read_spec
from nnrun.training import baselines
source.WINDOW, source.VALUES_AT_ONCE = 1 << 20, 1 << 18
baselines.MOST_VALUES = examined.MOST_VALUES = 1 << 16
for name in ("few", "streamed", "held"):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    memory = lambda key: int(Path("/proc/self/status").read_text().split(key)[1].split()[0])
    before = memory("VmRSS:")
    file = "few.csv" if name == "few" else "list.csv"
    spec, at = read_spec(Path("it.yaml"), overrides=[f"dataset.path={file}", f"dataset.stream={name != 'held'}"])
    for _ in open_run(spec, at, out=Path(name)).train():
        pass
    print(memory("VmHWM:") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read off Linux's /proc")
def test_memory_is_bounded(photos: Path):
    """A streamed run of 10,000 pictures takes little more memory than one of 80, and a fraction of what they take when held."""
    for name, pairs in (("few", 40), ("list", 5000)):
        (photos.parent / f"{name}.csv").write_text("file,label\n" + "photos/a/00.jpg,x\nphotos/b/01.jpg,y\n" * pairs)
    text = "dataset: {pictures: {path: list.csv, size: [24, 32]}}\nleaks: ignore\npreprocess: [pixels]\nlayers: [flatten, {linear: auto}]\nepochs: 1\n"
    (photos.parent / "it.yaml").write_text(text)
    one_heap = os.environ | {"MALLOC_ARENA_MAX": "1"}  # else each thread that decodes has one of its own, and how full they are is chance
    done = subprocess.run([sys.executable, "-c", PEAKS], cwd=photos.parent, capture_output=True, text=True, check=False, env=one_heap)
    assert done.returncode == 0, done.stderr
    _, streamed, held = map(int, done.stdout.split())
    assert streamed < held / 2, f"{streamed} and {held} kB more than before"
