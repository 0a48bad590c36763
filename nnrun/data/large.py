"""A dataset from a table that is larger than memory: its files are read twice, a piece at a time.

The first time shows what its columns and its target are; the second time, with nothing left to guess, the raw rows are written to a file
without a name (`stored`). In memory remain the targets, the weights and the columns that the split goes by. All of it is what `tabular`
makes of the same files, to the bit, and so is everything that is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from nnrun.data.chunks import table_chunks
from nnrun.data.columns import columns_of, raw_rows
from nnrun.data.dataset import Dataset, Task
from nnrun.data.files import regular_file
from nnrun.data.looks import MOST_DIFFERENT, Look
from nnrun.data.stored import StoredRows
from nnrun.data.table_files import COMPRESSED, EVERY, PARQUET, Reading, Texts, kind_of, other_columns
from nnrun.data.tables import Table
from nnrun.data.tabular import PATH, Wants, check_some_weight, dropped_note, input_names, row_weights, without_target
from nnrun.data.targets import few_are_bad, missing_target, missing_targets, targets_from_arrays, targets_from_table
from nnrun.errors import DataError, Place
from nnrun.lazy import torch
from nnrun.machine import free_memory

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars

TEXT_GROWS, PACKED_GROWS, VALUE = 4, 20, 20
"""Bytes of memory that a whole table takes, at its most: for each byte of text, of compressed text, and for each value of Parquet."""
FEW = 1000  # different targets that are remembered unless they are known to be classes


def streams(files: Sequence[str], stream: bool | Literal["auto"]) -> tuple[bool, tuple[str, ...]]:
    """Return whether a table is to be streamed, and a note of it; `auto` streams one that would take more than half of the free memory."""
    if stream != "auto":
        return stream, ()
    needed, free = sum(map(_in_memory, files)), free_memory()
    if needed <= free // 2:
        return False, ()
    told = (
        f"in memory the table would take about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: its rows are streamed from the disk"
    )
    return True, (told,)


def _in_memory(path: str) -> int:
    """Return about how many bytes a file takes when it is read and prepared as a whole."""
    file = regular_file(path, at=PATH)
    size = file.stat().st_size
    if kind_of(path) not in PARQUET:
        return size * (PACKED_GROWS if file.suffix.lower() in COMPRESSED else TEXT_GROWS)
    import polars

    try:
        scanned = polars.scan_parquet(file)
        return VALUE * int(scanned.select(polars.len()).collect().item()) * len(scanned.collect_schema())
    except (polars.exceptions.PolarsError, OSError):  # told when it is read
        return size


def large_table(files: Sequence[str], reading: Reading, wants: Wants, notes: tuple[str, ...] = ()) -> Dataset:
    """Return the dataset of a table in one or more files, its rows on the disk.

    Raises:
        DataError: a file or a column is missing, or cells are not what they should be.
        EnvironmentFault: the disk has no room for the rows.
    """
    import polars

    pieces = _Pieces(files, reading, wants)
    seen = _look(pieces)
    columns = columns_of(list(seen.looks.values()), wants.kinds)
    task = seen.target.task()
    x = StoredRows(seen.rows, len(columns), torch.device("cpu"))
    y, weights, kept = [], [], []
    numbers = frozenset(column.name for column in columns if column.kind == "number")
    for piece in pieces.read(seen.texts, numbers):
        x.add(torch.from_numpy(raw_rows(piece, columns)))
        y.append(targets_from_table(piece, wants.targets, task.kind, known=task.classes, as_text=seen.target.as_text)[1])
        weights += [row_weights(piece, wants.weight)] if wants.weight else []
        kept.append(piece.frame.select(list(wants.aside)))
    if wants.weight:
        check_some_weight(weights, wants.weight)
    rows = pieces.numbers if pieces.dropped else None
    file = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    frame = polars.concat(kept, how="vertical_relaxed") if wants.aside else polars.DataFrame(height=seen.rows)
    table = Table(file, frame, reading.missing, pieces.place if seen.marked else None, rows, pieces.starts)
    notes = (*notes, *dropped_note(pieces.dropped, seen.rows + pieces.dropped))
    return Dataset(x, torch.cat(y), task, columns, table, torch.cat(weights) if wants.weight else None, notes)


@dataclass
class _Pieces:
    """The pieces of the files of one table, in order; rows are counted over all of them.

    Args:
        starts: file → the number of its first row.
        dropped: rows that have no target and are left out.
        kept: the numbers of the others, as far as they were read.
    """

    files: Sequence[str]
    reading: Reading
    wants: Wants
    starts: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    kept: list[Any] = field(default_factory=list)
    texts: Texts = EVERY

    def read(self, texts: Texts, numbers: frozenset[str] = frozenset()) -> Iterator[Table]:
        """Yield the pieces, without the rows that are to be dropped.

        Args:
            texts: the columns that must come as they are written.
            numbers: those that are known to hold numbers.
        """
        names: tuple[str, ...] = ()
        self.dropped, self.kept, self.texts, first = 0, [], texts, 0
        for file in self.files:
            self.starts[file] = start = first
            for piece in table_chunks(file, replace(self.reading, numbers=numbers), texts):
                names = names or piece.names
                if set(piece.names) != set(names):
                    raise other_columns(self.files[0], names, file, piece.names)
                first += len(piece)
                piece = _moved(piece, start)
                if self.wants.drop:
                    piece = self._with_targets(piece)
                if len(piece):
                    yield piece

    def _with_targets(self, piece: Table) -> Table:
        empty = without_target(piece, self.wants.targets)
        left = piece.without(empty) if empty.any() else piece
        self.dropped += len(piece) - len(left)
        self.kept.append(left.rows)
        return left

    @property
    def numbers(self) -> npt.NDArray[Any]:
        """The number in the files of each row that was not dropped."""
        import numpy as np

        made: npt.NDArray[Any] = np.concatenate(self.kept)
        return made

    def place(self, row: int, name: str) -> Place:
        """Return where the cell of a row stands, found by reading up to it."""
        for file in self.files:
            for piece in table_chunks(file, self.reading, self.texts):
                moved = _moved(piece, self.starts[file])
                if moved.mark and moved.rows is not None and row <= moved.rows[-1]:
                    return moved.mark(row, name)
        return Place(self.files[-1], 0, 0)


def _moved(piece: Table, start: int) -> Table:
    """Return a piece whose rows are counted from the first row of the first file."""
    within = piece.mark
    mark: Callable[[int, str], Place] | None = (lambda row, name: within(row - start, name)) if within else None
    return replace(piece, rows=None if piece.rows is None else piece.rows + start, mark=mark)


@dataclass
class _Seen:
    """What the first reading has shown.

    Args:
        rows: how many there are.
        marked: whether cells have places.
        texts: the columns that must come as they are written.
    """

    looks: dict[str, Look]
    target: _Target
    rows: int
    marked: bool
    texts: Collection[str]


def _look(pieces: _Pieces) -> _Seen:
    """Read the table for what its columns are; once more where one is of numbers in some pieces and of text in others."""
    wants = pieces.wants
    seen = _Seen({}, _Target(wants.targets, wants.task), 0, False, wants.texts)
    for piece in pieces.read(wants.texts):
        seen.rows += len(piece)
        seen.marked = piece.mark is not None
        seen.target.add(piece)
        if seen.looks:
            for look in seen.looks.values():
                look.add(piece)
        else:
            seen.looks = {name: Look(piece, name, wants.kinds.get(name, "")) for name in input_names(piece, wants)}
    if not seen.rows:
        raise DataError(f"{pieces.files[0]}: no row has a target", fix="is this the right column?", at=("dataset", "target"))
    mixed = [name for name, look in seen.looks.items() if len(look.types) > 1]
    if mixed:
        seen.texts, begun = {*wants.texts, *mixed}, False
        for piece in pieces.read(seen.texts):
            for name in mixed:
                if begun:
                    seen.looks[name].add(piece)
                else:
                    seen.looks[name] = Look(piece, name, wants.kinds.get(name, ""))
            begun = True
    return seen


class _Target:
    """What the target columns have shown so far.

    Args:
        asked: auto, classes or numbers.
    """

    def __init__(self, names: Sequence[str], asked: str) -> None:
        self._names, self._asked = names, asked
        self._most = MOST_DIFFERENT if asked == "classes" else FEW
        self._good: dict[str, Any] = {}
        self._texts: polars.Series | None = None
        self._rows = self._bad = 0
        self._missing: dict[str, tuple[Table, int, int]] = {}
        self.as_text = False

    def add(self, piece: Table) -> None:
        """Take in the targets of a piece."""
        import numpy as np
        import polars

        self._rows += len(piece)
        for name in self._names:
            values, bad = piece.numbers(name)
            gaps = missing_targets(piece, name)
            if len(gaps):
                first, row, count = self._missing.get(name, (piece, int(gaps[0]), 0))
                self._missing[name] = (first, row, count + len(gaps))
                continue
            self._bad += len(bad)
            self.as_text |= piece.frame[name].dtype == polars.Boolean or bool(np.isnan(values[bad]).any())
            known = self._good.get(name, np.empty(0))
            if len(known) <= self._most:
                self._good[name] = np.union1d(known, np.delete(values, bad))
            if len(self._names) == 1 and (self._texts is None or len(self._texts) <= self._most):
                texts = piece.texts(name).unique()
                self._texts = texts if self._texts is None else polars.concat([self._texts, texts]).unique()

    def task(self) -> Task:
        """Return what is to be predicted.

        Raises:
            DataError: targets are missing, or cannot be classes.
        """
        missing = next((name for name in self._names if name in self._missing), None)
        if missing is not None:
            raise missing_target(missing, *self._missing[missing])
        name = self._names[0]
        enough = self._rows - self._bad
        words = self.as_text and len(self._names) == 1 and self._asked != "numbers"
        self.as_text = words and not few_are_bad(name, self._good[name], self._bad, self._asked, enough)
        if self.as_text and self._texts is not None:
            task, _ = targets_from_arrays({name: self._texts.to_numpy()}, self._asked, rows=self._rows)
        else:
            asked = "numbers" if self._bad else self._asked  # such a cell is told when the rows are read
            task, _ = targets_from_arrays(self._good, asked, rows=self._rows)
        if len(task.classes) > MOST_DIFFERENT:
            what = f"target {name!r} has more than {MOST_DIFFERENT:,} classes"
            raise DataError(what, fix="write `task: numbers`, or join classes", at=("dataset", "target"))
        return task
