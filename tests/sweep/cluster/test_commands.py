"""`cssl sweep --launcher slurm` over made-up answers of SLURM: what is submitted, shown and cancelled."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from cssl_cli.runs.lock import holding
from cssl_cli.sweep.cluster import launch
from cssl_cli.sweep.cluster.records import FOLDER, LOCK, JobEnd, read_submissions, write_end
from tests.support.commands import Invoke
from tests.support.fake_slurm import HOME, SLURM, FakeSlurm


def states(text: str) -> dict[str, str]:
    return {one["name"]: one["state"] for one in json.loads(text)["members"]}


def test_what_is_missing_is_submitted_once(slurm: FakeSlurm, invoke: Invoke) -> None:
    first = invoke(*SLURM, "launcher.time=2h", "launcher.at_once=2", "--json")
    assert first.code == 0, first.stderr
    assert set(states(first.stdout).values()) == {"queued"}
    assert json.loads(first.stdout)["submitted"] == "7"
    assert "submitted 6 members as job 7" in first.stderr
    script = slurm.script(7)
    for option in ("array=0-2%2", "time=120", "cpus-per-task=2", "account=vision", "signal=USR1@120", "requeue"):
        assert f"#SBATCH --{option}\n" in script
    assert "#SBATCH --wckey" not in script
    assert "srun --unbuffered" in script
    assert "--cpus-per-task 2" in script, "a step does not inherit them"
    environment = (slurm.folder / "environment").read_text()
    assert "SLURM_CONF=/the/users/own" in environment
    assert "SLURM_MEM_PER_NODE" not in environment
    (submission,) = read_submissions(HOME)
    assert [len(job) for job in submission.jobs] == [2, 2, 2], "members of one run share a job"
    with (submission.folder / "7_1_submitted.pkl").open("rb") as file:
        (plan,) = pickle.load(file).args
    assert [one["name"] for one in plan["members"]] == list(submission.jobs[1])
    assert {one["recipe"]["name"] for one in plan["members"]} == {submission.jobs[1][0]}, "named as their run"

    slurm.answer(7, {0: "RUNNING", 1: "PENDING", 2: "CANCELLED"}, reason="Priority")
    looked = invoke(*SLURM, "--dry-run")
    assert looked.code == 0
    assert "Priority" in looked.stdout
    assert "6 members under runs/five: 2 queued, 2 running, 2 stopped" in looked.stdout
    write_end(submission.folder, 1, JobEnd({submission.jobs[1][0]: "the loss became infinite\nLower optim.lr."}))
    assert "the loss became infinite. Lower optim.lr." in invoke(*SLURM, "--dry-run").stdout
    again = invoke(*SLURM)
    assert "submitted 3 members as job 8" in again.stderr
    later = read_submissions(HOME)
    assert {frozenset(one.jobs) for one in later} == {
        frozenset(submission.jobs),
        frozenset([submission.jobs[1][:1], submission.jobs[2]]),
    }


def test_what_ends_between_two_looks_has_not_failed(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke(*SLURM)
    slurm.answer(7, {0: "COMPLETED", 1: "RUNNING", 2: "COMPLETED"})
    missing, ask, asked = launch.missing_in, launch.scheduler.read_queue, []

    def look(names: Iterable[str]) -> object:
        asked.append(names)
        return ask(names)

    monkeypatch.setattr(launch.scheduler, "read_queue", look)
    monkeypatch.setattr(launch, "missing_in", lambda result: None if asked else missing(result))
    shown = states(invoke(*SLURM, "--dry-run", "--json").stdout)
    assert list(shown.values()) == ["done", "done", "running", "running", "done", "done"]


def test_nothing_is_submitted_while_all_is_at_work(slurm: FakeSlurm, invoke: Invoke) -> None:
    invoke(*SLURM, "--only", "0.01-*")
    assert "--array" not in slurm.script(7), "a single job is no array"
    again = invoke(*SLURM, "--only", "0.01-*", "--json")
    assert states(again.stdout) == {"0.01-5-seed3": "queued", "0.01-10-seed3": "queued"}
    assert json.loads(again.stdout)["submitted"] is None
    assert len(slurm.asked("sbatch")) == 1


def test_runs_are_packed_and_arrays_have_their_limit(slurm: FakeSlurm, invoke: Invoke) -> None:
    (slurm.folder / "most").write_text("1")
    refused = invoke(*SLURM, "--out", "50%")
    assert refused.code == 2
    assert "50%/five: SLURM replaces what follows a %" in refused.stderr
    done = invoke(*SLURM, "launcher.pack=2", "~launcher.time")
    assert "#SBATCH --time" not in slurm.script(7), "submitit would give five minutes"
    assert "submitted 4 members as job 7; 2 more do not fit into an array" in done.stderr
    (submission,) = read_submissions(HOME)
    assert [len(job) for job in submission.jobs] == [4]
    (slurm.folder / "most").write_text("1001\nSchedulerParameters = bf_interval=5,max_array_tasks=2")
    assert "2 more do not fit into an array" in invoke(*SLURM, "--out", "other").stderr


def test_variables_of_the_user_hide_no_jobs_and_change_nothing_that_is_set(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_user = ("JOB_NAME", "TIMELIMIT", "ACCOUNT", "MEM_PER_CPU", "WAIT", "ARRAY_INX", "NO_REQUEUE", "SIGNAL", "QOS")
    for name in of_user:
        monkeypatch.setenv(f"SBATCH_{name}", "3")
    monkeypatch.setenv("SQUEUE_PARTITION", "another")
    first = invoke(*SLURM, "launcher.memory=16G", "--json")
    assert set(states(first.stdout).values()) == {"queued"}
    lines = (slurm.folder / "environment").read_text().splitlines()
    assert [line for line in lines if line.startswith("SBATCH_")] == ["SBATCH_QOS=3"]
    assert "--export=ALL" in slurm.script(7), "else a step of SBATCH_EXPORT=NONE lacks what submitit sets"


def test_a_time_in_which_nothing_can_be_done_is_refused(slurm: FakeSlurm, invoke: Invoke) -> None:
    refused = invoke(*SLURM, "launcher.time=3m")
    assert refused.code == 2
    assert "launcher.time: is 3m, and a job is told to save 120 s before its end" in refused.stderr
    assert read_submissions(HOME) == []
    assert invoke(*SLURM, "launcher.time=3m", "launcher.notice=30").code == 0


def test_who_may_only_read_is_shown_the_states(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke(*SLURM)

    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for module in ("host.files", "runs.lock"):
        monkeypatch.setattr(f"cssl_cli.{module}.require_access", refuse)
    shown = invoke(*SLURM, "--json")
    assert (shown.code, set(states(shown.stdout).values())) == (0, {"queued"})
    slurm.answer(7, dict.fromkeys(range(3), "CANCELLED"))
    refused = invoke(*SLURM)
    assert (refused.code, refused.stderr.splitlines()[0]) == (
        2,
        "error: runs/five: cannot be written: Permission denied",
    )
    assert len(slurm.asked("sbatch")) == 1


def test_a_disk_that_is_full_while_jobs_are_written(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("submitit.core.utils.cloudpickle_dump", fill)
    done = invoke(*SLURM)
    assert done.code == 1
    assert "cannot be written: No space left on device" in done.stderr
    assert (slurm.asked("sbatch"), read_submissions(HOME)) == ([], [])


def test_cancel_takes_the_jobs_of_the_selected_members(slurm: FakeSlurm, invoke: Invoke) -> None:
    invoke(*SLURM)
    slurm.answer(7, {0: "RUNNING", 1: "PENDING", 2: "COMPLETED"})
    done = invoke(*SLURM, "--cancel")
    assert done.code == 0
    assert "cancelled 4 members" in done.stderr
    assert slurm.asked("scancel") == ["7_0 7_1"]
    assert len(slurm.asked("sbatch")) == 1
    invoke(*SLURM, "--cancel", "--only", "0.02-5")
    assert slurm.asked("scancel")[1:] == ["7_1"]


def test_cancelling_one_of_a_pack_says_whom_else_it_ends(slurm: FakeSlurm, invoke: Invoke) -> None:
    invoke(*SLURM, "launcher.pack=2")
    done = invoke(*SLURM, "--cancel", "--only", "0.02-5")
    assert slurm.asked("scancel") == ["7_0"]
    assert "cancelled 4 members, 3 of them because they share a job with a selected one" in done.stderr


def test_a_damaged_record_says_which_jobs_it_is_of(slurm: FakeSlurm, invoke: Invoke) -> None:
    invoke(*SLURM)
    (submission,) = read_submissions(HOME)
    (submission.folder / "members.json").write_text("{")
    for action in ([], ["--dry-run"], ["--wait"], ["--cancel"]):
        done = invoke(*SLURM, *action)
        assert done.code == 2
        assert f"scancel --name={submission.name})" in done.stderr
    assert len(slurm.asked("sbatch")) == 1


def test_without_an_answer_nothing_is_submitted(slurm: FakeSlurm, invoke: Invoke) -> None:
    invoke(*SLURM)
    slurm.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\nmore\n")
    done = invoke(*SLURM)
    assert done.code == 1
    assert "Unable to contact slurm controller" in done.stderr
    assert len(slurm.asked("sbatch")) == 1


def test_what_sbatch_refuses_is_told_and_leaves_nothing(slurm: FakeSlurm, invoke: Invoke) -> None:
    slurm.fail("sbatch", "sbatch: error: invalid partition specified: gpu\nsbatch: error: Invalid partition name\n")
    done = invoke(*SLURM, "launcher.partition=gpu")
    assert done.code == 1
    assert done.stderr.startswith("error: --launcher slurm: sbatch refuses the jobs: Invalid partition name\n")
    assert read_submissions(HOME) == []
    slurm.fail("sbatch", "sbatch: unrecognized option '--qs=low'\nTry \"sbatch --help\" for more information\n")
    assert "refuses the jobs: unrecognized option '--qs=low'\n" in invoke(*SLURM, "launcher.sbatch.qs=low").stderr
    (slurm.folder / "sbatch.fails").unlink()
    assert "new" in invoke(*SLURM, "--dry-run").stdout


def test_one_command_at_a_time_submits(slurm: FakeSlurm, invoke: Invoke) -> None:
    invoke(*SLURM, "--dry-run")
    (HOME / FOLDER).mkdir(parents=True)
    with holding(HOME / FOLDER / LOCK):
        done = invoke(*SLURM)
    assert done.code == 2
    assert "another command submits the jobs of this sweep: process" in done.stderr
    assert slurm.asked("sbatch") == []


def test_where_there_is_no_slurm(slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = invoke(*SLURM)
    assert done.code == 2
    assert "there is no SLURM here: squeue is not found" in done.stderr
    assert not HOME.exists()


def test_without_submitit_it_says_what_to_install(
    slurm: FakeSlurm, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cssl_cli.sweep.cluster.scheduler.find_spec", lambda name: None)
    done = invoke(*SLURM)
    assert done.code == 2
    assert "pip install 'cssl-cli[slurm]'" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--launcher", "slurm", "--jobs", "2"), "--jobs is for a sweep on one machine"),
        (("--launcher", "slurm", "--budget", "1h"), "--budget is for"),
        (("--launcher", "slurm", "--halve"), "--halve is for"),
        (("--launcher", "slurm", "--concentration-only"), "--concentration-only is for"),
        (("--launcher", "slurm", "--wait", "--cancel"), "without one another"),
        (("--launcher", "slurm", "--wait", "--dry-run"), "--dry-run"),
        (("--wait",), "Give --launcher slurm"),
        (("--cancel", "--launcher", "local"), "Give --launcher slurm"),
        (("--launcher", "slrm"), "Did you mean 'slurm'?"),
    ],
)
def test_options_that_do_not_go_together(slurm: FakeSlurm, invoke: Invoke, options: Sequence[str], words: str) -> None:
    done = invoke("sweep", "five.yaml", *options)
    assert done.code == 2
    assert words in " ".join(done.stderr.split())
