"""What is inside a run or a checkpoint, told without importing torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from nnrun.registry import KINDS
from nnrun.runs.checkpoint import Header, plugins, read_header, small_values
from nnrun.runs.folder import checkpoint_file

FEW = 8
"""Tensors of at most this many numbers are shown in full."""


def facts_of(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, and the summary of its run when the path is a finished run folder.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    file = checkpoint_file(path)
    header = read_header(file)
    summary_file = path / "summary.json"
    facts = {key: value for key, value in header.facts.items() if key not in ("resume", "tensors")}
    return {
        "checkpoint": str(file),
        **facts,
        "parameters": _parameters(file, header),
        "line": _line(file, header),
        "sha256": {name: digest for name, digest in header.facts["tensors"].items() if name.startswith("model/")},
        "summary": told_of(json.loads(summary_file.read_text("utf-8"))) if summary_file.is_file() else None,
    }


def told_of(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary with one number for each figure: of several networks the mean, its interval, and their deviation."""
    over = {part: {name: one for name, one in figures.items() if isinstance(one, dict)} for part, figures in summary["metrics"].items()}
    if not any(over.values()):
        return summary | {"deviations": over}
    means = {part: {name: one["mean"] for name, one in figures.items()} for part, figures in over.items()}
    intervals = {part: {name: one.get("interval") for name, one in figures.items()} for part, figures in over.items()}
    deviations = {part: {name: one["deviation"] for name, one in figures.items()} for part, figures in over.items()}
    return summary | {"metrics": means, "intervals": intervals, "deviations": deviations}


def describe(path: Path) -> str:
    """Return the same as a page of text."""
    facts = facts_of(path)
    spec, task = facts["spec"], facts["task"]
    made_by = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    settings = f"{spec['optimizer']['name']}, lr {spec['lr']:g}, batch_size {spec['batch_size']}, seed {spec['seed']}"
    classes = task["classes"]
    wanted = (
        f"{len(classes)} classes ({', '.join(classes[:10])}{', …' if len(classes) > 10 else ''})" if classes else ", ".join(task["targets"])
    )
    lines = [
        f"checkpoint  {facts['checkpoint']} (format {facts['format']}, epoch {facts['epoch']})",
        f"experiment  {spec['name']}: {spec['dataset']['name']} → {wanted}",
        f"training    {settings}, loss {spec['loss']['name']}",
        f"made by     {made_by}; {facts['device']}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}",
        *([f"networks    {_seeds(facts['members'])}, whose predictions are averaged"] if "members" in facts else []),
        *([f"networks    {_seeds(facts['seeds'])}, in training"] if "seeds" in facts else []),
        f"digests     data {facts['digests']['data'][:16]}, split {facts['digests']['split'][:16]}",
        *(f"plug-in     {plugin}: {KINDS[kind].singular} {name!r}" for kind, name, plugin in plugins(Path(facts["checkpoint"]), facts)),
        "",
    ]
    width = max(len(name) for name in facts["parameters"]) + 2
    for name, parameter in facts["parameters"].items():
        values = "  " + " ".join(f"{value:.6g}" for value in parameter["values"]) if "values" in parameter else ""
        lines.append(f"  {name:<{width}}{'×'.join(map(str, parameter['shape'])) or '1':>16}{values}")
    lines.append(f"  {sum(math.prod(one['shape']) for one in facts['parameters'].values())} numbers in all")
    if facts["line"]:
        slope, intercept, column = facts["line"]["slope"], facts["line"]["intercept"], facts["columns"][0]
        sign = "-" if intercept < 0 else "+"
        lines.append(f"  in the data's own units: {task['targets'][0]} = {slope:.6g}·{column} {sign} {abs(intercept):.6g}")
    if facts["summary"]:
        several = facts["summary"].get("seeds")
        lines += ["", *([f"  the mean of {_seeds(several)}; this is that of seed {facts['summary']['chosen']['seed']}"] if several else [])]
        for part, scores in facts["summary"]["metrics"].items():
            figures = "  ".join(f"{name} {value:.4f}" for name, value in scores.items() if value is not None)
            lines.append(f"  {part:<6} {facts['summary']['rows'][part]:>6} rows  {figures}")
    return "\n".join(lines)


def _seeds(seeds: list[int]) -> str:
    return f"{len(seeds)} networks, seeds {seeds[0]} to {seeds[-1]}"


def _parameters(file: Path, header: Header) -> dict[str, dict[str, Any]]:
    """Return name → shape of the model's tensors in the order of the layers, with the values of the small ones."""
    names = [name for name in header.layout if name.startswith("model/")]
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(names, key=lambda name: _order(name, header)):
        kind, shape, _, _ = header.layout[name]
        found[name.removeprefix("model/")] = {"shape": list(shape)}
        if kind == "F32" and math.prod(shape) <= FEW:
            found[name.removeprefix("model/")]["values"] = small_values(file, header, name)
    return found


def _line(file: Path, header: Header) -> dict[str, float] | None:
    """Return slope and intercept, in the data's own units, of a network that is a straight line in one column; None for any other."""
    facts = header.facts
    kinds = [next(iter(layer)) if isinstance(layer, dict) else layer for layer in facts["spec"]["layers"]]
    weights = [name for name in header.layout if name.startswith("model/")]
    if (
        {"seeds", "members"} & set(facts)
        or facts["raw_shape"] != [1]
        or len(facts["task"]["targets"]) != 1
        or facts["task"]["classes"]
        or kinds not in ([], ["linear"])
    ):
        return None
    by_end = {name.rpartition(".")[2]: small_values(file, header, name) for name in weights}
    slope, shift = 1.0, 0.0  # what the preprocessing makes of x: slope·x + shift
    for number, step in enumerate(facts["spec"]["preprocess"]):
        if step["name"] == "scale":
            slope, shift = slope * step["by"], shift * step["by"]
        elif step["name"] in ("standardize", "minmax"):
            names = ("mean", "deviation") if step["name"] == "standardize" else ("low", "range")
            (low,), (width,) = (small_values(file, header, f"preprocess/{number}/{name}") for name in names)
            slope, shift = slope / width, (shift - low) / width
        else:
            return None
    weight, bias = by_end["weight"][0], by_end.get("bias", [0.0])[0]
    return {"slope": weight * slope, "intercept": weight * shift + bias}


def _order(name: str, header: Header) -> tuple[int, str]:
    """Return the place of a tensor's layer in the network; weights before biases by their names' order reversed."""
    layer, _, rest = name.removeprefix("model/").partition(".")
    known = header.facts.get("layer_names", [])
    return (known.index(layer) if layer in known else len(known), "" if rest == "weight" else rest)
