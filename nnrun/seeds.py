"""One experiment with many seeds: how much of a figure is luck of the weights and the order of the rows.

runs/iris-seeds/summary.json           each figure over the seeds: mean, deviation, 95 % interval of the mean, values
runs/iris-seeds/metrics.jsonl          a line an epoch; each figure a list, a value for each seed
runs/iris-seeds/best.safetensors       the network of the best seed; ensemble.safetensors that predicts with all of them, if wanted
runs/iris-seeds/seed-1 …               only where they cannot be trained side by side: a run folder each
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nnrun.errors import DivergedError, InputError, NnrunError
from nnrun.run import Run, open_run
from nnrun.runs.checkpoint import Checkpoint, load, to_bytes
from nnrun.runs.folder import BEST, commit, strict_json
from nnrun.runs.resume import learned_by, named
from nnrun.runs.show import told_of
from nnrun.runs.signals import Signals
from nnrun.several import Several, lines_of, mean_and_deviation
from nnrun.spec.experiment import Experiment, Split
from nnrun.spec.source import Source
from nnrun.stacked import Member, StackedRun
from nnrun.training.ensemble import ensemble as joined_network
from nnrun.training.network import resolve
from nnrun.training.record import Record
from nnrun.training.stackable import unstackable
from nnrun.training.together import best_of

ENSEMBLE = "ensemble.safetensors"
MOST = 100_000
VARIED = ("split",)
"""What `--vary` can name, beside the weights, the order of the rows, dropout and augmentation, which always differ."""


class Seeds(Several):
    """The networks of one experiment with the seeds seed, seed + 1, …

    Args:
        count: how many seeds.
        vary: `split` draws the split by each seed as well; by default all have that of the config's seed.
        ensemble: write a checkpoint that predicts with the mean of all networks.

    Raises:
        NnrunError: of the kind that the options, the config, the data, the machine or the folder deserves.
    """

    is_one_run = True

    def __init__(
        self,
        spec: Experiment,
        source: Source,
        count: int,
        *,
        vary: str | None = None,
        ensemble: bool = False,
        out: Path | None,
        resume: bool = False,
        allow_change: Sequence[str] = (),
    ) -> None:
        _check_options(spec, count, vary, ensemble=ensemble)
        option = f"--seeds {count}{f' --vary {vary}' if vary else ''}{' --ensemble' * ensemble}"
        together = spec.model_copy(update={"name": f"{spec.name}-seeds"[:64]})
        super().__init__(together, source, option, out=out, resume=resume, allow_change=allow_change)
        self.vary, self.ensemble = vary, ensemble
        self.specs = [_with_seed(spec, spec.seed + number, vary) for number in range(count)]
        self.diverged: dict[int, str] = {}
        self.members: list[Member] = []
        self.seconds = {"prepare": 0.0, "train": 0.0}
        try:
            self._open()
        except NnrunError as error:
            raise error.placed(source.place) from None

    def _open(self) -> None:
        """Make the first network, and with it whatever can be known before training; then the folder."""
        first = Run(self.specs[0])
        self.data = None if self.vary else first.data
        x = first.data.parts["train"].x
        why = "each has rows of its own" if self.vary else unstackable(first.spec, first.network.model, first.device, x)
        self.stacked = None if self.data is None or why else StackedRun(self.spec, {spec.seed: spec for spec in self.specs}, self.data)
        if self.stacked is None:
            self.notes.append(f"the {len(self.specs)} networks are trained one after another: {why}")
            self.open_folder()
            return
        if self.resume:
            self.stacked.go_on(self.out, self.allow_change)
        else:
            self.stacked.begin(self.source, self.out)
        self.folder, self.lock = self.stacked.folder, self.stacked.lock

    def runs(self) -> Iterator[tuple[str, Run]]:
        """Yield the one run of all networks, or one after another that of each."""
        if self.stacked:
            yield f"{len(self.specs)} seeds", self.stacked
            self.members = self.stacked.members
            self.diverged = {seed: f"epoch {epoch}" for seed, epoch in self.stacked.together.diverged.items()}
            self._finish(self.stacked)
            return
        for number, spec in enumerate(self.specs, 1):
            folder = self.folder / f"seed-{spec.seed}"
            again = self.resume and (folder / "config.yaml").is_file()
            run = open_run(spec, self.source, out=folder, resume=again, allow_change=self.allow_change, data=self.data)
            yield f"seed {spec.seed} ({number}/{len(self.specs)})", run
            for name in self.seconds:
                self.seconds[name] += run.summary.get("seconds", run.seconds)[name]
            if spec.seed not in self.diverged:
                self.members.append(_member(run))
        if not self.members:
            what = f"each of the {len(self.specs)} networks has diverged; the last: {self.diverged[self.specs[-1].seed]}"
            raise DivergedError(what, fix="lower lr, scale the inputs (`preprocess: [standardize]`), or set clip_grad_norm")
        self._merge_metrics()
        self._finish(run)

    def train(self, run: Run, signals: Signals) -> Iterator[Record]:
        """Train one of the runs; one of several that diverges is noted, and the others go on."""
        try:
            yield from super().train(run, signals)
        except DivergedError as error:
            if self.stacked:
                raise
            self.diverged[run.spec.seed] = error.faults[0].what
            run.lock.release()

    def told(self) -> list[str]:
        """Return the lines that say how the seeds came out."""
        summary = self.summary
        part = next(reversed(summary["metrics"]))
        first, last = summary["seeds"][0], summary["seeds"][-1]
        lines = [f"{len(summary['seeds'])} seeds ({first} to {last}), {summary['rows'][part]} {part} rows: mean ± deviation [of the mean]"]
        lines += lines_of(summary["metrics"][part])
        if "ensemble" in summary:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in summary["ensemble"]["metrics"][part].items())
            lines.append(f"the mean of all: {figures}")
        return [*lines, *(f"note: {note}" for note in summary["notes"] if note not in self.notes)]

    def _finish(self, run: Run) -> None:
        """Write what is said of all networks.

        Args:
            run: any of them: what its data and its outputs mean is the same for all.
        """
        judged_by = run.progress.best.monitor if not self.stacked else self.stacked.together.monitor
        chosen = best_of({member.seed: member.judged for member in self.members}, judged_by)
        best = next(member for member in self.members if member.seed == chosen)
        notes = list(self.notes)
        if not judged_by:
            why = "there is no validation part: best.safetensors is of the seed with the lowest training loss"
            notes.append(f"{why}, {best.seed}; the test part did not choose")
        notes += [f"seed {seed} has diverged, and is in no figure: {what}" for seed, what in self.diverged.items()]
        if not self.stacked:
            commit(self.folder / BEST, (self.folder / f"seed-{best.seed}" / BEST).read_bytes())
        by_seed = {member.seed: member for member in self.members}
        self.summary = {
            "name": self.spec.name,
            "run": str(self.folder),
            "seeds": [spec.seed for spec in self.specs],
            "vary": ["weights", "order", *([self.vary] if self.vary else [])],
            "stacked": self.stacked is not None,
            "epochs": [by_seed[spec.seed].epochs if spec.seed in by_seed else None for spec in self.specs],
            "best_epochs": [by_seed[spec.seed].best_epoch if spec.seed in by_seed else None for spec in self.specs],
            "rows": run.rows,
            "metrics": self._figures(),
            "chosen": {"seed": best.seed, "by": judged_by or "train.loss", "value": best.judged},
            **({"ensemble": self._ensemble(run)} if self.ensemble else {}),
            "notes": notes,
            "provenance": run.provenance(),
            "seconds": {name: round(seconds, 3) for name, seconds in (run.seconds if self.stacked else self.seconds).items()},
        }
        self.write_summary()
        if self.stacked:
            run.trackers.tell("end", told_of(self.summary) | {"best_epoch": best.best_epoch})

    def _figures(self) -> dict[str, dict[str, Any]]:
        """Return part → figure → mean, deviation, interval of the mean, and the value of each seed; None for one that diverged."""
        by_seed = {member.seed: member.figures for member in self.members}
        first = self.members[0].figures
        return {
            part: {name: _over([by_seed[s.seed][part][name] if s.seed in by_seed else None for s in self.specs]) for name in names}
            for part, names in first.items()
        }

    def _ensemble(self, run: Run) -> dict[str, Any]:
        """Write the checkpoint that predicts with the mean of all networks; return its figures of each part."""
        weights = {name: torch.stack([one.weights[name].cpu() for one in self.members]) for name in self.members[0].weights}
        best = load(self.folder / BEST, only=("preprocess", "target", "rows"))
        facts = {key: value for key, value in best.facts.items() if key != "format"}
        seeds = [member.seed for member in self.members]
        facts |= {
            "spec": learned_by(resolve(self.spec, run.data)),
            "members": seeds,
            "epoch": max(member.best_epoch for member in self.members),
        }
        commit(self.folder / ENSEMBLE, to_bytes(Checkpoint(named("model", weights) | best.tensors, facts)))
        network = joined_network(run.network, weights)
        parts = {name: part for name, part in run.data.parts.items() if len(part)}
        outputs = {name: network.outputs(part.x) for name, part in parts.items()}
        *_, last = parts
        return {
            "seeds": seeds,
            "metrics": {name: network.figures(outputs[name], part.y) for name, part in parts.items()},
            "intervals": {last: network.intervals(outputs[last], parts[last].y)},
        }

    def _merge_metrics(self) -> None:
        """Write the rows of all runs as one table, as networks that train side by side have it."""
        tables = [
            [json.loads(line) for line in (self.folder / f"seed-{spec.seed}" / "metrics.jsonl").read_text("utf-8").splitlines()]
            for spec in self.specs
        ]
        merged = []
        for rows in itertools.zip_longest(*tables):
            there = next(row for row in rows if row)
            parts = {part: list(there[part]) for part in ("train", "val", "test") if part in there}
            lists = {part: {name: [row and row[part][name] for row in rows] for name in names} for part, names in parts.items()}
            rates = [row and row["lr"] for row in rows]
            same = len({rate for rate in rates if rate is not None}) == 1
            seconds = round(sum(row["seconds"] for row in rows if row), 6)
            merged.append(
                {"epoch": there["epoch"], "step": there["step"], **lists, "lr": there["lr"] if same else rates, "seconds": seconds}
            )
        commit(self.folder / "metrics.jsonl", "".join(strict_json(row) + "\n" for row in merged).encode())


def _check_options(spec: Experiment, count: int, vary: str | None, *, ensemble: bool) -> None:
    if not 2 <= count <= MOST:
        told = "one network is a run of its own" if count == 1 else "there is nothing to train" if count < 1 else f"{MOST:,} are the most"
        raise InputError(f"--seeds {count}: {told}", fix="leave --seeds out" if count == 1 else "write --seeds 32")
    if vary is not None and vary not in VARIED:
        always = "weights, order of rows, dropout and augmentation always differ"
        raise InputError(f"--vary {vary}: {always}, and only the split can be added", fix="write --vary split, or leave it out")
    if vary and ensemble:
        what = (
            "--ensemble with --vary split: the networks are prepared by different rows, and test rows of one are training rows of another"
        )
        raise InputError(what, fix="leave one of them out")
    if vary and spec.split.seed is not None:
        raise InputError(f"--vary split, and split.seed is {spec.split.seed}", fix="leave one of them out")
    if spec.seed + count > 2**63:
        raise InputError(f"--seeds {count}: seed + {count} is more than 2^63", fix="write a smaller seed", at=("seed",))


def _with_seed(spec: Experiment, seed: int, vary: str | None) -> Experiment:
    """Return the experiment of one seed, as a config that trains the same network alone."""
    split = spec.split
    if not vary and split.seed is None:
        split = Split.model_validate(split.model_dump() | {"seed": spec.seed})
    name = f"{spec.name[:40]}-seed-{seed}"
    return spec.model_copy(update={"seed": seed, "split": split, "name": name})


def _member(run: Run) -> Member:
    """Return what a finished run is among the others."""
    seed, found = run.spec.seed, run.progress
    stored = load(run.folder / BEST, only=("model",))
    last = json.loads((run.folder / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    judged = found.best.value if found.best.monitor else last["train"]["loss"]
    summary = run.summary
    return Member(seed, summary["epochs"], summary["best_epoch"], judged, summary["metrics"], stored.under("model"))


def _over(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean, deviation, 95 % interval of the mean (Student's t) and values of a figure; None where a seed has none."""
    from scipy.special import stdtrit  # here, since it takes 0.1 s to import

    known = [value for value in values if value is not None and math.isfinite(value)]
    over = mean_and_deviation(known)
    mean, deviation = over["mean"], over["deviation"]
    half = None if deviation is None else float(stdtrit(len(known) - 1, 0.975)) * deviation / math.sqrt(len(known))
    interval = None if half is None or mean is None else [mean - half, mean + half]
    return {**over, "interval": interval, "values": list(values)}
