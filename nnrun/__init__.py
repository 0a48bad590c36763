"""nnrun: one YAML file becomes a trained network, its checkpoint, its metrics and a report.

net = nnrun.load("runs/iris")                 # from a checkpoint alone
net.predict([{"petal_width": 0.2, …}]).values # ["setosa"]
run = nnrun.train("configs/iris.yaml", lr=0.01)

torch is imported by the first of these calls, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnrun.run import Run
    from nnrun.trained import Trained

__version__ = "0.1.0"


def load(path: Path | str, *, device: str = "auto") -> Trained:
    """Return the network in a checkpoint file, or the best one of a run folder; see `nnrun.trained`.

    Raises:
        CheckpointError: there is none, it is damaged, or it needs a plug-in that is not imported.
    """
    from nnrun.trained import load

    return load(path, device=device)


def train(config: Path | str, *, out: Path | str | None = None, resume: bool = False, **values: Any) -> Run:
    """Train the experiment in a config to its end, without a word, and return the run: its `folder`, its `summary`.

    Args:
        out: the run folder; by default `runs/NAME`.
        resume: go on with the run in `out`.
        values: keys of the config and what stands there instead, such as `lr=0.01` or `layers=[16, 8]`.

    Raises:
        NnrunError: of the kind that the config, the data or the machine deserves; see `nnrun.errors`.
    """
    import json

    import nnrun.builtin  # noqa: F401
    from nnrun.spec.reader import read_spec

    spec, source = read_spec(config, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    from nnrun.run import open_run

    run = open_run(spec, source, out=Path(out) if out is not None else None, resume=resume)
    for _ in run.train():
        pass
    return run
