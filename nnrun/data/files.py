"""Opening a data file: it exists, it is a regular file, it can be read, and its text is UTF-8; else one clear sentence."""

from __future__ import annotations

import codecs
from dataclasses import replace
from pathlib import Path

from nnrun.errors import DataError, closest
from nnrun.spec.base import Location
from nnrun.spec.encoding import not_utf8

STARTS = {  # how a file begins that is no text → what it looks like, and what to do
    b"\x1f\x8b": ("gzip", "let its name end in .csv.gz"),
    b"BZh": ("bzip2", "let its name end in .csv.bz2"),
    b"\xfd7zXZ": ("xz", "let its name end in .csv.xz"),
    b"PAR1": ("Parquet", "let its name end in .parquet"),
    b"PK": ("a ZIP file or a spreadsheet", "unpack it, or save the sheet as CSV"),
}


def regular_file(path: str | Path, *, at: Location = ()) -> Path:
    """Return `path` when it is a regular file: a pipe or a device would block, or never end."""
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise DataError(f"{path} is a folder", fix="name a file in it, or a pattern such as folder/*.csv", at=at)
    if path.exists():
        raise DataError(f"{path} is not a file", fix="give the path of a data file", at=at)
    near = closest(path.name, _names(path.parent))
    missing = path if path.parent.is_dir() else f"the folder of {path}"
    fix = f"did you mean {str(path.parent / near)!r}?" if near else "check the path; it is looked up beside the config, then from here"
    raise DataError(f"{missing} does not exist", fix=fix, at=at)


def _names(folder: Path) -> list[str]:
    try:
        return [other.name for other in folder.iterdir()]
    except OSError:
        return []


def read_bytes(path: str | Path, *, at: Location = ()) -> bytes:
    """Return a data file's bytes."""
    path = regular_file(path, at=at)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", fix="check its permissions", at=at) from None
    if not data or data.isspace():
        raise DataError(f"{path} is empty", fix="is this the right file?", at=at)
    return data


def as_utf8(data: bytes, file: str | Path, encoding: str = "utf-8", *, before: int = 0, at: Location = ()) -> bytes:
    """Return text as UTF-8, refusing what is not of the encoding: told with the line and what it looks like. A byte order mark is fine.

    Args:
        encoding: what the text is written in, by any name that Python knows it by.
        before: the lines of the file that come before the text.
    """
    try:
        if codecs.lookup(encoding).name in ("utf-8", "ascii", "utf-8-sig"):
            other = next((f"it looks like {kind}: {fix}" for start, (kind, fix) in STARTS.items() if data.startswith(start)), "")
            expected = other or "is this the right file? a table is text, one row in each line"
            wrong = not_utf8(data, file, expected, key="encoding" if at else "", before=before)
            if wrong:
                raise DataError([replace(wrong, at=at)])
            made = data
        elif encoding.lower().startswith(("utf-16", "utf-32")) and b"\0" not in data:
            raise UnicodeDecodeError(encoding, data, 0, 1, "each character has a zero byte in it")
        else:
            made = data.decode(encoding).encode()
        if b"\0" in made:
            line = before + made[: made.index(b"\0")].count(b"\n") + 1
            raise DataError(f"{file}:{line}: this line holds a zero byte", fix="remove it; a table is text", at=at)
        return made
    except LookupError:
        what = f"the encoding {encoding!r} is not known"
        raise DataError(what, fix="write utf-8, cp932, cp1252, latin-1, utf-16, …", at=("dataset", "encoding")) from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        fix = "name the encoding that it is in" if not_utf8(data, file, "") else "write `encoding: utf-8`, or leave it out"
        raise DataError(f"{file}:{line}: this is not {encoding}", fix=fix, at=("dataset", "encoding")) from None
