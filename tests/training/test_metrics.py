"""The metrics: scikit-learn's values on random cases, absent classes and single rows among them."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import nnrun.training.losses  # noqa: F401
from nnrun.data.dataset import Task
from nnrun.errors import SpecError
from nnrun.registry import METRICS
from nnrun.training.head import default_loss, head_for
from nnrun.training.metrics import Scored, check_metrics, default_metrics, score

Array = np.ndarray[Any, Any]
MACRO: dict[str, Any] = {"average": "macro", "zero_division": 0.0}
CLASSES = Task(("kind",), ("a", "b", "c"))
NUMBERS = Task(("price",))


def top_two(y: Array, predicted: Array, p: Array) -> float:
    k = p.shape[1]
    return float(sk.top_k_accuracy_score(y, p, labels=range(k))) if k > 2 else 1.0  # of two classes each is among the two


def area(y: Array, predicted: Array, p: Array) -> float:
    if len(set(y)) < p.shape[1]:
        return math.nan
    return float(sk.roc_auc_score(y, p[:, 1] if p.shape[1] == 2 else p, multi_class="ovr"))


OF_CLASSES: dict[str, Callable[[Array, Array, Array], float]] = {
    "accuracy": lambda y, predicted, p: sk.accuracy_score(y, predicted),
    "balanced_accuracy": lambda y, predicted, p: sk.balanced_accuracy_score(y, predicted),
    "f1_macro": lambda y, predicted, p: sk.f1_score(y, predicted, **MACRO),
    "precision_macro": lambda y, predicted, p: sk.precision_score(y, predicted, **MACRO),
    "recall_macro": lambda y, predicted, p: sk.recall_score(y, predicted, **MACRO),
    "f1_weighted": lambda y, predicted, p: sk.f1_score(y, predicted, average="weighted", zero_division=0.0),
    "matthews_corrcoef": lambda y, predicted, p: sk.matthews_corrcoef(y, predicted),
    "roc_auc_ovr": area,
    "log_loss": lambda y, predicted, p: sk.log_loss(y, p, labels=range(p.shape[1])),
    "top_k_accuracy": top_two,
}
OF_NUMBERS: dict[str, Callable[[Array, Array], float]] = {
    "r2": sk.r2_score,
    "explained_variance": sk.explained_variance_score,
    "mae": sk.mean_absolute_error,
    "mse": sk.mean_squared_error,
    "rmse": sk.root_mean_squared_error,
    "mape": sk.mean_absolute_percentage_error,
    "max_error": lambda y, predicted: float(np.mean([sk.max_error(y[:, t], predicted[:, t]) for t in range(y.shape[1])])),
}


def of_task(task: str) -> list[str]:
    return [name for name in METRICS if METRICS[name].traits["task"] == task]


def theirs(call: Callable[..., float], *arrays: Array) -> float:
    """scikit-learn warns where a score is not defined; here only its value counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(call(*arrays))


@st.composite
def classified(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """Class numbers (N,), some classes absent, and probabilities (N, K) with many ties."""
    k = draw(st.integers(2, 6))
    present = draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k))
    y = draw(st.lists(st.sampled_from(present), min_size=1, max_size=30))
    weights = draw(st.lists(st.lists(st.integers(0, 4), min_size=k, max_size=k), min_size=len(y), max_size=len(y)))
    p = np.array(weights, dtype=np.float64) + np.eye(k)[0] * 1e-3
    return np.array(y), p / p.sum(1, keepdims=True), k


@pytest.mark.parametrize("name", of_task("classes"))
@settings(deadline=None)  # the first case imports and warms up
@given(case=classified())
def test_metrics_of_classes_are_those_of_scikit_learn(name: str, case: tuple[Array, Array, int]):
    """To 1e-9, for two to six classes, with absent classes, ties and single rows."""
    y, p, k = case
    predicted = p.argmax(1)
    scored = Scored(torch.tensor(y), torch.tensor(predicted), k, lambda: torch.tensor(p))
    value = score([name], scored)[name]
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(theirs(OF_CLASSES[name], y, predicted, p), abs=1e-9, rel=1e-9, nan_ok=True)


numbers = st.floats(-1000, 1000, width=32) | st.sampled_from([0.0, 1.0])


@st.composite
def measured(draw: st.DrawFn) -> tuple[Array, Array]:
    """Targets (N, T), some columns constant, and predictions beside them, all float32."""
    rows, targets = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    table = st.lists(st.lists(numbers, min_size=targets, max_size=targets), min_size=rows, max_size=rows)
    y = np.array(draw(table), dtype=np.float32)
    if draw(st.booleans()):
        y[:, 0] = y[0, 0]
    predicted = y.copy() if draw(st.booleans()) else np.array(draw(table), dtype=np.float32)
    return y, predicted


@pytest.mark.parametrize("name", of_task("numbers"))
@settings(deadline=None)  # the first case imports and warms up
@given(case=measured())
def test_metrics_of_numbers_are_those_of_scikit_learn(name: str, case: tuple[Array, Array]):
    """To 1e-9 of the value, for one to three targets, with constant columns, perfect predictions and single rows."""
    y, predicted = case
    value = score([name], Scored(torch.tensor(y), torch.tensor(predicted)))[name]
    wanted = theirs(OF_NUMBERS[name], y.astype(np.float64), predicted.astype(np.float64))
    assert isinstance(value, float) or (value.shape == () and value.dtype == torch.float64)
    assert float(value) == pytest.approx(wanted, abs=1e-9, rel=1e-9, nan_ok=True)


def test_every_metric_is_compared():
    """A new metric needs its scikit-learn twin in this file."""
    assert set(METRICS) == set(OF_CLASSES) | set(OF_NUMBERS)


@pytest.mark.parametrize("name", list(METRICS))
def test_better_points_the_right_way(name: str):
    """Perfect predictions are no worse than bad ones."""
    y, bad = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 0])
    if METRICS[name].traits["task"] == "classes":
        hot = torch.eye(3, dtype=torch.float64)
        good, poor = (score([name], Scored(y, to, 3, lambda to=to: hot[to]))[name] for to in (y, bad))
    else:
        good, poor = (score([name], Scored(y[:, None].float(), to[:, None].float()))[name] for to in (y, bad))
    assert good > poor if METRICS[name].traits["better"] == "higher" else good < poor


def test_a_single_row_has_no_r2():
    """As in scikit-learn, which also warns."""
    assert math.isnan(float(score(["r2"], Scored(torch.tensor([[1.0]]), torch.tensor([[1.0]])))["r2"]))


def test_outputs_that_are_not_finite_have_no_area():
    """A network that diverged gets nan, and not a traceback of scikit-learn."""
    p = torch.full((3, 3), math.nan)
    assert math.isnan(float(score(["roc_auc_ovr"], Scored(torch.arange(3), torch.arange(3), 3, lambda: p))["roc_auc_ovr"]))


@pytest.mark.parametrize("name", list(METRICS))
def test_many_draws_at_once_are_each_alone(name: str):
    """With leading dimensions a metric gives for each draw what it gives for that draw by itself."""
    generator = torch.Generator().manual_seed(0)
    rows_BN = torch.randint(30, (2, 3, 30), generator=generator)
    if METRICS[name].traits["task"] == "classes":
        y, p = torch.randint(3, (30,), generator=generator), torch.rand(30, 3, generator=generator, dtype=torch.float64).round(decimals=1)
        alone = [Scored(y[rows], p[rows].argmax(1), 3, lambda rows=rows: p[rows]) for rows in rows_BN.flatten(0, 1)]
        together = Scored(y[rows_BN], p[rows_BN].argmax(-1), 3, lambda: p[rows_BN])
    else:
        y, predicted = torch.randn(2, 30, 2, generator=generator)
        alone = [Scored(y[rows], predicted[rows]) for rows in rows_BN.flatten(0, 1)]
        together = Scored(y[rows_BN], predicted[rows_BN])
    found = METRICS[name].build(together)
    assert found.shape == (2, 3)
    assert found.flatten().tolist() == pytest.approx([float(METRICS[name].build(one)) for one in alone], nan_ok=True)


def test_no_rows_have_no_scores():
    """An empty part is {}, not nan."""
    assert score(["accuracy"], Scored(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 3)) == {}


def test_large_counts_stay_exact():
    """Fifty thousand rows against one: the squares of such counts do not fit into float32."""
    y, predicted = np.zeros(50_001, dtype=int), np.zeros(50_001, dtype=int)
    y[-1] = predicted[-1] = predicted[0] = 1
    value = score(["matthews_corrcoef"], Scored(torch.tensor(y), torch.tensor(predicted), 2))["matthews_corrcoef"]
    assert float(value) == pytest.approx(sk.matthews_corrcoef(y, predicted), rel=1e-12)


def test_scored_comes_from_outputs_and_head():
    """The head's predictions and probabilities, the latter only when a metric asks."""
    head = head_for(default_loss(CLASSES), CLASSES)
    output = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    scored = Scored.of(head, output, torch.tensor([0, 1]))
    assert scored.predicted.tolist() == [0, 2]
    assert scored.classes == 3
    assert "probabilities" not in vars(scored)
    torch.testing.assert_close(scored.probabilities, output.softmax(1).double())
    assert scored.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_metrics_of_another_task_are_all_refused_at_once():
    """One fault for each, at its place in the list."""
    with pytest.raises(SpecError) as error:
        check_metrics(["rmse", "accuracy", "r2"], CLASSES)
    assert str(error.value.faults[0]) == (
        "error: the metric 'rmse' measures numbers, and 'kind' has 3 classes\n"
        "fix: metrics for classes: accuracy, balanced_accuracy, f1_macro, precision_macro, recall_macro, f1_weighted, matthews_corrcoef, "
        "roc_auc_ovr, log_loss, top_k_accuracy"
    )
    assert [fault.at for fault in error.value.faults] == [("metrics", 0), ("metrics", 2)]


def test_metrics_of_classes_are_refused_for_numbers():
    """The sentence names the target."""
    with pytest.raises(SpecError) as error:
        check_metrics(["accuracy"], NUMBERS)
    assert str(error.value) == (
        "error: the metric 'accuracy' measures classes, and 'price' is a number\n"
        "fix: metrics for numbers: r2, explained_variance, mae, mse, rmse, mape, max_error"
    )


@pytest.mark.parametrize("task", [CLASSES, NUMBERS])
def test_the_default_metrics_fit(task: Task):
    """accuracy for classes, rmse and r2 for numbers."""
    assert default_metrics(task) == (["accuracy"] if task.classes else ["rmse", "r2"])
    check_metrics(default_metrics(task), task)


def test_no_metric_imports_scikit_learn():
    """Its import costs a second."""
    code = (
        "import sys, torch\n"
        "from nnrun.training.metrics import METRICS, Scored, score\n"
        "y = torch.tensor([0, 1])\n"
        "names = {task: [n for n in METRICS if METRICS[n].traits['task'] == task] for task in ('classes', 'numbers')}\n"
        "score(names['classes'], Scored(y, y, 2, lambda: torch.eye(2)))\n"
        "score(names['numbers'], Scored(y[:, None], y[:, None]))\n"
        "print('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
