"""What a finished network is worth: the final figures of each part, what they have to beat, and what the rules say of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nnrun.check.health import Finding
from nnrun.check.rules import outcome_notes
from nnrun.data.dataset import Rows
from nnrun.data.prepare import Prepared
from nnrun.registry import METRICS
from nnrun.spec.experiment import Experiment
from nnrun.training.baselines import Baseline, make_baselines
from nnrun.training.metrics import Scored, default_metrics, score
from nnrun.training.network import Network
from nnrun.training.uncertainty import Interval, difference

CALLED = {
    "majority": "the majority class",
    "mean": "the mean",
    "logistic_regression": "logistic regression",
    "ridge": "ridge regression",
}


@dataclass(frozen=True)
class Outcome:
    """The final figures.

    Args:
        metrics: part → its figures.
        intervals: the part that is reported → the 95 % intervals of its figures.
        baselines: name → figures of the same rows, fitted rows and seconds.
        verdict: whether the network beats them, in one sentence.
        notes: what the rules say.
    """

    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval]]
    baselines: dict[str, dict[str, Any]]
    verdict: str
    notes: list[str]


def final_outputs(network: Network, data: Prepared) -> dict[str, tuple[Rows, Tensor]]:
    """Return each part that has rows, as far as it is looked at, and the network's outputs (N, K) of it; many processes share the work."""
    *others, last = [name for name, part in data.parts.items() if len(part)]
    scored = {name: data.parts[name].thinned() if name == "train" else data.parts[name] for name in others} | {last: data.parts[last]}
    return {name: (part, network.outputs(part.x)) for name, part in scored.items()}


def final_outcome(
    network: Network,
    data: Prepared,
    spec: Experiment,
    outputs: dict[str, tuple[Rows, Tensor]],
    *,
    work: int,
    baselines: Sequence[Baseline] | None = None,
) -> Outcome:
    """Score every part that has rows; the last of them, test where there is one, is the one that is reported and compared.

    Args:
        work: the multiply-adds of the whole training, of which the baselines may take a tenth.
        baselines: those of the same rows, when they are there already.
    """
    metrics = {name: network.figures(output_NK, part.y) for name, (part, output_NK) in outputs.items()}
    last = list(outputs)[-1]
    reported, output_NK = outputs[last]
    if baselines is None:
        baselines = make_baselines(data.task, data.parts["train"], reported, spec.seed, work // 10)
    names = network.metrics or default_metrics(data.task)
    verdict = _verdict(names[0], network.scored(output_NK, reported.y), baselines)
    notes = outcome_notes(network.head.predict(output_NK), reported.y, data.task, spec.ignore)
    fewer = [(name, part) for name, (part, _) in outputs.items() if len(part) < len(data.parts[name])]
    notes += [
        f"the figures of {name} are those of {len(part):,} of its {len(data.parts[name]):,} rows, evenly spread" for name, part in fewer
    ]
    told = {one.name: _facts(one, names, len(data.parts["train"])) for one in baselines}
    return Outcome(metrics, {last: network.intervals(output_NK, reported.y)}, told, verdict, notes)


def summed_up(
    found: Outcome,
    *,
    name: str,
    folder: Path,
    epochs: int,
    best_epoch: int,
    rows: Mapping[str, int],
    notes: Sequence[str],
    provenance: Mapping[str, Any],
    seconds: Mapping[str, float],
    health: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Return what summary.json says of a network."""
    return {
        "name": name,
        "run": str(folder),
        "epochs": epochs,
        "best_epoch": best_epoch,
        "rows": dict(rows),
        "metrics": found.metrics,
        "intervals": found.intervals,
        "baselines": found.baselines,
        "verdict": found.verdict,
        "notes": list(notes),
        "health": [asdict(one) for one in health],
        "provenance": dict(provenance),
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
    }


def _facts(baseline: Baseline, names: list[str], rows: int) -> dict[str, Any]:
    """Return what summary.json says of a baseline; the rows it was fitted on only when they are not all."""
    figures = {name: float(value) for name, value in score(names, baseline.scored).items()}
    fewer = {"fitted_rows": baseline.fitted_rows} if baseline.fitted_rows < rows else {}
    return {"metrics": figures, **fewer, "seconds": round(baseline.seconds, 4)}


def _verdict(metric: str, scored: Scored, baselines: Sequence[Baseline]) -> str:
    """Return in one sentence which baselines the network beats by a metric, and whether its lead is more than chance would make."""
    sign = 1 if METRICS[metric].traits["better"] == "higher" else -1
    beaten: list[str] = []
    unsure: list[str] = []
    others: list[str] = []
    for baseline in baselines:
        lead = difference(metric, scored, baseline.scored)
        among = others if not sign * lead.value > 0 else beaten if lead.real else unsure
        among.append(f"{CALLED[baseline.name]} ({float(score([metric], baseline.scored)[metric]):.4g})")
    told = [f"beats {' and '.join(beaten)}"] if beaten else []
    told += [f"leads {' and '.join(unsure)} by no more than chance can"] if unsure else []
    sentence = ", and ".join(told)
    if others:
        sentence += f"{', but ' if told else ''}does not beat {' or '.join(others)}"
    return f"the network ({metric} {float(score([metric], scored)[metric]):.4g}) {sentence}"
