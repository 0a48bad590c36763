"""A computation captured once and then replayed: torch's calls in their order, without modules, autograd and Python around each of them.

It runs once under a dispatch mode that sees each call with its tensors. On CUDA it then becomes a CUDA graph; on the CPU, where torch has
no such thing, a graph for the interpreter of TorchScript, which does nothing but make the calls. A replay gives what the computation gives,
to the bit where the device does so at all. That is not taken on trust: a replay is used once it has given, from the same state, what the
computation gave with nothing looking on. What cannot be captured goes on as it is:

    what reads a number of the device, or makes a tensor whose shape depends on numbers
    modules that are not torch's or nnrun's, which may do something else next time
    what needs more than `MOST` bytes for the comparison: such calls take their time computing, not being made
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOST = {"cpu": 64 << 20, "cuda": 1 << 30}
"""Device → the most bytes that a capture holds."""
CLOSE = 1e-3
"""How far, relatively, a replay may be from the computation on a device that does not give the same bits twice."""
OWN = ("torch.nn.modules.", "nnrun.")
FORMATS = (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)
"""The memory formats, each at the place of the number that TorchScript has for it."""

Shapes = tuple[torch.Size, ...]
Replay = Callable[[Sequence[Tensor]], Tensor]
Place = tuple[Any, ...]
"""Where the numbers of a tensor are, and how they lie there."""


def can_capture(modules: Iterable[nn.Module], device: torch.device) -> bool:
    """Return whether these modules make the same calls each time, on a device whose calls can be replayed."""
    if device.type not in MOST or not hasattr(torch._C, "_create_function_from_graph") or torch.is_anomaly_enabled():
        return False
    if nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return False
    return all(type(module).__module__.startswith(OWN) and not _is_hooked(module) for module in modules)


def _is_hooked(module: nn.Module) -> bool:
    """Return whether Python of anyone else is called on the way through a module or its gradients."""
    own = module.parameters(recurse=False)  # those inside are asked for theirs
    if "forward" in vars(module) or any(weight._backward_hooks or weight._post_accumulate_grad_hooks for weight in own):
        return True
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


class Captured:
    """A computation that is captured when a batch comes whose shapes came before, and replayed for all such batches after it.

    Args:
        compute: batch → a tensor; it may change others in place.
        steady: asked around the capture: will the computation make the same calls from now on?
        prepare: called before each replay, for what Python would have told the device.
        exact: whether the device gives the same bits twice.

    Attributes:
        replays: shapes of a batch → what computes such batches.
        refused: shapes of a batch → why it cannot be replayed.
    """

    def __init__(
        self,
        compute: Callable[..., Tensor],
        *,
        steady: Callable[[], bool] = lambda: True,
        prepare: Callable[[], object] = lambda: None,
        exact: bool = True,
    ) -> None:
        self._compute, self._steady, self._prepare, self._exact = compute, steady, prepare, exact
        self.replays: dict[Shapes, Replay] = {}
        self.refused: dict[Shapes, str] = {}
        self._seen: set[Shapes] = set()

    def __call__(self, *batch: Tensor) -> Tensor:
        """Return what the computation makes of a batch."""
        shapes = tuple([one.shape for one in batch])
        replay = self.replays.get(shapes)
        if replay is not None:
            self._prepare()
            try:
                return replay(batch)
            except RuntimeError:  # a number that a layer refuses: it says so better by itself
                return self._compute(*batch)
        if shapes in self._seen and shapes not in self.refused and self._steady():
            return self._capture(shapes, batch)
        self._seen.add(shapes)
        return self._compute(*batch)

    def _capture(self, shapes: Shapes, batch: Sequence[Tensor]) -> Tensor:
        """Compute, and keep a replay of it if that gives the same."""
        device = batch[0].device
        drawn = _random_state(device)
        self._prepare()  # now, so that it is no part of what is captured
        recorder = (_Tape if device.type == "cpu" else _Recorder)(batch, MOST[device.type])
        with recorder:
            recorded = self._compute(*batch)
        if recorder.refused or not self._steady():
            self.refused[shapes] = recorder.refused or "it will make other calls"
            return recorded
        _put_back(recorder.before, drawn, device)
        made = self._compute(*batch)  # this counts: some layers make other calls while anything looks on
        try:
            replay = recorder.replay(recorded) if isinstance(recorder, _Tape) else _graph(self._compute, batch)
            if self._same(replay, batch, made, recorder.before, drawn):
                self.replays[shapes] = replay
            else:
                self.refused[shapes] = "a replay gave something else"
        except RuntimeError as error:
            self.refused[shapes] = str(error)
        return made

    def _same(self, replay: Replay, batch: Sequence[Tensor], made: Tensor, before: Sequence[tuple[Tensor, Tensor]], drawn: Tensor) -> bool:
        """Return whether a replay from the state before gives what the computation gave; the state is that after it either way."""
        after, drawn_after = [_bytes(tensor).clone() for tensor, _ in before], _random_state(made.device)
        _put_back(before, drawn, made.device)
        alike = False
        try:
            alike = self._alike(replay(batch), made) and torch.equal(_random_state(made.device), drawn_after)
        finally:
            for (tensor, _), stored in zip(before, after, strict=True):
                alike = alike and self._alike(tensor, torch.empty_like(tensor).set_(stored.untyped_storage(), *_geometry(tensor)))
                _bytes(tensor).copy_(stored)
            _draw_on(drawn_after, made.device)
        return alike

    def _alike(self, one: Tensor, other: Tensor) -> bool:
        if self._exact:
            return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
        return bool((one.double() - other.double()).norm() <= CLOSE * other.double().norm())


def _random_state(device: torch.device) -> Tensor:
    return torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)


def _draw_on(state: Tensor, device: torch.device) -> None:
    torch.set_rng_state(state) if device.type == "cpu" else torch.cuda.set_rng_state(state, device)


def _put_back(before: Iterable[tuple[Tensor, Tensor]], drawn: Tensor, device: torch.device) -> None:
    """Bring memory and the random state back to what they were."""
    for tensor, stored in before:
        _bytes(tensor).copy_(stored)
    _draw_on(drawn, device)


def _graph(compute: Callable[..., Tensor], batch: Sequence[Tensor]) -> Replay:
    """Return the replay of a CUDA graph of a computation: its tensors keep their places, and batches are copied there."""
    places, graph = [one.clone() for one in batch], torch.cuda.CUDAGraph()
    with torch.cuda.device(places[0].device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = compute(*places)

    def replay(batch: Sequence[Tensor]) -> Tensor:
        torch._foreach_copy_(places, list(batch))
        graph.replay()
        return made

    return replay


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each call of a computation: whether it can be replayed, and what the tensors held that it changes.

    Args:
        given: the batch.
        most: bytes that may be held.

    Attributes:
        refused: why the computation cannot be replayed; empty when it can.
        before: what was there before, and the bytes of its memory before its first use: not all calls say what they change.
    """

    def __init__(self, given: Sequence[Tensor], most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refused, self.before = "", list[tuple[Tensor, Tensor]]()
        self._room = most
        self._given, self._made = {_memory(one) for one in given}, set[int]()
        self._held: dict[int, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler only to keep that out of here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.refused:
            return func(*args, **kwargs)
        values = [
            args[number] if number < len(args) else kwargs.get(argument.name, argument.default_value)
            for number, argument in enumerate(func._schema.arguments)
        ]
        self.refused = _not_repeatable(func, values) or self._keep(func, values)
        named = [] if self.refused else self.named(func, values)  # now: a call may turn a tensor around in its place
        known = set() if self.refused else {_memory(tensor) for tensor in _tensors(values)}
        made = func(*args, **kwargs)
        if not self.refused and _plain(made):
            self._made |= {memory for tensor in _tensors(made) if (memory := _memory(tensor)) not in known}
            self.note(func, named, made)
        else:
            self.refused = self.refused or f"{func} makes more than plain tensors"
        return made

    def named(self, func: Any, values: Sequence[Any]) -> list[Any]:
        """Return what stands for the arguments of a call that is about to be made, in the order of the schema."""
        return []

    def note(self, func: Any, named: Sequence[Any], made: Any) -> None:
        """Take in a call that was made."""

    def hold(self, tensor: Tensor, copies: int = 1) -> None:
        """Keep memory from being used anew; by another tensor, since autograd takes a gradient over that no one else has."""
        if _memory(tensor) not in self._held:
            self._room -= copies * tensor.untyped_storage().nbytes()
            self.refused = self.refused or ("it needs too much memory" if self._room < 0 else "")
            self._held[_memory(tensor)] = tensor.detach()

    def _keep(self, func: Any, values: Sequence[Any]) -> str:
        """Copy what was there before and is used for the first time; return what is wrong with that."""
        for value, argument in zip(values, func._schema.arguments, strict=True):
            for tensor in _tensors(value):
                memory = _memory(tensor)
                if memory in self._given and argument.alias_info is not None and argument.alias_info.is_write:
                    return f"{func} changes the batch"
                if memory and memory not in self._made and memory not in self._given and memory not in self._held:
                    self.hold(tensor, copies=3)  # itself, and as it was before and after
                    self.before.append((tensor.detach(), _bytes(tensor).clone()))
        return self.refused


class _Tape(_Recorder):  # type: ignore[no-untyped-call]
    """Writes the calls down as a graph of TorchScript: the batch comes in, what was there before is a constant, the rest is made."""

    def __init__(self, given: Sequence[Tensor], most: int) -> None:
        super().__init__(given, most)
        self._graph: Any = torch._C.Graph()
        self._values = {_place(one): self._graph.addInput() for one in given}

    def named(self, func: Any, values: Sequence[Any]) -> list[Any]:
        """Return the values of the graph for the arguments of a call."""
        try:
            return [self._value(value, argument.real_type) for value, argument in zip(values, func._schema.arguments, strict=True)]
        except (RuntimeError, TypeError) as error:
            self.refused = f"{func} cannot be written down: {error}"
        return []

    def note(self, func: Any, named: Sequence[Any], made: Any) -> None:
        """Write a call down, if it makes or changes anything: views of what was there before are views of it still."""
        schema = func._schema
        if not schema.is_mutable and not any(self._moves(tensor) and _place(tensor) not in self._values for tensor in _tensors(made)):
            return
        node = self._graph.insertNode(self._graph.create(schema.name, named, len(schema.returns)))
        try:
            name = node.schema().split("(")[0]
        except RuntimeError as error:
            name = str(error)
        if name not in (func.name(), func.name().replace(".Tensor", ".Scalar")):  # numbers are passed as such
            self.refused = f"{func} was taken for {name}"
            return
        returned = made if isinstance(made, tuple | list) and len(schema.returns) > 1 else [made]
        for value, output in zip(returned, node.outputs(), strict=False):
            if isinstance(value, Tensor):
                self._name(value, output)
            elif value:
                output.setType(torch._C.ListType(torch._C.TensorType.get()))
                parts = self._graph.insertNode(self._graph.create("prim::ListUnpack", [output], len(value)))
                for part, name in zip(value, parts.outputs(), strict=True):
                    self._name(part, name)

    def replay(self, made: Tensor) -> Replay:
        """Return what makes the calls again and returns the same of their tensors."""
        self._graph.registerOutput(self._value(made, None))
        run, optimized = torch._C._create_function_from_graph("captured", self._graph), torch._C._set_graph_executor_optimize

        def replay(batch: Sequence[Tensor]) -> Tensor:
            optimized(False)  # the calls as they are
            try:
                made: Tensor = run(*batch)
            finally:
                optimized(True)
            return made

        return replay

    def _moves(self, tensor: Tensor) -> bool:
        """Return whether the tensor is another one in each replay."""
        return _memory(tensor) in self._made or _memory(tensor) in self._given

    def _name(self, tensor: Tensor, value: Any) -> None:
        self.hold(tensor)
        self._values[_place(tensor)] = value

    def _value(self, value: Any, wanted: Any) -> Any:
        """Return the value of the graph for an argument of a call."""
        if isinstance(value, Tensor):
            named = self._values.get(_place(value))
            if named is None and self._moves(value):
                raise RuntimeError("a tensor came from nowhere")
            return named or self._graph.insertConstant(value.detach())
        inner = wanted.getElementType() if isinstance(wanted, torch._C.OptionalType) else wanted
        if isinstance(value, list | tuple) and (not value or any(isinstance(one, Tensor) for one in value)):
            items = [self._value(one, inner.getElementType()) for one in value]
            node = self._graph.insertNode(self._graph.create("prim::ListConstruct", items, 1))
            node.output().setType(inner)
            return node.output()
        if isinstance(value, torch.memory_format):
            return self._graph.insertConstant(FORMATS.index(value))
        if isinstance(value, int) and isinstance(inner, torch._C.FloatType):
            return self._graph.insertConstant(float(value))
        return self._graph.insertConstant(value)


def _not_repeatable(func: Any, values: Sequence[Any]) -> str:
    """Return why a call cannot be made again without Python, if it cannot."""
    if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        return f"{func} depends on numbers of the device"
    if not _plain(values):
        return f"{func} is called with more than plain tensors"
    if any(isinstance(value, torch.Generator) for value in values):
        return f"{func} draws from a generator of its own"
    return ""


def _plain(values: Any) -> bool:
    return all(type(one) in (Tensor, nn.Parameter) and one.layout is torch.strided for one in _tensors(values))


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> Tensor:
    """Return all bytes of the memory that a tensor is in."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _geometry(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    return int(tensor.storage_offset()), tensor.shape, tensor.stride()


def _place(tensor: Tensor) -> Place:
    return _memory(tensor), *_geometry(tensor), tensor.dtype
