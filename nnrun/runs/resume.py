"""The state of a run as one checkpoint, and back: weights, optimiser, scaler, random streams, counters, and what was found so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnrun.data.fingerprint import Known
from nnrun.data.prepare import Prepared
from nnrun.errors import CheckpointError, SpecError
from nnrun.registry import SCHEDULES
from nnrun.runs.checkpoint import Checkpoint, load, pack, unpack
from nnrun.runs.folder import LAST, aged
from nnrun.spec.experiment import Experiment, plain
from nnrun.spec.reader import check
from nnrun.training.group import ALONE, Group
from nnrun.training.loop import State, stream_seed
from nnrun.training.network import Network, load_weights
from nnrun.training.progress import Progress

BITS = ("versions", "device", "threads", "processes", "strategy")
"""The facts on which the last bits of a result depend."""
UNLEARNED = ("track", "strategy", "sweep")
"""The keys of a config that leave the network as it is: who is told of a run, how processes share the work, and what a sweep varies."""


def learned_by(spec: Experiment) -> dict[str, Any]:
    """Return the config as far as the network depends on it, which is what its checkpoints hold."""
    return {key: value for key, value in plain(spec).items() if key not in UNLEARNED}


def fitted(data: Prepared, network: Network) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint holds beside the weights: what was learned of the rows, and what they are known again by."""
    steps = {f"preprocess/{number}/{name}": tensor for number, step in enumerate(data.fitted) for name, tensor in step.items()}
    return steps | named("target", network.head.scale) | {"rows/marks": data.known.marks}


def capture(state: State, progress: Progress, device: torch.device, group: Group = ALONE) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the JSON of everything that moves while training; of many processes all call this."""
    tensors = named("model", progress.live_weights) | named("best", progress.best_weights)
    own = {"rng/torch": torch.get_rng_state(), "loop/loss_sum": state.loss_sum}
    if device.type == "cuda":
        own["rng/cuda"] = torch.cuda.get_rng_state(device)
    for name, tensor in own.items():
        each = group.gathered(tensor)
        tensors |= {name: each[0]} | ({f"{name}/others": torch.stack(each[1:])} if each[1:] else {})
    facts = {
        "step": state.step,
        "batch": state.batch,
        "rows_seen": state.rows_seen,
        "optimizer": pack(state.optimizer.state_dict(), "optimizer", tensors),
        "scaler": pack(state.scaler.state_dict() if state.scaler else None, "scaler", tensors),
        "progress": pack(progress.state(), "progress", tensors),
    }
    return group.whole_ones(tensors), facts


def weight_of(state: State, progress: Progress) -> Callable[[str], Tensor | None]:
    """Return which weight a tensor of a checkpoint is for, by its name: one of the model or of the best, or what the optimizer keeps."""
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    weights = {f"optimizer/state/{number}": parameter for number, parameter in enumerate(parameters)}
    weights |= {f"{kind}/{name}": tensor for kind in ("model", "best") for name, tensor in progress.live_weights.items()}
    return lambda name: weights.get(name.rpartition("/")[0] if name.startswith("optimizer/") else name)


def of_first(group: Group, read: Callable[[], Checkpoint | None], into: Callable[[str], Tensor | None]) -> Checkpoint | None:
    """Return what the first of many processes reads, in all of them; see `Group.shared`."""
    if group.world_size == 1:
        return read()
    stored = read() if group.first else None
    facts = json.loads(group.told(lambda: json.dumps(stored.facts if stored else None)))
    tensors = group.shared(stored.tensors if stored else {}, into)
    return None if facts is None else Checkpoint(tensors, facts)


def restore(stored: Checkpoint, state: State, progress: Progress, device: torch.device, seed: int, group: Group = ALONE) -> None:
    """Put a run back to where a checkpoint was made; the random state comes last, when nothing draws from it any more.

    What each of many processes has for itself it gets back where there were as many; a process more begins its stream anew.

    Raises:
        CheckpointError: the checkpoint does not hold what this network and this optimiser need.
    """
    facts, tensors = stored.facts["resume"], stored.tensors
    try:
        load_weights(state.model, stored.under("model"))
        optimizer = unpack(facts["optimizer"], tensors)
        for stored_group, now in zip(optimizer["param_groups"], state.optimizer.param_groups, strict=True):
            stored_group["fused"] = now.get("fused")  # a matter of the device, not of the state
        state.optimizer.load_state_dict(optimizer)
        for parameter, kept in state.optimizer.state.items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                    kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)  # as the optimizer itself has it
        if state.scaler:
            state.scaler.load_state_dict(unpack(facts["scaler"], tensors))
        progress.restore(unpack(facts["progress"], tensors), stored.under("best"))
        sums = _of_each(tensors, "loop/loss_sum")
        alike = len(sums) == group.world_size
        state.loss_sum.copy_(sums[group.rank] if alike else torch.stack(sums).sum() * group.first)
        state.epoch, state.step = int(stored.facts["epoch"]), int(facts["step"])
        state.batch, state.rows_seen = int(facts["batch"]), int(facts["rows_seen"])
        streams = _of_each(tensors, "rng/torch")
        if group.rank >= len(streams):
            torch.manual_seed(stream_seed(seed, "dropout", group.rank, state.step))
            return
        torch.set_rng_state(streams[group.rank].clone())  # torch crashes on a view that begins within its storage
        if device.type == "cuda" and "rng/cuda" in tensors:
            torch.cuda.set_rng_state(_of_each(tensors, "rng/cuda")[group.rank].clone(), device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = f"the checkpoint does not fit the network: {str(error).splitlines()[0]}"
        raise CheckpointError(what, fix="start a new run") from None


def _of_each(tensors: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """Return a tensor of each process that made the checkpoint."""
    return [tensors[name], *tensors.get(f"{name}/others", ())]


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
    was, notes = learned_by(check(stored.facts["spec"])), list[str]()  # a key that there was not yet counts as its default
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
    was, is_now = ({"processes": 1, **facts} for facts in (stored.facts, now))  # of one process the facts say nothing
    changed = [name for name in BITS if name in was and name in is_now and was[name] != is_now[name]]
    differs = [f"{name} {_short(was[name])} → {_short(is_now[name])}" for name in changed]
    return f"not the same bits from here on: {', '.join(differs)}" if differs else ""


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with a prefix to their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _short(value: Any) -> str:
    text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
