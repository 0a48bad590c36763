"""scikit-learn's own MLP: same widths, solver, rate and batches; it stops by `max_iter` alone, has no L2 penalty, and no validation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits
from torch import nn

from bench.peers.turn import timed
from bench.peers.work import Work


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training; it counts a short last batch as a step too."""
    linear = [layer for layer in work.model().modules() if isinstance(layer, nn.Linear)]
    kind = MLPClassifier if work.classes else MLPRegressor
    mlp = kind(
        hidden_layer_sizes=[layer.out_features for layer in linear[:-1]],
        activation={"sigmoid": "logistic"}.get(name := work.spec.activation.entry.name, name),
        solver=work.spec.optimizer.entry.name,
        momentum=0,
        nesterovs_momentum=False,
        learning_rate_init=work.spec.lr,
        batch_size=work.batch_size,
        shuffle=work.spec.shuffle,
        max_iter=work.spec.epochs,
        alpha=0,
        tol=0,
        n_iter_no_change=work.spec.epochs + 1,
        random_state=0,
    )
    x, y = work.x.numpy(), work.y.numpy().squeeze()

    def train() -> int:
        with threadpool_limits(work.run.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # that is what max_iter is for here
            mlp.fit(x, y)
        return mlp.n_iter_ * math.ceil(len(x) / work.batch_size)

    return train
