"""Many processes that train one network: each takes its slice of every batch, and what must be the same in all is settled here.

The order of the rows is that of one process; of a batch each process has consecutive rows, the first ones a row more where they cannot be
shared evenly. One without a row takes a row that does not count: all take part in every exchange. Exchanges are torch.distributed's own,
NCCL between CUDA devices and gloo for all else; what is agreed on between steps goes through the CPU, so that no device is waited for.

Shapes: N rows, B rows of a batch, K outputs, W processes.
"""

from __future__ import annotations

import contextlib
import json
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nnrun.errors import EnvironmentFault
from nnrun.peers import Peers, asked, noted
from nnrun.training.batch_norm import SyncedBatchNorm
from nnrun.training.group import Figures, Group, Strategy
from nnrun.training.loss_modules import divisor
from nnrun.training.shards import is_share, own, share_of, whole

NOTE = timedelta(seconds=3)
"""How long a process that has lost another waits for the others to note that they have lost it too."""
FOLDER = "folder"
KEPT: list[object] = []
"""The exchange itself, to the end of the process: torch 2.13 can wait for ever where the last one to let go of it is a network."""


class Processes(Group):
    """The processes of a launcher, once they have met.

    Attributes:
        counts: whether this process has a row of the batch that comes; its stand-in does not count.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self.rank, self.world_size = peers.rank, peers.world_size
        self.local_rank, self.local_world_size = peers.local_rank, peers.local_world_size
        self.counts = True
        self._step = 0
        self._module: nn.Module | None = None
        self._shards = False
        self._asked: tuple[dist.Work, Tensor] | None = None

    def shards(self, strategy: Strategy) -> bool:
        """Return whether this process will hold no more than a share of a network."""
        return strategy.shards

    def take(self, model: nn.Module, strategy: Strategy, device: torch.device, *, sync_batch_norm: bool) -> None:
        """Share a network with the others, before its optimizer is made."""
        if sync_batch_norm:
            SyncedBatchNorm.put_into(model, self)
        self._module, self._shards = strategy.wrap(model, self, device), strategy.shards

    def loss(self, model: nn.Module, loss_fn: nn.Module, batch: Sequence[Tensor], rows: int, *, step: int, last: bool) -> Tensor:
        """Return what this process's rows contribute to the mean loss, 0-d, of a batch; see `Group.loss`.

        A loss that is not finite makes the gradient of it so in all processes: none takes a step that another refuses.
        """
        self._step = step
        first, end = self._share(rows)
        self.counts = end > first
        with self._adding(last=last):
            loss: Tensor = loss_fn((self._module or model)(batch[0]), *batch[1:])
        share: Tensor | float = (end - first) / rows
        if (weights := divisor(loss_fn, batch)) is not None:
            own = weights if self.counts else torch.zeros_like(weights)
            share = own / self.total(own).clamp(min=torch.finfo(own.dtype).tiny)
        return loss * (share + 0 * loss.detach())

    def give_out(self, tensors: Iterable[Tensor]) -> None:
        """Fill tensors with what the first process has in them."""
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def _adding(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a forward pass: gradients stay in this process unless a step follows, or it has no room for them."""
        at_once = last or self._shards or self._module is None
        return contextlib.nullcontext() if at_once else self._module.no_sync()  # type: ignore[operator, union-attr]

    def _share(self, rows: int, rank: int | None = None) -> tuple[int, int]:
        """Return from where to where a process's rows of a batch go; by default this one's."""
        rank = self.rank if rank is None else rank
        each, more = divmod(rows, self.world_size)
        first = rank * each + min(rank, more)
        return first, first + each + (rank < more)

    def notes(self, rows: int) -> list[str]:
        """Return how batches of so many rows are shared."""
        each, more = divmod(rows, self.world_size)
        shares = f"{each + 1} rows for {more} of them, {each} for the others" if more else f"{each} rows each"
        return [f"{self.world_size} processes share each batch of {rows} rows: {shares}"]

    def size(self, batch_size: int) -> int:
        """Return how many rows of a whole batch are gathered here: at least one."""
        first, end = self._share(batch_size)
        return max(1, end - first)

    def own(self, order: Tensor | None, rows: int, batch_size: int) -> Tensor:
        """Return the numbers of the rows that are gathered here, of all rows in their order."""
        order = torch.arange(rows) if order is None else order
        whole = rows - rows % batch_size
        return torch.cat([self._slice(order[:whole].view(-1, batch_size)), self._slice(order[whole:].view(1, -1))])

    def _slice(self, batches: Tensor) -> Tensor:
        """Return this process's slices, one after another, of numbers (batches, B)."""
        first, end = self._share(batches.shape[1])
        return (batches[:, first:end] if end > first else batches[:, :1]).flatten()

    def total(self, number: Tensor) -> Tensor:
        """Return the sum of a number over the processes."""
        summed = number.detach().clone()
        dist.all_reduce(summed)
        return summed

    def gradients(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """Return the gradient of a loss that all processes have, 0-d, beside those that `.grad` holds; shares come there alone."""
        if not self._shards:
            return super().gradients(loss, parameters)
        kept = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        found = [parameter.grad for parameter in parameters]
        for parameter, grad in zip(parameters, kept, strict=True):
            parameter.grad = grad
        return found

    def norms(self, tensors: Iterable[Tensor]) -> list[float]:
        """Return the norm of each tensor."""
        if not self._shards:
            return super().norms(tensors)
        squares = torch.stack([torch.linalg.vector_norm(own(one)).double().square() for one in tensors])
        numbers: list[float] = self.total(squares).sqrt().tolist()
        return numbers

    def whole_ones(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors to write; one at a time is made whole, and the first process alone keeps it, on the CPU."""
        made = {}
        for name, tensor in tensors.items():
            found = whole(tensor)
            if not is_share(tensor):
                made[name] = tensor
            elif self.first:
                made[name] = found.cpu()
        return made

    def stretch(self, rows: int, at_once: int) -> tuple[int, int]:
        """Return from which row to which this process works out outputs: whole blocks, so that each has the bits it has in one process.

        Each has as many blocks, since all may have to take part in a pass: some are worked out twice where they cannot be shared evenly.
        """
        begins, each = self._stretches(rows, at_once)
        first = begins[self.rank]
        return first * at_once, min(rows, (first + each) * at_once)

    def _stretches(self, rows: int, at_once: int) -> tuple[list[int], int]:
        """Return with which block each process begins, and how many it has."""
        blocks = math.ceil(rows / at_once)
        each = math.ceil(blocks / self.world_size)
        return [min(rank * each, blocks - each) for rank in range(self.world_size)], each

    def whole(self, made: Tensor, rows: int, at_once: int) -> Tensor:
        """Return the outputs (N, K) of all rows from those of each process's stretch."""
        if rows <= at_once:
            return made
        begins, each = self._stretches(rows, at_once)
        padded = made.new_zeros(each * at_once, *made.shape[1:])
        padded[: len(made)] = made
        found = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(found, padded)
        ends = [*begins[1:], begins[-1] + each]
        return torch.cat([one[: (end - first) * at_once] for one, first, end in zip(found, begins, ends, strict=True)])[:rows]

    def wished(self, wish: bool) -> bool:
        """Return after a step whether any process wished for a pause the step before, in all alike.

        The wishes travel while the next step is computed.
        """
        found = False
        if self._asked:
            work, answer = self._asked
            work.wait()
            found = bool(answer.item())
        answer = torch.tensor([int(wish)])
        self._asked = (dist.all_reduce(answer, op=dist.ReduceOp.MAX, async_op=True), answer)
        return found

    def agreed(self, stop: int, save: bool) -> tuple[int, bool]:
        """Return the number of a signal to stop for, and whether to save, if any process wants it."""
        both = torch.tensor([stop, int(save)])
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        number, wanted = both.tolist()
        return number, bool(wanted)

    def told(self, say: Callable[[], str]) -> str:
        """Return the words of the first process, which all wait for."""
        words = say().encode() if self.first else b""
        length = torch.tensor([len(words)])
        dist.broadcast(length, 0)
        text = torch.tensor(list(words), dtype=torch.uint8) if self.first else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, 0)
        return bytes(text.tolist()).decode()

    def wait(self) -> None:
        """Go on when all have come here."""
        dist.all_reduce(torch.zeros(1))

    def same(self, figures: Figures) -> Figures:
        """Return the figures of the first process."""
        given = torch.tensor([value for part in figures.values() for value in part.values()], dtype=torch.float64)
        dist.broadcast(given, 0)
        told = iter(given.tolist())
        return {name: {figure: next(told) for figure in part} for name, part in figures.items()}

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensor of each process, on the CPU."""
        given = tensor.detach().cpu()
        found = [torch.empty_like(given) for _ in range(self.world_size)]
        dist.all_gather(found, given)
        return found

    def shared(self, tensors: dict[str, Tensor], into: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
        """Return the tensors of the first process, sent one at a time; a share of those that go into a tensor held in shares."""
        form = {name: [str(one.dtype).removeprefix("torch."), list(one.shape)] for name, one in tensors.items()}
        made = {}
        for name, (dtype, shape) in json.loads(self.told(lambda: json.dumps(form))).items():
            sent = tensors[name] if self.first else torch.empty(shape, dtype=getattr(torch, dtype))
            if sent.numel():
                dist.broadcast(sent, 0)
            made[name] = share_of(sent, into(name))
        return made

    def begun_in(self) -> Path | None:
        """Return the folder in which an earlier life of this job began its run; None where there was none."""
        notes = self._peers.job_store()
        return Path(notes.get(FOLDER).decode()) if self._peers.restarts and notes.check([FOLDER]) else None

    def begin_in(self, folder: Path) -> None:
        """Note for later lives of this job where it began."""
        self._peers.job_store().set(FOLDER, str(folder))

    def _silent(self) -> list[int]:
        """Return the processes that do not note, as this one does, that they have lost another."""
        notes = self._peers.store()
        notes.set(f"waits/{self.rank}", str(self._step))
        each = [f"waits/{rank}" for rank in range(self.world_size)]
        noted(notes, each, NOTE)
        return [rank for rank, name in enumerate(each) if not notes.check([name])]

    def lost(self) -> EnvironmentFault:
        """Return what to say when an exchange has failed: which processes do not answer, and when."""
        step = self._step
        try:
            silent = asked(self._silent, 2 * NOTE)
        except RuntimeError:  # nor is there a store that could tell
            silent = []
        if not silent:
            what = f"the {self.world_size} processes lost each other after step {step}: the network between them failed"
            return EnvironmentFault(what, fix="go on from the last checkpoint with --resume")
        who = (
            f"process {silent[0]} of {self.world_size} does"
            if len(silent) == 1
            else f"processes {', '.join(map(str, silent))} of {self.world_size} do"
        )
        what = f"{who} not answer after step {step} (counted from 0, this is process {self.rank}): killed, out of memory, or hanging"
        return EnvironmentFault(what, fix="go on from the last checkpoint with --resume; `torchrun --max-restarts 3` does so by itself")


@contextlib.contextmanager
def met(peers: Peers, timeout: float, device: str) -> Iterator[Processes]:
    """Yield the processes of a launcher, once all have come.

    Args:
        timeout: seconds that one waits for another.
        device: as the config names it.

    Raises:
        EnvironmentFault: one of them does not come, or does not answer any more.
    """
    cuda = torch.cuda.is_available() and device not in ("cpu", "mps")
    if cuda and peers.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(peers.local_rank)
    limit, group = timedelta(seconds=timeout), Processes(peers)
    try:
        store = peers.store(limit)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=peers.rank, world_size=peers.world_size, timeout=limit
        )
        KEPT.append(dist.group.WORLD)
        yield group
    except RuntimeError as error:
        if not _of_exchange(error):
            raise
        raise group.lost() from None
    dist.destroy_process_group()


def _of_exchange(error: RuntimeError) -> bool:
    """Return whether an exchange has failed; gloo's errors are known by their words alone, and come out of a backward as well."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    told = any(words in str(error) for words in ("gloo", "pair closure"))
    return told or isinstance(error, dist.DistError) or any("torch/distributed/" in file and "/tensor/" not in file for file in files)
