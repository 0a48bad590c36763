"""What goes wrong while a network trains, said once, at the epoch in which it is seen: small functions, each registered under its code.

A rule returns a sentence with its evidence and its mend, or None. `on="weights"` looks at the network, after epochs 1, 2, 4, 8, … and the
last, but not between the first and the 500th step; `on="losses"` at the losses so far, four times as often. Both depend on weights and
losses alone, never on the time or on how many epochs are planned, so that a run that was stopped, or goes on longer, says the same; what
only the last epoch shows is not kept for it.

There is no rule about waiting for data: nnrun's data is in the device's memory, and nothing waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nnrun.registry import RULES

if TYPE_CHECKING:
    from nnrun.data.dataset import Rows, Task
    from nnrun.spec.experiment import Experiment
    from nnrun.training.loop import State
    from nnrun.training.network import Network
    from nnrun.training.record import Record
    from nnrun.training.signs import Signs

LOOKED_AT = 256
"""Training rows that the network is looked at with; always the same ones."""
ENOUGH_STEPS = 500
"""Steps after which a network should answer more than one thing, as it should at the last epoch. Between its first epoch and these it is
not looked at: to look takes as long as twenty small steps do."""
MEND_SAME = "scale the inputs (`preprocess: [standardize]`), lower lr, or train longer"


@dataclass(frozen=True)
class Weights:
    """A network at the end of an epoch.

    Args:
        last: whether training ends here.
        warm: whether the learning rate has risen to its height.
    """

    epoch: int
    steps: int
    last: bool
    warm: bool
    task: Task
    signs: Signs


@dataclass
class Losses:
    """The losses so far, one an epoch; those of validation only where it is scored."""

    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """What a rule said, and when."""

    code: str
    epoch: int
    message: str

    def __str__(self) -> str:
        return f"epoch {self.epoch}: {self.code}: {self.message}"


@RULES.register("NN401", on="weights", severity="warning")
def one_answer(seen: Weights) -> str | None:
    """A network that gives every row the same answer.

    What it answers follows from no input: it has learned only which class is the most frequent, or the mean.
    """
    predicted, y = seen.signs.predicted, seen.signs.y
    if not (seen.last or seen.steps >= ENOUGH_STEPS) or len(y) < 2 or bool((y == y[0]).all()):
        return None
    if seen.task.classes:
        if bool((predicted == predicted[0]).all()):
            answer = repr(seen.task.classes[int(predicted[0])])
            return f"every prediction is the same class, {answer}, for {len(y)} training rows of several classes; {MEND_SAME}"
    elif bool((predicted.std(0) < 1e-3 * y.std(0)).all()):
        answer = ", ".join(f"{value:.4g}" for value in predicted.mean(0).tolist())
        return f"every prediction is the same number, {answer}, for {len(y)} training rows; {MEND_SAME}"
    return None


@RULES.register("NN402", on="weights", severity="warning")
def dead_units(seen: Weights) -> str | None:
    """Rectifiers, most of a layer's, that are 0 for every row; of few inputs, half are from the start.

    A unit that is 0 for every row passes no gradient on, so it stays so, and the layer is as narrow as what is left of it.
    """
    worst = max(seen.signs.layers, key=lambda layer: layer.dead / layer.units, default=None)
    if worst is None or worst.dead < 0.8 * worst.units:
        return None
    few = f"{worst.dead} of the {worst.units} units of layer {worst.name!r} ({worst.kind}) are 0 for every row, and learn nothing any more"
    return f"{few}; scale the inputs (`preprocess: [standardize]`), lower lr, or take leaky_relu"


@RULES.register("NN403", on="weights", severity="warning")
def saturated(seen: Weights) -> str | None:
    """A layer most of whose values are at the flat ends of its activation.

    At the flat ends of sigmoid or tanh hardly any gradient passes, and the layers before learn very slowly.
    """
    worst = max((layer for layer in seen.signs.layers if layer.hidden), key=lambda layer: layer.saturated, default=None)
    if worst is None or worst.saturated < 0.8:
        return None
    share = (
        f"{worst.saturated:.0%} of the values of layer {worst.name!r} ({worst.kind}) are at its flat ends, where hardly any gradient passes"
    )
    return f"{share}; scale the inputs (`preprocess: [standardize]`), lower lr, or take relu"


@RULES.register("NN404", on="weights", severity="warning")
def vanishing_gradient(seen: Weights) -> str | None:
    """A gradient that does not reach the first layers.

    The first layers keep the weights they were drawn with, however long the training.
    """
    if any(layer.dead == layer.units for layer in seen.signs.layers):
        return None  # NN402 says why
    relative = {name: norm / size for name, (norm, size) in seen.signs.gradients.items() if size > 0}
    if len(relative) < 2:
        return None
    first, strongest = next(iter(relative)), max(relative, key=lambda name: relative[name])
    if not relative[first] < 1e-4 * relative[strongest]:
        return None
    times = relative[first] / relative[strongest]
    return (
        f"the gradient, beside the weights, is {times:.0e} times as large in {first} as in {strongest}: it vanishes on the way; "
        "take relu, batch_norm or residual layers, or fewer layers"
    )


@RULES.register("NN405", on="weights", severity="warning")
def steps_too_large(seen: Weights) -> str | None:
    """Steps as large as the weights themselves.

    Such steps jump over what they look for; the loss goes up and down, or grows without end.
    """
    signs = seen.signs
    if signs.step is None or signs.size == 0 or not signs.gradients or not signs.step > 0.5 * signs.size:
        return None
    ratio = f"one step changes the weights by {signs.step / signs.size:.0%} of their size (gradient norm {signs.gradient:.3g})"
    return f"{ratio}; lower lr, scale the inputs (`preprocess: [standardize]`), or set clip_grad_norm"


@RULES.register("NN406", on="weights", severity="warning")
def steps_too_small(seen: Weights) -> str | None:
    """Steps too small to get anywhere, at the start of training.

    Thousands of such steps leave the weights where they were drawn.
    """
    signs = seen.signs
    if seen.epoch > 1 or not seen.warm or signs.step is None or signs.gradient == 0 or signs.step >= 1e-6 * signs.size:
        return None
    return f"one step changes the weights by {signs.step / signs.size:.0e} of their size, and a thousandth is usual; raise lr"


@RULES.register("NN411", on="losses", severity="warning")
def plateau(losses: Losses) -> str | None:
    """A training loss that has stood still for half of the epochs.

    More epochs cost time and bring nothing; or something keeps the network from learning more.
    """
    train, half = losses.train, len(losses.train) // 2
    if half < 10:
        return None
    before, now = min(train[:half]), min(train)
    little = min(max(1e-3 * (train[0] - now), 1e-2 * abs(now)), 0.1 * abs(before))
    if before - now > little or min(train[-3:]) - before > max(little, 0.1 * abs(before)):  # it falls still, or rises
        return None
    stood = f"the training loss has stood still since epoch {train.index(before) + 1}: {before:.4g} then, {now:.4g} at best since"
    return (
        f"{stood}; fewer epochs would do, or early_stopping; if that is too high a loss, raise lr, scale the inputs, or widen the network"
    )


@RULES.register("NN412", on="losses", severity="warning")
def divergence(losses: Losses) -> str | None:
    """A training loss that rises and stays up.

    Each step makes it worse: the steps are too large for the slope.
    """
    train = losses.train
    lowest = min(train)
    best, now = train.index(lowest), min(train[-3:])
    if len(train) - 1 - best < 3 or now - lowest <= 0.5 * max(train[0] - lowest, 0.2 * abs(train[0])):
        return None
    rises = f"the training loss rises: {lowest:.4g} in epoch {best + 1}, no less than {now:.4g} in the last three epochs"
    return f"{rises}; lower lr, or set clip_grad_norm"


@RULES.register("NN413", on="losses", severity="warning")
def overfitting(losses: Losses) -> str | None:
    """A validation loss that rises while the training loss falls.

    The network learns the training rows by heart, and does worse on all others.
    """
    train, val = losses.train, losses.val
    if len(val) < len(train):
        return None
    lowest = min(val)
    best, now = val.index(lowest), min(val[-3:])
    if len(val) - 1 - best < 3 or train[-1] >= train[best] or now - lowest <= 0.1 * max(val[0] - lowest, 0.2 * abs(val[0])):
        return None
    rises = f"the validation loss rises since epoch {best + 1}, from {lowest:.4g} to {val[-1]:.4g}"
    falls = f"the training loss falls, from {train[best]:.4g} to {train[-1]:.4g}"
    return f"{rises}, while {falls}: what is learned now does not generalise; set early_stopping, add weight_decay or dropout, or more rows"


class Health:
    """Looks after a run: asks the rules as epochs end, and remembers what they said.

    Args:
        rows: the prepared training rows.
        batch: rows of a step.
    """

    def __init__(self, spec: Experiment, task: Task, network: Network, rows: Rows, batch: int) -> None:
        import torch

        from nnrun.data.dataset import HeldRows
        from nnrun.training.loop import stream_seed
        from nnrun.training.signs import Observer

        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(stream_seed(spec.seed, "health")))[:LOOKED_AT]
        some = HeldRows(rows.x[drawn.to(rows.x.device)], rows.y[drawn.to(rows.y.device)])
        self._observer = Observer(network, some, min(batch, LOOKED_AT), spec.optimizer.build, spec.clip_grad_norm)
        self._task, self._warmup = task, spec.warmup_epochs
        self._rules = {
            on: [code for code in RULES if RULES[code].traits["on"] == on and code not in spec.ignore] for on in ("weights", "losses")
        }
        self.losses = Losses()
        self.said: list[Finding] = []
        self._at_the_end: list[Finding] = []

    @property
    def findings(self) -> list[Finding]:
        """All that was said."""
        return self.said + self._at_the_end

    def state(self) -> list[dict[str, Any]]:
        """Return what `restore` needs."""
        return [asdict(one) for one in self.said]

    def restore(self, said: Iterable[dict[str, Any]]) -> None:
        """Go back to what had been said when a checkpoint was made."""
        self.said = [Finding(**one) for one in said]

    def remember(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take in the losses of the epochs before, from the rows of metrics.jsonl."""
        for row in rows:
            self._note(row["train"], row.get("val", {}))

    def look(self, record: Record, state: State, *, last: bool) -> list[Finding]:
        """Take in an epoch; return what there is to say now."""
        self._note(record.train, record.val)
        epoch = record.epoch
        found = self._of_losses(epoch) if epoch % (1 << max(0, epoch.bit_length() - 3)) == 0 else []
        regular = epoch & (epoch - 1) == 0 and (epoch == 1 or state.step >= ENOUGH_STEPS)
        if regular or last:
            seen = Weights(epoch, state.step, False, epoch > self._warmup, self._task, self._observer.look(state))
            found += self._ask("weights", epoch, seen) if regular else []
        self.said += found
        if last:
            self._at_the_end = self._of_losses(epoch) + self._ask("weights", epoch, replace(seen, last=True))
        return found + self._at_the_end

    def _note(self, train: dict[str, float], val: dict[str, float]) -> None:
        self.losses.train.append(train["loss"])
        if "loss" in val:
            self.losses.val.append(math.inf if val["loss"] is None or math.isnan(val["loss"]) else val["loss"])

    def _of_losses(self, epoch: int) -> list[Finding]:
        """Ask about the losses, unless the rows of a resumed run were lost."""
        return self._ask("losses", epoch, self.losses) if len(self.losses.train) == epoch else []

    def _ask(self, on: str, epoch: int, seen: Weights | Losses) -> list[Finding]:
        known = {one.code for one in self.said}
        asked = ((code, RULES[code].build(seen)) for code in self._rules[on] if code not in known)
        return [Finding(code, epoch, message) for code, message in asked if message]
