"""How the rows of a dataset become a training, a validation and a test part.

    random             torch.randperm, seeded, cut into train, val and test
    train_test_split   scikit-learn's function: test is cut off first, then val from what remains
    stratified         the same, with the classes in equal shares
    rows               the rows that the config names

A method is a function of (sizes, y, seed, classes) and returns the row numbers of each part. A hand-written script that follows the same
two or three lines gets the same rows: see the docstring of each method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnrun.errors import DataError
from nnrun.lazy import torch
from nnrun.registry import SPLITS

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.spec.experiment import Split

PARTS = ("train", "val", "test")
Sizes = Mapping[str, Any]  # part → a share, a count, "rest", [3, 7] or "0:100"
MOST_SEED = 2**32 - 1  # scikit-learn takes no larger one


def split_rows(split: Split, y: Tensor, seed: int, classes: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the row numbers (int64) of the parts train, val and test; a part may be empty, but not train.

    Args:
        y: the targets (N,) or (N, T).
        classes: the class names, for errors.

    Raises:
        DataError: when the rows do not suffice for what was asked.
    """
    sizes = {part: getattr(split, part) for part in PARTS}
    parts: dict[str, Tensor] = SPLITS[split.method].build(sizes, y, seed, classes)
    if not len(parts["train"]):
        raise _refused(f"no row of the {len(y)} is left to train on", "give split.train some rows", "train")
    return parts


@SPLITS.register("random")
def random(sizes: Sizes, y: Tensor, seed: int, classes: Sequence[str]) -> dict[str, Tensor]:
    """Rows in the order of torch.randperm(n, generator=torch.Generator().manual_seed(seed)), cut into train, val, test."""
    counts = part_counts(sizes, len(y))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    train, val, test, _ = torch.split(order, [*counts.values(), len(y) - sum(counts.values())])
    return {"train": train, "val": val, "test": test}


@SPLITS.register("train_test_split")
def train_test_split(sizes: Sizes, y: Tensor, seed: int, classes: Sequence[str]) -> dict[str, Tensor]:
    """scikit-learn's train_test_split(random_state=seed): the test part from all rows, then the validation part from the others."""
    return _by_sklearn(part_counts(sizes, len(y)), y, seed)


@SPLITS.register("stratified", needs="classes")
def stratified(sizes: Sizes, y: Tensor, seed: int, classes: Sequence[str]) -> dict[str, Tensor]:
    """As train_test_split, with each class in the same share in every part (stratify=y)."""
    if y.dim() != 1 or y.is_floating_point():
        what = "method stratified keeps the shares of the classes, and the targets are numbers"
        raise _refused(what, "write `method: train_test_split`", "method")
    return _by_sklearn(part_counts(sizes, len(y)), y, seed, by_class=True, classes=classes)


@SPLITS.register("rows")
def rows(sizes: Sizes, y: Tensor, seed: int, classes: Sequence[str]) -> dict[str, Tensor]:
    """The rows named in the config, [3, 7] or 0:60000, counted from 0; `rest` takes all that are named nowhere, in their order."""
    named = {part: _named_rows(part, size, len(y)) for part, size in sizes.items() if size != "rest"}
    owner: dict[int, str] = {}
    for part, numbers in named.items():
        for number in numbers:
            if number in owner:
                where = f"twice in split.{part}" if owner[number] == part else f"in split.{owner[number]} and in split.{part}"
                raise _refused(f"row {number} is {where}", "a row belongs to one part: name it once", part)
            owner[number] = part
    others = _the_rest(sizes)
    if others:
        named[others] = [number for number in range(len(y)) if number not in owner]
        if not named[others]:
            raise _refused(f"split.{others} is the rest, and no row is left", "name fewer rows elsewhere", others)
    return {part: torch.tensor(named[part], dtype=torch.int64) for part in PARTS}


def part_counts(sizes: Sizes, rows: int) -> dict[str, int]:
    """Return how many rows each part gets: int(share * rows), the count that was given, or what the others leave.

    Where all three are shares, the last part that is not empty takes what rounding has left.
    """
    shares = all(isinstance(size, float) or size in (0, 1) for size in sizes.values())
    as_shares = shares and math.isclose(sum(sizes.values()), 1, abs_tol=1e-6)
    others = [part for part in PARTS if sizes[part]][-1] if as_shares else _the_rest(sizes)
    counts = dict.fromkeys(PARTS, 0)
    for part, size in sizes.items():
        if part != others:
            counts[part] = int(size * rows) if as_shares or isinstance(size, float) else int(size)
    told = " + ".join(f"{counts[part]} {part}" for part in PARTS if part != others and counts[part])
    if sum(counts.values()) > rows:
        raise DataError(f"the dataset has {rows} rows, and the split wants {told}", fix="ask for fewer rows", at=("split",))
    if others:
        counts[others] = rows - sum(counts.values())
    if not sizes["train"]:
        raise _refused(f"no row of the {rows} is left to train on", "give split.train some rows", "train")
    for part in PARTS:
        if sizes[part] and not counts[part]:
            what = f"split.{part}: {sizes[part]} of {rows} rows is 0 rows"
            raise _refused(what if part != others or as_shares else f"{what} beside {told}", "give it more rows, or write 0", part)
    return counts


def _the_rest(sizes: Sizes) -> str:
    """Return the part that takes what the others leave, or ""."""
    found = [part for part in PARTS if sizes[part] == "rest"]
    if len(found) > 1:
        raise _refused(f"split.{found[0]} and split.{found[1]} are both the rest", "say how many rows one of them has", found[1])
    return found[0] if found else ""


def _by_sklearn(
    counts: Mapping[str, int], y: Tensor, seed: int, *, by_class: bool = False, classes: Sequence[str] = ()
) -> dict[str, Tensor]:
    import numpy as np
    from sklearn.model_selection import train_test_split as cut

    if seed > MOST_SEED:
        raise DataError(f"seed {seed} is larger than scikit-learn takes", fix=f"use at most {MOST_SEED}", at=("seed",))
    left, parts = np.arange(len(y)), {"val": np.arange(0), "test": np.arange(0)}
    cuts = [part for part in ("test", "val") if counts[part]]
    for part in cuts:
        keep = counts["train"] if part == cuts[-1] else len(left) - counts[part]
        if by_class:
            _check_classes(y[left], {"train": keep, part: counts[part]}, classes)
        by = y.numpy()[left] if by_class else None
        left, parts[part] = cut(left, test_size=counts[part], train_size=keep, random_state=seed, shuffle=True, stratify=by)
    if counts["train"] < len(left):
        what = f"the split wants {counts['train']} of {len(left)} rows and neither a val nor a test part"
        raise _refused(what, "write `method: random`, or give the other rows to a part", "train")
    return {"train": torch.from_numpy(left), **{part: torch.from_numpy(parts[part]) for part in ("val", "test")}}


def _check_classes(y: Tensor, sizes: Mapping[str, int], classes: Sequence[str]) -> None:
    """Refuse a cut in two that cannot hold every class on both sides."""
    present, rows = torch.unique(y, return_counts=True)
    rarest = int(rows.argmin())
    parts = " and ".join(sizes)
    if rows[rarest] < 2:
        name = repr(classes[int(present[rarest])]) if classes else f"number {int(present[rarest])}"
        what = f"class {name} has 1 row to share between {parts}"
        raise _refused(what, "add rows of it, leave it out, or write `method: random`", "method")
    for part, size in sizes.items():
        if size < len(present):
            what = f"{size} rows for {part} cannot hold all {len(present)} classes"
            raise _refused(what, f"give it at least {len(present)} rows, or write `method: random`", part)


def _named_rows(part: str, size: Any, rows: int) -> Sequence[int]:
    """Return the numbers of the rows that a config names for a part."""
    if isinstance(size, str):
        first, _, last = size.partition(":")
        numbers: Sequence[int] = range(int(first or 0), int(last or rows))
        if not numbers:
            raise _refused(f"split.{part}: {size} names no rows", "write first:last, where last is not included", part)
    else:
        numbers = size or []
    largest = numbers[-1] if isinstance(numbers, range) else max(numbers, default=-1)
    if largest >= rows:
        raise _refused(f"split.{part}: row {largest} does not exist", f"the dataset has rows 0 to {rows - 1}", part)
    return numbers


def _refused(what: str, fix: str, part: str) -> DataError:
    return DataError(what, fix=fix, at=("split", part))
