"""Augmentation: a pure function of seed, epoch and row, on training pictures only; it resumes to the byte from the middle of an epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

from nnrun import builtin as _registers_all_parts  # noqa: F401
from nnrun.data.augment import OPERATIONS, Augmentation, Change, uniform
from nnrun.data.vision import torchvision
from nnrun.errors import Interrupted
from nnrun.registry import AUGMENT, LOSSES
from nnrun.run import open_run
from nnrun.spec.reader import check, read_spec
from nnrun.training.loop import stream_seed
from nnrun.training.loss_modules import Weighted
from tests.test_resume import StopAt, finish

Call = Callable[..., Result]

ALL: list[Any] = [
    "flip", {"crop": 2}, {"rotation": 20}, {"colour_jitter": {"saturation": 0.3, "hue": 0.2}}, "random_erasing", "mixup", "randaugment",
]  # fmt: skip
CONFIG = "dataset: digits\npreprocess: [{scale: 0.0625}]\naugment: [{crop: 1}, {rotation: 20}, colour_jitter, random_erasing, randaugment, {mixup: 0.4}]\nlayers: [16]\nlr: 0.01\nbatch_size: 64\nepochs: 3\n"


class Changed:
    """An augmentation of the first rows of a dataset, as the loop asks for it."""

    def __init__(self, *steps: Any, x: Tensor, y: Tensor | None = None, seed: int = 0, numbers: Tensor | None = None) -> None:
        spec = check({"name": "it", "dataset": "iris", "augment": list(steps)})
        self.data = [x, torch.arange(len(x)) % 3 if y is None else y]
        numbers = torch.arange(len(x)) if numbers is None else numbers
        key = partial(stream_seed, seed, "augment")
        self.augment = Augmentation(spec.augment, x, key, numbers, classes=self.data[1].dtype == torch.int64)

    def batch(self, places: Tensor, epoch: int = 1) -> tuple[Tensor, ...]:
        return self.augment(self.data, tuple(one[places] for one in self.data), places, epoch)

    def __call__(self, places: Tensor | None = None, epoch: int = 1) -> Tensor:
        return self.batch(torch.arange(len(self.data[0])) if places is None else places, epoch)[0]


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


@pytest.mark.parametrize("shape", [(3, 9, 7), (3, 33, 40), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("step", ALL, ids=lambda step: step if isinstance(step, str) else next(iter(step)))
def test_a_row_does_not_depend_on_its_batch(step: Any, shape: tuple[int, ...]):
    """In another order, alone, or among others: the same bits; in another epoch or with another seed, not."""
    if shape[0] == 1 and isinstance(step, dict):
        step = {name: {} if name == "colour_jitter" else value for name, value in step.items()}
    x, numbers = pictures(shape=shape), torch.arange(200) * 3
    it = Changed(step, x=x, numbers=numbers)
    whole = it()
    assert whole.shape == x.shape
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert torch.equal(it(order), whole[order])
    assert torch.equal(torch.cat([it(places) for places in torch.arange(200).split(33)]), whole)
    assert torch.equal(torch.cat([it(torch.tensor([row])) for row in range(20)]), whole[:20])
    assert not torch.equal(it(epoch=2), whole)
    assert not torch.equal(Changed(step, x=x, numbers=numbers, seed=1)(), whole)
    assert not torch.equal(Changed(step, x=x, numbers=numbers + 1)(), whole)


def test_flip_mirrors_half_of_them():
    """Each row is itself or its mirror; p decides how many."""
    x = pictures()
    made = Changed("flip", x=x)()
    mirrored = (made == x.flip(3)).flatten(1).all(1)
    assert (mirrored | (made == x).flatten(1).all(1)).all()
    assert 70 < mirrored.sum() < 130
    assert torch.equal(Changed({"flip": {"p": 1.0, "axis": "vertical"}}, x=x)(), x.flip(2))
    assert torch.equal(Changed({"flip": 0.0}, x=x)(), x)


def test_crop_moves_by_whole_pixels():
    """Every shift up to `by` in both directions comes, and zeros come in."""
    x = torch.zeros(2000, 1, 9, 7)
    x[:, 0, 4, 3] = 1
    made = Changed({"crop": 2}, x=x)()
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


def test_colour_jitter_is_torchvisions():
    """Each of its four strengths, by a factor of its own for each row, as torchvision's functionals do it."""
    functional = torchvision().transforms.v2.functional
    x, u = pictures(6), torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    still = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    assert torch.equal(change("colour_jitter", **still).apply(x, u), x)
    for number, name in enumerate(still):
        made = change("colour_jitter", **still | {name: 0.4}).apply(x, u)
        by = ((name != "hue") + (2 * u[:, number] - 1) * 0.4).tolist()
        wanted = [getattr(functional, f"adjust_{name}")(one, factor) for one, factor in zip(x, by, strict=True)]
        torch.testing.assert_close(made, torch.stack(wanted), atol=5e-6, rtol=0)
    together = change("colour_jitter", **dict.fromkeys(still, 0.4)).apply(x, u)
    for name in still:
        x = change("colour_jitter", **still | {name: 0.4}).apply(x, u)
    assert torch.equal(together, x)


@pytest.mark.parametrize("shape", [(3, 17, 24), (1, 12, 12)], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_operations_of_randaugment_are_torchvisions(operation: str, shape: tuple[int, ...]):
    """Each of the 14, at two strengths and on both sides, on smooth numbers and on bytes."""
    v2 = torchvision().transforms.v2
    x = pictures(8, shape)
    x = torch.cat([x, (x * 255).round() / 255 * 0.5 + 0.2])
    name = next(one for one in v2.RandAugment._AUGMENTATION_SPACE if one.lower() == operation.replace("_", ""))
    for magnitude in (9, 30):
        theirs = v2.RandAugment(1, magnitude)
        strengths, signed = theirs._AUGMENTATION_SPACE[name]
        strength = 0.0 if strengths(31, *shape[1:]) is None else float(strengths(31, *shape[1:])[magnitude])
        for sign in (1, -1):
            side = sign * strength if signed else strength
            wanted = [theirs._apply_image_or_video_transform(one.clone(), name, side, theirs.interpolation, theirs._fill) for one in x]
            made = OPERATIONS[operation](x, torch.full((16,), sign * magnitude / 30, dtype=torch.float64))
            torch.testing.assert_close(made, torch.stack(wanted), atol=5e-6, rtol=0)


def test_randaugment_does_each_operation_as_often():
    """One of 14 at a time, on either side; with magnitude 0 what has a strength does nothing."""
    x = pictures(1, (3, 9, 7)).expand(2800, 3, 9, 7)
    made = Changed({"randaugment": {"num_ops": 1, "magnitude": 20}}, x=x)()
    kinds, counts = made.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 5 + 2 * 9  # identity, posterize, solarize, autocontrast, equalize; and both sides of the others
    assert counts.min() > 65
    assert counts.max() < 270
    still = Changed({"randaugment": {"num_ops": 1, "magnitude": 0}}, x=x)()
    assert 1700 < (still - x).abs().amax((1, 2, 3)).lt(1e-6).sum() < 2300  # all but posterize, solarize at 1, autocontrast, equalize


def test_two_rows_are_mixed_as_by_hand():
    """Inputs in shares that follow from the hashes; the loss is loss(out, a)·w + loss(out, b)·(1 - w), of the row and of its partner."""
    x, y = pictures(2), torch.tensor([0, 2])
    it = Changed({"mixup": 0.7}, x=x, y=y)
    made, targets, weights = it.batch(torch.tensor([0, 1]), epoch=5)
    u = uniform(stream_seed(0, "augment", 5), torch.arange(2), 0, 3).double()
    partner = (u[:, 0] * 2).long()
    # A symmetric Beta variate from Student's t by Bailey's method, which is another way to write Devroye's.
    t = (1.4 * ((1 - u[:, 1]) ** (-2 / 1.4) - 1)).sqrt() * (2 * torch.pi * u[:, 2]).cos()
    share = (0.5 + t / (2 * (1.4 + t**2).sqrt())).float()
    for row in range(2):
        torch.testing.assert_close(made[row], x[row] * share[row] + x[partner[row]] * (1 - share[row]))
    assert targets.tolist() == [0, 2, *y[partner].tolist()]
    torch.testing.assert_close(weights, torch.cat([share, 1 - share]))
    output = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    by_row = nn.functional.cross_entropy(output, y, reduction="none"), nn.functional.cross_entropy(output, y[partner], reduction="none")
    published = (by_row[0] * share + by_row[1] * (1 - share)).mean()
    torch.testing.assert_close(Weighted(LOSSES["cross_entropy"].build())(output, targets, weights), published)


def test_shares_are_beta_and_partners_are_all_rows():
    """The variance of Beta(a, a) is 1 / (4·(2a + 1)); each row is a partner as often."""
    for alpha in (0.2, 1.0, 5.0):
        it = Changed({"mixup": alpha}, x=torch.zeros(20_000, 1, 1, 1), y=torch.arange(20_000))
        _, targets, weights = it.batch(torch.arange(20_000))
        share = weights[:20_000].double()
        assert (share.min() >= 0, share.max() <= 1) == (True, True)
        assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(share.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
        partners = targets[20_000:]
        assert partners.bincount(minlength=20_000).max() < 10
        assert abs(float(torch.corrcoef(torch.stack([partners.double(), torch.arange(20_000).double()]))[0, 1])) < 0.03


def test_a_partner_is_augmented_as_itself():
    """What comes before mixup is done to both rows, each by its own numbers; what comes after, to the mixture."""
    x = pictures(50)
    places = torch.arange(50)
    before, plain = Changed("flip", {"mixup": 1.0}, x=x), Changed("flip", x=x)()
    flipped = Changed({"flip": 0.0}, {"mixup": 1.0}, x=plain)
    assert torch.equal(before(), flipped())
    after = Changed({"flip": 0.0}, {"mixup": 1.0}, {"flip": 1.0}, x=plain)
    assert torch.equal(after(places), flipped(places).flip(3))


def test_numbers_and_weights_are_mixed_too():
    """Targets that are numbers in the same shares; the weights of rows stand beside the target they belong to."""
    x, y, weight = torch.rand(6, 1, 2, 2), torch.rand(6, 2), torch.rand(6) + 0.5
    it = Changed({"mixup": 1.0}, x=x, y=torch.cat([x[:, 0, 0, :1], x[:, 0, 0, 1:]], 1))
    places = torch.arange(6)
    made, targets = it.batch(places)
    torch.testing.assert_close(targets, made[:, 0, 0])
    *_, mean = it.augment([x, y, weight], (x, y, weight), places, 1)
    classed = Changed({"mixup": 1.0}, x=x, y=places)
    _, targets, share = classed.batch(places)
    *_, weights = classed.augment([x, places, weight], (x, places, weight), places, 1)
    torch.testing.assert_close(weights, share * weight[targets])
    torch.testing.assert_close(mean, weights[:6] + weights[6:])


def test_mixed_pictures_with_numbers_as_targets_train(call: Call, tmp_path: Path):
    """And with row weights by class, several batches in a step, and L-BFGS, all of which see the batch as the loss does."""
    x = torch.rand(40, 1, 4, 4)
    np.savez(tmp_path / "it.npz", x=x.numpy(), y=x.mean((1, 2, 3)).numpy(), k=np.array(["a", "b"])[(x[:, 0, 0, 0] > 0.7).long().numpy()])
    (tmp_path / "it.yaml").write_text(
        "dataset: {npz: it.npz}\npreprocess: [{scale: 1.0}]\naugment: [mixup]\nlayers: [flatten, {linear: auto}]\nepochs: 3\nbatch_size: 8\nlr: 0.05\n"
    )
    for changes in ([], ["dataset.y=k", "class_weight=balanced", "accumulate_batches=2"], ["dataset.y=k", "optimizer=lbfgs"]):
        done = call("train", "it.yaml", "-q", "--json", *(word for one in changes for word in ("--set", one)))
        assert done.exit_code == 0, done.output
        assert call("check", "it.yaml", *(word for one in changes for word in ("--set", one))).exit_code == 0


def test_random_erasing_cuts_rectangles():
    """Of the wanted size, about half of the rows, everywhere."""
    x = torch.ones(1000, 1, 20, 20)
    made = Changed({"random_erasing": {"smallest": 0.1, "largest": 0.2}}, x=x)()
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
    "colours of another range": ("dataset: digits\naugment: [flip, randaugment]\n", "it.yaml:2:17: randaugment wants numbers from 0 to 1, and the prepared pictures go from 0 to 16\n    2 | augment: [flip, randaugment]\n      |                 ^^^^^^^^^^^\nfix: write `preprocess: [pixels]`; what else it did, layers such as batch_norm can do\n"),
    "mixed twice": ("dataset: digits\naugment: [mixup, flip, {mixup: 1}]\n", "it.yaml:2:24: mixup is given twice\n"),
    "a wrong name": ("dataset: digits\naugment: [flop]\n", "it.yaml:2:11: augmentation 'flop' does not exist\n    2 | augment: [flop]\n      |           ^^^^\nfix: did you mean 'flip'? (nnrun list augment shows all 7)\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_augmented_is_told_before_training(case: str, call: Call, tmp_path: Path):
    """At its place in the config; no folder is made."""
    config, sentence = REFUSED[case]
    (tmp_path / "it.yaml").write_text(config)
    done = call("train", "it.yaml")
    assert (done.exit_code, done.stderr[: len(sentence) + 7]) == (2, f"error: {sentence}")
    assert not (tmp_path / "runs").exists()
