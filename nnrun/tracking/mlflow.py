"""MLflow: a run of its own for each run folder, which remembers it (`mlflow.json`) and goes on with it.

The server is asked at most once a second, and waited for at most ten. A row that it has already is not sent again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnrun.errors import EnvironmentFault, InputError, Interrupted, NnrunError
from nnrun.registry import TRACKERS
from nnrun.runs.folder import BEST, commit
from nnrun.tracking.tracker import Begun, Tracker, figures, flat, quiet

REMEMBERED = "mlflow.json"
SECONDS = 1.0
MOST_METRICS, MOST_PARAMS, LONGEST = 1000, 100, 6000  # in one request, in one request, characters of a parameter
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@TRACKERS.register("mlflow")
def mlflow(*, experiment: str | None = None, uri: str | None = None, checkpoint: bool = True) -> Tracker:
    """Tell MLflow: the config as parameters, each epoch's figures, config, best checkpoint and report as artifacts.

    Args:
        experiment: the name of MLflow's experiment; by default MLFLOW_EXPERIMENT_NAME, or Default.
        uri: where MLflow's records are; by default MLFLOW_TRACKING_URI, or sqlite:///mlflow.db in the current folder.
        checkpoint: whether best.safetensors is stored with them.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        with quiet():
            import mlflow
            from mlflow import MlflowClient
    except ImportError:
        raise InputError("track: mlflow is not installed", fix="pip install 'nnrun[mlflow]', or leave `track` out") from None
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.ERROR)
    where, called = uri or mlflow.get_tracking_uri(), experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
    try:
        with quiet():
            client = MlflowClient(where)
            found = client.get_experiment_by_name(called)
            number = found.experiment_id if found else client.create_experiment(called)
    except Exception as error:  # noqa: BLE001 (each kind of store has exceptions of its own)
        what = f"MLflow's records at {where} cannot be used: {str(error).splitlines()[0]}"
        raise EnvironmentFault(what, fix="check MLFLOW_TRACKING_URI and the server, or leave `track` out") from None
    return _MLflow(client, number, checkpoint)


class _MLflow(Tracker):
    def __init__(self, client: Any, experiment: str, checkpoint: bool) -> None:
        self._client, self._experiment, self._checkpoint = client, experiment, checkpoint
        self._waiting: list[Any] = []
        self._sent_at = 0.0

    def start(self, begun: Begun) -> None:
        self._folder, self._known = begun.folder, dict[int, float]()
        remembered = begun.folder / REMEMBERED
        if remembered.is_file():
            self._run = json.loads(remembered.read_text("utf-8"))["run_id"]
            self._client.update_run(self._run, status="RUNNING")
            self._known = {one.step: one.value for one in self._client.get_metric_history(self._run, "train/loss")}
        else:
            self._run = self._client.create_run(self._experiment, run_name=begun.config["name"]).info.run_id
            commit(remembered, json.dumps({"run_id": self._run}).encode())
            self._parameters(begun)
        for row in begun.kept:
            self._take(row)

    def record(self, row: Mapping[str, Any]) -> None:
        self._take(row)
        if time.monotonic() - self._sent_at > SECONDS:
            self._send()

    def end(self, summary: Mapping[str, Any]) -> None:
        final = {f"best/{name}": float(value) for name, value in flat(summary["metrics"], "/").items() if value is not None}
        self._metrics(final, summary["best_epoch"])
        self._send()
        for name in ("config.yaml", "summary.json", *([BEST] if self._checkpoint else [])):
            self._client.log_artifact(self._run, str(self._folder / name))
        self._client.set_terminated(self._run)

    def stopped(self, error: NnrunError) -> None:
        self._send()
        self._client.set_terminated(self._run, status="KILLED" if isinstance(error, Interrupted) else "FAILED")

    def report(self, page: Path) -> None:
        self._client.log_artifact(self._run, str(page))
        self._client.log_artifacts(self._run, str(page.parent / "plots"), "plots")

    def _parameters(self, begun: Begun) -> None:
        from mlflow.entities import Param

        told = flat({**begun.config, "rows": begun.rows, "folder": str(begun.folder)})
        parameters = [Param(_allowed(key), str(value)[:LONGEST]) for key, value in told.items()]
        for first in range(0, len(parameters), MOST_PARAMS):
            self._client.log_batch(self._run, params=parameters[first : first + MOST_PARAMS])

    def _take(self, row: Mapping[str, Any]) -> None:
        """Have a row sent soon, unless it is there already."""
        found = figures(row)
        if self._known.get(row["epoch"]) != found.get("train/loss"):
            self._metrics(found, row["epoch"])

    def _metrics(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(_allowed(name), value, now, epoch) for name, value in values.items()]

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self._run, metrics=self._waiting[:MOST_METRICS])
            del self._waiting[:MOST_METRICS]
        self._sent_at = time.monotonic()


def _allowed(name: str) -> str:
    """Return a name of the characters that MLflow takes."""
    return re.sub(r"[^\w.\-/ ]", "_", name)[:250]
