"""A trained network, rebuilt from its checkpoint alone: it scores the data it was trained on, or a file, and predicts.

net = load("runs/iris")
net.evaluate("test")                     # the same figures as the run's summary, to the bit on the same machine
net.predict(frame).values                # rows in memory, or files, prepared as the training rows were
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import nnrun.builtin  # noqa: F401 (fills the registries)
from nnrun.data.categories import fills
from nnrun.data.columns import Column
from nnrun.data.dataset import Rows, Task
from nnrun.data.fingerprint import Known
from nnrun.data.given import inputs_of
from nnrun.data.inputs import Inputs, Wanted, in_batches, read_inputs, read_scored, stream_inputs
from nnrun.data.prepare import Prepared, check_columns, prepare
from nnrun.data.preprocess import apply_steps, columns_after
from nnrun.data.table_files import Reading
from nnrun.errors import CheckpointError, DataError, InputError, NnrunError, Place
from nnrun.runs import checkpoint as files
from nnrun.runs.folder import checkpoint_file
from nnrun.runs.resume import known
from nnrun.spec.experiment import Experiment
from nnrun.spec.reader import check
from nnrun.training.device import choose_device
from nnrun.training.ensemble import ensemble
from nnrun.training.evaluate import ROWS_AT_ONCE
from nnrun.training.metrics import Scored
from nnrun.training.network import Network, build_network, load_weights

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Predictions:
    """One prediction for each row of the input, in its order.

    Args:
        rows: row numbers counted from 0, or names of pictures.
        predicted: class numbers (N,), or numbers (N, T) in the unit of the target.
        shares: the probability of each class (N, K) in the order of `classes`; None for numbers, or when none were asked for.
        notes: what the user should know.
    """

    task: Task
    rows: range | list[str]
    predicted: Tensor
    shares: Tensor | None
    notes: list[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities; empty when numbers are predicted."""
        return self.task.classes

    @property
    def values(self) -> list[Any]:
        """The name of a class for each row, or a number, or where there are several targets a list of them; in the target's own unit."""
        made = self.predicted.tolist()
        return [self.classes[k] for k in made] if self.classes else made if len(self.task.targets) > 1 else [one for (one,) in made]

    @property
    def probabilities(self) -> list[list[float]] | None:
        """The probability of each class (N, K); None for numbers, or when none were asked for."""
        return None if self.shares is None else self.shares.tolist()

    def frame(self, top: int = 0) -> polars.DataFrame:
        """Return the columns of the output: `row` or `file`, `prediction` (or one a target), then one a class.

        Args:
            top: instead of a column a class, this many of the likeliest classes and their probabilities.
        """
        import polars

        rows = polars.Series(self.rows, dtype=polars.Int64 if isinstance(self.rows, range) else polars.String)
        table = {"row" if isinstance(self.rows, range) else "file": rows}
        names = ["prediction"] if len(self.task.targets) == 1 else self.task.targets
        for name, column in zip(names, _columns(self.predicted), strict=True):
            table[_free(name, table)] = self._named(column) if self.task.classes else column
        if self.shares is not None and top:
            likeliest = self.shares.topk(top)
            for place, (share, column) in enumerate(zip(*map(_columns, likeliest), strict=True), 1):
                table |= {f"top_{place}": self._named(column), f"p_{place}": share}
        elif self.shares is not None:
            for name, column in zip(self.task.classes, _columns(self.shares), strict=True):
                table[_free(name, table)] = column
        return polars.DataFrame(table)

    def _named(self, codes: polars.Series) -> polars.Series:
        import polars

        return polars.Series(self.task.classes, dtype=polars.String).gather(codes)


def _columns(values: Tensor) -> list[polars.Series]:
    """Return the columns of numbers (N,) or (N, T)."""
    import polars

    values = values.cpu() if values.dtype == torch.int64 else values.cpu().double()
    return [polars.Series(column.contiguous().numpy()) for column in values.reshape(len(values), -1).T]


def _free(name: str, table: Mapping[str, object]) -> str:
    """Return a column name that is not taken yet: a class may be called `row`."""
    return _free(f"p_{name}", table) if name in table else name


@dataclass(frozen=True)
class Trained:
    """A network with everything that its checkpoint knows.

    Args:
        fitted: what each preprocessing step learned from the training rows.
        facts: the JSON part of the checkpoint.
        known: what it keeps of the data that the network was trained on.
        notes: what the user should know of the data that was read, one sentence each.
    """

    path: Path
    spec: Experiment
    task: Task
    network: Network
    fitted: list[dict[str, Tensor]]
    device: torch.device
    facts: dict[str, Any]
    known: Known
    notes: list[str] = field(default_factory=list)

    def prepared(self, x: Tensor) -> Tensor:
        """Return raw rows (N, ...) as the network wants them, on its device."""
        return apply_steps(self.spec.preprocess, self.fitted, x, self.columns).contiguous().to(self.device)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The input columns of the table that the network was trained on; empty for pictures and arrays."""
        return tuple(map(Column.of, self.facts["columns"]))

    def evaluate(self, part: str = "test", *, data: str | None = None) -> tuple[int, dict[str, float]]:
        """Return the number of rows of a part and its figures; with `data`, those of a whole file that has the target.

        Raises:
            DataError: the data has changed since training, the part is empty, or the file does not have what the network needs.
        """
        rows = self.rows(part, data=data)
        return len(rows), self.network.score(rows)

    def rows(self, part: str = "test", *, data: str | None = None) -> Rows:
        """Return the prepared rows of a part, or of a whole file that has the target.

        Raises:
            DataError: the data has changed since training, the part is empty, or the file does not have what the network needs.
        """
        if data is not None:
            raw = read_scored(data, self.task, self.wanted)
            return Rows(self.prepared(raw.x), raw.y.to(self.device))
        prepared = self.prepare()
        self.notes.extend(prepared.notes)
        rows = prepared.parts[part]
        if not len(rows):
            raise DataError(f"the run {self.spec.name!r} has no {part} part", fix="choose another with --split, or give a file with --data")
        return rows

    def prepare(self) -> Prepared:
        """Return the data that the network was trained on, split and prepared as it was then.

        Raises:
            DataError: it is missing, or has changed since.
        """
        found = prepare(self.spec, self.device, fitted=self.fitted, stored=self.known)
        check_columns(found, self.facts["columns"])
        return found

    def reported(self, part: str | None = None) -> tuple[str, Scored]:
        """Return a part, by default the last one that has rows, test where there is one, and what the network makes of it.

        Raises:
            DataError: the data has changed since training.
        """
        name, rows = [(name, rows) for name, rows in self.prepare().parts.items() if len(rows) and part in (None, name)][-1]
        return name, self.network.scored(self.network.outputs(rows.x), rows.y)

    def baselines(self, part: str) -> dict[str, Any]:
        """Return what the run's summary says there is to beat on a part: name → its metrics; {} where it says nothing."""
        file = self.path.parent / "summary.json"
        summary = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        found: dict[str, Any] = summary.get("baselines", {}) if part in summary.get("intervals", {}) else {}
        return found

    def read(self, paths: Sequence[str]) -> Inputs:
        """Return the inputs in files, as raw rows of the kind that the network was trained on."""
        return read_inputs(list(paths), self.wanted)

    @cached_property
    def wanted(self) -> Wanted:
        """What a raw row looked like in training."""
        facts, dataset = self.facts, self.spec.dataset
        file_column = str(dataset.arguments()["file"]) if dataset.entry.name == "pictures" else ""
        reading = Reading.of(dataset.arguments()) if dataset.entry.traits.get("table") else Reading()
        return Wanted(self.columns, tuple(facts["raw_shape"]), facts["raw_bytes"], fills(self.spec.preprocess), file_column, reading)

    def stream(self, paths: Sequence[str], *, probabilities: bool = False) -> Iterator[Predictions]:
        """Yield the predictions of `predict` for the rows in files, some at a time, in their order."""
        if probabilities and not self.task.classes:
            raise InputError("--proba needs classes, and this network predicts numbers", fix="leave --proba out")
        for inputs in in_batches(stream_inputs(list(paths), self.wanted), ROWS_AT_ONCE):
            yield self.predict(inputs, probabilities=probabilities)

    def predict(self, rows: Any, *, probabilities: bool = True) -> Predictions:
        """Return one prediction for each row, in their order.

        Args:
            rows: raw, as the dataset has them: an array or a tensor (N, ...), a frame of polars or pandas, mappings from column to value or
                one of them, paths of tables, pictures and folders or one of them, or what `read` gave.
            probabilities: whether classes come with theirs.

        Raises:
            DataError: they are none of these, or not what the network wants.
        """
        inputs, probabilities = inputs_of(rows, self.wanted), probabilities and bool(self.task.classes)
        head, notes = self.network.head, list(inputs.notes)
        output_NK = self.network.outputs(self.prepared(inputs.x))
        shares = head.probabilities(output_NK) if probabilities else None
        if probabilities and not head.calibrated and self.spec.loss:
            notes.append(f"the scores of {self.spec.loss.entry.name} are not probabilities; these are their softmax")
        return Predictions(self.task, inputs.labels, head.predict(output_NK), shares, notes)


def _device(name: str) -> torch.device:
    try:
        return choose_device(name)
    except NnrunError as error:
        raise error.placed(lambda at: Place("--device", 0, 0)) from None


def _with_weights(network: Network, weights: Mapping[str, Tensor]) -> Network:
    load_weights(network.model, weights)
    return network


def load(path: Path | str, *, device: str = "auto") -> Trained:
    """Return the network in a checkpoint file, or the best one of a run folder.

    Raises:
        CheckpointError: there is none, it is damaged, its parts do not fit together, or it needs a plug-in that is not loaded.
    """
    where = _device(device)
    file = checkpoint_file(Path(path))
    stored = files.load(file, only=("model", "preprocess", "target", "rows"))
    files.check_plugins(file, stored.facts)
    if "seeds" in stored.facts:
        what = f"{file} is the state of {len(stored.facts['seeds'])} networks in training"
        raise CheckpointError(what, fix="give best.safetensors beside it, or go on with --resume")
    try:
        facts = stored.facts
        spec = check(facts["spec"])
        data = known(stored)
        task = Task(tuple(facts["task"]["targets"]), tuple(facts["task"]["classes"]))
        weights = stored.under("model")
        fitted = [stored.under(f"preprocess/{number}") for number in range(len(spec.preprocess))]
        columns = columns_after(spec.preprocess, fitted, tuple(map(Column.of, facts["columns"])))
        members = facts.get("members")
        size = sum(tensor.numel() for tensor in weights.values()) // (len(members) if members else 1)
        network = build_network(spec, task, tuple(facts["shape"]), where, columns=columns, scale=stored.under("target"), room=(size, ""))
        torch.set_num_threads(min(max(int(facts["threads"]), 1), 1024))
        network = ensemble(network, weights) if members else _with_weights(network, weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{file} does not fit together: {str(error).splitlines()[0]}", fix="use another checkpoint of the run"
        ) from None
    except NnrunError as error:
        raise CheckpointError(f"{file} cannot be rebuilt: {error.faults[0].what}", fix=error.faults[0].fix) from None
    return Trained(file, spec, task, network, fitted, where, facts, data)
