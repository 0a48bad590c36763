"""Augmentation: a pure function of seed, epoch and row, on training pictures only; it resumes to the byte from the middle of an epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import Result

from nnrun import builtin as _registers_all_parts  # noqa: F401
from nnrun.data.augment import Augmentation, Change, uniform
from nnrun.errors import Interrupted
from nnrun.registry import AUGMENT
from nnrun.run import open_run
from nnrun.spec.reader import check, read_spec
from nnrun.training.loop import stream_seed
from tests.test_resume import StopAt, finish

Call = Callable[..., Result]

ALL: list[Any] = ["flip", {"crop": 2}, {"rotation": 20}, {"colour_jitter": {"saturation": 0.3}}, "random_erasing"]
CONFIG = "dataset: digits\npreprocess: [{scale: 0.0625}]\naugment: [{crop: 1}, {rotation: 20}, colour_jitter, random_erasing]\nlayers: [16]\nlr: 0.01\nbatch_size: 64\nepochs: 3\n"


def augmentation(*steps: Any, shape: tuple[int, ...] = (3, 9, 7), seed: int = 0) -> Augmentation:
    spec = check({"name": "it", "dataset": "iris", "augment": list(steps)})
    return Augmentation(spec.augment, shape, partial(stream_seed, seed, "augment"))


def pictures(rows: int = 200, shape: tuple[int, ...] = (3, 9, 7)) -> Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(3))


def change(name: str, **arguments: Any) -> Change:
    made: Change = AUGMENT[name].build(**arguments)
    return made


def test_the_random_numbers_are_uniform_and_of_each_row_alone():
    """Their mean, their spread and their correlation are those of independent numbers; another key, row or place gives others."""
    rows = torch.arange(20_000)
    u = uniform(stream_seed(0, "augment", 1), rows, 0, 4).double()
    assert (u.min() >= 0, u.max() < 1) == (True, True)
    assert u.mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.01)
    assert u.var(0).tolist() == pytest.approx([1 / 12] * 4, abs=0.002)
    together = torch.cat(
        [
            u,
            u.roll(1, 0),
            uniform(stream_seed(0, "augment", 2), rows, 0, 2).double(),
            uniform(stream_seed(1, "augment", 1), rows, 0, 2).double(),
        ],
        1,
    )
    apart = torch.corrcoef(together.T) - torch.eye(12)
    assert apart.abs().max() < 0.03
    assert len(u.unique(dim=0)) == 20_000
    some = torch.tensor([7, 19_999, 3])
    assert torch.equal(uniform(stream_seed(0, "augment", 1), some, 2, 2).double(), u[some][:, 2:])


@pytest.mark.parametrize("step", ALL, ids=lambda step: step if isinstance(step, str) else next(iter(step)))
def test_a_row_does_not_depend_on_its_batch(step: Any):
    """In another order, alone, or among others: the same bits; in another epoch or with another seed, not."""
    x, rows, it = pictures(), torch.arange(200) * 3, augmentation(step)
    whole = it(x, rows, 1)
    assert whole.shape == x.shape
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert torch.equal(it(x[order], rows[order], 1), whole[order])
    assert torch.equal(torch.cat([it(x_B, rows_B, 1) for x_B, rows_B in zip(x.split(33), rows.split(33), strict=True)]), whole)
    assert torch.equal(torch.cat([it(x[row : row + 1], rows[row : row + 1], 1) for row in range(20)]), whole[:20])
    assert not torch.equal(it(x, rows, 2), whole)
    assert not torch.equal(augmentation(step, seed=1)(x, rows, 1), whole)
    assert not torch.equal(it(x, rows + 1, 1), whole)


def test_flip_mirrors_half_of_them():
    """Each row is itself or its mirror; p decides how many."""
    x = pictures()
    made = augmentation("flip")(x, torch.arange(200), 1)
    mirrored = (made == x.flip(3)).flatten(1).all(1)
    assert (mirrored | (made == x).flatten(1).all(1)).all()
    assert 70 < mirrored.sum() < 130
    assert torch.equal(augmentation({"flip": {"p": 1.0, "axis": "vertical"}})(x, torch.arange(200), 1), x.flip(2))
    assert torch.equal(augmentation({"flip": 0.0})(x, torch.arange(200), 1), x)


def test_crop_moves_by_whole_pixels():
    """Every shift up to `by` in both directions comes, and zeros come in."""
    x = torch.zeros(2000, 1, 9, 7)
    x[:, 0, 4, 3] = 1
    made = augmentation({"crop": 2}, shape=(1, 9, 7))(x, torch.arange(2000), 1)
    places = made.flatten(1).argmax(1)
    found = {(int(place) // 7 - 4, int(place) % 7 - 3) for place in places}
    assert found == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert (made.flatten(1).sum(1) == 1).all()


def test_rotation_turns_around_the_middle():
    """A quarter turn is rot90; the middle stays; the shape may be oblong."""
    turned = change("rotation", degrees=180.0).apply
    x = pictures(5, (2, 8, 8))
    quarter = torch.full((5, 1), 0.75)  # 2 · 0.75 - 1 = half of 180
    assert torch.allclose(turned(x, quarter), x.rot90(1, (2, 3)), atol=1e-5) or torch.allclose(
        turned(x, quarter), x.rot90(-1, (2, 3)), atol=1e-5
    )
    dot = torch.zeros(1, 1, 9, 21)
    dot[0, 0, 4, 14] = 1.0  # 4 right of the middle: after a quarter turn 4 above or below it, and no longer
    made = turned(dot, torch.tensor([[0.75]]))
    assert made[0, 0, :, 10].max() == pytest.approx(1, abs=1e-4)
    assert int(made[0, 0, :, 10].argmax()) in (0, 8)


def test_colour_jitter_scales_what_it_says():
    """Brightness all values, contrast the distance from the mean, saturation that from grey; 0 leaves a picture as it is."""
    x, half = pictures(4), torch.full((4, 3), 0.75)  # a factor of 1 + s / 2
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    assert torch.allclose(change("colour_jitter", **still).apply(x, half), x, atol=1e-6)
    assert torch.allclose(change("colour_jitter", **still | {"brightness": 0.4}).apply(x, half), x * 1.2, atol=1e-6)
    mean = x.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(change("colour_jitter", **still | {"contrast": 0.4}).apply(x, half), mean + (x - mean) * 1.2, atol=1e-6)
    grey = x.mean(1, keepdim=True)
    assert torch.allclose(change("colour_jitter", **still | {"saturation": 0.4}).apply(x, half), grey + (x - grey) * 1.2, atol=1e-6)


def test_random_erasing_cuts_rectangles():
    """Of the wanted size, about half of the rows, everywhere."""
    x = torch.ones(1000, 1, 20, 20)
    made = augmentation({"random_erasing": {"smallest": 0.1, "largest": 0.2}}, shape=(1, 20, 20))(x, torch.arange(1000), 1)
    gone = made[:, 0] == 0
    hit = gone.flatten(1).any(1)
    assert 430 < hit.sum() < 570
    sizes = gone[hit].any(2).sum(1) * gone[hit].any(1).sum(1)
    assert torch.equal(sizes, gone[hit].sum((1, 2)))  # a rectangle
    assert sizes.min() >= 28
    assert sizes.max() <= 92
    assert gone.any(0).all()


@pytest.mark.parametrize("batch_size", ["64", "all"])
def test_it_resumes_to_the_byte(batch_size: str, tmp_path: Path):
    """Stopped in the middle of the second epoch, and again in the third."""
    config = tmp_path / "it.yaml"
    config.write_text(CONFIG.replace("batch_size: 64", f"batch_size: {batch_size}"))
    straight, hurt = tmp_path / "straight", tmp_path / "hurt"
    finish(open_run(*read_spec(config), out=straight))
    per_epoch = json.loads((straight / "metrics.jsonl").read_text().splitlines()[0])["step"]
    for number, step in enumerate((per_epoch + per_epoch // 2, 2 * per_epoch + 1)):
        run = open_run(*read_spec(config), out=hurt, resume=number > 0)
        if per_epoch > 1:
            with pytest.raises(Interrupted):
                finish(run, StopAt(run, step))
        else:
            next(iter(run.train()))
        run.lock.release()
    finish(open_run(*read_spec(config), out=hurt, resume=True))
    for name in ("best.safetensors", "last.safetensors"):
        assert (hurt / name).read_bytes() == (straight / name).read_bytes()


def test_only_training_rows_are_changed(call: Call, tmp_path: Path):
    """The figures of the summary are those of eval, of the train part too, which knows no augmentation; without it the run is another."""
    (tmp_path / "it.yaml").write_text(CONFIG)
    done = call("train", "it.yaml", "--out", "run", "-q", "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    for part in ("train", "val", "test"):
        assert json.loads(call("eval", "--checkpoint", "run", "--split", part, "--json").stdout)["metrics"] == summary["metrics"][part]
    plain = json.loads(call("train", "it.yaml", "--out", "plain", "-q", "--json", "--set", "augment=[]").stdout)
    assert plain["metrics"]["train"]["loss"] < summary["metrics"]["train"]["loss"]
    (tmp_path / "it.yaml").write_text(CONFIG)
    refused = call("train", "it.yaml", "--out", "run", "--resume", "--set", "epochs=4", "--set", "augment=[flip]")
    assert refused.stderr.startswith("error: --set:1:9: the run was started with another augment: ")


REFUSED = {
    "a table": ("dataset: iris\naugment: [flip]\n", "it.yaml:2:10: augment changes pictures (channels, height, width), and a prepared row has the shape [4]\n    2 | augment: [flip]\n      |          ^^^^^^\nfix: remove it, or take flatten out of preprocess: layers can begin with it\n"),
    "a crop too far": ("dataset: digits\naugment: [flip, {crop: 8}]\n", "it.yaml:2:17: crop by 8 could move a picture of 8 × 8 out of itself\n    2 | augment: [flip, {crop: 8}]\n      |                 ^^^^^^^^^\nfix: write `crop: 1`\n"),
    "colours of grey": ("dataset: digits\naugment: [{colour_jitter: {saturation: 0.5}}]\n", "it.yaml:2:11: saturation wants pictures of 3 channels, and these have 1\n"),
    "a wrong name": ("dataset: digits\naugment: [flop]\n", "it.yaml:2:11: augmentation 'flop' does not exist\n    2 | augment: [flop]\n      |           ^^^^\nfix: did you mean 'flip'? (nnrun list augment shows all 5)\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_augmented_is_told_before_training(case: str, call: Call, tmp_path: Path):
    """At its place in the config; no folder is made."""
    config, sentence = REFUSED[case]
    (tmp_path / "it.yaml").write_text(config)
    done = call("train", "it.yaml")
    assert (done.exit_code, done.stderr[: len(sentence) + 7]) == (2, f"error: {sentence}")
    assert not (tmp_path / "runs").exists()
