"""Picture files: found in folders or named by a table, read by Pillow in a few known formats, of the size and colours the network wants.

Pillow decodes and resizes without holding the interpreter, so threads are enough to use every core. Pictures that fit are decoded once;
of others only the bytes are kept, or none: then they are decoded anew whenever they are wanted (`Pictures`), with the same result.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnrun.data import source
from nnrun.data.files import regular_file
from nnrun.data.source import RowSource
from nnrun.data.table_files import Reading
from nnrun.errors import DataError, EnvironmentFault, Fault
from nnrun.lazy import torch
from nnrun.machine import free_memory
from nnrun.spec.base import Location

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MODES = {1: "L", 3: "RGB"}
TABLES = (".csv", ".tsv")
MOST_FAULTS = 20
MOST_PIXELS = (1 << 30) // 12
"""Of a picture; Pillow's own limit, a quarter of a gigabyte in colour, which it warns of only."""
FEW = 5
PREPARED = 10
"""Bytes of memory for each value of pictures prepared as a whole: the bytes, their parts, float32, and an epoch's order of that."""
SHARE = 0.75
"""Of the free memory, what pictures may take."""


@dataclass(frozen=True)
class Labelled:
    """Pictures and what is on them.

    Args:
        files: one for each row.
        labels: the name of its class, each.
    """

    files: list[Path]
    labels: list[str]


def picture_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the pictures of a folder and of those in it, sorted by path, and the paths of its other files; hidden ones are passed over."""
    inside = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside += [Path(where) / name for name in names if not name.startswith(".")]
    inside = sorted(path for path in inside if path.is_file())
    pictures = [path for path in inside if path.suffix.lower() in ENDINGS]
    if not pictures:
        raise DataError(f"{folder} has no pictures", fix=f"pictures end in {' '.join(ENDINGS)}")
    return pictures, [str(path.relative_to(folder)) for path in inside if path.suffix.lower() not in ENDINGS]


def class_folders(folder: Path, *, at: Location = ()) -> dict[str, list[Path]]:
    """Return class → its pictures: the sub-folders of a folder and what is in each and below, both sorted by name.

    Raises:
        DataError: it is not a folder, has no sub-folders, or one of them has no pictures.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}", fix="give a folder that has one sub-folder of pictures for each class", at=at)
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not inside:
        raise DataError(f"{folder} has no sub-folders", fix="make one sub-folder for each class, with its pictures in it", at=at)
    return {path.name: picture_files(path)[0] for path in inside}


def labelled_pictures(path: Path, file: str, target: str, *, at: Location = ()) -> Labelled:
    """Return the pictures of a folder with one sub-folder for each class, or of a table with a column of paths and one of labels."""
    if path.suffix.lower() in TABLES:
        return Labelled(*picture_table(path, file, target, at=at))
    folders = class_folders(path, at=at)
    return Labelled([one for files in folders.values() for one in files], [name for name, files in folders.items() for _ in files])


def picture_table(path: Path, file: str, target: str | None = None, *, at: Location = ()) -> tuple[list[Path], list[str]]:
    """Return the picture and the label of each row of a CSV or TSV table; a path in it is relative to the table's folder.

    Args:
        target: the column of labels; None for a table without.

    Raises:
        DataError: a column is missing, or a row has no label or names a picture that is not there.
    """
    table = Reading().table(path, at=at)
    table.require([file], at=at and ("dataset", "file"))
    table.require([target] if target else [], at=at and ("dataset", "target"))
    names, labels = table.texts(file), table.texts(target or file)
    files, faults = [path.parent / (name or "") for name in names], list[Fault]()
    for row, (picture, name, label) in enumerate(zip(files, names, labels, strict=True)):
        if name is None or label is None:
            empty = file if name is None else target or file
            faults.append(Fault(f"the row has no {empty}", "mend or remove the row", table.place(row, empty)))
        elif not os.path.isfile(picture):  # also of a name that is too long for one
            faults.append(Fault(f"there is no file {picture}", "a path is relative to the table's folder", table.place(row, file)))
    if faults:
        raise DataError(_first_ones(faults, "more rows have such faults"))
    return files, labels.to_list()


class Pictures(RowSource):
    """Pictures as bytes (N, C, H, W), decoded whenever they are gathered, unless they are held.

    Args:
        files: one for each row.
        shape: (C, H, W), to which each is brought.
        held: all of them, decoded (N, C, H, W).
    """

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int], held: Tensor | None = None) -> None:
        super().__init__((len(files), *shape), torch.uint8, torch.device("cpu"))
        self._files, self._held = files, held

    def gather(self, rows: Tensor) -> Tensor:
        """Return the pictures (B, C, H, W) with these numbers.

        Raises:
            DataError: some of them can no longer be read.
        """
        if self._held is not None:
            return self._held[rows]
        x = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        decode([self._files[row] for row in rows.tolist()], x)
        return x


def read_pictures(
    files: Sequence[Path], shape: tuple[int, int, int], *, skip: bool = False, stream: bool | Literal["auto"] = False
) -> tuple[Tensor | Pictures, list[int], list[str]]:
    """Return pictures as bytes (N, C, H, W), each brought to the shape (C, H, W), which of the files they are, and notes.

    Every file is decoded once, whether it is kept or not, so that broken ones are known before anything else is done.

    Args:
        skip: whether a file that cannot be read is left out.
        stream: whether pictures are decoded anew whenever they are wanted; auto: when they do not fit into memory.

    Raises:
        DataError: with one fault for each file that cannot be read, or when none can.
        EnvironmentFault: there is no memory for so many, and they are not to be streamed.
    """
    size, free = len(files) * math.prod(shape), free_memory()
    told = f"{len(files)} pictures of {' × '.join(map(str, shape))} take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
    if size > free and stream is False:
        fix = "write `stream: auto`, a smaller `size`, or give fewer pictures"
        raise EnvironmentFault(told, fix=fix, at=("dataset", "size"))
    hold, whole = (stream is False or (stream == "auto" and share * size <= SHARE * free) for share in (2, PREPARED))
    some = max(1, min(len(files), source.WINDOW // math.prod(shape)))
    x = torch.empty((len(files) if hold else some, *shape), dtype=torch.uint8)
    broken: dict[int, list[Fault]] = {}
    for start in range(0, len(files), some):
        rows = files[start : start + some]
        wrong = decode(rows, x[start : start + some] if hold else x[: len(rows)], refuse=False)[1]
        broken |= {start + number: faults for number, faults in wrong.items()}
    good = [number for number in range(len(files)) if number not in broken]
    if broken and (not skip or not good):
        raise _unreadable(broken)
    notes = [f"{told}: they are decoded anew whenever they are wanted"] if stream == "auto" and not hold else []
    if broken:
        lost = ", ".join(str(files[number]) for number in list(broken)[:FEW]) + (", …" if len(broken) > FEW else "")
        notes.append(f"{len(broken)} of {len(files)} pictures cannot be read, and are left out: {lost}")
        for place, number in enumerate(good if hold else ()):
            x[place] = x[number]
    if whole:
        return x[: len(good)], good, notes
    return Pictures([files[number] for number in good], shape, x[: len(good)] if hold else None), good, notes


def decode(files: Sequence[Path], x: Tensor, *, refuse: bool = True) -> tuple[list[tuple[int, int]], dict[int, list[Fault]]]:
    """Decode pictures into x (N, C, H, W), some at a time.

    Args:
        refuse: whether those that cannot be read are an error.

    Returns:
        The (width, height) that each had, and what is wrong with those that cannot be read, by their numbers.

    Raises:
        DataError: with one fault for each file that cannot be read.
    """
    made = x.numpy()
    # What Pillow warns of is told as an error, or harmless. Filters are the process's: they cannot be changed for one thread, and set back.
    warnings.filterwarnings("ignore", module=r"PIL\b")

    def one(number: int) -> tuple[tuple[int, int], list[Fault]]:
        try:
            made[number], had = read_picture(files[number], tuple(x.shape[1:]))
        except DataError as error:
            return (0, 0), list(error.faults)
        return had, []

    with ThreadPoolExecutor(os.cpu_count(), "decode") as threads:
        sizes, faults = zip(*threads.map(one, range(len(files))), strict=True) if files else ((), ())
    broken = {number: wrong for number, wrong in enumerate(faults) if wrong}
    if broken and refuse:
        raise _unreadable(broken)
    return list(sizes), broken


def _unreadable(broken: dict[int, list[Fault]]) -> DataError:
    return DataError(_first_ones([fault for faults in broken.values() for fault in faults], "more pictures cannot be read"))


def _first_ones(faults: list[Fault], rest: str) -> list[Fault]:
    more = len(faults) - MOST_FAULTS
    return faults[:MOST_FAULTS] + ([Fault(f"{more} {rest}")] if more > 0 else [])


def read_picture(path: Path, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Return a picture as bytes of the shape (C, H, W), and the (width, height) that it had.

    Raises:
        DataError: the file is not a picture, is broken, or is absurdly large.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    regular_file(path)
    try:
        with Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"Image size ({file.width * file.height} pixels) exceeds limit of {MOST_PIXELS} pixels")
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits a pixel: keep the upper 8
                picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
            picture = picture.convert(MODES[shape[0]])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} is too large: {str(error).partition(',')[0]}", fix="make the picture smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, OverflowError, struct.error, zlib.error) as error:
        reason = "it is none of " + ", ".join(FORMATS) if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path} is not a readable picture: {reason}", fix="open and save it again, or leave it out") from None
    had = picture.size
    if had != (shape[2], shape[1]):
        picture = picture.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8).reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1), had


def looks(files: Sequence[Path], largest: int = 64) -> tuple[tuple[int, int], bool, bool]:
    """Return the height and the width to bring pictures to, whether all are grey, and whether all have that size.

    Args:
        files: of which at most 1000, evenly spread, are looked at; only their headers are read.
        largest: a longer side is brought to this.
    """
    from PIL import Image

    sizes, grey = [], True
    for path in files[:: 1 + len(files) // 1000]:
        try:
            with Image.open(path, formats=FORMATS) as picture:
                sizes.append((picture.height, picture.width))
                grey = grey and picture.mode in ("1", "L", "LA", "I", "I;16", "F")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # told by name when the pictures are read
    if not sizes:
        raise DataError(f"none of {len(files)} pictures can be read", fix=f"pictures are {', '.join(FORMATS)}; {files[0]} is the first")
    height, width = (sorted(side)[len(sizes) // 2] for side in zip(*sizes, strict=True))
    shrink = min(1.0, largest / max(height, width))
    return (max(1, round(height * shrink)), max(1, round(width * shrink))), grey, len(set(sizes)) == 1 and shrink == 1
