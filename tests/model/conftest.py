"""Specs for the tests of the model: only `layers`, `activation` and `seed` matter to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nnrun import builtin as _registers_all_parts  # noqa: F401
from nnrun.spec.experiment import Experiment
from nnrun.spec.reader import check


@pytest.fixture
def spec_of() -> Callable[..., Experiment]:
    """Return a function from `layers:` as a config has it to a checked experiment."""

    def made(*layers: Any, **more: Any) -> Experiment:
        return check({"name": "net", "dataset": "iris", "layers": list(layers), **more})

    return made
