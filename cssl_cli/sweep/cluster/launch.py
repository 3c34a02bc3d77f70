"""A sweep's members as jobs: what is missing is submitted, what is there is looked at and cancelled."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cssl_cli.errors import CsslError, DamagedError, InputError, InUseError
from cssl_cli.host.files import explained
from cssl_cli.runs.lock import holding
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.cluster import scheduler
from cssl_cli.sweep.cluster.job import plan_of, run_job
from cssl_cli.sweep.cluster.records import FOLDER, LOCK, Submission, new_submission, read_submissions
from cssl_cli.sweep.cluster.settings import Launcher
from cssl_cli.sweep.cluster.states import MemberState, OnDisk, members_of_ended_jobs, states_of
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import MemberResult, as_run, member_path, read_member, read_sweep
from cssl_cli.sweep.sweep import Member
from cssl_cli.sweep.workers.missing import missing_in
from cssl_cli.sweep.workers.pool import Job


@dataclass(frozen=True)
class Submitted:
    """What was submitted: the id of the array, its members, and how many more an array cannot hold."""

    job: str
    members: tuple[str, ...]
    left: int


# ---------------------------------------------------------------------- looking
def observe(request: SweepRequest) -> list[MemberState]:
    """Where each selected member is; `RunError` if SLURM does not answer."""
    meant = {member.name: member for member in request.members}
    found = [_on_disk(result) for result in read_sweep(request.sweep, request.out) if result.member.name in meant]
    unfinished = {one.name for one in found if not one.complete}
    submissions = [
        submission
        for submission in (read_submissions(request.home) if unfinished else ())
        if any(name in unfinished for job in submission.jobs for name in job)
    ]
    queue = scheduler.read_queue(submission.name for submission in submissions)
    # A job that ended since its members were read has written their results before.
    ended = unfinished & members_of_ended_jobs(submissions, queue)
    found = [
        _on_disk(read_member(request.sweep, meant[one.name], request.out)) if one.name in ended else one
        for one in found
    ]
    states = states_of(found, submissions, queue, scheduler.read_accounts)
    paths = {member.name: member_path(request.sweep, member, request.out) for member in request.members}
    return [_with_step(state, paths[state.name]) for state in states]


def _on_disk(result: MemberResult) -> OnDisk:
    run = RunDir(result.path)
    return OnDisk(result.member.name, missing_in(result) is None, result.error, run.in_use)


def _with_step(state: MemberState, path: Path) -> MemberState:
    """A member that waits or stopped, with the step from which it goes on."""
    if state.state not in ("queued", "stopped"):
        return state
    with suppress(DamagedError):
        status = RunDir(path).status()
        if status.get("step") and status["state"] == "interrupted":
            saved = f"saved at step {status['step']} of {status['num_steps']}"
            return replace(state, why=saved if state.why is None else f"{state.why}; {saved}")
    return state


# ---------------------------------------------------------------------- submitting
@contextmanager
def submitting(home: Path) -> Iterator[None]:
    """Look and submit as the only command that does; `InUseError` if another one is at it."""
    folder = home / FOLDER
    with explained(folder, "Choose another folder with --out DIR."):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with holding(folder / LOCK):
            yield
    except InUseError as error:
        if error.where != str(folder):
            raise
        raise InUseError(
            f"another command submits the jobs of this sweep: {error.what.rpartition(' by ')[2]}",
            where=str(folder),
            remedy="Try again in a moment.",
        ) from error


def submit_missing(request: SweepRequest, launcher: Launcher, states: Sequence[MemberState]) -> Submitted | None:
    """Submit the members that `states` has as new, failed or stopped; None if there are none.

    Members that share a run go to one job. Call it within `submitting`, as `observe` before it.
    """
    names = {state.name for state in states if state.to_submit}
    members = [member for member in request.members if member.name in names]
    if not members:
        return None
    launcher.require_time_to_save()
    if {"%", "\\"} & set(str(request.home.absolute())):
        raise InputError(
            "SLURM replaces what follows a % or a \\ in the paths of its logs",
            where=str(request.home),
            remedy="Rename it.",
        )
    jobs = _in_jobs(members, launcher.pack)
    most = scheduler.most_tasks()
    taken = jobs[:most]
    submission = new_submission(request.home, request.sweep.name, [[one.name for one in job] for job in taken])
    plans = [_plan(request, launcher, submission, number, job) for number, job in enumerate(taken)]
    try:
        job = scheduler.submit(
            submission.folder.absolute(), submission.name, launcher.options(), launcher.at_once, run_job, plans
        )
    except CsslError as error:
        if "timed out" not in error.what:  # then there may be such a job
            shutil.rmtree(submission.folder, ignore_errors=True)
        raise
    submitted = tuple(name for names in submission.jobs for name in names)
    return Submitted(job, submitted, len(members) - len(submitted))


def _in_jobs(members: Sequence[Member], pack: int) -> list[list[Member]]:
    runs: dict[str, list[Member]] = {}
    for member in members:
        runs.setdefault(member.fingerprint, []).append(member)
    groups = list(runs.values())
    return [
        [member for group in groups[first : first + pack] for member in group] for first in range(0, len(groups), pack)
    ]


def _plan(
    request: SweepRequest, launcher: Launcher, submission: Submission, number: int, members: Sequence[Member]
) -> dict[str, object]:
    jobs = [
        Job(member.name, as_run(request.sweep, member), member_path(request.sweep, member, request.out))
        for member in members
    ]
    return plan_of(
        jobs,
        home=request.home.absolute(),
        folder=submission.folder.absolute(),
        number=number,
        pack=launcher.pack,
        notice=launcher.notice,
        device=request.device,
        data_root=request.data_root,
        retries=request.retries,
        track=request.track,
    )


# ---------------------------------------------------------------------- cancelling
def cancel(request: SweepRequest) -> list[MemberState]:
    """Cancel the jobs of the selected members that are queued or running; returns all members of these jobs."""
    selected = {member.name for member in request.members}
    at_work = [state for state in observe(replace(request, selected=None)) if state.at_work and state.job is not None]
    jobs = dict.fromkeys(state.job for state in at_work if state.job is not None and state.name in selected)
    scheduler.cancel(list(jobs))
    return [state for state in at_work if state.job in jobs]


def told(sent: Submitted) -> str:
    """What was submitted, as a sentence."""
    count = len(sent.members)
    more = f"; {sent.left} more do not fit into an array, and the same command submits them later" if sent.left else ""
    return f"submitted {count} member{'s' * (count != 1)} as job {sent.job}{more}"
