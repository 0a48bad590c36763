"""Keras 3 on torch: a Sequential of its own layers, compiled, and `fit` without a word."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"  # before keras is imported

import math
from collections.abc import Callable
from pathlib import Path

import keras
from torch import nn

from bench.peers.turn import timed
from bench.peers.work import Work

LAYERS: dict[type[nn.Module], Callable[..., keras.Layer]] = {
    nn.Linear: lambda layer: keras.layers.Dense(layer.out_features),
    nn.Conv2d: lambda layer: keras.layers.Conv2D(layer.out_channels, layer.kernel_size),
    nn.MaxPool2d: lambda layer: keras.layers.MaxPooling2D(layer.kernel_size),
    nn.Flatten: lambda layer: keras.layers.Flatten(),
    nn.ReLU: lambda layer: keras.layers.Activation("relu"),
    nn.Sigmoid: lambda layer: keras.layers.Activation("sigmoid"),
}


@timed
def turn(work: Work, folder: Path) -> Callable[[], int]:
    """Return the training; pictures have their channels first, as torch wants them. A short last batch is a step too."""
    keras.config.set_image_data_format("channels_first")
    layers = [LAYERS[type(layer)](layer) for layer in work.model().children()]
    model = keras.Sequential([keras.Input(work.x.shape[1:]), *layers])
    model.compile(
        optimizer={"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[work.spec.optimizer.entry.name](work.spec.lr),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True) if work.classes else keras.losses.MeanSquaredError(),
    )
    x, y = work.x.numpy(), work.y.numpy()
    held_out = tuple(tensor.numpy() for tensor in work.held_out) if work.held_out else None

    def train() -> int:
        model.fit(x, y, batch_size=work.batch_size, epochs=work.spec.epochs, shuffle=work.spec.shuffle, validation_data=held_out, verbose=0)
        return work.spec.epochs * math.ceil(len(x) / work.batch_size)

    return train
