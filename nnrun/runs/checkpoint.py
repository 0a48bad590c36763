"""One file holds a checkpoint: tensors and strict JSON in the safetensors layout, which cannot name code. No pickle anywhere.

    8 bytes          length of the header
    header           JSON: each tensor's type, shape and place; under `__metadata__` one key, `nnrun`: the rest of the state as JSON text
    tensors          their bytes, one after the other

The inner JSON holds a SHA-256 of every tensor and, in a field of fixed width, of itself; both are checked on every load. Reading the
header (`read_header`) needs neither torch nor numpy. Files are committed by writing aside, syncing, and renaming: see `nnrun.runs.folder`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrun.errors import CheckpointError, Fault
from nnrun.registry import KINDS

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
MAX_HEADER = 16 << 20
MAX_DEPTH = 100
KEY = "nnrun"
PLUGIN = re.compile(r"\w{1,64} [\w.]{1,200}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9_./-]{1,512}")
TYPES = {"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "I64": ("int64", 8)}
TYPES |= {"I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1), "BOOL": ("bool", 1)}
_UNSIGNED = '"sha256": "' + "0" * 64 + '"'


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Args:
        tensors: name → tensor on the CPU: `model/…`, `optimizer/…`, `preprocess/…`, `rng/…`, `best/…`.
        facts: everything else: `spec`, `task`, `counters`, `digests`, … (strict JSON).
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `prefix/`, without it."""
        return {name.removeprefix(prefix + "/"): tensor for name, tensor in self.tensors.items() if name.startswith(prefix + "/")}


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the file of a checkpoint; equal checkpoints give equal bytes."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    digests = {name: _digest(tensor) for name, tensor in sorted(tensors.items())}
    text = json.dumps({"sha256": "0" * 64, "format": FORMAT, **checkpoint.facts, "tensors": digests}, allow_nan=False, ensure_ascii=False)
    signed = text.replace(_UNSIGNED, f'"sha256": "{hashlib.sha256(text.encode()).hexdigest()}"', 1)
    return bytes(save(tensors, {KEY: signed}))


@dataclass(frozen=True)
class Header:
    """What can be known of a checkpoint without reading a tensor.

    Args:
        facts: the JSON part, its digest checked.
        layout: tensor name → its safetensors type, its shape, and where its bytes begin and end in the file.
    """

    facts: dict[str, Any]
    layout: dict[str, tuple[str, tuple[int, ...], int, int]]


def read_header(path: Path) -> Header:
    """Return the facts and the layout of a checkpoint, without importing torch.

    Raises:
        CheckpointError: the file is absent, torn, or not a checkpoint of nnrun.
    """
    if not path.is_file():
        what = f"{path} does not exist" if not path.exists() else f"{path} is not a file"
        raise CheckpointError(what, fix="give a run folder or one of its .safetensors files")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(length) if 0 < length <= min(size - 8, MAX_HEADER) else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from None
    if not text:
        raise CheckpointError(f"{path} is not a checkpoint: {_looks_like(start)}", fix="nnrun reads the .safetensors files of its own runs")
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
        inner = header.pop("__metadata__")[KEY]
        facts: dict[str, Any] = json.loads(inner, object_pairs_hook=_no_duplicates)
        claimed = str(facts.pop("sha256"))
        if not _shallow(facts):
            raise ValueError("nested too deeply")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} is not a checkpoint that nnrun wrote", fix="give a checkpoint of `nnrun train`") from None
    if hashlib.sha256(inner.replace(f'"sha256": "{claimed}"', _UNSIGNED, 1).encode()).hexdigest() != claimed:
        raise _damaged(path, "its header does not match its digest")
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {facts.get('format')}, and this nnrun reads {FORMAT}", fix="use the nnrun that wrote it")
    try:
        layout = _layout(header, 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, str(error) if type(error) is ValueError else "its tensors are not described as they should be") from None
    return Header(facts, layout)


def small_values(path: Path, header: Header, name: str) -> list[float]:
    """Return the numbers of one float32 or float64 tensor, read by hand: torch is not imported for a slope and an intercept."""
    kind, _, start, end = header.layout[name]
    code = {"F32": "f", "F64": "d"}[kind]
    with path.open("rb") as file:
        file.seek(start)
        return list(struct.unpack(f"<{(end - start) // struct.calcsize(code)}{code}", file.read(end - start)))


def load(path: Path, *, only: tuple[str, ...] = ()) -> Checkpoint:
    """Return a checkpoint, every digest checked, its tensors on the CPU.

    Args:
        only: the first parts of the names to read (`model`); by default all.

    Raises:
        CheckpointError: the file is absent, torn, damaged, or not a checkpoint of nnrun.
    """
    import torch

    header = read_header(path)
    digests = header.facts.pop("tensors")
    if sorted(digests) != sorted(header.layout):
        raise _damaged(path, "its tensors are not those that it lists")
    tensors: dict[str, Tensor] = {}
    with path.open("rb") as file:
        for name, (kind, shape, start, end) in header.layout.items():
            if only and name.partition("/")[0] not in only:
                continue
            file.seek(start)
            data = bytearray(file.read(end - start))
            if hashlib.sha256(data).hexdigest() != digests[name]:
                raise _damaged(path, f"tensor {name!r} does not match its digest")
            dtype = getattr(torch, TYPES[kind][0])
            tensors[name] = torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)
    return Checkpoint(tensors, header.facts)


def check_plugins(path: Path, facts: dict[str, Any]) -> None:
    """Refuse a checkpoint whose parts of plug-ins are not registered; it can name them, and never have them imported.

    Raises:
        CheckpointError: with every part that is missing, and the option that would bring it.
    """
    faults = []
    for kind, name, plugin in plugins(path, facts):
        if name not in KINDS[kind] or KINDS[kind][name].plugin != plugin:
            what = f"{path}: this checkpoint needs the {KINDS[kind].singular} {name!r} of the plug-in {plugin}"
            faults.append(Fault(what, f"add --plugin {plugin}, where its {plugin}.py is, or give the path of the file"))
    if faults:
        raise CheckpointError(faults)


def plugins(path: Path, facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return kind, name and plug-in of each part that is not nnrun's own."""
    listed = facts.get("plugins", [])
    words = [one for one in listed if isinstance(one, list) and len(one) == 3 and all(isinstance(word, str) for word in one)]
    if words != listed or any(kind not in KINDS or not PLUGIN.fullmatch(f"{name} {plugin}") for kind, name, plugin in words):
        raise CheckpointError(f"{path} does not name its plug-ins as nnrun does", fix="give a checkpoint of `nnrun train`")
    return [(kind, name, plugin) for kind, name, plugin in words]


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why}", fix="use another checkpoint of the run")


def _layout(header: dict[str, Any], begin: int, size: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Return the place of each tensor: types known, sizes right, one after the other without a gap up to the end of the file.

    Raises:
        ValueError: it is not so.
    """
    layout = {}
    position = begin
    for name, one in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        kind, shape, (start, end) = one["dtype"], tuple(one["shape"]), one["data_offsets"]
        if set(one) != {"dtype", "shape", "data_offsets"} or not all(
            type(number) is int and number >= 0 for number in (*shape, start, end)
        ):
            raise ValueError("a tensor is not described as safetensors does")
        if begin + start != position or end - start != math.prod(shape) * TYPES[kind][1] or not NAME.fullmatch(name):
            raise ValueError("a tensor is not where it should be")
        position = begin + end
        layout[name] = (kind, shape, begin + start, begin + end)
    if position != size:
        raise ValueError("the tensors do not fill the file")
    return layout


def pack(value: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """Return nested state as JSON; its tensors go into `tensors` under names below `at`."""
    if hasattr(value, "untyped_storage"):
        tensors[at] = value
        return {"tensor": at}
    if isinstance(value, Mapping):
        return {"items": [[key, pack(item, f"{at}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [pack(item, f"{at}/{number}", tensors) for number, item in enumerate(value)]}
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return {"float": repr(value)}
    return value


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `pack` was given."""
    if not isinstance(packed, dict):
        return packed
    ((kind, inner),) = packed.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "items":
        return {key: unpack(item, tensors) for key, item in inner}
    return [unpack(item, tensors) for item in inner] if kind == "list" else float(inner)


def _digest(tensor: Tensor) -> str:
    import torch

    return hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()


def _shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_shallow(item, depth - 1) for item in items)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("duplicate key")
    return made


def _looks_like(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.startswith(b"PK"):
        return "it looks like a zip file or a checkpoint of torch.save"
    return "it looks like a pickle" if start[:1] == b"\x80" else "its header is torn or of another kind"
