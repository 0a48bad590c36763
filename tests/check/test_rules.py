"""The rules on the gallery: each finds its faults and is silent once they are mended; sound experiments are left alone.

`make check-rules` measures all of it, with real tables besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from typer.testing import Result

from nnrun.check.rules import SEVERITIES
from nnrun.registry import RULES
from tests.check.gallery import BASES, BEFORE, FAULTS, REAL, SOUND, Case, codes, own_layers, sound_reports
from tests.check.page import STAGES, page
from tests.check.test_command import Call
from tests.conftest import ROOT

SAMPLE = [case for code, cases in groupby(FAULTS, key=lambda case: case.code) for case in (cases if code < "NN2" else [next(cases)])]


@pytest.fixture
def layers() -> Iterator[None]:
    with own_layers():
        yield


def test_every_rule_is_in_the_gallery_twice():
    """In different dress, and at least sixty faults and sixty sound experiments in all."""
    for code in BEFORE:
        assert sum(case.code == code for case in FAULTS) >= 2, code
    assert len({(case.base, *case.fault, case.title) for case in FAULTS}) == len(FAULTS) >= 60
    assert len(SOUND) + len(REAL) + len(list((ROOT / "configs").glob("*.yaml"))) >= 60


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_a_fault_is_found_and_its_mend_is_not(case: Case, tmp_path: Path, layers: None):
    """Every fault of the config, and one for each other rule."""
    assert case.code in codes(case, tmp_path, mended=False)
    assert case.code not in codes(case, tmp_path, mended=True)


def test_sound_experiments_are_left_alone(tmp_path: Path):
    """Those that are written in the gallery, and the configs of the project on tables: no error and no warning."""
    for title, report in sound_reports(tmp_path, real=False, pictures=False):
        assert [str(one) for one in report.advice if one.severity != "note"] == [], title
        assert report.stopped is None


def test_every_rule_says_what_it_must():
    """A stage, a severity, a title and a reason."""
    for code in RULES:
        assert RULES[code].traits["severity"] in SEVERITIES
        assert RULES[code].traits["on"] in STAGES
        assert RULES[code].summary.endswith(".")
        assert RULES[code].body, code


def test_the_page_is_that_of_the_registry():
    """`python -m tests.check.page` writes it anew."""
    assert (ROOT / "docs" / "checks.md").read_text() == page()


def test_the_showpiece(call: Call):
    """The raw breast-cancer columns: the fault in numbers, the mend in one line, and with it a clean check and 0.95."""
    config = ROOT / "configs" / "breast_cancer_raw.yaml"
    told: Result = call("check", config, "--json")
    first = json.loads(told.stdout)["findings"][0]
    assert first["code"] == "NN201"
    assert "'worst area' is around 1.03e+03, 'fractal dimension error' around 0.0049 (210,892 times smaller)" in first["evidence"]
    assert first["fix"] == "preprocess: [standardize]"
    mend = "--set", first["fix"].replace(": ", "=", 1)
    mended = json.loads(call("check", config, *mend, "--json").stdout)
    assert (mended["errors"], mended["warnings"]) == (0, 0)
    trained = json.loads(call("train", config, *mend, "--json", "-q").stdout)
    assert trained["metrics"]["test"]["accuracy"] >= 0.95
    assert trained["notes"] == []


def test_every_base_is_used():
    """Nothing in the gallery is there for nothing."""
    assert {case.base for case in FAULTS} | {base for base, *_ in SOUND} == set(BASES)
