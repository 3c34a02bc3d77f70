"""Where each member of a sweep is, from its files, from what was submitted, and from the queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cssl_cli.sweep.cluster.records import NO_WORD, Submission
from cssl_cli.sweep.cluster.scheduler import Place, QueuedJob

State = Literal["new", "queued", "running", "done", "failed", "stopped"]
IN_WORDS = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "cancelled",
    "DEADLINE": "reached its deadline",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "the job ran out of memory: give launcher.memory more",
    "PREEMPTED": "preempted, and not queued again by the cluster",
    "TIMEOUT": "reached its time limit before it could save: give launcher.time or launcher.notice more",
}
WHILE_WAITING = "its job left the queue while it waited, as one that is cancelled does"
SILENT = (NO_WORD, WHILE_WAITING)
STOPPED = ("CANCELLED", "PREEMPTED")  # by somebody's will: no failure


@dataclass(frozen=True)
class OnDisk:
    """What a member's run directory says: whether it is complete, why its training failed, whether it is in use."""

    name: str
    complete: bool
    failure: str | None = None
    in_use: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class MemberState:
    """Where a member is, in which job, and why it waits, failed or stopped."""

    name: str
    state: State
    job: str | None = None
    why: str | None = None

    @property
    def to_submit(self) -> bool:
        """Whether it is neither complete nor with a job, or another process, that completes it."""
        return self.state in ("new", "failed", "stopped")

    @property
    def at_work(self) -> bool:
        return self.state in ("queued", "running")


def members_of_ended_jobs(submissions: Sequence[Submission], queue: Mapping[Place, QueuedJob]) -> set[str]:
    """The members that were submitted and are in no job that waits or runs."""
    of_jobs: dict[bool, set[str]] = {True: set(), False: set()}
    for submission in submissions:
        for number, names in enumerate(submission.jobs):
            job = queue.get((submission.name, number))
            of_jobs[job is None or job.ended].update(names)
    return of_jobs[True] - of_jobs[False]


def states_of(
    members: Sequence[OnDisk],
    submissions: Sequence[Submission],
    queue: Mapping[Place, QueuedJob],
    accounts: Callable[[Sequence[str]], Mapping[Place, QueuedJob]],
) -> list[MemberState]:
    """The state of each member.

    submissions: the latest first. accounts: gives what is known of jobs by the names of their submissions; it is asked
    once, and only about jobs that left no word and that the queue has forgotten.
    """
    of_member: dict[str, list[tuple[Submission, int]]] = {}
    for submission in submissions:
        for number, names in enumerate(submission.jobs):
            for name in names:
                of_member.setdefault(name, []).append((submission, number))
    found = {one.name: _state(one, of_member.get(one.name, []), queue) for one in members}
    silent = {name: of_member[name][0] for name, state in found.items() if state.why in SILENT}
    known = accounts([submission.name for submission, _ in silent.values()]) if silent else {}
    for name, (submission, number) in silent.items():
        if (job := known.get((submission.name, number))) is not None and job.ended:
            found[name] = _ended(name, job.state)
    return list(found.values())


def _state(one: OnDisk, tried: Sequence[tuple[Submission, int]], queue: Mapping[Place, QueuedJob]) -> MemberState:
    """tried: the jobs of the member, the latest first."""
    if one.complete:
        return MemberState(one.name, "done")
    jobs = [(submission, number, queue.get((submission.name, number))) for submission, number in tried]
    for submission, number, job in jobs:
        if job is not None and not job.ended:
            end = submission.end_of(number)
            if end is not None and one.name in end.failed:  # its job is still at work on others
                return MemberState(one.name, "failed", job.id, end.failed[one.name])
            return MemberState(one.name, "queued" if job.waits else "running", job.id, job.reason or None)
    if one.in_use():
        return MemberState(one.name, "running", why="by another process")
    if not jobs:
        return MemberState(one.name, "new") if one.failure is None else MemberState(one.name, "failed", why=one.failure)
    submission, number, job = jobs[0]
    end = submission.end_of(number)
    if end is not None and one.name in end.failed:
        return MemberState(one.name, "failed", why=end.failed[one.name])
    if one.failure is not None:
        return MemberState(one.name, "failed", why=one.failure)
    if job is not None and (job.state in IN_WORDS or end is None):
        return _ended(one.name, job.state)
    if end is None or (job is None and end.early is None):  # it never began, or was queued again
        return MemberState(one.name, "stopped", why=WHILE_WAITING)
    early = end.early or NO_WORD
    return MemberState(one.name, "failed" if early == NO_WORD else "stopped", why=early)


def _ended(name: str, state: str) -> MemberState:
    """A member whose job was ended by SLURM."""
    return MemberState(name, "stopped" if state in STOPPED else "failed", why=IN_WORDS.get(state, NO_WORD))
