"""Successive halving: who goes on is a function of the records on disk, and who stopped is a run cut short."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cssl_cli.errors import InputError, RunError
from cssl_cli.host.progress import Silent
from cssl_cli.report.compare.catalogue import LINEAR
from cssl_cli.report.compare.content import as_content
from cssl_cli.report.compare.prediction import prediction_content, screen
from cssl_cli.report.compare.rows import rows_of
from cssl_cli.report.compare.run_rows import how_chosen_among
from cssl_cli.report.compare.sweep import show_sweep
from cssl_cli.report.compare.tables.prediction import print_prediction
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.report.layout import console
from cssl_cli.report.recipes import run_state
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import CHECKPOINT, ENCODER, EPOCH_KNN, METRICS, RunDir
from cssl_cli.sweep.file import Reference
from cssl_cli.sweep.halving import (
    Entrant,
    Halving,
    close_rung,
    decide,
    halving_of,
    mark_stopped,
    require_reached,
    run_halved,
)
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import MemberResult, member_path, read_sweep, run_sweep
from cssl_cli.sweep.selection import select
from cssl_cli.sweep.sweep import Member, Sweep, load_sweep
from tests.support.commands import QUICKLY_MEASURED, Invoke
from tests.support.synthetic_members import random_member

SWEEP = """
name: halved
base: tiny.yaml
sample: {optim.lr: {log_uniform: [1e-4, 3e-1]}}
num: 4
seeds: 2
"""
RECIPE = QUICKLY_MEASURED.replace("epochs: 3", "epochs: 4").replace("knn_k: 10", "knn_k: 10, every: 1")


class Told(Silent):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, message: str) -> None:
        self.sentences.append(message)


def write_files(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "halved.yaml").write_text(SWEEP)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of a sweep that was halved, which tests work on copies of."""
    folder = tmp_path_factory.mktemp("halved")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_sweep(request(), Silent())
    return folder / "runs"


def load(*overrides: str) -> Sweep:
    return load_sweep("halved.yaml", overrides)


def request(*overrides: str, eta: int | None = 2, **options: Any) -> SweepRequest:
    return SweepRequest(load(*overrides), Path("runs"), eta=eta, **options)


def epochs_of(sweep: Sweep) -> dict[str, int]:
    """How many epochs each member was trained."""
    return {
        member.name: len(RunDir(member_path(sweep, member, Path("runs"))).read_records(METRICS))
        for member in sweep.members
    }


def knn_of(sweep: Sweep, row: str, epoch: int) -> float:
    runs = [RunDir(member_path(sweep, member, Path("runs"))) for member in sweep.members if member.row == row]
    return sum(float(run.read_records(EPOCH_KNN)[epoch - 1]["knn"]) for run in runs) / len(runs)


def test_the_best_rows_go_on_with_all_their_seeds(halved: Path, folder: Path) -> None:
    shutil.copytree(halved, folder / "runs")
    sweep = load()
    lengths = epochs_of(sweep)
    by_row = {row: {lengths[f"{row}-seed0"], lengths[f"{row}-seed1"]} for row in ("s00", "s01", "s02", "s03")}
    assert sorted(map(sorted, by_row.values())) == [[1], [1], [2], [4]]
    first = sorted(by_row, key=lambda row: knn_of(sweep, row, 1), reverse=True)
    assert {row for row in by_row if by_row[row] != {1}} == set(first[:2])
    assert by_row[max(first[:2], key=lambda row: knn_of(sweep, row, 2))] == {4}


def test_the_status_says_why_and_the_plan_that_it_was_stopped(halved: Path, folder: Path) -> None:
    shutil.copytree(halved, folder / "runs")
    sweep, lengths = load(), epochs_of(load())
    for member in sweep.members:
        run = RunDir(member_path(sweep, member, Path("runs")))
        status = run.status()
        if lengths[member.name] == 4:
            assert (run_state(run), status["state"]) == ("finished", "finished")
            continue
        assert (run_state(run), status["state"], status["step"]) == ("stopped", "interrupted", lengths[member.name] * 4)
        stopped = status["stopped"]
        records = run.read_records(EPOCH_KNN)
        assert stopped["knn"] == records[-1]["knn"]
        assert (stopped["epoch"], stopped["epochs"], stopped["eta"]) == (lengths[member.name], 4, 2)
        assert stopped["num_kept"] < stopped["place"] <= stopped["num_rows"] == (4 if lengths[member.name] == 1 else 2)


def test_a_stopped_run_goes_on_as_if_never_stopped(halved: Path, folder: Path) -> None:
    shutil.copytree(halved, folder / "runs")
    sweep, lengths = load(), epochs_of(load())
    stopped = next(member for member in sweep.members if lengths[member.name] == 2)
    run = pretrain(stopped.recipe, out=Path("runs/halved"), reporter=Silent())
    whole = pretrain(stopped.recipe, out=Path("whole"), reporter=Silent())
    assert run.path == member_path(sweep, stopped, Path("runs"))
    assert run.file(ENCODER).read_bytes() == whole.file(ENCODER).read_bytes()
    assert run.read_records(EPOCH_KNN) == whole.read_records(EPOCH_KNN)
    assert "stopped" not in run.status()
    assert run_state(run) == "finished"


def test_the_same_command_repeats_nothing_and_decides_the_same(halved: Path, folder: Path) -> None:
    shutil.copytree(halved, folder / "runs")
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.*") if path.parent.name != "halved"}
    told = Told()
    run_sweep(request(), told)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert told.sentences[0] == (
        "successive halving by k-NN accuracy: of 4 rows 4 to epoch 1, 2 to epoch 2, 1 to epoch 4"
    )
    assert [sentence.partition(":")[0] for sentence in told.sentences[1:]] == ["2 of 4 rows go on", "1 of 2 rows go on"]


def test_a_sweep_that_is_ended_within_a_rung_decides_later_and_the_same(halved: Path, folder: Path) -> None:
    told = Told()
    first = replace(request(), seconds=1e-9)
    run_sweep(first, told)
    assert told.sentences[-1].startswith("the budget is used up: 8 of 8 members not started")
    shutil.copytree(halved, folder / "copy")
    for path in (folder / "copy" / "halved").glob("s03-seed1-*"):  # one member has not reached its rung
        shutil.rmtree(path)
    shutil.rmtree(folder / "runs")
    shutil.move(folder / "copy", folder / "runs")
    run_sweep(request(), Silent())
    sweep = load()
    shutil.move(folder / "runs", folder / "later")
    shutil.copytree(halved, folder / "runs")
    expected = epochs_of(sweep)
    shutil.rmtree(folder / "runs")
    shutil.move(folder / "later", folder / "runs")
    assert epochs_of(sweep) == expected


def test_a_member_that_fails_stops_its_row_and_nothing_else(folder: Path) -> None:
    broken = "{optim: {lr: 1.0e+30}, train: {precision: float32}}"
    variants = f"a: {broken}, b: {{optim: {{lr: 0.01}}}}, c: {{optim: {{lr: 0.1}}}}, d: {{optim: {{lr: 0.2}}}}"
    (folder / "halved.yaml").write_text(f"name: halved\nbase: tiny.yaml\naxes: {{lr: {{{variants}}}}}\n")
    selected = select(load(), only=["a", "b", "c"])
    results = {one.member.row: one for one in run_sweep(request(selected=selected, eta=3), Silent())}
    assert results["a"].error is not None
    assert results["a"].stopped is None
    assert sorted(bool(results[row].analysis) for row in "bc") == [False, True]
    assert sorted(bool(results[row].stopped) for row in "bc") == [False, True]
    assert not results["d"].path.exists()


def entrants(count: int) -> list[Entrant]:
    return [Entrant((f"r{number}",), ()) for number in range(count)]


@pytest.mark.parametrize(
    ("accuracies", "eta", "kept"),
    [
        ((0.3, 0.5, 0.4, 0.2), 2, ["r1", "r2"]),
        ((0.3, 0.5, 0.4, 0.2, 0.1), 2, ["r1", "r2", "r0"]),  # one in two, rounded up
        ((0.3, 0.5, 0.4, 0.2), 4, ["r1"]),
        ((0.4, 0.5, 0.4, 0.4), 2, ["r1", "r0"]),  # of equal ones the first
        ((None, 0.5, None, None), 2, ["r1"]),  # none without an accuracy, even if places are left
        ((0.0, None), 2, ["r0"]),
    ],
)
def test_who_goes_on(accuracies: tuple[float | None, ...], eta: int, kept: list[str]) -> None:
    decision = decide(entrants(len(accuracies)), accuracies, eta)
    assert [entrant.name for entrant in decision.kept] == kept
    assert {entrant.name for entrant in (*decision.kept, *decision.stopped)} == {
        f"r{number}" for number in range(len(accuracies))
    }


def test_nobody_goes_on_without_an_accuracy() -> None:
    with pytest.raises(RunError, match="no row has a k-NN accuracy"):
        decide(entrants(2), (None, None), 2)


@pytest.mark.parametrize(
    ("overrides", "eta", "words"),
    [
        (["num=9", "train.epochs=27"], 3, "9 to epoch 3, 3 to epoch 9, 1 to epoch 27"),
        (["num=20", "train.epochs=16"], 3, "20 to epoch 2, 7 to epoch 6, 3 to epoch 16"),
        (["num=8", "train.epochs=16", "probe.every=4"], 2, "8 to epoch 4, 4 to epoch 8, 2 to epoch 16"),
        (["num=8", "train.epochs=5"], 2, "8 to epoch 1, 4 to epoch 2, 2 to epoch 3, 1 to epoch 5"),
    ],
)
def test_the_rungs(folder: Path, overrides: list[str], eta: int, words: str) -> None:
    found = halving_of(request(*overrides, eta=eta)).in_words()
    assert found.endswith(words)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["num=1"], "1 rows leave nothing to choose from"),
        (["probe.every=null"], "s00, s01, s02, s03 have no k-NN accuracy through training"),
        (["train.steps=9"], "s00, s01, s02, s03 have no number of epochs"),
        (["train.epochs=1"], "the training is too short"),
        (["probe.every=4"], "the training is too short"),
    ],
)
def test_what_cannot_be_halved(folder: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(InputError) as error:
        halving_of(request(*overrides))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--halve", "--report"), "--halve is for running"),
        (("--halve", "--shard", "1/2"), "--halve compares all rows"),
        (("--eta", "3"), "--eta is for --halve"),
        (("--halve", "--dry-run", "num=1"), "leave nothing to choose from"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, invoke: Invoke, options: tuple[str, ...], told: str) -> None:
    done = invoke("sweep", "halved.yaml", *options)
    assert done.code == 2
    assert told in done.stderr


def test_the_report_shows_who_was_stopped_and_tests_nothing(halved: Path, folder: Path, invoke: Invoke) -> None:
    shutil.copytree(halved, folder / "runs")
    done = invoke("sweep", "halved.yaml", "--report")
    assert done.code == 0
    text = " ".join(done.stdout.split())
    assert "stopped at epoch 1 of 4, k-NN: s0" in text
    assert "stopped at epoch 2 of 4, k-NN: s0" in text
    assert text.count("(stopped)") == 7  # three rows in each part of the table, and the legend
    content = json.loads(invoke("sweep", "halved.yaml", "--report", "--json").stdout)
    stopped = {row["row"]: row["stopped"] for row in content["rows"]}
    assert sorted(0 if one is None else one["epoch"] for one in stopped.values()) == [0, 1, 1, 2]
    assert all((member["stopped"] is None) == (stopped[member["row"]] is None) for member in content["members"])
    plan = invoke("sweep", "halved.yaml", "--halve", "--dry-run")
    assert "of 4 rows 4 to epoch 1, 2 to epoch 2, 1 to epoch 4" in plan.stdout
    assert plan.stdout.count(" stopped ") == 6


def halved_rows(count: int, stopped: int, *, seeds: int = 2) -> list[MemberResult]:
    import random

    numbers = random.Random(0)
    facts = {"epoch": 2, "epochs": 8, "knn": 0.25, "place": 9, "num_rows": 9, "num_kept": 3, "eta": 3}
    return [
        replace(random_member(f"r{row}", seed, numbers), stopped=facts if row < stopped else None)
        for row in range(count)
        for seed in range(seeds)
    ]


def test_rows_that_are_left_have_no_p_and_no_intervals() -> None:
    """Even a finished seed of a stopped row counts nowhere."""
    rows = rows_of(halved_rows(9, 4))
    found = screen(rows, "linear")
    assert (found["n"], found["num_rows"]) == (5, 5)
    assert any("4 of 9 rows were stopped for their k-NN accuracy" in warning for warning in found["warnings"])
    taus = [entry["pooled"]["tau"] for entry in found["terms"] if "tau" in entry["pooled"]]
    assert taus
    assert all(tau["p"] is None and tau["p_adjusted"] is None and tau["interval"] is None for tau in taus)
    assert all(
        tau["p"] is not None for tau in (screen(rows_of(halved_rows(9, 0)), "linear")["terms"][0]["pooled"]["tau"],)
    )
    out = console()
    with out.capture() as captured:
        print_table(out, rows)
    predicted = prediction_content(rows, ["linear"])
    for every in (True, False):
        with out.capture() as said:
            print_prediction(out, rows, predicted, LINEAR, every=every)
        assert " ".join(said.get().split()).count("4 of 9 rows were stopped for their k-NN accuracy") == 1
    line = next(line for line in captured.get().splitlines() if line.startswith("r0 (stopped)"))
    assert "*" not in line
    assert not any(character.isdigit() for character in line.removeprefix("r0"))


def test_groups_of_rows_that_are_left_have_no_p_either() -> None:
    import random

    numbers = random.Random(0)
    facts = {"epoch": 2, "epochs": 8, "knn": None, "place": 9, "num_rows": 9, "num_kept": 3, "eta": 3}
    results = [
        replace(random_member(f"{method}-r{row}", 0, numbers, method=method), stopped=facts if row == 0 else None)
        for method in ("simclr", "moco")
        for row in range(6)
    ]
    rows = rows_of(results)
    found = screen(rows, "linear")
    for entry in found["terms"]:
        for one in (entry["pooled"], entry["within"], *entry["groups"].values()):
            assert "tau" not in one or one["tau"]["p"] is None


def test_the_csv_and_the_table_of_a_halved_sweep(halved: Path, folder: Path) -> None:
    shutil.copytree(halved, folder / "runs")
    content = as_content(load(), read_sweep(load(), Path("runs")))
    assert content["granulated"] == {}
    assert sum(row["cells"]["linear"] is None for row in content["rows"]) == 3


def test_a_run_without_its_records_says_so(halved: Path, folder: Path) -> None:
    shutil.copytree(halved, folder / "runs")
    run = RunDir(next(result.path for result in read_sweep(load(), Path("runs")) if result.analysis))
    require_reached(run, 1, labelled=True)
    run.remove(EPOCH_KNN)
    with pytest.raises(RunError, match="it has no k-NN accuracy at epoch 1, although it was trained further"):
        require_reached(run, 1, labelled=True)
    with pytest.raises(InputError, match="the images have no labels"):
        require_reached(run, 1, labelled=False)


def test_records_that_were_lost_come_back_from_the_checkpoint(halved: Path, folder: Path) -> None:
    shutil.copytree(halved, folder / "runs")
    sweep, before = load(), epochs_of(load())
    stopped = next(member for member in sweep.members if before[member.name] == 1)
    run = RunDir(member_path(sweep, stopped, Path("runs")))
    records, checkpoint = run.read_records(EPOCH_KNN), run.file(CHECKPOINT).read_bytes()
    run.remove(EPOCH_KNN)
    run_sweep(request(), Silent())
    assert run.read_records(EPOCH_KNN) == records
    assert run.file(CHECKPOINT).read_bytes() == checkpoint
    assert run_state(run) == "stopped"
    assert epochs_of(sweep) == before


def taus_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry["pooled"]["tau"] for entry in content["correlations"]["linear"]["terms"] if "tau" in entry["pooled"]]


def test_leaving_the_stopped_rows_out_of_the_table_brings_no_p(capsys: pytest.CaptureFixture[str]) -> None:
    """--only with the rows that went on: they were chosen all the same."""
    results = halved_rows(9, 4)
    members = [result.member for result in results]
    sweep, left = Sweep("halved", Path("halved.yaml"), {}, tuple(members)), members[8:]
    show_sweep(sweep, results, left, as_json=True, versus="r4")
    content = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in content["rows"]] == ["r4", "r5", "r6", "r7", "r8"]
    assert {tau["p"] for tau in taus_of(content)} == {None}
    found = [one["differences"]["linear"] for one in content["versus"]["comparisons"]]
    assert [(one["p"], one["p_adjusted"], one["interval"]) for one in found] == [(None, None, None)] * 4
    assert found[0]["sd"] is not None
    show_sweep(sweep, results, left, as_json=False, versus="r4")
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("4 of 9 rows were stopped for their k-NN accuracy") == 2  # below either table


def test_published_orders_of_rows_that_are_left_have_no_p() -> None:
    values = {f"r{row}": 50.0 + row for row in range(9)}
    reference = Reference(source="a table", accuracy="linear", selection="last_epoch", values=values)
    sweep = Sweep("halved", Path("halved.yaml"), {}, (), reference)
    for stopped, tested in ((4, False), (0, True)):
        found = as_content(sweep, halved_rows(9, stopped))["reference"]
        assert [order["rank_correlation"]["tau"]["p"] is not None for order in found["order"]] == [tested]


def test_runs_beside_stopped_ones_have_no_p(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("name: run\n")
    assert how_chosen_among([tmp_path / "a"]) is None
    facts = {"epoch": 2, "epochs": 8, "knn": 0.25, "place": 9, "num_rows": 9, "num_kept": 3, "eta": 3}
    RunDir(tmp_path / "b").write_status("interrupted", step=1, num_steps=9, stopped=facts)
    said = how_chosen_among([tmp_path / "a"])
    assert said is not None
    assert said.startswith("1 of 2 runs in the same folder were stopped for their k-NN accuracy")


FACTS = {"epoch": 2, "epochs": 8, "knn": 0.25, "place": 9, "num_rows": 9, "num_kept": 3, "eta": 3}


def test_a_stopped_run_that_goes_on_was_stopped_until_it_is_finished(tmp_path: Path) -> None:
    """Else the rows that are left would have a p as soon as the others go on."""
    run = RunDir(tmp_path)
    run.write_status("interrupted", step=1, num_steps=9)
    mark_stopped(run, FACTS)
    for state in ("running", "interrupted", "failed"):
        run.write_status(state, step=2, num_steps=9)
        assert run.status()["stopped"] == FACTS
    run.write_status("finished", step=9, num_steps=9)
    assert "stopped" not in run.status()


def test_a_run_that_another_process_finishes_meanwhile_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, locked = RunDir(tmp_path), RunDir.locked
    run.write_status("running", step=1, num_steps=9)

    def finished_before(self: RunDir) -> Any:
        self.write_status("finished", step=9, num_steps=9)
        return locked(self)

    monkeypatch.setattr(RunDir, "locked", finished_before)
    mark_stopped(run, FACTS)
    assert run.status() == {"state": "finished", "step": 9, "num_steps": 9}


def test_a_run_that_never_began_gets_no_folder(tmp_path: Path) -> None:
    mark_stopped(RunDir(tmp_path / "new"), FACTS)
    assert not (tmp_path / "new").exists()


def test_who_goes_on_after_all_is_stopped_no_more(tmp_path: Path) -> None:
    """With more rows, or another N, one goes on that an earlier sweep stopped; here nothing is left to run it."""
    recipe = load_sweep("quickstart", ["train.epochs=8", "probe.every=1"]).members[0].recipe
    members = [Member(name, name, {}, 0, recipe, name) for name in "ab"]
    for member, knn in zip(members, (0.5, 0.25), strict=True):
        run = RunDir(tmp_path / member.name)
        run.path.mkdir()
        run.write_records(EPOCH_KNN, [{"epoch": 4, "step": 4, "knn": knn}])
        run.write_status("interrupted", step=4, num_steps=8, stopped=FACTS)
    rows = tuple(Entrant((member.name,), (member,)) for member in members)
    close_rung(Halving(rows, 1, 2), rows, 0, lambda member: tmp_path / member.name)
    assert "stopped" not in RunDir(tmp_path / "a").status()
    assert RunDir(tmp_path / "b").status()["stopped"]["place"] == 2


def test_a_failure_that_a_later_rung_made_good_is_none(tmp_path: Path) -> None:
    """The accuracy was on disk when saving failed, so that the row went on, and the next attempt succeeded."""
    ends = [SimpleNamespace(errors={"a": "the disk is full", "b": "killed"}, in_use=[], not_started=0)]
    ends.append(SimpleNamespace(errors={}, in_use=[], not_started=0))
    recipe = load_sweep("quickstart", ["train.epochs=8", "probe.every=1"]).members[0].recipe
    members = tuple(Member(name, name, {}, 0, recipe, name) for name in "ab")
    run = RunDir(tmp_path / "a")
    run.path.mkdir()
    run.write_records(EPOCH_KNN, [{"epoch": 4, "step": 4, "knn": 0.5}])
    sweep = Sweep("halved", tmp_path / "halved.yaml", {}, members)
    halving = Halving(tuple(Entrant((member.name,), (member,)) for member in members), 1, 2)
    given, left = SweepRequest(sweep, tmp_path, eta=2), iter(ends)
    end = run_halved(given, halving, lambda *_: next(left), lambda member: tmp_path / member.name, Silent())
    assert end.errors == {"b": "killed"}
