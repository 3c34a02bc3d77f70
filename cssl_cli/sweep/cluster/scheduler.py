"""SLURM's commands: what is in the queue, what was, and how to submit and cancel."""

from __future__ import annotations

import io
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from cssl_cli.errors import InputError, RunError
from cssl_cli.host.files import explained
from cssl_cli.sweep.cluster.settings import OURS

UNREACHABLE = "Unable to contact slurm controller"  # what was asked for has not been done
TIMEOUT = 60.0  # seconds for an answer of the controller
ARRAY = 1001  # tasks of an array, where the cluster does not say
QUEUED = frozenset(("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"))
ENDED = frozenset(
    (
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    )
)
_ENTRY = "cssl_cli.sweep.cluster"
# Of options of sbatch whose environment variables are not called as they are, and of those that exclude one another.
_VARIABLES = {
    "array": ("ARRAY_INX",),
    "mem": ("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"),
    "time": ("TIMELIMIT",),
}
_FORMAT = "%F|%K|%j|%T|%r"  # array's or job's id, place in the array, name, state, reason


@dataclass(frozen=True)
class QueuedJob:
    """A job as SLURM has it: its id (12_3 in an array), its state in SLURM's words, and why it waits."""

    id: str
    state: str
    reason: str = ""

    @property
    def waits(self) -> bool:
        return self.state in QUEUED

    @property
    def ended(self) -> bool:
        """Whether it is over. A state that we do not know is not: nothing is to be submitted twice."""
        return self.state in ENDED


class NoAnswer(RunError):
    """A command of SLURM's failed, as while its controller starts anew."""

    def __init__(self, command: str, why: str) -> None:
        super().__init__(
            f"SLURM does not do it: {command}: {why}",
            where="--launcher slurm",
            remedy="Try again; nothing was submitted twice, and jobs that run go on.",
        )


Place = tuple[str, int]
"""The name of a submission and the number of one of its jobs."""


def require_slurm() -> None:
    """`InputError` unless sweeps can be submitted here."""
    if find_spec("submitit") is None:
        raise InputError(
            "submitit is not installed", where="--launcher slurm", remedy="Install it: pip install 'cssl-cli[slurm]'"
        )
    for name in ("squeue", "sbatch", "srun"):
        if which(name) is None:
            raise _no_slurm(name)


def read_queue(names: Iterable[str]) -> dict[Place, QueuedJob]:
    """The jobs of these names in the queue, and those that SLURM still remembers; `NoAnswer` if that fails."""
    wanted = ",".join(sorted(set(names)))
    if not wanted:
        return {}
    return parse_queue(_call("squeue", "-h", "-r", "-t", "all", "--name", wanted, "-o", _FORMAT))


def parse_queue(text: str) -> dict[Place, QueuedJob]:
    """The jobs in the output of squeue."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 4)
        if len(parts) == 5:
            array, place, name, state, reason = parts
            in_array = place.isdigit()
            job = QueuedJob(f"{array}_{place}" if in_array else array, state, "" if reason == "None" else reason)
            found[name, int(place) if in_array else 0] = job
    return found


def read_accounts(names: Iterable[str]) -> dict[Place, QueuedJob]:
    """The ended jobs of these names in SLURM's accounts; empty where the cluster keeps none."""
    wanted = ",".join(sorted(set(names)))
    try:
        text = _call("sacct", "-n", "-X", "-P", "-S", "now-30days", "--name", wanted, "-o", "JobID,JobName,State")
    except (InputError, RunError):
        return {}
    found = {}
    for line in text.splitlines():
        matched = re.fullmatch(r"(\d+(?:_(\d+))?)\|([^|]+)\|(\w+).*", line.strip())  # the state: CANCELLED by 0
        if matched:
            found[matched[3], int(matched[2] or 0)] = QueuedJob(matched[1], matched[4])
    return found


def submit(
    folder: Path,
    name: str,
    options: Mapping[str, Any],
    at_once: int | None,
    function: Callable[[Mapping[str, Any]], None],
    plans: Sequence[Mapping[str, Any]],
) -> str:
    """Submit one job for each plan, an array where there are several; returns its id.

    Only the way into the queue is submitit's. Signals and requeueing are the function's: submitit requeues after a time
    limit only what it can pickle again, and takes every short job for one that has timed out.
    """
    import submitit

    executor = submitit.SlurmExecutor(folder=folder, python=f"{shlex.quote(sys.executable)} -u -m {_ENTRY}")
    cpus = options.get("cpus-per-task")
    of_step = [] if cpus is None else ["--cpus-per-task", str(cpus)]  # a step no longer inherits them
    executor.update_parameters(
        job_name=name,
        time=None,
        wckey=None,
        stderr_to_stdout=True,
        array_parallelism=at_once or len(plans),
        additional_parameters=dict(options),
        srun_args=["--export=ALL", *of_step],  # what submitit sets, too, where the user exports NONE to the job
    )
    try:
        with explained(folder, "Free some space."), _own_environment({*options, *OURS}), redirect_stderr(io.StringIO()):
            jobs = executor.map_array(function, plans)  # what it prints of errors is told below
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Try ")]
        if UNREACHABLE in str(error):
            raise NoAnswer("sbatch", _plain(lines[-1])) from error
        raise RunError(
            f"sbatch refuses the jobs: {_plain(lines[-1]) if lines else 'it does not say why'}",
            where="--launcher slurm",
            remedy="Change the launcher's settings: docs/scaling.md, Sweeps on a cluster.",
        ) from error
    return str(jobs[0].job_id).partition("_")[0]


@contextmanager
def _own_environment(options: Collection[str]) -> Iterator[None]:
    """Without what a job that this command runs in was given; with what a user sets for SLURM's commands.

    For sbatch its variables win over the options in a script. Those of `options`, which the launcher sets, must not.
    """
    from submitit.helpers import clean_env

    set_by_us = {f"SBATCH_{name}" for option in options for name in _variables(option)}
    of_user = {
        key: text
        for key, text in os.environ.items()
        if key in ("SLURM_CONF", "SLURM_CLUSTERS") or (key.startswith("SBATCH_") and key not in set_by_us)
    }
    with clean_env():
        os.environ.update(of_user)
        yield


def _variables(option: str) -> Sequence[str]:
    """How the variables of an option of sbatch are called, after SBATCH_."""
    return _VARIABLES.get(option, (option.upper().replace("-", "_"),))


def most_tasks() -> int:
    """The jobs that an array may have."""
    limits = re.findall(r"(?:MaxArraySize\s*|max_array_tasks)=\s*(\d+)", _call("scontrol", "show", "config"))
    return max(min(map(int, limits), default=ARRAY), 1)


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue, and end those that run; they save first."""
    for first in range(0, len(jobs), 500):
        _call("scancel", *jobs[first : first + 500])


def own_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """The id of the job that this process is in. The plain number of an array's job may be that of all the array."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def seconds_left(job: str) -> float | None:
    """The time until a running job reaches its limit, `inf` if it has none; None if SLURM does not say."""
    try:
        return parse_time(_call("squeue", "-h", "-j", job, "-o", "%L").strip())
    except (InputError, RunError):
        return None


def parse_time(text: str) -> float | None:
    """The seconds of a time as squeue prints it: m:ss, h:mm:ss or d-hh:mm:ss, or UNLIMITED; None for another word."""
    if text == "UNLIMITED":
        return math.inf
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds


def requeue(job: str) -> None:
    """Put a running job back into the queue, which ends it here; `RunError` if that is refused."""
    _call("scontrol", "requeue", job)


def _call(*command: str) -> str:
    # A user's filters of what these commands list, or end, would hide jobs of ours.
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("SQUEUE_", "SCANCEL_"))}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            env=environment,
        )
    except FileNotFoundError as error:
        raise _no_slurm(command[0]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(command[0], str(getattr(error, "strerror", None) or f"no answer in {TIMEOUT:.0f} s")) from error
    if done.returncode:
        why = _plain(done.stderr.strip().partition("\n")[0])
        raise NoAnswer(command[0], why or f"exit code {done.returncode}")
    return done.stdout


def _plain(line: str) -> str:
    """A message of one of SLURM's commands without its name."""
    return re.sub(r"^s\w+: (error: |fatal: )?", "", line)


def _no_slurm(command: str) -> InputError:
    return InputError(
        f"there is no SLURM here: {command} is not found",
        where="--launcher slurm",
        remedy="Call it where jobs are submitted from, or leave it out.",
    )
