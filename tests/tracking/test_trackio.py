"""Trackio's local store has each step once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cssl_cli.tracking.mirror import Mirror, replay
from cssl_cli.tracking.records import read_points
from tests.support.written_run import record_epochs, written_run


def test_every_step_is_there_once_after_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run = written_run(tmp_path)
    for epochs, speed in ((2, 100.0), (3, 100.0), (2, 50.0)):
        killed = Mirror("trackio", print)
        record_epochs(run, epochs, speed=speed)
        killed.update(run)
    replay(run, "trackio", None, print)
    rows = SQLiteStorage.get_logs("cssl", run.path.name)
    points = read_points(run)
    assert [row["step"] for row in rows] == [point.step for point in points]
    assert all(
        {name: row[name] for name in point.values} == point.values for row, point in zip(rows, points, strict=True)
    )
