"""`cssl sweep --jobs`: real members in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cssl_cli.host.progress import Silent
from cssl_cli.sweep import run as launch
from cssl_cli.sweep.ranking import read_ranking
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import read_member, run_sweep
from cssl_cli.sweep.sweep import load_sweep
from tests.support.commands import QUICKLY_MEASURED, CommandLine

SWEEP = """
name: shared
base: tiny.yaml
axes:
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    broken: {optim: {lr: 1.0e+30}, train: {precision: float32}}
  probe.knn_k: [5, 10]
rank: 60
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED.replace("epochs: 3", "steps: 4"))
    (tmp_path / "shared.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_in_workers_is_the_sweep_in_one_process(folder: Path, cssl_here: CommandLine) -> None:
    code = (
        "import sys; from cssl_cli.cli.app import app\n"
        "try: app(['sweep', 'shared.yaml', '--jobs', '2', '--out', 'runs'], prog_name='cssl')\n"
        "except SystemExit as ended: print('torch' in sys.modules, ended.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-1] == "False 1", done.stderr  # torch is the workers' business
    assert "broken-5-seed3, broken-10-seed3 failed: the term 'loss' became" in done.stdout
    assert done.stdout.count("Lower optim.lr") == 1
    assert "the end of runs/shared/logs/broken-5-seed3.log:" in done.stderr
    assert "Lower optim.lr" in done.stderr
    sweep = load_sweep("shared.yaml")
    here = run_sweep(SweepRequest(sweep, folder / "here"), Silent())
    assert [bool(result.error) for result in here] == [False, False, True, True]
    for member in sweep.members[:2]:
        one, other = (read_member(sweep, member, folder / out) for out in ("runs", "here"))
        assert one.probe == other.probe
        assert one.analysis == other.analysis
    one, other = (read_ranking(folder / out / "shared").sets for out in ("runs", "here"))
    assert [entry["rows"] for entry in one.values()] == [["crop-5", "crop-10"], ["broken-5", "broken-10"]]
    assert one.keys() == other.keys()
    for key, entry in one.items():  # with another number of threads
        assert entry["share"]["value"] == pytest.approx(other[key]["share"]["value"], rel=1e-4)
    environment = json.loads(
        (launch.member_path(sweep, sweep.members[0], folder / "runs") / "environment.json").read_text()
    )
    assert len(environment["processes"]) == 1, "members that share a run trained it more than once"
    again = cssl_here("sweep", "shared.yaml", "--jobs", "2", "--only", "crop-*", "--out", "runs")
    assert again.returncode == 0, again.stderr
    assert "crop" not in again.stderr, "a finished member was taken up again"


@pytest.mark.parametrize("options", [("--jobs", "2", "--report"), ("--retry", "1", "--concentration-only")])
def test_workers_are_for_running(folder: Path, cssl_here: CommandLine, options: tuple[str, ...]) -> None:
    done = cssl_here("sweep", "shared.yaml", *options)
    assert done.returncode == 2
    assert "--jobs, --retry and --track are" in done.stderr.replace("\n", " ")
    assert not (folder / "runs").exists()
