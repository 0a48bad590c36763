"""Tables of mixed columns: what each is taken for, missing values, categories, several files; one sentence for what cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import QuantileTransformer, RobustScaler

import nnrun.builtin  # noqa: F401
from nnrun.data.columns import Column, columns_of, raw_rows
from nnrun.data.looks import Look
from nnrun.data.prepare import Prepared, prepare
from nnrun.data.preprocess import apply_steps, columns_after, fit_steps
from nnrun.data.table_files import Reading
from nnrun.errors import DataError
from nnrun.spec.reader import check
from tests.data.test_preprocess import steps

CPU = torch.device("cpu")
ROWS = [
    "age,zone,joined,member,seen,price",
    "34,north,2020-01-02,yes,2020-01-02 08:30,10",
    "41,south,2021-03-04,no,2020-01-02 09:30,20",
    "29,north,2019-07-08,yes,2020-01-03 08:30,15",
    "55,east,2020-11-12,no,2020-01-02 23:30,11",
]
MIXED = "\n".join(ROWS) + "\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of a test stands in its own folder."""
    monkeypatch.chdir(tmp_path)


def made(text: str = MIXED, name: str = "t.csv", *, split: Any = "random", **keys: Any) -> Prepared:
    """Return the prepared data of a table whose target is its last column."""
    Path(name).write_text(text)
    dataset = {"name": "csv", "path": name, "target": text.partition("\n")[0].split(",")[-1], **keys.pop("dataset", {})}
    return prepare(check({"name": "it", "dataset": dataset, "split": split, **keys}), CPU)


def refusal(*arguments: Any, **keys: Any) -> str:
    """Return the whole error of data that cannot be prepared."""
    with pytest.raises(DataError) as caught:
        made(*arguments, **keys)
    return str(caught.value).replace(f"{Path.cwd()}/", "")


def test_kinds_are_read_off_the_cells() -> None:
    """Numbers, truth values, categories, dates; a date gives its parts, and the hour where there is one."""
    Path("t.csv").write_text(MIXED)
    table = Reading().table("t.csv", set())
    columns = columns_of([Look(table, name) for name in ("age", "zone", "joined", "member", "seen")], {})
    dates = ["joined.year", "joined.month", "joined.day", "joined.weekday"]
    times = ["seen.year", "seen.month", "seen.day", "seen.weekday", "seen.hour"]
    assert [str(column) for column in columns] == ["age", "zone", *dates, "member", *times]
    assert (columns[1].levels, columns[6].levels) == (("east", "north", "south"), ("no", "yes"))
    assert raw_rows(table, columns)[0].tolist() == [34, 1, 2020, 1, 2, 4, 1, 2020, 1, 2, 4, 8]


def test_a_kind_can_be_said() -> None:
    """`columns` makes a category of numbers, with the text that stands there, and leaves columns out."""
    text = "zip,id,y\n" + "".join(f"0{row % 3},name {row},{row % 2}\n" for row in range(20))
    assert "column 'id' holds 20 different texts in 20 rows" in refusal(text)
    found = made(text, dataset={"columns": {"zip": "category", "id": "ignore"}})
    assert found.raw_columns == (Column("zip", "category", ("00", "01", "02")),)
    assert [str(column) for column in found.columns] == ["zip=00", "zip=01", "zip=02"]
    assert "column 'id': 'name 0' is not a date" in refusal(text, dataset={"columns": {"zip": "number", "id": "date"}})
    told = refusal(text, dataset={"columns": {"zipp": "category"}})
    assert told == "error: t.csv has no column 'zipp'\nfix: did you mean 'zip'? (its columns are zip, id, y)"


GAPS = "a,b,c,y\n1,x,yes,0.5\n,y,no,1\n3,,yes,0.25\n5,x,,2\n7,x,yes,3\nNA,x,yes,4\n"


def test_missing_values_are_refused_with_their_places() -> None:
    """Each column with its count and its first place, and what to write; nothing is filled in unasked."""
    assert refusal(GAPS) == (
        "error: t.csv:3:1: column 'a' is missing in 2 of 6 rows (the first is row 1 counted from 0)\n"
        "    3 | ,y,no,1\n      | ^\nfix: write `preprocess: [impute]`, or `columns: {a: ignore}`\n"
        "error: t.csv:4:3: column 'b' is missing in 1 of 6 rows (the first is row 2 counted from 0)\n"
        "    4 | 3,,yes,0.25\n      |   ^\nfix: write `preprocess: [impute]`, or `columns: {b: ignore}`\n"
        "error: t.csv:5:5: column 'c' is missing in 1 of 6 rows (the first is row 3 counted from 0)\n"
        "    5 | 5,x,,2\n      |     ^\nfix: write `preprocess: [impute]`, or `columns: {c: ignore}`"
    )
    told = refusal(GAPS, preprocess=["standardize", "impute"])
    assert told.startswith("error: impute comes after standardize, which cannot use missing values\nfix: put it first")


def test_missing_targets_are_refused_or_dropped() -> None:
    """A row without a target cannot be learned from: it is told, or left out and counted."""
    text = "a,y\n1,0.5\n2,\n3,1.5\n4,NA\n5,2\n"
    assert refusal(text).startswith("error: t.csv:3:3: target 'y' is missing in 2 rows (the first is row 1 counted from 0)")
    found = made(text, split={"train": "rest"}, dataset={"missing_target": "drop"})
    assert sorted(found.parts["train"].y.flatten().tolist()) == [0.5, 1.5, 2]
    assert found.notes == ["2 of 5 rows have no target and are left out"]


@pytest.mark.parametrize("strategy", ["median", "mean", "most_frequent"])
def test_numbers_are_imputed_as_scikit_learn_does(strategy: str) -> None:
    """From the training rows alone; a number of one's own is taken as it is."""
    x = torch.tensor([[1.0, 2.0], [float("nan"), 2.0], [4.0, float("nan")], [10.0, 7.0], [1.0, 8.0]])
    expected = SimpleImputer(strategy=strategy).fit(x.double().numpy()).transform(x.double().numpy())
    chain = steps({"impute": {"numbers": strategy}})
    assert apply_steps(chain, fit_steps(chain, x), x).tolist() == np.float32(expected).tolist()
    chain = steps({"impute": {"numbers": -1.0}})
    assert apply_steps(chain, fit_steps(chain, x), x)[1, 0] == -1


def test_categories_are_imputed_and_flagged() -> None:
    """A missing category is one of its own, or the most frequent; a flag tells where something was missing."""
    columns = (Column("a"), Column("b", "category", ("p", "q")))
    x = torch.tensor([[1.0, 0.0], [float("nan"), 1.0], [3.0, float("nan")], [5.0, 0.0]])
    for categories, coded in (("own", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]), ("most_frequent", [[1, 0], [0, 1], [1, 0], [1, 0]])):
        chain = steps({"impute": {"categories": categories, "flag": True}}, "one_hot")
        fitted = fit_steps(chain, x, columns)
        found = apply_steps(chain, fitted, x, columns)
        assert found[:, 1:-2].tolist() == coded
        assert found[:, -2:].tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
        assert [str(one) for one in columns_after(chain, fitted, columns)][-2:] == ["a is missing", "b is missing"]


def test_scalers_leave_categories_and_truth_values_alone() -> None:
    """Only numbers are scaled, whatever stands between them."""
    columns = (Column("a"), Column("b", "boolean", ("no", "yes")), Column("c", "category", ("p", "q")), Column("d"))
    x = torch.tensor([[1.0, 1, 0, 10], [3.0, 0, 1, 30]])
    chain = steps("standardize", "one_hot")
    assert apply_steps(chain, fit_steps(chain, x, columns), x, columns).tolist() == [[-1, 1, 1, 0, -1], [1, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("robust", RobustScaler()),
        ({"quantile": {"quantiles": 50}}, QuantileTransformer(n_quantiles=50, output_distribution="normal")),
        ({"quantile": {"to": "uniform"}}, QuantileTransformer(n_quantiles=200)),
    ],
)
def test_more_scalers_are_those_of_scikit_learn(name: Any, theirs: Any) -> None:
    """Also on rows that they were not fitted on, beyond the range, and on equal values."""
    noise = np.random.default_rng(0)
    train, other = noise.normal(size=(200, 3)).astype(np.float32), (noise.normal(size=(50, 3)) * 3).astype(np.float32)
    train[:80, 1] = 0.5
    expected = theirs.fit(train.astype(float)).transform(other.astype(float))
    chain = steps(name)
    found = apply_steps(chain, fit_steps(chain, torch.from_numpy(train)), torch.from_numpy(other))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_outliers_are_clipped_at_the_training_percentiles() -> None:
    """numpy's percentiles of the training rows are the edges for any row."""
    train = torch.arange(101.0)[:, None]
    chain = steps({"clip": {"share": 0.05}})
    found = apply_steps(chain, fit_steps(chain, train), torch.tensor([[-1e9], [5.0], [50.0], [1e9]]))
    assert found.flatten().tolist() == [5, 5, 50, 95]


def test_categories_are_those_of_the_training_rows() -> None:
    """One that only other rows have is told in a note, and all its columns are 0; a rare one is left out when that is asked for."""
    text = "a,zone,y\n" + "".join(f"{row},{'pq'[row % 2]},{row % 2}\n" for row in range(10)) + "10,r,1\n"
    split = {"method": "rows", "train": "0:8", "val": "8:9", "test": "rest"}
    found = made(text, split=split)
    assert [str(column) for column in found.columns] == ["a", "zone=p", "zone=q"]
    assert found.parts["test"].x[:, 1:].tolist() == [[0, 1], [0, 0]]
    assert found.notes == ["1 test rows hold a category that is not known from training (in zone)"]
    rare = made(text.replace("0,p", "0,rare"), split=split, preprocess=[{"one_hot": {"at_least": 2}}])
    assert [str(column) for column in rare.columns] == ["a", "zone=p", "zone=q"]


def test_too_many_categories_want_an_embedding() -> None:
    """A column each for a thousand of them would be no help."""
    text = "zone,y\n" + "".join(f"z{row // 3},{row % 2}\n" for row in range(3300))
    told = refusal(text, split={"train": "rest"})
    assert told.startswith("error: column 'zone' has 1100 categories, and one_hot would make a column of each\nfix: write `embed`")
    found = made(text, split={"train": "rest"}, preprocess=["embed"])
    assert (found.columns[0].kind, found.columns[0].size, found.parts["train"].x.max().item()) == ("code", 81, 1100)


def test_several_files_are_one_table() -> None:
    """By a pattern or a list, columns in any order, packed or not; a bad cell is placed in its own file."""
    Path("a1.csv").write_text("p,q,y\n1,2,0\n3,4,1\n")
    Path("a2.csv.gz").write_bytes(gzip.compress(b"q,y,p\n6,0,5\n8,1,7\n"))
    dataset = {"path": "a*", "task": "numbers"}
    found = made("p,q,y\n9,9,9\n", "other.csv", dataset=dataset, split={"train": "rest"})
    assert sorted(found.parts["train"].x.tolist()) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    Path("a2.csv.gz").write_bytes(gzip.compress(b"q,y,p\n6,0,5\n8,1,x\n"))
    assert refusal("p,q,y\n", "other.csv", dataset=dataset).startswith("error: a2.csv.gz:3:5: column 'p': 'x' is not a number")
    Path("a2.csv.gz").write_bytes(gzip.compress(b"q,y\n6,0\n"))
    told = refusal("p,q,y\n", "other.csv", dataset=dataset)
    assert told == "error: a2.csv.gz has other columns than a1.csv: it lacks p\nfix: give files of the same table"
    assert refusal("p,q,y\n", "other.csv", dataset={"path": "b*"}).startswith("error: no file is called like b*\n")


def test_encodings_separators_and_missing_marks() -> None:
    """Shift-JIS with semicolons, and a mark of one's own for a missing value."""
    Path("t.csv").write_bytes("a;町;y\n1;東;0\n-9;西;1\n3;東;0\n".encode("cp932"))
    dataset = {"path": "t.csv", "target": "y", "separator": ";", "encoding": "cp932", "missing": ["-9"]}
    found = prepare(check({"name": "it", "dataset": {"name": "csv", **dataset}, "split": {"train": "rest"}, "preprocess": ["impute"]}), CPU)
    assert [str(column) for column in found.columns] == ["a", "町=東", "町=西"]
    assert sorted(found.parts["train"].x[:, 0].tolist()) == [1, 2, 3]


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_other_formats_have_the_same_kinds(name: str) -> None:
    """Types of the file, or the text in it, say what a column is; a null is a missing value."""
    frame = polars.DataFrame({"a": [1.5, None, 2.0], "b": [True, False, True], "c": ["u", "v", None], "y": [0, 1, 0]})
    frame = frame.with_columns(when=polars.Series(["2020-01-02", "2021-03-04", "2019-07-08"]).str.to_date())
    frame.write_parquet("t.parquet")
    frame.write_ndjson("t.jsonl")
    spec = {"name": "it", "dataset": {name: f"t.{name}", "target": "y"}, "split": {"train": "rest"}, "preprocess": ["impute"]}
    found = prepare(check(spec), CPU)
    kinds = [column.kind for column in found.raw_columns]
    assert kinds == ["number", "boolean", "category", *["date"] * 4]
    assert sorted(found.parts["train"].x[:, 0].tolist()) == [1.5, 1.75, 2]
    assert found.parts["train"].x[:, 2:5].sum(0).tolist() == [1, 1, 1]


def test_a_short_row_is_not_filled_up() -> None:
    """polars would; also where quotes hide the count of separators."""
    rows = "".join(f'{row},"a, b",{row % 2}\n' for row in range(5))
    told = refusal("p,q,y\n" + rows + '7,"x"\n' + rows)
    assert told.startswith("error: t.csv:7:1: this row has 2 cells, and the header names 3 columns")


def test_weights_are_numbers_of_at_least_0() -> None:
    """They are no input; a negative or a missing one has its place."""
    text = "a,w,y\n1,2,0\n2,0,1\n3,1,0\n"
    found = made(text, split={"train": "rest"}, dataset={"weight": "w"})
    assert sorted(found.weight.tolist()) == [0, 1, 2]  # type: ignore[union-attr]
    assert [str(column) for column in found.columns] == ["a"]
    assert refusal(text.replace("2,0,1", "2,-1,1"), dataset={"weight": "w"}).startswith(
        "error: t.csv:3:3: weight 'w' is not a number of at least 0 (the only such cell, row 1 counted from 0)"
    )
