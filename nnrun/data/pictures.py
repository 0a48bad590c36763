"""Picture files: read by Pillow in a few known formats, made grey or colour, and of the size the network wants."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnrun.data.files import regular_file
from nnrun.errors import DataError, Fault
from nnrun.spec.base import Location

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MODES = {1: "L", 3: "RGB"}
MOST_FAULTS = 20


def picture_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the pictures of a folder, sorted by name, and the names of its other files."""
    inside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in inside if path.suffix.lower() in ENDINGS]
    if not pictures:
        raise DataError(f"{folder} has no pictures", fix=f"pictures end in {' '.join(ENDINGS)}; folders in it are not searched")
    return pictures, [path.name for path in inside if path.suffix.lower() not in ENDINGS]


def class_folders(folder: Path, *, at: Location = ()) -> dict[str, list[Path]]:
    """Return class → its pictures: the sub-folders of a folder and what is in each, both sorted by name.

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


def read_pictures(files: Sequence[Path], shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Return pictures as bytes (N, C, H, W), each brought to the shape (C, H, W).

    Raises:
        DataError: with one fault for each file that cannot be read.
    """
    import numpy as np

    x_NCHW = np.empty((len(files), *shape), np.uint8)
    broken: list[Fault] = []
    for number, path in enumerate(files):
        try:
            x_NCHW[number], _ = read_picture(path, shape)
        except DataError as error:
            broken += error.faults
    if broken:
        more = len(broken) - MOST_FAULTS
        raise DataError(broken[:MOST_FAULTS] + ([Fault(f"{more} more pictures cannot be read")] if more > 0 else []))
    return x_NCHW


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
