"""The end of a sweep: the best trial is scored on the test part, once, and what is said of them all is written."""

from __future__ import annotations

import json
import math
import warnings
from typing import TYPE_CHECKING, Any

from nnrun.errors import CheckpointError, RequirementError
from nnrun.model.build import forward_work
from nnrun.outcome import final_outcome, final_outputs, summed_up
from nnrun.runs.folder import BEST, commit, strict_json
from nnrun.runs.provenance import provenance
from nnrun.spec.writer import dump_spec
from nnrun.sweep.sweep import Sweep
from nnrun.sweep.words import told_values, wanted_for_importance
from nnrun.trained import Trained, load

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEST_CONFIG = "best.yaml"
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def finish(sweep: Sweep) -> dict[str, Any]:
    """Write summary.json, best.yaml and best.safetensors of a sweep whose trials have ended, unless another worker has; return the summary.

    Raises:
        RequirementError: no trial is complete.
    """
    with sweep.lock:
        trials = [_told(sweep, one) for one in sorted(sweep.ended(), key=lambda one: one.number)]
        file = sweep.folder / "summary.json"
        known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        if known.get("sweep", {}).get("trials") == json.loads(strict_json(trials)):
            return dict(known)
        best = sweep.best()
        if best is None:
            errors = [one["error"] for one in trials if one["error"]]
            what = f"none of the {len(trials)} trials is complete{f'; the last one failed: {errors[-1]}' if errors else ''}"
            raise RequirementError(what, fix="change what is varied, in another --out")
        net = _network(sweep, best)
        commit(sweep.folder / BEST, (sweep.trial_folder(best.number) / BEST).read_bytes())
        commit(sweep.folder / BEST_CONFIG, _config(sweep, best, len(trials)).encode())
        summary = _summary(sweep, best, net, trials, known)
        commit(file, (strict_json(summary, indent=2) + "\n").encode())
        return summary


def _told(sweep: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    """Return what the summary says of a trial."""
    kept = trial.user_attrs["ended"]
    state = STATES[trial.state.name]
    return {
        "number": trial.number,
        "state": state,
        "value": None if state == "failed" or trial.value is None or not math.isfinite(trial.value) else trial.value,
        "values": sweep.values(trial),
        **{name: kept.get(name) for name in ("seed", "epoch", "epochs", "seconds", "error")},
    }


def _network(sweep: Sweep, best: FrozenTrial) -> Trained:
    """Return the network of the best trial; one that another machine has trained is trained again, which gives the same."""
    folder = sweep.trial_folder(best.number)
    try:
        return load(folder, device=sweep.spec.device)
    except CheckpointError:
        run = sweep.open(best.number, sweep.values(best))
        for _ in run.train():
            pass
        return load(folder, device=sweep.spec.device)


def _config(sweep: Sweep, best: FrozenTrial, count: int) -> str:
    """Return the config of the best trial, ready to train."""
    spec = sweep.space.experiment(best.number, sweep.values(best)).model_copy(update={"name": f"{sweep.spec.name[:58]}-best"})
    about = f"# trial {best.number}, the best of {count} by {sweep.metric}: {best.value:.6g} at epoch {best.user_attrs['ended']['epoch']}"
    return f"{about}\n# {told_values(sweep.values(best))}\n{dump_spec(spec)}"


def _summary(sweep: Sweep, best: FrozenTrial, net: Trained, trials: list[dict[str, Any]], known: dict[str, Any]) -> dict[str, Any]:
    """Return what summary.json says: of the best network what that of any run says, and of the sweep."""
    data = net.prepare()
    kept = best.user_attrs["ended"]
    work = 3 * forward_work(net.network.model, data.shape) * len(data.parts["train"]) * int(kept["epochs"])
    found = final_outcome(net.network, data, net.spec, final_outputs(net.network, data), work=work)
    part = next(reversed(found.metrics))
    before = known.get("sweep", {"looks": 0, "best": {"number": None}})
    looks = before["looks"] + (before["best"]["number"] != best.number)
    notes = [*found.notes]
    if part != "test":
        notes.append(f"there is no test part: {part} chose the best of {len(trials)} configs, and makes it look better than it is")
    elif looks > 1:
        notes.append(f"the sweep was prolonged: {looks} configs, each the best of its time, have been scored on the test part")
    of_best = summed_up(
        found,
        name=sweep.spec.name,
        folder=sweep.folder,
        epochs=kept["epochs"],
        best_epoch=kept["epoch"],
        rows={name: len(rows) for name, rows in data.parts.items()},
        notes=notes,
        provenance=provenance(net.device, data.digests),
        seconds={"train": kept["seconds"]},
    )
    return of_best | {
        "sweep": {
            **{name: getattr(sweep.settings, name) for name in ("sampler", "pruner", "metric")},
            "better": sweep.settings.better,
            "params": dict(sweep.settings.params),
            "best": {
                "number": best.number,
                "value": best.value,
                "epoch": kept["epoch"],
                "seed": kept["seed"],
                "values": sweep.values(best),
            },
            "importance": importance(sweep),
            "looks": looks,
            "seconds": round(sum(one["seconds"] or 0.0 for one in trials), 3),
            "trials": trials,
        },
    }


def importance(sweep: Sweep) -> dict[str, float]:
    """Return how much of the metric each parameter decides, the most first, 1 in all; {} where the trials do not say."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = [one for one in sweep.ended() if one.state.name == "COMPLETE"]
    if len(complete) < wanted_for_importance(len(sweep.space.parameters)) or len({one.value for one in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(sweep.study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}
