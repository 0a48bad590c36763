"""The words of the YAML: one frozen class for the experiment and one for each of its sections.

What a field means stands under it; the JSON Schema, `nnrun schema` and the docs take it from there. Rules between fields end with the mend.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from nnrun.registry import METRICS, SPLITS, Entry, Registry
from nnrun.spec.base import Location, Spec, fault, rule, shown
from nnrun.spec.parts import (
    ActivationPart,
    AugmentPart,
    DatasetPart,
    LossPart,
    MetricName,
    Of,
    OptimizerPart,
    Part,
    PreprocessPart,
    RuleCode,
    SchedulePart,
    SplitName,
    StrategyPart,
    TrackerPart,
    WidthOrLayer,
    as_written,
)
from nnrun.spec.sweep import OF_VAL, SweepSpec
from nnrun.spec.wording import form

RowRange = Annotated[
    str,
    form(
        r"^([0-9]{0,18}:[0-9]{0,18}|rest|[^:]*[^:0-9.][^:]*\.[A-Za-z0-9]+)$",
        "rest",
        "0:60000",
        fix="write a share, a count, rows or `rest`",
    ),
]
Size = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)] | RowRange | list[Annotated[int, Field(ge=0)]] | list[RowRange]


METHOD_COLUMNS = {"group": "group", "time": "by", "column": "column", "hash": "id"}
"""Split method → the key that names the column it goes by."""

FOLDED = ("random", "train_test_split", "stratified", "group")
"""The methods that can cut the rows into folds."""


class Split(Spec):
    """How one dataset becomes three parts. Shares (0.6), counts (341), or for `rows` the numbers of the rows ([3, 7] or 0:60000)."""

    train: Size = "rest"
    """What the optimiser sees: a share, a count, rows, or `rest`."""

    val: Size = 0
    """What picks the best epoch and stops early; 0 means no validation."""

    test: Size = 0
    """What is scored once, at the end; 0 means no test."""

    method: SplitName = "random"
    """How rows are drawn (nnrun list splits)."""

    group: str | None = None
    """For method group: the column whose values no two parts may share, such as a patient; with another method, shared ones are told."""

    by: str | None = None
    """For method time: the column of dates or numbers by which earlier rows are trained on, and later ones tested."""

    column: str | None = None
    """For method column: the column that says train, val or test of each row."""

    id: str | None = None
    """For method hash: the column that names each row; its part does not depend on the other rows, nor on their order."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """What the rows are drawn by; by default the experiment's own seed. `nnrun train --seeds` keeps it, so that all see the same rows."""

    folds: int | None = Field(default=None, ge=2, le=1000)
    """Cut the rows into so many folds; one is the test part, the others are trained on (`nnrun train --folds` runs them all)."""

    fold: int = Field(default=1, ge=1)
    """Which fold is the test part, counted from 1."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        """A method alone, or its column, is a split; with no sizes at all the parts are 0.6, 0.2 and 0.2."""
        if isinstance(value, str):
            value = {"method": value}
        if not isinstance(value, dict):
            return value
        named = [method for method, key in reversed(METHOD_COLUMNS.items()) if value.get(key) is not None][:1]
        if any(isinstance(value.get(part), str) and "." in value[part] for part in ("train", "val", "test")):
            named = ["files"]
        if len(named) == 1 and "method" not in value:
            value = {**value, "method": named[0]}
        if not {"train", "val", "test"} & set(value) and value.get("method") not in ("rows", "column"):
            value = {**({"train": "rest"} if value.get("folds") else {"train": 0.6, "val": 0.2, "test": 0.2}), **value}
        return value

    @rule("method", "group", "by", "column", "id")
    def _the_column_of_the_method(self) -> Iterator[ValidationError]:
        wanted = METHOD_COLUMNS.get(self.method)
        if wanted and getattr(self, wanted) is None:
            yield fault(f"method {self.method} wants the column that it goes by", f"add `{wanted}: COLUMN` to the split", at=("method",))
        for method, key in METHOD_COLUMNS.items():
            if key not in (wanted, "group") and getattr(self, key) is not None:
                yield fault(f"{key} is for method {method}, and method is {self.method!r}", f"write `method: {method}`", at=(key,))

    @rule("folds", "fold", "method", "test")
    def _folds(self) -> Iterator[ValidationError]:
        if self.folds is None:
            return
        if self.fold > self.folds:
            yield fault(f"fold {self.fold} of {self.folds} does not exist", f"write 1 to {self.folds}", at=("fold",), given=self.fold)
        if self.method not in FOLDED:
            yield fault(f"method {self.method} has no folds", f"write method {', '.join(FOLDED)}", at=("folds",), given=self.folds)
        if self.test not in (0, 0.0, []):
            yield fault("the fold is the test part", "leave test out of the split", at=("test",), given=self.test)

    @rule("train", "val", "test", "method")
    def _by_number_or_by_size(self) -> Iterator[ValidationError]:
        for part in ("train", "val", "test"):
            size = getattr(self, part)
            by_name = (isinstance(size, str) and "." in size) or (isinstance(size, list) and any(isinstance(one, str) for one in size))
            if by_name != (self.method == "files") and size not in ("rest", 0):
                fix = "write `method: files`" if by_name else "write the name of a file of the dataset"
                yield fault(f"split.{part} is {shown(size)}, and method is {self.method!r}", fix, at=(part,), given=size)
                return
            by_number = not by_name and (isinstance(size, list) or (isinstance(size, str) and size != "rest"))
            if by_number and self.method != "rows":
                yield fault(
                    f"rows are given by number, and method is {self.method!r}", "add method: rows to the split", at=(part,), given=size
                )
                return
            if not by_number and self.method == "rows" and size not in ("rest", 0):
                yield fault(f"method rows wants row numbers, not {shown(size)}", "write [3, 7] or 0:60000", at=(part,), given=size)

    @rule("train", "val", "test")
    def _shares_add_up(self) -> Iterator[ValidationError]:
        sizes = [self.train, self.val, self.test]
        shares = [size for size in sizes if isinstance(size, float) or size in (0, 1)]
        if len(shares) == 3 and not math.isclose(sum(shares), 1, abs_tol=1e-6):
            rest = 1 - sum(shares[1:])
            fix = f"write `{rest:g}`" if rest > 0 else "lower val and test"
            yield fault(f"the shares add up to {sum(shares):g}, not 1", fix, at=("train",), given=self.train)


class EarlyStopping(Spec):
    """Stop when a figure has not improved for a while; the best epoch is kept either way."""

    monitor: str = form(r"^(train|val)\.[a-z0-9_]+$", "val.loss", "val.accuracy", "train.loss", default="val.loss")
    """The figure to watch: `val.loss`, `val.accuracy`, `train.loss`."""

    patience: int = Field(default=10, ge=1)
    """How many epochs without improvement to wait."""

    min_delta: float = Field(default=0.0, ge=0)
    """How much better a figure must be to count as an improvement, in its own unit."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


DEVICE = r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$"
EVERY = r"^(auto|[1-9][0-9]{0,8} (epoch|step)s?)$"


class CheckpointSpec(Spec):
    """When the state of training is written."""

    every: Annotated[int, Field(ge=1)] | Annotated[str, form(EVERY, "auto", "1 epoch", "200 steps")] = "auto"
    """When `last` is written: `1 epoch` (or 1), `200 steps`, or `auto`: as often as costs a few per cent of the training time."""

    keep: int = Field(default=2, ge=1, le=100)
    """How many of these are kept: `last`, then `last-1` before it, …; a damaged newest one falls back to the one before."""

    monitor: str | None = form(r"^val\.[a-z0-9_]+$", "val.loss", "val.accuracy", fix=OF_VAL, default=None)
    """The figure that picks `best`; by default `val.loss`, or the last epoch when there is no validation part."""


class Experiment(Spec):
    """One experiment: the data, the network, and how it is trained."""

    name: str = form(
        r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$", "iris", "trial-2", fix="write letters, digits, _, - and dots: it names a folder"
    )
    """The run's name, and its folder under `runs/`; by default the name of the config file."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """One number: the split, the weights, the order of rows and dropout each get their own stream from it."""

    dataset: DatasetPart = Field(examples=["iris"])
    """Where the rows come from (nnrun list datasets)."""

    split: Split = Field(default_factory=lambda: Split.model_validate({}), validate_default=True)
    """How the rows become a training, a validation and a test part."""

    preprocess: list[PreprocessPart] = []
    """What is done to the inputs, in order; fitted on the training rows only (nnrun list preprocess)."""

    augment: list[AugmentPart] = []
    """What is done at random to the training pictures, after `preprocess`, anew in each epoch (nnrun list augment)."""

    layers: list[WidthOrLayer] = []
    """Widths ([16, 8]: each a linear layer with the activation, then an output layer sized from the data), or a list of layers."""

    activation: ActivationPart = Field(default="relu", validate_default=True)
    """The activation between the widths of `layers`; explicit layers name their own."""

    loss: LossPart | None = None
    """What training makes small (nnrun list losses); by default cross_entropy for classes and mse for numbers."""

    optimizer: OptimizerPart = Field(default="adam", validate_default=True)
    """The rule of the update (nnrun list optimizers)."""

    lr: float = Field(default=1e-3, gt=0)
    """The learning rate."""

    schedule: SchedulePart = Field(default="none", validate_default=True)
    """How the learning rate changes over the epochs (nnrun list schedules)."""

    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs, or a part of one, in which the learning rate rises linearly to `lr` before the schedule begins."""

    batch_size: Annotated[int, Field(ge=1)] | Literal["all"] = 32
    """Rows per step, or `all`."""

    shuffle: bool = True
    """Whether the training rows come in a new order each epoch; the order depends on the seed and the epoch alone."""

    drop_last: bool = False
    """Whether a last batch with too few rows is left out."""

    epochs: int = Field(default=100, ge=1)
    """How often the training rows are seen."""

    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Gradients longer than this are scaled down to it."""

    accumulate_batches: int = Field(default=1, ge=1)
    """Batches whose gradients make one step."""

    scale_target: Literal["none", "standardize", "minmax"] = "none"
    """What is done to target numbers before the loss, fitted on the training rows; undone in predictions and metrics, not in the loss."""

    class_weight: Literal["none", "balanced"] | dict[str, Annotated[float, Field(ge=0)]] = "none"
    """How much rows of each class count in training: balanced makes every class count alike; {yes: 5} counts one more, the others 1."""

    leaks: Literal["note", "error", "ignore"] = "note"
    """What is done when rows are in two parts, a group is on both sides, or one column alone gives the target away."""

    changed_rows: Literal["error", "note"] = "error"
    """What is done when a run is resumed, scored or reported and its rows are no longer those it was trained with: an error or a note says
    how many have changed, and which."""

    device: str = form(DEVICE, "auto", "cpu", "cuda", "cuda:1", "mps", fix="write auto, cpu, cuda, cuda:1 or mps", default="auto")
    """auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1, mps."""

    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPU threads; `auto` takes one for small steps, where more only cost, and all cores for large ones."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """The type of the products in a step (autocast); weights stay float32."""

    strategy: StrategyPart = Field(default="ddp", validate_default=True)
    """How several processes share the network (nnrun list strategies); with one process it means nothing."""

    sync_batch_norm: bool = False
    """Whether batch_norm takes its means over the whole batch, or over each process's rows of it; with one process these are the same."""

    metrics: list[MetricName] | None = None
    """scikit-learn's names (nnrun list metrics); by default accuracy for classes, rmse and r2 for numbers."""

    evaluate: list[Literal["val", "test"]] = ["val"]
    """The parts scored after each epoch. `test` there is only looked at: it never picks the best epoch."""

    early_stopping: EarlyStopping | None = None
    """When to stop before the last epoch."""

    checkpoint: CheckpointSpec = CheckpointSpec()
    """When the state of training is written, and what picks the best epoch."""

    ignore: list[RuleCode] = []
    """Codes of rules that are not asked, because what they find is meant (nnrun list rules)."""

    track: Annotated[list[TrackerPart], BeforeValidator(_as_list, json_schema_input_type=TrackerPart | list[TrackerPart])] = []
    """Who else is told of the run: tensorboard, mlflow, or a list of them (nnrun list trackers). It changes nothing that is learned."""

    sweep: SweepSpec | None = None
    """What `nnrun sweep` varies; no part of any run."""

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys that a config file may write: the fields, and `extends`, which is gone when the file has been read."""
        return [*super().keys(), "extends"]

    @rule("layers")
    def _widths_or_layers(self) -> Iterator[ValidationError]:
        mixed = (number for number, layer in enumerate(self.layers) if isinstance(layer, int) != isinstance(self.layers[0], int))
        for number in mixed:
            fix = "write either widths, [16, 8], or every layer by its name, [{linear: 16}, relu, {linear: auto}]"
            yield fault("layers mixes widths with named layers", fix, at=("layers", number), given=self.layers[number])
            return

    @rule("optimizer", "clip_grad_norm", "accumulate_batches")
    def _steps_of_its_own(self) -> Iterator[ValidationError]:
        if not self.optimizer.entry.traits.get("closure"):
            return
        name, why = self.optimizer.entry.name, "looks at the loss several times in one step"
        if self.clip_grad_norm is not None:
            what, fix = f"clip_grad_norm does not go with {name}, which {why}", "write `clip_grad_norm: null`, or take another optimizer"
            yield fault(what, fix, at=("clip_grad_norm",), given=self.clip_grad_norm)
        if self.accumulate_batches > 1:
            what, fix = f"accumulate_batches does not go with {name}, which {why}", "raise batch_size, or take another optimizer"
            yield fault(what, fix, at=("accumulate_batches",), given=self.accumulate_batches)

    @rule("early_stopping", "split")
    def _something_to_watch(self) -> Iterator[ValidationError]:
        if self.early_stopping and self.early_stopping.monitor.startswith("val.") and self.split.val in (0, 0.0, []):
            fix = "give split a val share, or watch train.loss"
            yield fault("early_stopping watches the validation part, and split.val is 0", fix, at=("early_stopping",))


def foreign_parts(value: Any) -> list[Entry]:
    """Return the parts of plug-ins that the network of a spec needs, each once."""
    if isinstance(value, Experiment):
        named = [SPLITS[value.split.method], *(METRICS[name] for name in value.metrics or ())]
        found = [one for one in named if one.plugin] + foreign_parts(
            [getattr(value, name) for name in type(value).model_fields if name not in ("track", "sweep")]
        )
        return list({(one.kind, one.name): one for one in found}.values())
    if isinstance(value, Part):
        return [value.entry] * bool(value.entry.plugin) + foreign_parts(list(value.arguments().values()))
    return [one for item in value for one in foreign_parts(item)] if isinstance(value, list) else []


def registry_at(at: Location) -> Registry | None:
    """Return whose parts stand at a path of the config, such as ("optimizer",) or ("layers", 2)."""
    field = Experiment.model_fields.get(str(at[0])) if at else None
    if field is None or len(at) != (2 if get_origin(field.annotation) is list else 1):
        return None
    return next((mark.registry for mark in [*field.metadata, *_marks(field.annotation)] if isinstance(mark, Of)), None)


def _marks(annotation: Any) -> list[Any]:
    """Return what is annotated anywhere inside a type."""
    return [mark for inner in get_args(annotation) for mark in (*getattr(inner, "__metadata__", ()), *_marks(inner))]


def plain(value: Any) -> Any:
    """Return a spec as mappings, lists and scalars, every default written out; `read` turns it back into an equal spec."""
    if isinstance(value, Part):
        return plain(as_written(value))
    if isinstance(value, Spec):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
