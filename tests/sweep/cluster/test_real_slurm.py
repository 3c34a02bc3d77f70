"""A sweep on a real SLURM of one node: cancelled, failed and told of its time's end, and then complete.

What it takes, in CI as elsewhere: root, Debian's or Ubuntu's packages slurm-wlm and munge (`apt-get install
--no-install-recommends slurm-wlm munge`; their services need not run), and submitit. The daemons are started in a
folder of the test's own and stopped at its end. Without these it is skipped and says what is missing.

The time's end is rehearsed by the signal that SLURM sends then: its time limits are whole minutes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.host.progress import Silent
from cssl_cli.report.compare.sweep import write_sweep
from cssl_cli.runs.run_dir import METRICS, RunDir
from cssl_cli.sweep.cluster.records import read_submissions
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import member_path, run_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep
from tests.support.commands import QUICKLY_MEASURED, Invoke
from tests.support.one_node_slurm import Slurm, lacking, one_node_slurm

SWEEP = """
name: four
base: tiny.yaml
axes:
  augment:
    long: {train: {epochs: 200}}
    full: {}
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    flip: {augment: {crop: null}}
launcher: {time: 10m, at_once: 2}
"""
COMMAND = ("sweep", "four.yaml", "--launcher", "slurm", "--no-figures")
PATIENCE = 100.0  # seconds until a step of the test has failed

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(lacking() is not None, reason=f"needs a real SLURM: {lacking()}"),
]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    pytest.importorskip("submitit", reason="needs submitit: pip install 'cssl-cli[slurm]'")
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED.replace("num_train: 256", "num_train: 128"))
    (tmp_path / "four.yaml").write_text(SWEEP)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path or str(Path.cwd()) for path in sys.path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with tempfile.TemporaryDirectory(prefix="slurm") as short, one_node_slurm(Path(short)) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def until(holds: Callable[[], Any], slurm: Slurm) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := holds()):
        if time.monotonic() > end:
            logs = [path.read_text() for path in Path("runs/four").rglob("*log*") if path.is_file()]
            raise AssertionError("\n".join([slurm.call("squeue"), *logs]))
        time.sleep(0.2)
    return value


def run_of(sweep: Sweep, name: str) -> RunDir:
    (member,) = (one for one in sweep.members if one.row == name)
    return RunDir(member_path(sweep, member, Path("runs")))


def test_a_sweep_goes_through_a_cluster(slurm: Slurm, invoke: Invoke, tmp_path: Path) -> None:
    sweep = load_sweep("four.yaml")
    long, crop = run_of(sweep, "long"), run_of(sweep, "crop")
    crop.path.parent.mkdir(parents=True)
    crop.path.touch()  # fails by design: there can be no such folder

    def states() -> dict[str, dict[str, Any]]:
        found = json.loads(invoke(*COMMAND, "--dry-run", "--json").stdout)["members"]
        return {one["name"].partition("-")[0]: one for one in found}

    first = invoke(*COMMAND)
    assert first.code == 0, first.stderr
    (submission,) = read_submissions(Path("runs/four"))
    ids = {name: one["job"] for name, one in states().items()}
    until(lambda: len(long.read_records(METRICS)) >= 2, slurm)
    slurm.notify(ids["long"])
    slurm.call("scancel", ids["flip"])
    until(lambda: states()["long"]["state"] == "queued", slurm)
    saved = long.status()
    assert saved["state"] == "interrupted"
    assert 0 < saved["step"] < saved["num_steps"], "the signal came too late to test anything"
    assert f"saved at step {saved['step']} of {saved['num_steps']}" in states()["long"]["why"]
    slurm.call("scontrol", "update", f"JobId={ids['long']}", "StartTime=now")  # else two minutes later

    until(
        lambda: {one["state"] for name, one in states().items() if name != "long"} <= {"done", "failed", "stopped"},
        slurm,
    )
    now = states()
    assert [now[name]["state"] for name in ("full", "crop", "flip")] == ["done", "failed", "stopped"]
    assert "File exists" in now["crop"]["why"]
    crop.path.unlink()

    done = invoke(*COMMAND, "--wait")
    assert done.code == 0, done.stderr
    assert "submitted 2 members" in done.stderr
    assert {one["state"] for one in states().values()} == {"done"}
    assert len(submission.jobs) == 4
    trained = {one.row: len((run_of(sweep, one.row).environment() or {})["processes"]) for one in sweep.members}
    assert trained == {"long": 2, "full": 1, "crop": 1, "flip": 1}, "nothing is trained twice"
    epochs = [record["epoch"] for record in long.read_records(METRICS)]
    assert epochs == list(range(1, len(epochs) + 1))

    results = run_sweep(SweepRequest(sweep, tmp_path / "here"), Silent())
    write_sweep(sweep, results, tmp_path / "here")
    tables = [(folder / "four" / "table.csv").read_text() for folder in (tmp_path / "runs", tmp_path / "here")]
    assert tables[0] == tables[1]
