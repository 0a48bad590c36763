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
    """Return a figure and its 95 % interval, such as 0.98 [0.90, 1.00], with as many decimals as the interval lets it have."""
    told = between(interval)
    return number(value) if value is None or not told else f"{value:.{_places(interval)}f} {told}"


def spread(over: Mapping[str, Any]) -> str:
    """Return the mean and the deviation of a figure over several runs, such as 0.953 ± 0.018."""
    return f"{over['mean']:.4g} ± {over['deviation']:.2g}"


def between(interval: Sequence[float | None] | None) -> str:
    """Return an interval, such as [0.90, 1.00]; "" when there is none."""
    ends = _ends(interval)
    return f"[{ends[0]:.{_places(ends)}f}, {ends[1]:.{_places(ends)}f}]" if ends else ""


def _ends(interval: Sequence[float | None] | None) -> list[float]:
    ends = [end for end in interval or () if end is not None and math.isfinite(end)]
    return ends if len(ends) == 2 else []


def _places(interval: Sequence[float | None] | None) -> int:
    """Return how many decimals are worth telling: no more than the first digit of half the interval's width, or two when that is small."""
    low, high = _ends(interval)
    half = (high - low) / 2
    return max(0, math.floor(-math.log10(half / 3)) + 1) if half > 0 else 4


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
