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
from tests.support.forked_process import ForkedProcess

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


def write_files(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(QUICKLY_MEASURED.replace("epochs: 3", "steps: 4"))
    (folder / "shared.yaml").write_text(SWEEP)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of the sweep in this process."""
    folder = tmp_path_factory.mktemp("here")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        results = run_sweep(SweepRequest(load_sweep("shared.yaml"), folder / "runs"), Silent())
    assert [bool(result.error) for result in results] == [False, False, True, True]
    return folder / "runs"


def assert_same_results(runs: Path, here: Path, *members: int) -> None:
    sweep = load_sweep("shared.yaml")
    for member in members:
        one, other = (read_member(sweep, sweep.members[member], out) for out in (runs, here))
        assert one.probe
        assert one.probe == other.probe
        assert one.analysis == other.analysis


@pytest.mark.long  # with the next, which uses the same runs
def test_the_process_of_the_sweep_leaves_torch_to_its_workers(folder: Path, here: Path) -> None:
    """The one that is a process of its own from the start, as its worker is."""
    code = (
        "import sys; from cssl_cli.cli.app import app\n"
        "try: app(['sweep', 'shared.yaml', '~rank', '--jobs', '1', '--only', 'crop-5*', '--out', 'runs'])\n"
        "except SystemExit as ended: print('torch' in sys.modules, ended.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-1] == "False 0", done.stderr
    assert_same_results(folder / "runs", here, 0)


@pytest.mark.long
def test_a_sweep_in_workers_is_the_sweep_in_one_process(folder: Path, here: Path, cssl_here: CommandLine) -> None:
    process = ForkedProcess(folder, "sweep", "shared.yaml", "--jobs", "2", "--out", "runs")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert "broken-5-seed3, broken-10-seed3 failed: the term 'loss' became" in stdout
    assert stdout.count("Lower optim.lr") == 1
    assert "the end of runs/shared/logs/broken-5-seed3.log:" in stderr
    assert "Lower optim.lr" in stderr
    assert_same_results(folder / "runs", here, 0, 1)
    one, other = (read_ranking(out / "shared").sets for out in (folder / "runs", here))
    assert [entry["rows"] for entry in one.values()] == [["crop-5", "crop-10"], ["broken-5", "broken-10"]]
    assert one.keys() == other.keys()
    for key, entry in one.items():  # with another number of threads
        assert entry["share"]["value"] == pytest.approx(other[key]["share"]["value"], rel=1e-4)
    first = load_sweep("shared.yaml").members[0]
    run = launch.member_path(load_sweep("shared.yaml"), first, folder / "runs")
    environment = json.loads((run / "environment.json").read_text())
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
