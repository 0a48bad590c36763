"""The run folder: its name, the commit of a file into it, and the rows of its metrics.

config.yaml   config.source.yaml   metrics.jsonl   best.safetensors   last.safetensors   summary.json
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

from filelock import BaseFileLock, FileLock, Timeout

from nnrun.errors import CheckpointError, EnvironmentFault, InputError

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
BEST, LAST = "best.safetensors", "last.safetensors"


def commit(path: Path, data: bytes) -> None:
    """Replace a file by new bytes: written aside, synced, renamed; the folder is synced too, so that it survives a power cut.

    Raises:
        EnvironmentFault: the system refused; the old file is as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise not_writable(path, error) from None


def not_writable(path: Path, error: OSError) -> EnvironmentFault:
    """Return the error for a path that the system refused to write."""
    return EnvironmentFault(f"{path} cannot be written: {error.strerror}", fix="check the permissions and the space on the disk")


def new_folder(name: str, out: Path | None) -> Path:
    """Make and return the folder of a new run: `out`, or `runs/NAME`, `runs/NAME-2`, ….

    Raises:
        InputError: `out` holds files already.
        EnvironmentFault: it cannot be made.
    """
    try:
        if out is not None:
            if out.is_file() or (out.is_dir() and any(out.iterdir())):
                what = "is a file" if out.is_file() else "is not empty"
                raise InputError(f"the run folder {out} {what}", fix="give a new folder, or go on with the run in it by --resume")
            out.mkdir(parents=True, exist_ok=True)
            return out
        for number in range(1, 1_000_000):
            folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise not_writable(out or Path("runs") / name, error) from None
    raise InputError(f"there are a million runs named {name}", fix="give --out")


def lock(folder: Path) -> BaseFileLock:
    """Return the lock of a run folder, taken; the system frees it when the process ends, however it ends.

    Raises:
        InputError: another process trains there.
    """
    held = FileLock(folder / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is training in {folder}", fix="wait for it, or give another --out") from None
    except OSError as error:
        raise not_writable(folder / ".lock", error) from None
    return held


def checkpoint_file(path: Path) -> Path:
    """Return the checkpoint that a user names: a file, or a run folder's `best`.

    Raises:
        CheckpointError: there is none.
    """
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path} holds no checkpoint", fix="give a run folder (runs/NAME) or a .safetensors file")


class Metrics:
    """`metrics.jsonl`: one line an epoch, appended; rows reach the file at least whenever `flush` is called."""

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        """Open the file, and keep its first `keep` rows: those after the checkpoint that a run goes on from will come again."""
        self._path = path
        try:
            kept = path.read_bytes().splitlines(keepends=True)[:keep] if keep and path.exists() else []
            self._file: IO[str] = path.open("w" if not kept else "r+", encoding="utf-8")
            self._file.truncate(sum(map(len, kept)))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise not_writable(path, error) from None

    def add(self, row: dict[str, Any]) -> None:
        """Append one row; numbers that are not finite become null."""
        self._file.write(strict_json(row) + "\n")

    def flush(self) -> None:
        """Hand the rows to the system."""
        try:
            self._file.flush()
        except OSError as error:
            raise not_writable(self._path, error) from None

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that every reader accepts: a number that is not finite becomes null."""
    encode = _ENCODER.encode if indent is None else json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=indent).encode
    try:
        return encode(value)
    except ValueError:
        return encode(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
