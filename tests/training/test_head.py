"""What follows from a loss and a task: the width, the targets, the predictions, the probabilities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_losses import FITTING, TASKS, case, targets
from torch import Tensor

from nnrun.data.dataset import Task
from nnrun.errors import DataError, SpecError
from nnrun.registry import LOSSES
from nnrun.spec.parts import part_class
from nnrun.training.head import Head, default_loss, head_for

IRIS = Task(("species",), ("setosa", "versicolor", "virginica"))
Y = torch.tensor([0, 2, 1])


def head(loss: str, task: Task, **arguments: Any) -> Head:
    return head_for(part_class(LOSSES, loss).model_validate(arguments), task)


def refused(loss: str, task: Task, **arguments: Any) -> SpecError:
    with pytest.raises(SpecError) as error:
        head(loss, task, **arguments)
    return error.value


WIDTHS = [
    ("cross_entropy", "two", 2),
    ("cross_entropy", "three", 3),
    ("bce_with_logits", "two", 1),
    ("bce_with_logits", "three", 3),
    ("hinge", "two", 1),
    ("hinge", "three", 3),
    ("mse", "two", 2),
    ("mse", "number", 1),
    ("mse", "numbers", 2),
    ("gaussian_nll", "number", 2),
    ("gaussian_nll", "numbers", 4),
    ("poisson_nll", "numbers", 2),
]


@pytest.mark.parametrize(("loss", "task", "outputs"), WIDTHS)
def test_the_last_layer_is_as_wide_as_the_loss_wants(loss: str, task: str, outputs: int):
    """One score for two classes in a binary loss, two outputs for each number in gaussian_nll, else one for each class or number."""
    assert head(loss, TASKS[task]).outputs == outputs


ENCODINGS = [
    ("cross_entropy", "three", [0, 2, 1], torch.int64),
    ("kl_div", "three", [[1, 0, 0], [0, 0, 1], [0, 1, 0]], torch.float32),
    ("mse", "three", [[1, 0, 0], [0, 0, 1], [0, 1, 0]], torch.float32),
    ("hinge", "three", [[1, -1, -1], [-1, -1, 1], [-1, 1, -1]], torch.float32),
    ("bce_with_logits", "three", [[1, 0, 0], [0, 0, 1], [0, 1, 0]], torch.float32),
]


@pytest.mark.parametrize(("loss", "task", "wanted", "dtype"), ENCODINGS)
def test_classes_are_written_as_the_loss_wants_them(loss: str, task: str, wanted: list[Any], dtype: torch.dtype):
    """Numbers, one-hot rows, or ±1."""
    encoded = head(loss, TASKS[task]).encode(Y)
    assert encoded.dtype == dtype
    assert encoded.tolist() == wanted


def test_two_classes_are_one_column_for_a_binary_loss():
    """(N, 1), so that it meets outputs (N, 1) and not (N,)."""
    y = torch.tensor([0, 1, 1])
    assert head("bce_with_logits", TASKS["two"]).encode(y).tolist() == [[0], [1], [1]]
    assert head("hinge", TASKS["two"]).encode(y).tolist() == [[-1], [1], [1]]


@pytest.mark.parametrize(("loss", "task"), FITTING)
def test_encode_is_what_the_loss_takes_and_predict_undoes_it(loss: str, task: str):
    """For every loss and task: shapes meet, and training on one small problem brings the predictions to the targets."""
    loss_fn, made, _, y = case(loss, task)
    output = torch.zeros(6, made.outputs, dtype=torch.float64, requires_grad=True)
    target = made.encode(y)
    optimizer = torch.optim.Adam([output], lr=0.03, fused=True)
    for _ in range(300):
        optimizer.zero_grad()
        loss_fn(output.log_softmax(1) if loss == "nll" else output, target if target.dtype == torch.int64 else target.double()).backward()
        optimizer.step()
    predicted = made.predict(output.detach())
    assert predicted.dtype == y.dtype
    torch.testing.assert_close(predicted, y, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(("loss", "task"), [(loss, task) for loss, task in FITTING if TASKS[task].classes])
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_probabilities_add_to_one_and_agree_with_predictions(loss: str, task: str, size: float):
    """Rows (N, K) add to 1, also for scores so large that exp would overflow, and the most probable class is the predicted one."""
    made = head(loss, TASKS[task])
    torch.manual_seed(0)
    output = torch.randn(50, made.outputs, dtype=torch.float64) * size
    p = made.probabilities(output)
    assert p.shape == (50, len(TASKS[task].classes))
    torch.testing.assert_close(p.sum(1), torch.ones(50, dtype=torch.float64))
    best = p.gather(1, made.predict(output)[:, None])[:, 0]
    torch.testing.assert_close(best, p.amax(1))


def test_probabilities_of_each_kind_of_score():
    """Softmax of logits, exp of log-probabilities, a sigmoid for two classes, normalised sigmoids one against the rest."""
    o = torch.tensor([[0.3, -1.0, 2.0]])
    torch.testing.assert_close(head("cross_entropy", IRIS).probabilities(o), o.softmax(1))
    torch.testing.assert_close(head("nll", IRIS).probabilities(o.log_softmax(1)), o.log_softmax(1).exp())
    torch.testing.assert_close(head("bce_with_logits", IRIS).probabilities(o), o.sigmoid() / o.sigmoid().sum())
    torch.testing.assert_close(
        head("bce_with_logits", TASKS["two"]).probabilities(o[:, :1]), torch.stack([1 - o[0, :1].sigmoid(), o[0, :1].sigmoid()], 1)
    )


@pytest.mark.parametrize("loss", [loss for loss, task in FITTING if task == "three"])
def test_a_reader_can_tell_probabilities_from_scores(loss: str):
    """Only losses of probabilities are calibrated."""
    assert head(loss, IRIS).calibrated == (loss in ("cross_entropy", "nll", "bce_with_logits", "kl_div"))


def test_numbers_come_in_the_unit_of_the_target():
    """poisson_nll's outputs are logarithms unless log_input is false; gaussian_nll's left half are the means."""
    assert head("poisson_nll", TASKS["number"]).predict(torch.tensor([[0.0]])).tolist() == [[1.0]]
    assert head("poisson_nll", TASKS["number"], log_input=False).predict(torch.tensor([[2.0]])).tolist() == [[2.0]]
    assert head("gaussian_nll", TASKS["numbers"]).predict(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[1.0, 2.0]]


def test_a_loss_of_classes_is_refused_for_numbers():
    """The sentence says what the target is; the fix lists what fits."""
    error = refused("cross_entropy", TASKS["numbers"])
    assert str(error) == (
        "error: the loss 'cross_entropy' compares classes, and 'price', 'size' are numbers\n"
        "fix: losses for numbers: mse, l1, smooth_l1, huber, poisson_nll, gaussian_nll"
    )
    assert error.faults[0].at == ("loss",)


def test_a_loss_of_numbers_is_refused_for_classes():
    """The sentence says what the target is; the fix lists what fits."""
    assert str(refused("poisson_nll", IRIS)) == (
        "error: the loss 'poisson_nll' compares numbers, and 'species' has 3 classes: 'setosa', 'versicolor', 'virginica'\n"
        "fix: losses for classes: cross_entropy, nll, bce_with_logits, mse, l1, smooth_l1, huber, multi_margin, kl_div, hinge"
    )


@pytest.mark.parametrize(("loss", "argument"), [("cross_entropy", "weight"), ("multi_margin", "weight"), ("bce_with_logits", "pos_weight")])
def test_weights_must_be_as_many_as_classes(loss: str, argument: str):
    """A list of another length points at the argument and shows the order."""
    error = refused(loss, IRIS, **{argument: [1.0, 2.0]})
    assert str(error) == (
        f"error: {argument} has 2 numbers, and 'species' has 3 classes: 'setosa', 'versicolor', 'virginica'\n"
        f"fix: write {argument} as a list of 3, in this order"
    )
    assert error.faults[0].at == ("loss", argument)


def test_two_classes_want_one_pos_weight():
    """It is that of the second class."""
    assert str(refused("bce_with_logits", TASKS["two"], pos_weight=[1.0, 2.0])) == (
        "error: pos_weight has 2 numbers, and two classes want one: the weight of 'yes'\n"
        "fix: write pos_weight as a list of 1, in this order"
    )


def test_one_class_is_nothing_to_learn():
    """A target with a single class is refused before training."""
    assert str(refused("cross_entropy", Task(("kind",), ("only",)))) == (
        "error: the target 'kind' has one class only, 'only': there is nothing to tell apart\nfix: name another target"
    )


def test_counts_below_zero_are_refused():
    """poisson_nll would take them and mean nothing."""
    made = head("poisson_nll", TASKS["number"])
    made.check(torch.tensor([[0.0], [3.0]]))
    with pytest.raises(SpecError) as error:
        made.check(torch.tensor([[-2.0], [3.0]]))
    assert str(error.value) == (
        "error: poisson_nll counts events, and the smallest target is -2\nfix: write `loss: mse`, or `loss: gaussian_nll`"
    )


@pytest.mark.parametrize(("y", "wrong"), [([0, 3], 3), ([-1, 2], -1)])
def test_class_numbers_out_of_range_are_refused(y: list[int], wrong: int):
    """On CUDA they would end the process."""
    with pytest.raises(DataError) as error:
        head("cross_entropy", IRIS).check(torch.tensor(y))
    assert str(error.value) == f"error: the targets hold the class number {wrong}, and there are 3 classes, numbered from 0"


WRONG_TARGETS = [
    ("three", torch.zeros(4, 1), "class numbers must be int64 of shape (N,), and the targets are float32 of shape (4, 1)"),
    ("number", torch.zeros(4), "the targets must be floating-point numbers of shape (N, 1), and are float32 of shape (4,)"),
    ("numbers", torch.zeros(4, 1), "the targets must be floating-point numbers of shape (N, 2), and are float32 of shape (4, 1)"),
]


@pytest.mark.parametrize(("task", "y", "sentence"), WRONG_TARGETS)
def test_targets_of_another_shape_are_refused(task: str, y: Tensor, sentence: str):
    """Before they can broadcast."""
    with pytest.raises(DataError) as error:
        head("mse", TASKS[task]).encode(y)
    assert str(error.value) == f"error: {sentence}"


def test_outputs_of_another_width_are_refused():
    """Five scores for three classes would predict a class that does not exist."""
    with pytest.raises(SpecError) as error:
        head("cross_entropy", IRIS).predict(torch.zeros(2, 5))
    assert str(error.value) == (
        "error: the network gives (2, 5), and cross_entropy wants (N, 3)\nfix: end the layers with `flatten` and `{linear: auto}`"
    )


def test_the_default_loss_follows_the_task():
    """cross_entropy for classes, mse for numbers."""
    assert default_loss(IRIS).entry.name == "cross_entropy"
    assert default_loss(TASKS["number"]).entry.name == "mse"


def test_check_accepts_what_fits():
    """Every fitting pair accepts its own targets, and no rows at all."""
    for loss, task in FITTING:
        head(loss, TASKS[task]).check(targets(TASKS[task]))
        head(loss, TASKS[task]).check(targets(TASKS[task])[:0])
