"""The front door: a YAML file → a checked Experiment, or every fault with its place.

source      text → plain values, and where each stands
extends     a base file's values, where this one says nothing
overrides   what `--set` replaces
experiment  pydantic checks the values; here each of its faults finds its place
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nnrun.errors import Fault, Place, SpecError
from nnrun.spec.base import Location
from nnrun.spec.experiment import Experiment
from nnrun.spec.extends import extended
from nnrun.spec.overrides import apply_override, put, stand
from nnrun.spec.source import Source, as_number, read_source
from nnrun.spec.wording import shown


def read_spec(
    config: Path | str,
    overrides: Sequence[str] = (),
    *,
    device: str | None = None,
    options: Mapping[Location, tuple[Any, Place, Place]] | None = None,
) -> tuple[Experiment, Source]:
    """Return the experiment in a YAML file, and the source that knows where each of its values stands.

    Args:
        overrides: `path=value` each, such as `optimizer.momentum=0.9` or `layers[0]=32`; the value is YAML.
        device: what stands in place of the config's own; faults of it name the option.
        options: path → a value that the command line sets besides, and where its key and itself stand there.

    Raises:
        SpecError: with every fault of the file, in the order of their places.
    """
    path = Path(config)
    source = extended(read_source(path))
    for override in overrides:
        apply_override(source, override)
    for steps, (value, on_key, here) in (options or {}).items():
        put(source, steps, value, here)
        stand(source, steps, on_key, here)
    if device is not None:
        source.values["device"] = device
        source.places[("device",)] = source.keys[("device",)] = Place("--device", 0, 0)
    values = {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:64] or "run", **source.values}
    return check(values, source=source), source


def check(values: dict[str, Any], *, folder: Path | str = ".", source: Source | None = None) -> Experiment:
    """Return the experiment that plain values describe; relative data paths are looked up beside the source, or in `folder`.

    Raises:
        SpecError: with every fault.
    """
    try:
        return Experiment.model_validate(values, context={"folders": source.folders if source else [str(folder)]})
    except ValidationError as error:
        faults = [_fault(one, source) for one in error.errors()]
        file = source.file if source else ""
        raise SpecError(sorted(faults, key=lambda one: _order(one, file))) from None


def _fault(error: ErrorDetails, source: Source | None) -> Fault:
    """Return one of pydantic's errors with its place; of what is not written there is none, and the file is named instead."""
    context, given = error.get("ctx", {}), error["input"]
    found = Fault(context.get("what", error["msg"]), context.get("fix", ""))
    place = source.place(error["loc"], on_key=context.get("on_key", False)) if source else None
    if place is None:
        return replace(found, what=f"{source.file}: {found.what}") if source else found
    written = place.source[place.column - 1 : place.column - 1 + place.width]
    if isinstance(given, int | float) and not isinstance(given, bool) and as_number(written) == given:  # 1e3 is not told as 1000.0
        found = replace(found, what=found.what.replace(shown(given), written, 1))
    return replace(found, place=place)


def _order(fault: Fault, file: str) -> tuple[bool, str, int, int]:
    """Sort by place: what is not written, then this file, then those it extends and the options."""
    return (fault.place.file != file, fault.place.file, fault.place.line, fault.place.column) if fault.place else (False, "", 0, 0)
