"""FashionMNIST and MNIST: finding the four IDX files, proving that they are the right ones, and reading them.

Looked for in the folder of $NNRUN_DATA, in the user's data folder, in Debian's package, and then fetched into the user's data folder.
What is pinned is the SHA-256 of what the files hold: Debian and the publisher compress the same content differently.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnrun.data.vision import torchvision
from nnrun.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Source:
    """A dataset of IDX files.

    Args:
        title: its name among people, and in torchvision.
        folders: what a folder of it may be called, below a data folder.
        files: file name → SHA-256 of its content; training images, training labels, test images, test labels.
        installed: where a system package puts it.
    """

    title: str
    folders: tuple[str, ...]
    files: dict[str, str]
    installed: str | None = None


FASHION_MNIST = Source(
    "FashionMNIST",
    ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    {
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    installed="/usr/share/datasets/fashion-mnist",
)
MNIST = Source(
    "MNIST",
    ("mnist", "MNIST/raw"),
    {
        "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
MOST_BYTES = 16 + 60_000 * 28 * 28  # the content of the largest of the files


def load(source: Source) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the pictures (70000, 28, 28) and class numbers (70000,), the publisher's training rows first.

    Raises:
        DataError: when the files are not found and cannot be fetched, or when one is not the one that was published.
    """
    import numpy as np

    folder = find(source) or download(source)
    train_x, train_y, test_x, test_y = (read_idx(folder / name, digest) for name, digest in source.files.items())
    return np.concatenate([train_x, test_x]), np.concatenate([train_y, test_y])


def find(source: Source) -> Path | None:
    """Return the first folder that holds all four files."""
    complete = (folder for folder in _places(source) if all((folder / name).is_file() for name in source.files))
    return next(complete, None)


def user_folder() -> Path:
    """Return where this user's datasets are kept."""
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "nnrun"


def _places(source: Source) -> Iterator[Path]:
    given = os.environ.get("NNRUN_DATA")
    if given and not Path(given).expanduser().is_dir():
        raise DataError(f"the data folder {given} does not exist", fix="check NNRUN_DATA, or --data-dir")
    for folder in [Path(given).expanduser()] if given else []:
        yield from (folder / name for name in (*source.folders, "."))
    yield from (user_folder() / name for name in source.folders)
    if source.installed:
        yield Path(source.installed)


def download(source: Source) -> Path:
    """Fetch the files into the user's data folder, torchvision's progress on stderr, and return their folder."""
    folder = user_folder() / source.folders[0]
    utils = torchvision().datasets.utils
    published = getattr(torchvision().datasets, source.title)
    for name, md5 in published.resources:
        reason: Exception | None = None
        for mirror in published.mirrors:
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    utils.download_url(mirror + name, str(folder), name, md5)
                break
            except (OSError, RuntimeError) as error:
                reason = error
        else:
            given = os.environ.get("NNRUN_DATA") or folder
            what = f"{source.title} is not on this machine and cannot be fetched: {reason}"
            raise DataError(what, fix=f"put {', '.join(source.files)} into {given}")
    return folder


def read_idx(path: Path, digest: str) -> npt.NDArray[np.uint8]:
    """Return the array of a compressed IDX file whose content has this SHA-256; no other file is read."""
    import numpy as np

    try:
        with gzip.open(path) as file:
            data = file.read(MOST_BYTES + 1)  # never more, whatever the file unfolds to
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="remove the file and fetch it again") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        what = f"{path} is not the published file: its content has SHA-256 {found[:12]}…, not {digest[:12]}…"
        raise DataError(what, fix="remove the file and fetch it again")
    shape = idx_shape(data)
    if shape is None:
        raise DataError(f"{path} is not an IDX file of bytes", fix="remove the file and fetch it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def idx_shape(data: bytes) -> tuple[int, ...] | None:
    """Return the shape that an IDX header of bytes declares; None when the payload is not exactly of that size."""
    if data[:3] != b"\0\0\x08" or len(data) < 4 or len(data) < 4 + 4 * data[3]:
        return None
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    size = 1
    for length in shape:
        size *= length
    return shape if len(data) == 4 + 4 * len(shape) + size else None
