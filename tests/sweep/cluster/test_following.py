"""`cssl sweep --launcher slurm --wait`: members are followed, and what goes wrong for a while does not end it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cssl_cli.host.progress import Silent
from cssl_cli.runs.lock import holding
from cssl_cli.sweep.cluster import following
from cssl_cli.sweep.cluster.records import FOLDER, LOCK, JobEnd, read_submissions, write_end
from cssl_cli.sweep.cluster.scheduler import NoAnswer
from cssl_cli.sweep.cluster.states import MemberState
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import run_sweep
from cssl_cli.sweep.selection import select
from cssl_cli.sweep.sweep import load_sweep
from tests.support.commands import Invoke
from tests.support.fake_slurm import HOME, SLURM, FakeSlurm

ONE_JOB = (*SLURM, "--only", "0.01-*", "--wait", "--no-figures")


def test_waiting_tells_of_changes_and_ends_with_the_table(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            meanwhile()
            sweep = load_sweep("five.yaml")
            run_sweep(SweepRequest(sweep, Path("runs"), select(sweep, only=["0.01-*"])), Silent())
        slurm.answer(7, {0: "RUNNING" if looks == 1 else "COMPLETED"})

    monkeypatch.setattr(following, "_wait", pause)
    monkeypatch.setattr("cssl_cli.cli.live_table.LINE_INTERVAL", 0.0)
    done = invoke(*ONE_JOB)
    assert done.code == 0, done.stderr
    assert done.stderr.splitlines() == [
        "submitted 2 members as job 7",
        "[0/2] 0.01-5-seed3: running (7_0)",
        "[0/2] 0.01-10-seed3: running (7_0)",
        "0 done, 2 running, 0 waiting: 0.01-5-seed3 start, 0.01-10-seed3 start",
        "[2/2] 0.01-5-seed3: done",
        "[2/2] 0.01-10-seed3: done",
    ]
    assert "align" in done.stdout
    assert "Written to runs/five/table.csv" in done.stdout
    # What is done needs no SLURM, and is shown as ever.
    monkeypatch.setenv("PATH", "/nowhere")
    table = (HOME / "table.json").read_bytes()
    only = ("--only", "0.01-*", "--no-figures")
    assert invoke(*SLURM, *only).stdout == invoke("sweep", "five.yaml", *only).stdout
    assert (HOME / "table.json").read_bytes() == table


def test_a_member_that_fails_meanwhile_is_not_submitted_again(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        (submission,) = read_submissions(HOME)
        write_end(submission.folder, 0, JobEnd({"0.01-5-seed3": "the loss became infinite"}, "stopped (signal 15)"))
        slurm.answer(7, {0: "FAILED"})

    monkeypatch.setattr(following, "_wait", pause)
    done = invoke(*ONE_JOB)
    assert done.code == 1
    assert len(slurm.asked("sbatch")) == 1
    assert "[0/2] 0.01-5-seed3: failed: the loss became infinite" in done.stderr
    assert "[0/2] 0.01-10-seed3: stopped: stopped (signal 15)" in done.stderr
    assert "0.01-5-seed3 failed: the loss became infinite" in done.stdout


def test_waiting_looks_at_files_more_often_than_at_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 100.0, 0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def look() -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(following, "monotonic", lambda: now)
    monkeypatch.setattr(following, "sleep", pass_time)
    following._wait(2.5, look)
    assert (looks, now) == (3, 102.5)


# ---------------------------------------------------------------------- what passes
def cancelled_at_last(slurm: FakeSlurm) -> None:
    slurm.answer(7, {0: "CANCELLED"})


def test_a_controller_that_starts_anew_does_not_end_it(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        nonlocal looks
        looks += 1
        if looks < 3:
            return slurm.fail("squeue", "Unable to contact slurm controller")
        (slurm.folder / "squeue.fails").unlink()
        return cancelled_at_last(slurm)

    monkeypatch.setattr(following, "_wait", pause)
    done = invoke(*ONE_JOB)
    assert looks == 3
    assert done.stderr.count("Unable to contact slurm controller; tried again for an hour") == 1
    assert "[0/2] 0.01-5-seed3: stopped: cancelled" in done.stderr
    assert len(slurm.asked("sbatch")) == 1


def test_without_an_answer_for_an_hour_it_ends(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        nonlocal now
        now += 1801.0
        slurm.fail("squeue", "Unable to contact slurm controller")

    monkeypatch.setattr(following, "monotonic", lambda: now)
    monkeypatch.setattr(following, "_wait", pause)
    done = invoke(*ONE_JOB)
    assert (done.code, now) == (1, 3602.0)
    assert "Try again; nothing was submitted twice" in done.stderr


def test_after_its_turn_was_another_ones_it_submits_while_others_run(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke(*SLURM, "--only", "0.02-*").code == 0
    slurm.answer(7, {0: "RUNNING"})
    looks = 0

    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            assert len(slurm.asked("sbatch")) == 1
            lock.__exit__(None, None, None)
        else:
            assert len(slurm.asked("sbatch")) == 2, "it waits for members that are not its own"
            (slurm.folder / "queue").write_text("")

    lock = holding(HOME / FOLDER / LOCK)
    lock.__enter__()
    monkeypatch.setattr(following, "_wait", pause)
    invoke(*SLURM, "--only", "0.01-*", "--only", "0.02-*", "--wait", "--no-figures")
    assert looks == 2


def test_what_another_command_submitted_and_failed_meanwhile_is_not_submitted_again(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke(*SLURM, "--dry-run")
    (HOME / FOLDER).mkdir(parents=True)

    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        lock.__exit__(None, None, None)
        monkeypatch.setattr(following, "_wait", lambda *_: pytest.fail("nothing is left to wait for"))
        assert invoke(*SLURM, "--only", "0.01-*").code == 0
        (submission,) = read_submissions(HOME)
        write_end(submission.folder, 0, JobEnd({"0.01-5-seed3": "the loss became infinite"}, "stopped (signal 15)"))
        slurm.answer(7, {0: "FAILED"})

    lock = holding(HOME / FOLDER / LOCK)
    lock.__enter__()
    monkeypatch.setattr(following, "_wait", pause)
    assert invoke(*ONE_JOB).code == 1
    assert len(slurm.asked("sbatch")) == 1


@pytest.mark.parametrize("failing", [4, 5])  # before submitting in the second round, and after
def test_a_look_that_fails_around_submitting_does_not_end_it(
    failing: int, slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, real = 0, following.observe

    def observe(request: SweepRequest) -> list[MemberState]:
        nonlocal looks
        looks += 1
        if looks == failing:
            raise NoAnswer("squeue", "Unable to contact slurm controller")
        return real(request)

    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        if looks == 2:
            lock.__exit__(None, None, None)
        elif looks > 4:
            cancelled_at_last(slurm)

    invoke(*SLURM, "--dry-run")
    (HOME / FOLDER).mkdir(parents=True)
    lock = holding(HOME / FOLDER / LOCK)
    lock.__enter__()
    monkeypatch.setattr(following, "observe", observe)
    monkeypatch.setattr(following, "_wait", pause)
    done = invoke(*ONE_JOB)
    assert "[0/2] 0.01-5-seed3: stopped: cancelled" in done.stderr
    assert looks > 5
    assert len(slurm.asked("sbatch")) == 1


def test_a_controller_that_is_gone_when_sbatch_is_called_is_no_refusal(slurm: FakeSlurm, invoke: Invoke) -> None:
    slurm.fail("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller\n")
    done = invoke(*SLURM)
    assert done.code == 1
    assert "SLURM does not do it: sbatch: Batch job submission failed: Unable to contact" in done.stderr
    assert read_submissions(HOME) == []
    slurm.fail("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n")
    assert invoke(*SLURM).code == 1
    assert len(read_submissions(HOME)) == 1, "there may be such a job"


def test_while_another_command_submits_it_waits_and_follows_what_that_submitted(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke(*SLURM, "--only", "0.01-*").code == 0
    submitted = (slurm.folder / "queue").read_text()
    (slurm.folder / "queue").unlink()  # not in the queue yet, as while the other one is at it
    (HOME / FOLDER / LOCK).touch()
    looks = 0

    def pause(seconds: float, meanwhile: Callable[[], None]) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            lock.__exit__(None, None, None)
            (slurm.folder / "queue").write_text(submitted)
        else:
            cancelled_at_last(slurm)

    lock = holding(HOME / FOLDER / LOCK)
    lock.__enter__()
    monkeypatch.setattr(following, "_wait", pause)
    done = invoke(*ONE_JOB)
    assert looks == 2
    assert "another command submits the jobs of this sweep" in done.stderr
    assert "[0/2] 0.01-5-seed3: stopped: cancelled" in done.stderr
    assert len(slurm.asked("sbatch")) == 1, "what the other one submitted is not submitted again after its end"
