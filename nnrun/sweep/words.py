"""A sweep in words: its values, its trials in order, and the lines that say how it came out. All of it from summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnrun.spec.ranges import label

SHOWN = 5
"""Trials that the table on the terminal has room for."""


def shortly(value: Any) -> str:
    """Return a value in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else label(value)


def told_values(values: Mapping[str, Any]) -> str:
    """Return values as a line of text."""
    return ", ".join(f"{path} {shortly(value)}" for path, value in values.items())


def in_order(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the trials of a summary, the best first, then those that were pruned, then those that have failed."""
    sign = -1 if found["better"] == "maximize" else 1
    states = ("complete", "pruned", "failed")

    def place(one: Mapping[str, Any]) -> tuple[int, float, int]:
        return states.index(one["state"]), sign * (one["value"] or 0.0), one["number"]

    return sorted(found["trials"], key=place)


def told(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines that say how a sweep came out: its best trials, and what mattered."""
    found = summary["sweep"]
    trials = in_order(found)
    states = [one["state"] for one in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    names = list(found["best"]["values"])
    table = [["trial", found["metric"], "epoch", *names]]
    table += [
        [str(one["number"]), f"{one['value']:.4g}", str(one["epoch"]), *(shortly(one["values"][name]) for name in names)]
        for one in trials[:SHOWN]
        if one["state"] == "complete"
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"{len(trials)} configs tried: {counted}; {found['seconds']:.1f} s of training", ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return [*lines, "", f"importance: {_importance(found, states.count('complete'))}"]


def wanted_for_importance(parameters: int) -> int:
    """Return how many complete trials say something of the importance of so many parameters."""
    return 2 * parameters + 2


def _importance(found: Mapping[str, Any], complete: int) -> str:
    if found["importance"]:
        return ", ".join(f"{name} {share:.2f}" for name, share in found["importance"].items())
    wanted = wanted_for_importance(len(found["best"]["values"]))
    return f"{complete} complete trials do not tell it; {wanted} may" if complete < wanted else "the trials came out the same"
