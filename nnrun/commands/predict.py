"""`nnrun predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnrun.commands.options import CheckpointPath, Device, Json, Plugins, note_last, register_parts
from nnrun.errors import InputError
from nnrun.terminal import noted, user_errors, write_frames


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Tables, arrays, pictures, folders of pictures, or - (JSON lines).")
    ],
    checkpoint: CheckpointPath,
    out: Annotated[Path | None, typer.Option(help="Write here instead: .csv, .json, .jsonl or .parquet.", show_default=False)] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Add a column of probabilities for each class.")] = False,
    top_k: Annotated[int, typer.Option(metavar="K", help="Add the K likeliest classes and their probabilities.", show_default=False)] = 0,
    plugin: Plugins = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Predict one row of output for each row of INPUT; prints CSV."""
    with user_errors():
        if out is not None and out.suffix not in (".csv", ".json", ".jsonl", ".parquet"):
            raise InputError(f"--out {out}: the ending {out.suffix!r} is not known", fix="end it in .csv, .json, .jsonl or .parquet")
        if out is not None and not out.parent.is_dir():
            raise InputError(f"--out {out}: the folder {out.parent} does not exist", fix="make it, or give another file")
        if out is not None and any(Path(name).exists() and out.exists() and out.samefile(name) for name in inputs):
            raise InputError(f"--out {out} is the input itself", fix="give another file; the input is never overwritten")
        register_parts(plugin)
        from nnrun.trained import load

        net = load(checkpoint, device=device or "auto")
        note_last(checkpoint, net.path)
        if top_k and not 0 < top_k <= max(1, len(net.task.classes)):
            raise InputError(f"--top-k {top_k}: there are {len(net.task.classes)} classes", fix="give a number from 1 to that")
        predictions = net.stream(inputs, probabilities=proba or top_k > 0)
        write_frames((one.frame(top_k) for one in noted(predictions)), out, json=json)
