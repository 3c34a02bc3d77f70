"""Running the members of a sweep: finished ones are read, half-finished ones resumed, the others started."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cssl_cli.errors import InUseError, ReadOnlyError
from cssl_cli.host.files import remove_leftovers, require_writable
from cssl_cli.host.progress import Reporter, SweepReporter
from cssl_cli.recipe import Recipe
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep import memory_check
from cssl_cli.sweep.request import SweepRequest, require_one_root
from cssl_cli.sweep.results_index import ResultsIndex, Take, Wanted, read_results
from cssl_cli.sweep.sweep import Member, Sweep
from cssl_cli.sweep.workers.pool import Job, Pool, PoolSettings
from cssl_cli.sweep.workers.stages import Missing, Workshop

LOGS = "logs"  # of the workers, one file per member


@dataclass(frozen=True)
class MemberResult:
    """A member with what its run directory holds, or why it failed, where, and what to do about it.

    `taken` is what a report took from the results (results_index.py), None if nothing was asked for. `damage` has one
    sentence for each file that was ignored because it is damaged.
    """

    member: Member
    path: Path
    probe: Mapping[str, Any] | None
    analysis: Mapping[str, Any] | None
    error: str | None
    taken: Any = None
    damage: tuple[str, ...] = ()


def member_path(sweep: Sweep, member: Member, out: Path) -> Path:
    """The run directory of a member; members that differ only in how they are measured share the first one's."""
    name = sweep.run_names[member.fingerprint]
    return RunDir.at(out / sweep.name, name=name, fingerprint=member.fingerprint).path


def read_member(sweep: Sweep, member: Member, out: Path) -> MemberResult:
    """A member as it is on disk; damaged results, or results with other settings than the recipe's, do not count."""
    recipe = member.recipe
    found = read_results(Wanted(member_path(sweep, member, out), recipe.settings("probe"), recipe.settings("analyze")))
    return MemberResult(member, found.path, found.probe, found.analysis, found.failure, damage=found.damage)


def read_sweep(sweep: Sweep, out: Path, take: Take | None = None) -> list[MemberResult]:
    """Every member as it is on disk, with what `take` takes from it; results are read on first access."""
    shared: dict[Any, dict[str, Any]] = {}  # equal blocks share one settings mapping

    def settings(member: Member, block: str) -> dict[str, Any]:
        content = getattr(member.recipe, block)
        if content not in shared:
            shared[content] = member.recipe.settings(block)
        return shared[content]

    wanted = [
        Wanted(member_path(sweep, member, out), settings(member, "probe"), settings(member, "analyze"))
        for member in sweep.members
    ]
    found = ResultsIndex(out / sweep.name, take).read(wanted)
    return [
        MemberResult(member, one.path, there.probe, there.analysis, there.failure, there.taken, there.damage)
        for member, one, there in zip(sweep.members, wanted, found, strict=True)
    ]


def run_sweep(request: SweepRequest, reporter: SweepReporter, *, take: Take | None = None) -> list[MemberResult]:
    """Pretrain, probe and analyze the selected unfinished members; a failure does not stop the others.

    Returns every member of the sweep, unselected ones as they are on disk, with what `take` takes from each. Members
    in use by another process are tried once more at the end.
    """
    deadline = math.inf if request.seconds is None else time.monotonic() + request.seconds
    unfinished = _unfinished(request)
    _require_memory(request, unfinished)
    try:
        require_writable(request.home, "Choose another folder with --out DIR; --report prints what is there.")
    except ReadOnlyError:
        if unfinished:
            raise
    remove_leftovers(request.home)
    require_one_root(request)
    for recipe in {member.recipe.data: member.recipe for member in request.members}.values():
        # Reports an unset environment variable once rather than for each member.
        recipe.settings("data", data_root=request.data_root)
    run = _run_here if request.jobs is None else _run_in_pool
    ends = run(request, unfinished, deadline, reporter)
    _tell(ends, reporter)
    results = read_sweep(request.sweep, request.out, take)
    return [replace(result, error=ends.errors.get(result.member.name, result.error)) for result in results]


def require_memory(request: SweepRequest) -> None:
    """`InputError` if the unfinished members cannot fit into this machine's memory."""
    _require_memory(request, _unfinished(request))


def _require_memory(request: SweepRequest, unfinished: Sequence[Member]) -> None:
    work = [(member, member_path(request.sweep, member, request.out)) for member in unfinished]
    memory_check.require_memory(work, device_name=request.device, jobs=request.jobs)


@dataclass
class _Ends:
    """How the members ended: sentences for failed ones, names of those in use."""

    meant: int
    errors: dict[str, str]
    in_use: list[str]
    not_started: int


def _tell(ends: _Ends, reporter: Reporter) -> None:
    if ends.in_use:
        reporter.say(
            f"run by another process: {', '.join(ends.in_use)}; the same command reads them when they are done"
        )
    if ends.not_started:
        reporter.say(
            f"the budget is used up: {ends.not_started} of {ends.meant} member{'s' * (ends.meant != 1)} not started; "
            "the same command goes on"
        )


def _missing(result: MemberResult) -> Missing | None:
    """The missing results of a member; None if it is complete."""
    missing = Missing(probe=result.probe is None, analysis=result.analysis is None)
    if missing.probe and not missing.analysis and not RunDir(result.path).labelled():
        return None  # images without labels give no accuracies
    return missing if missing.probe or missing.analysis else None


def _as_run(sweep: Sweep, member: Member) -> Recipe:
    """The member's recipe, named as its run."""
    return member.recipe.model_copy(update={"name": sweep.run_names[member.fingerprint]})


def _run_here(request: SweepRequest, unfinished: Sequence[Member], deadline: float, reporter: Reporter) -> _Ends:
    """Run one member after another in this process; retry those in use at the end."""
    if unfinished:
        from cssl_cli.runs.device import choose_device

        choose_device(request.device)  # reports an unknown name once rather than for each member
    workshop = Workshop(request.home, reporter, request.device, request.data_root)
    ends = _Ends(len(request.members), {}, [], 0)
    names = {member.name for member in unfinished}
    numbered = [(number, member) for number, member in enumerate(request.members, start=1) if member.name in names]
    for _ in range(2):
        in_use = []
        for number, member in numbered:
            missing = _missing(read_member(request.sweep, member, request.out))
            if missing is None:
                continue
            if time.monotonic() >= deadline:
                ends.not_started += 1
                continue
            reporter.say(f"[{number}/{len(request.members)}] {member.name}")
            failure = workshop.complete(_as_run(request.sweep, member), missing)
            if failure is None:
                continue
            if isinstance(failure.error, InUseError):
                in_use.append((number, member))
            else:
                ends.errors[member.name] = failure.sentence
        numbered = in_use
    ends.in_use = [member.name for _, member in numbered]
    return ends


def _run_in_pool(
    request: SweepRequest, unfinished: Sequence[Member], deadline: float, reporter: SweepReporter
) -> _Ends:
    """Run several members at a time, each in its own process."""
    assert request.jobs is not None
    sweep, out = request.sweep, request.out
    settings = PoolSettings(
        workers=request.jobs,
        home=request.home,
        logs=request.home / LOGS,
        device=request.device,
        retries=request.retries,
        deadline=deadline,
        data_root=request.data_root,
    )
    by_name = {member.name: member for member in unfinished}
    pool = Pool(settings, lambda job: _missing(read_member(sweep, by_name[job.name], out)), reporter)
    jobs = [Job(member.name, _as_run(sweep, member), member_path(sweep, member, out)) for member in unfinished]
    pool.run(jobs, done_before=len(request.members) - len(jobs))
    errors = {name: outcome.error for name, outcome in pool.outcomes.items() if outcome.error is not None}
    in_use = [name for name, outcome in pool.outcomes.items() if outcome.in_use]
    return _Ends(len(request.members), errors, in_use, pool.not_started)


def _unfinished(request: SweepRequest) -> list[Member]:
    """The selected members that are incomplete, in order."""
    names = {result.member.name for result in read_sweep(request.sweep, request.out) if _missing(result)}
    return [member for member in request.members if member.name in names]
