"""Small networks of every layer and every loss, for promises that hold for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnrun.spec.experiment import Experiment
from nnrun.spec.reader import check

CONV = {"out_channels": 3, "kernel_size": 3}
SHAPES = {1: (2, 12), 2: (2, 9, 9), 3: (2, 6, 6, 6)}
PLAIN = "relu relu6 leaky_relu prelu elu selu celu gelu silu mish sigmoid logsigmoid hardsigmoid hardswish tanh hardtanh tanhshrink softplus softsign softshrink hardshrink softmax log_softmax softmin glu layer_norm identity"
LAYERS: list[tuple[list[Any], tuple[int, ...]]] = [([{"linear": 8}, name], (4,)) for name in PLAIN.split()]
LAYERS += [([{f"conv{d}d": CONV}, {f"{name}{d}d": 2 if "pool" in name else CONV}, "flatten"], SHAPES[d]) for d in SHAPES for name in ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")]  # fmt: skip
LAYERS += [
    ([{"linear": 8}, {"threshold": {"threshold": 0.1, "value": 0}}], (4,)),
    ([{"upsample": {"scale_factor": 2}}, "flatten"], (2, 4, 4)),
    ([{"conv2d": CONV}, {"instance_norm": {"affine": True}}, {"group_norm": 3}, "flatten"], (2, 6, 6)),
    ([{"embedding": {"num_embeddings": 4, "embedding_dim": 3}}, "flatten"], (6,)),
    ([{"linear": 8}, {"residual": [{"linear": 8}, "relu"]}, {"unflatten": [2, 4]}, "flatten"], (4,)),
]
CLASS_LOSSES: list[Any] = ["cross_entropy", {"cross_entropy": {"weight": [1.0, 2.0, 3.0]}}, {"cross_entropy": {"weight": [1.0, 2.0, 3.0], "label_smoothing": 0.1}}, "multi_margin", {"multi_margin": {"p": 2, "weight": [1.0, 2.0, 3.0]}}, {"nll": {"weight": [1.0, 2.0, 3.0]}}, "nll", {"bce_with_logits": {"pos_weight": [1.0, 2.0, 3.0]}}, "mse", "l1", "smooth_l1", "huber", "kl_div", "hinge"]  # fmt: skip
NUMBER_LOSSES: list[Any] = ["mse", "poisson_nll", {"poisson_nll": {"full": True}}, "gaussian_nll", {"gaussian_nll": {"full": True}}]
NETWORKS = [
    *((*one, "cross_entropy", "abc") for one in LAYERS),
    *(([{"linear": 4}, "tanh"], (4,), loss, "abc") for loss in CLASS_LOSSES),
    *(([{"linear": 4}, "tanh"], (4,), loss, "") for loss in NUMBER_LOSSES),
]
"""Layers before the last one, the shape of a row, the loss, and a letter for each class; none for a number."""


def written(layers: list[Any], loss: Any, classes: str, **keys: Any) -> Experiment:
    """Return the experiment with these layers and the linear one that ends them."""
    metrics = ["accuracy"] if classes else ["rmse"]
    return check({"name": "it", "dataset": "iris", "layers": [*layers, {"linear": "auto"}], "loss": loss, "metrics": metrics, **keys})


def some_rows(counts: tuple[int, ...], shape: tuple[int, ...], classes: str) -> tuple[Tensor, Tensor]:
    """Return inputs (*counts, *shape), whole numbers from 0 to 3 that a table of vectors has too, and targets beside them."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 4, (*counts, *shape), generator=draw).float()
    return x, torch.randint(0, len(classes), counts, generator=draw) if classes else torch.rand(*counts, 1, generator=draw)
