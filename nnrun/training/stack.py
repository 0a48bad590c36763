"""Networks that differ in numbers (seed, lr, decay, dropout), side by side: their weights lie in one tensor, and a step moves all of them.

One `vmap` gives the outputs of each network for its own batch; the gradient of the sum of their losses is that of each, since no network's
loss depends on another's weights; and torch's optimisers work number by number. What that does not hold for is listed in `stackable.py`.

Shapes: M networks that still train, N rows, B rows of a batch, K outputs.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nnrun.data.dataset import Rows
from nnrun.data.source import RowSource, blocks
from nnrun.model.build import passed
from nnrun.training.eager import run_backward
from nnrun.training.evaluate import ROWS_OF_STACK
from nnrun.training.head import Head
from nnrun.training.loop import Moment, Plan, State, row_order, set_lr, stream_seed
from nnrun.training.loss_modules import OfEach
from nnrun.training.metrics import Scored, score
from nnrun.training.paces import Paces
from nnrun.training.step import Use, batch_uses, replayed

GATHERED = 64 << 20
"""Bytes of rows that are gathered at once: an epoch of a small table, a few batches of pictures."""


class Stack:
    """Networks side by side.

    Args:
        seeds: key of a network → its seed.
        models: theirs, in the same order; taken one at a time.
        loss_fn: that of one network.
        shape: of one prepared row.
        paces: learning rates and decays of their own, if they have any.

    Attributes:
        keys: of the networks that still train, in the order of the first dimension.
        model: a module like theirs, each of its weights (M, …).
        train_losses: the loss of each in the epoch that has ended.
    """

    def __init__(
        self,
        seeds: Mapping[int, int],
        models: Iterable[nn.Module],
        loss_fn: nn.Module,
        shape: tuple[int, ...],
        paces: Paces | None = None,
    ) -> None:
        self.keys, self.train_losses, self.paces = list(seeds), [torch.nan] * len(seeds), paces
        chances: dict[str, list[float]] = {}
        for place, model in enumerate(models):
            if place == 0:
                self.model, self._one = copy.deepcopy(model), copy.deepcopy(model)
                for name, tensor in _held(self.model).items():
                    tensor.data = tensor.new_empty(len(seeds), *model.state_dict()[name].shape)
            for name, tensor in model.state_dict().items():
                _held(self.model)[name].data[place] = tensor
            for name, module in model.named_modules():
                if isinstance(module, nn.modules.dropout._DropoutNd):
                    chances.setdefault(name, []).append(module.p)
        self._drops = _make_visible(self._one, shape, chances)
        self.streams = [torch.Generator().manual_seed(stream_seed(seed, "dropout")) for seed in seeds.values()] if self._drops else []
        self._held = _held(self.model)
        self.loss_fn = OfEach(loss_fn)

    def noise(self, rows: int) -> list[Tensor]:
        """Return what dropout multiplies so many rows with, drawn from the streams of the networks: for each layer of it, (M, B, …)."""
        return [drop.draw(self.streams, rows) for drop in self._drops.values()]

    def losses(self, batch: Sequence[Tensor], *, shared: bool) -> Tensor:
        """Return the mean loss (M,) of each network on its batch, (M, B, …); or on one and the same, (B, …), when it is shared.

        Args:
            batch: inputs, targets, perhaps weights, and the noise of these rows.
        """
        parts = len(batch) - len(self._drops)
        x, *rest = batch[:parts]
        drawn = {f"{name}.noise": one for name, one in zip(self._drops, batch[parts:], strict=True)}
        output_MBK = self._run(self._held | drawn, x, shared=shared)
        made: Tensor = self.loss_fn(output_MBK, *(self._for_each(one) if shared else one for one in rest))
        return made

    def _run(self, weights: dict[str, Tensor], x: Tensor, *, shared: bool) -> Tensor:
        """Return the outputs (M, B, K) of inputs (M, B, …), or of (B, …) that all networks get."""
        made: Tensor = vmap(lambda held, x_BD: functional_call(self._one, held, (x_BD,)), in_dims=(0, None if shared else 0))(weights, x)
        return made

    def _for_each(self, one: Tensor) -> Tensor:
        return one.expand(len(self.keys), *one.shape)

    @torch.no_grad()
    def outputs(self, x: Tensor | RowSource) -> Tensor:
        """Return the outputs (M, N, K) of prepared inputs (N, …), in evaluation mode."""
        self._one.eval()
        made = [self._run(self._held, x_BD, shared=True) for x_BD in blocks(x, max(1, ROWS_OF_STACK // len(self.keys)))]
        self._one.train()
        return torch.cat(made, 1)

    @torch.no_grad()
    def figures(self, part: Rows, head: Head, metrics: Sequence[str]) -> list[dict[str, float]]:
        """Return the loss and the metrics of each network over all rows; one wait for the device."""
        output_MNK = self.outputs(part.x)
        y_MN = self._for_each(part.y)
        scored = Scored(y_MN, vmap(head.predict)(output_MNK), len(head.task.classes), partial(vmap(head.probabilities), output_MNK))
        made = {"loss": self.loss_fn(output_MNK, self._for_each(head.encode(part.y))), **score(metrics, scored)}
        rows = torch.stack([figure.to(torch.float32 if part.y.device.type == "mps" else torch.float64) for figure in made.values()], 1)
        return [dict(zip(made, row, strict=True)) for row in rows.tolist()]

    def finite(self) -> list[bool]:
        """Return of each network whether its loss of the epoch and all of its weights are finite."""
        found = torch.stack([weight.isfinite().reshape(len(self.keys), -1).all(1) for weight in self._held.values()]).all(0)
        return [ok and abs(loss) < torch.inf for ok, loss in zip(found.tolist(), self.train_losses, strict=True)]

    def weights(self, key: int) -> dict[str, Tensor]:
        """Return the weights of one network as they are now, without a copy."""
        place = self.keys.index(key)
        return {name: tensor[place] for name, tensor in self.model.state_dict().items()}

    def keep(self, keys: Sequence[int], state: State) -> None:
        """Go on with these networks alone; the others no longer cost anything."""
        places = [self.keys.index(key) for key in keys]
        index = torch.tensor(places, device=state.loss_sum.device, dtype=torch.int64)
        for tensor in self._held.values():
            tensor.data = tensor.data[index]
        left = defaultdict[Any, dict[str, Any]](dict)  # another state, so that nothing holds on to the one before
        for weight, kept in state.optimizer.state.items():
            left[weight] = kept | {name: value[index] for name, value in kept.items() if isinstance(value, Tensor) and value.ndim}
        state.optimizer.state = left
        state.loss_sum = state.loss_sum[index]
        self.streams = [self.streams[place] for place in places] if self.streams else []
        for drop in self._drops.values():
            drop.chances = [drop.chances[place] for place in places]
        if self.paces:
            self.paces.keep(index)
        self.keys = list(keys)


class _Dropped(nn.Module):
    """Dropout whose random numbers come from outside, those that the network would draw by itself.

    Args:
        chances: of each network, the chance of a value, or of a whole channel, to be 0.
        shape: of what is drawn for one row.
    """

    noise: Tensor

    def __init__(self, chances: list[float], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.chances, self.shape = chances, shape
        self.register_buffer("noise", torch.ones(()), persistent=False)

    def draw(self, streams: Sequence[torch.Generator], rows: int) -> Tensor:
        """Return the factors (M, B, …) of a batch; each network draws from its own stream, as torch's dropout does on the CPU."""
        noise = torch.empty(len(streams), rows, *self.shape)
        for one, stream, p in zip(noise, streams, self.chances, strict=True):
            if p:
                one.bernoulli_(1 - p, generator=stream).div_(1 - p)
            else:  # torch draws nothing for it either
                one.fill_(1)
        return noise

    def forward(self, input: Tensor) -> Tensor:
        return input * self.noise if self.training else input


def _make_visible(model: nn.Module, shape: tuple[int, ...], chances: Mapping[str, list[float]]) -> dict[str, _Dropped]:
    """Put dropout whose noise is given in place of each that draws, and return these by name, in the order in which they draw.

    Args:
        chances: name of each dropout → its chance in each network.
    """
    names = {module: name for name, module in model.named_modules()}
    drops = {}
    for module, came, _ in list(passed(model, shape)):
        if isinstance(module, nn.modules.dropout._DropoutNd) and any(chances[names[module]]):
            one = _Dropped(chances[names[module]], came if isinstance(module, nn.Dropout) else (came[0], *(1 for _ in came[1:])))
            model.set_submodule(names[module], one)
            drops[names[module]] = one
    return drops


def _held(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that a checkpoint holds, themselves and no copies."""
    stored = model.state_dict()
    return {name: tensor for name, tensor in (*model.named_parameters(), *model.named_buffers()) if name in stored}


def train_stack(
    state: State, stack: Stack, data: Sequence[Tensor], plans: Mapping[int, Plan], *, due: Callable[[State], bool]
) -> Iterator[Moment]:
    """Train from where `state` stands to the end of the plan, or until no network is left; the caller says between epochs which go on.

    Args:
        state: its loss_sum is (M,).
        data: prepared inputs (N, …), targets (N, …) as the loss wants them, and perhaps weights (N,), on the device.
        plans: key → plan; they differ in the seed alone.
        due: asked after each step whether to yield before the next one.
    """
    plan = next(iter(plans.values()))
    rows = len(data[0])
    uses = batch_uses(rows, plan)
    shuffled = plan.shuffle and plan.batch_size < rows
    shared = not shuffled and not plan.augment
    stack.model.train()
    working: list[int] = []
    while state.epoch < plan.epochs and stack.keys:
        if stack.keys != working:  # their weights lie in other tensors now
            work, working = _work(state, stack, plan, shared=shared), list(stack.keys)
        orders = [row_order(plans[key].seed, state.epoch + 1, rows) for key in stack.keys] if shuffled else []
        lr = set_lr(state, plan, state.epoch + state.batch / len(uses))
        for number, batch in _batches(state, stack.keys, data, orders, plans, uses):
            if plan.by_step:
                lr = set_lr(state, plan, state.epoch + number / len(uses))
            use = uses[number]
            work(use, (*batch, *stack.noise(use.rows)))
            state.step += use.ends_group
            state.rows_seen += use.rows
            state.batch = number + 1
            if use.ends_group and state.batch < len(uses) and due(state):
                yield Moment(state.epoch + 1, state.step, False, lr)

        stack.train_losses = (state.loss_sum / state.rows_seen).tolist()  # the one wait for the device in an epoch
        state.epoch, state.batch, state.rows_seen = state.epoch + 1, 0, 0
        state.loss_sum.zero_()
        yield Moment(state.epoch, state.step, True, lr, sum(stack.train_losses) / len(stack.keys))


def _batches(
    state: State, keys: Sequence[int], data: Sequence[Tensor], orders: Sequence[Tensor], plans: Mapping[int, Plan], uses: Sequence[Use]
) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield the batches of the epoch that are left, with their numbers: (M, B, …) each, or (B, …) when all networks see the same."""
    size, x = plans[keys[0]].batch_size, data[0]
    order_MN = torch.stack(list(orders)).to(x.device) if orders else None
    at_once = max(1, GATHERED // (len(keys) * size * max(1, x[0].numel()) * x.element_size()))
    for first in range(state.batch, len(uses), at_once):
        window = slice(first * size, (first + at_once) * size)
        gathered = [one[window] if order_MN is None else one[order_MN[:, window]] for one in data]
        split = zip(*(torch.split(one, size, 0 if order_MN is None else 1) for one in gathered), strict=True)
        for number, batch in enumerate(list(split)[: len(uses) - first], first):
            yield number, _augmented(data, list(batch), [plans[key] for key in keys], orders, number, state.epoch + 1)


def _augmented(
    data: Sequence[Tensor], batch: list[Tensor], plans: Sequence[Plan], orders: Sequence[Tensor], number: int, epoch: int
) -> list[Tensor]:
    """Return a batch with what each network's own augmentation makes of it; without one, as it is."""
    made, window = [], slice(number * plans[0].batch_size, (number + 1) * plans[0].batch_size)
    for place, plan in enumerate(plans):
        if plan.augment is None:
            return batch
        rows = (orders[place] if orders else torch.arange(len(data[0])))[window]
        made.append(plan.augment(data, tuple(one[place] if orders else one for one in batch), rows, epoch))
    return [torch.stack(parts) for parts in zip(*made, strict=True)]


def _work(state: State, stack: Stack, plan: Plan, *, shared: bool) -> Callable[[Use, tuple[Tensor, ...]], Tensor]:
    """Return what adds the gradients of a batch and its noise, takes the step that may follow, and adds up the losses."""

    def work_out(use: Use, batch: tuple[Tensor, ...]) -> Tensor:
        losses_M = stack.losses(batch, shared=shared)
        run_backward(losses_M.sum() if use.share == 1 else losses_M.sum() * use.share, state.one)
        if use.ends_group:
            _update(state, plan, stack.paces)
        return state.loss_sum.add_(losses_M.detach(), alpha=use.rows)

    return replayed(work_out, state, plan, [*stack.model.modules(), *stack.loss_fn.modules()], rows=0 if shared else 1) or work_out


def _update(state: State, plan: Plan, paces: Paces | None) -> None:
    """Take one step of all networks with the gradients that have been added up."""
    gradients = [parameter.grad for parameter in state.parameters if parameter.grad is not None]
    if plan.clip_grad_norm:
        norms = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        shrink_M = (plan.clip_grad_norm / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(shrink_M.view(-1, *[1] * (gradient.ndim - 1)))
    (paces.step(state) if paces else state.take_step())
    for parameter in state.parameters:
        parameter.grad = None
