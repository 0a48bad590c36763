"""Dataset → split → preprocessing fitted on the training rows alone → tensors on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnrun.data.dataset import Rows, Task
from nnrun.data.inputs import digest
from nnrun.data.preprocess import apply_steps, fit_steps
from nnrun.data.split import split_rows
from nnrun.errors import DataError
from nnrun.spec.experiment import Experiment


@dataclass(frozen=True)
class Prepared:
    """Data that is ready for a network.

    Args:
        task: what the targets mean.
        columns: the input columns of a table, by name; empty for pictures and arrays.
        raw_shape: the shape of one row as the dataset gives it.
        raw_bytes: whether the dataset gives bytes (pictures from 0 to 255).
        parts: train, val, test: prepared inputs float32 (N, ...) and targets, on the device.
        row_numbers: the numbers (N,) of each part's rows in the dataset.
        fitted: what each preprocessing step learned from the training rows.
        digests: SHA-256 of the data and of the split, as the checkpoint stores them.
    """

    task: Task
    columns: tuple[str, ...]
    raw_shape: tuple[int, ...]
    raw_bytes: bool
    parts: dict[str, Rows]
    row_numbers: dict[str, Tensor]
    fitted: list[dict[str, Tensor]]
    digests: dict[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one prepared row."""
        return tuple(self.parts["train"].x.shape[1:])


def prepare(
    spec: Experiment, device: torch.device, *, fitted: Sequence[Mapping[str, Tensor]] | None = None, stored: Mapping[str, str] | None = None
) -> Prepared:
    """Load, split and prepare the data of an experiment.

    Args:
        fitted: what the steps learned when the network was trained; None learns it from the training rows.
        stored: the digests of a checkpoint, which the data must still have.

    Raises:
        DataError: the data is missing, not usable, or not what it was when the network was trained.
    """
    dataset = spec.dataset.build()
    rows = split_rows(spec.split, dataset.y, spec.seed, dataset.task.classes)
    split_digest = hashlib.sha256(b"".join(part.numpy().tobytes() + b"/" for part in rows.values())).hexdigest()
    digests = {"data": digest(dataset), "split": split_digest}
    for name, value in (stored or {}).items():
        if digests[name] != value:
            what = f"the {name} of dataset {spec.dataset.entry.name!r} has changed since the network was trained"
            fix = f"restore it (digest {value[:12]}, found {digests[name][:12]}), or train again"
            raise DataError(what, fix=fix)
    raw = {name: Rows(dataset.x[part], dataset.y[part]) for name, part in rows.items()}
    learned = [dict(step) for step in fitted] if fitted is not None else fit_steps(spec.preprocess, raw["train"].x)
    parts = {
        name: Rows(apply_steps(spec.preprocess, learned, part.x).contiguous().to(device), part.y.to(device)) for name, part in raw.items()
    }
    shape, raw_bytes = tuple(dataset.x.shape[1:]), dataset.x.dtype == torch.uint8
    return Prepared(dataset.task, dataset.columns, shape, raw_bytes, parts, rows, learned, digests)
