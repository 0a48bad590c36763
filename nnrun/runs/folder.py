"""The run folder: its name, the commit of a file into it, and the rows of its metrics.

config.yaml   config.source.yaml   metrics.jsonl   best.safetensors   last.safetensors   summary.json
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from nnrun.errors import CheckpointError, EnvironmentFault, InputError, not_writable

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
BEST, LAST = "best.safetensors", "last.safetensors"


def commit(path: Path, data: bytes, *, keep: int = 1) -> None:
    """Replace a file by new bytes, so that after a crash at any moment the old file or the new one is there, whole.

    Written aside in the same folder, synced, read back, then renamed; the folder is synced too, so that it survives a power cut. Only
    then is the oldest of the `keep` versions (`last.safetensors`, `last-1.safetensors`, …) gone.

    Raises:
        EnvironmentFault: the system refused, or gave back other bytes; the old file is as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_synced(aside, data)
        if aside.read_bytes() != data:
            raise OSError(errno.EIO, "the disk gave back other bytes than were written")
        for age in range(keep - 1, 0, -1):
            _link_over(aged(path, age - 1), aged(path, age))
        os.replace(aside, path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise not_writable(path, error) from None


def commit_all(files: Mapping[Path, bytes]) -> None:
    """Commit many files: all are written, then synced together, which costs a disk little more than one, then renamed.

    Raises:
        EnvironmentFault: the system refused; no file is half written.
    """
    asides = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    at = next(iter(files), Path())
    try:
        for at, data in files.items():
            asides[at].write_bytes(data)
        for at in files:
            _sync(asides[at])
        for at, aside in asides.items():
            os.replace(aside, at)
        for folder in {path.parent for path in files}:
            _sync(folder)
    except OSError as error:
        for aside in asides.values():
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        raise not_writable(at, error) from None


def aged(path: Path, age: int) -> Path:
    """Return the name of an older version of a file: `last.safetensors`, `last-1.safetensors`, …."""
    return path.with_name(f"{path.stem}-{age}{path.suffix}") if age else path


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link_over(newer: Path, older: Path) -> None:
    """Give the newer version the older one's name as well: at no moment is the newer name without its file."""
    if not newer.exists():
        return
    aside = older.with_name(f".{older.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    try:
        os.link(newer, aside)
    except PermissionError:  # a file system without hard links: a copy does as well
        _write_synced(aside, newer.read_bytes())
    os.replace(aside, older)
    aside.unlink(missing_ok=True)  # renaming over another name of the same file leaves both names


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written; the caller holds the folder's lock."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def check_space(folder: Path, size: int) -> None:
    """Refuse to begin when the disk has no room for a number of bytes.

    Raises:
        EnvironmentFault: with both numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        what = f"the disk of {folder} has {free / 1e6:.1f} MB left, and the run's checkpoints need {size / 1e6:.1f} MB"
        raise EnvironmentFault(what, fix="make room, give another --out, or lower checkpoint.keep")


def new_folder(name: str, out: Path | None) -> tuple[Path, BaseFileLock]:
    """Make the folder of a new run, `out` or `runs/NAME`, `runs/NAME-2`, …, and return it with its lock.

    Raises:
        InputError: `out` holds files already, or another process is making a run of it.
        EnvironmentFault: it cannot be made.
    """
    try:
        if out is not None:
            _refuse_files(out)
            out.mkdir(parents=True, exist_ok=True)
            held = lock(out)
            _refuse_files(out)  # another process may have made and finished a run since
            return out, held
        for number in range(1, 1_000_000):
            folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder, lock(folder)
    except OSError as error:
        raise not_writable(out or Path("runs") / name, error) from None
    raise InputError(f"there are a million runs named {name}", fix="give --out")


def _refuse_files(out: Path) -> None:
    holds = [file.name for file in out.iterdir() if file.name != ".lock"] if out.is_dir() else []
    if out.is_file() or holds:
        what = "is a file" if out.is_file() else "is not empty"
        raise InputError(f"the run folder {out} {what}", fix="give a new folder, or go on with the run in it by --resume")


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
    """`metrics.jsonl`: one line an epoch, each appended by a single write."""

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        """Open the file, and keep its first `keep` rows: those after the checkpoint that a run goes on from will come again."""
        self._path = path
        try:
            rows = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self.kept = rows[:keep]
            os.ftruncate(self._descriptor, sum(map(len, self.kept)))
        except OSError as error:
            raise not_writable(path, error) from None

    def add(self, row: dict[str, Any]) -> None:
        """Append one row; numbers that are not finite become null."""
        self._try(lambda: os.write(self._descriptor, strict_json(row).encode() + b"\n"))

    def sync(self) -> None:
        """Have the rows on the disk; a checkpoint that counts them is written after this."""
        self._try(lambda: os.fsync(self._descriptor))

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            raise not_writable(self._path, error) from None

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)


class Unwritten(Metrics):
    """The rows of a process that writes nothing."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def add(self, row: dict[str, Any]) -> None:
        """Leave the row to the first process."""

    def sync(self) -> None:
        """Leave the rows to the first process."""

    def __exit__(self, *exception: object) -> None:
        """There is nothing to close."""


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
