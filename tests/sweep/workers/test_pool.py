"""Members in several processes at a time: who does what, and what a death costs."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cssl_cli.errors import DamagedError
from cssl_cli.host.progress import SweepProgress
from cssl_cli.runs.doctor import system
from cssl_cli.sweep.workers import process, worker
from cssl_cli.sweep.workers.messages import Ended, Task
from cssl_cli.sweep.workers.pool import Job, Outcome, PoolSettings
from cssl_cli.sweep.workers.process import available_cores, end_in_words, killed_in_words, threads_each
from cssl_cli.sweep.workers.stages import Failure, Missing
from cssl_cli.sweep.workers.worker import _ended
from tests.support.pool_bench import ALL_MISSING, Bench, Listener


# ---------------------------------------------------------------------- who does what
def test_members_are_handed_out_to_workers_that_stay(bench: Bench) -> None:
    names = [f"ok-{number}" for number in range(7)]
    outcomes, listener = bench.run(3, *names)
    assert outcomes == {name: Outcome() for name in names}
    calls = bench.calls()
    assert sorted(call[0] for call in calls) == names
    assert len({call[2] for call in calls}) <= 3  # a process for each worker, not for each member
    assert {call[1] for call in calls} <= {"0", "1", "2"}
    assert max(len(progress.running) for progress in listener.shown) == 3
    for name in names:
        assert (bench.folder / "logs" / f"{name}.log").read_text() == f"{name} is at work\n"
    assert [line.split("]")[0] for line in listener.said] == [f"[{number}/7" for number in range(1, 8)]
    last = listener.shown[-1]
    assert (last.finished, last.waiting, last.failed) == (7, 0, 0)
    assert last.seconds_left == 0


def test_a_worker_is_told_to_which_epoch_to_train(bench: Bench) -> None:
    bench.run(1, "ok-0", missing=lambda job: Missing(probe=False, analysis=False, until=7))
    bench.run(1, "ok-1")
    assert [call[-1] for call in bench.calls()] == ["7", "None"]


def test_members_of_one_run_never_work_at_the_same_time(bench: Bench) -> None:
    pool = bench.pool(4, Listener())
    most = 0

    def check(progress: SweepProgress) -> None:
        nonlocal most
        runs = [member.name.split("-")[1] for member in progress.running]
        assert len(set(runs)) == len(runs)
        most = max(most, len(runs))

    pool.reporter = Listener(check)
    # The second member of run b is to be tried again while others of its run wait.
    names = ["ok-a-0", "ok-a-1", "ok-a-2", "ok-b-0", "once-b-1", "ok-b-2", "ok-c-0"]
    pool.settings = PoolSettings(4, bench.folder, bench.folder / "logs", None, retries=1, deadline=math.inf)
    pool.run([bench.job(name, run=name.split("-")[1]) for name in names], done_before=0)
    assert pool.outcomes == {name: Outcome() for name in names}
    assert most == 3
    order = [call[0] for call in bench.calls()]
    assert [name for name in order if "-a-" in name] == ["ok-a-0", "ok-a-1", "ok-a-2"]
    assert order.count("once-b-1") == 2


def test_what_another_process_has_finished_is_not_done(bench: Bench) -> None:
    outcomes, _ = bench.run(2, "ok-0", "ok-1", missing=lambda job: None if job.name == "ok-0" else ALL_MISSING)
    assert outcomes == {"ok-0": Outcome(), "ok-1": Outcome()}
    assert [call[0] for call in bench.calls()] == ["ok-1"]


def test_members_in_use_come_after_the_others_and_are_no_failure(bench: Bench) -> None:
    outcomes, listener = bench.run(1, "later-0", "used-1", "ok-2")
    assert outcomes == {"later-0": Outcome(), "used-1": Outcome(in_use=True), "ok-2": Outcome()}
    assert [call[0] for call in bench.calls()] == ["later-0", "used-1", "ok-2", "later-0", "used-1"]
    assert listener.shown[-1].failed == 0


def test_after_the_deadline_no_member_begins(bench: Bench) -> None:
    pool = bench.pool(2, Listener(), deadline=time.monotonic() - 1)
    pool.run([bench.job("ok-0"), bench.job("ok-1")], done_before=0)
    assert (pool.outcomes, pool.not_started) == ({}, 2)
    assert not (bench.folder / "calls").exists()


def test_each_worker_has_its_share_of_the_cores(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(process, "available_cores", lambda: 7)
    assert [threads_each(workers) for workers in (1, 2, 3, 7, 8)] == [7, 3, 2, 1, 1]
    bench.run(3, "ok-0")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # what the user has set goes before
    bench.run(3, "ok-1")
    assert [call[3] for call in bench.calls()] == ["2", "5"]
    assert [call[5] for call in bench.calls()] == ["2", "2"]  # of the compiler


@pytest.mark.parametrize(("quota", "cores"), [(None, 64), (4.0, 4), (3.5, 4), (0.3, 1), (100.0, 64)])
def test_a_container_has_the_cores_of_its_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(system, "cores", lambda: 64)
    monkeypatch.setattr(system, "cpu_quota", lambda: quota)
    assert available_cores() == cores
    assert threads_each(2) == max(cores // 2, 1)


# ---------------------------------------------------------------------- what a death costs
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("killed-0", "killed (signal 9, SIGKILL: often out of memory)"),
        ("crash-0", "crashed (signal 11, SIGSEGV)"),
        ("leave-0", "its process ended unexpectedly (exit code 3)"),
        ("bug-0", "KeyError: 'x'"),
    ],
)
def test_a_worker_that_dies_costs_its_member_only(bench: Bench, name: str, what: str) -> None:
    outcomes, listener = bench.run(1, "ok-0", name, "ok-1")
    assert outcomes == {"ok-0": Outcome(), name: Outcome(error=what), "ok-1": Outcome()}
    (told,) = [message for message in listener.said if name in message]
    assert told.startswith(f"[2/3] {name} failed: {what}\n")
    assert told.endswith(f"  the end of {bench.folder / 'logs' / name}.log:\n    {name} is at work")
    calls = {call[0]: call[2] for call in bench.calls()}
    assert calls["ok-1"] != calls["ok-0"] == calls[name]


def test_a_worker_that_dies_without_work_costs_nothing(bench: Bench) -> None:
    def missing(job: Job) -> Missing:
        time.sleep(0.2 if job.name == "ok-1" else 0.0)  # until the worker has died
        return ALL_MISSING

    outcomes, _ = bench.run(1, "last-0", "ok-1", missing=missing)
    assert outcomes == {"last-0": Outcome(), "ok-1": Outcome()}


def test_a_failure_keeps_where_and_remedy_and_its_log_does_not_say_them_again(bench: Bench) -> None:
    error = "/x/encoder: the file is damaged{}\nDelete it."
    outcomes, listener = bench.run(1, "told-1", retries=1)
    assert outcomes == {"told-1": Outcome(error=error.format(" (tried 2 times)"))}
    *_, told = listener.said
    log = bench.folder / "logs" / "told-1.log"
    assert told == f"[1/1] told-1 failed: {outcomes['told-1'].error}\n  the end of {log}:\n    told-1 is at work"


def test_what_members_share_is_told_once(bench: Bench) -> None:
    _, listener = bench.run(2, "shared-1", "shared-2", "shared-3")
    assert listener.said.count("the images are there") == 1


def test_what_a_worker_tells_of_a_failure_is_what_the_sweep_would_tell(tmp_path: Path) -> None:
    damage = DamagedError("it is damaged", where=str(tmp_path / "encoder"), remedy="Delete it.")
    failure = Failure(damage, damage.of(str(tmp_path)))
    assert _ended(failure) == Ended(error=f"{tmp_path}/encoder: it is damaged\nDelete it.", hopeless=True)
    assert damage.of(str(tmp_path / "encoder")) == "it is damaged\nDelete it."


def test_a_failed_member_is_tried_again_after_the_others(bench: Bench) -> None:
    outcomes, listener = bench.run(1, "once-0", "killed-1", "wrong-2", "ok-3", retries=2)
    error = "killed (signal 9, SIGKILL: often out of memory) (tried 3 times)"
    assert outcomes["once-0"] == outcomes["ok-3"] == Outcome()
    assert outcomes["killed-1"] == Outcome(error=error)
    assert outcomes["wrong-2"] == Outcome(error="the input is wrong")  # which no second attempt can change
    assert [call[0] for call in bench.calls()] == [
        *("once-0", "killed-1", "wrong-2", "ok-3"),
        *("once-0", "killed-1"),
        "killed-1",
    ]
    assert any("attempt 1 of 3, tried again later" in message for message in listener.said)


def test_a_failure_that_the_budget_leaves_no_time_to_try_again_is_told(bench: Bench) -> None:
    # One worker: the deadline comes while it has its second member, before the first would be tried again.
    pool = bench.pool(1, Listener(), retries=1)

    def wait(job: Job) -> Missing:
        if job.name == "ok-1":
            pool.settings = replace(pool.settings, deadline=time.monotonic())
        return ALL_MISSING

    pool.missing = wait
    pool.run([bench.job(name) for name in ("killed-0", "ok-1", "ok-2")], done_before=0)
    error = "killed (signal 9, SIGKILL: often out of memory)"
    assert pool.outcomes == {"killed-0": Outcome(error=error), "ok-1": Outcome()}
    assert pool.not_started == 1


def test_more_workers_than_members_are_not_looked_at(bench: Bench) -> None:
    begun = time.monotonic()
    outcomes, _ = bench.run(10**12, "ok-0", "ok-1")
    assert outcomes == {"ok-0": Outcome(), "ok-1": Outcome()}
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("device", [None, "cuda", "cuda:1", "cpu"])
def test_workers_are_spread_over_the_gpus(bench: Bench, monkeypatch: pytest.MonkeyPatch, device: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    tasks = [Task({}, str(bench.folder), "log", device, slot, True, True, "") for slot in range(5)]
    spread = [f"cuda:{slot % 3}" for slot in range(5)]
    assert [worker._open_workshop(task).device_name for task in tasks] == (
        spread if device in (None, "cuda") else [device] * 5
    )


def test_a_process_that_cannot_be_started_is_a_failure_of_its_member(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    outcomes, _ = bench.run(2, "ok-0", "ok-1")
    error = "no process can be started for it: Resource temporarily unavailable"
    assert outcomes == {"ok-0": Outcome(error=error), "ok-1": Outcome(error=error)}


def test_ends_of_processes_in_words() -> None:
    assert end_in_words(1) == "its process ended unexpectedly (exit code 1)"
    assert end_in_words(-6) == "crashed (signal 6, SIGABRT)"
    assert killed_in_words(signal.SIGTERM) == "stopped (signal 15, SIGTERM)"
    assert end_in_words(-200) == "crashed (signal 200, unknown)"
