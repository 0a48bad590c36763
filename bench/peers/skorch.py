"""skorch: NeuralNetClassifier or NeuralNetRegressor with its own callbacks, the experiment's validation rows, and quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.helper import predefined_split
from torch.utils.data import TensorDataset

from bench.peers.turn import timed
from bench.peers.work import Work


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training."""
    net = (NeuralNetClassifier if work.classes else NeuralNetRegressor)(
        work.model(),
        criterion=type(work.loss()),
        optimizer=work.optimizer,
        lr=work.spec.lr,
        max_epochs=work.spec.epochs,
        batch_size=work.batch_size,
        iterator_train__shuffle=work.spec.shuffle,
        iterator_train__drop_last=work.spec.drop_last,
        train_split=predefined_split(TensorDataset(*work.held_out)) if work.held_out else None,
        verbose=0,
    )

    def train() -> int:
        net.fit(work.x, work.y)
        return work.steps

    return train
