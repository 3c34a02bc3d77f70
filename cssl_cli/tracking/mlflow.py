"""MLflow: a run with the fingerprint as a tag, since MLflow gives the ids itself."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cssl_cli.tracking.mirror import Say
from cssl_cli.tracking.records import Point, Records, Values

FINGERPRINT = "cssl.fingerprint"
STATES = {"finished": "FINISHED", "failed": "FAILED"}
BATCH = 100  # of parameters, as many as MLflow takes at once
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is away must not keep a run waiting
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MLflow:
    """A run of the experiment $MLFLOW_EXPERIMENT_NAME, else `cssl`.

    Its store is `into`, else $MLFLOW_TRACKING_URI, else the file mlflow.db beside the run directory. What MLflow holds
    of the run is kept as long as the records say the same; otherwise that run is deleted and another one made.
    """

    def __init__(self, records: Records, into: str | None, say: Say) -> None:  # noqa: ARG002
        self.client, experiment = open_store(records.place.parent, into)
        self.begun, self.seconds = records.begun, 0.0
        wanted = {(name, point.step): value for point in records.points for name, value in _named(point.values)}
        wanted |= {(name, records.last_step): value for name, value in _named(records.summary)}
        parameters = {_allowed(name): value[:500] for name, value in records.parameters.items()}
        self.held: dict[tuple[str, int], float] = {}
        for found in self.client.search_runs([experiment], f"tags.`{FINGERPRINT}` = '{records.fingerprint}'"):
            self.id = found.info.run_id
            self.held = self._history(found.data.metrics)
            if found.data.params == parameters and self.held.items() <= wanted.items():
                self.client.update_run(self.id, status="RUNNING")
                return
            self.client.delete_run(self.id)
        self.held = {}
        self._create(experiment, records, parameters)

    def _history(self, names: Any) -> dict[tuple[str, int], float]:
        entries = [one for name in names for one in self.client.get_metric_history(self.id, name)]
        return {(one.key, one.step): one.value for one in entries}

    def _create(self, experiment: str, records: Records, parameters: dict[str, str]) -> None:
        from mlflow.entities import Param

        tags = {FINGERPRINT: records.fingerprint, "cssl.group": records.group, "cssl.run": str(records.place)}
        run = self.client.create_run(experiment, round(1000 * self.begun), tags=tags, run_name=records.name)
        self.id = run.info.run_id
        given = [Param(name, value) for name, value in parameters.items()]
        for first in range(0, len(given), BATCH):
            self.client.log_batch(self.id, params=given[first : first + BATCH])

    def log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        for point in points:
            self.seconds = point.seconds
            when = round(1000 * (self.begun + point.seconds))
            new = [(name, value) for name, value in _named(point.values) if (name, point.step) not in self.held]
            if new:
                self.client.log_batch(self.id, [Metric(name, value, when, point.step) for name, value in new])

    def finish(self, summary: Values, step: int, state: str) -> None:
        self.log([Point(step, self.seconds, summary)])
        self.client.set_terminated(self.id, STATES.get(state, "KILLED"))


def open_store(runs: Path, into: str | None) -> tuple[Any, str]:
    """A client of the store for the runs of a folder, and the id of the experiment; both are made if missing."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri = into or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.absolute() / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "cssl")
    if (experiment := client.get_experiment_by_name(name)) is not None:
        return client, experiment.experiment_id
    return client, client.create_experiment(name)


def _named(values: Values) -> list[tuple[str, float]]:
    return [(_allowed(name), value) for name, value in values.items()]


def _allowed(name: str) -> str:
    """The name with what MLflow takes in one."""
    return re.sub(r"[^\w./ -]", "_", name)
