"""What the shell offers after Tab: config files, kinds and names, run folders. Nothing heavy is imported for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def configs(incomplete: str) -> list[str]:
    """Return the YAML files that begin so, here and in the folders beside."""
    return _below(incomplete, lambda path: path.is_file() and path.suffix in (".yaml", ".yml"))


def runs(incomplete: str) -> list[str]:
    """Return the run folders that begin so, under `runs/` and beside what has been typed."""
    found = _below(incomplete, _is_run)
    return found + [run for run in _below("runs/", _is_run) if run.startswith(incomplete) and run not in found]


def kinds(incomplete: str) -> list[tuple[str, str]]:
    """Return the kinds of parts that begin so, each with how many there are."""
    known = _kinds()
    return [(kind, f"{len(known[kind])} names") for kind in known if kind.startswith(incomplete)]


def names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the names of the kind typed before that begin so, each with its line in `nnrun list`."""
    registry = _kinds().get(str(context.params.get("kind")), {})
    return [(name, registry[name].summary) for name in registry if name.startswith(incomplete)]


def _kinds() -> dict[str, Any]:
    import nnrun.builtin  # noqa: F401
    from nnrun.registry import KINDS

    return dict(KINDS)


def _is_run(path: Path) -> bool:
    return path.is_dir() and ((path / "config.yaml").is_file() or (path / "last.safetensors").is_file())


def _below(incomplete: str, wanted: Any) -> list[str]:
    """Return what is wanted in the folder being typed and in those directly below, as it would be typed."""
    typed = incomplete.rpartition("/")[0] + "/" if "/" in incomplete else ""
    try:
        found = [path for pattern in ("*", "*/*") for path in sorted(Path(typed or ".").glob(pattern)) if wanted(path)]
    except OSError:
        return []
    shown = [typed + path.relative_to(typed or ".").as_posix() for path in found if "/." not in f"/{path.relative_to(typed or '.')}"]
    return [path for path in shown if path.startswith(incomplete)]
