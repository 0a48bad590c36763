"""S1, S5, P4: a checkpoint can be refused or be right, and never runs code, hangs, or takes the machine's memory."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnrun.errors import CheckpointError
from nnrun.run import open_run
from nnrun.runs.checkpoint import Checkpoint, load, read_header, to_bytes
from nnrun.spec.reader import read_spec
from nnrun.trained import load as load_network
from tests.conftest import ROOT

CONFIG = "name: small\ndataset: iris\npreprocess: [standardize]\nlayers: [3]\nbatch_size: 50\nepochs: 1\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small checkpoint."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "it.yaml").write_text(CONFIG)
    run = open_run(*read_spec(folder / "it.yaml"), out=folder / "run")
    for _ in run.train():
        pass
    return folder / "run" / "best.safetensors"


# Payloads that pickles carry. Each has a positive control: plain torch must run it, or it proves nothing.


class Payload:
    """Does something when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.recipe = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.recipe


def payloads(mark: Path) -> dict[str, Payload]:
    return {
        "os.system": Payload(os.system, f"touch {mark}"),
        "eval": Payload(eval, f"open({str(mark)!r}, 'w').close()"),
        "exec": Payload(exec, f"open({str(mark)!r}, 'w').close()"),
        "subprocess": Payload(subprocess.check_call, ["touch", str(mark)]),
        "open": Payload(open, str(mark), "w"),
    }


def raw(payload: Payload) -> bytes:
    return pickle.dumps({"model": payload})


def zipped(payload: Payload, *, new: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save({"model": payload}, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


FORMATS: dict[str, Callable[[Payload], bytes]] = {"raw": raw, "zip": zipped, "legacy": lambda payload: zipped(payload, new=False)}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["os.system", "eval", "exec", "subprocess", "open"])
def test_a_pickle_fires_in_plain_torch_and_not_here(kind: str, name: str, tmp_path: Path):
    """Renamed to .safetensors, it is refused with exit 2 and a word about what it is."""
    mark = tmp_path / "mark"
    file = tmp_path / "it.safetensors"
    file.write_bytes(FORMATS[kind](payloads(mark)[name]))
    with pytest.raises(CheckpointError) as caught:
        load_network(file)
    assert "is not a checkpoint: it looks like a" in str(caught.value) or "its header is torn or of another kind" in str(caught.value)
    assert not mark.exists()
    opened = file.rename(tmp_path / "it.pt")  # torch opens a .safetensors file by its name
    pickle.loads(opened.read_bytes()) if kind == "raw" else torch.load(opened, weights_only=False)
    assert mark.exists(), "the payload is dead: this case proves nothing"


def signed(header: dict[str, Any], facts: dict[str, Any], body: bytes) -> bytes:
    """Return a file whose inner JSON carries its right digest: what someone who knows the format would forge."""
    text = json.dumps({"sha256": "0" * 64, **facts})
    text = text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1)
    outer = json.dumps({"__metadata__": {"nnrun": text}, **header}).encode()
    return struct.pack("<Q", len(outer)) + outer + body


def parts(file: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    facts = json.loads(header.pop("__metadata__")["nnrun"])
    facts.pop("sha256")
    return header, facts, data[8 + length :]


Forge = Callable[[dict[str, Any], dict[str, Any], bytes], bytes]


def on_header(change: Callable[[dict[str, Any]], Any]) -> Forge:
    def forge(header: dict[str, Any], facts: dict[str, Any], body: bytes) -> bytes:
        change(header)
        return signed(header, facts, body)

    return forge


def on_facts(change: Callable[[dict[str, Any]], Any]) -> Forge:
    def forge(header: dict[str, Any], facts: dict[str, Any], body: bytes) -> bytes:
        change(facts)
        return signed(header, facts, body)

    return forge


def spec_with(**values: Any) -> Forge:
    return on_facts(lambda facts: facts["spec"].update(values))


def deep(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def pictures(header: dict[str, Any], facts: dict[str, Any], body: bytes, shape: list[int], layers: list[Any], room: int = 10) -> bytes:
    """Return a checkpoint with few numbers, of a network whose values are many."""
    facts["spec"]["layers"], facts["shape"] = [*layers, {"adaptive_avg_pool2d": 1}, "flatten", {"linear": "auto"}], shape
    return to_bytes(Checkpoint({"model/x": torch.zeros(room)}, {k: v for k, v in facts.items() if k not in ("tensors", "format")}))


FORGED: dict[str, Forge] = {
    "a header of 2^63 bytes": lambda header, facts, body: struct.pack("<Q", 2**63) + body,
    "a header longer than the file": lambda header, facts, body: struct.pack("<Q", 10**6) + b"{}",
    "a header that is no JSON": lambda header, facts, body: struct.pack("<Q", 4) + b"{{{{" + body,
    "a header that is a list": lambda header, facts, body: struct.pack("<Q", 2) + b"[]" + body,
    "JSON of depth 100,000": lambda header, facts, body: struct.pack("<Q", 200_000) + b"[" * 100_000 + b"]" * 100_000,
    "a duplicate tensor": lambda header, facts, body: struct.pack("<Q", 14) + b'{"a":1,"a":2} ' + body,
    "trailing bytes": lambda header, facts, body: signed(header, facts, body + b"x"),
    "a missing byte": lambda header, facts, body: signed(header, facts, body[:-1]),
    "overlapping tensors": on_header(lambda header: header["model/0.bias"].update(data_offsets=[0, 12])),
    "a shape that overflows": on_header(lambda header: header["model/0.bias"].update(shape=[2**62, 4])),
    "a giant shape": on_header(lambda header: header["model/0.bias"].update(shape=[10**12])),
    "a negative shape": on_header(lambda header: header["model/0.bias"].update(shape=[-3])),
    "a shape of text": on_header(lambda header: header["model/0.bias"].update(shape="3")),
    "an unknown type": on_header(lambda header: header["model/0.bias"].update(dtype="O")),
    "another type": on_header(lambda header: header["model/0.bias"].update(dtype="I32")),
    "an extra field": on_header(lambda header: header["model/0.bias"].update(_target_="os.system")),
    "a name that climbs": on_header(lambda header: header.update({"model/0.bias\n../../x": header.pop("model/0.bias")})),
    "a foreign tensor": lambda header, facts, body: to_bytes(Checkpoint({"model/9.weight": torch.ones(3)}, {k: v for k, v in facts.items() if k not in ("tensors", "format")})),
    "a wrong digest": on_facts(lambda facts: facts["tensors"].update({"model/0.bias": "0" * 64})),
    "a tensor without a digest": on_facts(lambda facts: facts["tensors"].pop("model/0.bias")),
    "no facts": lambda header, facts, body: signed(header, {"tensors": {}, "format": 1}, body),
    "another format": on_facts(lambda facts: facts.update(format=99)),
    "facts of depth 5,000": on_facts(lambda facts: facts.update(more=deep(900))),
    "a target to import": spec_with(_target_="os.system"),
    "an instantiator": spec_with(_instantiator="builtins.eval"),
    "a class path": spec_with(optimizer={"class_path": "torch.optim.Adam"}),
    "a dotted dataset": spec_with(dataset={"name": "os.system"}),
    "a dotted layer": spec_with(layers=[{"builtins.exec": "1"}]),
    "a name that is a path": spec_with(name="../../etc"),
    "a layer of 10^9": spec_with(layers=[10**9]),
    "a layer of 10^8": spec_with(layers=[10**8]),
    "10,000 layers": spec_with(layers=[1000] * 10_000),
    "a residual of 10^8": spec_with(layers=[{"residual": [{"linear": 10**8}, {"linear": 4}]}, {"linear": "auto"}]),
    "other layers": spec_with(layers=[5]),
    "no layers": spec_with(layers=[]),
    "a picture of 10^9": lambda header, facts, body: pictures(header, facts, body, [1, 30_000, 30_000], [{"conv2d": [1, 1]}]),
    "a filter as large as the picture": lambda header, facts, body: pictures(header, facts, body, [1, 2000, 2000], [{"conv2d": [1, 1001]}], 2_000_000),
    "pictures that grow": lambda header, facts, body: pictures(header, facts, body, [1, 100, 100], [{"upsample": 30}] * 3),
    "pictures that grow within": lambda header, facts, body: pictures(header, facts, body, [1, 4000, 4000], [{"residual": [{"upsample": 3}, {"max_pool2d": 3}]}]),
    "an input of 10^9": on_facts(lambda facts: facts.update(shape=[10**9])),
    "an input of text": on_facts(lambda facts: facts.update(shape="4")),
    "a million classes": on_facts(lambda facts: facts["task"].update(classes=[str(k) for k in range(10**5)])),
    "a device that is code": spec_with(device="__import__('os')"),
    "not a number for a number": spec_with(lr="nan"),
    "threads of text": on_facts(lambda facts: facts.update(threads="many")),
}  # fmt: skip


@pytest.fixture(scope="module")
def watched(good: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what came of every forged file, opened in a process that an audit hook watches and a memory limit bounds."""
    folder = tmp_path_factory.mktemp("forged")
    for number, forge in enumerate(FORGED.values()):
        header, facts, body = parts(good)
        (folder / f"{number}.safetensors").write_bytes(forge(header, copy.deepcopy(facts), body))
    command = [sys.executable, "-m", "tests.watched", str(good), *(str(folder / f"{number}.safetensors") for number in range(len(FORGED)))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(["good", *FORGED], json.loads(done.stdout), strict=True))


def test_the_good_one_is_opened(watched: dict[str, Any]):
    """Or the others would be refused for a wrong reason."""
    assert watched["good"]["outcome"] == "opened"


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_checkpoint_is_refused(case: str, watched: dict[str, Any]):
    """As the user's fault, in 5 seconds and 1 GiB, and nothing but reading was done."""
    assert watched[case]["outcome"] == "CheckpointError", watched[case]
    assert watched[case]["events"] == []
    assert watched[case]["fast_enough"]


def test_every_flipped_byte_and_every_truncation_is_seen(good: Path, tmp_path: Path):
    """Refused, or the very same tensors."""
    whole = good.read_bytes()
    expected = {name: tensor.numpy().tobytes() for name, tensor in load(good).tensors.items()}
    file = tmp_path / "it.safetensors"
    for change in [*((at, flip) for at in range(len(whole)) for flip in (0x01, 0xFF)), *((length, None) for length in range(len(whole)))]:
        at, flip = change
        file.write_bytes(whole[:at] if flip is None else whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
        try:
            found = load(file)
        except CheckpointError:
            continue
        assert {name: tensor.numpy().tobytes() for name, tensor in found.tensors.items()} == expected, change


def test_the_golden_checkpoint_predicts_as_it_did():
    """Format 1 opens for ever: predictions stay equal to 1e-6."""
    golden = ROOT / "tests" / "golden" / "v1"
    net = load_network(golden / "iris.safetensors")
    expected = json.loads((golden / "iris.json").read_text())
    made = net.predict(net.read([str(golden / "iris.csv")]), probabilities=True)
    assert made.values == expected["predictions"]
    assert torch.allclose(torch.tensor(made.probabilities), torch.tensor(expected["probabilities"]), atol=1e-6)


def test_the_header_is_read_without_its_tensors(good: Path):
    """`show` needs neither torch nor the weights."""
    header = read_header(good)
    assert header.facts["spec"]["name"] == "small"
    assert header.layout["model/0.weight"][:2] == ("F32", (3, 4))
