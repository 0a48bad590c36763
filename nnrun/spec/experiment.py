"""The words of the YAML: one frozen class for the experiment and one for each of its sections.

What a field means stands under it; the JSON Schema, `nnrun schema` and the docs take it from there. Rules between fields end with the mend.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nnrun.registry import LAYERS, METRICS, SPLITS
from nnrun.spec.base import Spec, fault, no_such_name, shown
from nnrun.spec.parts import DatasetPart, LayerPart, LossPart, OptimizerPart, Part, PreprocessPart, SchedulePart, WidthOrLayer, as_written

RowRange = Annotated[str, Field(pattern=r"^(\d*:\d*|rest)$")]
Size = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)] | RowRange | list[Annotated[int, Field(ge=0)]]


class Split(Spec):
    """How one dataset becomes three parts. Shares (0.6), counts (341), or for `rows` the numbers of the rows ([3, 7] or 0:60000)."""

    train: Size = "rest"
    """What the optimiser sees: a share, a count, rows, or `rest`."""

    val: Size = 0
    """What picks the best epoch and stops early; 0 means no validation."""

    test: Size = 0
    """What is scored once, at the end; 0 means no test."""

    method: str = "random"
    """How rows are drawn (nnrun list splits)."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        """A method alone is a split; with no sizes at all the parts are 0.6, 0.2 and 0.2."""
        if isinstance(value, str):
            value = {"method": value}
        if isinstance(value, dict) and not {"train", "val", "test"} & set(value) and value.get("method") != "rows":
            value = {"train": 0.6, "val": 0.2, "test": 0.2, **value}
        return value

    @model_validator(mode="after")
    def _add_up(self) -> Split:
        if self.method not in SPLITS:
            what, fix = no_such_name("split method", self.method, SPLITS)
            raise fault(what, fix, at=("method",), given=self.method)
        sizes = {part: getattr(self, part) for part in ("train", "val", "test")}
        for part, size in sizes.items():
            by_number = isinstance(size, list) or (isinstance(size, str) and size != "rest")
            if by_number and self.method != "rows":
                raise fault(f"rows are given by number, and method is {self.method!r}", "write `method: rows`", at=(part,), given=size)
            if not by_number and self.method == "rows" and size not in ("rest", 0):
                raise fault(f"method rows wants row numbers, not {shown(size)}", "write [3, 7] or 0:60000", at=(part,), given=size)
        shares = [size for size in sizes.values() if isinstance(size, float) or size in (0, 1)]
        if len(shares) == 3 and not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise fault(f"the shares add up to {sum(shares):g}, not 1", f"write train: {1 - sum(shares[1:]):g}", at=("train",), given=sizes)
        return self


class EarlyStopping(Spec):
    """Stop when a figure has not improved for a while; the best epoch is kept either way."""

    monitor: str = Field(default="val.loss", pattern=r"^(train|val)\.[a-z0-9_]+$")
    """The figure to watch: `val.loss`, `val.accuracy`, `train.loss`."""

    patience: int = Field(default=10, ge=1)
    """How many epochs without improvement to wait."""

    min_delta: float = Field(default=0.0, ge=0)
    """How much better a figure must be to count as an improvement, in its own unit."""


class CheckpointSpec(Spec):
    """When the state of training is written."""

    every: int | Literal["auto"] = Field(default="auto")
    """Epochs between two writes of `last`; `auto` writes as often as costs a few per cent of the training time."""

    monitor: str | None = Field(default=None, pattern=r"^val\.[a-z0-9_]+$")
    """The figure that picks `best`; by default `val.loss`, or the last epoch when there is no validation part."""

    @model_validator(mode="after")
    def _positive(self) -> CheckpointSpec:
        if isinstance(self.every, int) and self.every < 1:
            raise fault(f"every: {self.every} is not at least 1", "write `every: 1`", at=("every",), given=self.every)
        return self


class Experiment(Spec):
    """One experiment: the data, the network, and how it is trained."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")
    """The run's name, and its folder under `runs/`; by default the name of the config file."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """One number: the split, the weights, the order of rows and dropout each get their own stream from it."""

    dataset: DatasetPart
    """Where the rows come from (nnrun list datasets)."""

    split: Split = Field(default_factory=lambda: Split.model_validate({}), validate_default=True)
    """How the rows become a training, a validation and a test part."""

    preprocess: list[PreprocessPart] = []
    """What is done to the inputs, in order; fitted on the training rows only (nnrun list preprocess)."""

    layers: list[WidthOrLayer] = []
    """Widths ([16, 8]: each a linear layer with the activation, then an output layer sized from the data), or a list of layers."""

    activation: LayerPart = Field(default="relu", validate_default=True)
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

    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1, mps."""

    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPU threads; `auto` takes one for small steps, where more only cost, and all cores for large ones."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """The type of the products in a step (autocast); weights stay float32."""

    metrics: list[str] | None = None
    """scikit-learn's names (nnrun list metrics); by default accuracy for classes, rmse and r2 for numbers."""

    evaluate: list[Literal["val", "test"]] = ["val"]
    """The parts scored after each epoch. `test` there is only looked at: it never picks the best epoch."""

    early_stopping: EarlyStopping | None = None
    """When to stop before the last epoch."""

    checkpoint: CheckpointSpec = CheckpointSpec()
    """When the state of training is written."""

    @model_validator(mode="after")
    def _agree(self) -> Experiment:
        for number, name in enumerate(self.metrics or []):
            if name not in METRICS:
                what, fix = no_such_name("metric", name, METRICS, see=f"nnrun list metrics shows all {len(METRICS)}")
                raise fault(what, fix, at=("metrics", number), given=name)
        if len({isinstance(layer, int) for layer in self.layers}) > 1:
            at = next(i for i, layer in enumerate(self.layers) if isinstance(layer, int) != isinstance(self.layers[0], int))
            fix = "write either widths, [16, 8], or every layer by its name, [{linear: 16}, relu, {linear: auto}]"
            raise fault("layers mixes widths with named layers", fix, at=("layers", at), given=self.layers[at])
        if not LAYERS[self.activation.entry.name].traits.get("activation"):
            raise fault(f"{self.activation.entry.name!r} is not an activation", "nnrun list layers shows them", at=("activation",))
        if self.early_stopping and self.early_stopping.monitor.startswith("val.") and self.split.val in (0, 0.0, []):
            fix = "give split a val share, or watch train.loss"
            raise fault("early_stopping watches the validation part, and split.val is 0", fix, at=("early_stopping",))
        return self


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
