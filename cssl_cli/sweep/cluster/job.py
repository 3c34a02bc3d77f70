"""What runs in a job: the workers of `cssl sweep --jobs`, for the members of this job alone.

submitit calls `run_job`. The signals are ours; those of its start were put off (`__main__`). At the cluster's notice
(USR1, before the time limit) and at the end of the job (TERM) the workers save; a second signal changes nothing, since
the cluster kills a job that takes too long. After a notice the job is queued again, unless its time ends and no member
got any further in it: that would go on for ever.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, DamagedError, Interrupted, escaped_text
from cssl_cli.host.files import remove_leftovers
from cssl_cli.host.progress import Notices, SweepProgress
from cssl_cli.host.signals import ENDING, Stopped, deferred_signals, end_on_signals, has_come
from cssl_cli.recipe import Recipe
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.cluster import scheduler
from cssl_cli.sweep.cluster.records import NO_WORD, JobEnd, Submission, write_end
from cssl_cli.sweep.results_index import Wanted, read_results
from cssl_cli.sweep.workers.messages import COMPILING, THREADS
from cssl_cli.sweep.workers.missing import Missing, missing_in
from cssl_cli.sweep.workers.pool import Job, Pool, PoolSettings
from cssl_cli.sweep.workers.process import killed_in_words

NOTICES = (signal.SIGUSR1, signal.SIGUSR2)
EARLY = 90.0  # seconds by which SLURM may send its notice of a time limit too early
NO_FURTHER = "reached its time limit, and got no further in all its time: give launcher.time more"


def plan_of(
    jobs: Sequence[Job],
    *,
    home: Path,
    folder: Path,
    number: int,
    pack: int,
    notice: int,
    device: str | None,
    data_root: str | None,
    retries: int,
    track: Sequence[str],
) -> dict[str, Any]:
    """What `run_job` takes, in plain types: job `number` of the submission whose folder is `folder`."""
    return {
        "members": [{"name": job.name, "recipe": job.recipe.model_dump(mode="json", by_alias=True)} for job in jobs],
        "home": str(home),
        "folder": str(folder),
        "number": number,
        "pack": pack,
        "notice": notice,
        "device": device,
        "data_root": data_root,
        "retries": retries,
        "track": list(track),
    }


def run_job(plan: Mapping[str, Any]) -> None:
    """Complete the members of a plan, and write down which failed; exits with 1 if one did."""
    end_on_signals(patient=True)
    home, folder, number = Path(plan["home"]), Path(plan["folder"]), plan["number"]
    remove_leftovers(folder)
    reporter = _Lines()
    before = Submission(folder, "", ()).end_of(number) or JobEnd()  # of this job, if it was queued again
    write_end(folder, number, JobEnd(before.failed, NO_WORD))
    jobs = [job for job in map(_job_of(home), plan["members"]) if job.name not in before.failed]
    at_first = _standing(jobs)
    _share_cores(min(plan["pack"], len({job.path for job in jobs if _lacking(job) is not None}) or 1))
    settings = PoolSettings(
        workers=plan["pack"],
        home=home,
        logs=home / "logs",
        device=plan["device"],
        retries=plan["retries"],
        deadline=math.inf,
        data_root=plan["data_root"],
        track=plan["track"],
    )
    pool = Pool(settings, _lacking, reporter)

    def enter(early: str | None) -> bool:
        """Write down how the job ends; returns whether a member failed."""
        errors = {name: outcome.error for name, outcome in pool.outcomes.items() if outcome.error is not None}
        if early == NO_FURTHER:
            errors = {job.name: early for job in jobs if _lacking(job) is not None} | errors
        end = JobEnd({**before.failed, **errors}, early)
        write_end(folder, number, end)
        return bool(end.failed)

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        pool.run(jobs, done_before=0)
    except (Interrupted, Stopped) as stopped:
        came = stopped.number if isinstance(stopped, Stopped) else stopped.exit_code - 128
        with deferred_signals():  # queueing it again ends this job
            early = _after(came, plan["notice"], got_further=_standing(jobs) != at_first)
            enter(early)
            if early is None and (early := _queue_again(reporter)) is not None:
                enter(early)
            if early is not None:
                reporter.say(early)
        sys.exit(128 + came)
    in_use = [name for name, outcome in pool.outcomes.items() if outcome.in_use]
    if enter(f"another process was working on {', '.join(in_use)}" if in_use else None):
        sys.exit(1)


def _after(came: int, notice: int, *, got_further: bool) -> str | None:
    """Why a job that a signal ended is not to be queued again; None: it is."""
    if came not in NOTICES:
        return killed_in_words(came)
    if has_come(signal.SIGTERM) and _seconds_left() > 0:  # cancelled meanwhile; SLURM would queue it again all the same
        return killed_in_words(signal.SIGTERM)
    is_preempted = not got_further and _seconds_left() > notice + EARLY  # told long before its time ends
    return None if got_further or is_preempted else NO_FURTHER


def _seconds_left() -> float:
    """The time until this job reaches its limit; 0 if SLURM does not say."""
    job = scheduler.own_id()
    return (None if job is None else scheduler.seconds_left(job)) or 0.0


def _queue_again(reporter: _Lines) -> str | None:
    """Queue this job again, which ends it here; returns why that failed."""
    job = scheduler.own_id()
    if job is None:
        return "was told to end, and is no job of SLURM's that could be queued again"
    reporter.say(f"saved; {job} is queued again")
    try:
        scheduler.requeue(job)
    except CsslError as error:
        return f"was told to end, and could not be queued again: {error.what}"
    return None


def _share_cores(members: int) -> None:
    """Give each of the members an equal share of the job's cores: without cgroups, a job sees all of its node's."""
    asked = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    for name in (THREADS, COMPILING) if asked.isdecimal() else ():
        os.environ.setdefault(name, str(max(1, int(asked) // members)))


def _job_of(home: Path) -> Any:
    def job_of(member: Mapping[str, Any]) -> Job:
        recipe = Recipe.model_validate(member["recipe"])
        return Job(member["name"], recipe, RunDir.at(home, name=recipe.name, fingerprint=recipe.fingerprint).path)

    return job_of


def _lacking(job: Job) -> Missing | None:
    settings = {block: job.recipe.settings(block) for block in ("probe", "analyze")}
    return missing_in(read_results(Wanted(job.path, settings["probe"], settings["analyze"])))


def _standing(jobs: Sequence[Job]) -> list[Any]:
    """How far the members are: the step of each, and what it lacks."""
    found = []
    for job in jobs:
        step = 0
        with suppress(DamagedError):
            step = RunDir(job.path).status().get("step", 0)
        found.append((step, _lacking(job)))
    return found


class _Lines(Notices):
    """A reporter that prints sentences with the time; the members' own are in their logs."""

    def say(self, message: str) -> None:
        with suppress(OSError, ValueError):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {escaped_text(message)}", flush=True)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass

    def show(self, progress: SweepProgress) -> None:
        pass
