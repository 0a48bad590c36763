"""Nothing of the validation and test rows reaches the network, and what could fool its user is counted and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit, KFold, StratifiedKFold

import nnrun.builtin  # noqa: F401
from nnrun.data.prepare import Prepared, prepare
from nnrun.errors import DataError
from nnrun.run import open_run
from nnrun.spec.reader import check, read_spec

CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a table."""
    return tmp_path / "t.csv"


def table(rows: int = 60, seed: int = 0) -> list[str]:
    """Return the lines of a table: two numbers with gaps, a category, a group of three rows, a day, a name, a part, and a target."""
    noise = np.random.default_rng(seed)
    cells = [
        f"{noise.normal():.4f},{'' if row % 7 == 0 else noise.integers(0, 9)},{'pqr'[row % 3]},g{row // 3},"
        f"2020-{1 + row % 12:02}-{1 + row % 28:02},n{row},{('train', 'valid', 'test')[row % 3]},{noise.normal():.4f}"
        for row in range(rows)
    ]
    return ["a,b,c,group,day,name,part,y", *cells]


def prepared(file: Path, lines: list[str], split: Any, **keys: Any) -> Prepared:
    """Return the prepared data of these lines."""
    file.write_text("\n".join(lines) + "\n")
    ignored = {"group": "ignore", "day": "ignore", "name": "ignore", "part": "ignore"}
    dataset = {"name": "csv", "path": str(file), "target": "y", "columns": ignored, **keys.pop("dataset", {})}
    return prepare(
        check({"name": "it", "seed": 1, "dataset": dataset, "split": split, "preprocess": ["impute", "standardize"], **keys}), CPU
    )


def numbers(found: Prepared) -> dict[str, list[int]]:
    """Return the row numbers of each part."""
    return {part: rows.tolist() for part, rows in found.row_numbers.items()}


def test_groups_stay_together(file: Path):
    """As scikit-learn's GroupShuffleSplit cuts them: test first, then val from the rest."""
    found = numbers(prepared(file, table(), {"group": "group", "train": 0.5, "val": 0.25, "test": 0.25}))
    groups = np.array([f"g{row // 3}" for row in range(60)])
    rest, test = next(GroupShuffleSplit(1, test_size=0.25, random_state=1).split(groups, groups=groups))
    train, val = next(GroupShuffleSplit(1, test_size=0.25 / 0.75, random_state=1).split(rest, groups=groups[rest]))
    assert found == {"train": rest[train].tolist(), "val": rest[val].tolist(), "test": test.tolist()}
    assert not {row // 3 for row in found["train"]} & {row // 3 for row in found["val"] + found["test"]}


def test_earlier_rows_are_trained_on(file: Path):
    """Sorted by the day; the rows of one day are never in two parts."""
    lines = table()
    found = numbers(prepared(file, lines, {"by": "day", "train": 0.6, "val": 0.2, "test": 0.2}))
    days = {part: [lines[1 + row].split(",")[4] for row in rows] for part, rows in found.items()}
    assert max(days["train"]) < min(days["val"]) <= max(days["val"]) < min(days["test"])
    assert sum(map(len, days.values())) == 60
    same = [lines[0], *(line.replace(line.split(",")[4], "2020-01-01") for line in lines[1:51]), *lines[51:]]
    found = numbers(prepared(file, same, {"by": "day", "train": 0.6, "val": 0.2, "test": 0.2}))
    assert len(found["train"]) >= 50


def test_a_hash_split_does_not_know_the_order(file: Path):
    """A row's part depends on its name and the seed alone: not on the order, nor on the other rows."""
    lines = table(200)

    def names(lines: list[str]) -> dict[str, set[str]]:
        found = numbers(prepared(file, lines, {"id": "name", "train": 0.6, "val": 0.2, "test": 0.2}))
        return {part: {lines[1 + row].split(",")[5] for row in rows} for part, rows in found.items()}

    straight = names(lines)
    assert names([lines[0], *reversed(lines[1:])]) == straight
    assert all(names(lines[:150])[part] < straight[part] for part in straight)
    assert 90 < len(straight["train"]) < 150


def test_a_column_or_a_file_can_say_the_part(file: Path, tmp_path: Path):
    """`train`, `valid` and `test` in a column; a file for each part."""
    found = numbers(prepared(file, table(), {"column": "part"}))
    assert found["val"] == list(range(1, 60, 3))
    other = tmp_path / "later.csv"
    other.write_text("\n".join(table(10, seed=5)) + "\n")
    keys = {"path": [str(file), str(other)]}
    found = numbers(prepared(file, table(), {"train": "t.csv", "test": "later.csv"}, dataset=keys))
    assert found == {"train": list(range(60)), "val": [], "test": list(range(60, 70))}
    with pytest.raises(DataError) as caught:
        prepared(file, table(), {"train": "t.csv", "test": "late.csv"}, dataset=keys)
    assert str(caught.value) == "error: split.test: the dataset has no file late.csv\nfix: its files are t.csv, later.csv"


@pytest.mark.parametrize("method", ["random", "stratified", "group"])
def test_each_row_is_tested_in_one_fold(file: Path, method: str):
    """The folds are scikit-learn's; validation rows come from the others."""
    lines = [lines if not row else f"{lines.rpartition(',')[0]},{'uv'[row % 2]}" for row, lines in enumerate(table())]
    split = {"method": method, "folds": 5, "val": 0.2, **({"group": "group"} if method == "group" else {})}
    found = [numbers(prepared(file, lines, {**split, "fold": fold})) for fold in range(1, 6)]
    assert sorted(row for fold in found for row in fold["test"]) == list(range(60))
    for fold in found:
        assert sorted(fold["train"] + fold["val"] + fold["test"]) == list(range(60))
        assert fold["val"]
    y = np.arange(1, 61) % 2
    if method != "group":
        kind = KFold if method == "random" else StratifiedKFold
        theirs = [test.tolist() for _, test in kind(5, shuffle=True, random_state=1).split(y, y)]
        assert [fold["test"] for fold in found] == theirs
    else:
        assert all(not {row // 3 for row in fold["test"]} & {row // 3 for row in fold["train"]} for fold in found)


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ({"group": "groupe"}, "has no column 'groupe'\nfix: did you mean 'group'?"),
        ({"group": "group", "train": 40, "val": 10, "test": 10}, "method group takes shares of the groups, not counts of rows"),
        ({"by": "name"}, "column 'name': 'n0' is neither a number nor a date, and the rows are to be split by it"),
        ({"by": "b"}, "column 'b', by which the rows are split, is missing in 9 rows (the first is row 0)"),
        ({"column": "c"}, "column 'c': 'p' is no part (the first of"),
        ({"folds": 61}, "60 rows do not make 61 folds"),
    ],
)
def test_columns_that_do_not_suit_a_split(file: Path, split: Any, told: str):
    """One sentence each."""
    with pytest.raises(DataError) as caught:
        prepared(file, table(), split)
    assert told in str(caught.value)


def test_duplicates_across_parts_are_counted_and_named(file: Path):
    """With the first pair; `leaks: error` refuses them, `ignore` says nothing; not where most rows come again anyway."""
    lines = table()
    lines[51:54] = lines[1:4]
    split = {"method": "rows", "train": "0:40", "val": "40:50", "test": "rest"}
    dataset = {"columns": dict.fromkeys(("group", "day", "name", "part"), "ignore")}
    told = "3 of 10 test rows are in the training part too (row 50 is row 0); remove the duplicates, or keep them together with a group"
    assert prepared(file, lines, split, dataset=dataset).notes == [told]
    assert prepared(file, lines, split, dataset=dataset, leaks="ignore").notes == []
    with pytest.raises(DataError) as caught:
        prepared(file, lines, split, dataset=dataset, leaks="error")
    assert str(caught.value).startswith("error: 3 of 10 test rows are in the training part too (row 50 is row 0)\nfix: remove")
    assert "training part" not in str(prepared(file, lines[:1] + lines[1:4] * 20, split, dataset=dataset).notes)


def test_a_group_on_both_sides_is_counted(file: Path):
    """A group named beside another method is looked at."""
    found = prepared(file, table(), {"method": "random", "group": "group"})
    assert "of the groups in val are in the training part too, such as 'g" in found.notes[0]
    assert prepared(file, table(), {"method": "group", "group": "group"}).notes == []


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (lambda row, y: f"{-2 * float(y) + 7:.6f}", "their correlation is -1"),
        (lambda row, y: f"k{float(y):.4f}"[:7], ""),
        (lambda row, y: f"{row % 9}", ""),
    ],
)
def test_a_target_in_disguise_is_named(file: Path, column: Any, told: str):
    """A column that is the target again, in other units."""
    lines = [f"d,{lines}" if not row else f"{column(row, lines.rpartition(',')[2])},{lines}" for row, lines in enumerate(table())]
    if column(1, "0").startswith("k"):
        lines = [lines[0], *(f"{float(line.rpartition(',')[2]) > 0},{line.partition(',')[2]}" for line in lines[1:])]
    notes = prepared(file, lines, {"train": "rest"}).notes
    assert notes == (
        [f"column 'd' alone gives the target away: {told}; if it is not known before the target is, write `columns: {{d: ignore}}`"]
        if told
        else []
    )


def test_a_class_in_disguise_is_named(file: Path):
    """Each of its values stands beside one class only."""
    lines = ["code,a,y", *(f"c{row % 4},{row * 37 % 11},{'no' if row % 4 < 2 else 'yes'}" for row in range(60))]
    file.write_text("\n".join(lines) + "\n")
    spec = {"name": "it", "dataset": {"csv": str(file), "target": "y"}, "split": {"train": "rest"}}
    assert prepare(check(spec), CPU).notes[0].startswith("column 'code' alone gives the target away: each of its 4 values stands beside")


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_other_rows_change_nothing_that_is_learned(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Whatever stands in the validation and test rows, what preprocessing learns and the first training rows keep every bit."""
    file = tmp_path_factory.mktemp("leak") / "t.csv"
    lines = table(40)
    split = {"method": "rows", "train": "0:30", "val": "30:35", "test": "rest"}
    steps = ["impute", {"clip": 0.1}, "robust", "standardize"]
    keys = {"preprocess": [*steps, data.draw(st.sampled_from(["one_hot", "ordinal", "embed"]))], "leaks": "ignore"}
    before = prepared(file, lines, split, **keys)
    for row in data.draw(st.lists(st.integers(31, 40), min_size=1)):
        cells = lines[row].split(",")
        cells[0] = data.draw(st.sampled_from(["1e30", "-1e30", "0", ""]) | st.floats(-100, 100, width=32).map(repr))
        cells[2] = data.draw(st.sampled_from(["p", "zzz", "", "AAA"]))
        cells[7] = data.draw(st.sampled_from(["9", "-1e9"]))
        lines[row] = ",".join(cells)
    after = prepared(file, lines, split, **keys)
    assert after.raw_columns == before.raw_columns
    assert [{name: tensor.tolist() for name, tensor in step.items()} for step in after.fitted] == [
        {name: tensor.tolist() for name, tensor in step.items()} for step in before.fitted
    ]
    assert torch.equal(after.parts["train"].x, before.parts["train"].x)


def test_other_rows_change_no_weight(file: Path, tmp_path: Path):
    """Trained for a few epochs, with everything of the other rows changed, the network is the same to the bit."""
    weights = []
    for change in (False, True):
        lines = table(40)
        lines[31:] = [f"1e5,9,w,{line.split(',', 3)[3].rpartition(',')[0]},77" for line in lines[31:]] if change else lines[31:]
        file.write_text("\n".join(lines) + "\n")
        config = tmp_path / "it.yaml"
        config.write_text(
            f"dataset: {{csv: {file}, target: y, columns: {{group: ignore, day: ignore, name: ignore, part: ignore}}}}\n"
            "split: {method: rows, train: '0:30', test: rest}\npreprocess: [impute, standardize, {one_hot: {unknown: other}}]\n"
            "scale_target: standardize\nlayers: [8]\nepochs: 3\nbatch_size: 7\n"
        )
        run = open_run(*read_spec(config), out=tmp_path / f"run{change}")
        list(run.train())
        weights.append([parameter.detach().clone() for parameter in run.network.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
