"""The steps of preprocessing that a table of mixed columns needs: missing values filled in, categories coded.

A raw category is the place of its name among the known ones, -1 for any other, NaN when it is missing (see `columns`). Known are those of
the training rows; a step that codes them says whether others may come (`unknown`) and how many rows make one known (`at_least`).

Shapes: N rows, D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nnrun.data.columns import Column
from nnrun.data.preprocess import Columns, Learned, Step
from nnrun.data.source import RowSource
from nnrun.data.source import columns as some_columns
from nnrun.errors import DataError
from nnrun.lazy import torch
from nnrun.registry import PREPROCESS
from nnrun.spec.parts import Part, part_class

if TYPE_CHECKING:
    from torch import Tensor

MISSING = "(missing)"
MOST_LEVELS = 1000  # of one column, each a column of its own

AtLeast = Annotated[int, Field(ge=1)]
Unknown = Literal["refuse", "other"]


def completed(steps: Sequence[Part], columns: Columns) -> list[Part]:
    """Return the steps with one_hot at their end, when there are categories and no step codes them."""
    coded = any(step.entry.traits.get("codes") for step in steps) or not any(column.kind == "category" for column in columns)
    return list(steps) if coded else [*steps, part_class(PREPROCESS, "one_hot").model_validate({})]


def coding(steps: Sequence[Part]) -> tuple[int, bool]:
    """Return how many training rows make a category known, and whether others may come, by the step that codes them."""
    step = next((step for step in steps if step.entry.traits.get("codes")), None)
    return (step.arguments()["at_least"], step.arguments()["unknown"] == "other") if step else (1, False)


def fills(steps: Sequence[Part]) -> bool:
    """Return whether missing values are filled in before any other step sees them.

    Raises:
        DataError: they are filled in too late.
    """
    places = [number for number, step in enumerate(steps) if step.entry.traits.get("fills")]
    if places and places[0] > 0:
        before = steps[places[0] - 1].entry.name
        raise DataError(f"impute comes after {before}, which cannot use missing values", fix="put it first", at=("preprocess", places[0]))
    return bool(places)


@PREPROCESS.register("impute", fills=True)
def impute(
    *,
    numbers: Literal["median", "mean", "most_frequent"] | float = "median",
    categories: Literal["own", "most_frequent"] = "own",
    flag: bool = False,
) -> Step:
    """Fill missing values in, with what is learned from the training rows (scikit-learn's SimpleImputer).

    Args:
        numbers: what a missing number, date or truth value becomes: the median, the mean, the most frequent value, or a number.
        categories: what a missing category becomes: a category of its own, or the most frequent one.
        flag: whether each column with missing values in the training rows gets a second one, which is 1 where it was missing.
    """

    def fit(x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        fill: list[float] = []
        empty: list[bool] = []
        for values in (values for some in some_columns(x) for values in some.T):
            column = columns[len(fill)] if columns else Column("")
            fill.append(_fill(values, column.kind, column))
            empty.append(bool(values.isnan().any()))
        kinds = [column.kind for column in columns] or ["number"] * len(fill)
        own = [kind == "category" and categories == "own" and gaps for kind, gaps in zip(kinds, empty, strict=True)]
        flagged = torch.tensor(empty).nonzero().flatten() if flag else torch.zeros(0, dtype=torch.int64)
        return {"fill": torch.tensor(fill, dtype=torch.float64), "own": torch.tensor(own, dtype=torch.bool), "flagged": flagged}

    def _fill(values: Tensor, kind: str, column: Column) -> float:
        here = values[~values.isnan()].double()
        if kind == "category":
            if categories == "own":
                return float(len(column.levels) if len(here) < len(values) else -1)
            here = here[here >= 0]
            return float(here.mode().values) if len(here) else -1.0
        if isinstance(numbers, float | int):
            return float(numbers)
        if not len(here):
            what = f"column {str(column)!r} has no value in any training row"
            raise DataError(what, fix=f"write `columns: {{{column.name}: ignore}}`", at=())
        if kind == "boolean" or numbers == "most_frequent":
            return float(here.mode().values)
        return float(here.mean() if numbers == "mean" else here.quantile(0.5) if len(here) < 10_000_000 else here.median())

    def apply(x: Tensor, learned: Learned) -> Tensor:
        empty, fill = x.isnan(), learned["fill"].to(x.device, torch.float32)
        flags = empty[:, learned["flagged"].to(x.device)].to(torch.float32)
        return torch.cat([torch.where(empty, fill, x), flags], 1)

    def after(columns: Columns, learned: Learned) -> Columns:
        if not columns:
            return columns
        made = [replace(one, levels=(*one.levels, MISSING)) if own else one for one, own in zip(columns, learned["own"], strict=True)]
        return (*made, *(Column(f"{columns[number]} is missing", "flag") for number in learned["flagged"].tolist()))

    return Step(apply, fit, after)


@PREPROCESS.register("one_hot", codes=True)
def one_hot(*, unknown: Unknown = "refuse", at_least: AtLeast = 1) -> Step:
    """Give each category a column of its own, which is 1 where it stands and else 0; what `categories` become when no step says otherwise.

    Args:
        unknown: refuse: a category that no training row has is an error when it is predicted from; other: all its columns are 0.
        at_least: training rows that a category must have; a rarer one is taken for an unknown one.
    """

    def fit(x: Tensor | RowSource, columns: Columns) -> dict[str, Tensor]:
        for column in columns:
            if column.kind == "category" and len(column.levels) > MOST_LEVELS:
                what = f"column {column.name!r} has {len(column.levels)} categories, and one_hot would make a column of each"
                raise DataError(what, fix="write `embed` in its place, or `one_hot: {unknown: other, at_least: 10}`")
        return _sizes(columns)

    def apply(x: Tensor, learned: Learned) -> Tensor:
        parts = []
        for number, size in enumerate(learned["sizes"].tolist()):
            code = x[:, number : number + 1]
            parts.append(code if size < 0 else (code == torch.arange(size, device=x.device)).to(torch.float32))
        return torch.cat(parts, 1) if parts else x

    def after(columns: Columns, learned: Learned) -> Columns:
        return tuple(
            made
            for one in columns
            for made in ([Column(f"{one.name}={level}", "flag") for level in one.levels] if one.kind == "category" else [one])
        )

    return Step(apply, fit, after)


@PREPROCESS.register("ordinal", codes=True)
def ordinal(*, unknown: Unknown = "refuse", at_least: AtLeast = 1) -> Step:
    """Make each category its number in the order of the names, scaled to 0 … 1; for names that have an order, such as 1-low, 2-mid, 3-high.

    Args:
        unknown: refuse: a category that no training row has is an error when it is predicted from; other: it becomes -1.
        at_least: training rows that a category must have; a rarer one is taken for an unknown one.
    """

    def apply(x: Tensor, learned: Learned) -> Tensor:
        sizes = learned["sizes"].to(x.device)
        return torch.where((sizes > 1) & (x >= 0), x / (sizes - 1).clamp(min=1), x)

    def after(columns: Columns, learned: Learned) -> Columns:
        return tuple(replace(one, kind="flag", levels=()) if one.kind == "category" else one for one in columns)

    return Step(apply, lambda x, columns: _sizes(columns), after)


@PREPROCESS.register("embed", codes=True)
def embed(
    *, size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto", unknown: Unknown = "refuse", at_least: AtLeast = 1
) -> Step:
    """Let the network learn a few numbers for each category (an embedding): its first layer looks them up.

    Args:
        size: how many numbers; auto: 1.6·K^0.56 for K categories, at most 600 (the rule of fastai's tabular models).
        unknown: refuse: a category that no training row has is an error when it is predicted from; other: they share one row of numbers.
        at_least: training rows that a category must have; a rarer one is taken for an unknown one, which is how their row is trained.
    """

    def after(columns: Columns, learned: Learned) -> Columns:
        return tuple(
            replace(one, kind="code", size=min(600, round(1.6 * max(1, len(one.levels)) ** 0.56)) if size == "auto" else size)
            if one.kind == "category"
            else one
            for one in columns
        )

    def apply(x: Tensor, learned: Learned) -> Tensor:
        return torch.where((learned["sizes"] >= 0).to(x.device), x + 1, x)  # row 0 of an embedding is that of other categories

    return Step(apply, lambda x, columns: _sizes(columns), after)


def _sizes(columns: Columns) -> dict[str, Tensor]:
    """Return how many categories each column has; -1 for a column of another kind."""
    return {"sizes": torch.tensor([len(one.levels) if one.kind == "category" else -1 for one in columns], dtype=torch.int64)}
