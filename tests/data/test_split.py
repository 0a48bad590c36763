"""The split: the promised rows, equal to those of a hand-written script, and a sentence when they do not suffice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

import nnrun.data.split  # registers the methods; before the spec asks for them
from nnrun.data.dataset import Dataset, Task
from nnrun.data.split import split_rows
from nnrun.errors import DataError
from nnrun.spec.experiment import Split

CLASSES = torch.arange(150) // 50


def parts(y: torch.Tensor | int = CLASSES, seed: int = 1, classes: tuple[str, ...] = (), **split: Any) -> dict[str, list[int]]:
    """Return the row numbers of each part, for targets or a number of rows."""
    y = torch.zeros(y, dtype=torch.int64) if isinstance(y, int) else y
    found = split_rows(Split.model_validate(split), Dataset(y, y, Task(("y",), classes)), seed)
    assert list(found) == ["train", "val", "test"]
    assert {rows.dtype for rows in found.values()} == {torch.int64}
    return {part: rows.tolist() for part, rows in found.items()}


def refusal(y: torch.Tensor | int = CLASSES, seed: int = 1, classes: tuple[str, ...] = (), **split: Any) -> str:
    """Return the whole error of a split that cannot be made."""
    with pytest.raises(DataError) as caught:
        parts(y, seed, classes, **split)
    return str(caught.value)


def test_random_is_randperm_cut_in_order() -> None:
    """The parts are consecutive pieces of torch.randperm under the seed: train, val, test."""
    order = torch.randperm(150, generator=torch.Generator().manual_seed(7)).tolist()
    found = parts(seed=7, train=0.6, val=0.2, test=0.2)
    assert found == {"train": order[:90], "val": order[90:120], "test": order[120:]}


@pytest.mark.parametrize(
    ("rows", "sizes", "expected"),
    [
        (569, (0.6, 0.2, 0.2), (341, 113, 115)),
        (442, (0.8, 0.2, 0), (353, 89, 0)),
        (10, (1.0, 0, 0), (10, 0, 0)),
        (10, (1, 0, 0), (10, 0, 0)),
        (10, ("rest", 1, 0), (9, 1, 0)),
        (10, ("rest", 0.25, 0.25), (6, 2, 2)),
        (10, (5, "rest", 2), (5, 3, 2)),
        (10, (3, 2, 2), (3, 2, 2)),
        (10, (0.5, 2, 0), (5, 2, 0)),
        (100, (0.29, 0.0, 0.71), (28, 0, 72)),
    ],
)
def test_sizes(rows: int, sizes: tuple[Any, Any, Any], expected: tuple[int, int, int]) -> None:
    """int(share * rows) for all but the last part that is asked for, which takes the rest; counts exactly; `rest` what is left."""
    found = parts(rows, train=sizes[0], val=sizes[1], test=sizes[2])
    assert tuple(len(found[part]) for part in ("train", "val", "test")) == expected


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**40), st.sampled_from(["random", "train_test_split"]), st.data())
def test_parts_never_overlap(rows: int, seed: int, method: str, data: st.DataObject) -> None:
    """Whatever counts are asked for: they are met exactly, every row exists, and none is in two parts."""
    assume(method == "random" or seed < 2**32)
    train = data.draw(st.integers(2, rows + 1))
    val, test = data.draw(st.integers(2, rows + 1)), data.draw(st.integers(2, rows + 1))
    split = {"train": train, "val": val, "test": test, "method": method}
    if train + val + test > rows:
        told = f"error: the dataset has {rows} rows, and the split wants {train} train + {val} val + {test} test"
        assert refusal(rows, seed, **split).startswith(told)
        return
    found = parts(rows, seed, **split)
    assert [len(found[part]) for part in ("train", "val", "test")] == [train, val, test]
    together = [row for part in found.values() for row in part]
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(rows))


@pytest.mark.parametrize("method", ["train_test_split", "stratified"])
def test_scikit_learn_gives_a_script_the_same_rows(method: str) -> None:
    """Test is cut off all rows, then val off the others, both with random_state=seed and counts."""
    labels = CLASSES.numpy() if method == "stratified" else None
    left, test = train_test_split(np.arange(150), test_size=30, random_state=3, stratify=labels)
    train, val = train_test_split(left, test_size=30, random_state=3, stratify=None if labels is None else labels[left])
    found = parts(seed=3, train=0.6, val=0.2, test=0.2, method=method)
    assert found == {"train": train.tolist(), "val": val.tolist(), "test": test.tolist()}


def test_one_cut_is_one_call() -> None:
    """With a test part alone, the rows are those of one plain call."""
    train, test = train_test_split(np.arange(150), test_size=45, random_state=1)
    assert parts(train="rest", test=45, method="train_test_split") == {"train": train.tolist(), "val": [], "test": test.tolist()}


def test_stratified_keeps_the_shares() -> None:
    """Each class has the same share of every part."""
    found = parts(method="stratified")
    assert {part: CLASSES[rows].bincount().tolist() for part, rows in found.items()} == {
        "train": [30] * 3,
        "val": [10] * 3,
        "test": [10] * 3,
    }


def test_rows_by_number() -> None:
    """Rows are taken as named; the rest keeps the order of the file."""
    assert parts(10, method="rows", val=[3, 7]) == {"train": [0, 1, 2, 4, 5, 6, 8, 9], "val": [3, 7], "test": []}
    assert parts(10, method="rows", train=":6", test="6:") == {"train": [0, 1, 2, 3, 4, 5], "val": [], "test": [6, 7, 8, 9]}
    assert parts(10, method="rows", train=[9, 0], val="2:4") == {"train": [9, 0], "val": [2, 3], "test": []}


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ({"train": 0.999, "val": 0.001, "test": 0.0}, ""),
        ({"train": "rest", "val": 0.001}, "error: split.val: 0.001 of 150 rows is 0 rows\nfix: give it more rows, or write 0"),
        (
            {"train": 150, "val": "rest"},
            "error: split.val: rest of 150 rows is 0 rows beside 150 train\nfix: give it more rows, or write 0",
        ),
        ({"train": 0, "val": 0.5, "test": 0.5}, "error: no row of the 150 is left to train on\nfix: give split.train some rows"),
        (
            {"train": "rest", "val": 75, "test": 75},
            "error: split.train: rest of 150 rows is 0 rows beside 75 val + 75 test\nfix: give it more rows, or write 0",
        ),
        ({"train": 100, "val": 51}, "error: the dataset has 150 rows, and the split wants 100 train + 51 val\nfix: ask for fewer rows"),
        ({"val": "rest"}, "error: split.train and split.val are both the rest\nfix: say how many rows one of them has"),
        ({"method": "rows", "val": [3, 150]}, "error: split.val: row 150 does not exist\nfix: the dataset has rows 0 to 149"),
        (
            {"method": "rows", "val": "0:99999999999"},
            "error: split.val: row 99999999998 does not exist\nfix: the dataset has rows 0 to 149",
        ),
        (
            {"method": "rows", "val": [3], "test": [3]},
            "error: row 3 is in split.val and in split.test\nfix: a row belongs to one part: name it once",
        ),
        ({"method": "rows", "val": [3, 3]}, "error: row 3 is twice in split.val\nfix: a row belongs to one part: name it once"),
        ({"method": "rows", "val": "5:5"}, "error: split.val: 5:5 names no rows\nfix: write first:last, where last is not included"),
        ({"method": "rows", "val": ":"}, "error: split.train is the rest, and no row is left\nfix: name fewer rows elsewhere"),
        ({"method": "rows", "train": 0, "val": [1]}, "error: no row of the 150 is left to train on\nfix: give split.train some rows"),
        (
            {"method": "stratified", "train": "rest", "val": 2},
            "error: 2 rows for val cannot hold all 3 classes\nfix: give it at least 3 rows, or write `method: random`",
        ),
        (
            {"method": "train_test_split", "train": 100},
            "error: the split wants 100 of 150 rows and neither a val nor a test part\n"
            "fix: write `method: random`, or give the other rows to a part",
        ),
    ],
)
def test_refused(split: dict[str, Any], told: str) -> None:
    """A split that cannot be made says what was asked for and what there is; one that can, is made."""
    if not told:
        assert [len(rows) for rows in parts(**split).values()] == [149, 1, 0]
        return
    assert refusal(**split) == told


def test_stratified_needs_classes_with_rows() -> None:
    """Numbers have no classes, and a class of one row is named."""
    y = torch.tensor([0] * 10 + [1] * 10 + [2])
    assert refusal(y, classes=("a", "b", "c"), method="stratified") == (
        "error: class 'c' has 1 row to share between train and test\nfix: add rows of it, leave it out, or write `method: random`"
    )
    assert "class number 2 has 1 row" in refusal(y, method="stratified")
    assert refusal(torch.zeros(20, 1), method="stratified") == (
        "error: method stratified keeps the shares of the classes, and the targets are numbers\nfix: write `method: train_test_split`"
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=40), st.integers(1, 8), st.integers(1, 8))
def test_stratified_is_made_or_refused_in_a_sentence(labels: list[int], val: int, test: int) -> None:
    """No classes and counts let an error of scikit-learn through."""
    split = {"train": "rest", "val": val, "test": test, "method": "stratified"}
    try:
        found = parts(torch.tensor(labels), **split)
    except DataError:
        return
    assert [len(found["val"]), len(found["test"])] == [val, test]


def test_scikit_learn_takes_no_large_seed() -> None:
    """A seed that torch takes and scikit-learn does not is told, not wrapped around."""
    assert (
        refusal(seed=2**32, method="stratified") == "error: seed 4294967296 is larger than scikit-learn takes\nfix: use at most 4294967295"
    )
    assert parts(seed=2**62)["train"]


def test_faults_carry_their_path() -> None:
    """The part that cannot be had is where the config is pointed at."""
    with pytest.raises(DataError) as caught:
        parts(50, train="rest", val=0.001)
    assert caught.value.faults[0].at == ("split", "val")
    assert nnrun.data.split
