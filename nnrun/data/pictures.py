"""Picture files: found in folders or named by a table, read by Pillow in a few known formats, of the size and colours the network wants."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnrun.data.files import regular_file
from nnrun.data.table_files import Reading
from nnrun.errors import DataError, EnvironmentFault, Fault
from nnrun.machine import free_memory
from nnrun.spec.base import Location

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MODES = {1: "L", 3: "RGB"}
TABLES = (".csv", ".tsv")
MOST_FAULTS = 20
FEW = 5


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


def read_pictures(
    files: Sequence[Path], shape: tuple[int, int, int], *, skip: bool = False
) -> tuple[npt.NDArray[np.uint8], list[int], list[str]]:
    """Return pictures as bytes (N, C, H, W), each brought to the shape (C, H, W), which of the files they are, and a note of the others.

    Args:
        skip: whether a file that cannot be read is left out.

    Raises:
        DataError: with one fault for each file that cannot be read, or when none can.
        EnvironmentFault: there is no memory for so many.
    """
    import numpy as np

    size, free = len(files) * math.prod(shape), free_memory()
    if size > free:
        what = (
            f"{len(files)} pictures of {' × '.join(map(str, shape))} take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
        )
        raise EnvironmentFault(what, fix="write a smaller `size`, or give fewer pictures", at=("dataset", "size"))
    x_NCHW = np.empty((len(files), *shape), np.uint8)
    broken: list[Fault] = []
    good: list[int] = []
    for number, path in enumerate(files):
        try:
            x_NCHW[len(good)], _ = read_picture(path, shape)
            good.append(number)
        except DataError as error:
            broken += error.faults
    if broken and (not skip or not good):
        raise DataError(_first_ones(broken, "more pictures cannot be read"))
    notes: list[str] = []
    if broken:
        lost = [str(files[number]) for number in sorted(set(range(len(files))) - set(good))]
        told = ", ".join(lost[:FEW]) + (", …" if len(lost) > FEW else "")
        notes = [f"{len(lost)} of {len(files)} pictures cannot be read, and are left out: {told}"]
    return x_NCHW[: len(good)], good, notes


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

    if len(shape) != 3 or shape[0] not in MODES:
        what = f"{path} is a picture, and the network wants rows of the shape {list(shape)}"
        raise DataError(what, fix="give a table or an array" if len(shape) < 3 else "give an array: a picture has 1 or 3 channels")
    regular_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
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
