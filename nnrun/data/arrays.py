"""NumPy's files: NPZ and NPY, with nothing in them that could run, and no size that is not really there."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.data.files import regular_file
from nnrun.errors import DataError, closest
from nnrun.lazy import torch
from nnrun.machine import free_memory
from nnrun.spec.base import Location

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


def read_npz(path: str | Path, wanted: dict[str, Location], *, at: Location = ()) -> list[npt.NDArray[Any]]:
    """Return the wanted arrays of an NPZ file.

    Args:
        wanted: array name → the part of the config that asks for it; a single "" takes the only array there is, or `x`.
    """
    import numpy as np

    path = regular_file(path, at=at)
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an NPZ file", fix="write it with numpy.savez", at=at)
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [name or _chosen(path, file.files) for name in wanted]
            for name, asked in zip(names, wanted.values(), strict=True):
                if name not in file.files:
                    near = closest(name, file.files)
                    fix = (f"did you mean {near!r}? " if near else "") + f"(its arrays are {', '.join(file.files)})"
                    raise DataError(f"{path} has no array {name!r}", fix=fix, at=asked)
            _check_size(path, file.zip.infolist(), at)
            return [_plain(path, name, file[name], asked) for name, asked in zip(names, wanted.values(), strict=True)]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError) as error:
        raise _unreadable(path, error, at) from None


def read_npy(path: str | Path) -> npt.NDArray[Any]:
    """Return the array of an NPY file."""
    import numpy as np

    path = regular_file(path)
    try:
        with path.open("rb") as file:
            return _plain(path, path.name, np.lib.format.read_array(file, allow_pickle=False))
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise _unreadable(path, error) from None


def as_tensor(array: npt.NDArray[Any], told: str, *, at: Location = ()) -> Tensor:
    """Return an array as a tensor of bytes, if it has bytes, or else of finite float32.

    Args:
        told: what an error calls it.
    """
    import numpy as np

    if array.dtype.kind not in "biuf":
        holds = "text" if array.dtype.kind in "US" else array.dtype
        raise DataError(f"{told} holds {holds}, not numbers", fix="code its values as numbers", at=at)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(int(index) for index in np.argwhere(bad)[0])
        column = f", column {', '.join(map(str, first[1:]))}" if len(first) > 1 else ""
        what = f"{told}: {array[first]} is not a finite number in float32 (the first of {int(bad.sum())}, row {first[0]}{column}, from 0)"
        raise DataError(what, fix="mend or remove these rows", at=at)
    return torch.from_numpy(values)


def _chosen(path: Path, names: list[str]) -> str:
    if "x" in names or len(names) == 1:
        return "x" if "x" in names else names[0]
    raise DataError(f"{path} holds the arrays {', '.join(names) or '(none)'}", fix="name the array of inputs `x`")


def _check_size(path: Path, members: list[zipfile.ZipInfo], at: Location) -> None:
    """Refuse a small file that unfolds to more than the machine's memory."""
    size = max((member.file_size for member in members), default=0)
    free = free_memory()
    if size > free:
        what = f"{path} holds an array of {size} bytes, more than the {free} of memory that are free"
        raise DataError(what, fix="give fewer rows", at=at)


def _plain(path: Path, name: str, array: npt.NDArray[Any], at: Location = ()) -> npt.NDArray[Any]:
    if array.dtype.kind not in "biufUS":
        raise DataError(f"{path}: array {name!r} is of type {array.dtype}", fix="give numbers, booleans or text", at=at)
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{path}: array {name!r} of shape {array.shape} has no rows", fix="give one row for each sample", at=at)
    return array


def _unreadable(path: Path, error: Exception, at: Location = ()) -> DataError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    if "allow_pickle" in reason or "pickled" in reason:
        what = f"{path} holds Python objects, which can run code when they are read"
        return DataError(what, fix="save plain arrays of numbers", at=at)
    return DataError(f"{path} cannot be read: {reason}", fix="write the file again with numpy", at=at)
