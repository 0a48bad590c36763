"""The rules on the data: the sizes of columns and targets, what a column holds, how the classes are spread over the parts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from nnrun.check.config_rules import chain, last_layer, loss_name, written
from nnrun.check.rules import Finding
from nnrun.data.source import RowSource
from nnrun.data.source import column as column_at
from nnrun.lazy import torch
from nnrun.registry import RULES

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.check.examined import Examined
    from nnrun.spec.experiment import Experiment

SPREAD = 100.0  # between the largest column and the smallest
LARGE, SMALL = 30.0, 0.01  # of inputs: the first weights of a layer are made for inputs of about 1
MOSTLY = 0.9  # of the rows are of one class
FEW_ROWS = 100
MOST_VALUES = 5_000_000  # that are looked at for a column that numbers the rows
SAME = 0.01  # of a deviation: what rounding leaves between metres and feet
TIME = re.compile(r"(^|_)(time|date|day|week|month|year|quarter|period|age)|^[tx]\d*$", re.IGNORECASE)  # may well rise by 1 a row
IDENTIFIER = re.compile(r"(^|_|\b)(id|no|nr|number|index|idx|row|case|obs|key|code)s?$", re.IGNORECASE)
ADAPTIVE = ("adam", "adamw", "nadam", "radam", "rmsprop")
BY_DISTANCE = ("mse", "smooth_l1", "huber", "l1", "gaussian_nll")
RANGES = {
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, math.inf),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "logsigmoid": (-math.inf, 0.0),
    "log_softmax": (-math.inf, 0.0),
}
"""What an activation can give."""


@RULES.register("NN201", on="data", severity="warning")
def scale_spread(at: Examined) -> Iterator[Finding]:
    """Columns that reach the network in very different sizes.

    Large columns drown small ones: the first layer's sums, and the steps of its weights, are ruled by them, and one learning rate cannot
    suit both.
    """
    if not _takes_raw_sizes(at) or not at.is_table:
        return
    small, large = _smallest(at), int(at.sizes.argmax())
    if small is None:
        return
    few, much, is_around, around = float(at.sizes[small]), float(at.sizes[large]), "is around", "around"
    if much <= SPREAD * few or much <= 5:  # a column may also stand far from 0 and hardly move
        moves = torch.where(at.constant, math.nan, at.x.std(0))
        small, large = int(moves.nan_to_num(math.inf).argmin()), int(moves.nan_to_num(0).argmax())
        few, much, is_around, around = float(moves[small]), float(moves[large]), "varies by", "by"
        if much <= 10 * SPREAD * few:
            return
    what = f"the columns have very different sizes: {at.column(large)} {is_around} {much:.3g}, {at.column(small)} {around} {few:.2g}"
    yield Finding(f"{what} ({much / few:,.0f} times smaller)", _standardized(at.spec), _preprocess(at.spec))


@RULES.register("NN202", on="data", severity="warning")
def inputs_out_of_scale(at: Examined) -> Iterator[Finding]:
    """Inputs that are all far larger, or far smaller, than 1.

    The first weights are drawn for inputs of about 1; with pixels from 0 to 255 the first outputs are hundreds, and with tiny inputs the
    network sees no difference between its rows.
    """
    small = _smallest(at)
    if small is None or not _takes_raw_sizes(at):
        return
    size, spread = float(at.sizes.square().mean().sqrt()), float(at.sizes.max() / at.sizes[small])
    if at.is_table and spread > SPREAD and float(at.sizes.max()) > 5:  # NN201 has said it
        return
    if not SMALL <= size <= LARGE:
        bytes_left = at.data.raw_bytes and not any(step.entry.name == "pixels" for step in at.spec.preprocess)
        fix = f"preprocess: [{', '.join(['pixels', *written(at.spec.preprocess)])}]" if bytes_left else _standardized(at.spec)
        yield Finding(f"the inputs are around {size:.3g}, and the first weights are made for inputs of about 1", fix, _preprocess(at.spec))


@RULES.register("NN203", on="data", severity="warning")
def targets_out_of_reach(at: Examined) -> Iterator[Finding]:
    """Targets so large that the outputs cannot come to them, or that the first steps throw the network off.

    Adam moves a weight by about lr a step, so outputs of hundreds take many steps; with sgd the gradient grows with the target, and so does
    the step. Scaled targets are learned at the usual rate, and figures and predictions stay in the target's own unit.
    """
    if at.data.task.classes or loss_name(at.spec) not in BY_DISTANCE:
        return
    optimizer, size, lr = at.spec.optimizer.entry.name, at.target_size, at.spec.lr
    width, unscaled = _last_width(at), at.spec.scale_target == "none"
    if optimizer in ADAPTIVE:
        travel = lr * at.steps
        if width * (travel**2 if _hidden(at.spec) else travel) < size:
            what = f"the targets are around {size:.3g}, and {at.steps:,} steps at lr {lr:g} move each weight by {travel:.2g} at most"
            yield Finding(what, "scale_target: standardize" if unscaled else "a larger lr, or more epochs", ("lr",))
    elif optimizer == "sgd" and _hidden(at.spec) and lr * size > 1 and not at.spec.clip_grad_norm and loss_name(at.spec) == "mse":
        what = f"the targets are around {size:.3g}, so the first steps of sgd at lr {lr:g} are around {lr * size:.2g}"
        yield Finding(what, "scale_target: standardize" if unscaled else "a smaller lr", ("lr",))


@RULES.register("NN204", on="data", severity="note")
def constant_columns(at: Examined) -> Iterator[Finding]:
    """Columns that hold the same value in every training row.

    The network can learn nothing from them; when a new row has another value, what it does with it is left to chance.
    """
    same = [number for number in at.measures if at.constant[number]] if at.is_table else []
    if same:
        yield Finding(f"{_listed(at, same)} the same value in all training rows", _ignoring(at, same), ("dataset",))


@RULES.register("NN205", on="data", severity="note")
def duplicate_columns(at: Examined) -> Iterator[Finding]:
    """Columns that hold the same numbers as another one, perhaps in another unit.

    The network gets the same fact twice, and its weights for the two cannot be told apart.
    """
    for first, second in _twins(at) if at.is_table else ():
        what = f"{at.column(second)} is {at.column(first)} once more, but for a factor, a constant and at most {SAME:.0%} of its deviation"
        yield Finding(what, _ignoring(at, [second]), ("dataset",))


@RULES.register("NN206", on="data", severity="warning")
def imbalance(at: Examined) -> Iterator[Finding]:
    """One class that nearly all rows belong to.

    A network that always answers it has a high accuracy and has learned nothing.
    """
    counts, classes = at.y.bincount(minlength=len(at.data.task.classes)) if at.data.task.classes else None, at.data.task.classes
    told = any(name not in ("accuracy", "loss") for name in at.spec.metrics or ())
    weighted = at.spec.loss is not None and any(at.spec.loss.arguments().get(name) for name in ("weight", "pos_weight"))
    weighted = weighted or at.spec.class_weight != "none"
    if counts is None or told or weighted or int(counts.max()) <= MOSTLY * int(counts.sum()):
        return
    most, share = int(counts.argmax()), float(counts.max() / counts.sum())
    what = f"{share:.1%} of the training rows are {classes[most]!r}: always answering it has an accuracy of {share:.3f}"
    yield Finding(what, "write `metrics: [accuracy, balanced_accuracy]`, and perhaps `class_weight: balanced`", ("metrics",))


@RULES.register("NN207", on="data", severity="warning")
def class_missing_from_a_part(at: Examined) -> Iterator[Finding]:
    """A class with no row in one of the parts.

    What is not in the training part cannot be learned, and what is not in the others is not measured.
    """
    classes, parts = at.data.task.classes, {name: part.y.cpu() for name, part in at.data.parts.items() if len(part)}
    counts = {name: y.bincount(minlength=len(classes)) for name, y in parts.items()} if classes else {}
    told = []
    for name, count in counts.items():
        missing = [repr(classes[number]) for number in range(len(classes)) if not count[number]]
        if missing:
            told.append(f"the {name} part ({len(parts[name])} rows) has no row of {', '.join(missing[:3])}{', …' * (len(missing) > 3)}")
    if told:
        rarest = int(torch.stack(list(counts.values())).sum(0).min())
        enough = rarest >= len(parts) and at.spec.split.method not in ("stratified", "rows")
        fix = "write `method: stratified` in the split" if enough else "name rows of each class for each part"
        if at.spec.split.method != "rows" and not enough:
            fix = f"leave out, or join, the classes of few rows (the rarest has {rarest})"
        yield Finding("; ".join(told), fix, ("split",))


@RULES.register("NN208", on="data", severity="warning")
def classes_or_numbers(at: Examined) -> Iterator[Finding]:
    """Labels taken for numbers, or numbers taken for labels.

    As a number, class 2 lies between 1 and 3 and twice as far as 1; as a label, 30 is no nearer to 31 than to 90.
    """
    classes = at.data.task.classes
    if classes and len(classes) > 10 and at.spec.dataset.arguments().get("task") == "auto" and all(map(_is_number, classes)):
        what = f"the target was taken for {len(classes)} classes ({', '.join(classes[:3])}, …), and they are numbers"
        yield Finding(what, "write `task: numbers` (or `task: classes`) in the dataset", ("dataset",))
    if not classes and at.y.shape[1] == 1 and loss_name(at.spec) in BY_DISTANCE:
        values, counts = torch.unique(at.y, return_counts=True)
        first = float(values[0])
        in_a_row = first in (0, 1) and bool((values == first + torch.arange(len(values))).all())
        if in_a_row and 2 <= len(values) <= 10 and int(counts.min()) >= 5:
            shown = f"{values[0]:g} and {values[1]:g}" if len(values) == 2 else f"the whole numbers {values[0]:g} to {values[-1]:g}"
            fix = "if they are kinds and do not count anything, " + (
                "write `task: classes` in the dataset" if "task" in at.spec.dataset.arguments() else "use a dataset of classes"
            )
            yield Finding(f"the target takes only {shown}, and is predicted as a number", fix, ("dataset",))


@RULES.register("NN209", on="data", severity="warning")
def row_numbers_as_input(at: Examined) -> Iterator[Finding]:
    """A column that numbers the rows.

    It says nothing about a new row, and where the table is sorted it gives the answer away.
    """
    parts = [(at.data.row_numbers[name], part.x) for name, part in at.data.parts.items() if len(part)]
    few = min(sum(len(rows) for rows, _ in parts), MOST_VALUES // at.x.shape[1])
    if not at.is_table or at.x.shape[1] < 2 or few < 20:
        return
    rising = _rising(parts, few) if bool(_rising(parts, min(few, 1000)).any()) else torch.zeros(at.x.shape[1], dtype=torch.bool)
    for number in at.measures:
        name = at.name(number)
        column = [column_at(x, number) for _, x in parts] if IDENTIFIER.search(name) else []
        shuffled = bool(column) and bool(_evenly(torch.cat(column).cpu().sort().values.double().diff()[:, None]))
        if not at.constant[number] and not TIME.search(name) and (rising[number] or shuffled):
            how = (
                "rises by the same amount from row to row"
                if rising[number]
                else "holds each of the numbers from its least to its largest once"
            )
            yield Finding(f"{at.column(number)} {how}: it numbers the rows", _ignoring(at, [number]), ("dataset",))


@RULES.register("NN210", on="data", severity="warning")
def targets_out_of_range(at: Examined) -> Iterator[Finding]:
    """A last activation that cannot give some of the targets.

    A relu gives nothing below 0, a sigmoid nothing outside 0 to 1: for such targets the error stays, and behind a relu there is no gradient
    either.
    """
    last = last_layer(at.spec)
    if at.data.task.classes or last.name not in RANGES or loss_name(at.spec) not in ("mse", "l1", "smooth_l1", "huber"):
        return
    low, high = RANGES[last.name]
    outside = float(((at.y < low) | (at.y > high)).double().mean())
    if outside:
        bounds = f"{low:g} to {high:g}".replace("-inf to", "at most").replace(" to inf", " or more")
        span = f"the targets go from {float(at.y.min()):.4g} to {float(at.y.max()):.4g}"
        yield Finding(
            f"the last layer is {last.name}, which gives {bounds}, and {span} ({outside:.0%} outside)", "remove the layer", last.at
        )


@RULES.register("NN211", on="data", severity="warning")
def sorted_and_not_shuffled(at: Examined) -> Iterator[Finding]:
    """Rows sorted by class, and `shuffle: false`.

    Each batch then holds one class only, and the network forgets the others while it learns it.
    """
    rows = len(at.y)
    if at.spec.shuffle or not at.data.task.classes or at.spec.batch_size == "all" or rows <= 2 * at.spec.batch_size:
        return
    changes = float((at.y[1:] != at.y[:-1]).double().mean())
    shares = at.y.bincount().double() / rows
    if changes < 0.2 * float(1 - shares.square().sum()):
        what = f"the class changes only {round(changes * (rows - 1))} times in {rows} training rows, and shuffle is false"
        yield Finding(what, "write `shuffle: true`", ("shuffle",))


@RULES.register("NN212", on="data", severity="note")
def batch_larger_than_the_part(at: Examined) -> Iterator[Finding]:
    """A batch that is larger than the training part.

    Each epoch is then one step, which may be fewer than was meant.
    """
    rows = len(at.data.parts["train"])
    if at.spec.batch_size != "all" and at.spec.batch_size > rows:
        what = f"batch_size is {at.spec.batch_size}, and the training part has {rows} rows: an epoch is one step"
        yield Finding(
            what,
            f"write `batch_size: {2 ** max(0, int(math.log2(rows / 8)))}`, or `all`" if rows >= 8 else "write `batch_size: all`",
            ("batch_size",),
        )


@RULES.register("NN213", on="data", severity="note")
def few_rows_to_measure_on(at: Examined) -> Iterator[Finding]:
    """A part so small that its figures are uncertain.

    0.98 on fifty rows is one wrong row; with another seed it may be three.
    """
    name = next((name for name in ("test", "val") if len(at.data.parts[name])), None)
    rows = len(at.data.parts[name]) if name else 0
    if at.data.task.classes and 0 < rows < FEW_ROWS:
        what = (
            f"the {name} part has {rows} rows: a share of them, such as the accuracy, is uncertain by up to ±{0.98 / math.sqrt(rows):.2f}"
        )
        yield Finding(what, "compare several seeds before believing a difference", ("split",))


def _takes_raw_sizes(at: Examined) -> bool:
    """Whether the first layer works on the sizes of its inputs, and neither brings them to size nor looks them up."""
    first = chain(at.spec)[0].name
    return first not in ("batch_norm", "embedding", "instance_norm") and not (first == "layer_norm" and not at.is_table)


def _smallest(at: Examined) -> int | None:
    """Return the smallest column that is not constant."""
    sizes = torch.where(at.constant, math.inf, at.sizes)
    return int(sizes.argmin()) if bool((~at.constant).any()) else None


def _standardized(spec: Experiment) -> str:
    """Return `preprocess:` with each column brought to mean 0 and deviation 1."""
    kept = [step for step in spec.preprocess if step.entry.name not in ("standardize", "minmax", "scale")]
    return f"preprocess: [{', '.join([*written(kept), 'standardize'])}]"


def _preprocess(spec: Experiment) -> tuple[str]:
    """Where the steps stand, or where they would."""
    return ("preprocess",) if spec.preprocess else ("dataset",)


def _hidden(spec: Experiment) -> bool:
    return sum(link.name not in ("flatten", "identity") for link in chain(spec)) > 1


def _last_width(at: Examined) -> int:
    """Return how many values reach the output layer; of a list of layers, the last width that is written."""
    widths = [layer if isinstance(layer, int) else layer.arguments().get("out_features") for layer in at.spec.layers]
    numbers = [width for width in widths if isinstance(width, int)]
    return numbers[-1] if numbers else at.x.shape[1] + 1 if not _hidden(at.spec) else 64


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?", text) is not None


def _listed(at: Examined, numbers: list[int]) -> str:
    shown = ", ".join(at.column(number) for number in numbers[:5]) + (", …" if len(numbers) > 5 else "")
    return f"{shown} {'has' if len(numbers) == 1 else 'have'}"


def _ignoring(at: Examined, numbers: list[int]) -> str:
    """Return how to leave columns out; only a table in a file has a key for it."""
    if not at.spec.dataset.entry.traits.get("table"):
        return "leave it out of the data" if len(numbers) == 1 else "leave them out of the data"
    names = dict.fromkeys(at.data.columns[number].name for number in numbers)
    return f"write `columns: {{{', '.join(f'{name}: ignore' for name in names)}}}` in the dataset"


def _twins(at: Examined) -> list[tuple[int, int]]:
    """Return pairs of columns that are equal once each is brought to mean 0 and deviation 1."""
    kept = [number for number in at.measures if not at.constant[number]]
    if len(kept) < 2 or len(at.x) < 10:
        return []
    z_ND = at.x[:, kept] - at.x[:, kept].mean(0)
    z_ND = z_ND / z_ND.square().mean(0).sqrt()
    probe = z_ND.T @ torch.randn(len(z_ND), dtype=z_ND.dtype, generator=torch.Generator().manual_seed(0))
    order = probe.argsort().tolist()
    return [
        (kept[min(one, two)], kept[max(one, two)])
        for one, two in pairwise(order)
        if abs(probe[one] - probe[two]) < 5 * SAME * math.sqrt(len(z_ND)) and bool((z_ND[:, one] - z_ND[:, two]).abs().max() < SAME)
    ]


def _rising(parts: Sequence[tuple[Tensor, Tensor | RowSource]], few: int) -> Tensor:
    """Return for each column whether it rises by the same amount from row to row, in the first so many rows of the dataset: (D,)."""
    end = few
    while sum(int((rows < end).sum()) for rows, _ in parts) < few:  # sorting all of many numbers would take much memory
        end *= 2
    numbers = torch.cat([rows[rows < end] for rows, _ in parts])
    x_ND = torch.cat([x[torch.nonzero(rows < end)[:, 0].to(x.device)].cpu() for rows, x in parts])
    order = numbers.argsort()[:few]
    return _evenly(x_ND[order].double().diff(dim=0) / numbers[order].diff()[:, None])


def _evenly(gaps_ND: Tensor) -> Tensor:
    """Return for each column of gaps whether they are all the same (up to rounding) and not 0: (D,)."""
    mean = gaps_ND.mean(0)
    return (gaps_ND.abs().amin(0) > 0) & ((gaps_ND - mean).abs().amax(0) < 0.05 * mean.abs())


@RULES.register("NN214", on="data", severity="note")
def rows_in_two_parts(at: Examined) -> Iterator[Finding]:
    """Rows of the test or validation part that stand in the training part too.

    The network has seen their answers: its figures on them say what it remembers, not what it has understood. `train` says it as well.
    """
    yield from _leaks(at, "duplicates", ("split",))


@RULES.register("NN215", on="data", severity="warning")
def groups_on_both_sides(at: Examined) -> Iterator[Finding]:
    """A group, such as a patient, with rows in two parts.

    Rows of one group are alike, so what is known of its rows in training helps with those in the test part, and will not help with a new
    group. `train` says it as well.
    """
    yield from _leaks(at, "groups", ("split",))


@RULES.register("NN216", on="data", severity="warning")
def target_in_disguise(at: Examined) -> Iterator[Finding]:
    """A column that gives the target away by itself.

    It is often the target in other units, or something that is only known afterwards; then the network is perfect here and useless where it
    is needed. `train` says it as well.
    """
    yield from _leaks(at, "disguise", ("dataset",))


def _leaks(at: Examined, kind: str, place: tuple[str, ...]) -> Iterator[Finding]:
    return (Finding(one.what, one.fix, place) for one in at.data.leaks if one.kind == kind)
