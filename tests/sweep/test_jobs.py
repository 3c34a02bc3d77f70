"""Members in several processes at a time: who does what, and what a death costs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cssl_cli.errors import DamagedError, Interrupted
from cssl_cli.host.progress import Notices, Silent, SweepProgress, TaskProgress
from cssl_cli.host.signals import deferred_signals
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.sweep import run as launch
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import read_member, run_sweep
from cssl_cli.sweep.sweep import load_sweep
from cssl_cli.sweep.workers import process, worker
from cssl_cli.sweep.workers.messages import Ended, Lines, Message, Task, decode, encode
from cssl_cli.sweep.workers.pool import Job, Outcome, Pool, PoolSettings
from cssl_cli.sweep.workers.process import end_in_words, killed_in_words, threads_each
from cssl_cli.sweep.workers.stages import Failure, Missing
from cssl_cli.sweep.workers.worker import _ended
from tests.support.commands import TINY_RECIPE, CommandLine, command

ALL_MISSING = Missing(probe=True, analysis=True)


class Listener(Notices):
    """Keeps what was said, and every state that was shown; `react` is told of each state."""

    def __init__(self, react: Callable[[SweepProgress], None] = lambda progress: None) -> None:
        super().__init__()
        self.said: list[str] = []
        self.shown: list[SweepProgress] = []
        self.react = react

    def say(self, message: str) -> None:
        self.said.append(message)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass

    def show(self, progress: SweepProgress) -> None:
        self.shown.append(progress)
        self.react(progress)


class Bench:
    """A pool over fake workers (fake_worker.py): a member's name says what happens to it."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe

    def job(self, name: str, run: str | None = None) -> Job:
        return Job(name, self.recipe.model_copy(update={"name": name}), self.folder / (run or name))

    def pool(self, workers: int, listener: Listener, **changes: Any) -> Pool:
        settings = {"device": None, "retries": 0, "deadline": math.inf, **changes}
        missing = settings.pop("missing", lambda job: ALL_MISSING)
        return Pool(
            PoolSettings(workers=workers, home=self.folder, logs=self.folder / "logs", **settings), missing, listener
        )

    def run(self, workers: int, *names: str, **changes: Any) -> tuple[dict[str, Outcome], Listener]:
        listener = Listener()
        pool = self.pool(workers, listener, **changes)
        pool.run([self.job(name) for name in names], done_before=0)
        return pool.outcomes, listener

    def calls(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    code = f"import sys; sys.path[:] = {sys.path!r}; from tests.support.fake_worker import main; main()"
    monkeypatch.setattr(process, "_CODE", code)
    return Bench(tmp_path, load_recipe(str(tmp_path / "tiny.yaml")))


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


# ---------------------------------------------------------------------- signals
def test_a_signal_lets_all_members_save_and_ends_the_pool(bench: Bench) -> None:
    listener = Listener()

    def interrupt(progress: SweepProgress) -> None:
        if not progress.stopping and sum(member.task.name == "pretrain" for member in progress.running) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    listener.react = interrupt
    pool = bench.pool(2, listener)
    with pytest.raises(Interrupted) as stopped:
        pool.run([bench.job(name) for name in ("long-0", "long-1", "ok-2")], done_before=0)
    assert stopped.value.exit_code == 130
    assert (bench.folder / "long-0.saved").exists()
    assert (bench.folder / "long-1.saved").exists()
    assert sorted(call[0] for call in bench.calls()) == ["long-0", "long-1"]
    assert pool.outcomes == {}
    assert any("2 members at work save what is done" in message for message in listener.said)


def test_a_member_that_cannot_save_is_named(bench: Bench) -> None:
    def interrupt(progress: SweepProgress) -> None:
        if not progress.stopping and sum(member.task.name == "pretrain" for member in progress.running) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    listener = Listener(interrupt)
    pool = bench.pool(2, listener)
    with pytest.raises(Interrupted) as stopped:
        pool.run([bench.job("long-0"), bench.job("unsaved-1")], done_before=0)
    assert stopped.value.exit_code == 143
    assert stopped.value.remedy == "All but unsaved-1 are saved; the same command goes on."
    log = bench.folder / "logs" / "unsaved-1.log"
    assert f"unsaved-1 failed: the disk is full\n  the end of {log}:\n    unsaved-1 is at work" in listener.said


def test_an_error_of_the_display_lets_the_members_save(bench: Bench) -> None:
    def break_off(progress: SweepProgress) -> None:
        if sum(member.task.name == "pretrain" for member in progress.running) == 2:
            raise BrokenPipeError

    pool = bench.pool(2, Listener(break_off))
    with pytest.raises(BrokenPipeError):
        pool.run([bench.job("long-0"), bench.job("long-1")], done_before=0)
    assert (bench.folder / "long-0.saved").exists()
    assert (bench.folder / "long-1.saved").exists()


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """SIGINT as in a shell's foreground; processes that run in its background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
def test_a_second_signal_kills(bench: Bench) -> None:
    begun = time.monotonic()
    times = {"first": 0.0, "second": 0.0}

    def interrupt(progress: SweepProgress) -> None:
        now = time.monotonic()
        if not times["first"] and any(member.task.name == "pretrain" for member in progress.running):
            times["first"] = now
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # at once: one request, sent twice
        elif times["first"] and not times["second"] and now - times["first"] > 1.5:
            times["second"] = now
            os.kill(os.getpid(), signal.SIGINT)

    pool = bench.pool(1, Listener(interrupt))
    with pytest.raises(KeyboardInterrupt):
        pool.run([bench.job("stubborn-0")], done_before=0)
    assert times["second"] > times["first"] > begun
    pid = int(bench.calls()[0][2])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_signals_are_deferred_and_those_before_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with deferred_signals() as pending:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert pending == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) == before
    found: list[list[int]] = []

    def elsewhere() -> None:
        with deferred_signals() as pending:
            found.append(pending)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [[]]


# ---------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    "message",
    [
        Task({"name": "é\n", "train": {"steps": 3}}, "home", "log", None, 3, True, False, "heading"),
        TaskProgress("pretrain", 3, 9, "epoch 1\tloss ∞"),
        Ended(error="what\nhappened", stopped=15, retire=True),
    ],
)
def test_messages_come_through_pipes_as_they_were(message: Message) -> None:
    data = encode(message) + encode(Ended())
    lines = Lines()
    found = [decode(line) for part in range(0, len(data), 7) for line in lines.feed(data[part : part + 7])]
    assert found == [message, Ended()]


# ---------------------------------------------------------------------- real members
SWEEP = """
name: shared
base: tiny.yaml
axes:
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    broken: {optim: {lr: 1.0e+30}, train: {precision: float32}}
  probe.knn_k: [5, 10]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE.replace("epochs: 3", "steps: 4"))
    (tmp_path / "shared.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_in_workers_is_the_sweep_in_one_process(folder: Path) -> None:
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
    environment = json.loads(
        (launch.member_path(sweep, sweep.members[0], folder / "runs") / "environment.json").read_text()
    )
    assert len(environment["processes"]) == 1, "members that share a run trained it more than once"
    again = subprocess.run(
        command("sweep", "shared.yaml", "--jobs", "2", "--only", "crop-*", "--out", "runs"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "crop" not in again.stderr, "a finished member was taken up again"


@pytest.mark.parametrize("options", [("--jobs", "2", "--report"), ("--retry", "1", "--concentration-only")])
def test_workers_are_for_running(folder: Path, cssl: CommandLine, options: tuple[str, ...]) -> None:
    done = cssl("sweep", "shared.yaml", *options)
    assert done.returncode == 2
    assert "--jobs and --retry are" in done.stderr.replace("\n", " ")
    assert not (folder / "runs").exists()
