"""Plug-ins: parts of the user's own, brought by `--plugin` and by nothing else; a checkpoint names those it needs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import nnrun.builtin  # noqa: F401
from nnrun import plugins
from nnrun.registry import KINDS
from nnrun.run import open_run
from nnrun.runs.checkpoint import Checkpoint, load, to_bytes
from nnrun.spec.parts import part_class
from nnrun.spec.reader import read_spec
from tests.conftest import ROOT, Program
from tests.test_resume import StopAt, finish

Call = Callable[..., Result]

PARTS = """
import torch
from torch import nn
from nnrun.registry import LAYERS, METRICS


class Stray(nn.Module):
    def forward(self, x):
        return x + 0 * torch.rand(7).sum()


@LAYERS.register("stray")
def stray(at, /):
    '''Change nothing, and draw a random number.'''
    return Stray()


@METRICS.register("drawn", task="classes", better="higher")
def drawn(scored):
    '''Half of nothing, and a random number drawn.'''
    return torch.rand(2).sum() * 0 + 0.5
"""
CONFIG = "dataset: iris\nlayers: [{linear: 6}, relu, {dropout: 0.2}, stray, {linear: auto}]\nbatch_size: 8\nepochs: 3\nmetrics: [accuracy]\ncheckpoint: {every: 2 steps}\n"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch):
    """What a test registers is gone after it."""
    modules, path = set(sys.modules), list(sys.path)
    for registry in KINDS.values():
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(plugins, "LOADED", {})
    yield
    part_class.cache_clear()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if not name.startswith(("torch", "nnrun", "numpy")):
            del sys.modules[name]


@pytest.fixture
def my_parts(call: Call, tmp_path: Path) -> Path:
    """Return a plug-in with a layer and a metric, beside a config that uses the layer."""
    (tmp_path / "my_parts.py").write_text(PARTS)
    (tmp_path / "it.yaml").write_text(CONFIG)
    return tmp_path / "my_parts.py"


def test_the_example_trains_and_is_opened_again(nnrun: Program, tmp_path: Path):
    """A dataset, an activation, a loss, a metric and a rule; by its path, by its module's name, and not without it."""
    for name in ("my_parts.py", "my_parts.yaml"):
        shutil.copy(ROOT / "examples" / name, tmp_path / name)
    done = nnrun("train", "my_parts.yaml", "--plugin", "my_parts.py", "--out", "run", "--json", "--set", "metrics=[accuracy]")
    assert done.returncode == 0, done.stderr
    assert "note: MY101: the loss is focal, and no metric looks at the rarest class; metrics: [worst_recall]\n" in done.stderr
    summary = json.loads(done.stdout)
    assert summary["metrics"]["test"]["accuracy"] >= 0.9
    scored = nnrun("eval", "--checkpoint", "run", "--plugin", "my_parts", "--json")
    assert json.loads(scored.stdout)["metrics"] == summary["metrics"]["test"]
    refused = nnrun("predict", "--checkpoint", "run", "-", input='{"east": 0.1, "north": 0.2}\n')
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "".join(
        f"error: run/best.safetensors: this checkpoint needs the {kind} of the plug-in my_parts\n"
        "fix: add --plugin my_parts, where its my_parts.py is, or give the path of the file\n"
        for kind in ("dataset 'spirals'", "layer 'learned_swish'", "loss 'focal'")
    )
    assert "plug-in     my_parts: layer 'learned_swish'\n" in nnrun("show", "run").stdout


def test_list_and_schema_show_them(my_parts: Path, call: Call):
    """With the file and the line; without the option they are not there."""
    done = call("list", "layers", "stray", "--plugin", "my_parts.py")
    assert done.stdout.startswith(f"stray()\n{my_parts}:12\n\nChange nothing, and draw a random number.\n"), done.output
    assert "drawn" in json.loads(call("schema", "--plugin", "my_parts").stdout)["$defs"]["metrics"]["oneOf"][-1]["const"]
    assert call("list", "layers", "stray", "--plugin", "my_parts", "--json").exit_code == 0


def test_a_config_cannot_bring_one(my_parts: Path, call: Call):
    """A name that is a module here is a name that does not exist."""
    (my_parts.parent / "it.yaml").write_text("dataset: iris\nlayers: [{my_parts.stray: null}, {linear: auto}]\n")
    assert call("train", "it.yaml").stderr.startswith("error: it.yaml:2:11: layer 'my_parts.stray' does not exist\n")
    assert "my_parts" not in sys.modules


def test_a_checkpoint_names_them_and_imports_nothing(my_parts: Path, call: Call, tmp_path: Path):
    """Not even when the plug-in lies beside it; what it says of them is not trusted."""
    assert call("train", "it.yaml", "--plugin", "my_parts", "--out", "run", "-q").exit_code == 0
    stored = load(tmp_path / "run" / "best.safetensors")
    assert stored.facts["plugins"] == [["layers", "stray", "my_parts"]]
    del KINDS["layers"]._entries["stray"], sys.modules["my_parts"]
    plugins.LOADED.clear()
    done = call("eval", "--checkpoint", "run")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: run/best.safetensors: this checkpoint needs the layer 'stray' of the plug-in my_parts\n"
        "fix: add --plugin my_parts, where its my_parts.py is, or give the path of the file\n",
    )
    for forged in ([["layers", "stray", "os; rm"]], [["os", "a", "b"]], "my_parts", [["layers", 1, 2]], [[["a"]]], {"a": 1}):
        facts = {key: value for key, value in stored.facts.items() if key not in ("format", "tensors")} | {"plugins": forged}
        (tmp_path / "forged.safetensors").write_bytes(to_bytes(Checkpoint(stored.tensors, facts)))
        assert call("eval", "--checkpoint", "forged.safetensors").stderr == (
            "error: forged.safetensors does not name its plug-ins as nnrun does\nfix: give a checkpoint of `nnrun train`\n"
        )
    assert "my_parts" not in sys.modules


def test_resume_with_and_without(my_parts: Path, call: Call, tmp_path: Path):
    """With it from the middle of an epoch to the byte; without it the plug-in is named, not an unknown layer."""
    from nnrun.errors import Interrupted

    plugins.load_plugins(["my_parts"])
    straight, hurt = tmp_path / "straight", tmp_path / "hurt"
    finish(open_run(*read_spec(tmp_path / "it.yaml"), out=straight))
    run = open_run(*read_spec(tmp_path / "it.yaml"), out=hurt)
    with pytest.raises(Interrupted):
        finish(run, StopAt(run, 17))
    run.lock.release()
    kept = KINDS["layers"]._entries.pop("stray")
    refused = call("train", "it.yaml", "--out", "hurt", "--resume")
    assert refused.stderr == (
        "error: hurt/last.safetensors: this checkpoint needs the layer 'stray' of the plug-in my_parts\n"
        "fix: add --plugin my_parts, where its my_parts.py is, or give the path of the file\n"
    )
    KINDS["layers"]._entries["stray"] = kept
    assert call("train", "it.yaml", "--out", "hurt", "--resume", "--plugin", "my_parts", "-q").exit_code == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (hurt / name).read_bytes() == (straight / name).read_bytes()


def test_what_a_plugin_draws_moves_nothing(my_parts: Path, tmp_path: Path):
    """R4: a layer and a metric that draw from torch's generator leave weights, order and what they learn as they are, to the byte."""
    plugins.load_plugins(["my_parts"])
    plain = CONFIG.replace(" {dropout: 0.2},", "")
    configs = {"plain": plain.replace("stray", "identity"), "layer": plain, "dropped": CONFIG.replace("stray", "identity")}
    configs["metric"] = configs["dropped"].replace("[accuracy]", "[accuracy, drawn]")
    weights = {}
    for name, config in configs.items():
        (tmp_path / "it.yaml").write_text(config)
        run = open_run(*read_spec(tmp_path / "it.yaml"), out=tmp_path / name)
        finish(run)
        weights[name] = [tensor.numpy().tobytes() for tensor in run.network.model.state_dict().values()]
    assert weights["layer"] == weights["plain"]
    assert weights["metric"] == weights["dropped"]
    assert weights["plain"] != weights["dropped"]


HEAD = "from nnrun.registry import DATASETS, LAYERS, LOSSES, METRICS, RULES\n"
FAULTS = {
    "a fault in it": ("x = 1\ny = x / 0\n", "2:1: plug-in bad: ZeroDivisionError: division by zero\n    2 | y = x / 0\n      | ^^^^^^^^^\nfix: mend the plug-in: the fault is in it, or in what it is given"),
    "no Python": ("def f(:\n", "1:1: plug-in bad: SyntaxError: invalid syntax\n    1 | def f(:\n"),
    "a missing library": ("import no_such_library_here\n", "1:1: plug-in bad: ModuleNotFoundError: No module named 'no_such_library_here'\n"),
    "an exit": ("raise SystemExit(3)\n", "1:1: plug-in bad: SystemExit: 3\n"),
    "a name that is taken": (HEAD + "@LAYERS.register('relu')\ndef relu(at):\n    'Mine.'\n", "2:1: plug-in bad: the layer 'relu' is registered already: {relu}\n    2 | @LAYERS.register('relu')\n      | ^^^^^^^^^^^^^^^^^^^^^^^^\nfix: give it another name\n"),
    "a name that is none": (HEAD + "@LAYERS.register('My-Layer')\ndef mine(at):\n    'Mine.'\n", "2:1: plug-in bad: the layer 'My-Layer' is not a name: small letters, digits and _\n"),
    "a class": (HEAD + "@LAYERS.register('mine')\nclass Mine:\n    'Mine.'\n", "2:1: plug-in bad: the layer 'mine' is no function\n    2 | @LAYERS.register('mine')\n      | ^^^^^^^^^^^^^^^^^^^^^^^^\nfix: decorate a function: it takes (at), what reaches the layer, and returns a torch module\n"),
    "an argument before the star": (HEAD + "@LAYERS.register('mine')\ndef mine(at, size: int):\n    'Mine.'\n", "2:1: plug-in bad: the layer 'mine' has another signature than its kind\n    2 | @LAYERS.register('mine')\n      | ^^^^^^^^^^^^^^^^^^^^^^^^\nfix: it takes (at), what reaches the layer, and returns a torch module; the config's own arguments come after a `*`\n"),
    "an argument without a type": (HEAD + "@DATASETS.register('mine')\ndef mine(*, rows):\n    'Mine.'\n", "2:1: plug-in bad: the dataset 'mine': the argument 'rows' has no type\n    2 | @DATASETS.register('mine')\n      | ^^^^^^^^^^^^^^^^^^^^^^^^^^\nfix: write `rows: float`, or what it is\n"),
    "no docstring": (HEAD + "@DATASETS.register('mine')\ndef mine():\n    pass\n", "2:1: plug-in bad: the dataset 'mine' has no docstring\n    2 | @DATASETS.register('mine')\n      | ^^^^^^^^^^^^^^^^^^^^^^^^^^\nfix: its first line is what `nnrun list` shows\n"),
    "a trait too few": (HEAD + "@METRICS.register('mine', task='classes')\ndef mine(scored):\n    'Mine.'\n", "2:1: plug-in bad: the metric 'mine' lacks the trait better\n    2 | @METRICS.register('mine', task='classes')\n      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\nfix: traits: task: 'classes', 'numbers'; better: 'higher', 'lower'; interval: 'share', 'confusion', 'rows'; cost: 1, 2, 4, 8, 16, 32\n"),
    "a loss of nothing": (HEAD + "@LOSSES.register('mine', scores='values')\ndef mine():\n    'Mine.'\n", "2:1: plug-in bad: the loss 'mine' lacks the trait classes or numbers\n"),
    "a trait too many": (HEAD + "@RULES.register('X1', on='config', at='night')\ndef mine(spec):\n    'Mine.'\n", "2:1: plug-in bad: the rule 'X1' has no trait 'at'\n"),
    "a value of no trait": (HEAD + "@METRICS.register('mine', task='class', better='higher')\ndef mine(scored):\n    'Mine.'\n", "2:1: plug-in bad: the metric 'mine': task='class' is not possible\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_a_plugin_is_told_as_its_own(case: str, call: Call, tmp_path: Path):
    """File and line of the user's code, exit 2, no traceback."""
    text, sentence = FAULTS[case]
    (tmp_path / "bad.py").write_text(text)
    done = call("list", "--plugin", "bad.py")
    expected = f"error: {tmp_path}/bad.py:{sentence}".replace("{relu}", KINDS["layers"]["relu"].place)
    assert (done.exit_code, done.stdout, done.stderr[: len(expected)]) == (2, "", expected)


def test_a_fault_in_a_helper_is_found_there(call: Call, tmp_path: Path):
    """The last line of the user's own code."""
    (tmp_path / "helper_of_bad.py").write_text("\nraise ValueError('no')\n")
    (tmp_path / "bad.py").write_text("import helper_of_bad\n")
    done = call("list", "--plugin", "bad.py")
    assert done.stderr.startswith(f"error: {tmp_path}/helper_of_bad.py:2:1: plug-in bad: ValueError: no\n")


def test_what_a_plugin_wants_done_at_the_end_is_done(tmp_path: Path, nnrun: Program):
    """What waits for the end is called, and what was printed then is seen; threads are waited for; a file that was left open is whole."""
    (tmp_path / "ending.py").write_text(
        "import atexit, csv, sys, threading, time\n"
        "threading.Thread(target=lambda: (threading.main_thread().join(), time.sleep(0.2), print('the thread'))).start()\n"
        "atexit.register(lambda: print('the end', end=''))\n"
        "log = open('seen.csv', 'w')\ncsv.writer(log).writerow(sys.argv[1:2])\n"
    )
    (tmp_path / "it.yaml").write_text(CONFIG.replace("stray, ", ""))
    for command, code in ((["train", "it.yaml", "-q", "--no-report", "--out", "run"], 0), (["check", "none.yaml"], 2)):
        done = nnrun(*command, "--plugin", "ending.py", cwd=tmp_path)
        assert (done.returncode, done.stdout.endswith("the thread\nthe end")) == (code, True), done
        assert (tmp_path / "seen.csv").read_text() == f"{command[0]}\n"


def test_without_plugins_the_interpreter_is_not_taken_apart(tmp_path: Path, nnrun: Program):
    """Which takes a tenth of a second; what waits for the end is called all the same."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nclass Last:\n    def __del__(self, write=os.write):\n        write(1, b'taken apart')\nos.last = Last()\n"
    )
    done = nnrun("schema", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout.endswith("}\n")) == (0, True)


ODD = """
import torch
from torch import nn
from nnrun.registry import LAYERS


class Odd(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 1, batch_first=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(width, width))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x + self.normed(self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0])


@LAYERS.register("odd")
def odd(at, /):
    '''Modules that make tuples, or take nothing, and a weight that no gradient reaches.'''
    return Odd(at.shape[0])
"""


def test_a_layer_may_hold_modules_of_any_kind(tmp_path: Path, call: Call):
    """Attention, a parametrised weight, an unused one; with momentum, of which an unused weight has none."""
    (tmp_path / "odd.py").write_text(ODD)
    (tmp_path / "it.yaml").write_text(CONFIG.replace("stray", "odd") + "optimizer: {sgd: {momentum: 0.9}}\n")
    done = call("train", "it.yaml", "--plugin", "odd.py", "-q", "--no-report", "--out", "run")
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_fault_while_training_is_the_plugins(my_parts: Path, call: Call):
    """A TypeError in its forward is not told as a bug of nnrun."""
    my_parts.write_text(PARTS.replace("return x + 0 * torch.rand(7).sum()", "return x + None"))
    done = call("train", "it.yaml", "--plugin", "my_parts")
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: {my_parts}:9:9: plug-in my_parts: TypeError: unsupported operand type(s) for +: 'Tensor' and 'NoneType'\n"
        "    9 |         return x + None\n      |         ^^^^^^^^^^^^^^^\nfix: mend the plug-in: the fault is in it, or in what it is given\n"
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "my_part",
            "error: --plugin my_part: there is no my_part.py here, and no module 'my_part'\nfix: did you mean --plugin my_parts?\n",
        ),
        ("my_part.py", "error: --plugin my_part.py: there is no such file\nfix: did you mean --plugin my_parts.py?\n"),
        ("no/where.py", "error: --plugin no/where.py: there is no such file\nfix: give a file of Python, or the name of a module\n"),
        ("os; rm", "error: --plugin os; rm is not the name of a module\nfix: give a module, or a file such as my_parts.py\n"),
        ("json.py", f"error: --plugin json.py: there is a module 'json' already: {json.__file__}\nfix: rename the file\n"),
        (
            "wave.py",
            f"error: --plugin wave.py: there is a module 'wave' already: {Path(json.__file__).parents[1]}/wave.py\nfix: rename the file\n",
        ),
    ],
)
def test_a_plugin_that_is_not_there(name: str, sentence: str, my_parts: Path, call: Call):
    """The nearest file, or what may be given."""
    for module in ("json", "wave"):
        (my_parts.parent / f"{module}.py").write_text("")
    done = call("list", "--plugin", name)
    assert (done.exit_code, done.stderr) == (2, sentence)


def test_the_parts_of_nnrun_keep_the_contract():
    """What is asked of a plug-in holds for what is built in."""
    for registry in KINDS.values():
        for name in registry:
            if not hasattr(registry[name].build, "__wrapped__"):  # one function for 1, 2 and 3 dimensions has another signature
                plugins.check_part(registry[name], registry.singular)


def test_a_package_of_parts(my_parts: Path, call: Call, tmp_path: Path):
    """A module inside a folder; the checkpoint calls it by its dotted name."""
    (tmp_path / "shelf").mkdir()
    my_parts.rename(tmp_path / "shelf" / "parts.py")
    done = call("train", "it.yaml", "--plugin", "shelf.parts", "--out", "run", "-q")
    assert done.exit_code == 0, done.stderr
    assert load(tmp_path / "run" / "best.safetensors").facts["plugins"] == [["layers", "stray", "shelf.parts"]]
    assert call("eval", "--checkpoint", "run", "--plugin", "shelf.parts").exit_code == 0


def test_two_plugins_of_one_name_are_refused(my_parts: Path, call: Call, tmp_path: Path):
    """Which of them a checkpoint would need could not be told."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my_parts.py").write_text("")
    done = call("list", "--plugin", "my_parts.py", "--plugin", "other/my_parts.py")
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: --plugin other/my_parts.py: there is a module 'my_parts' already: {my_parts}\nfix: rename the file\n",
    )


def test_a_plugin_twice_is_one(my_parts: Path, call: Call):
    """By its file and by its name."""
    assert call("list", "--plugin", "my_parts", "--plugin", "my_parts.py").exit_code == 0
    assert torch.get_default_dtype() == torch.float32
