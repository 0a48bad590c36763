"""The state of a run as one checkpoint, and back: weights, optimiser, scaler, random streams, counters, and what was found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnrun.data.fingerprint import Known
from nnrun.errors import CheckpointError, SpecError
from nnrun.registry import SCHEDULES
from nnrun.runs.checkpoint import Checkpoint, load, pack, unpack
from nnrun.runs.folder import LAST, aged
from nnrun.training.loop import State
from nnrun.training.network import load_weights
from nnrun.training.progress import Progress

BITS = ("versions", "device", "threads")
"""The facts on which the last bits of a result depend."""


def capture(state: State, progress: Progress, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the JSON of everything that moves while training."""
    tensors = named("model", progress.live_weights) | named("best", progress.best_weights)
    tensors |= {"rng/torch": torch.get_rng_state(), "loop/loss_sum": state.loss_sum}
    if device.type == "cuda":
        tensors["rng/cuda"] = torch.cuda.get_rng_state(device)
    facts = {
        "step": state.step,
        "batch": state.batch,
        "rows_seen": state.rows_seen,
        "optimizer": pack(state.optimizer.state_dict(), "optimizer", tensors),
        "scaler": pack(state.scaler.state_dict() if state.scaler else None, "scaler", tensors),
        "progress": pack(progress.state(), "progress", tensors),
    }
    return tensors, facts


def restore(stored: Checkpoint, state: State, progress: Progress, device: torch.device) -> None:
    """Put a run back to where a checkpoint was made; the random state comes last, when nothing draws from it any more.

    Raises:
        CheckpointError: the checkpoint does not hold what this network and this optimiser need.
    """
    facts, tensors = stored.facts["resume"], stored.tensors
    try:
        load_weights(state.model, stored.under("model"))
        optimizer = unpack(facts["optimizer"], tensors)
        for group, now in zip(optimizer["param_groups"], state.optimizer.param_groups, strict=True):
            group["fused"] = now.get("fused")  # a matter of the device, not of the state
        state.optimizer.load_state_dict(optimizer)
        if state.scaler:
            state.scaler.load_state_dict(unpack(facts["scaler"], tensors))
        progress.restore(unpack(facts["progress"], tensors), stored.under("best"))
        state.loss_sum.copy_(tensors["loop/loss_sum"])
        state.epoch, state.step = int(stored.facts["epoch"]), int(facts["step"])
        state.batch, state.rows_seen = int(facts["batch"]), int(facts["rows_seen"])
        torch.set_rng_state(tensors["rng/torch"])
        if device.type == "cuda" and "rng/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng/cuda"], device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = f"the checkpoint does not fit the network: {str(error).splitlines()[0]}"
        raise CheckpointError(what, fix="start a new run") from None


def newest(folder: Path, keep: int) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint of a run folder that is whole, None when none was ever written, and notes about damaged ones.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    notes: list[str] = []
    found = [file for age in range(max(keep, 2) + 1) if (file := aged(folder / LAST, age)).exists()]
    for file in found:
        try:
            stored = load(file)
        except CheckpointError as error:
            notes.append(error.faults[0].what)
            continue
        if notes:
            notes.append(f"going on from {file.name}, made after epoch {stored.facts['epoch']}")
        return stored, notes
    if found:
        raise CheckpointError(f"no checkpoint in {folder} is whole: {'; '.join(notes)}", fix="start a new run")
    return None, []


def refuse_changes(
    stored: Checkpoint, spec: Mapping[str, Any], digests: Mapping[str, str], allowed: Iterable[str], data: str, changed: Callable[[], str]
) -> list[str]:
    """Refuse to go on with another config, or with data that has changed; return a note of rows that have, where the config wants no more.

    Args:
        spec: the plain config of now.
        allowed: the keys that may differ; `ignore`, `changed_rows` and `epochs` always may, `epochs` unless the schedule depends on it.
        data: how to call the dataset in an error.
        changed: says which rows of the data have changed.

    Raises:
        SpecError: placed at the first key that differs.
        CheckpointError: the rows or their split are not those of the run.
    """
    was, notes = stored.facts["spec"], list[str]()
    free = {*allowed, "epochs", "ignore", "changed_rows"} - (
        {"epochs"} if SCHEDULES[was["schedule"]["name"]].traits.get("spans_run") else set()
    ) | set(allowed)
    for key, value in was.items():
        if spec.get(key) != value and key not in free:
            what = f"the run was started with another {key}: {_short(value)} then, {_short(spec.get(key))} now"
            why = f"{was['schedule']['name']} is planned over all epochs; " if key == "epochs" else ""
            raise SpecError(what, fix=f"{why}go back to it, start a new run, or give --allow-change {key}", at=(key,))
    for name, digest in stored.facts["digests"].items():
        if digests[name] != digest and not set(allowed) & {"dataset", "split", "seed"}:
            what = f"the {name} of {data} has changed since the run was started (digest {digest[:12]} then, {digests[name][:12]} now)"
            told = f"{what}: {changed()}" if name == "data" else what
            if name != "data" or spec["changed_rows"] == "error":
                raise CheckpointError(told, fix="restore it, or start a new run")
            notes.append(told)
    return notes


def known(stored: Checkpoint) -> Known:
    """Return what a checkpoint keeps of its data."""
    marks = stored.tensors.get("rows/marks", torch.empty(0, dtype=torch.int64))  # older checkpoints have none
    return Known(stored.facts["digests"], int(stored.facts.get("dataset_rows", 0)), marks)


def not_bitwise(stored: Checkpoint, now: Mapping[str, Any]) -> str:
    """Return a note about what keeps the rest of the run from being the same bits; empty when nothing does."""
    differs = [f"{name} {_short(stored.facts[name])} → {_short(now[name])}" for name in BITS if stored.facts[name] != now[name]]
    return f"not the same bits from here on: {', '.join(differs)}" if differs else ""


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with a prefix to their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _short(value: Any) -> str:
    text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
