"""TensorBoard's event files: one in the run folder, so that `tensorboard --logdir runs` shows every run by its name.

Each epoch is in the file before the next one begins. A run that goes on begins a new file with the rows that it keeps, and the old one is
gone: no reader, with or without TensorBoard's rules for restarts, finds an epoch twice or not at all.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnrun.errors import InputError
from nnrun.registry import TRACKERS
from nnrun.tracking.tracker import Begun, Tracker, figures, flat

ENDING = ".nnrun"


@TRACKERS.register("tensorboard")
def tensorboard(*, plots: bool = True) -> Tracker:
    """Write TensorBoard's event files into the run folder: train/loss, val/accuracy, lr, …, the config, the final figures.

    Args:
        plots: whether the plots of the report are written too.
    """
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError:
        raise InputError("track: tensorboard is not installed", fix="pip install 'nnrun[tensorboard]', or leave `track` out") from None
    return _TensorBoard(plots)


class _TensorBoard(Tracker):
    def __init__(self, plots: bool) -> None:
        self._plots = plots

    def start(self, begun: Begun) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        for earlier in begun.folder.glob(f"events.out.tfevents.*{ENDING}"):
            earlier.unlink()
        self._config = begun.config
        self._file = begun.folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}{ENDING}"
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(
            Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START))
        )  # one that watches forgets the rest
        ago = sum(row["seconds"] for row in begun.kept)
        for row in begun.kept:  # as far apart in time as they were
            ago -= row["seconds"]
            self._scalars(figures(row), row["epoch"], time.time() - ago)

    def record(self, row: Mapping[str, Any]) -> None:
        self._scalars(figures(row), row["epoch"], time.time())

    def end(self, summary: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        self._best = summary["best_epoch"]
        final = {f"best/{name}": float(value) for name, value in flat(summary["metrics"], "/").items() if value is not None}
        self._scalars(final, self._best, time.time())
        config = {
            key: value if isinstance(value, bool | int | float | str) else json.dumps(value) for key, value in flat(self._config).items()
        }
        for one in hparams(config, final):  # type: ignore[no-untyped-call]
            self._summary(one, 0, time.time())

    def report(self, page: Path) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        for plot in sorted((page.parent / "plots").glob("*.png")) if self._plots else ():
            png = plot.read_bytes()
            width, height = struct.unpack(">II", png[16:24])
            image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
            self._summary(Summary(value=[Summary.Value(tag=f"plots/{plot.stem}", image=image)]), self._best, time.time())

    def _scalars(self, values: Mapping[str, float], epoch: int, at: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._summary(Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]), epoch, at)

    def _summary(self, summary: Any, epoch: int, at: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._write(Event(wall_time=at, step=epoch, summary=summary))

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._file.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
