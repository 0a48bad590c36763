"""The house: imports go down, files and functions stay small, nothing can run code from a file, only the command line prints."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nnrun.builtin  # noqa: F401
from nnrun.registry import KINDS
from tests.conftest import ROOT

FILES = sorted((ROOT / "nnrun").rglob("*.py"))
FLOORS = [
    {"errors", "registry", "lazy", "machine", "plugins", "peers"},
    {"spec"},
    {"data", "model", "training"},
    {"check", "runs", "tracking", "builtin", "catalog", "init"},
    {"outcome"},
    {"run", "trained"},
    {"stacked", "several"},
    {"compare", "folds", "seeds"},
    {"sweep"},
    {"report"},
    {"require"},
    {"actions"},
    {"terminal", "complete"},
    {"usage", "live", "launch"},
    {"commands"},
    {"cli"},
]
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "importlib.import_module"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.hub.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
}


def floor(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(FLOORS) if part in names), -1)


def trees() -> list[tuple[Path, ast.Module]]:
    return [(file, ast.parse(file.read_text())) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file: Path):
    """A module imports from its own floor or a lower one."""
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    if floor(module) < 0:
        return
    for node in ast.walk(ast.parse(file.read_text())):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        above = [name for name in names if name.startswith("nnrun.") and floor(name) > floor(module)]
        allowed = {"nnrun.builtin"} if floor(module) >= 4 else set()
        assert not set(above) - allowed, f"{module} imports {above}"


def test_files_and_functions_are_small():
    """A reader holds one screen's worth of ideas at a time: 400 lines a file, 60 a function."""
    for file, tree in trees():
        assert len(file.read_text().splitlines()) <= 400, file
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{file}: {node.name}"


def test_nothing_runs_code_from_a_file():
    """No pickle, no torch.load, no eval, no import by name; numpy never unpickles."""
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not names & FORBIDDEN, file
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                allowed = {"importlib.import_module"} if file.name == "plugins.py" else set()  # what --plugin names, and nothing else
                assert called not in (FORBIDDEN_CALLS | FORBIDDEN) - allowed, f"{file}:{node.lineno}"
                assert not any(word.arg == "shell" for word in node.keywords), f"{file}:{node.lineno}"
                if called in ("np.load", "numpy.load"):
                    assert any(word.arg == "allow_pickle" and ast.unparse(word.value) == "False" for word in node.keywords), (
                        f"{file}:{node.lineno}"
                    )


def test_only_the_command_line_loads_plugins():
    """Nothing that reads a config or a checkpoint can cause an import by name."""
    callers = {
        file.name
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "load_plugins"
    }
    importers = {file.name for file in FILES if "importlib" in file.read_text()}
    assert callers == {"options.py"}
    assert importers == {"plugins.py", "vision.py", "bundled.py"}


def test_only_the_command_line_prints():
    """The work is plain functions that a test or a notebook can call."""
    for file, tree in trees():
        prints = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.exit")]
        assert not prints or file.name in ("cli.py", "terminal.py", "usage.py") or file.parent.name == "commands", f"{file}:{prints}"


def test_every_public_function_is_documented():
    """A docstring each; mypy --strict holds the types."""
    for file, tree in trees():
        assert ast.get_docstring(tree) or not tree.body, file
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{file}: {node.name}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_part_explains_itself(kind: str):
    """A first line, and a sentence for each argument."""
    for name in KINDS[kind]:
        entry = KINDS[kind][name]
        assert entry.summary.endswith((".", ")")), name
        assert [argument.name for argument in entry.arguments.values() if not argument.help] == [], name
