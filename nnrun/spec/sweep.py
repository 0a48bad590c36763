"""The `sweep` section of a config: what `nnrun sweep` varies, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationError

from nnrun.registry import METRICS
from nnrun.spec.base import Spec, fault, rule
from nnrun.spec.ranges import ParameterError, parameter
from nnrun.spec.wording import form

OF_VAL = "only the validation part chooses: what a network was trained on says too little, and the test part is never looked at"
"""Why another figure chooses neither the best epoch nor the best config."""


def _as_parameter(written: Any) -> Any:
    try:
        parameter("", written)
    except ParameterError as error:
        raise fault(error.what, error.fix, given=written) from None
    return written


Varied = Annotated[str | list[Any], PlainValidator(_as_parameter, json_schema_input_type=str | Annotated[list[Any], Field(min_length=2)])]


class SweepSpec(Spec):
    """What `nnrun sweep` varies, and how; `nnrun train` trains the config as it is beside this."""

    params: dict[str, Varied] = {}
    """A path, `lr` or `layers[0]` → a range (`log:1e-4..1e-1`, `0..0.5`, `int:8..256:8`, `logint:8..512`) or a list of values."""

    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many configs are tried in all; by default 50, or all of a grid."""

    sampler: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    """What chooses them: tpe (by what came of those before), random, grid (each combination once), cmaes (an evolution of numbers)."""

    metric: str = form(r"^val\.[a-z0-9_]+$", "val.loss", "val.accuracy", fix=OF_VAL, default="val.loss")
    """The figure that a trial is scored by, at its best epoch."""

    direction: Literal["minimize", "maximize"] | None = None
    """Which way is better; the metric says it already."""

    pruner: Literal["none", "median", "hyperband"] = "none"
    """What stops trials early that look bad beside the others: none, median, hyperband."""

    max_failures: float = Field(default=0.5, ge=0, le=1)
    """The share of failed trials beyond which the sweep stops, when ten have ended, or all of fewer."""

    side_by_side: bool = True
    """Whether trials that differ in lr, weight_decay, seed and dropout alone are trained many at once, where the network allows it."""

    @property
    def better(self) -> Literal["minimize", "maximize"]:
        """`minimize` or `maximize`, as the metric has it."""
        name = self.metric.partition(".")[2]
        return "maximize" if name in METRICS and METRICS[name].traits["better"] == "higher" else "minimize"

    @rule("metric", "direction")
    def _one_way(self) -> Iterator[ValidationError]:
        if self.direction not in (None, self.better):
            what = f"to {self.direction} {self.metric} would look for the worst"
            yield fault(what, f"write `{self.better}`, or leave direction out", at=("direction",), given=self.direction)
