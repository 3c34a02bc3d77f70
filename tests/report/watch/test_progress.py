"""How far a run is by its files alone, read without a lock and without a trace."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest

from cssl_cli.report.watch.members import SweepFollower, is_sweep
from cssl_cli.report.watch.progress import QUIET, Follower
from cssl_cli.runs.run_dir import ANALYSIS, CHECKPOINT, EPOCH_KNN, METRICS, STATUS, RunDir
from cssl_cli.sweep.run import member_path
from cssl_cli.sweep.stored import store_sweep
from cssl_cli.sweep.sweep import load_sweep
from tests.support.commands import TINY_RECIPE
from tests.support.written_run import STEPS, record_epochs, written_run


class Clock:
    """Seconds that pass when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def date(run: RunDir, seconds_ago: float) -> None:
    """As if all files had been written so long ago."""
    when = time.time() - seconds_ago
    for path in run.path.iterdir():
        os.utime(path, (when, when))


def test_a_run_in_the_middle(tmp_path: Path, clock: Clock) -> None:
    run = written_run(tmp_path, epochs=8, of=20)
    found = Follower(run.path).look()
    assert (found.state, found.epoch, found.num_epochs, found.step) == ("running", 8, 20, 8 * STEPS)
    assert found.seconds_left == pytest.approx(12 * 10.0, abs=1.0)
    assert found.accuracies[-1] == (8, 0.8)
    content = found.content()
    assert content["best_knn"] == {"epoch": 8, "knn": 0.8}
    assert content["last_epoch"]["terms"]["loss"] == 5 - 8 / 3
    assert not found.ended
    clock.now += 4
    assert found.age == pytest.approx(0.0, abs=1.0)
    assert Follower(run.path).look().seconds_left == pytest.approx(120.0, abs=1.0)


def test_before_the_first_epoch_and_before_the_beginning(tmp_path: Path) -> None:
    for state, epochs in (("running", 0), (None, 0)):
        run = written_run(tmp_path, epochs=epochs, state=state)
        found = Follower(run.path).look()
        assert (found.state, found.epoch, found.num_epochs, found.seconds_left) == (state or "new", 0, None, None)
        assert not found.ended
        shutil.rmtree(run.path)


@pytest.mark.parametrize("state", ["finished", "failed", "interrupted"])
def test_a_run_that_ended(tmp_path: Path, state: str) -> None:
    run = written_run(tmp_path, epochs=2, of=3)
    run.write_status(state, step=8, num_steps=12, error="the loss became infinite" if state == "failed" else None)
    found = Follower(run.path).look()
    assert found.ended
    assert found.seconds_left is None
    assert found.failure == ("the loss became infinite" if state == "failed" else None)


def test_half_an_epoch_at_the_end_counts(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=1)
    run.write_status("running", step=0, num_steps=2 * STEPS + 1)
    assert Follower(run.path).look().num_epochs == 3


def test_an_old_record_of_a_running_run_is_told(tmp_path: Path, clock: Clock) -> None:
    run = written_run(tmp_path, epochs=2, of=20)
    date(run, 14 * 60)
    follower = Follower(run.path)
    found = follower.look()
    assert found.age == pytest.approx(14 * 60, abs=2)
    assert found.quiet
    assert found.seconds_left is None, "nobody may be training"
    record_epochs(run, 3)
    found = follower.look()
    assert found.age < 1
    assert not found.quiet
    clock.now += QUIET + 1
    assert follower.look().quiet


def test_long_epochs_are_no_silence(tmp_path: Path, clock: Clock) -> None:
    run = written_run(tmp_path, epochs=2, of=20)
    follower = Follower(run.path)
    records = run.read_records(METRICS)
    run.write_records(METRICS, [{**record, "seconds": 3600.0} for record in records])
    follower.look()
    clock.now += 2 * 3600
    assert not follower.look().quiet
    clock.now += 2 * 3600
    assert follower.look().quiet


def test_another_machines_clock_does_not_matter(tmp_path: Path, clock: Clock) -> None:
    run = written_run(tmp_path, epochs=1, of=20)
    date(run, -3600)  # the server is an hour ahead
    follower = Follower(run.path)
    assert follower.look().age == 0.0
    clock.now += 30
    assert follower.look().age == 30.0
    record_epochs(run, 2)  # by a clock an hour behind that one
    assert follower.look().age == 0.0


def test_a_damaged_file_is_told_and_what_it_said_before_stays(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=2, of=20)
    follower = Follower(run.path)
    follower.look()
    run.file(METRICS).write_text("{}\n")
    run.file(STATUS).write_text("[")
    found = follower.look()
    assert found.epoch == 2
    assert found.state == "running"
    assert [problem.partition(":")[0] for problem in found.problems] == [STATUS, METRICS]
    record_epochs(run, 3)
    run.write_status("running", step=0, num_steps=80)
    assert follower.look().problems == ()
    assert follower.look().epoch == 3


def test_a_status_that_is_damaged_from_the_first_look_says_nothing(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=2)
    run.file(STATUS).write_text("[")
    found = Follower(run.path).look()
    assert (found.state, found.ended) == ("unknown", False)


def test_a_directory_that_vanishes_or_holds_folders_in_the_way(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=2, of=20)
    follower = Follower(run.path)
    follower.look()
    run.file(EPOCH_KNN).unlink()
    run.file(EPOCH_KNN).mkdir()
    assert any(problem.startswith(EPOCH_KNN) for problem in follower.look().problems)
    shutil.rmtree(run.path)
    assert follower.look().metrics == []


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written_run(tmp_path, epochs=2, of=20)
    follower, read = Follower(run.path), list[str]()
    genuine = RunDir.read_records

    def reading(self: RunDir, name: str) -> list:
        read.append(name)
        return genuine(self, name)

    monkeypatch.setattr(RunDir, "read_records", reading)
    follower.look()
    assert len(read) == 3
    follower.look()
    assert len(read) == 3
    run.write_records(METRICS, run_records := genuine(run, METRICS)[:1])
    assert follower.look().metrics == run_records
    assert read[3:] == [METRICS]


def test_looking_takes_no_lock_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written_run(tmp_path / "sweep", epochs=2, of=20)

    def state() -> list[tuple[str, int, int]]:
        found = [tmp_path, *tmp_path.rglob("*")]
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in found]

    with run.locked():
        before = state()
        monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("a lock is taken"))
        monkeypatch.setattr(fcntl, "lockf", lambda *_: pytest.fail("a lock is taken"))
        found = Follower(run.path).look()
        SweepFollower(run.path.parent).look()
        assert state() == before
        monkeypatch.undo()
    assert found.holder is not None
    assert found.holder.startswith(f"process {os.getpid()} on ")


# ---------------------------------------------------------------------- sweeps
def test_the_runs_of_a_folder_without_its_sweep(tmp_path: Path) -> None:
    assert not is_sweep(tmp_path)
    runs = [written_run(tmp_path, seed=seed, epochs=1, of=2) for seed in (1, 2)]
    assert is_sweep(tmp_path)
    runs[0].write_status("failed", step=4, num_steps=8)
    runs[1].write_status("finished", step=8, num_steps=8)
    follower = SweepFollower(tmp_path)
    states = {one.name: one.state for one in follower.look().members}
    assert states == {runs[0].path.name: "failed", runs[1].path.name: "measuring"}
    assert not follower.look().ended
    runs[1].file(ANALYSIS).write_text("{}")
    assert follower.look().ended


def test_members_that_have_not_begun_are_known_from_the_sweep(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    (tmp_path / "two.yaml").write_text("name: two\nbase: tiny.yaml\naxes: {optim.lr: [0.1, 0.2]}\nseeds: [0, 1]\n")
    sweep = load_sweep(str(tmp_path / "two.yaml"))
    home = tmp_path / "two"
    home.mkdir()
    store_sweep(sweep, home)
    home = home.rename(tmp_path / "moved")  # as a folder that is copied may be called
    follower = SweepFollower(home)
    found = follower.look()
    assert [one.name for one in found.members] == [member.name for member in sweep.members]
    assert {one.state for one in found.members} == {"new"}
    assert not found.ended
    first = home / member_path(sweep, sweep.members[0], tmp_path).name
    running = written_run(tmp_path / "elsewhere", epochs=2, of=20)
    running.path.rename(first)
    found = follower.look()
    assert [one.state for one in found.members] == ["running", "new", "new", "new"]
    clock.now += QUIET + 1
    assert follower.look().members[0].state == "quiet"
    assert follower.look().content()["members"][0]["member"] == sweep.members[0].name


def test_a_rung_of_halving_is_no_end(tmp_path: Path, clock: Clock) -> None:
    runs = [written_run(tmp_path, seed=seed, epochs=1, of=4, state="interrupted") for seed in (1, 2)]
    follower = SweepFollower(tmp_path)
    assert not follower.look().ended, "the rows that are kept are about to go on"
    stopped = {"epoch": 1, "epochs": 4, "knn": 0.1, "place": 2, "num_rows": 2, "num_kept": 1, "eta": 2}
    runs[0].write_status("interrupted", step=STEPS, num_steps=4 * STEPS, stopped=stopped)
    found = follower.look()
    assert {one.name: one.state for one in found.members} == {
        runs[0].path.name: "stopped",
        runs[1].path.name: "interrupted",
    }
    assert found.content()["members"][0]["stopped"] == found.members[0].run.stopped
    assert not found.ended
    clock.now += QUIET + 1
    assert follower.look().ended, "the sweep was stopped there"
    runs[1].write_status("finished", step=4 * STEPS, num_steps=4 * STEPS)
    runs[1].file(ANALYSIS).write_text("{}")
    assert follower.look().ended


def test_a_damaged_sweep_file_leaves_the_runs(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=1)
    (tmp_path / "sweep.json").write_text("{")
    found = SweepFollower(tmp_path).look()
    assert [one.name for one in found.members] == [run.path.name]
    assert found.problems[0].startswith("sweep.json: the file is damaged")


def test_a_checkpoint_is_a_sign_of_life(tmp_path: Path, clock: Clock) -> None:
    run = written_run(tmp_path, epochs=1, of=20)
    follower = Follower(run.path)
    follower.look()
    clock.now += 100
    run.write_bytes(CHECKPOINT, b"new")
    assert follower.look().age == 0.0
