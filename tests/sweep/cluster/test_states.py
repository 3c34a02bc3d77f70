"""Where members are, from files, records and the queue; and what SLURM's answers mean."""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from cssl_cli.errors import DamagedError, RunError
from cssl_cli.sweep.cluster.records import (
    FOLDER,
    NO_WORD,
    JobEnd,
    Submission,
    _Folder,
    new_submission,
    read_submissions,
    write_end,
)
from cssl_cli.sweep.cluster.scheduler import QueuedJob, own_id, parse_queue, parse_time
from cssl_cli.sweep.cluster.states import WHILE_WAITING, MemberState, OnDisk, states_of


@pytest.fixture
def sent(tmp_path: Path) -> Submission:
    return new_submission(tmp_path, "sweep", [["a", "b"], ["c"]])


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(RunError, match="No space left on device"):
        new_submission(tmp_path, "sweep", [["a"]])


def state(one: OnDisk, sent: Sequence[Submission], **jobs: str) -> MemberState:
    """Its state, where the queue says this of the jobs `job0`, `job1` of the latest submission."""
    queue = {(sent[0].name, int(job[3:])): QueuedJob(f"7_{job[3:]}", said) for job, said in jobs.items()}
    (found,) = states_of([one], sent, queue, lambda names: {})
    return found


def test_what_is_complete_is_done_whatever_the_queue_says(sent: Submission) -> None:
    write_end(sent.folder, 0, JobEnd({"a": "it failed before"}))
    assert state(OnDisk("a", complete=True), [sent], job0="RUNNING") == MemberState("a", "done")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("PENDING", "queued"),
        ("REQUEUE_HOLD", "queued"),
        ("RUNNING", "running"),
        ("COMPLETING", "running"),
        ("SUSPENDED", "running"),
        ("A_STATE_OF_LATER_VERSIONS", "running"),
    ],
)
def test_what_a_job_will_complete_is_not_submitted(sent: Submission, said: str, expected: str) -> None:
    found = state(OnDisk("c", complete=False, failure="of before"), [sent], job1=said)
    assert (found.state, found.job, found.to_submit) == (expected, "7_1", False)


@pytest.mark.parametrize(
    ("said", "expected", "words"),
    [
        ("CANCELLED", "stopped", "cancelled"),
        ("PREEMPTED", "stopped", "preempted"),
        ("TIMEOUT", "failed", "launcher.time"),
        ("OUT_OF_MEMORY", "failed", "launcher.memory"),
        ("NODE_FAIL", "failed", "its node failed"),
        ("FAILED", "failed", NO_WORD),
        ("COMPLETED", "failed", NO_WORD),
    ],
)
def test_a_job_that_ended_before_its_member_says_why(sent: Submission, said: str, expected: str, words: str) -> None:
    write_end(sent.folder, 1, JobEnd(early=NO_WORD))
    found = state(OnDisk("c", complete=False), [sent], job1=said)
    assert (found.state, found.to_submit) == (expected, True)
    assert words in (found.why or "")


@pytest.mark.parametrize(
    ("said", "expected"), [("FAILED", "failed"), ("COMPLETED", "failed"), ("CANCELLED", "stopped")]
)
def test_a_job_that_ended_before_it_could_write_anything(sent: Submission, said: str, expected: str) -> None:
    found = state(OnDisk("c", complete=False), [sent], job1=said)
    assert (found.state, found.why) == (expected, NO_WORD if expected == "failed" else "cancelled")


def test_what_the_queue_has_forgotten_is_known_from_files_or_accounts(sent: Submission) -> None:
    c = OnDisk("c", complete=False)
    assert state(c, [sent]) == MemberState("c", "stopped", why=WHILE_WAITING)
    asked = []

    def accounts(names: Sequence[str]) -> dict[tuple[str, int], QueuedJob]:
        asked.append(list(names))
        return {(sent.name, 1): QueuedJob("7_1", "NODE_FAIL"), (sent.name, 0): QueuedJob("7_0", "COMPLETED")}

    members = [OnDisk("a", complete=False), OnDisk("b", complete=True), c]
    found = states_of(members, [sent], {}, accounts)
    assert [(one.state, one.why) for one in found] == [
        ("failed", NO_WORD),
        ("done", None),
        ("failed", "its node failed"),
    ]
    assert asked == [[sent.name, sent.name]]
    write_end(sent.folder, 1, JobEnd(early=NO_WORD))
    assert state(c, [sent]) == MemberState("c", "failed", why=NO_WORD)
    write_end(sent.folder, 1, JobEnd())  # saved and queued again
    assert state(c, [sent]) == MemberState("c", "stopped", why=WHILE_WAITING)
    write_end(sent.folder, 1, JobEnd(early="stopped (signal 15, SIGTERM)"))
    assert state(c, [sent]) == MemberState("c", "stopped", why="stopped (signal 15, SIGTERM)")
    write_end(sent.folder, 1, JobEnd({"c": "the loss is infinite\nLower optim.lr."}))
    assert state(c, [sent]) == MemberState("c", "failed", why="the loss is infinite\nLower optim.lr.")


def test_a_member_that_failed_in_a_job_that_others_are_in_may_be_submitted(sent: Submission) -> None:
    write_end(sent.folder, 0, JobEnd({"b": "it failed"}, NO_WORD))
    assert state(OnDisk("a", complete=False), [sent], job0="RUNNING").state == "running"
    assert state(OnDisk("b", complete=False), [sent], job0="RUNNING").to_submit


def test_an_earlier_job_that_still_runs_counts(tmp_path: Path, sent: Submission) -> None:
    later = Submission(tmp_path / "later", "later", (("c",),))
    (found,) = states_of(
        [OnDisk("c", complete=False)], [later, sent], {(sent.name, 1): QueuedJob("7_1", "RUNNING")}, lambda names: {}
    )
    assert (found.state, found.job) == ("running", "7_1")


def test_members_of_other_processes_are_theirs() -> None:
    assert state(OnDisk("x", complete=False), [Submission(Path(), "", ())]) == MemberState("x", "new")
    held = OnDisk("x", complete=False, failure="of before", in_use=lambda: True)
    assert not state(held, [Submission(Path(), "", ())]).to_submit
    failed = OnDisk("x", complete=False, failure="the disk was full")
    assert state(failed, [Submission(Path(), "", ())]) == MemberState("x", "failed", why="the disk was full")


# ---------------------------------------------------------------------- records and answers
def test_what_was_submitted_is_read_again_the_latest_first(tmp_path: Path) -> None:
    assert read_submissions(tmp_path) == []
    made = [new_submission(tmp_path, "sweep", [[name]]) for name in ("a", "b")]
    found = read_submissions(tmp_path)
    assert sorted(found, key=lambda one: one.name) == sorted(made, key=lambda one: one.name)
    assert [one.folder.name for one in found] == sorted((one.folder.name for one in made), reverse=True)
    assert made[0].job_of("a") == 0
    assert made[0].job_of("b") is None
    members = made[0].folder / "members.json"
    members.write_text(members.read_text().replace('"a"', '"x"'))
    with pytest.raises(DamagedError, match="damaged") as refused:
        read_submissions(tmp_path)
    assert refused.value.remedy is not None
    assert f"{tmp_path / FOLDER}" in refused.value.remedy
    write_end(made[1].folder, 0, JobEnd({"b": "x"}))
    (made[1].folder / "ended-0.json").write_text("{")
    assert made[1].end_of(0) == JobEnd(early=NO_WORD)
    for content in ({"failed": {"b": 1}, "early": {}}, {"failed": None}):  # of another version
        _Folder(made[1].folder).write_json("ended-0.json", content)
        assert (made[1].end_of(0) or JobEnd({"b": "x"})).failed == {}
    for content in ({}, {"name": made[0].name, "jobs": [["a"], "b"]}):
        _Folder(made[0].folder).write_json("members.json", content)
        with pytest.raises(DamagedError, match="does not say which members"):
            read_submissions(tmp_path)


def test_the_queue_of_squeue() -> None:
    text = "12|0|cssl-x|RUNNING|None\n12|3|cssl-x|PENDING|JobArrayTaskLimit\n13|N/A|cssl-y|PENDING|Priority\nnonsense\n"
    assert parse_queue(text) == {
        ("cssl-x", 0): QueuedJob("12_0", "RUNNING"),
        ("cssl-x", 3): QueuedJob("12_3", "PENDING", "JobArrayTaskLimit"),
        ("cssl-y", 0): QueuedJob("13", "PENDING", "Priority"),
    }


def test_the_time_left_of_squeue() -> None:
    times = {
        "0:07": 7,
        "3:20": 200,
        "1:00:01": 3601,
        "2-01:00:00": 176400,
        "UNLIMITED": math.inf,
        "NOT_SET": None,
        "": None,
    }
    assert {text: parse_time(text) for text in times} == times


def test_the_id_of_an_array_s_job_is_not_that_of_the_whole_array() -> None:
    in_array = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert own_id(in_array) == "12_3"
    assert own_id({"SLURM_JOB_ID": "12"}) == "12"
    assert own_id({}) is None
