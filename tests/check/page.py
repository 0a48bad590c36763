"""`docs/checks.md`, made of the registry and of the gallery's first fault for each rule: `python -m tests.check.page` writes it."""

from __future__ import annotations

import tempfile
from itertools import groupby
from pathlib import Path

from nnrun.registry import RULES
from tests.check.gallery import BASES, FAULTS, ROOT, Case, own_layers, report_of

HEAD = """\
# What `nnrun check` looks for

Made from the rules themselves by `python -m tests.check.page`; `nnrun list rules NN201` says the same on the command line.

An **error** surely makes the result wrong or meaningless: `check` and `train` exit with 5. A **warning** is a likely mistake: `train` says it
once. A **note** is worth knowing, and only `check` says it. What is meant is silenced in the config: `ignore: [NN213]`.

How well the rules do is measured, not believed: `make check-rules` asks them about a gallery of faulty experiments and their mends, and about
sound ones, among them the configs of this project and real tables, and prints for each rule what it found and where it was wrong.
"""
STAGES = {
    "config": "The config alone (`check --fast`, `check`, `train`)",
    "data": "The data (`check`, `train`)",
    "plan": "Network and data together (`check`; `train` refuses by itself)",
    "batch": "One real batch through the untrained network (`check`)",
    "weights": "The network while it trains (`train`)",
    "losses": "The losses while it trains (`train`)",
    "outcome": "The predictions at the end (`train`)",
}


def page() -> str:
    """Return the page: for each rule its severity, its reason and an example of what it says."""
    first = {code: next(cases) for code, cases in groupby(FAULTS, key=lambda case: case.code)}
    parts = [HEAD]
    for stage, title in STAGES.items():
        parts.append(f"## {title}\n")
        for code in sorted(code for code in RULES if RULES[code].traits["on"] == stage):
            rule = RULES[code]
            body = f"**{rule.traits['severity']}** · {rule.summary}\n\n{rule.body}\n"
            parts.append(f"### {code}\n\n{body}{_example(first[code]) if stage in ('config', 'data') else ''}")
    return "\n".join(parts)


def _example(case: Case) -> str:
    """Return what the rule says of a fault, and of which."""
    with tempfile.TemporaryDirectory() as folder, own_layers():
        found = [one.finding for one in report_of(case, Path(folder), mended=False).advice if one.rule.name == case.code]
    written = case.fault or BASES[case.base].splitlines()[:1]
    return f"\nFor example, {case.title} (`{'`, `'.join(written)}`): {found[0].evidence}. Fix: {found[0].fix}.\n"


if __name__ == "__main__":
    (ROOT / "docs" / "checks.md").write_text(page())
