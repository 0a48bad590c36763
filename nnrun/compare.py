"""Runs side by side: their figures, what differs in their configs, and for two of them whether the difference means anything.

Figures come from each run's summary; a paired test needs the predictions, which are made again from the checkpoints. torch is imported only
for that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnrun.errors import InputError, NnrunError
from nnrun.registry import METRICS
from nnrun.runs.checkpoint import read_header
from nnrun.runs.folder import checkpoint_file
from nnrun.runs.show import told_of
from nnrun.tracking.tracker import flat

UNTOLD = ("name",)
"""Keys of a config that are no difference between two experiments."""


def compare(paths: Sequence[Path], metric: str | None = None) -> dict[str, Any]:
    """Return the runs, the best first, what differs between them in the same order, and the paired test of two.

    Args:
        metric: the figure to sort by; by default the first metric of the first run, or its loss.

    Raises:
        CheckpointError: a path holds no run.
        InputError: no run has the figure.
    """
    facts = [_facts(path) for path in paths]
    metric = metric or next(iter(facts[0]["spec"]["metrics"]), "loss")
    runs = [_run(path, one) for path, one in zip(paths, facts, strict=True)]
    known = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    if known and metric not in known:
        raise InputError(f"no run is scored by {metric!r}", fix=f"the figures of these runs: {', '.join(known)}")
    order = sorted(range(len(runs)), key=lambda number: _place(runs[number], metric))
    paired = _paired(paths, facts, [run["part"] for run in runs], metric) if len(paths) == 2 else None
    if paired and any(run["seeds"] for run in runs):
        paired["sentence"] += "; of several seeds, the network in best.safetensors was taken"
    return {
        "sorted_by": metric,
        "runs": [runs[number] for number in order],
        "differences": differences([facts[number]["spec"] | {"digests": facts[number]["digests"]} for number in order]),
        "paired": paired,
    }


def _facts(path: Path) -> dict[str, Any]:
    """Return the facts of a run's checkpoint; of folds those that all of them share, for which the first one stands."""
    if not (path / "fold-1").is_dir():
        return read_header(checkpoint_file(path)).facts
    facts = read_header(checkpoint_file(path / "fold-1")).facts
    split = {key: value for key, value in facts["spec"]["split"].items() if key != "fold"}
    return {**facts, "epoch": None, "spec": {**facts["spec"], "split": split}, "digests": {"data": facts["digests"]["data"]}}


def _run(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what the table says of a run, or of folds together; one that is not finished has no figures yet."""
    file = path / "summary.json"
    summary = told_of(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
    part = next(reversed(summary.get("metrics", {})), None)
    folds = summary.get("folds")
    return {
        "run": str(path),
        "finished": bool(summary),
        "epoch": facts["epoch"],
        "seeds": len(summary.get("seeds", ())),
        "part": f"{folds} folds" if folds else part,
        "rows": None if not part else summary["rows"] if folds else summary["rows"][part],
        "metrics": summary["metrics"][part] if part else {},
        "deviations": summary["deviations"][part] if part else {},
        "intervals": summary.get("intervals", {}).get(part, {}),
        "seconds": None if not summary else summary["seconds"] if folds else summary["seconds"]["train"],
    }


def _place(run: Mapping[str, Any], metric: str) -> float:
    """Return where a run stands, the best at the lowest number; one without the figure stands last."""
    value = run["metrics"].get(metric)
    return math.inf if value is None else -value if _higher_is_better(metric) else value


def _higher_is_better(metric: str) -> bool:
    return metric in METRICS and bool(METRICS[metric].traits["better"] == "higher")


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return dotted key → its value in each config, in their order, for keys that are not the same in all; None where it is missing."""
    told = [flat(config) for config in configs]
    keys = list(dict.fromkeys(key for one in told for key in one))
    values = {key: [one.get(key) for one in told] for key in keys if key not in UNTOLD}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _paired(paths: Sequence[Path], facts: Sequence[Mapping[str, Any]], parts: Sequence[str | None], metric: str) -> dict[str, Any]:
    """Return the paired test of two networks on the rows that both are reported on, or why there is none.

    Args:
        parts: those that their summaries report on; None of a run that is not finished.
    """
    if any(one["epoch"] is None for one in facts):
        return {"sentence": "no paired test: folds are compared by their mean and deviation"}
    if facts[0]["digests"] != facts[1]["digests"] or facts[0]["task"] != facts[1]["task"]:
        what = next((name for name, digest in facts[0]["digests"].items() if facts[1]["digests"][name] != digest), "target")
        return {"sentence": f"no paired test: the {what} of the two runs is not the same"}
    shared = [part for part in parts if part]
    if len(set(shared)) > 1:  # a trial of a sweep has not looked at the test part
        return {"sentence": f"no paired test: one is reported on {shared[0]}, the other on {shared[1]}"}
    from nnrun.trained import load
    from nnrun.training.uncertainty import difference

    if facts[0]["task"]["classes"]:
        metric = "accuracy"
    elif metric not in METRICS:
        metric = "rmse"
    scored = []
    try:
        for path in paths:
            part, one = load(path).reported(next(iter(shared), None))
            scored.append(one)
    except NnrunError as error:
        return {"sentence": f"no paired test: {error.faults[0].what}"}
    found = difference(metric, *scored)
    first, second = _names(paths)
    ahead = first if (found.value > 0) == _higher_is_better(metric) else second
    told = f"{ahead} is better" if found.real and found.value else "the difference may be chance"
    rows = len(scored[0].y)
    if bool((scored[0].predicted == scored[1].predicted).all()):
        told, how = "no difference", f"both predict the same for each of the {rows} {part} rows"
    elif found.only is not None:
        only = f"only {first} has {found.only[0]} right and only {second} {found.only[1]}"
        how = f"of the {rows} {part} rows, {only} (McNemar's exact p = {found.p:.2g})"
    else:
        low, high = found.interval or (math.nan, math.nan)
        how = (
            f"on the {rows} {part} rows, the {metric} of {first} minus that of {second} is {found.value:.3g}, "
            f"95 % interval [{low:.3g}, {high:.3g}] (paired bootstrap, p = {found.p:.2g})"
        )
    return {
        "test": found.test, "metric": metric, "part": part, "rows": rows, "difference": found.value, "interval": found.interval,
        "only": found.only, "p": found.p, "sentence": f"{told}: {how}",
    }  # fmt: skip


def _names(paths: Sequence[Path]) -> list[str]:
    """Return what to call two runs in a sentence: their folders' names, or as much of their paths as tells them apart."""
    short = [path.name if path.is_dir() else path.parent.name for path in (path.absolute() for path in paths)]
    return short if short[0] != short[1] else [str(path) for path in paths]
