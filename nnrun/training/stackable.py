"""Which networks cannot be trained side by side, and why: all such reasons stand here.

What is not here was compared with networks trained alone, figure by figure (`tests/test_seeds.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnrun.data.source import RowSource
from nnrun.spec.experiment import Experiment, foreign_parts

LAYERS: dict[type[nn.Module], str] = {
    nn.RNNBase: "torch.func has no rule for recurrent layers",
    nn.RReLU: "torch.func has no rule for rrelu, which draws a slope for each value",
}
"""Layer → what keeps it from being stacked."""
OPTIMIZERS = {
    "lbfgs": "lbfgs looks at the loss of one network several times in a step",
    "muon": "muon makes the steps of one matrix orthogonal, and a stack has three dimensions",
}
SEEN_THROUGH = ("layers", "losses", "metrics")
"""The kinds of parts that a stack has to see through; those of a plug-in may do anything."""


def unstackable(spec: Experiment, model: nn.Module, device: torch.device, x: Tensor | RowSource) -> str:
    """Return why networks of a resolved spec cannot be trained side by side on inputs (N, …); empty when they can."""
    return next((reason for reason in _reasons(spec, model, device, x) if reason), "")


def _reasons(spec: Experiment, model: nn.Module, device: torch.device, x: Tensor | RowSource) -> list[str]:
    drops = any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p for module in model.modules())
    return [
        *(reason for kind, reason in LAYERS.items() if any(isinstance(module, kind) for module in model.modules())),
        OPTIMIZERS.get(spec.optimizer.entry.name, ""),
        _of_batch_norm(spec, model),
        "the rows do not fit into memory" if isinstance(x, RowSource) else "",
        "mixup gives each row two targets" if any(part.entry.name == "mixup" for part in spec.augment) else "",
        *(f"{one.name!r} is a part of a plug-in, which may do anything" for one in foreign_parts(spec) if one.kind in SEEN_THROUGH),
        "plateau gives each network a learning rate of its own" if spec.schedule.entry.traits.get("plateau") else "",
        f"products in {spec.precision} are rounded otherwise in a stack" if spec.precision != "float32" else "",
        f"the random numbers of dropout are made within its kernel on {device.type}" if drops and device.type != "cpu" else "",
    ]


def _of_batch_norm(spec: Experiment, model: nn.Module) -> str:
    """Return why batch_norm keeps a network from being stacked, if it does.

    A constant that is added before it is taken away again, so a bias there has no gradient but rounding errors. An optimizer that makes
    steps of `lr` out of any gradient moves it by chance, and the running means, which evaluation uses, come after it late.
    """
    added = False
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.momentum is None:
                return "torch.func has no rule for a batch_norm with momentum null"
            if added and spec.optimizer.entry.name != "sgd":
                return f"a bias before batch_norm has no gradient but rounding errors, and {spec.optimizer.entry.name} makes steps of them"
        if next(module.parameters(recurse=False), None) is not None:
            added = getattr(module, "bias", None) is not None
        elif type(module).__module__ == "torch.nn.modules.activation":
            added = False
    return ""
