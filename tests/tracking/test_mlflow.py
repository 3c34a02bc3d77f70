"""MLflow's own client finds each step once in its SQLite store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cssl_cli.runs.run_dir import RunDir
from cssl_cli.tracking.mirror import Mirror, replay
from cssl_cli.tracking.records import read_points
from tests.support.written_run import STEPS, record_epochs, written_run

tracking = pytest.importorskip("mlflow.tracking")
pytest.importorskip("sqlalchemy")


def runs_in(folder: Path) -> list[Any]:
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("cssl").experiment_id])


def history(folder: Path, run_id: str, *names: str) -> dict[tuple[str, int], float]:
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    found = [one for name in names for one in client.get_metric_history(run_id, name)]
    by_step = {(one.key, one.step): one.value for one in found}
    assert len(by_step) == len(found), "a step is there twice"
    return by_step


def expected(run: RunDir) -> dict[tuple[str, int], float]:
    return {(name, point.step): value for point in read_points(run) for name, value in point.values.items()}


def test_every_step_is_there_once_after_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = written_run(tmp_path)
    ids = []
    for epochs, speed in ((2, 100.0), (3, 100.0), (2, 50.0)):  # killed twice, and went back once
        killed = Mirror("mlflow", print)
        record_epochs(run, epochs, speed=speed)
        killed.update(run)
        (one,) = runs_in(tmp_path)
        ids.append(one.info.run_id)
        assert history(tmp_path, ids[-1], *one.data.metrics) == expected(run)
    assert ids[0] == ids[1] != ids[2], "another run only where the records say something else"
    run.write_status("finished", step=2 * STEPS, num_steps=2 * STEPS)
    for _ in range(2):
        replay(run, "mlflow", None, print)
    (one,) = runs_in(tmp_path)
    assert one.info.run_id == ids[2]
    assert one.info.status == "FINISHED"
    assert one.info.run_name == run.path.name
    assert one.data.tags["cssl.fingerprint"] == run.path.name.rpartition("-")[2]
    assert one.data.params["optim.lr"] == "0.05"
