"""`extends: base.yaml`: a config that says only what is different. Every value keeps its place in the file it came from.

Mappings are merged, deeply; anything else replaces what the base says, lists as a whole. So does a part of another name: its arguments are
its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nnrun.errors import SpecError, closest
from nnrun.registry import LAYERS, Registry
from nnrun.spec.base import Location, shown
from nnrun.spec.experiment import registry_at
from nnrun.spec.overrides import written_out
from nnrun.spec.source import Source, read_source


def extended(source: Source) -> Source:
    """Return a source with what it leaves open taken from the files it extends.

    Raises:
        SpecError: a base is missing, cannot be read, or extends one that has been read already.
    """
    chain, seen = [source], [Path(source.file).resolve()]
    while "extends" in chain[-1].values:
        base = _base(chain[-1], seen)
        seen.append(Path(base.file).resolve())
        chain.append(base)
    merged = chain.pop()
    while chain:
        own = chain.pop()
        _merge(own.values, merged.values, (), own, merged)
        merged.file, merged.lines, merged.folders = own.file, own.lines, [*own.folders, *merged.folders]
    return merged


def _base(source: Source, seen: list[Path]) -> Source:
    """Return the source that another one extends, taking the key away."""
    name, place = source.values.pop("extends"), source.places.pop(("extends",))
    if not isinstance(name, str) or not name:
        raise SpecError(f"extends: {shown(name)} is not the path of a config", fix="write a path relative to this file", place=place)
    path = Path(source.file).parent / name
    try:
        if path.is_file() and path.resolve() in seen:
            circle = " → ".join(one.name for one in [*seen[seen.index(path.resolve()) :], path])
            raise SpecError(f"extends goes round in a circle: {circle}", fix="remove one of them", place=place)
        if not path.is_file():
            near = closest(path.name, [other.name for other in path.parent.glob("*.y*ml") if other.resolve() != seen[-1]])
            fix = f"did you mean {str(Path(name).with_name(near))!r}?" if near else "a path is relative to this file"
            raise SpecError(f"{path} does not exist", fix=fix, place=place)
        return read_source(path)
    except (OSError, ValueError):
        raise SpecError(f"{shown(name)} is not a path", fix="write a path relative to this file", place=place) from None
    except SpecError as error:
        raise SpecError([replace(one, place=one.place or place) for one in error.faults]) from None


def _merge(own: dict[str, Any], base: dict[str, Any], at: Location, source: Source, merged: Source) -> None:
    """Put what a mapping says over what its base says, with its places."""
    for key in own:
        here, registry = (*at, key), registry_at((*at, key))
        if registry is not None and isinstance(own[key], dict) and not _another(registry, own[key], base.get(key)):
            base[key] = written_out(merged, here, registry, base.get(key))
            if _names_one(registry, own[key]):
                own[key] = written_out(source, here, registry, own[key])
            same = isinstance(base[key], dict)
        else:
            same = registry is None and isinstance(own[key], dict) and isinstance(base.get(key), dict)
        if same:
            _merge(own[key], base[key], here, source, merged)
        else:
            base[key] = own[key]
            merged.move(here, here, source)


def _another(registry: Registry, own: dict[str, Any], base: Any) -> bool:
    """Return whether a part is given anew under another name than its base has, or the base has none."""
    return base is None or (_names_one(registry, own) and _name(registry, own) != _name(registry, base))


def _names_one(registry: Registry, own: dict[str, Any]) -> bool:
    return (registry is not LAYERS and "name" in own) or any(key in registry for key in own)


def _name(registry: Registry, value: Any) -> str:
    """Return the name of a part however it is written, "" when it is written wrong."""
    if isinstance(value, dict):
        named_by = next((key for key in value if key in registry), "")
        return str(value.get("name", named_by) if registry is not LAYERS else named_by)
    return str(value)
