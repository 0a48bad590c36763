"""Every registered layer: it builds from the fewest arguments, runs forward and backward, and gives the shape it promises."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nnrun.errors import DataError, SpecError
from nnrun.model import flow
from nnrun.model import layers as layers
from nnrun.model.incoming import Incoming
from nnrun.registry import LAYERS
from nnrun.spec.parts import Part, part_class

Shape = tuple[int, ...]

# name → the fewest arguments, the shape of a row that comes in, the shape that goes out; every activation but glu takes any shape
CASES: dict[str, tuple[dict[str, Any], Shape, Shape]] = {
    **{name: ({}, (4,), (4,)) for name, entry in ((n, LAYERS[n]) for n in LAYERS) if entry.traits.get("activation")},
    "threshold": ({"threshold": 0.1, "value": 20.0}, (4,), (4,)),
    "glu": ({}, (6, 4), (6, 2)),
    "linear": ({"out_features": 7}, (4,), (7,)),
    "flatten": ({}, (2, 3, 4), (24,)),
    "unflatten": ({"shape": [2, 3, 4]}, (24,), (2, 3, 4)),
    "identity": ({}, (4,), (4,)),
    "dropout": ({}, (4,), (4,)),
    "dropout2d": ({}, (3, 4, 5), (3, 4, 5)),
    "batch_norm": ({}, (4,), (4,)),
    "instance_norm": ({}, (3, 4, 5), (3, 4, 5)),
    "layer_norm": ({}, (3, 4), (3, 4)),
    "group_norm": ({"num_groups": 2}, (4, 5, 5), (4, 5, 5)),
    "embedding": ({"num_embeddings": 10, "embedding_dim": 4}, (3,), (3, 4)),
    "rnn": ({"hidden_size": 5}, (6, 3), (5,)),
    "gru": ({"hidden_size": 5}, (6, 3), (5,)),
    "lstm": ({"hidden_size": 5}, (6, 3), (5,)),
    "upsample": ({"scale_factor": 2}, (3, 4, 5), (3, 8, 10)),
    "residual": ({"layers": [{"linear": 4}, "relu"]}, (4,), (4,)),
}
for d, size in ((1, (8,)), (2, (8, 9)), (3, (8, 9, 10))):
    CASES |= {
        f"conv{d}d": ({"out_channels": 5, "kernel_size": 3}, (2, *size), (5, *(s - 2 for s in size))),
        f"conv_transpose{d}d": ({"out_channels": 5, "kernel_size": 3}, (2, *size), (5, *(s + 2 for s in size))),
        f"max_pool{d}d": ({"kernel_size": 2}, (2, *size), (2, *(s // 2 for s in size))),
        f"avg_pool{d}d": ({"kernel_size": 2}, (2, *size), (2, *(s // 2 for s in size))),
        f"adaptive_max_pool{d}d": ({"output_size": 3}, (2, *size), (2, *(3 for _ in size))),
        f"adaptive_avg_pool{d}d": ({"output_size": 3}, (2, *size), (2, *(3 for _ in size))),
    }


def part(name: str, **arguments: Any) -> Part:
    """Return a checked layer as a config would give it."""
    return part_class(LAYERS, name).model_validate(arguments)


def shape_of(name: str, shape: Shape, **arguments: Any) -> Shape:
    """Build a layer for rows of a shape, run two rows through it in training mode, and return the shape of a row that comes out."""
    layer = part(name, **arguments).build(Incoming(shape, 3))
    return tuple(layer(torch.rand(2, *shape)).shape[1:])


@pytest.mark.parametrize("name", LAYERS)
def test_layer_runs_forward_and_backward(name: str):
    """Each layer gives the promised shape, and a gradient reaches all of its weights; a new layer needs a line in CASES."""
    arguments, came, gave = CASES[name]
    layer = part(name, **arguments).build(Incoming(came, 3))
    x = torch.rand(2, *came, requires_grad=True)
    output = layer(x)
    output.square().sum().backward()
    assert output.shape == (2, *gave)
    assert output.isfinite().all()
    assert all(weight.grad is not None for weight in layer.parameters())
    assert x.grad is not None or name == "embedding"


@pytest.mark.parametrize("name", LAYERS)
def test_large_layer_is_tried_without_memory(name: str, monkeypatch: pytest.MonkeyPatch):
    """On the meta device each layer gives the same shape, and keeps its weights."""
    arguments, came, gave = CASES[name]
    layer = part(name, **arguments).build(Incoming(came, 3))
    monkeypatch.setattr(flow, "MUCH_MEMORY", 0)
    given: list[str] = []
    layer.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].device.type))
    assert flow.shape_after(layer, came) == gave
    assert given == ["meta"]
    assert all(weight.device.type == "cpu" for weight in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_entry_explains_itself(name: str):
    """Each layer has a summary, a place in this package, and help for each argument; none shows a placeholder."""
    entry = LAYERS[name]
    file, _, line = entry.place.rpartition(":")
    assert entry.summary.endswith(".")
    assert "{" not in (entry.build.__doc__ or "")
    assert Path(file).parent.name == "model"
    assert int(line) > 1
    assert all(argument.help.endswith(".") for argument in entry.arguments.values())


def test_every_activation_of_torch_is_there():
    """A new activation module of torch shows here first."""
    from torch.nn.modules import activation

    by_class = {type(part(name, **CASES[name][0]).build(Incoming(CASES[name][1], 3))).__name__ for name in LAYERS}
    assert set(activation.__all__) - by_class == {"MultiheadAttention", "Softmax2d"}


def test_defaults_are_those_of_torch():
    """An argument that torch has under the same name has the same default, but for the dim that torch wants written."""
    import inspect

    for name in LAYERS:
        arguments, came, _ = CASES[name]
        made = type(part(name, **arguments).build(Incoming(came, 3)))
        theirs = {} if name in ("rnn", "gru", "lstm") else inspect.signature(made.__init__).parameters
        for argument in LAYERS[name].arguments.values():
            if argument.name in theirs and not argument.required and theirs[argument.name].default is not inspect.Parameter.empty:
                ours, default = argument.default, theirs[argument.name].default
                known = argument.name == "dim" or (name, argument.name) == ("upsample", "align_corners")
                assert ours == default or known, f"{name}.{argument.name}"


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "gave"),
    [
        ("linear", (5, 4), {"out_features": "auto"}, (5, 3)),
        ("conv2d", (3, 8, 8), {"out_channels": 6, "kernel_size": [3, 5], "padding": "same", "groups": 3, "bias": False}, (6, 8, 8)),
        ("conv2d", (3, 8, 8), {"out_channels": 4, "kernel_size": 3, "stride": 2, "padding": [1, 0], "dilation": 2}, (4, 3, 2)),
        ("conv1d", (3, 3), {"out_channels": 4, "kernel_size": 3, "padding": "valid"}, (4, 1)),
        ("conv_transpose2d", (3, 4, 4), {"out_channels": 2, "kernel_size": 2, "stride": 2}, (2, 8, 8)),
        ("max_pool2d", (3, 7, 7), {"kernel_size": 2, "ceil_mode": True}, (3, 4, 4)),
        ("adaptive_avg_pool2d", (3, 7, 9), {"output_size": [1, 2]}, (3, 1, 2)),
        ("upsample", (3, 4, 5), {"size": [7, 8], "mode": "bilinear", "align_corners": True}, (3, 7, 8)),
        ("upsample", (3, 4), {"scale_factor": 1.5, "mode": "linear"}, (3, 6)),
        ("flatten", (2, 3, 4), {"start_dim": 2}, (2, 12)),
        ("batch_norm", (3, 4), {"momentum": None, "affine": False}, (3, 4)),
        ("batch_norm", (3, 4, 4), {}, (3, 4, 4)),
        ("batch_norm", (3, 4, 4, 4), {}, (3, 4, 4, 4)),
        ("instance_norm", (3, 4), {"affine": True}, (3, 4)),
        ("instance_norm", (3, 4, 4, 4), {}, (3, 4, 4, 4)),
        ("layer_norm", (2, 3, 4), {"normalized_shape": [3, 4], "bias": False}, (2, 3, 4)),
        ("rnn", (6, 3), {"hidden_size": 5, "nonlinearity": "relu", "bidirectional": True}, (10,)),
        ("gru", (6, 3), {"hidden_size": 5, "num_layers": 2, "dropout": 0.5, "bidirectional": True}, (10,)),
        ("lstm", (6, 3), {"hidden_size": 5, "num_layers": 3, "bias": False}, (5,)),
        ("softmax", (3, 4), {"dim": 1}, (3, 4)),
        ("prelu", (3, 4), {"num_parameters": 3}, (3, 4)),
    ],
)
def test_arguments_change_the_shape_as_they_say(name: str, shape: Shape, arguments: dict[str, Any], gave: Shape):
    """Beyond the fewest arguments: lists, words and switches reach torch."""
    assert shape_of(name, shape, **arguments) == gave


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_recurrent_layer_gives_the_state_after_the_last_step(name: str):
    """The output is the last step's state of the last layer; backwards, that is the state at the first step."""
    layer = part(name, hidden_size=4, num_layers=2, bidirectional=True).build(Incoming((5, 3), 1))
    plain = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[name](3, 4, 2, batch_first=True, bidirectional=True)
    plain.load_state_dict(layer.state_dict())
    x_NTD = torch.rand(2, 5, 3)
    steps_NTH = plain(x_NTD)[0]
    assert torch.equal(layer(x_NTD), torch.cat([steps_NTH[:, -1, :4], steps_NTH[:, 0, 4:]], dim=-1))


def test_residual_adds_what_comes_in():
    """The inside computes the change, not the value."""
    layer = part("residual", layers=[{"linear": {"out_features": 4, "name": "inner"}}, "tanh"]).build(Incoming((4,), 1))
    x = torch.rand(2, 4)
    assert list(layer.state_dict()) == ["inner.weight", "inner.bias"]
    assert torch.equal(layer(x), x + torch.tanh(layer.inner(x)))


def test_residual_adds_what_its_shortcut_makes():
    """Where the layers change the shape; its weights come after those of the layers, under its own name."""
    halved = {"out_channels": 3, "kernel_size": 1, "stride": 2}
    layers = [{"conv2d": {"out_channels": 3, "kernel_size": 3, "stride": 2, "padding": 1}}, "relu"]
    layer = part("residual", layers=layers, shortcut=[{"conv2d": halved}, "tanh"]).build(Incoming((2, 6, 6), 1))
    x = torch.rand(4, 2, 6, 6)
    assert list(layer.state_dict()) == ["0.weight", "0.bias", "shortcut.0.weight", "shortcut.0.bias"]
    assert torch.equal(layer(x), torch.tanh(layer.shortcut[0](x)) + torch.relu(layer.get_submodule("0")(x)))
    assert layer(x).shape == (4, 3, 3, 3)


@pytest.mark.parametrize("wrong", [10, -1])
def test_embedding_says_which_number_is_outside(wrong: int):
    """A number that the table does not hold is a fault of the data, not a crash."""
    layer = part("embedding", num_embeddings=10, embedding_dim=2).build(Incoming((2,), 1))
    with pytest.raises(DataError) as caught:
        layer(torch.tensor([[3.0, wrong]]))
    assert str(caught.value) == (
        f"error: embedding: the input holds {wrong}, and num_embeddings: 10 allows 0 to 9\n"
        "fix: raise num_embeddings, and keep steps that change the numbers out of preprocess"
    )


def test_embedding_has_the_weights_of_torch():
    """Leaving out the draw on the meta device must not leave it out elsewhere."""
    torch.manual_seed(3)
    ours = part("embedding", num_embeddings=10, embedding_dim=2).build(Incoming((2,), 1)).weight
    torch.manual_seed(3)
    assert torch.equal(ours, torch.nn.Embedding(10, 2).weight)


REFUSED: list[tuple[str, Shape, dict[str, Any], str]] = [
    ("conv2d", (576,), {"out_channels": 6, "kernel_size": 3}, "wants a picture (C, H, W), and gets (576,)"),
    ("conv1d", (1, 2, 3), {"out_channels": 6, "kernel_size": 3}, "wants a series (C, L), and gets (1, 2, 3)"),
    ("max_pool3d", (1, 2, 3), {"kernel_size": 3}, "wants a volume (C, D, H, W), and gets (1, 2, 3)"),
    (
        "conv2d",
        (3, 8, 8),
        {"out_channels": 6, "kernel_size": [3, 3, 3]},
        "kernel_size is [3, 3, 3], and a picture (C, H, W) wants one number or 2",
    ),
    (
        "conv2d",
        (6, 3, 3),
        {"out_channels": 6, "kernel_size": 3, "dilation": 2, "padding": [1, 0]},
        "wants a grid of at least 5×5 with its padding, and gets (6, 3, 3)",
    ),
    ("max_pool2d", (6, 1, 1), {"kernel_size": 2}, "wants a grid of at least 2×2 with its padding, and gets (6, 1, 1)"),
    ("avg_pool1d", (6, 1), {"kernel_size": 2}, "wants a grid of at least 2 with its padding, and gets (6, 1)"),
    (
        "conv2d",
        (1, 8, 8),
        {"out_channels": 1, "kernel_size": 1, "padding": 10**6},
        "makes 4,000,032,000,064 values of one row, more than 67,108,864",
    ),
    (
        "conv_transpose1d",
        (1, 8),
        {"out_channels": 1, "kernel_size": 1, "stride": 10**9},
        "makes 7,000,000,001 values of one row, more than 67,108,864",
    ),
    ("adaptive_max_pool2d", (1, 8, 8), {"output_size": 10**5}, "makes 10,000,000,000 values of one row, more than 67,108,864"),
    ("adaptive_avg_pool2d", (1, 8, 8), {"output_size": 10**5}, "makes 10,000,000,000 values of one row, more than 67,108,864"),
    ("upsample", (1, 8, 8), {"scale_factor": 10**4}, "makes 6,400,000,000 values of one row, more than 67,108,864"),
    ("upsample", (8,), {"scale_factor": 2}, "wants a series (C, L), a picture (C, H, W) or a volume (C, D, H, W), and gets (8,)"),
    ("upsample", (1, 8), {}, "wants either scale_factor or size"),
    ("upsample", (1, 8), {"scale_factor": 2, "size": 3}, "wants either scale_factor or size"),
    ("upsample", (1, 8), {"scale_factor": 2, "align_corners": True}, "align_corners means nothing with mode nearest"),
    ("upsample", (1, 8), {"size": [8, 8]}, "size is [8, 8], and a series (C, L) wants one number or 1"),
    ("upsample", (1, 8), {"scale_factor": 0.1}, "leaves nothing of (1, 8)"),
    ("linear", (1000, 1), {"out_features": 10**9}, "makes 1,000,000,000,000 values of one row, more than 67,108,864"),
    ("embedding", (2000,), {"num_embeddings": 2, "embedding_dim": 10**6}, "makes 2,000,000,000 values of one row, more than 67,108,864"),
    ("flatten", (4,), {"start_dim": 2}, "joins dimensions 2 to -1, and (4,) has 1 to 1"),
    ("flatten", (4, 4), {"end_dim": 3}, "joins dimensions 1 to 3, and (4, 4) has 1 to 2"),
    ("unflatten", (10,), {"shape": [3, 4]}, "wants a vector of 3 × 4 = 12 values, and gets (10,)"),
    ("dropout2d", (10,), {}, "wants a picture (C, H, W), and gets (10,)"),
    ("batch_norm", (1, 2, 3, 4, 5), {}, "wants (D,), (C, L), (C, H, W) or (C, D, H, W), and gets (1, 2, 3, 4, 5)"),
    ("instance_norm", (4, 1, 1), {}, "wants (C, L), (C, H, W) or (C, D, H, W) with more than one value in a channel, and gets (4, 1, 1)"),
    ("layer_norm", (4, 5), {"normalized_shape": [4]}, "wants a shape that ends in 4, and gets (4, 5)"),
    ("group_norm", (4, 5), {"num_groups": 3}, "wants channels that divide into 3 groups, and gets (4, 5)"),
    ("lstm", (4,), {"hidden_size": 3}, "wants a sequence (T, D), and gets (4,)"),
    ("gru", (4, 2), {"hidden_size": 3, "dropout": 0.5}, "dropout is between stacked nets, and num_layers is 1"),
    ("rnn", (4, 2), {"hidden_size": 3, "num_layers": 1001}, "num_layers is 1001, more than 1000"),
    ("softmax", (4,), {"dim": 2}, "dim is 2, and (4,) has 1 to 1, or -1 to -1"),
    ("glu", (2, 5), {}, "halves dimension -1 of (2, 5), which is odd"),
    ("prelu", (2, 5), {"num_parameters": 5}, "num_parameters is 5, and (2, 5) has 2 channels"),
    ("rrelu", (2,), {"lower": 0.5, "upper": 0.25}, "lower is 0.5, above upper, 0.25"),
    ("hardtanh", (2,), {"min_val": 1.0}, "min_val is 1, not below max_val, 1"),
    ("residual", (4,), {"layers": [{"linear": 5}]}, "adds (4,) to what its layers give, and that is (5,)"),
    ("residual", (4,), {"layers": [{"linear": 5}], "shortcut": [{"linear": 6}]}, "adds (6,) to what its layers give, and that is (5,)"),
    (
        "residual",
        (4,),
        {"layers": [{"linear": {"out_features": 5, "name": "shortcut"}}], "shortcut": [{"linear": 5}]},
        "one of its layers is named 'shortcut', which is the name of the way around them",
    ),
]


@pytest.mark.parametrize(("name", "shape", "arguments", "sentence"), REFUSED)
def test_layer_says_what_it_wants(name: str, shape: Shape, arguments: dict[str, Any], sentence: str):
    """What a layer cannot work with is told before any memory is used."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the sentence is compared whole)
        part(name, **arguments).build(Incoming(shape, 3))
    assert str(caught.value) == sentence


def faults(spec_of: Any, layer: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec_of(layer)
    return [fault.what for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("layer", "sentences"),
    [
        ({"dropout": 1}, ["p: 1 is not less than 1"]),
        ({"dropout": -0.1}, ["p: -0.1 is not at least 0"]),
        ({"linear": 0}, ["out_features: 0 is not at least 1 or 'auto'"]),
        ({"linear": "Auto"}, ["out_features: 'Auto' is not a whole number or 'auto'"]),
        ({"conv2d": {"out_channels": 6}}, ["'kernel_size' is missing"]),
        (
            {"conv2d": {"out_channels": 0, "kernel_size": [3, 0]}},
            ["out_channels: 0 is not at least 1", "kernel_size.1: 0 is not at least 1"],
        ),
        (
            {"conv2d": {"out_channels": 1, "kernel_size": 3, "padding": "sam"}},
            ["padding: 'sam' is not a whole number or a list or one of 'same', 'valid'"],
        ),
        ({"softmax": 0}, ["dim: 0 is not at least 1 or at most -1"]),
        ({"gelu": "tan"}, ["approximate: 'tan' is not one of 'none', 'tanh'"]),
        ({"relu": 3}, ["layer 'relu' takes no arguments, and was given 3"]),
        ({"relu": {"inplace": True}}, ["key 'inplace' does not exist"]),
        ({"residual": []}, ["layers: [] is not a list of at least 1"]),
        ({"residual": [{"linear": 0}, "rel"]}, ["out_features: 0 is not at least 1 or 'auto'", "layer 'rel' does not exist"]),
        ({"linear": 3, "out_features": 4}, ["'out_features' is given twice"]),
        ({"linear": {"out_features": 3, "name": "a"}, "name": "b"}, ["'name' is given twice"]),
    ],
)
def test_wrong_arguments_are_refused_by_the_spec(spec_of: Any, layer: Any, sentences: list[str]):
    """A wrong argument is told when the config is read, all of them at once."""
    assert faults(spec_of, layer) == sentences


def test_layers_are_checked_without_torch():
    """Registering the layers and reading all their signatures must not import torch: a config is checked before it."""
    code = (
        "import sys, nnrun.model.layers; from nnrun.registry import LAYERS; from nnrun.spec.parts import part_class;"
        "[part_class(LAYERS, name) for name in LAYERS]; part_class(LAYERS, 'residual').model_validate({'layers': ['relu']});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_layer_needs_more_room_than_it_checks():
    """The bound counts all values of the largest thing a layer makes of one row."""
    assert math.prod(shape_of("conv2d", (1, 8, 8), out_channels=3, kernel_size=1, padding=2)) == 3 * 12 * 12
