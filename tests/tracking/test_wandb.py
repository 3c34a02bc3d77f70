"""W&B offline: without a key nothing is asked and nothing waits for a network, and each step is in its file once."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.tracking.mirror import Mirror, replay
from cssl_cli.tracking.records import read_points
from tests.support.written_run import record_epochs, written_run

wandb = pytest.importorskip("wandb")
BLOCK = 32768  # of the log's format, that of LevelDB


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


def logged(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: chunks of checksum, length and kind, which whole and last ones end."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""  # behind the head of the file
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def test_every_step_is_there_once_after_kills(tmp_path: Path) -> None:
    run, said = written_run(tmp_path), list[str]()
    for epochs, speed in ((2, 100.0), (3, 100.0), (2, 50.0)):
        killed = Mirror("wandb", said.append)
        record_epochs(run, epochs, speed=speed)
        killed.update(run)
        wandb.teardown()  # its own process ends with ours
    run.write_status("finished")
    replay(run, "wandb", None, said.append)
    assert len(set(said)) == 1
    assert "wandb sync" in said[0]
    fingerprint = run.path.name.rpartition("-")[2]
    (path,) = (tmp_path / "wandb").glob(f"offline-run-*/run-{fingerprint}.wandb")
    records = list(logged(path))
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [row["_step"] for row in rows] == [point.step for point in read_points(run)]
    for row, point in zip(rows, read_points(run), strict=True):
        assert {name: row[name] for name in point.values} == point.values
    (begun,) = [record.run for record in records if record.HasField("run")]
    assert (begun.run_id, begun.display_name, begun.project) == (fingerprint, run.path.name, "cssl")
    assert "recipe" not in {item.key for item in begun.config.update}
    assert json.loads(next(item.value_json for item in begun.config.update if item.key == "optim"))["lr"] == 0.05
