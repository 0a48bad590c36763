"""Plug-ins: modules of the user's own that register parts, named on the command line by `--plugin` and nowhere else.

Nothing in a config or a checkpoint reaches the import below: a checkpoint only says which plug-ins it needs, and is refused without them.
A part belongs to the module that its builder is written in; the parts of nnrun itself belong to none.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nnrun.errors import Fault, InputError, NnrunError, Place, closest
from nnrun.registry import Entry, PartError

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
LOADED: dict[str, str] = {}
"""Plug-in → its file, of those that were loaded."""

CONTRACTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "datasets": (0, "takes keyword-only arguments alone, and returns a Dataset", {"table": (True,)}),
    "splits": (1, "takes (asked), and returns the row numbers of each part", {"needs": ("classes",)}),
    "preprocess": (0, "takes keyword-only arguments alone, and returns a Step", {"codes": (True,), "fills": (True,)}),
    "augment": (0, "takes keyword-only arguments alone, and returns a Change", {}),
    "layers": (1, "takes (at), what reaches the layer, and returns a torch module", {"activation": (True, False), "nested": (True, False)}),
    "losses": (
        0,
        "takes keyword-only arguments alone, and returns a torch module of (output, target)",
        {
            "classes": ("number", "one_hot", "zero_one", "plus_minus"),
            "numbers": tuple(range(1, 10)),
            "scores": ("logits", "log_probabilities", "binary_logits", "margins", "rates", "values"),
        },
    ),
    "optimizers": (2, "takes (parameters, lr), and returns an optimizer of torch", {"closure": (True, False), "by_number": (True, False)}),
    "schedules": (
        1,
        "takes (epochs), and returns a function of the epoch",
        {"every": ("epoch", "step"), "spans_run": (True, False), "plateau": (True, False)},
    ),
    "metrics": (
        1,
        "takes (scored), and returns a tensor of no dimension",
        {
            "task": ("classes", "numbers"),
            "better": ("higher", "lower"),
            "interval": ("share", "confusion", "rows"),
            "cost": (1, 2, 4, 8, 16, 32),
        },
    ),
    "rules": (
        1,
        "takes (spec), for on='data' (examined), or for on='outcome' (predicted, y, task), and yields a Finding for each thing it sees",
        {
            "on": ("config", "data", "plan", "batch", "outcome", "weights", "losses"),
            "severity": ("error", "warning", "note"),
        },
    ),
    "trackers": (0, "takes keyword-only arguments alone, and returns a Tracker", {}),
    "strategies": (0, "takes keyword-only arguments alone, a `timeout` among them, and returns a Strategy", {}),
}
"""Kind → how many arguments nnrun supplies, what a builder is, and each trait with its values."""
NEEDED = {"losses": ("scores",), "metrics": ("task", "better"), "rules": ("on", "severity")}
"""Kind → the traits that must be given; of a loss also `classes` or `numbers`."""


def load_plugins(names: Sequence[str]) -> None:
    """Import plug-ins, which register their parts: files ending in .py, or modules, looked for in the current folder first.

    Raises:
        InputError: there is none of that name, or it cannot be imported; with the file and the line at fault.
    """
    for name in names:
        path = _file(name)
        module = path.stem if path else name
        if path and LOADED.get(module) == str(path):
            continue
        if not MODULE.fullmatch(module):
            raise InputError(f"--plugin {name} is not the name of a module", fix="give a module, or a file such as my_parts.py")
        other = _another(module, path) if path else ""
        if other:
            raise InputError(f"--plugin {name}: there is a module {module!r} already: {other}", fix="rename the file")
        LOADED[module] = _imported(name, module, path)


def check_part(entry: Entry, singular: str) -> None:
    """Refuse a part that configs could not name or nnrun could not build.

    Raises:
        PartError: with what is wrong and what it should be.
    """
    told, (supplied, kind, traits) = f"the {singular} {entry.name!r}", CONTRACTS[entry.kind]
    if not NAME.fullmatch(entry.name) and entry.kind != "rules":
        raise PartError(f"{told} is not a name: small letters, digits and _", "write it like 'my_part'")
    if not inspect.isfunction(entry.build):
        raise PartError(f"{told} is no function", f"decorate a function: it {kind}")
    parameters = inspect.signature(entry.build).parameters.values()
    given = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    wanted = 1 if entry.traits.get("table") else {"plan": 2, "outcome": 3}.get(str(entry.traits.get("on")), supplied)
    if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters) or (wanted >= 0 and len(given) != wanted):
        raise PartError(f"{told} has another signature than its kind", f"it {kind}; the config's own arguments come after a `*`")
    untyped = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.annotation is one.empty]
    if untyped:
        raise PartError(f"{told}: the argument {untyped[0]!r} has no type", f"write `{untyped[0]}: float`, or what it is")
    if not entry.summary:
        raise PartError(f"{told} has no docstring", "its first line is what `nnrun list` shows")
    for trait, value in entry.traits.items():
        if trait not in traits:
            raise PartError(f"{told} has no trait {trait!r}", f"{_traits(traits)}" if traits else "leave it out")
        if value not in traits[trait]:
            raise PartError(f"{told}: {trait}={value!r} is not possible", f"write one of {', '.join(map(repr, traits[trait]))}")
    missing = [trait for trait in NEEDED.get(entry.kind, ()) if trait not in entry.traits]
    if missing or (entry.kind == "losses" and not {"classes", "numbers"} & set(entry.traits)):
        raise PartError(f"{told} lacks the trait {missing[0] if missing else 'classes or numbers'}", _traits(traits))


def fault_in_plugin(error: BaseException) -> InputError | None:
    """Return an error that came out of a plug-in's code, with its line there; None for any other."""
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in LOADED.values()]
    if not inside:
        return None
    name = next(name for name, file in LOADED.items() if file == inside[-1].filename)
    return _told(name, error, inside[-1].filename, inside[-1].lineno or 1)


def _file(name: str) -> Path | None:
    """Return the file that a plug-in's name stands for; None for a module that Python finds."""
    path = Path(name)
    if name.endswith(".py") or "/" in name:
        if not path.is_file():
            near = closest(path.name, [other.name for other in path.parent.glob("*.py")])
            fix = f"did you mean --plugin {path.parent / near}?" if near else "give a file of Python, or the name of a module"
            raise InputError(f"--plugin {name}: there is no such file", fix=fix)
        return path.resolve()
    here = Path(f"{name}.py")
    return here.resolve() if here.is_file() else None


def _another(module: str, path: Path) -> str:
    """Return the file of another module of this name, which a plug-in would hide; empty when there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # one without a specification, such as __main__
        return module
    if spec is None or (spec.origin and Path(spec.origin).resolve() == path):
        return ""
    return str(spec.origin or module)


def _imported(name: str, module: str, path: Path | None) -> str:
    """Import one plug-in; return its file."""
    beside = str(path.parent if path else Path.cwd())
    if beside not in sys.path:  # at its end: what a plug-in imports can hide no library
        sys.path.append(beside)
    try:
        made = _from_file(module, path) if path else importlib.import_module(module)
        return str(made.__file__)
    except ModuleNotFoundError as error:
        if path is None and error.name and (module == error.name or module.startswith(f"{error.name}.")):
            near = closest(module, [other.stem for other in Path().glob("*.py")])
            fix = f"did you mean --plugin {near}?" if near else "give a file such as my_parts.py, or an installed module"
            raise InputError(f"--plugin {name}: there is no {module}.py here, and no module {module!r}", fix=fix) from None
        raise _at_its_line(module, path, error) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the code is the user's own: whatever it raises is told with its place)
        raise _at_its_line(module, path, error) from None


def _from_file(module: str, path: Path) -> ModuleType:
    """Execute a file as a module."""
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a file of Python")
    made = sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[module]
        raise
    return made


def _at_its_line(module: str, path: Path | None, error: BaseException) -> InputError:
    """Return an error of an import, placed at the last line of the user's code that led to it."""
    if isinstance(error, SyntaxError) and error.filename:
        return _told(module, error, error.filename, error.lineno or 1)
    ours = str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<", ours))]
    inside = [frame for frame in frames if path and Path(frame.filename).parent == path.parent] or frames
    if not inside:
        return InputError(f"plug-in {module}: {type(error).__name__}: {error}", fix="mend the plug-in")
    return _told(module, error, inside[-1].filename, inside[-1].lineno or 1)


def _told(name: str, error: BaseException, file: str, line: int) -> InputError:
    lines = Path(file).read_text("utf-8", "replace").splitlines() if Path(file).is_file() else []
    source = lines[line - 1] if line <= len(lines) else ""
    place = Place(file, line, len(source) - len(source.lstrip()) + 1, source, len(source.strip()))
    if isinstance(error, PartError):
        return InputError([Fault(f"plug-in {name}: {error}", error.fix, place)])
    what = str(error.faults[0].what) if isinstance(error, NnrunError) else f"{type(error).__name__}: {getattr(error, 'msg', error)}"
    return InputError([Fault(f"plug-in {name}: {what}", "mend the plug-in: the fault is in it, or in what it is given", place)])


def _traits(traits: dict[str, Any]) -> str:
    return "traits: " + "; ".join(f"{name}: {', '.join(map(repr, values))}" for name, values in traits.items())
