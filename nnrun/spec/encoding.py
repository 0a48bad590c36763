"""Whether the bytes of a file are text in UTF-8, and what they look like when they are not."""

from __future__ import annotations

import re
from pathlib import Path

from nnrun.errors import Fault

LOOK = 4096  # bytes at the start that are looked at
NEVER_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def not_utf8(data: bytes, file: str | Path, expected: str, *, key: str = "", before: int = 0) -> Fault | None:
    """Return what keeps bytes from being text in UTF-8, None when nothing does; a byte order mark is fine.

    Args:
        expected: the fix for a file that is no text at all.
        key: the key of the config that can say what the text is written in; "" where there is none.
        before: the lines of the file that come before these bytes.
    """
    try:
        if not data.isascii():  # many times as quick as to decode it
            data.decode("utf-8-sig")
        at = 0 if b"\0" in data[:2] else None  # UTF-16 without a mark is valid UTF-8 as long as it is English
    except UnicodeDecodeError as error:
        at = error.start
    if at is None:
        return None
    kind = _encoding(data)
    if not kind:
        return Fault(f"{file} is not text", expected)
    line = before + data[:at].count(b"\n") + 1
    said = f", or write `{key}: {kind.partition(' ')[0].lower()}`" if key else ""
    return Fault(f"{file}:{line}: this is not UTF-8; it looks like {kind}", f"save the file as UTF-8{said}")


def _encoding(data: bytes) -> str:
    """Return the likely encoding of what is not UTF-8; empty when it is no text."""
    start = data[:LOOK]
    halves = start[0::2].count(0), start[1::2].count(0)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    if max(halves) > len(start) // 4 and min(halves) == 0:  # without a mark the name has to say which byte comes first
        return "UTF-16-BE" if halves[0] else "UTF-16-LE"
    if NEVER_TEXT.search(start):
        return ""
    return next((name for name, codec in (("cp932 (Shift-JIS)", "cp932"), ("cp1252 (Western)", "cp1252")) if _decodes(data, codec)), "")


def _decodes(data: bytes, codec: str) -> bool:
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        return False
    return not re.search("[\ue000-\uf8ff]", text)  # characters that nobody has defined: a Western text, taken for Japanese
