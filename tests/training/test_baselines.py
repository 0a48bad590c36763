"""Baselines: scikit-learn's numbers without its import, on a budget, and with hands off torch's random stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnrun.data.dataset import Rows, Task
from nnrun.training import baselines
from nnrun.training.baselines import make_baselines
from nnrun.training.metrics import score

LOADERS = {"iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer, "digits": load_digits}


def halves(x: Any, y: Any) -> tuple[Rows, Rows]:
    """Return the rows in an order of no meaning, two thirds and one third; float32, as networks get them."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    rows = Rows(torch.tensor(x, dtype=torch.float32)[order], torch.tensor(y)[order])
    cut = len(x) * 2 // 3
    return Rows(rows.x[:cut], rows.y[:cut]), Rows(rows.x[cut:], rows.y[cut:])


@pytest.mark.parametrize("name", LOADERS)
def test_logistic_regression_is_that_of_scikit_learn(name: str):
    """The same class for every row and the same probabilities; two classes, three, ten; raw columns, constant pixels."""
    x, y = LOADERS[name](return_X_y=True)
    train, test = halves(x, y.astype(np.int64))
    classes = int(y.max()) + 1
    majority, logistic = make_baselines(Task(("y",), tuple(map(str, range(classes)))), train, test, seed=0)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=10_000)).fit(train.x.double().numpy(), train.y.numpy())
    wanted = theirs.predict_proba(test.x.double().numpy())
    assert logistic.name == "logistic_regression"
    assert logistic.scored.predicted.tolist() == theirs.predict(test.x.double().numpy()).tolist()
    assert np.abs(logistic.scored.probabilities.numpy() - wanted).max() < 2e-3
    dummy = DummyClassifier(strategy="prior").fit(train.x, train.y)
    assert majority.scored.predicted.tolist() == dummy.predict(test.x).tolist()
    assert majority.scored.probabilities.numpy() == pytest.approx(dummy.predict_proba(test.x))


@pytest.mark.parametrize("rows", [20, 442])
def test_ridge_is_that_of_scikit_learn(rows: int):
    """With more rows than columns and with fewer, for two targets at once."""
    x, y = load_diabetes(return_X_y=True)
    x = np.hstack([x, x**2, np.ones((len(x), 5))])[:rows]
    train, test = halves(x, np.stack([y, -3 * y + 1], 1)[:rows].astype(np.float32))
    mean, ridge = make_baselines(Task(("a", "b")), train, test, seed=0)
    theirs = make_pipeline(StandardScaler(), Ridge()).fit(train.x.double().numpy(), train.y.double().numpy())
    assert ridge.scored.predicted.numpy() == pytest.approx(theirs.predict(test.x.double().numpy()), rel=1e-4)
    assert mean.scored.predicted.numpy() == pytest.approx(DummyRegressor().fit(train.x, train.y.double()).predict(test.x))


def test_pictures_are_flattened_and_torch_s_stream_stays(monkeypatch: pytest.MonkeyPatch):
    """With a budget for few rows: those are drawn from the seed, the same ones each time, and the number is known."""
    x, y = load_digits(return_X_y=True)
    train, test = halves(x.reshape(-1, 1, 8, 8), y.astype(np.int64))
    task = Task(("digit",), tuple(map(str, range(10))))
    monkeypatch.setattr(baselines, "WORK", baselines.PASSES * 10 * 164 * 150)
    before = torch.get_rng_state()
    once, again, other = (make_baselines(task, train, test, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert once.fitted_rows == 150
    assert torch.equal(once.scored.probabilities, again.scored.probabilities)
    assert not torch.equal(once.scored.probabilities, other.scored.probabilities)
    assert 0.7 < float(score(["accuracy"], once.scored)["accuracy"]) < 0.95


def test_what_cannot_be_fitted_fairly_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """Fewer rows than a hundred of many are no baseline; a small part is fitted whole."""
    x, y = load_digits(return_X_y=True)
    train, test = halves(x, y.astype(np.int64))
    task = Task(("digit",), tuple(map(str, range(10))))
    monkeypatch.setattr(baselines, "WORK", baselines.PASSES * 10 * 164 * 99)
    assert [one.name for one in make_baselines(task, train, test, 0)] == ["majority"]
    assert [one.name for one in make_baselines(task, Rows(train.x[:60], train.y[:60]), test, 0)] == ["majority", "logistic_regression"]
