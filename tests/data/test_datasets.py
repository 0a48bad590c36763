"""The built-in datasets: the values of their publishers, and one clear sentence when a file is not usable."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets as published

import nnrun.data.datasets
from nnrun.data import idx
from nnrun.data.columns import Column
from nnrun.data.dataset import Dataset
from nnrun.data.fingerprint import fingerprint
from nnrun.errors import DataError
from nnrun.registry import DATASETS

LOADERS = {"iris": published.load_iris, "wine": published.load_wine, "breast_cancer": published.load_breast_cancer}


def build(name: str, **arguments: object) -> Dataset:
    """Return a registered dataset."""
    made: Dataset = DATASETS[name].build(**arguments)
    return made


def refusal(name: str, **arguments: object) -> str:
    """Return the whole error of a dataset that cannot be used."""
    with pytest.raises(DataError) as caught:
        build(name, **arguments)
    return str(caught.value)


@pytest.mark.parametrize("name", LOADERS)
def test_tables_are_those_of_scikit_learn(name: str) -> None:
    """Values, feature names and class names are scikit-learn's, to the bit in float32."""
    theirs, ours = LOADERS[name](), build(name)
    assert ours.x.numpy().tobytes() == theirs.data.astype(np.float32).tobytes()
    assert ours.y.dtype == torch.int64
    assert ours.y.tolist() == theirs.target.tolist()
    assert tuple(map(str, ours.columns)) == tuple(theirs.feature_names)
    assert ours.task.classes == tuple(theirs.target_names)


def test_digits_are_pictures() -> None:
    """The digits are scikit-learn's, as pictures with one channel."""
    theirs, ours = published.load_digits(), build("digits")
    assert ours.x.shape == (1797, 1, 8, 8)
    assert ours.x.numpy().tobytes() == theirs.images.astype(np.float32).tobytes()
    assert ours.y.tolist() == theirs.target.tolist()
    assert ours.task.classes == tuple(str(name) for name in theirs.target_names)


def test_diabetes_is_the_scaled_one() -> None:
    """The diabetes data are those that scikit-learn gives by default, with a number as target."""
    theirs, ours = published.load_diabetes(), build("diabetes")
    assert ours.x.numpy().tobytes() == theirs.data.astype(np.float32).tobytes()
    assert ours.y.numpy().tobytes() == theirs.target.astype(np.float32)[:, None].tobytes()
    assert tuple(map(str, ours.columns)) == tuple(theirs.feature_names)
    assert ours.task.kind == "numbers"


def test_datasets_import_nothing_heavy() -> None:
    """Neither registering the data parts nor reading iris imports scikit-learn; registering does not import torch or numpy."""
    code = (
        "import sys, nnrun.data.datasets, nnrun.data.preprocess, nnrun.data.split\n"
        "assert not {'torch', 'numpy', 'polars', 'sklearn', 'torchvision', 'PIL'} & set(sys.modules)\n"
        "nnrun.data.datasets.iris()\n"
        "assert not {'polars', 'sklearn', 'torchvision', 'PIL'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fashion_mnist() -> None:
    """70000 pictures of bytes, the publisher's training rows first, 7000 of each class."""
    if idx.find(idx.FASHION_MNIST) is None:
        pytest.skip("the FashionMNIST files are not on this machine (Debian: apt install dataset-fashion-mnist)")
    data = build("fashion_mnist")
    assert data.x.shape == (70000, 1, 28, 28)
    assert data.x.dtype == torch.uint8
    assert data.y[:60000].bincount().tolist() == [6000] * 10
    assert data.y[60000:].bincount().tolist() == [1000] * 10
    assert data.task.classes[int(data.y[0])] == "Ankle boot"


def mnist_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data folder that is looked at first, with no way to the network."""
    monkeypatch.setenv("NNRUN_DATA", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def test_another_file_of_the_right_name_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A well-formed IDX file that is not the published one is refused, with its path and both digests."""
    folder = mnist_folder(tmp_path, monkeypatch)
    content = b"\0\0\x08\x01" + struct.pack(">I", 3) + b"abc"
    for name in idx.MNIST.files:
        (folder / name).write_bytes(gzip.compress(content))
    assert refusal("mnist") == (
        f"error: {folder}/train-images-idx3-ubyte.gz is not the published file: "
        f"its content has SHA-256 {hashlib.sha256(content).hexdigest()[:12]}…, not ba891046e650…\nfix: remove the file and fetch it again"
    )


def test_a_gzip_bomb_is_read_only_so_far(tmp_path: Path) -> None:
    """No more is unfolded than the largest file holds."""
    bomb = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(60):
            file.write(bytes(1 << 20))
    with pytest.raises(DataError, match="is not the published file"):
        idx.read_idx(bomb, "0" * 64)


def test_without_a_network_the_error_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the files cannot be fetched, the four names and the folder are told."""
    folder = mnist_folder(tmp_path, monkeypatch)
    what, fix = refusal("mnist").split("\n")
    assert what.startswith("error: MNIST is not on this machine and cannot be fetched: ")
    assert fix == (
        "fix: put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        f"t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz into {folder}"
    )


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x04abc", b"\0\0\x08\x01\0\0\0\x02abc", b"\0\0\x0d\x01\0\0\0\x03abc"]
)
def test_idx_sizes_must_match(data: bytes) -> None:
    """A payload that is not exactly as large as the header says, or not of bytes, is no IDX file."""
    assert idx.idx_shape(data) is None
    assert idx.idx_shape(b"\0\0\x08\x01\0\0\0\x03abc") == (3,)


def test_points() -> None:
    """Numbers or lists of numbers become (N, D) and (N, T), with numbered names."""
    data = build("points", x=[1.0, 2.0, 3.0], y=[[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]])
    assert data.x.tolist() == [[1], [2], [3]]
    assert data.y.shape == (3, 2)
    assert data.columns == (Column("x"),)
    assert data.task.targets == ("y1", "y2")


def test_points_that_do_not_fit() -> None:
    """Ragged rows, unequal lengths and numbers beyond float32 are refused where they stand in the config."""
    assert refusal("points", x=[[1.0, 2.0], [3.0]], y=[1.0, 2.0]) == (
        "error: row 1 of x has 1 values, and row 0 has 2\nfix: give every row the same number of values"
    )
    assert refusal("points", x=[1.0, 2.0], y=[1.0]) == "error: x has 2 rows and y has 1\nfix: give one y for each x"
    assert refusal("points", x=[], y=[]) == "error: x has no values\nfix: write `x: [1, 2, 3]`"
    assert refusal("points", x=[1e300], y=[1.0]) == "error: row 0 of x is not finite in float32\nfix: give finite numbers"


def test_npz(tmp_path: Path) -> None:
    """Bytes stay bytes, other numbers become float32; targets are read as for a table."""
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((4, 1, 2, 2), np.uint8), y=np.array([3, 1, 3, 1]), z=np.arange(4.0), kind=np.array(["b", "a", "b", "b"]))
    data = build("npz", path=str(path))
    assert data.x.dtype == torch.uint8
    assert (data.y.tolist(), data.task.classes) == ([1, 0, 1, 0], ("1", "3"))
    assert build("npz", path=str(path), x="z", y="kind").task.classes == ("a", "b")
    assert build("npz", path=str(path), x="z", y="kind").x.tolist() == [[0], [1], [2], [3]]
    assert build("npz", path=str(path), task="numbers").y.tolist() == [[3], [1], [3], [1]]


def test_npz_that_cannot_be_used(tmp_path: Path) -> None:
    """A missing array, values that are not finite, objects and broken files: one sentence each."""
    path = tmp_path / "a.npz"
    np.savez(
        path, x=np.array([[1.0, np.nan], [2.0, np.inf]]), y=np.array([0, 1]), objects=np.array([{}, {}], dtype=object), three=np.ones(3)
    )
    assert (
        refusal("npz", path=str(path), y="Y")
        == f"error: {path} has no array 'Y'\nfix: did you mean 'y'? (its arrays are x, y, objects, three)"
    )
    assert refusal("npz", path=str(path)) == (
        f"error: {path}: array 'x': nan is not a finite number in float32 (the first of 2, row 0, column 1, from 0)\n"
        "fix: mend or remove these rows"
    )
    assert refusal("npz", path=str(path), x="objects") == (
        f"error: {path} holds Python objects, which can run code when they are read\nfix: save plain arrays of numbers"
    )
    assert refusal("npz", path=str(path), x="three") == ("error: array 'three' has 3 rows and 'y' has 2\nfix: give one target for each row")
    path.write_bytes(b"not a zip")
    assert refusal("npz", path=str(path)) == f"error: {path} is not an NPZ file\nfix: write it with numpy.savez"
    assert refusal("npz", path=str(tmp_path / "b.npz")) == (
        f"error: {tmp_path}/b.npz does not exist\nfix: did you mean '{tmp_path}/a.npz'?"
    )


def test_a_false_shape_in_an_npz_is_told(tmp_path: Path) -> None:
    """A header that claims more than memory holds does not end the program."""
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones(3), y=np.ones(3))
    path.write_bytes(path.read_bytes().replace(b"'shape': (3,), }       ", b"'shape': (10**9,10**9)}"[:23]))
    assert refusal("npz", path=str(path)).startswith(f"error: {path} cannot be read: ")


def test_the_digest_knows_every_part_of_a_dataset() -> None:
    """Equal datasets have equal digests; a changed value, type, name or class another."""
    first = build("points", x=[1.0, 2.0], y=[3.0, 4.0])
    assert fingerprint(first)[0] == fingerprint(build("points", x=[1.0, 2.0], y=[3.0, 4.0]))[0]
    others = [build("points", x=[1.0, 2.0], y=[3.0, 5.0]), build("points", x=[[1.0, 2.0]], y=[[3.0, 4.0]])]
    others.append(Dataset(first.x, first.y, first.task, (Column("other"),)))
    others.append(Dataset(first.x.double(), first.y, first.task, first.columns))
    assert len({fingerprint(one)[0] for one in [first, *others]}) == 5


def test_every_dataset_is_registered() -> None:
    """The names that configs rely on."""
    assert nnrun.data.datasets
    assert {"iris", "wine", "breast_cancer", "digits", "diabetes", "fashion_mnist", "mnist", "points", "csv", "npz"} <= set(DATASETS)
