"""Figures as a person reads them, in the report and on the terminal: with as many digits as their interval deserves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def number(value: float | None) -> str:
    """Return a number; "–" when there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return (
        f"{value:.4f}"
        if 0.001 <= abs(value) < 1000 or value == 0
        else f"{value:.4g}"
        if abs(value) < 1
        else f"{value:,.1f}".replace(",", " ")
    )


def figure(value: float | None, interval: Sequence[float | None] | None = None) -> str:
    """Return a figure and its interval, such as 0.98 [0.90, 1.00]: two digits of the interval's width are shown, and no more."""
    ends = [end for end in interval or () if end is not None and math.isfinite(end)]
    if value is None or len(ends) != 2 or ends[0] == ends[1]:
        return number(value)
    digits = max(0, 1 - math.floor(math.log10(abs(ends[1] - ends[0]))))
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def results(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return part → figure → text, with its interval where summary.json holds one."""
    intervals = summary.get("intervals", {})
    return {
        part: {name: figure(value, intervals.get(part, {}).get(name)) for name, value in scores.items()}
        for part, scores in summary.get("metrics", {}).items()
    }


def baselines(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return baseline → figure → text."""
    found = summary.get("baselines", {}).items()
    return {name: {key: number(value) for key, value in one.get("metrics", {}).items()} for name, one in found}
