"""Sweeps as they run: nothing finished is repeated, one failure stops nothing, an interrupt loses nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import statistics
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cssl_cli.errors import Interrupted
from cssl_cli.host.files import replacing
from cssl_cli.host.progress import Silent
from cssl_cli.runs.run_dir import ANALYSIS, PROBE, RunDir
from cssl_cli.sweep import run as launch
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import read_member, run_sweep
from cssl_cli.sweep.sweep import Member, Sweep, load_sweep
from cssl_cli.sweep.workers.missing import Missing
from cssl_cli.sweep.workers.stages import Workshop
from tests.support.commands import QUICKLY_MEASURED, CommandLine

SWEEP = """
name: nested
base: tiny.yaml
axes:
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    full: {}
seeds: [0, 1]
"""
FAILING = SWEEP.replace("full: {}", "broken: {optim: {lr: 1.0e+30}, train: {precision: float32}}\n    full: {}")


def write_files(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(QUICKLY_MEASURED.replace("epochs: 3", "epochs: 2"))
    (folder / "nested.yaml").write_text(SWEEP)
    (folder / "failing.yaml").write_text(FAILING)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of the finished sweep, which tests work on copies of."""
    folder = tmp_path_factory.mktemp("finished")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        results = run_sweep(SweepRequest(load(), folder / "runs"), Silent())
    assert [result.member.name for result in results] == ["crop-seed0", "crop-seed1", "full-seed0", "full-seed1"]
    assert all(result.probe and result.analysis and not result.error for result in results)
    return folder / "runs"


def copy_but(finished: Path, folder: Path, *members: str) -> None:
    """The finished sweep as `folder`'s, in which these members were never begun."""
    shutil.copytree(finished, folder / "runs")
    for member in members:
        (run,) = (folder / "runs" / "nested").glob(f"{member}-*")
        shutil.rmtree(run)


def load(name: str = "nested.yaml") -> Sweep:
    return load_sweep(name, [])


def written_at(out: Path) -> dict[str, int]:
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*.*") if "nested-" not in path.name
    }


def test_what_is_finished_is_read_and_not_repeated(finished: Path, folder: Path) -> None:
    copy_but(finished, folder)
    run_sweep(SweepRequest(load(), folder / "runs"), Silent())  # the index of the results knows the copies by now
    before = written_at(folder / "runs")
    results = run_sweep(SweepRequest(load(), folder / "runs"), Silent())
    assert written_at(folder / "runs") == before
    for result in results:
        assert result.probe == RunDir(result.path).latest_result(PROBE)
        assert result.analysis == RunDir(result.path).latest_result(ANALYSIS)


ALONE = """
name: many
base: tiny.yaml
axes:
  what:
    base: {}
    five: {probe: {knn_k: 5}}
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    wide: {encoder: {width: 4}}
    twins: {method: {name: barlow_twins, projector: [8, 8]}}
    few: {data: {num_train: 128}}
"""


@pytest.mark.long
def test_what_members_share_is_what_each_would_get_alone(folder: Path) -> None:
    """Each member but the first differs from it in one thing, and shares the rest with all that come before."""
    (folder / "many.yaml").write_text(ALONE)
    members = load_sweep("many.yaml", ["train.epochs=null", "train.steps=1"]).members

    def results(home: Path, *members: Member) -> list[tuple[object, object]]:
        workshop, found = Workshop(home, Silent(), None), []
        for member in members:
            analyzed = member.row == "twins"  # that takes longest, and of what is shared it needs only the images
            assert workshop.complete(member.recipe, Missing(probe=True, analysis=analyzed)) is None
            run = RunDir.at(home, name=member.recipe.name, fingerprint=member.recipe.fingerprint)
            found.append((run.latest_result(PROBE), run.latest_result(ANALYSIS)))
            assert found[-1][0] is not None
            assert (found[-1][1] is not None) == analyzed
        return found

    together = results(folder / "together", *members)
    for member, expected in zip(members[1:], together[1:], strict=True):  # before the first is nothing to share
        assert results(folder / "alone" / member.name, member) == [expected]


def test_a_sweep_over_unlabelled_images_has_terms_and_no_accuracies(folder: Path, cssl_here: CommandLine) -> None:
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(70):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
            folder / "images" / f"{number}.png"
        )
    data = "data={name: folder, root: images, size: 8}"
    done = cssl_here("sweep", "nested.yaml", data, "analyze.classes=null", "--out", "runs", "--only", "crop")
    assert done.returncode == 0, done.stderr
    assert "no labels" in " ".join(done.stdout.split()), done.stdout
    (crop, _) = json.loads((folder / "runs" / "nested" / "table.json").read_text())["rows"]
    assert crop["cells"]["alignment"]["n"] == 2
    assert crop["cells"]["linear"] is None


def test_what_a_killed_sweep_left_aside_is_removed(folder: Path) -> None:
    sweep = load()
    home = folder / "runs" / sweep.name
    home.mkdir(parents=True)
    (home / ".table.csv.1.partial").touch()
    with replacing(home / "table.csv", "") as at_work:  # as another sweep may
        run_sweep(SweepRequest(sweep, folder / "runs", selected=()), Silent())
        assert set(home.iterdir()) == {at_work, home / "sweep.json"}


def test_results_of_other_settings_do_not_count(finished: Path, folder: Path) -> None:
    sweep = load()
    copy_but(finished, folder)
    results = [read_member(sweep, member, folder / "runs") for member in sweep.members]
    path = results[0].path / PROBE
    content = json.loads(path.read_text())
    content["settings"]["knn_k"] += 1
    RunDir(path.parent).write_json(PROBE, content)
    assert read_member(sweep, sweep.members[0], folder / "runs").probe is None
    again = run_sweep(SweepRequest(sweep, folder / "runs"), Silent())
    assert again[0].probe == results[0].probe


def test_members_that_differ_in_measurement_only_train_once(folder: Path) -> None:
    (folder / "two.yaml").write_text("name: two\nbase: tiny.yaml\naxes:\n  probe.knn_k: [5, 10]\n")
    sweep = load("two.yaml")
    results = run_sweep(SweepRequest(sweep, folder / "runs"), Silent())
    assert results[0].path == results[1].path
    assert [result.probe["settings"]["knn_k"] for result in results] == [5, 10]
    assert results[0].probe["trained"]["linear"] == results[1].probe["trained"]["linear"]
    before = written_at(folder / "runs")
    assert [result.probe for result in run_sweep(SweepRequest(sweep, folder / "runs"), Silent())] == [
        result.probe for result in results
    ]
    assert written_at(folder / "runs") == before


def test_a_failing_member_stops_nothing_and_shows(finished: Path, folder: Path, cssl_here: CommandLine) -> None:
    copy_but(finished, folder, "full-seed0")  # which comes after those that fail
    done = cssl_here("sweep", "failing.yaml", "--out", "runs")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "broken-seed0" in done.stdout
    assert "failed: the term 'loss' became" in done.stdout
    table = json.loads((folder / "runs" / "nested" / "table.json").read_text())
    failed = {member["name"]: bool(member["error"]) for member in table["members"]}
    assert failed == {f"{row}-seed{seed}": row == "broken" for row in ("crop", "broken", "full") for seed in (0, 1)}
    again = cssl_here("sweep", "failing.yaml", "--out", "runs", "--json")
    assert again.returncode == 1
    assert "full-seed0" not in again.stderr, "a finished member was taken up again"
    assert json.loads(again.stdout)["rows"] == table["rows"]


def test_a_bug_in_one_member_is_kept_in_a_log_and_stops_nothing(
    finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_but(finished, folder, "crop-seed1", "full-seed0")
    stages = launch.Workshop._stages

    def broken(self: launch.Workshop, recipe, so_far) -> None:
        if recipe.name == "crop-seed1":
            raise KeyError("a bug")
        stages(self, recipe, so_far)

    monkeypatch.setattr(launch.Workshop, "_stages", broken)
    results = run_sweep(SweepRequest(load(), folder / "runs"), Silent())
    assert [bool(result.error) for result in results] == [False, True, False, False]
    assert "KeyError: 'a bug'" in (results[1].path / "error.log").read_text()


def test_the_table_holds_means_and_deviations_over_seeds(finished: Path, folder: Path, cssl_here: CommandLine) -> None:
    copy_but(finished, folder)
    done = cssl_here("sweep", "nested.yaml", "--out", "runs", "--json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert [row["row"] for row in table["rows"]] == ["crop", "full"]
    for row in table["rows"]:
        members = [member for member in table["members"] if member["row"] == row["row"]]
        accuracies = []
        for member in members:
            scores = json.loads((folder / member["run"] / "probe.json").read_text())
            accuracies.append(scores["trained"]["linear"]["accuracy"])
        cell = row["cells"]["linear"]
        assert cell["mean"] == pytest.approx(statistics.fmean(accuracies))
        assert cell["sd"] == pytest.approx(statistics.stdev(accuracies))
        assert cell["n"] == 2
    with (folder / "runs" / "nested" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["row"] for line in lines] == ["crop", "full"]
    assert float(lines[0]["linear_mean"]) == pytest.approx(table["rows"][0]["cells"]["linear"]["mean"])


def test_a_sweep_says_which_terms_predict_and_draws_them(folder: Path, cssl_here: CommandLine) -> None:
    axes = "{full: {}, flip: {augment: {flip: null}}, blur: {augment: {blur: null}}, control: {augment: {fade: {}}}}"
    (folder / "four.yaml").write_text(f"name: four\nbase: tiny.yaml\naxes:\n  augment: {axes}\n")
    options = ("probe.every=1", "--out", "runs", "--accuracy", "best_knn")
    done = cssl_here("sweep", "four.yaml", *options, "--no-figures", "--correlations")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "Best k-NN accuracy against each term, over rows" in said
    assert "Kendall's τ_b of the accuracy with each term over 3 rows" in said
    assert "even a perfect order has p = 0.33" in said
    assert "they are not independent, which makes p too small" in said
    assert "Negative control control best k-NN accuracy" in said
    home = folder / "runs" / "four"
    assert not list(home.glob("*.png"))
    table = json.loads((home / "table.json").read_text())
    assert [row["control"] for row in table["rows"]] == [False, False, False, True]
    assert {row["group"] for row in table["rows"]} == {"simclr"}
    assert list(table["correlations"]) == ["linear", "knn", "nearest_center", "best_knn"]
    assert [found["n"] for found in table["correlations"].values()] == [3] * 4
    assert [control["row"] for control in table["controls"]] == ["control"]
    for member in table["members"]:
        records = (folder / member["run"] / "knn.jsonl").read_text().splitlines()
        assert member["values"]["best_knn"] == max(json.loads(record)["knn"] for record in records)
    with (home / "table.csv").open() as file:
        assert [line["negative_control"] for line in csv.DictReader(file)] == ["0", "0", "0", "1"]

    again = cssl_here("sweep", "four.yaml", *options)
    assert again.returncode == 0, again.stderr
    assert "over 3 rows no rank correlation can be told from chance" in " ".join(again.stdout.split())
    assert "Kendall's" not in again.stdout
    assert {path.name for path in home.glob("accuracy_vs_terms.*")} == {
        "accuracy_vs_terms.png",
        "accuracy_vs_terms.svg",
    }
    assert "accuracy_vs_terms.png" in again.stdout.replace("\n", "")
    report = cssl_here("sweep", "four.yaml", "probe.every=1", "--out", "runs", "--report", "--json")
    assert json.loads(report.stdout) | {"checksum": table["checksum"]} == table
    refused = cssl_here("sweep", "four.yaml", "--report", "--accuracy", "best_kn")
    assert refused.returncode == 2
    assert "Did you mean 'best_knn'?" in refused.stderr

    runs = sorted(home.glob("*-seed*"))
    analyzed = cssl_here("analyze", *runs, "--no-figures", "--accuracy", "knn")
    assert analyzed.returncode == 0, analyzed.stderr
    said = " ".join(analyzed.stdout.split())
    assert "k-NN accuracy against each of" in said
    assert "Negative control control k-NN accuracy" in said
    content = json.loads(cssl_here("analyze", *runs, "--no-figures", "--json").stdout)
    assert set(content["runs"]) == {str(path) for path in runs}
    by_term = {entry["term"]: entry["pooled"] for entry in content["correlations"]["linear"]["terms"]}
    assert by_term == {entry["term"]: entry["pooled"] for entry in table["correlations"]["linear"]["terms"]}
    (runs[0] / "probe.json").unlink()
    assert f"First cssl probe {runs[0]}" in " ".join(
        cssl_here("analyze", *runs, "--no-figures", COLUMNS="300").stdout.split()
    )


def test_an_interrupted_sweep_goes_on_where_it_was(
    finished: Path, folder: Path, cssl_here: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes are interrupted in `test_faults.py`."""
    copy_but(finished, folder, "crop-seed1", "full-seed1")
    write_records = RunDir.write_records

    def interrupted(self: RunDir, name: str, records: list) -> None:  # after the first of two epochs
        write_records(self, name, records)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_records", interrupted)
        stopped = cssl_here("sweep", "nested.yaml", "train.checkpoint_minutes=0", "--out", "runs")
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    planned = cssl_here("sweep", "nested.yaml", "--out", "runs", "--dry-run", "--json")
    states = [member["state"] for member in json.loads(planned.stdout)]
    assert states == ["finished", "half-finished", "finished", "new"]
    done = cssl_here("sweep", "nested.yaml", "--out", "runs")
    assert done.returncode == 0, done.stderr
    assert "seed0" not in done.stderr
    assert "going on from step" in done.stderr
    for member in json.loads(planned.stdout)[:2]:
        (folder / member["run"] / ANALYSIS).unlink()
    planned = cssl_here("sweep", "nested.yaml", "--out", "runs", "--dry-run", "--json")
    assert [member["state"] for member in json.loads(planned.stdout)] == ["trained", "trained", "finished", "finished"]


def test_damaged_files_of_a_member_cost_that_member_a_measurement_and_nothing_else(
    finished: Path, folder: Path
) -> None:
    copy_but(finished, folder)
    results = [read_member(load(), member, folder / "runs") for member in load().members]
    for result, (name, content) in zip(
        results, [("probe.json", "{"), ("analysis.json", "[1]"), ("status", "[1]"), ("probe.json", "{}")], strict=True
    ):
        (result.path / name).write_text(content)
    again = run_sweep(SweepRequest(load(), folder / "runs"), Silent())
    assert [result.probe for result in again] == [result.probe for result in results]
    assert [result.analysis for result in again] == [result.analysis for result in results]
    assert not any(result.error for result in again)


def test_a_sweep_of_which_nothing_succeeds_still_ends_in_its_table(folder: Path, cssl_here: CommandLine) -> None:
    done = cssl_here("sweep", "nested.yaml", "data={name: folder, root: gone}", "--out", "runs")
    assert done.returncode == 1
    told = " ".join(done.stdout.split())
    assert "crop-seed0, crop-seed1, full-seed0, full-seed1 failed:" in told
    assert told.count("there is no such folder") == 1
    assert (folder / "runs" / "nested" / "table.json").exists()
    refused = cssl_here("sweep", "nested.yaml", "--out", "tiny.yaml")
    assert refused.returncode == 2
    assert "--out" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_member_that_another_process_holds_is_taken_up_after_the_rest(finished: Path, folder: Path) -> None:
    copy_but(finished, folder, "crop-seed0", "full-seed1")
    sweep = load()
    first = sweep.members[0]
    run = RunDir(launch.member_path(sweep, first, folder / "runs"))
    run.create(first.recipe.to_yaml())
    order: list[str] = []

    class Listener(Silent):
        def say(self, message: str) -> None:
            order.append(message)
            if "full-seed1" in message:
                held.close()

    held = ExitStack()
    held.enter_context(run.locked())
    results = run_sweep(SweepRequest(sweep, folder / "runs"), Listener())
    assert all(result.probe and result.analysis and not result.error for result in results)
    assert [message.split("] ")[1] for message in order if message.startswith("[")][-1].startswith("crop-seed0, about")


def test_a_signal_in_the_last_step_of_a_member_stops_the_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records = RunDir.write_records

    def signalled(self: RunDir, name: str, records: list) -> None:
        write_records(self, name, records)
        if records[-1]["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunDir, "write_records", signalled)
    with pytest.raises(Interrupted) as stopped:
        run_sweep(SweepRequest(load(), folder / "runs"), Silent())
    assert stopped.value.exit_code == 143
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    first, *others = (read_member(load(), member, folder / "runs") for member in load().members)
    assert RunDir(first.path).finished
    assert not any(RunDir(other.path).finished for other in others)
