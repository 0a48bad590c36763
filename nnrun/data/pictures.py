"""Picture files for `predict`: read by Pillow in a few known formats, made grey or colour, and of the size the network wants."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from nnrun.data.files import regular_file
from nnrun.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MODES = {1: "L", 3: "RGB"}


def picture_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the pictures of a folder, sorted by name, and the names of its other files."""
    inside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in inside if path.suffix.lower() in ENDINGS]
    if not pictures:
        raise DataError(f"{folder} has no pictures", fix=f"pictures end in {' '.join(ENDINGS)}; folders in it are not searched")
    return pictures, [path.name for path in inside if path.suffix.lower() not in ENDINGS]


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
