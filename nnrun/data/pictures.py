"""Picture files: found in folders or named by a table, read by Pillow in a few known formats, of the size and colours the network wants."""

from __future__ import annotations

import csv
import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnrun.data.files import check_utf8, read_bytes, regular_file
from nnrun.data.notes import note
from nnrun.errors import DataError, EnvironmentFault, Fault, closest
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
    data = read_bytes(path, at=at)
    check_utf8(data, path)
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=separator, strict=True)
    try:
        rows = [(lines.line_num, cells) for row in lines if any(cells := [cell.strip() for cell in row])]
    except csv.Error as error:
        fix = "a quoted cell ends in a quote"
        raise DataError(f"{path}:{lines.line_num}: this row cannot be read: {error}", fix=fix, at=at) from None
    header = rows[0][1] if rows else []
    wanted = {"file": file, "target": target} if target else {"file": file}
    for key, column in wanted.items():
        if column not in header:
            near, there = closest(column, header), ", ".join(header)
            fix = f"did you mean {near!r}? its columns are {there}" if near else f"name it by `{key}`; there are {there}"
            raise DataError(f"{path} has no column {column!r}", fix=fix, at=at)
        if header.count(column) > 1:
            raise DataError(f"{path} has the column {column!r} twice", fix="rename one of them", at=at)
    files, labels, faults = [], [], list[Fault]()
    for line, row in rows[1:]:
        found = dict(zip(header, row, strict=False))
        missing = next((column for column in wanted.values() if not found.get(column)), None)
        files.append(path.parent / found.get(file, ""))
        labels.append(found.get(target or file, ""))
        if missing is not None:
            faults.append(Fault(f"{path}:{line}: the row has no {missing}", "mend or remove the row"))
        elif not os.path.isfile(files[-1]):  # Path.is_file would raise for a name that is too long
            faults.append(Fault(f"{path}:{line}: there is no file {files[-1]}", "a path is relative to the table's folder"))
    if not files:
        raise DataError(f"{path} has a header but no rows", fix="add rows of data below it", at=at)
    if faults:
        raise DataError(_first_ones(faults, "more rows have such faults"))
    return files, labels


def read_pictures(files: Sequence[Path], shape: tuple[int, int, int], *, skip: bool = False) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Return pictures as bytes (N, C, H, W), each brought to the shape (C, H, W), and which of the files they are.

    Args:
        skip: whether a file that cannot be read is left out, and noted.

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
    if broken:
        lost = [str(files[number]) for number in sorted(set(range(len(files))) - set(good))]
        told = ", ".join(lost[:FEW]) + (", …" if len(lost) > FEW else "")
        note(f"{len(lost)} of {len(files)} pictures cannot be read, and are left out: {told}")
    return x_NCHW[: len(good)], good


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
