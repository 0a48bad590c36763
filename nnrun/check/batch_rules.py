"""The rules on one real batch through the untrained network, and the rule about what training would refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnrun.check.rules import Finding
from nnrun.errors import SpecError
from nnrun.registry import RULES

if TYPE_CHECKING:
    from nnrun.check.examined import Examined
    from nnrun.check.trial import Trial
    from nnrun.lazy import torch

NOT_EQUAL = 1e-3
"""Between an analytic and a numerical derivative in float64, as a share of it; rounding makes about 1e-8."""


@RULES.register("NN300", on="plan", severity="error")
def refused(at: Examined, device: torch.device) -> Iterator[Finding]:
    """What training refuses: layers, loss, batches or figures that do not fit the data.

    Outputs that are not as many as the classes or targets, a loss for another task, a layer that cannot take what reaches it, a last
    batch of one row before batch_norm, `drop_last` that leaves no batch: nothing of this can be trained, so it cannot be ignored either.
    """
    from nnrun.training.network import network_for
    from nnrun.training.plan import check_monitors, make_plan

    spec, data = at.spec, at.data
    try:
        network = network_for(spec, data, device)
        for part in data.parts.values():
            network.head.check(part.y)
        _, plateau = make_plan(spec, data, network.model)
        check_monitors(spec, {name: len(part) for name, part in data.parts.items()}, plateau)
    except SpecError as error:
        for fault in error.faults:
            yield Finding(fault.what, fault.fix or "change what is named here", fault.at)


@RULES.register("NN310", on="batch", severity="note")
def parameters_beyond_rows(trial: Trial) -> Iterator[Finding]:
    """Far more parameters than training rows, and nothing that holds the network back.

    Such a network can learn every row by heart; how well it does on new rows shows only in a validation part, and early stopping,
    dropout or weight decay keep it from going too far.
    """
    spec, rows = trial.examined.spec, len(trial.examined.data.parts["train"])
    parts = [layer for layer in spec.layers if not isinstance(layer, int)]
    held_back = (
        spec.early_stopping
        or any(part.entry.name.startswith("dropout") for part in parts)
        or spec.optimizer.arguments().get("weight_decay", 0) > 0
    )
    if trial.parameters > 100 * rows and not held_back:
        what = f"the network learns {trial.parameters:,} numbers from {rows:,} rows ({trial.parameters / rows:,.0f} for each)"
        yield Finding(what, "make the layers smaller, or write `early_stopping: {monitor: val.loss}`", ("layers",))


@RULES.register("NN311", on="batch", severity="warning")
def loss_at_start(trial: Trial) -> Iterator[Finding]:
    """A first loss far above that of the simplest answer.

    An untrained network knows nothing, so its loss should be near that of calling all C classes alike (ln C for cross-entropy), or near the
    variance of the targets. Far above, its outputs are far too large, mostly because the inputs are.
    """
    start, simplest = trial.loss_at_start, trial.simplest_loss(trial.batch.y)
    if simplest is None:
        return
    numbers = not trial.examined.data.task.classes
    size = trial.examined.target_size if numbers else 0.0
    level = max(simplest, size**2 if trial.network.head.loss == "mse" else size, 1.0)  # untrained outputs are around 1 themselves
    bound = 10 * level if numbers else 3 * simplest
    if not math.isfinite(start) or start > bound > 0:
        what = f"before training the loss is {start:.3g}, and {_simplest(trial)} has {simplest:.3g}"
        yield Finding(what, "bring the inputs to size: `preprocess: [standardize]`", ("preprocess",))


@RULES.register("NN312", on="batch", severity="error")
def no_gradient(trial: Trial) -> Iterator[Finding]:
    """A layer whose parameters get no gradient.

    It cannot learn: something behind it gives the same output whatever comes in (a relu that is 0 for every row), or does not pass
    gradients back.
    """
    dead = [one.layer for one in trial.gradients if one.norm == 0]
    if dead:
        many = f"{len(dead)} of {len(trial.gradients)} layers that learn"
        what = f"no gradient comes to layer {', '.join(map(repr, dead[:4]))}{', …' if len(dead) > 4 else ''} on the first batch ({many})"
        yield Finding(what, "remove an activation after the last layer, scale the inputs, or try another seed", ("layers",))


@RULES.register("NN313", on="batch", severity="error")
def wrong_gradient(trial: Trial) -> Iterator[Finding]:
    """A gradient that is not the derivative of the loss.

    The loss is also differentiated by moving the weights a little, in float64; where the two differ, a layer's backward pass is wrong.
    """
    for one in trial.gradients:
        if one.difference > NOT_EQUAL:
            what = f"the gradient of layer {one.layer!r} is wrong by {one.difference:.1%}, compared with the numerical one"
            yield Finding(what, "mend the backward pass of this layer, or of one behind it", ("layers",))


@RULES.register("NN314", on="batch", severity="error")
def rows_mixed(trial: Trial) -> Iterator[Finding]:
    """A row whose output depends on the other rows of its batch, in evaluation.

    Predictions would then depend on what else is predicted: somewhere the dimension of the batch was taken for another one.
    """
    if trial.mixed > 1e-6:
        what = f"the output of a row changes by {trial.mixed:.2g} of its size when the other rows of the batch are left out"
        yield Finding(what, "look for a layer that works over the first dimension", ("layers",))


@RULES.register("NN315", on="batch", severity="warning")
def cannot_overfit(trial: Trial) -> Iterator[Finding]:
    """A network that cannot learn even a few rows by heart.

    Any network with enough parameters can; one that does not is cut off somewhere: the loss gets no gradient, or the outputs cannot come to
    the targets.
    """
    found = trial.overfit
    if found and found[1] > 0.5:
        rows, share = found
        what = f"{rows} rows cannot be learned by heart: their loss stays at {share:.0%} of that of {_simplest(trial)}"
        yield Finding(what, "look at the last layer, and at the loss", ("layers",))


@RULES.register("NN316", on="batch", severity="warning")
def memory_beyond_the_machine(trial: Trial) -> Iterator[Finding]:
    """Training that needs more memory than there is.

    The system would stop it, or slow it down a hundred times; most of it is the batch on its way through the layers.
    """
    if 0 < trial.memory_there < trial.memory:
        what = f"training takes about {trial.memory / 2**30:.0f} GiB, and the device has {trial.memory_there / 2**30:.0f}"
        yield Finding(what, "write a smaller batch_size, or accumulate_batches", ("batch_size",))


@RULES.register("NN317", on="batch", severity="error")
def diverges_at_once(trial: Trial) -> Iterator[Finding]:
    """Training that diverges within its first steps.

    A number stops being finite, and the run, which begins with the same steps, would stop there.
    """
    _, diverged = trial.steps
    if diverged:
        yield Finding(diverged, "lower lr, scale the inputs (`preprocess: [standardize]`), or set clip_grad_norm", ("lr",))


def _simplest(trial: Trial) -> str:
    return "calling all classes alike" if trial.examined.data.task.classes else "always answering the mean"
