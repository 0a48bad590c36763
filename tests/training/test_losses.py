"""The losses: torch's values, derivatives that hold, and no broadcasting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import nnrun.training.losses as losses
from nnrun.data.dataset import Task
from nnrun.errors import SpecError
from nnrun.registry import LOSSES
from nnrun.spec.parts import part_class
from nnrun.training.head import Head, head_for

TASKS = {
    "two": Task(("kind",), ("no", "yes")),
    "three": Task(("kind",), ("a", "b", "c")),
    "number": Task(("price",)),
    "numbers": Task(("price", "size")),
}
FITTING = [(loss, task) for loss in LOSSES for task in TASKS if TASKS[task].kind in LOSSES[loss].traits]


def targets(task: Task, rows: int = 6) -> Tensor:
    """Class numbers (N,) with every class present, or numbers (N, T) of 0 or more."""
    if task.classes:
        return torch.arange(rows) % len(task.classes)
    return torch.rand(rows, len(task.targets), dtype=torch.float64) * 3


def case(loss: str, task: str) -> tuple[nn.Module, Head, Tensor, Tensor]:
    """Return a loss with default arguments in float64, its head, outputs (N, K) and targets as the data has them."""
    torch.manual_seed(0)
    part = part_class(LOSSES, loss).model_validate({})
    head = head_for(part, TASKS[task])
    return part.build().double(), head, torch.randn(6, head.outputs, dtype=torch.float64), targets(TASKS[task])


@pytest.mark.parametrize(("loss", "task"), FITTING)
def test_every_loss_is_a_finite_mean_whose_gradient_is_right(loss: str, task: str):
    """Every registered loss is 0-d and finite, and its gradient agrees with numerical differentiation in float64."""
    loss_fn, head, output, y = case(loss, task)
    target = head.encode(y)
    target = target.double() if target.is_floating_point() else target
    value = loss_fn(output, target)
    assert value.shape == ()
    assert value.isfinite()
    assert torch.autograd.gradcheck(lambda o: loss_fn(o, target), output.requires_grad_())


@pytest.mark.parametrize(("loss", "task"), FITTING)
def test_every_loss_is_a_mean_over_rows(loss: str, task: str):
    """Each row given twice leaves the loss as it is: the loop may weigh batches by their rows."""
    loss_fn, head, output, y = case(loss, task)
    once, twice = loss_fn(output, head.encode(y)), loss_fn(torch.cat([output, output]), head.encode(torch.cat([y, y])))
    torch.testing.assert_close(twice, once)


@pytest.mark.parametrize(("loss", "task"), FITTING)
@pytest.mark.parametrize("change", ["flat output", "flat target", "deep target", "wide output", "short target"])
def test_no_loss_broadcasts(loss: str, task: str, change: str):
    """Output and target of shapes that do not belong together are an error, never a value."""
    loss_fn, head, output, y = case(loss, task)
    target = head.encode(y)
    if change == "flat output":
        output = output[:, 0]
    elif change == "flat target":
        target = target[:, 0] if target.ndim == 2 else target[:0]
    elif change == "deep target":
        target = target[:, None]
    elif change == "wide output" and target.ndim == 2:
        output = torch.cat([output, output], 1)
    else:
        target = target[:1]
    with pytest.raises(SpecError, match="the network gives"):
        loss_fn(output, target)


def test_a_column_beside_a_row_is_told_with_both_shapes():
    """The old trap of mse: (N, 1) against (N,) is N² differences in torch."""
    with pytest.raises(SpecError) as error:
        losses.mse()(torch.zeros(4, 1), torch.zeros(4))
    assert str(error.value) == (
        "error: the network gives (4, 1), the targets are (4,), and the loss wants the same shape, one output for each target number\n"
        "fix: end the layers with `flatten` and `{linear: auto}`"
    )
    assert error.value.faults[0].at == ("layers",)


def test_losses_are_those_of_torch():
    """Arguments reach torch: each value is that of torch's function with the same argument."""
    torch.manual_seed(1)
    o, y, t = torch.randn(8, 3), torch.randint(3, (8,)), torch.rand(8, 3)
    log_p, w = o.log_softmax(1), torch.tensor([1.0, 2.0, 3.0])
    weight = [1.0, 2.0, 3.0]
    pairs = [
        (losses.cross_entropy(weight=weight, label_smoothing=0.1)(o, y), F.cross_entropy(o, y, w, label_smoothing=0.1)),
        (losses.nll(weight=weight)(log_p, y), F.nll_loss(log_p, y, w)),
        (losses.bce_with_logits(pos_weight=weight)(o, t), F.binary_cross_entropy_with_logits(o, t, pos_weight=w)),
        (losses.mse()(o, t), F.mse_loss(o, t)),
        (losses.l1()(o, t), F.l1_loss(o, t)),
        (losses.smooth_l1(beta=0.3)(o, t), F.smooth_l1_loss(o, t, beta=0.3)),
        (losses.huber(delta=0.3)(o, t), F.huber_loss(o, t, delta=0.3)),
        (losses.multi_margin(p=2, margin=0.5, weight=weight)(o, y), F.multi_margin_loss(o, y, p=2, margin=0.5, weight=w)),
        (losses.poisson_nll(log_input=False, full=True, eps=0.1)(t, t), F.poisson_nll_loss(t, t, False, True, eps=0.1)),
    ]
    assert [float(ours) for ours, _ in pairs] == [float(theirs) for _, theirs in pairs]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_kl_div_is_never_negative_and_is_zero_when_the_network_is_right(label_smoothing: float):
    """Also for raw scores: a divergence below 0 would mean that the outputs were not taken as a distribution."""
    loss_fn, target = losses.kl_div(label_smoothing=label_smoothing), F.one_hot(torch.arange(3), 3).float()
    torch.manual_seed(2)
    assert all(float(loss_fn(torch.randn(3, 3) * 10 + 50, target)) >= 0 for _ in range(50))
    right = target * (1 - label_smoothing) + label_smoothing / 3
    assert float(loss_fn(right.clamp(min=1e-30).log(), target)) == pytest.approx(0, abs=1e-6)


def test_kl_div_of_log_probabilities_is_that_of_torch():
    """The second log_softmax leaves log-probabilities as they are; the mean is over rows, not over elements."""
    torch.manual_seed(3)
    log_p, target = torch.randn(5, 3).log_softmax(1), F.one_hot(torch.arange(5) % 3, 3).float()
    torch.testing.assert_close(losses.kl_div()(log_p, target), F.kl_div(log_p, target, reduction="batchmean"))


def test_gaussian_nll_reads_means_then_variances():
    """The left half of the outputs are means, the right half variances through softplus."""
    output, y = torch.tensor([[1.0, 2.0, 0.5, -0.5]]), torch.tensor([[1.5, 1.0]])
    wanted = F.gaussian_nll_loss(output[:, :2], y, F.softplus(output[:, 2:]) + 1e-6)
    torch.testing.assert_close(losses.gaussian_nll()(output, y), wanted)


def test_hinge_counts_what_lacks_to_the_margin():
    """Score 0.25 on the right side lacks 0.75 of a margin of 1; 3 on the wrong side lacks 4; 2 on the right side lacks nothing."""
    loss = losses.hinge()(torch.tensor([[0.25], [3.0], [2.0], [-1.0]]), torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]))
    assert float(loss) == (0.75 + 4 + 0 + 0) / 4
