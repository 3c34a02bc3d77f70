"""What runs in a job, over workers that do what the name of a member says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.host import signals
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.cluster import job as in_job
from cssl_cli.sweep.cluster.job import NO_FURTHER, plan_of, run_job
from cssl_cli.sweep.cluster.records import JobEnd, Submission, new_submission
from cssl_cli.sweep.workers import process
from cssl_cli.sweep.workers.missing import Missing
from cssl_cli.sweep.workers.pool import Job
from tests.support.commands import TINY_RECIPE
from tests.support.fake_slurm import FakeSlurm

PlanOf = Callable[..., dict[str, Any]]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", fake.path)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")

    def listen(*, patient: bool) -> None:  # the test's process goes on
        monkeypatch.setattr(signals._listener, "patient", patient)
        monkeypatch.setattr(signals._listener, "came", {})

    monkeypatch.setattr(in_job, "end_on_signals", listen)
    return fake


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def plan(home: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> PlanOf:
    """The plan of a job with these members; a member lacks its results until its worker is done."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from tests.support.fake_worker import main; main()"
    monkeypatch.setattr(process, "_CODE", code)

    def lacking(job: Job) -> Missing | None:
        return None if (home / f"{job.name}.done").exists() else Missing(probe=True, analysis=True)

    monkeypatch.setattr(in_job, "_lacking", lacking)

    def plan(*names: str, **changes: Any) -> dict[str, Any]:
        (home.parent / "tiny.yaml").write_text(TINY_RECIPE)
        recipe = load_recipe(str(home.parent / "tiny.yaml"))
        jobs = [Job(name, recipe.model_copy(update={"name": name}), home) for name in names]
        submission = new_submission(home, "sweep", [names])
        settings: dict[str, Any] = {
            "pack": 2,
            "notice": 120,
            "device": None,
            "data_root": None,
            "retries": 0,
            "track": (),
        }
        return plan_of(jobs, home=home, folder=submission.folder, number=0, **{**settings, **changes})

    return plan


def end_of(plan: dict[str, Any]) -> JobEnd | None:
    return Submission(Path(plan["folder"]), "", ()).end_of(0)


def run_of(plan: dict[str, Any], home: Path) -> RunDir:
    return RunDir(in_job._job_of(home)(plan["members"][0]).path)


def notice_when_at_work(home: Path, name: str, first: Callable[[], None], number: int = signal.SIGUSR1) -> None:
    def send() -> None:
        while not (home / f"{name}.met").exists():
            time.sleep(0.01)
        first()
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


def test_all_members_are_completed_and_failures_are_written_down(plan: PlanOf, home: Path) -> None:
    made = plan("ok-0", "ok-1")
    run_job(made)
    assert end_of(made) == JobEnd()
    made = plan("ok-2", "wrong-3", "used-4")
    with pytest.raises(SystemExit) as ended:
        run_job(made)
    assert ended.value.code == 1, "SLURM is to see that something failed"
    assert end_of(made) == JobEnd({"wrong-3": "the input is wrong"}, "another process was working on used-4")
    assert sorted(path.stem for path in home.glob("*.done")) == ["ok-0", "ok-1", "ok-2"]


def test_at_its_notice_a_job_saves_and_is_queued_again(plan: PlanOf, home: Path, slurm: FakeSlurm) -> None:
    made = plan("long-0", "wrong-1")
    run = run_of(made, home)
    run.path.mkdir()

    def once_the_other_has_failed() -> None:
        while "wrong-1" not in (home / "calls").read_text():
            time.sleep(0.01)
        time.sleep(1.0)  # until it is written down
        run.write_status("interrupted", step=5, num_steps=9)

    notice_when_at_work(home, "long-0", once_the_other_has_failed)
    with pytest.raises(SystemExit) as ended:
        run_job(made)
    assert ended.value.code == 128 + signal.SIGUSR1
    assert (home / "long-0.saved").exists()
    assert slurm.asked("scontrol") == ["requeue 12_3"]
    assert end_of(made) == JobEnd({"wrong-1": "the input is wrong"})
    (home / "calls").unlink()
    (home / "long-0.done").touch()
    with pytest.raises(SystemExit):
        run_job(made)
    assert not (home / "calls").exists(), "what was done, or had failed, is not tried again"


def test_a_job_that_gets_no_further_is_not_queued_for_ever(plan: PlanOf, home: Path, slurm: FakeSlurm) -> None:
    made = plan("long-0")
    notice_when_at_work(home, "long-0", lambda: None)
    with pytest.raises(SystemExit):
        run_job(made)
    assert slurm.asked("scontrol") == []
    assert end_of(made) == JobEnd({"long-0": NO_FURTHER}, NO_FURTHER)


def test_a_job_that_is_preempted_at_once_is_queued_again_all_the_same(
    plan: PlanOf, home: Path, slurm: FakeSlurm
) -> None:
    made = plan("long-0")
    (slurm.folder / "queue").write_text("1:03:30\n")
    notice_when_at_work(home, "long-0", lambda: None)
    with pytest.raises(SystemExit):
        run_job(made)
    assert slurm.asked("squeue") == ["-h -j 12_3 -o %L"]
    assert slurm.asked("scontrol") == ["requeue 12_3"]
    assert end_of(made) == JobEnd()


def test_a_second_notice_does_not_cut_short_the_saving(
    plan: PlanOf, home: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "ONE_REQUEST", 0.1)
    made = plan("slow-0")
    (slurm.folder / "queue").write_text("UNLIMITED\n")  # without a limit, it can only be a preemption

    def once_more() -> None:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    notice_when_at_work(home, "slow-0", once_more)
    with pytest.raises(SystemExit):
        run_job(made)
    assert (home / "slow-0.saved").exists()
    assert slurm.asked("scontrol") == ["requeue 12_3"]
    assert end_of(made) == JobEnd()


@pytest.mark.parametrize(("left", "again"), [("10:00", False), ("0:00", True)])
def test_a_job_that_is_cancelled_while_it_saves_stays_so(
    plan: PlanOf, home: Path, slurm: FakeSlurm, left: str, again: bool
) -> None:
    made = plan("slow-0")
    run = run_of(made, home)
    run.path.mkdir()
    (slurm.folder / "queue").write_text(f"{left}\n")

    def cancel() -> None:
        run.write_status("interrupted", step=5, num_steps=9)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()

    notice_when_at_work(home, "slow-0", cancel)
    with pytest.raises(SystemExit):
        run_job(made)
    assert (home / "slow-0.saved").exists()
    assert slurm.asked("scontrol") == (["requeue 12_3"] if again else [])
    assert end_of(made) == JobEnd(early=None if again else "stopped (signal 15, SIGTERM)")


def test_a_notice_that_comes_before_the_job_listens_is_kept(plan: PlanOf, slurm: FakeSlurm) -> None:
    submitit = pytest.importorskip("submitit", reason="jobs are started by submitit: pip install 'cssl-cli[slurm]'")
    made = plan()
    folder = Path(made["folder"])
    submitit.helpers.DelayedSubmission(run_job, made).dump(folder / "12_3_submitted.pkl")
    (slurm.folder / "queue").write_text("1:03:30\n")
    command = [sys.executable, "-u", "-m", "cssl_cli.sweep.cluster", "-u", "-m", "submitit.core._submit", str(folder)]
    environment = {**os.environ, "SUBMITIT_EXECUTOR": "slurm", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not _is_blocked(started.pid, signal.SIGUSR1):
        assert started.poll() is None
        time.sleep(0.005)
    started.send_signal(signal.SIGUSR1)
    printed = started.communicate(timeout=100)[0].decode()
    assert started.returncode == 128 + signal.SIGUSR1, printed
    assert slurm.asked("scontrol") == ["requeue 12_3"]
    assert end_of(made) == JobEnd()


def _is_blocked(pid: int, number: int) -> bool:
    (mask,) = re.findall(r"^SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_job_that_cannot_be_queued_again_says_so(plan: PlanOf, home: Path, slurm: FakeSlurm) -> None:
    made = plan("long-0")
    run = run_of(made, home)
    run.path.mkdir()
    slurm.fail("scontrol", "Job is not allowed to be requeued\n")
    notice_when_at_work(home, "long-0", lambda: run.write_status("interrupted", step=5, num_steps=9))
    with pytest.raises(SystemExit):
        run_job(made)
    end = end_of(made)
    assert end is not None
    assert "could not be queued again" in (end.early or "")
    assert "not allowed to be requeued" in (end.early or "")


def test_a_cancelled_job_saves_and_is_not_queued_again(plan: PlanOf, home: Path, slurm: FakeSlurm) -> None:
    made = plan("long-0")
    notice_when_at_work(home, "long-0", lambda: None, signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run_job(made)
    assert ended.value.code == 128 + signal.SIGTERM
    assert (home / "long-0.saved").exists()
    assert slurm.asked("scontrol") == []
    assert end_of(made) == JobEnd(early="stopped (signal 15, SIGTERM)")


@pytest.mark.parametrize(
    ("given", "threads"), [({"SLURM_CPUS_PER_TASK": "8"}, "4"), ({"SLURM_CPUS_ON_NODE": "1"}, "1")]
)
def test_members_share_the_cores_that_the_job_has(
    plan: PlanOf, home: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], threads: str
) -> None:
    for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "")  # so that what the job sets is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run_job(plan("ok-0", "ok-1", pack=4))
    calls = [line.split() for line in (home / "calls").read_text().splitlines()]
    assert {(call[3], call[5]) for call in calls} == {(threads, threads)}
