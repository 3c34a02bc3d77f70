"""How a sweep ends: what does not count is named with its remedy; a folder that may only be read shows all it has."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from cssl_cli.errors import RunError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.report.compare.sweep import write_sweep
from cssl_cli.runs import memory
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import ANALYSIS, ENCODER, PROBE, STATUS, RunDir, find_runs
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import run_sweep
from cssl_cli.sweep.sweep import load_sweep
from tests.support.commands import QUICKLY_MEASURED, Invoke

SWEEP = """
name: two
base: tiny.yaml
axes:
  augment: {flip: {augment: {flip: null}}, full: {}}
"""
ReadOnly = Callable[[Path], None]
NOTHING_DRAWN = "--no-figures"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    small = {"epochs: 3": "epochs: 1", "num_train: 256, num_test: 100": "num_train: 64, num_test: 30"}
    recipe = QUICKLY_MEASURED
    for before, after in small.items():
        recipe = recipe.replace(before, after)
    (folder / "tiny.yaml").write_text(recipe)
    (folder / "two.yaml").write_text(SWEEP)
    sweep = load_sweep(str(folder / "two.yaml"), [])
    results = run_sweep(SweepRequest(sweep, folder / "runs"), Silent())
    assert not write_sweep(sweep, results, folder / "runs").failed
    return folder


@pytest.fixture
def members(finished: Path, tmp_path: Path) -> list[RunDir]:
    """The runs of a copy of the finished sweep; its file is two.yaml in `tmp_path`."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    runs = [RunDir(path) for path in find_runs(tmp_path / "runs" / "two")]
    assert len(runs) == 2
    return runs


def flat(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------------- what does not count
def test_a_report_of_damaged_members_ends_as_their_sweep_would(members: list[RunDir], invoke: Invoke) -> None:
    assert invoke("sweep", "two.yaml", "--report").code == 0
    damaged = members[0].file(PROBE)
    damaged.write_bytes(damaged.read_bytes().replace(b"0.", b"1.", 1))
    report = invoke("sweep", "two.yaml", "--report")
    assert report.code == 1
    assert "full" in report.stdout
    assert "align" in report.stdout
    name = str(damaged.relative_to(Path.cwd()))
    assert f"{name}: the file is damaged" in flat(report.stdout).replace("/ ", "/")
    assert "Delete it; `cssl probe` measures again." in report.stdout
    as_json = invoke("sweep", "two.yaml", "--report", "--json")
    assert as_json.code == 1
    (told,) = (member["damage"] for member in json.loads(as_json.stdout)["members"] if member["damage"])
    assert name in told[0]
    assert f"{name}: the file is damaged" in as_json.stderr
    of_row = next(member["row"] for member in json.loads(as_json.stdout)["members"] if not member["damage"])
    assert invoke("sweep", "two.yaml", "--report", "--only", of_row).code == 0


def test_a_report_names_members_that_failed_and_why(members: list[RunDir], invoke: Invoke) -> None:
    for run in members:
        told = {"error": "the loss became infinite", "where": None, "remedy": "Lower optim.lr."}
        run.write_status("failed", step=1, num_steps=2, **told)
    members[1].write_status("failed", step=1, num_steps=2, error="of before")
    report = invoke("sweep", "two.yaml", "--report", "--json")
    assert report.code == 1
    assert "failed: the loss became infinite" in report.stderr
    errors = {member["error"] for member in json.loads(report.stdout)["members"]}
    assert errors == {"the loss became infinite\nLower optim.lr.", "of before"}
    members[0].file(ENCODER).unlink()  # as a run that failed in training leaves it
    members[1].file(STATUS).write_text("{")
    report = invoke("sweep", "two.yaml", "--report")
    assert report.code == 1
    assert "failed: the loss became infinite" in report.stdout
    assert "Lower optim.lr." in report.stdout
    assert "the file is damaged" in report.stdout


def test_a_run_that_failed_keeps_why(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunError("the disk is full", where="/x/caf\udce9", remedy="Free some space.")

    monkeypatch.setattr("cssl_cli.runs.pretrain._train", fail)
    recipe = load_recipe(str(finished / "tiny.yaml"))
    with pytest.raises(RunError):
        pretrain(recipe, out=tmp_path, reporter=Silent())
    run = RunDir.at(tmp_path, name=recipe.name, fingerprint=recipe.fingerprint)
    assert run.failure() == "/x/caf\\xe9: the disk is full\nFree some space."


def test_a_failure_of_members_is_told_once_with_file_and_remedy(members: list[RunDir], invoke: Invoke) -> None:
    for run in members:
        run.file(PROBE).unlink()
    encoder = members[0].file(ENCODER)
    content = bytearray(encoder.read_bytes())
    content[-5] ^= 1
    encoder.write_bytes(content)
    done = invoke("sweep", "two.yaml", NOTHING_DRAWN)
    assert done.code == 1
    assert f"{ENCODER}: the file is damaged" in flat(done.stdout).replace("/ ", "/")
    assert flat(done.stdout).count("writes both again from checkpoint.pt") == 1
    (error,) = (m["error"] for m in json.loads(Path("runs/two/table.json").read_text())["members"] if m["error"])
    assert error.startswith(str(encoder.relative_to(Path.cwd())))
    assert "writes both again" in error


def test_figures_that_cannot_be_written_stop_no_table(members: list[RunDir], invoke: Invoke) -> None:
    in_the_way = members[0].path.parent / "accuracy_vs_terms.png"
    in_the_way.mkdir()
    done = invoke("sweep", "two.yaml")
    assert done.code == 1
    assert "align" in done.stdout
    assert "table.csv" in done.stdout
    assert in_the_way.name in done.stderr
    assert "Traceback" not in done.stderr
    in_the_way.rmdir()
    members[0].path.parent.joinpath("table.csv").unlink()
    members[0].path.parent.joinpath("table.csv").mkdir()
    done = invoke("sweep", "two.yaml", "--json")
    assert done.code == 1
    assert len(json.loads(done.stdout)["rows"]) == 2
    assert "table.csv" in done.stderr


def test_what_cannot_be_listed_does_not_pass_for_what_is_not_there(
    members: list[RunDir], invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, closed = os.scandir, members[0].path

    def scandir(path: object = ".") -> object:
        if Path(str(path)).absolute() == closed.absolute():
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("cssl_cli.sweep.results_index.os.scandir", scandir)
    report = invoke("sweep", "two.yaml", "--report")
    assert report.code == 1
    assert f"{closed.name}: cannot be read: Permission denied" in flat(report.stdout).replace("/ ", "/")


def test_an_index_whose_folder_cannot_be_listed_is_not_written(
    members: list[RunDir], invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in members[0].path.parent.glob("results-index*"):
        index.unlink()

    def iterdir(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert invoke("sweep", "two.yaml", "--report").code == 0


def test_members_of_images_without_labels_lack_no_accuracies(members: list[RunDir], invoke: Invoke) -> None:
    for run in members:
        run.file(PROBE).unlink()
        run.write_json("environment.json", {**(run.environment() or {}), "labelled": False})
    done = invoke("sweep", "two.yaml", NOTHING_DRAWN)
    assert done.code == 0, done.stderr
    assert done.stderr == "", "nothing is taken up again"


# ---------------------------------------------------------------------- a folder that may only be read
@pytest.mark.page
def test_a_finished_sweep_that_may_only_be_read_is_shown(
    members: list[RunDir], invoke: Invoke, read_only: ReadOnly, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "archive"
    (tmp_path / "runs").rename(elsewhere)
    read_only(elsewhere)
    shown = invoke("sweep", "two.yaml", "--out", elsewhere)
    assert shown.code == 0, shown.stderr
    assert "align" in shown.stdout
    assert "Written to" not in shown.stdout
    assert shown.stderr == ""


def test_what_a_read_only_sweep_lacks_is_an_error(
    members: list[RunDir], invoke: Invoke, read_only: ReadOnly, tmp_path: Path
) -> None:
    home = members[0].path.parent
    (home / "table.json").unlink()
    read_only(tmp_path / "runs")
    shown = invoke("sweep", "two.yaml")
    assert shown.code == 1
    assert "align" in shown.stdout
    assert "table.json: cannot be written: Read-only file system" in flat(shown.stderr)
    assert "add --report" in flat(shown.stderr)
    assert invoke("sweep", "two.yaml", "--report").code == 0
    refused = invoke("sweep", "two.yaml", "probe.knn_k=3")
    assert refused.code == 2
    assert "--out DIR" in refused.stderr


def test_a_read_only_run_of_an_earlier_version_is_finished_although_its_recipe_has_fewer_fields(
    members: list[RunDir], invoke: Invoke, read_only: ReadOnly, tmp_path: Path
) -> None:
    run = members[0]
    recipe = yaml.safe_load(run.file("recipe.yaml").read_text())
    del recipe["train"]["micro_batch"], recipe["train"]["checkpoint_activations"]
    run.write_recipe(yaml.safe_dump(recipe))
    read_only(tmp_path / "runs")
    trained = invoke("pretrain", run.file("recipe.yaml"), "--out", run.path.parent)
    assert trained.code == 0, trained.stderr
    assert "is finished already" in flat(trained.stderr)


def test_a_finished_run_that_may_only_be_read_shows_what_is_stored(
    members: list[RunDir], invoke: Invoke, read_only: ReadOnly, tmp_path: Path
) -> None:
    run = members[0]
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    read_only(tmp_path / "runs")
    probed = invoke("probe", run.path, "--json")
    assert probed.code == 0, probed.stderr
    assert json.loads(probed.stdout) == run.latest_result(PROBE)
    assert "may only be read" in flat(probed.stderr)
    analyzed = invoke("analyze", run.path, NOTHING_DRAWN, "--json")
    assert analyzed.code == 0, analyzed.stderr
    assert json.loads(analyzed.stdout)["trained"] == (run.latest_result(ANALYSIS) or {})["trained"]
    trained = invoke("pretrain", run.file("recipe.yaml"), "--out", run.path.parent)
    assert trained.code == 0, trained.stderr
    assert "is finished already" in flat(trained.stderr)
    for command in (("analyze", run.path, "--views", "2"), ("analyze", run.path, "--again")):
        refused = invoke(*command)
        assert refused.code == 2
        assert "Copy the run directory" in refused.stderr
    other = invoke("pretrain", run.file("recipe.yaml"), "probe.knn_k=3", "--out", run.path.parent)
    assert other.code == 2
    assert "--out DIR" in other.stderr
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_features_of_a_run_that_may_only_be_read_are_exported(
    members: list[RunDir], invoke: Invoke, read_only: ReadOnly, tmp_path: Path
) -> None:
    run = members[0]
    analysis = run.latest_result(ANALYSIS) or {}
    assert invoke("analyze", run.path, NOTHING_DRAWN, "--again", "--export", "measured.npz").code == 0
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    read_only(tmp_path / "runs")
    exported = invoke("analyze", run.path, NOTHING_DRAWN, "--json", "--export", "stored.npz")
    assert exported.code == 0, exported.stderr
    assert json.loads(exported.stdout)["trained"] == analysis["trained"]
    with np.load("measured.npz") as measured, np.load("stored.npz") as stored:
        assert set(measured) == set(stored)
        assert all(np.array_equal(measured[name], stored[name]) for name in measured)
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before
    refused = invoke("analyze", run.path, "--export", tmp_path / "runs" / "inside.npz")
    assert refused.code == 2
    assert "Give another --export FILE.npz." in refused.stderr
    unmeasured = invoke("analyze", run.path, "--views", "2", "--export", "other.npz")
    assert unmeasured.code == 2
    assert "Copy the run directory" in unmeasured.stderr


def test_accuracies_that_a_read_only_run_lacks_are_an_error(
    members: list[RunDir], invoke: Invoke, read_only: ReadOnly, tmp_path: Path
) -> None:
    run = members[0]
    run.file(PROBE).unlink()
    read_only(tmp_path / "runs")
    refused = invoke("probe", run.path)
    assert refused.code == 2
    assert "Read-only file system" in refused.stderr
    assert "Copy the run directory" in refused.stderr


# ---------------------------------------------------------------------- memory
def test_a_sweep_that_cannot_fit_is_refused_before_its_first_member(
    members: list[RunDir], invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 2.0**30)
    monkeypatch.setattr(memory, "_GPU", Path("/nowhere"))
    for options in (("--dry-run",), (), ("--jobs", "2")):
        refused = invoke("sweep", "two.yaml", "train.batch_size=1000000", *options)
        assert refused.code == 2
        assert "flip-seed3: train.batch_size: does not fit in memory: needs about" in flat(refused.stderr)
        assert "--skip flip" in refused.stderr
    assert len(find_runs(Path("runs/two"))) == 2, "a member was begun"
    monkeypatch.setattr(memory, "free_memory", lambda: 1.0)
    assert invoke("sweep", "two.yaml", "--dry-run").code == 0
    assert invoke("sweep", "two.yaml", NOTHING_DRAWN).code == 0, "finished members need no memory"
    members[0].file(ANALYSIS).unlink()
    recipe = load_recipe("tiny.yaml")
    needs = [*memory.of_images(recipe).values(), *memory.of_analysis(recipe, 30).values()]
    monkeypatch.setattr(memory, "free_memory", lambda: float(sum(needs)))
    assert sum(memory.of_training(recipe).values()) > sum(needs)
    assert invoke("sweep", "two.yaml", "--dry-run").code == 0, "it is trained already"
