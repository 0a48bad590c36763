"""The numbers in the plots: those of scikit-learn where it has them, and hand-made cases where it has not."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from nnrun.report.classes import Judged, calibration, class_plots, class_table, sweep
from nnrun.report.style import drawing, maybe_log, short
from nnrun.report.words import figure, number


def judged(rows: int, classes: int, seed: int) -> Judged:
    """Return random classes, and probabilities that know something of them; rounded, so that many are equal."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, classes, rows)
    score = np.round(draw.random((rows, classes)) + 0.4 * np.eye(classes)[y], 1) + 0.01
    probabilities = score / score.sum(1, keepdims=True)
    return Judged("test", tuple(f"k{k}" for k in range(classes)), y, probabilities.argmax(1), probabilities)


@pytest.mark.parametrize("seed", range(5))
def test_areas_are_those_of_scikit_learn(seed: int):
    """Also with many equal scores."""
    it = judged(60, 4, seed)
    for k in range(4):
        found = sweep(it.y == k, it.probabilities[:, k])
        assert found.roc_area == pytest.approx(roc_auc_score(it.y == k, it.probabilities[:, k]), abs=1e-12)
        assert found.average_precision == pytest.approx(average_precision_score(it.y == k, it.probabilities[:, k]), abs=1e-12)
        assert (found.false_rate[-1], found.true_rate[-1]) == (1, 1)


def test_the_table_of_classes_is_that_of_scikit_learn():
    """A row for each class, with its precision, recall and F1."""
    it = judged(200, 3, 7)
    expected = precision_recall_fscore_support(it.y, it.predicted)
    table = class_table(it)
    for column, values in zip(("precision", "recall", "f1", "rows"), expected, strict=True):
        assert [row[column] for row in table] == pytest.approx(list(values))
    assert sum(row["predicted"] for row in table) == 200


def test_many_classes_are_told_in_words():
    """A matrix of 30 by 30 has no room for numbers: its largest mistakes are in the caption, with their counts and shares."""
    y = np.arange(90) % 30
    predicted = y.copy()
    predicted[[3, 33]] = 4
    probabilities = np.eye(30)[predicted]
    with drawing():
        confusion, *_ = class_plots(Judged("test", tuple(f"k{k}" for k in range(30)), y, predicted, probabilities))
    assert confusion.caption == "Dark is a large share of the true class. Most often taken: k3 as k4 (2 rows, 67%)."


def test_a_class_without_rows_has_no_figures():
    """Neither a recall nor an area: they are not defined, and 0 would be a lie."""
    it = judged(50, 3, 3)
    some = it.y != 2
    row = class_table(Judged("test", it.classes, it.y[some], it.predicted[some], it.probabilities[some]))[2]
    assert (row["rows"], row["recall"], row["ROC area"], row["average precision"]) == (0, None, None, None)


def test_calibration_by_hand():
    """Four rows said with 0.75 of which three are right, four said with 0.95 of which two are: (4·0 + 4·0.45) / 8."""
    said = np.array([0.75] * 4 + [0.95] * 4)
    right = np.array([1, 1, 1, 0, 1, 1, 0, 0])
    rows, mean, accuracy, error = calibration(Judged("test", ("a", "b"), right * 0, 1 - right, np.stack([said, 1 - said], 1)))
    assert error == pytest.approx(0.225)
    assert rows.tolist() == [0, 0, 0, 0, 0, 0, 0, 4, 0, 4]
    assert (mean[7], accuracy[7], accuracy[9]) == pytest.approx((0.75, 0.75, 0.5))


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.98, (0.895, 0.9965), "0.98 [0.90, 1.00]"),
        (0.8523, (0.8452, 0.8591), "0.852 [0.845, 0.859]"),
        (54.7022, (40.1, 75.2), "55 [40, 75]"),
        (1.0, (1.0, 1.0), "1.0000 [1.0000, 1.0000]"),
        (0.5, (None, None), "0.5000"),
        (0.5, None, "0.5000"),
        (None, (0.1, 0.2), "–"),
    ],
)
def test_a_figure_shows_what_its_interval_deserves(value: float | None, interval: tuple[float, float] | None, text: str):
    """No decimal finer than the first digit of half its width, or two when that is small."""
    assert figure(value, interval) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (60000, "60 000"), (0.0, "0.0000"), (0.00012345, "0.0001234"), (7.411e14, "741 100 000 000 000.0"), (float("nan"), "–")],
)
def test_a_number_reads_well(value: float, text: str):
    """Whatever its size."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([1.0, 0.05], True), ([1.0, 0.5], False), ([1.0, 0.0], False), ([1.0, -1.0], False), ([float("nan"), 1.0, 100.0], True), ([], False)],
)
def test_an_axis_is_logarithmic_where_that_serves(values: list[float], logarithmic: bool):
    """When the values span a factor of ten, and all are above 0."""
    axis = Figure().subplots()
    assert maybe_log(axis, values) is logarithmic
    assert axis.get_yscale() == ("log" if logarithmic else "linear")


def test_a_long_or_broken_name_is_one_short_line():
    """As a tick or in a legend."""
    assert short("a\nb\x00  c" + "d" * 30) == "a b c" + "d" * 12 + "…"
    assert short("\n") == "(empty)"
