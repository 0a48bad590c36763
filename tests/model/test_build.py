"""A list of layers becomes a model: the weights of a plain script, shapes that flow, and faults that name their layer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from nnrun.errors import SpecError
from nnrun.model.build import LayerRow, build_model, forward_work, layer_table, passed
from nnrun.spec.parts import Part
from nnrun.spec.reader import read_spec
from tests.conftest import ROOT

LENET = [
    {"conv2d": {"out_channels": 6, "kernel_size": 3, "name": "conv1"}},
    "relu",
    {"max_pool2d": 2},
    {"conv2d": {"out_channels": 16, "kernel_size": 3, "name": "conv2"}},
    "relu",
    {"max_pool2d": 2},
    "flatten",
    {"linear": 120},
    "relu",
    {"linear": 84},
    "relu",
    {"linear": "auto"},
]


def same_weights(ours: nn.Module, plain: nn.Module) -> bool:
    """Return whether two models have the same weights, bit for bit, in the same order."""
    pairs = list(zip(ours.parameters(), plain.parameters(), strict=True))
    return bool(pairs) and all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_widths_have_the_weights_of_a_plain_script(spec_of: Any):
    """An MLP by widths: bit for bit what these lines of PyTorch give, and so is its output."""
    model = build_model(spec_of(16, 8, seed=7, activation="sigmoid"), (4,), 3, "3 classes")
    torch.manual_seed(7)
    plain = nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 3))
    assert same_weights(model, plain)
    assert torch.equal(model(torch.ones(5, 4)), plain(torch.ones(5, 4)))
    assert list(model.state_dict()) == list(plain.state_dict())


def test_lenet_has_the_weights_of_a_plain_script(spec_of: Any):
    """The LeNet of the PyTorch tutorial: its counts of parameters, and bit for bit its weights, although zeros ran through each layer."""
    model = build_model(spec_of(*LENET, seed=11), (1, 32, 32), 10, "10 classes")
    torch.manual_seed(11)
    plain = nn.ModuleList([nn.Conv2d(1, 6, 3), nn.Conv2d(6, 16, 3), nn.Linear(576, 120), nn.Linear(120, 84), nn.Linear(84, 10)])
    assert [weight.numel() for weight in model.parameters()] == [
        6 * 1 * 3 * 3,
        6,
        16 * 6 * 3 * 3,
        16,
        120 * 576,
        120,
        84 * 120,
        84,
        10 * 84,
        10,
    ]
    assert same_weights(model, plain)


def test_layers_that_draw_when_they_run_leave_the_weights_alone(spec_of: Any):
    """Dropout, rrelu and batch norm see the zeros in eval mode: nothing is drawn, no mean is kept, and training mode is left on."""
    layers = [{"linear": 8}, {"dropout": 0.5}, "rrelu", "batch_norm", {"linear": "auto"}]
    model = build_model(spec_of(*layers, seed=5), (4,), 3, "3 classes")
    torch.manual_seed(5)
    plain = nn.ModuleList([nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)])
    after = torch.get_rng_state()
    build_model(spec_of(*layers, seed=5), (4,), 3, "3 classes")
    assert same_weights(model, plain)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(model[3].running_mean, torch.zeros(8))
    assert all(module.training for module in model.modules())


def test_nested_and_recurrent_layers_have_the_weights_of_a_plain_script(spec_of: Any):
    """Embedding, LSTM and a residual inside draw in the order of the list, once."""
    layers = [{"embedding": 9, "embedding_dim": 5}, {"lstm": 6}, {"residual": [{"linear": 6}, "relu", {"linear": 6}]}, {"linear": "auto"}]
    model = build_model(spec_of(*layers, seed=2), (7,), 2, "2 classes")
    torch.manual_seed(2)
    plain = nn.ModuleList([nn.Embedding(9, 5), nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)])
    assert same_weights(model, plain)


def test_another_seed_gives_other_weights(spec_of: Any):
    """The seed reaches the weights."""
    one, two = (build_model(spec_of(4, seed=seed), (4,), 3, "3 classes") for seed in (1, 2))
    assert not torch.equal(one[0].weight, two[0].weight)


def test_widths_flatten_pictures_and_end_with_an_output_layer(spec_of: Any):
    """A picture is flattened first; each width has an activation of its own; no widths is the output layer alone."""
    picture = build_model(spec_of(5, 6, activation="prelu"), (1, 2, 3), 2, "2 classes")
    assert [type(layer).__name__ for layer in picture] == ["Flatten", "Linear", "PReLU", "Linear", "PReLU", "Linear"]
    assert picture[2] is not picture[4]
    assert repr(build_model(spec_of(), (4,), 3, "3 classes")) == repr(nn.Sequential(nn.Linear(4, 3)))


def test_layers_are_named_by_label_or_number(spec_of: Any):
    """The names in the checkpoint: the label where there is one, else the place in the list."""
    model = build_model(spec_of({"linear": 5, "name": "first"}, "relu", {"linear": "auto"}), (4,), 3, "3 classes")
    assert list(model.state_dict()) == ["first.weight", "first.bias", "2.weight", "2.bias"]


REFUSED: list[tuple[list[Any], tuple[int, ...], str, str, tuple[Any, ...]]] = [
    (
        [*LENET[:3], "flatten", LENET[3]],
        (1, 32, 32),
        "layer 4 (conv2d 'conv2'): wants a picture (C, H, W), and gets (1350,)",
        "put `unflatten` before it",
        ("layers", 4),
    ),
    (
        [{"linear": 7}],
        (4,),
        "the last layer gives (7,), and the data has 3 classes",
        "write `linear: auto` for layer 0 (linear)",
        ("layers", 0),
    ),
    (
        [{"linear": 7, "name": "head"}, "sigmoid"],
        (4,),
        "the last layer gives (7,), and the data has 3 classes",
        "write `linear: auto` for layer 0 (linear 'head')",
        ("layers", 0),
    ),
    (["relu", "dropout"], (4,), "the last layer gives (4,), and the data has 3 classes", "end the list with `linear: auto`", ("layers", 1)),
    (
        [{"linear": "auto"}],
        (5, 4),
        "the last layer gives (5, 3), and the data has 3 classes",
        "end the list with `flatten` and `linear: auto`",
        ("layers", 0),
    ),
    (
        [{"linear": 5, "name": "a"}, {"linear": 5, "name": "a"}],
        (4,),
        "layer 1 (linear 'a'): the name 'a' is given to another layer already",
        "give each layer a name of its own",
        ("layers", 1),
    ),
    (
        [{"linear": 5, "name": "forward"}],
        (4,),
        "layer 0 (linear 'forward'): torch keeps the name 'forward' for itself",
        "write forward_layer",
        ("layers", 0),
    ),
    (
        [{"linear": 50_000}, "relu", {"linear": 50_000}],
        (4,),
        "layer 2 (linear): 2,500,050,000 parameters, and 250,000 before it, are more than 2,000,000,000",
        "make it smaller, or reduce what reaches it",
        ("layers", 2),
    ),
    (["relu"] * 10_001, (4,), "10,001 layers are more than 10,000", "leave some out", ("layers",)),
    (
        [{"conv2d": {"out_channels": 4, "kernel_size": 3, "stride": 2, "padding": "same"}}],
        (1, 8, 8),
        "layer 0 (conv2d): cannot take (1, 8, 8): padding='same' is not supported for strided convolutions",
        "",
        ("layers", 0),
    ),
    (
        [{"max_pool2d": 2, "padding": 2}],
        (1, 8, 8),
        "layer 0 (max_pool2d): cannot take (1, 8, 8): "
        "pad should be at most half of effective kernel size, but got pad=2, kernel_size=2 and dilation=1",
        "",
        ("layers", 0),
    ),
    (
        [{"residual": [{"linear": 4}, {"residual": ["relu", {"conv1d": 3, "kernel_size": 1}]}]}],
        (4,),
        "layer 0 (residual): layer 1 (residual): layer 1 (conv1d): wants a series (C, L), and gets (4,)",
        "put `unflatten` before it",
        ("layers", 0, "layers", 1, "layers", 1),
    ),
    (
        [{"residual": [{"linear": 40_000}, {"linear": 60_000}, {"linear": 4}]}],
        (4,),
        "layer 0 (residual): layer 1 (linear): 2,400,060,000 parameters, and 200,000 before it, are more than 2,000,000,000",
        "make it smaller, or reduce what reaches it",
        ("layers", 0, "layers", 1),
    ),
    ([30_000, 90_000], (4,), "layer 2 (linear): 2,700,090,000 parameters, and 150,000 before it, are more than 2,000,000,000",
     "make it smaller, or reduce what reaches it", ("layers", 1)),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "shape", "what", "fix", "at"), REFUSED)
def test_fault_names_its_layer(spec_of: Any, layers: list[Any], shape: tuple[int, ...], what: str, fix: str, at: tuple[Any, ...]):
    """One sentence: which layer, what it wants, what it gets; and the path of that layer in the config."""
    with pytest.raises(SpecError) as caught:
        build_model(spec_of(*layers), shape, 3, "3 classes")
    assert [(fault.what, fault.fix, fault.at) for fault in caught.value.faults] == [(what, fix, at)]


def test_parameters_are_counted_over_the_whole_list(spec_of: Any):
    """What is inside a residual counts for the layers after it."""
    with pytest.raises(SpecError) as caught:
        build_model(spec_of({"residual": [{"linear": 4}, {"linear": 4}]}, {"linear": "auto"}), (4,), 3, "3 classes", max_parameters=50)
    assert caught.value.faults[0].what == "layer 1 (linear): 15 parameters, and 40 before it, are more than 50"


def test_resnet18_has_the_weights_that_it_is_known_for():
    """Of pictures of three colours and ten classes; each halving of the picture has a shortcut of its own."""
    spec, _ = read_spec(ROOT / "examples" / "resnet18.yaml")
    model = build_model(spec, (3, 32, 32), 10, "10 classes")
    assert sum(weight.numel() for weight in model.parameters()) == 11_173_962
    assert sum(name.endswith("shortcut.0.weight") for name in model.state_dict()) == 3
    assert [tuple(shape) for _, _, shape in passed(model, (3, 32, 32)) if len(shape) == 3][-1] == (512, 1, 1)


def test_building_does_not_import_torchs_compiler():
    """It would cost two seconds; embedding, which draws from a normal distribution, is the layer that would pull it in."""
    code = (
        "import sys, torch; before = set(sys.modules); import nnrun.model.layers; from nnrun.registry import LAYERS;"
        "from nnrun.spec.parts import part_class; from nnrun.model.flow import numbered, stack; from nnrun.model.incoming import Incoming;"
        "part = lambda name, **a: part_class(LAYERS, name).model_validate(a);"
        "stack(numbered([part('embedding', num_embeddings=3, embedding_dim=4), part('batch_norm'),"
        "part('conv1d', out_channels=2, kernel_size=1), part('prelu'), part('layer_norm'),"
        "part('lstm', hidden_size=2)]), Incoming((3,), 1));"
        "new = {name.partition('.')[2].partition('.')[0] for name in set(sys.modules) - before if name.startswith('torch.')};"
        "print(sorted(new - {'utils'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_saved_layers_build_the_same_model(spec_of: Any):
    """The complete form of the list, as the run folder keeps it, gives the same weights and names."""
    from nnrun.spec.experiment import plain

    layers = [*LENET[:7], {"linear": 8}, {"residual": [{"linear": 8, "name": "inner"}, "tanh"]}, {"linear": "auto", "name": "head"}]
    spec = spec_of(*layers, seed=4)
    again = spec_of(*plain(spec)["layers"], seed=4)
    first, second = (build_model(one, (1, 32, 32), 10, "10 classes") for one in (spec, again))
    assert all(isinstance(layer, Part) for layer in again.layers)
    assert list(first.state_dict()) == list(second.state_dict())
    assert same_weights(first, second)


def test_table_of_lenet(spec_of: Any):
    """A row a layer: name, class, shapes of one row, parameters."""
    model = build_model(spec_of(*LENET), (1, 32, 32), 10, "10 classes")
    table = layer_table(model, (1, 32, 32))
    assert table[0] == LayerRow("conv1", "Conv2d", (1, 32, 32), (6, 30, 30), 60)
    assert table[6] == LayerRow("6", "Flatten", (16, 6, 6), (576,), 0)
    assert [row.name for row in table] == ["conv1", "1", "2", "conv2", *map(str, range(4, 12))]
    assert sum(row.parameters for row in table) == 60 + 880 + 69_240 + 10_164 + 850


def test_table_counts_what_is_inside_a_layer(spec_of: Any):
    """A residual is one row with the parameters of its inside; the model is left as it was."""
    model = build_model(spec_of({"residual": [{"linear": 4}]}, "dropout", {"linear": "auto"}), (4,), 3, "3 classes")
    table = layer_table(model, (4,))
    assert table[0] == LayerRow("0", "Residual", (4,), (4,), 20)
    assert len(table) == 3
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("layers", "shape", "work"),
    [
        ([16], (4,), 4 * 16 + 16 * 3),
        ([{"residual": [{"linear": 4}]}, "relu", {"linear": "auto"}], (4,), 4 * 4 + 4 * 3),
        ([*LENET[:6], "flatten", {"linear": "auto"}], (1, 32, 32), 6 * 9 * 30 * 30 + 16 * 6 * 9 * 13 * 13 + 576 * 3),
        ([{"conv2d": 4, "kernel_size": 3, "groups": 2}, "flatten", {"linear": "auto"}], (2, 5, 5), 4 * 9 * 9 + 36 * 3),
        ([{"conv_transpose1d": 4, "kernel_size": 3}, "flatten", {"linear": "auto"}], (2, 5), 2 * 5 * 4 * 3 + 28 * 3),
        ([{"lstm": 6, "num_layers": 2}, {"linear": "auto"}], (7, 5), 7 * 4 * 6 * (5 + 6 + 6 + 6) + 6 * 3),
    ],
)  # fmt: skip
def test_work_is_counted_in_multiply_adds(spec_of: Any, layers: list[Any], shape: tuple[int, ...], work: int):
    """By hand: outputs times the weights that each of them needs."""
    assert forward_work(build_model(spec_of(*layers), shape, 3, "3 classes"), shape) == work
