"""What was submitted for a sweep, and how its jobs ended: files beside its runs, in `slurm/`.

    slurm/
      lock                      held by the command that submits
      <submission>/             a folder for each array
        members.json            its name in the queue, and the members of each of its jobs; written before it is
                                submitted, so that no job is ever unknown
        ended-<job>.json        which members of the job failed and why, and why the job ended before its members
        *_submission.sh, *.pkl  what submitit submits
        *_log.out               what the jobs print

A submission's name is also that of its jobs in the queue, by which they are found again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cssl_cli.errors import DamagedError
from cssl_cli.host.files import explained
from cssl_cli.host.sealed_folder import SealedFolder

FOLDER, LOCK = "slurm", "lock"
# What a job says before all else, in case that it cannot say more.
NO_WORD = "its job ended without a word; what it printed is in the sweep's folder, in slurm/"
_MEMBERS = "members.json"


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: the members that failed, with the reason, and why it ended before the others were done.

    `early` is NO_WORD from its beginning to its end.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    early: str | None = None


@dataclass(frozen=True)
class Submission:
    """An array: its `name` in the queue, and the names of each job's members."""

    folder: Path
    name: str
    jobs: tuple[tuple[str, ...], ...]

    def job_of(self, member: str) -> int | None:
        """The number of the job with this member."""
        return next((number for number, members in enumerate(self.jobs) if member in members), None)

    def end_of(self, job: int) -> JobEnd | None:
        """How a job ended; None if it never began."""
        try:
            content = _Folder(self.folder).read_json(_ended(job))
        except DamagedError:
            return JobEnd(early=NO_WORD)
        if content is None:
            return None
        failed, early = content.get("failed"), content.get("early")
        if not (isinstance(failed, dict) and all(isinstance(why, str) for why in failed.values())):
            failed = {}
        return JobEnd(failed, early if early is None or isinstance(early, str) else NO_WORD)


class _Folder(SealedFolder):
    def needs_checksum(self, name: str) -> bool:  # noqa: ARG002
        return True

    def remedy(self, name: str) -> str:  # noqa: ARG002
        jobs = f"cssl-{self.path.absolute().parents[1].name}-{self.path.name}"
        return (
            f"Cancel its jobs (scancel --name={jobs}) and delete {self.path}: what they have not finished is then "
            "submitted again."
        )


def new_submission(home: Path, sweep: str, jobs: Sequence[Sequence[str]]) -> Submission:
    """Write down what is about to be submitted."""
    now = time.strftime("%Y%m%d-%H%M%S", time.gmtime())  # in order also where clocks change, or hosts' zones differ
    token = f"{now}-{secrets.token_hex(2)}"
    folder = home / FOLDER / token
    with explained(folder, "Free some space or make the folder writable."):
        folder.mkdir(parents=True)
    submission = Submission(folder, f"cssl-{sweep}-{token}", tuple(map(tuple, jobs)))
    content: dict[str, Any] = {"name": submission.name, "jobs": [list(job) for job in jobs]}
    _Folder(folder).write_json(_MEMBERS, content, indent=None)
    return submission


def read_submissions(home: Path) -> list[Submission]:
    """What was submitted so far, the latest first; `DamagedError` for a file that is not as it was written."""
    found = []
    folders = sorted((home / FOLDER).glob(f"*/{_MEMBERS}"), reverse=True) if (home / FOLDER).is_dir() else []
    for path in folders:
        content = _Folder(path.parent).read_json(_MEMBERS)
        if content is not None:
            found.append(_submission(path.parent, content))
    return found


def _submission(folder: Path, content: Mapping[str, Any]) -> Submission:
    name, jobs = content.get("name"), content.get("jobs")
    if not (isinstance(name, str) and isinstance(jobs, list) and all(map(_are_names, jobs))):
        raise _Folder(folder).damaged(_MEMBERS, "it does not say which members were submitted, as this version does")
    return Submission(folder, name, tuple(map(tuple, jobs)))


def _are_names(members: object) -> bool:
    return isinstance(members, list) and all(isinstance(name, str) for name in members)


def write_end(folder: Path, job: int, end: JobEnd) -> None:
    """Write down how a job ended."""
    _Folder(folder).write_json(_ended(job), {"failed": dict(end.failed), "early": end.early})


def _ended(job: int) -> str:
    return f"ended-{job}.json"
