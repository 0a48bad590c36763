"""What an experienced colleague would say about an experiment: one small function each, registered under its code.

A rule returns a sentence with its evidence and its mend, or None. `on="config"` looks at the spec alone, `on="outcome"` at the predictions
of the finished network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnrun.registry import RULES

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.data.dataset import Task
    from nnrun.spec.experiment import Experiment


@RULES.register("NN101", on="config")
def softmax_twice(spec: Experiment) -> str | None:
    """A softmax before cross_entropy, which applies one itself."""
    last = spec.layers[-1] if spec.layers else None
    if last is None or isinstance(last, int) or spec.loss is None or spec.loss.entry.name != "cross_entropy":
        return None
    if last.entry.name not in ("softmax", "log_softmax"):
        return None
    twice = "so the softmax is applied twice and gradients shrink" if last.entry.name == "softmax" else "so it is applied twice"
    return f"the last layer is {last.entry.name} and cross_entropy applies log_softmax itself, {twice}; remove the layer"


@RULES.register("NN301", on="outcome")
def one_class_only(predicted: Tensor, y: Tensor, task: Task) -> str | None:
    """A network that gives every row the same class."""
    if not task.classes or len(predicted) < 2 or bool((y == y[0]).all()):
        return None
    found = predicted[0]
    if not bool((predicted == found).all()):
        return None
    share = float((y == found).double().mean())
    return (
        f"the network predicts one class only: {task.classes[int(found)]!r} for all {len(predicted)} rows "
        f"(right for {share:.0%} of them); scale the inputs (`preprocess: [standardize]`), lower lr, or train longer"
    )


def config_notes(spec: Experiment) -> list[str]:
    """Return what the rules say about a spec, before any data is read."""
    said = [(code, RULES[code].build(spec)) for code in RULES if RULES[code].traits["on"] == "config"]
    return [f"{code}: {note}" for code, note in said if note]


def outcome_notes(predicted: Tensor, y: Tensor, task: Task) -> list[str]:
    """Return what the rules say about the predictions of a finished network."""
    said = [(code, RULES[code].build(predicted, y, task)) for code in RULES if RULES[code].traits["on"] == "outcome"]
    return [f"{code}: {note}" for code, note in said if note]
