"""How a check's report reads: findings with their places, a table of the layers, what was measured. It returns text and prints nothing."""

from __future__ import annotations

import math
from typing import Any

from nnrun.check.report import Report
from nnrun.check.rules import SEVERITIES, Advice

MARKS = {"error": "✗", "warning": "!", "note": "·"}
LAYERS = ("layer", "kind", "in", "out", "parameters", "gradient", "numerical differs by")


def findings(report: Report) -> list[str]:
    """Return a paragraph for each finding: what, where, why, and what to write."""
    return [_paragraph(one) for one in report.advice]


def layer_rows(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of cells for each layer, under the heads `LAYERS`."""
    return [
        (
            row["name"],
            row["kind"],
            _shape(row["input_shape"]),
            _shape(row["output_shape"]),
            f"{row['parameters']:,}" if row["parameters"] else "",
            "" if row["gradient"] is None else f"{row['gradient']:.2g}",
            f"{max(row['difference'], 1e-16):.0e}" if row["gradient"] else "",
        )
        for row in facts["layers"]
    ]


def measured(facts: dict[str, Any]) -> list[str]:
    """Return a line for each thing that was measured."""
    lines = []
    if "rows" in facts:
        lines.append("rows: " + ", ".join(f"{rows:,} {name}" for name, rows in facts["rows"].items() if rows))
    if "start" in facts:
        simplest = facts["start"]["simplest"]
        beside = f"; the simplest answer has {simplest:.4g}" if simplest is not None else ""
        lines.append(f"loss before training: {facts['start']['loss']:.4g}{beside}")
    if facts.get("overfit"):
        of = facts["overfit"]
        lines.append(f"learned by heart: {of['rows']} rows, to {of['share']:.2g} of the loss of the simplest answer")
    if "cost" in facts:
        cost = facts["cost"]
        time = f", about {_duration(cost['seconds'])}" if cost["seconds"] is not None else ""
        lines.append(
            f"the whole run: {cost['steps']:,} steps{time} of training on {cost['device']}, about {_bytes(cost['bytes'])} of memory"
        )
    return lines


def summary(report: Report) -> str:
    """Return the last line: how many findings there are, and what was not looked at."""
    counts = ", ".join(f"{report.count(severity)} {severity}{'s' * (report.count(severity) != 1)}" for severity in SEVERITIES)
    left = [stage for stage in ("data", "batch") if stage not in report.asked]
    return counts + (f" (not looked at: {' and '.join(left)})" if left else "")


def plain_table(rows: list[tuple[str, ...]]) -> str:
    """Return the layers as columns of text."""
    lines = [LAYERS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(LAYERS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _paragraph(one: Advice) -> str:
    place = f"{one.place}: " if one.place else ""
    lines = [f"{MARKS[one.severity]} {one.severity} {one.rule.name}: {place}{one.finding.evidence}"]
    lines += [one.place.excerpt()] if one.place else []
    return "\n".join([*lines, f"  why: {' '.join(one.rule.body.split())}", f"  fix: {one.finding.fix}"])


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "1"


def _duration(seconds: float) -> str:
    units = ((86400, "days"), (3600, "hours"), (60, "minutes"))
    return next((f"{seconds / size:.1f} {name}" for size, name in units if seconds >= 2 * size), f"{max(1, math.ceil(seconds))} s")


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, math.ceil(count / 2**20))} MiB"
