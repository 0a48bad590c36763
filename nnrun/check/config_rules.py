"""The rules that need the config alone: losses and the layer before them, chains of layers, rates, schedules, precision.

Nothing here imports torch: `nnrun check --fast` asks these rules, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from nnrun.check.rules import Finding
from nnrun.registry import RULES

if TYPE_CHECKING:
    from nnrun.spec.base import Location
    from nnrun.spec.experiment import Experiment
    from nnrun.spec.parts import Part

SOFTMAX = ("softmax", "log_softmax", "softmin")
SIGMOID = ("sigmoid", "hardsigmoid", "logsigmoid")
LIMITING = (*SOFTMAX, *SIGMOID, "relu", "relu6", "tanh", "hardtanh", "softsign", "softplus", "threshold")
"""Activations that cannot give every number."""

PASSING = ("identity", "flatten", "unflatten", "dropout", "dropout2d")
"""Layers that hand on the same numbers, or some of them."""

LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
STILL_LINEAR = (*PASSING, "batch_norm", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool1d", "upsample")

SATURATING = {"sigmoid": (1 / 4, 4), "hardsigmoid": (1 / 6, 4), "tanh": (1.0, 10), "hardtanh": (1.0, 10), "softsign": (1.0, 10)}
"""The largest slope of an activation, and how many of them in a chain are too many for torch's first weights."""

RENEWING = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "residual", "relu", "leaky_relu", "gelu", "elu", "selu", "silu")
"""Layers after which a gradient is not only a product of small slopes."""

RATES = {  # the optimiser → the smallest and the largest rate that is ever of use, and a usual one
    "sgd": (1e-6, 10.0, 0.01),
    "adam": (1e-6, 0.1, 1e-3),
    "adamw": (1e-6, 0.1, 1e-3),
    "nadam": (1e-6, 0.1, 1e-3),
    "radam": (1e-6, 0.1, 1e-3),
    "rmsprop": (1e-6, 0.1, 1e-3),
    "adagrad": (1e-5, 2.0, 0.01),
    "adadelta": (0.01, 10.0, 1.0),
    "lbfgs": (0.01, 10.0, 1.0),
    "muon": (1e-5, 1.0, 0.02),
}


@dataclass(frozen=True)
class Link:
    """One layer of the chain that a config describes: its name, and where it is written."""

    name: str
    at: Location


def chain(spec: Experiment) -> list[Link]:
    """Return the layers in order; widths stand for a linear layer and the activation each, and one more linear layer."""
    links: list[Link] = []
    for number, layer in enumerate(spec.layers):
        if isinstance(layer, int):
            links += [Link("linear", ("layers", number)), Link(spec.activation.entry.name, ("activation",))]
        else:
            links.append(Link(layer.entry.name, ("layers", number)))
    by_width = not spec.layers or isinstance(spec.layers[-1], int)
    return [*links, Link("linear", ("layers",))] if by_width else links


def last_layer(spec: Experiment) -> Link:
    """Return the last layer that does something to its numbers."""
    links = chain(spec)
    return next((link for link in reversed(links) if link.name not in PASSING), links[-1])


def loss_name(spec: Experiment) -> str:
    """Return the name of the loss; "" while it depends on the data."""
    return spec.loss.entry.name if spec.loss else ""


@RULES.register("NN101", on="config", severity="warning")
def softmax_twice(spec: Experiment) -> Iterator[Finding]:
    """A softmax before cross_entropy, which applies one itself.

    A softmax of a softmax can never be near 0 or 1, so the loss cannot fall to 0 and the gradients are small; the classes may still come
    out right, more slowly.
    """
    last = last_layer(spec)
    if loss_name(spec) == "cross_entropy" and last.name in SOFTMAX:
        twice = "so it is applied twice" if last.name == "log_softmax" else "so the softmax is applied twice and gradients shrink"
        yield Finding(f"the last layer is {last.name} and cross_entropy applies log_softmax itself, {twice}", "remove the layer", last.at)


@RULES.register("NN102", on="config", severity="error")
def nll_of_raw_scores(spec: Experiment) -> Iterator[Finding]:
    """nll without log_softmax before it.

    nll only picks the output of the right class and turns its sign; unless the outputs are logarithms of probabilities, it falls without
    end by making them large, and its value means nothing.
    """
    last = last_layer(spec)
    if loss_name(spec) == "nll" and last.name not in ("log_softmax", "logsigmoid"):
        fix = "replace it by log_softmax" if last.name in (*SOFTMAX, *SIGMOID) else "write `loss: cross_entropy`, or end with log_softmax"
        yield Finding(f"the last layer is {last.name}, and nll takes log-probabilities as they are", fix, last.at)


@RULES.register("NN103", on="config", severity="warning")
def kl_of_probabilities(spec: Experiment) -> Iterator[Finding]:
    """Probabilities before kl_div, which takes their logarithms.

    The divergence of something that is not logarithmic is no divergence: a published notebook found −0.45, where the least is 0. nnrun
    normalises the outputs once more, so its loss is never negative, but probabilities taken for logarithms never come near the target.
    """
    last = last_layer(spec)
    if loss_name(spec) == "kl_div" and last.name in LIMITING and last.name not in ("log_softmax", "logsigmoid"):
        fix = "write log_softmax instead" if last.name in (*SOFTMAX, *SIGMOID) else "put log_softmax in its place"
        yield Finding(f"the last layer is {last.name}, and kl_div takes logarithms of probabilities", fix, last.at)


@RULES.register("NN104", on="config", severity="note")
def kl_of_raw_scores(spec: Experiment) -> Iterator[Finding]:
    """kl_div without log_softmax before it.

    nnrun normalises the outputs itself, so training is right; other tools do not, and with log_softmax written out the network means the
    same everywhere.
    """
    last = last_layer(spec)
    if loss_name(spec) == "kl_div" and last.name not in LIMITING:
        fix = "end the layers with log_softmax" if not _by_width(spec) else "list the layers, the last one log_softmax"
        yield Finding(f"the last layer is {last.name}, and kl_div takes logarithms of probabilities", fix, last.at)


@RULES.register("NN105", on="config", severity="warning")
def sigmoid_twice(spec: Experiment) -> Iterator[Finding]:
    """A sigmoid before bce_with_logits, which applies one itself.

    The second sigmoid sees numbers from 0 to 1 only and gives 0.5 to 0.73, so no row can be given a probability below one half.
    """
    last = last_layer(spec)
    if loss_name(spec) == "bce_with_logits" and last.name in (*SIGMOID, *SOFTMAX):
        yield Finding(f"the last layer is {last.name} and bce_with_logits applies a sigmoid itself", "remove the layer", last.at)


@RULES.register("NN106", on="config", severity="warning")
def limited_scores(spec: Experiment) -> Iterator[Finding]:
    """An activation after the last layer of a classifier, whose loss wants raw scores.

    The loss must be able to make a score as large or as negative as it needs; behind a relu a wrong score of 0 gets no gradient at all.
    """
    last, loss = last_layer(spec), spec.loss
    wants_raw = loss is not None and loss.entry.traits["scores"] in ("logits", "binary_logits", "margins")
    told = {"cross_entropy": SOFTMAX, "bce_with_logits": (*SIGMOID, *SOFTMAX)}.get(loss_name(spec), ())
    if wants_raw and last.name in LIMITING and last.name not in told:
        yield Finding(f"the last layer is {last.name}, and {loss_name(spec)} wants scores of any size", "remove the layer", last.at)


@RULES.register("NN107", on="config", severity="warning")
def linear_after_linear(spec: Experiment) -> Iterator[Finding]:
    """Two linear layers with no activation between them.

    Together they are one linear layer, only with more numbers to learn; what makes a network more than that is the activation between.
    """
    links = [link for link in chain(spec) if link.name not in STILL_LINEAR]
    pairs = [(one, two) for one, two in pairwise(links) if one.name in LINEAR and two.name in LINEAR]
    for one, two in pairs[:1]:
        more = f", and {len(pairs) - 1} more such pairs" if len(pairs) > 1 else ""
        what = f"{_numbered(one)} and {_numbered(two)} have no activation between them{more}: together they are one linear layer"
        yield Finding(what, "put `relu` between them, or leave one out", two.at)


@RULES.register("NN108", on="config", severity="warning")
def deep_saturation(spec: Experiment) -> Iterator[Finding]:
    """An activation that saturates, many times in a chain.

    A gradient is multiplied by the slope of each activation on its way back; slopes of at most 1/4 (sigmoid), or 1 only near 0 (tanh),
    leave next to nothing for the first layers.
    """
    run: list[Link] = []
    for link in [*chain(spec), Link("residual", ())]:
        if link.name in SATURATING and (not run or run[0].name == link.name):
            run.append(link)
        elif link.name in RENEWING:
            slope, many = SATURATING[run[0].name] if run else (1.0, 1)
            if len(run) >= many:
                least = f", which leave at most {slope ** len(run):.2g} of a gradient" if slope < 1 else ""
                what = f"{len(run)} {run[0].name} layers follow each other{least}: the first layers hardly learn"
                yield Finding(what, "write relu instead, or put batch_norm before each of them", run[0].at)
            run = []


@RULES.register("NN109", on="config", severity="warning")
def rate_of_another_optimizer(spec: Experiment) -> Iterator[Finding]:
    """A learning rate out of proportion to the optimiser.

    Adam moves every weight by about lr a step, sgd by lr times the gradient, adadelta and lbfgs find their own scale and want lr near 1; a
    rate that is right for one is useless for another.
    """
    name = spec.optimizer.entry.name
    low, high, usual = RATES.get(name, (0.0, float("inf"), 0.0))
    momentum = spec.optimizer.arguments().get("momentum", 0) if name == "sgd" else 0
    lr = spec.lr / (1 - momentum) if isinstance(momentum, int | float) and momentum < 1 else spec.lr
    if not low <= lr <= high:
        with_momentum = f" (with momentum {momentum:g} as much as {lr:g})" if momentum else ""
        bound = f"more than {high:g}" if lr > high else f"less than {low:g}"
        yield Finding(f"lr is {spec.lr:g}{with_momentum}, {bound}: {name} is used with about {usual:g}", f"write `lr: {usual:g}`", ("lr",))


@RULES.register("NN110", on="config", severity="warning")
def watching_the_training_part(spec: Experiment) -> Iterator[Finding]:
    """Early stopping that watches the training part.

    The training loss goes on falling while the network learns the rows by heart; only rows that it does not learn from show when to stop.
    """
    stop = spec.early_stopping
    if stop and stop.monitor.startswith("train."):
        no_val = spec.split.val in (0, 0.0, [])
        fix = "give split a `val` share, and watch `val.loss`" if no_val else "write `monitor: val.loss`"
        yield Finding(f"early_stopping watches {stop.monitor}, which says nothing about new rows", fix, ("early_stopping",))


@RULES.register("NN111", on="config", severity="warning")
def patience_beyond_the_end(spec: Experiment) -> Iterator[Finding]:
    """Early stopping that cannot happen before the last epoch.

    It waits for `patience` epochs without improvement, and the run is over before that.
    """
    stop = spec.early_stopping
    if stop and stop.patience >= spec.epochs:
        what = f"early_stopping waits for {stop.patience} epochs without improvement, and the run has {spec.epochs}"
        yield Finding(what, f"write `patience: {max(1, spec.epochs // 10)}`, or more epochs", ("early_stopping",))


@RULES.register("NN112", on="config", severity="warning")
def schedule_beyond_the_end(spec: Experiment) -> Iterator[Finding]:
    """A schedule, or a warm-up, that is longer than the run.

    What it plans for later epochs never happens: the rate does not fall, or never reaches `lr`.
    """
    name, arguments, left = spec.schedule.entry.name, spec.schedule.arguments(), spec.epochs - spec.warmup_epochs
    if left <= 0:
        what = f"warmup_epochs is {spec.warmup_epochs:g} and the run has {_epochs(spec.epochs)}, so the rate never stays at lr"
        yield Finding(what, f"write `warmup_epochs: {spec.epochs / 10:g}`", ("warmup_epochs",))
        return
    late = [mark for mark in arguments.get("milestones", ()) if mark >= left]
    after_warmup = f" after the warm-up of {spec.warmup_epochs:g}" if spec.warmup_epochs else ""
    if name == "step" and arguments["step_size"] >= left:
        what = f"the first step comes after {arguments['step_size']} epochs, and the run has {left:g}{after_warmup}"
        yield Finding(what, f"write `step_size: {max(1, int(left / 3))}`", ("schedule",))
    elif late:
        what = f"milestone {late[0]} is never reached: the run has {_epochs(left)}{after_warmup}"
        yield Finding(what, f"write milestones below {left:g}, or more epochs", ("schedule",))
    elif name == "plateau" and arguments["patience"] >= left:
        what = f"plateau waits for {arguments['patience']} epochs without improvement, and the run has {left:g}{after_warmup}"
        yield Finding(what, f"write `patience: {max(1, int(left / 10))}`", ("schedule",))


@RULES.register("NN113", on="config", severity="warning")
def half_precision_on_the_cpu(spec: Experiment) -> Iterator[Finding]:
    """precision: float16 on the CPU.

    The CPU reckons in float16 more slowly than in float32, and nnrun scales the loss on CUDA only, so small gradients become 0.
    """
    if spec.precision == "float16" and spec.device == "cpu":
        yield Finding("precision is float16, and the device is the CPU", "write `precision: bfloat16`, or float32", ("precision",))


def written(parts: list[Part]) -> list[str]:
    """Return parts as a config would name them, arguments that are not the default included."""
    told = []
    for part in parts:
        given = {name: value for name, value in part.arguments().items() if value != part.entry.arguments[name].default}
        inside = ", ".join(f"{name}: {value}" for name, value in given.items())
        told.append(f"{{{part.entry.name}: {{{inside}}}}}" if inside else part.entry.name)
    return told


def _numbered(link: Link) -> str:
    number = f"layer {link.at[1]} " if len(link.at) > 1 else "the output layer "
    return f"{number}({link.name})"


def _by_width(spec: Experiment) -> bool:
    return not spec.layers or isinstance(spec.layers[-1], int)


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'s' * (count != 1)}"
