"""One real batch through the untrained network: what the rules on the batch look at, each measured once, at its first use.

Derivatives are taken in float64 on a copy, in evaluation mode, so that neither rounding nor dropout is taken for a fault.
N rows in the batch, K outputs.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from nnrun.check.examined import Examined
from nnrun.data.dataset import HeldRows
from nnrun.data.source import WINDOW, RowSource
from nnrun.errors import DivergedError
from nnrun.model.build import forward_work, layer_table
from nnrun.model.flow import count_parameters
from nnrun.training.device import choose_threads
from nnrun.training.eager import Search
from nnrun.training.loop import row_order, train
from nnrun.training.loss_modules import training_loss
from nnrun.training.network import Network, network_for
from nnrun.training.plan import first_state, make_plan

MOST_ROWS = 64
MOST_VALUES = 10_000_000
"""Of the batch, on its way through the layers."""
MOST_STEPS, FEWEST_STEPS = 20, 3
"""Of training, on a copy; the first of them warm up."""

OVERFIT_ROWS = 4
ATTEMPTS = 4
SECONDS = 1.5
"""How long a trial that could go on and on may take."""

STEP_OF_WEIGHTS = (1e-5, 1e-7)
"""How far weights are moved for a numerical derivative; the smaller step is for a kink that the larger one meets."""


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer on the batch: its length, and how far it is from the numerical one, as a share of it."""

    layer: str
    norm: float
    difference: float


@dataclass(frozen=True)
class Trial:
    """An experiment, and its untrained network."""

    examined: Examined
    network: Network
    device: torch.device

    @classmethod
    def of(cls, examined: Examined, device: torch.device) -> Trial:
        """Build the network of an experiment whose parts are known to fit."""
        data = examined.data
        return cls(examined, network_for(examined.spec, data, device), device)

    @cached_property
    def values(self) -> int:
        """How many values one row makes on its way through the layers."""
        shape = self.examined.data.shape
        return math.prod(shape) + sum(math.prod(row.output_shape) for row in layer_table(self.network.model, shape))

    @cached_property
    def batch(self) -> HeldRows:
        """The first rows that training will see, at most `MOST_ROWS`, and fewer of a network that makes much of them; on the CPU."""
        spec, part = self.examined.spec, self.examined.data.parts["train"]
        size = len(part) if spec.batch_size == "all" else spec.batch_size
        rows = self._order[: max(2, min(size, MOST_ROWS, MOST_VALUES // self.values))].to(part.x.device)
        return HeldRows(part.x[rows].cpu(), part.y[rows].cpu())

    @cached_property
    def _order(self) -> Tensor:
        """The training rows in the order of the first epoch."""
        rows, spec = len(self.examined.data.parts["train"]), self.examined.spec
        return row_order(spec.seed, 1, rows) if spec.shuffle else torch.arange(rows)

    def exact(self) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
        """Return a copy of the network in float64 and evaluation mode, and its loss as a function of (inputs (N, …), targets)."""
        model = copy.deepcopy(self.network.model).cpu().double().eval()
        return model, lambda x, y: self._loss(model(x.double()), y)

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        target = self.network.head.encode(y)
        value: Tensor = self._loss_fn(output, target.double() if target.is_floating_point() else target)
        return value

    @cached_property
    def _loss_fn(self) -> nn.Module:
        return copy.deepcopy(self.network.loss_fn).cpu().double()

    @cached_property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        return count_parameters(self.network.model)

    @cached_property
    def loss_at_start(self) -> float:
        """The loss of the untrained network on the batch."""
        _, loss = self.exact()
        with torch.no_grad():
            return float(loss(self.batch.x, self.batch.y))

    def simplest_loss(self, y: Tensor) -> float | None:
        """Return the loss of the simplest answer: all classes alike, or the mean of the targets; None where the loss has no such value."""
        head = self.network.head
        if head.scores in ("logits", "binary_logits", "margins"):
            output = torch.zeros(len(y), head.outputs, dtype=torch.float64)
        elif head.scores == "log_probabilities":
            output = torch.full((len(y), head.outputs), -math.log(head.outputs), dtype=torch.float64)
        elif head.scores == "values" and head.loss != "gaussian_nll":
            output = head.encode(y).double().mean(0, keepdim=True).expand(len(y), -1)
        else:
            return None
        return float(self._loss(output, y))

    @cached_property
    def gradients(self) -> list[LayerGradient]:
        """The analytic and the numerical gradient of each layer that learns, along one direction for each of its parameters."""
        model, loss = self.exact()
        x, y = self.batch.x[:16], self.batch.y[:16]
        model.zero_grad()
        loss(x, y).backward()  # type: ignore[no-untyped-call]
        draw, began = torch.Generator().manual_seed(0), time.monotonic()
        rows: dict[str, LayerGradient] = {}
        for name, parameter in model.named_parameters():
            layer = name.partition(".")[0]
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            known = rows.get(layer, LayerGradient(layer, 0.0, 0.0))
            along = torch.randn(parameter.shape, dtype=torch.float64, generator=draw)
            along = along / along.norm() + (gradient / gradient.norm() if gradient.norm() > 0 else 0)
            in_time = time.monotonic() - began < SECONDS
            difference = _difference(parameter, gradient, along, lambda: float(loss(x, y))) if in_time else 0.0
            rows[layer] = LayerGradient(layer, math.hypot(known.norm, float(gradient.norm())), max(known.difference, difference))
        return list(rows.values())

    @cached_property
    def mixed(self) -> float:
        """How much the output of a row changes when it is alone and not in the batch, as a share of its size."""
        model, _ = self.exact()
        with torch.no_grad():
            together = model(self.batch.x.double())
            alone = torch.cat([model(self.batch.x[row : row + 1].double()) for row in (0, len(together) - 1)])
        ends = together[[0, -1]]
        return float((alone - ends).abs().max() / (ends.abs().max() + 1e-12))

    @cached_property
    def overfit(self) -> tuple[int, float] | None:
        """A few rows learned by heart: how many, and the loss that was reached, as a share of that of the simplest answer.

        L-BFGS begins at the first weights, then at others. None where the loss has no such answer, or where the time does not suffice.
        """
        head, batch = self.network.head, self.batch
        first = {row.numpy().tobytes(): number for number, row in reversed(list(enumerate(batch.x)))}
        rows = sorted(first.values())[: max(2, min(OVERFIT_ROWS, self.parameters // (2 * head.outputs)))]
        x, y = batch.x[rows], batch.y[rows]
        numbers = head.scores == "values" and not head.task.classes
        if numbers:
            y = y / max(float(y.square().mean().sqrt()), 1e-30)  # the size of the targets is another rule's matter
        simplest = self.simplest_loss(y)
        if simplest and numbers:
            simplest = max(simplest, 0.1)  # years around 2000 need not be told apart
        if len(rows) < 2 or not simplest or simplest < 1e-9:
            return None
        torch.optim.LBFGS([torch.zeros(1)])  # torch's first optimiser imports its compiler for seconds, which are not this network's
        share, until = math.inf, time.monotonic() + SECONDS
        for attempt in range(ATTEMPTS):
            model, loss = self.exact()
            if attempt:
                _draw_weights(model, attempt)
            share = min(share, _least(model, partial(loss, x, y), until) / simplest)
            if share < 0.5:
                break
            if time.monotonic() > until:
                return None
        return len(rows), share

    @cached_property
    def steps(self) -> tuple[list[float], str]:
        """Seconds of each of the first steps of training, on a copy; and what was said when it diverged.

        A batch much larger than the trial's is not run: a part of it is, and takes its share of the time.
        """
        spec, data = self.examined.spec, self.examined.data
        copied, part = copy.deepcopy(self.network.model), data.parts["train"]
        plan, _ = make_plan(spec, data, copied)
        full = min(plan.batch_size, len(part))
        size = min(full, max(2, MOST_VALUES // self.values))
        rows = self._order[: size * MOST_STEPS].to(part.x.device)
        short = replace(plan, epochs=1, batch_size=size, shuffle=False, drop_last=len(rows) % size == 1, row_numbers=None)
        state = first_state(spec, copied, self.device)
        torch.set_num_threads(choose_threads(spec.threads, 3 * forward_work(copied, data.shape) * size))
        seconds: list[float] = []
        began = last = time.perf_counter()
        try:
            some = (part.x[rows], self.network.head.encode(part.y[rows]))
            loss_fn = training_loss(self.network.loss_fn, plan, weighted=False)
            for _ in train(state, loss_fn, some, short, due=lambda state: True):
                now = time.perf_counter()
                seconds.append((now - last) * full / size)
                last = now
                if len(seconds) > FEWEST_STEPS and now - began > SECONDS / 3:
                    break
        except DivergedError as error:
            return seconds, error.faults[0].what
        return seconds, ""

    @cached_property
    def memory(self) -> int:
        """An estimate of the bytes that training takes: data, weights with what the optimiser keeps, and a batch on its way."""
        data, spec = self.examined.data, self.examined.spec
        held = sum(WINDOW if isinstance(part.x, RowSource) else part.x.numel() * part.x.element_size() for part in data.parts.values())
        size = len(data.parts["train"]) if spec.batch_size == "all" else min(spec.batch_size, len(data.parts["train"]))
        return 2 * held + 4 * (4 * self.parameters + 2 * size * self.values)

    @property
    def memory_there(self) -> int:
        """The bytes of memory that the device has; 0 when it does not say."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 0


def _draw_weights(model: nn.Module, seed: int) -> None:
    """Draw the weights anew, as torch draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if callable(getattr(module, "reset_parameters", None)):
                module.reset_parameters()  # type: ignore[operator]


def _least(model: nn.Module, loss: Callable[[], Tensor], until: float) -> float:
    """Return the least loss that L-BFGS finds, until it finds no lower one or the time is over."""
    search = Search([p for p in model.parameters() if p.requires_grad], max_iter=10, line_search_fn="strong_wolfe")
    seen: list[float] = []

    def closure() -> Tensor:
        search.zero_grad()
        value = loss()
        seen.append(value.item())
        if value.requires_grad:
            value.backward()  # type: ignore[no-untyped-call]
        return value

    before = math.inf
    while time.monotonic() < until:
        search.step(closure)  # type: ignore[no-untyped-call]
        if min(seen) < 1e-3 * seen[0] or not min(seen) < 0.999 * before:
            break
        before = min(seen)
    return min(seen, default=math.inf)


def _difference(parameter: nn.Parameter, gradient: Tensor, along: Tensor, loss: Callable[[], float]) -> float:
    """Return how far the derivative along a direction is from the numerical one, as a share of it; the best of two step sizes."""
    analytic, found, weights = float((gradient * along).sum()), math.inf, parameter.data.clone()
    with torch.no_grad():
        for step in STEP_OF_WEIGHTS:
            parameter.data = weights + step * along
            above = loss()
            parameter.data = weights - step * along
            numerical = (above - loss()) / (2 * step)
            size = max(abs(analytic), abs(numerical))
            found = min(found, abs(analytic - numerical) / size if size > 1e-7 else 0.0)
            if found < 1e-5:
                break
    parameter.data = weights
    return found
