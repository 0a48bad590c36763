"""`nnrun check`: what is known of an experiment before it is trained. `examine` asks the rules; `told.py` says how a report reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnrun.check.rules import SEVERITIES, Advice, advise
from nnrun.errors import NnrunError, RequirementError
from nnrun.spec.experiment import Experiment
from nnrun.spec.source import Source


@dataclass
class Report:
    """What `check` found.

    Args:
        asked: the stages whose rules were asked.
        facts: what was measured: rows of the parts, layers, loss at the start, cost.
        stopped: why the rules on the data could not be asked.
    """

    config: str
    advice: list[Advice]
    asked: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    stopped: NnrunError | None = None

    def count(self, severity: str) -> int:
        """Return how many findings have this severity."""
        return sum(one.severity == severity for one in self.advice)

    def document(self) -> dict[str, Any]:
        """Return the report as `--json` prints it."""
        findings = [
            {
                "code": one.rule.name,
                "severity": one.severity,
                "evidence": one.finding.evidence,
                "fix": one.finding.fix,
                "reason": " ".join(one.rule.body.split()),
                "at": list(one.finding.at),
                "place": {"file": one.place.file, "line": one.place.line, "column": one.place.column} if one.place else None,
                "page": f"docs/checks.md#{one.rule.name.lower()}",
            }
            for one in self.advice
        ]
        counts = {f"{severity}s": self.count(severity) for severity in SEVERITIES}
        stopped = self.stopped.faults[0].what if self.stopped else None
        return {"config": self.config, "asked": self.asked, **counts, "findings": findings, **self.facts, "stopped": stopped}

    def require(self) -> None:
        """Raise what keeps the experiment from being trained.

        Raises:
            NnrunError: the data could not be had.
            RequirementError: a rule found an error.
        """
        if self.stopped:
            raise self.stopped
        codes = dict.fromkeys(one.rule.name for one in self.advice if one.severity == "error")
        if codes:
            raise RequirementError(f"check found {_count(self.count('error'), 'error')}: {', '.join(codes)}")


def examine(spec: Experiment, source: Source, *, fast: bool = False) -> Report:
    """Ask every rule about an experiment, each as early as it can be asked.

    Args:
        fast: only the rules that need the config alone; torch is not imported.
    """
    config = str(Path(source.file))
    on_config = advise("config", spec, ignore=spec.ignore, place=source.place)
    if fast:
        return Report(config, on_config, ["config"])
    report = Report(config, on_config, ["config"])
    try:
        _examine_data(report, spec, source)
    except NnrunError as error:
        report.stopped = error.placed(source.place)
    report.advice.sort(key=lambda one: SEVERITIES.index(one.severity))
    return report


def _examine_data(report: Report, spec: Experiment, source: Source) -> None:
    """Ask the rules on the data, and, when the network can be built on it, those on a batch; what is found stands in the report at once."""
    from nnrun.check.examined import Examined
    from nnrun.check.trial import Trial
    from nnrun.data.prepare import prepare
    from nnrun.training.device import choose_device
    from nnrun.training.network import resolve

    def ask(on: str, *given: Any) -> list[Advice]:
        return advise(on, *given, ignore=spec.ignore if on != "plan" else (), place=source.place)

    device = choose_device(spec.device)
    data = prepare(spec, device)
    at = Examined(resolve(spec, data), data)
    report.advice = ask("config", at.spec.model_copy(update={"device": device.type})) + ask("data", at)
    report.asked.append("data")
    report.facts["rows"] = {name: len(part) for name, part in data.parts.items()}
    refused = ask("plan", at, device)
    report.advice += refused
    if not refused:
        trial = Trial.of(at, device)
        report.advice += ask("batch", trial)
        report.facts |= measured(trial)
        report.asked.append("batch")


def measured(trial: Any) -> dict[str, Any]:
    """Return what was measured on the batch: a row for each layer, the loss at the start, what can be learned by heart, and the cost."""
    from nnrun.model.build import layer_table

    gradients = {one.layer: one for one in trial.gradients}
    layers = [
        asdict(row)
        | {"gradient": getattr(gradients.get(row.name), "norm", None), "difference": getattr(gradients.get(row.name), "difference", None)}
        for row in layer_table(trial.network.model, trial.examined.data.shape)
    ]
    seconds, _ = trial.steps
    settled = seconds[1:] or seconds  # the first step warms up
    each = sorted(settled)[len(settled) // 4] if settled else None  # and neighbours disturb others
    overfit = dict(zip(("rows", "share"), trial.overfit, strict=True)) if trial.overfit else None
    return {
        "layers": layers,
        "parameters": trial.parameters,
        "start": {"loss": trial.loss_at_start, "simplest": trial.simplest_loss(trial.batch.y)},
        "overfit": overfit,
        "cost": {
            "steps": trial.examined.steps,
            "seconds": each and each * trial.examined.steps,
            "bytes": trial.memory,
            "device": str(trial.device),
        },
    }


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
