"""Preprocessing: scikit-learn's figures, fitted on what it is given alone, replayed from what it learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import nnrun.data.preprocess  # registers the steps
from nnrun.data.preprocess import apply_steps, fit_steps
from nnrun.data.source import ROWS_AT_ONCE
from nnrun.errors import DataError
from nnrun.registry import PREPROCESS
from nnrun.spec.parts import Part, part_class

assert nnrun.data.preprocess


def steps(*written: str | dict[str, Any]) -> list[Part]:
    """Return steps from their names, or from {name: arguments}."""
    pairs = [(one, {}) if isinstance(one, str) else next(iter(one.items())) for one in written]
    return [part_class(PREPROCESS, name).model_validate(arguments) for name, arguments in pairs]


def table(rows: int = 100, columns: int = 4) -> torch.Tensor:
    """Return numbers of different sizes in each column."""
    x_ND = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    return x_ND * torch.tensor([1e-3, 1.0, 50.0, 1e4])[:columns] + torch.tensor([0.0, -7.0, 1e3, 1e6])[:columns]


@pytest.mark.parametrize(("name", "theirs"), [("standardize", StandardScaler()), ("minmax", MinMaxScaler())])
@pytest.mark.parametrize("rows", [3, 100, ROWS_AT_ONCE + 5])
def test_scalers_are_those_of_scikit_learn(name: str, theirs: Any, rows: int) -> None:
    """Fitted on one part and applied to another, the numbers are scikit-learn's in float64, rounded to float32."""
    train, other = table(rows), table(7) * 1.5
    expected = theirs.fit(train.double().numpy()).transform(other.double().numpy())
    found = apply_steps(steps(name), fit_steps(steps(name), train), other)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["standardize", "minmax"])
def test_a_constant_column_is_divided_by_one(name: str) -> None:
    """A column without any spread becomes zeros, also where the mean does not come out even."""
    x = torch.full((1000, 2), 0.1)
    fitted = fit_steps(steps(name), x)
    assert apply_steps(steps(name), fitted, x).abs().max() < 1e-9
    assert apply_steps(steps(name), fitted, x + 1).sub(1).abs().max() < 1e-6


def test_standardize_over_all() -> None:
    """`over: all` has one mean and one deviation, as in (x - x.mean()) / x.std(unbiased=False)."""
    x = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8)
    expected = (x.double() - x.double().mean()) / x.double().std(correction=0)
    found = apply_steps(steps({"standardize": {"over": "all"}}), fit_steps(steps({"standardize": {"over": "all"}}), x), x)
    torch.testing.assert_close(found, expected.float())


def test_pictures() -> None:
    """pixels divides bytes by 255, pad adds zeros on four sides, flatten makes rows of numbers."""
    x = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    chain = steps("pixels", {"pad": {"by": 2}}, "flatten")
    found = apply_steps(chain, fit_steps(chain, x), x)
    inner = found.reshape(3, 1, 32, 32)[:, :, 2:30, 2:30]
    assert torch.equal(inner, x.float() / 255)
    assert found.shape == (3, 1024)
    assert int((found != 0).sum()) == int((inner != 0).sum())


def test_scale_multiplies() -> None:
    """`scale` multiplies, so 0.0625 brings 16 to 1."""
    chain = steps({"scale": {"by": 0.0625}})
    assert apply_steps(chain, fit_steps(chain, torch.tensor([[16.0, 4.0]])), torch.tensor([[16.0, 4.0]])).tolist() == [[1.0, 0.25]]


def test_each_step_is_fitted_on_what_the_one_before_gives() -> None:
    """A scaler after a scaler learns from scaled rows."""
    x = table()
    fitted = fit_steps(steps({"scale": {"by": 100.0}}, "standardize"), x)
    torch.testing.assert_close(fitted[1]["mean"], (x * 100).double().mean(0))
    assert fitted[0] == {}


def test_without_steps_bytes_become_float() -> None:
    """The result is float32 in any case; no rows are no trouble."""
    assert apply_steps([], [], torch.tensor([[1, 2]], dtype=torch.uint8)).dtype == torch.float32
    fitted = fit_steps(steps("standardize", "flatten"), table())
    assert apply_steps(steps("standardize", "flatten"), fitted, table()[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("written", "told", "at"),
    [
        (
            {"pad": {"by": 2}},
            "error: pad wants pictures (rows, channels, height, width), and a row here has the shape [4]\n"
            "fix: remove the step, or put it before flatten",
            (),
        ),
        ({"pad": {"by": -1}}, "error: pad by -1 would cut pixels off\nfix: write a number of pixels, such as 2", ("by",)),
        (
            "pixels",
            "error: pixels wants bytes from 0 to 255, and the inputs are float32\n"
            "fix: write `{scale: 0.0625}` for numbers from 0 to 16, or put pixels first",
            (),
        ),
    ],
)
def test_a_step_that_does_not_suit_is_named(written: Any, told: str, at: tuple[str, ...]) -> None:
    """The fault points at the step in the config and says which shape or type it found."""
    chain = steps("standardize", written)
    with pytest.raises(DataError) as caught:
        apply_steps(chain, fit_steps(chain, table()), table())
    assert str(caught.value) == told
    assert caught.value.faults[0].at == ("preprocess", 1, *at)


def test_other_columns_than_those_fitted_are_refused() -> None:
    """A fitted step is not spread over rows of another shape."""
    with pytest.raises(DataError) as caught:
        apply_steps(steps("minmax"), fit_steps(steps("minmax"), table()), table()[:, :1])
    assert str(caught.value) == (
        "error: the step was fitted on rows of the shape [4], and a row here has [1]\nfix: give the inputs that the network was trained on"
    )
