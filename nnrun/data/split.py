"""How the rows of a dataset become a training, a validation and a test part.

    random             torch.randperm, seeded, cut into train, val and test
    train_test_split   scikit-learn's function: test is cut off first, then val from what remains
    stratified         the same, with the classes in equal shares
    group              scikit-learn's GroupShuffleSplit, the same way: no value of a column is in two parts
    time               sorted by a column: the earliest rows are trained on, the latest tested
    hash               by the name of each row: its part does not depend on the other rows
    column             by what a column says
    files              by the file that a row came from
    rows               the rows that the config names

A method is a function of (what is asked) and returns the row numbers of each part. A hand-written script that follows the same two or three
lines gets the same rows: see the docstring of each method. With `folds`, one fold is the test part, cut by scikit-learn's KFold,
StratifiedKFold or StratifiedGroupKFold, and the rest is split into train and val by the method.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.data.looks import moments
from nnrun.errors import DataError
from nnrun.lazy import torch
from nnrun.registry import SPLITS
from nnrun.spec.experiment import METHOD_COLUMNS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars
    from torch import Tensor

    from nnrun.data.dataset import Dataset
    from nnrun.spec.experiment import Split

    Numbers = npt.NDArray[np.int64]

PARTS = ("train", "val", "test")
NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
Sizes = Mapping[str, Any]  # part → a share, a count, "rest", [3, 7] or "0:100"
MOST_SEED = 2**32 - 1  # scikit-learn takes no larger one


@dataclass(frozen=True)
class Asked:
    """What is to be split, and how large the parts are to be.

    Args:
        y: the targets (N,) or (N, T).
        classes: the class names, for errors.
        keys: for each row a number that says its value in the column that the method goes by, in the order of the values; or None.
        names: for method hash and column, these values; for method files, the files: key → name.
    """

    sizes: Sizes
    y: Tensor
    seed: int
    classes: Sequence[str] = ()
    keys: Numbers | None = None
    names: Sequence[str] = ()

    def some(self, rows: Numbers, sizes: Sizes) -> Asked:
        """Return the same for some of the rows."""
        keys = None if self.keys is None else self.keys[rows]
        return replace(self, sizes=sizes, y=self.y[torch.from_numpy(rows)], keys=keys)


def split_rows(split: Split, dataset: Dataset, seed: int) -> dict[str, Tensor]:
    """Return the row numbers (int64) of the parts train, val and test; a part may be empty, but not train.

    Raises:
        DataError: when the rows do not suffice for what was asked.
    """
    sizes = {part: getattr(split, part) for part in PARTS}
    asked = Asked(sizes, dataset.y, seed, dataset.task.classes, *_keys(split, dataset))
    parts: dict[str, Tensor] = _fold(split, asked) if split.folds else SPLITS[split.method].build(asked)
    if not len(parts["train"]):
        fix = f"write train in some rows of {split.column!r}" if split.method == "column" else "give split.train some rows"
        raise _refused(f"no row of the {len(dataset.y)} is left to train on", fix, "train")
    return parts


def _keys(split: Split, dataset: Dataset) -> tuple[Numbers | None, Sequence[str]]:
    """Return the values of the column that the method goes by, as numbers in their order, and as they stand."""
    import numpy as np

    key = METHOD_COLUMNS.get(split.method)
    if split.method == "files" and dataset.table is not None:
        return dataset.table.files()
    if key is None:
        return None, ()
    name, table = getattr(split, key), dataset.table
    if table is None:
        what = f"method {split.method} goes by a column, and this dataset is no table of a file"
        raise DataError(what, fix="write `method: random`, or `method: rows`", at=("split", "method"))
    texts = table.texts(name)
    if texts.null_count():
        row, count = int(texts.is_null().arg_true()[0]), texts.null_count()
        what = f"column {name!r}, by which the rows are split, is missing in {count} row{'s' * (count != 1)} (the first is row {row})"
        raise DataError(what, fix="fill it in, or remove these rows", place=table.place(row, name), at=("split", key))
    if split.method == "column":
        wrong = np.flatnonzero(~texts.str.to_lowercase().is_in(list(NAMES)).to_numpy())
        if len(wrong):
            what = f"column {name!r}: {texts[int(wrong[0])]!r} is no part"
            raise DataError([table.fault(what, f"write train, val or test; {', '.join(list(NAMES)[1:])} will do too", name, wrong)])
    values, bad = table.numbers(name)
    if split.method in ("hash", "column"):
        return _ranks(texts), texts.unique().sort().to_list()
    if len(bad) and split.method == "time":
        times = moments(texts)
        if times.null_count():
            row = int(times.is_null().arg_true()[0])
            what = f"column {name!r}: {texts[row]!r} is neither a number nor a date, and the rows are to be split by it"
            raise DataError(what, fix="write dates like 2026-01-31", place=table.place(row, name), at=("split", "by"))
        return _ranks(times), ()
    return _ranks(texts) if len(bad) else np.unique(values, return_inverse=True)[1].astype(np.int64), ()  # as numbers 9 comes before 10


def _ranks(values: polars.Series) -> Numbers:
    """Return the place of each value among the different ones, sorted."""
    import numpy as np

    return values.rank("dense").to_numpy().astype(np.int64) - 1


@SPLITS.register("random")
def random(asked: Asked) -> dict[str, Tensor]:
    """Rows in the order of torch.randperm(n, generator=torch.Generator().manual_seed(seed)), cut into train, val, test."""
    rows = len(asked.y)
    return _cut(torch.randperm(rows, generator=torch.Generator().manual_seed(asked.seed)), part_counts(asked.sizes, rows))


@SPLITS.register("train_test_split")
def train_test_split(asked: Asked) -> dict[str, Tensor]:
    """scikit-learn's train_test_split(random_state=seed): the test part from all rows, then the validation part from the others."""
    return _by_sklearn(part_counts(asked.sizes, len(asked.y)), asked)


@SPLITS.register("stratified", needs="classes")
def stratified(asked: Asked) -> dict[str, Tensor]:
    """As train_test_split, with each class in the same share in every part (stratify=y)."""
    if asked.y.dim() != 1 or asked.y.is_floating_point():
        what = "method stratified keeps the shares of the classes, and the targets are numbers"
        raise _refused(what, "write `method: train_test_split`", "method")
    return _by_sklearn(part_counts(asked.sizes, len(asked.y)), asked, by_class=True)


@SPLITS.register("group")
def group(asked: Asked) -> dict[str, Tensor]:
    """scikit-learn's GroupShuffleSplit(random_state=seed): test from all groups, then val from the others; sizes are shares of groups."""
    import numpy as np
    from sklearn.model_selection import GroupShuffleSplit

    assert asked.keys is not None
    shares = {part: size for part, size in asked.sizes.items() if size not in ("rest", 0)}
    if any(not isinstance(size, float) and size != 1 for size in shares.values()):
        part = next(part for part, size in shares.items() if not isinstance(size, float))
        raise _refused("method group takes shares of the groups, not counts of rows", "write a share, such as 0.2", part)
    left, parts, kept = np.arange(len(asked.y)), {"val": np.arange(0), "test": np.arange(0)}, 1.0
    for part in ("test", "val"):
        if part not in shares:
            continue
        try:
            cut = GroupShuffleSplit(n_splits=1, test_size=shares[part] / kept, random_state=_sklearn_seed(asked.seed))
            stay, go = next(cut.split(left, groups=asked.keys[left]))
        except ValueError:
            groups = len(np.unique(asked.keys))
            what = f"{groups} group{'s are' if groups != 1 else ' is'} too few for {len(shares)} parts of {sorted(shares.values())}"
            fix = "give larger shares" if groups >= len(shares) else "a group is in one part alone: go by a column with more values"
            raise _refused(what, fix, part) from None
        parts[part], left, kept = left[go], left[stay], kept - shares[part]
    return {"train": torch.from_numpy(left), **{part: torch.from_numpy(parts[part]) for part in ("val", "test")}}


@SPLITS.register("time")
def time(asked: Asked) -> dict[str, Tensor]:
    """Rows sorted by a column, without shuffling: the earliest for train, then val, and the latest for test; one moment is in one part."""
    assert asked.keys is not None
    keys, order = torch.from_numpy(asked.keys).sort(stable=True)
    counts, end, begun = part_counts(asked.sizes, len(order)), 0, 0
    for part in PARTS:  # the rows of a moment that is cut in two go to the earlier part
        begun, end = end, min(len(order), end + counts[part])
        end = max(begun, int(torch.searchsorted(keys, keys[end - 1], right=True)) if counts[part] else begun)
        counts[part] = end - begun
    return _cut(order, counts)


@SPLITS.register("hash")
def hashed(asked: Asked) -> dict[str, Tensor]:
    """By the first 8 bytes of SHA-256 of `seed/NAME` as a share of 2^64: below train's share it is train, then val, then test."""
    if any(isinstance(size, int) and size > 1 for size in asked.sizes.values()):
        raise _refused("method hash takes shares, not counts", "write a share, such as 0.2", "train")
    rest = 1 - sum(size for size in asked.sizes.values() if size != "rest")
    ends, end = [], 0.0
    for part in PARTS:
        end += rest if asked.sizes[part] == "rest" else asked.sizes[part]
        ends.append(end)

    def part_of(name: str) -> str:
        share = int.from_bytes(hashlib.sha256(f"{asked.seed}/{name}".encode()).digest()[:8], "big") / 2**64
        return next((part for part, end in zip(PARTS, ends, strict=True) if share < end), "")

    return _by_name(asked, part_of)


def _by_name(asked: Asked, part_of: Callable[[str], str]) -> dict[str, Tensor]:
    """Return the rows whose value belongs to each part; "" is none."""
    import numpy as np

    owners = np.array([part_of(name) for name in asked.names])
    return {part: torch.from_numpy(np.flatnonzero((owners == part)[asked.keys])) for part in PARTS}


@SPLITS.register("files")
def files(asked: Asked) -> dict[str, Tensor]:
    """By the file that a row came from, where the dataset has several: {train: a.csv, test: b.csv}; `rest` takes the other files."""
    wanted = {part: [size] if isinstance(size, str) else size for part, size in asked.sizes.items() if size not in ("rest", 0)}
    known, owner = asked.names, dict[str, str]()
    for part, paths in wanted.items():
        for path in paths:
            matching = [name for name in known if name == path or name.endswith(f"/{path}")]
            if not matching:
                shown = ", ".join(Path(name).name for name in known[:8]) or "none"
                raise _refused(f"split.{part}: the dataset has no file {path}", f"its files are {shown}", part)
            if matching[0] in owner:
                raise _refused(f"{path} is in split.{owner[matching[0]]} and in split.{part}", "name each file once", part)
            owner[matching[0]] = part
    others = _the_rest(asked.sizes)
    return _by_name(asked, lambda name: owner.get(name, others))


@SPLITS.register("column")
def column(asked: Asked) -> dict[str, Tensor]:
    """By what a column says of each row: train, val (or valid, validation, dev) or test."""
    return _by_name(asked, lambda name: NAMES[name.lower()])


@SPLITS.register("rows")
def rows(asked: Asked) -> dict[str, Tensor]:
    """The rows named in the config, [3, 7] or 0:60000, counted from 0; `rest` takes all that are named nowhere, in their order."""
    import numpy as np

    sizes, count = asked.sizes, len(asked.y)
    named = {part: np.array(_named_rows(part, size, count), np.int64) for part, size in sizes.items() if size != "rest"}
    owner = np.full(count, -1, np.int8)
    for part, numbers in named.items():
        again = np.ones(len(numbers), bool)
        again[np.unique(numbers, return_index=True)[1]] = False
        wrong = np.flatnonzero(again | (owner[numbers] >= 0))
        if len(wrong):
            number = int(numbers[wrong[0]])
            where = f"twice in split.{part}" if owner[number] < 0 else f"in split.{PARTS[owner[number]]} and in split.{part}"
            raise _refused(f"row {number} is {where}", "a row belongs to one part: name it once", part)
        owner[numbers] = PARTS.index(part)
    others = _the_rest(sizes)
    if others:
        named[others] = np.flatnonzero(owner < 0)
        if not len(named[others]):
            raise _refused(f"split.{others} is the rest, and no row is left", "name fewer rows elsewhere", others)
    return {part: torch.from_numpy(named[part]) for part in PARTS}


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


def _cut(order: Tensor, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Return rows in an order, cut into consecutive parts."""
    train, val, test, _ = torch.split(order, [*counts.values(), len(order) - sum(counts.values())])
    return {"train": train, "val": val, "test": test}


def _fold(split: Split, asked: Asked) -> dict[str, Tensor]:
    """Return one fold as the test part, and the other rows split into train and val by the method."""
    import numpy as np
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    assert split.folds is not None
    rows = len(asked.y)
    classes = bool(asked.classes) and split.method in ("stratified", "group")
    kind = StratifiedGroupKFold if split.method == "group" else StratifiedKFold if split.method == "stratified" else KFold
    groups = rows if asked.keys is None else len(np.unique(asked.keys))
    if groups < split.folds:
        what = f"{groups} {'groups' if asked.keys is not None else 'rows'} do not make {split.folds} folds"
        raise DataError(what, fix=f"write `folds: {groups}` or less" if groups > 1 else "give more of them", at=("split", "folds"))
    if split.method == "stratified":
        _check_classes(asked.y, dict.fromkeys((f"fold {number}" for number in range(1, split.folds + 1)), rows), asked.classes, split.folds)
    by = asked.y.numpy() if classes else np.zeros(rows, np.int64)
    cuts = kind(n_splits=split.folds, shuffle=True, random_state=_sklearn_seed(asked.seed)).split(by, by, asked.keys)
    others, test = list(cuts)[split.fold - 1]
    inner = SPLITS[split.method].build(asked.some(others, {**asked.sizes, "train": "rest"})) if split.val else {}
    found = {part: torch.from_numpy(others)[inner[part]] for part in ("train", "val") if inner}
    return {"train": torch.from_numpy(others), "val": torch.zeros(0, dtype=torch.int64), **found, "test": torch.from_numpy(test)}


def _sklearn_seed(seed: int) -> int:
    if seed > MOST_SEED:
        raise DataError(f"seed {seed} is larger than scikit-learn takes", fix=f"use at most {MOST_SEED}", at=("seed",))
    return seed


def _by_sklearn(counts: Mapping[str, int], asked: Asked, *, by_class: bool = False) -> dict[str, Tensor]:
    import numpy as np

    y, seed = asked.y, _sklearn_seed(asked.seed)
    left, parts = np.arange(len(y)), {"val": np.arange(0), "test": np.arange(0)}
    cuts = [part for part in ("test", "val") if counts[part]]
    for part in cuts:
        keep = counts["train"] if part == cuts[-1] else len(left) - counts[part]
        if by_class:
            _check_classes(y[left], {"train": keep, part: counts[part]}, asked.classes)
            from sklearn.model_selection import train_test_split as cut

            sizes = {"test_size": counts[part], "train_size": keep}
            left, parts[part] = cut(left, **sizes, random_state=seed, shuffle=True, stratify=y.numpy()[left])
        else:  # as scikit-learn does it; importing it takes longer than torch
            order = left[np.random.RandomState(seed).permutation(len(left))]
            left, parts[part] = order[counts[part] : counts[part] + keep], order[: counts[part]]
    if counts["train"] < len(left):
        what = f"the split wants {counts['train']} of {len(left)} rows and neither a val nor a test part"
        raise _refused(what, "write `method: random`, or give the other rows to a part", "train")
    return {"train": torch.from_numpy(left), **{part: torch.from_numpy(parts[part]) for part in ("val", "test")}}


def _check_classes(y: Tensor, sizes: Mapping[str, int], classes: Sequence[str], fewest: int = 2) -> None:
    """Refuse a cut that cannot hold every class on each side."""
    present, rows = torch.unique(y, return_counts=True)
    rarest = int(rows.argmin())
    parts = " and ".join(sizes)
    if rows[rarest] < fewest:
        name = repr(classes[int(present[rarest])]) if classes else f"number {int(present[rarest])}"
        count = int(rows[rarest])
        parts = parts if fewest == 2 else f"{fewest} folds"
        what = f"class {name} has {count} row{'s' * (count != 1)} to share between {parts}"
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
