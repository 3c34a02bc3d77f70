"""Running the members of a sweep: finished ones are read, half-finished ones resumed, the others started."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, DamagedError, Interrupted, InUseError, ReadOnlyError
from cssl_cli.host.files import remove_leftovers, require_writable
from cssl_cli.host.progress import MemberProgress, Reporter, SweepProgress, SweepReporter, TaskProgress, clock
from cssl_cli.recipe import Recipe
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep import memory_check
from cssl_cli.sweep.halving import Lacking, halving_of, run_halved
from cssl_cli.sweep.ranking import HowToRank, Ranking, SetToRank, rank_sets, read_ranking, sets_of
from cssl_cli.sweep.request import SweepRequest, require_one_root
from cssl_cli.sweep.results_index import ResultsIndex, Take, Wanted, read_results
from cssl_cli.sweep.stored import store_sweep
from cssl_cli.sweep.sweep import Member, Sweep
from cssl_cli.sweep.workers.messages import Ended, Message, Notice, RankTask
from cssl_cli.sweep.workers.missing import missing_in
from cssl_cli.sweep.workers.pool import Job, Pool, PoolSettings
from cssl_cli.sweep.workers.process import run_alone, threads_each
from cssl_cli.sweep.workers.stages import Workshop
from cssl_cli.tracking.mirror import prepare

LOGS = "logs"  # of the workers, one file per member


@dataclass(frozen=True)
class MemberResult:
    """A member with what its run directory holds, or why it failed, where, and what to do about it.

    `taken` is what a report took from the results (results_index.py), None if nothing was asked for. `damage` has one
    sentence for each file that was ignored because it is damaged. `ranked` is what the sweep's ranking says of the
    member's augmentations (ranking.py), None if they are not ranked. `stopped` says where successive halving stopped
    it (`runs.stored.Stopped`), None if it did not.
    """

    member: Member
    path: Path
    probe: Mapping[str, Any] | None
    analysis: Mapping[str, Any] | None
    error: str | None
    taken: Any = None
    damage: tuple[str, ...] = ()
    ranked: Mapping[str, Any] | None = None
    stopped: Mapping[str, Any] | None = None


def member_path(sweep: Sweep, member: Member, out: Path) -> Path:
    """The run directory of a member; members that differ only in how they are measured share the first one's."""
    name = sweep.run_names[member.fingerprint]
    return RunDir.at(out / sweep.name, name=name, fingerprint=member.fingerprint).path


def read_member(sweep: Sweep, member: Member, out: Path) -> MemberResult:
    """A member as it is on disk; damaged results, or results with other settings than the recipe's, do not count."""
    recipe = member.recipe
    found = read_results(Wanted(member_path(sweep, member, out), recipe.settings("probe"), recipe.settings("analyze")))
    return MemberResult(
        member, found.path, found.probe, found.analysis, found.failure, damage=found.damage, stopped=found.stopped
    )


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
    how = HowToRank.of(sweep)
    ranking = Ranking({}) if how is None else read_ranking(out / sweep.name)
    return [
        MemberResult(
            member,
            one.path,
            there.probe,
            there.analysis,
            there.failure,
            there.taken,
            (*there.damage, *ranking.damage),
            None if how is None else ranking.sets.get(how.key(member.recipe)),
            there.stopped,
        )
        for member, one, there in zip(sweep.members, wanted, found, strict=True)
    ]


def run_sweep(request: SweepRequest, reporter: SweepReporter, *, take: Take | None = None) -> list[MemberResult]:
    """Pretrain, probe and analyze the selected unfinished members; a failure does not stop the others.

    With `eta`, only the best rows train to their end (halving.py). Before that, ranks their augmentations, where the
    sweep says so; without a ranking it goes on all the same. Returns every member of the sweep, unselected ones as they
    are on disk, with what `take` takes from each. Members in use by another process are tried once more at the end.
    """
    deadline = math.inf if request.seconds is None else time.monotonic() + request.seconds
    halving = None if request.eta is None else halving_of(request)
    unfinished = _unfinished(request)
    _require_memory(request, unfinished)
    open_home(request, reporter, must_write=bool(unfinished))
    ranked = rank_augmentations(request, reporter)
    run = _run_here if request.jobs is None else _run_in_pool
    if halving is None:
        ends = run(request, unfinished, deadline, reporter, _lacking(request))
    else:

        def train(part: SweepRequest, lacking: Lacking | None) -> _Ends:
            left = _unfinished(part) if lacking is None else [member for member in part.members if lacking(member)]
            return run(part, left, deadline, reporter, lacking or _lacking(part))

        ends = run_halved(request, halving, train, partial(_path_of, request), reporter)
    if not ranked:
        rank_augmentations(request, reporter)
    _tell(ends, reporter)
    results = read_sweep(request.sweep, request.out, take)
    return [replace(result, error=ends.errors.get(result.member.name, result.error)) for result in results]


def open_home(request: SweepRequest, reporter: Reporter, *, must_write: bool) -> None:
    """Make the sweep's folder ready for its members, and check what they share; a CsslError if that fails."""
    try:
        require_writable(request.home, "Choose another folder with --out DIR; --report prints what is there.")
    except ReadOnlyError:
        if must_write:
            raise
    remove_leftovers(request.home)
    _store(request, reporter)
    require_one_root(request)
    for recipe in {member.recipe.data: member.recipe for member in request.members}.values():
        # Reports an unset environment variable once rather than for each member.
        recipe.settings("data", data_root=request.data_root)


def _path_of(request: SweepRequest, member: Member) -> Path:
    return member_path(request.sweep, member, request.out)


def _store(request: SweepRequest, reporter: Reporter) -> None:
    """Keep the sweep beside its runs, for its report; where that fails, the runs go on."""
    try:
        store_sweep(request.sweep, request.home)
    except ReadOnlyError:
        pass
    except CsslError as error:
        reporter.say(str(error))


def rank_augmentations(request: SweepRequest, reporter: SweepReporter) -> bool:
    """Rank the selected members' augmentations that are not ranked yet; False while another process does so.

    Images that cannot be ranked, or are not those of the members any more, are told and no failure.
    """
    how = HowToRank.of(request.sweep)
    missing = [] if how is None else _unranked(request, how)
    if how is None or not missing:
        return True
    reporter.say(f"ranking {len(missing)} set{'s' * (len(missing) != 1)} of augmentations before training")
    ended = (_rank_here if request.jobs is None else _rank_in_worker)(request, missing, how, reporter)
    if ended.error is not None and not ended.in_use:
        reporter.notice(f"the augmentations are not ranked: {ended.error}")
    elif ended.error is None and _unranked(request, how):
        reporter.notice("the images changed since the members began: their augmentations' ranking does not count")
    return not ended.in_use


def _unranked(request: SweepRequest, how: HowToRank) -> list[SetToRank]:
    """The sets that rank.json lacks, or has of other images than a run of theirs."""
    known, of_run = read_ranking(request.home).sets, dict[str, str]()
    for member in request.members if known else ():
        if (key := how.key(member.recipe)) in known and key not in of_run:
            with suppress(DamagedError):
                environment = RunDir(member_path(request.sweep, member, request.out)).environment()
                if environment is not None:
                    of_run[key] = environment["content_key"]
    return [
        one
        for key, one in sets_of(request.members, how).items()
        if key not in known or of_run.get(key, known[key]["content_key"]) != known[key]["content_key"]
    ]


def _rank_here(request: SweepRequest, sets: Sequence[SetToRank], how: HowToRank, reporter: SweepReporter) -> Ended:
    try:
        rank_sets(request.home, sets, how, Workshop(request.home, reporter, request.device, request.data_root))
    except Interrupted:
        raise
    except CsslError as error:
        return Ended(error=str(error), in_use=isinstance(error, InUseError))
    except Exception as error:  # a bug here must not cost the sweep
        return Ended(error=f"{type(error).__name__}: {error}")
    return Ended()


def _rank_in_worker(request: SweepRequest, sets: Sequence[SetToRank], how: HowToRank, reporter: SweepReporter) -> Ended:
    """The same in a process of its own: this one must stay without torch."""
    begun = time.monotonic()
    task = RankTask(
        sets=[(one.recipe.model_dump(mode="json", by_alias=True), list(one.rows)) for one in sets],
        num_images=how.num_images,
        seed=how.seed,
        home=str(request.home),
        log=str(request.home / LOGS / "rank.log"),
        device=request.device,
        heading="rank",
        data_root=request.data_root,
    )

    def tell(message: Message) -> None:
        if isinstance(message, TaskProgress):
            at_work = MemberProgress("rank", message, time.monotonic() - begun)
            reporter.show(SweepProgress((at_work,), 0, 0, len(request.members), None, stopping=False))
        elif isinstance(message, Notice):
            reporter.notice(message.text)

    try:
        return run_alone(task, threads=threads_each(1), tell=tell)
    except OSError as error:
        return Ended(error=f"no process can be started for it: {error.strerror or error}")


def require_memory(request: SweepRequest) -> list[Member]:
    """The unfinished members; `InputError` if they cannot fit into this machine's memory."""
    unfinished = _unfinished(request)
    _require_memory(request, unfinished)
    return unfinished


def unfinished_work(request: SweepRequest) -> list[tuple[Member, Path]]:
    """The selected members that are incomplete, in order, with their run directories."""
    return _with_paths(request, _unfinished(request))


def _require_memory(request: SweepRequest, unfinished: Sequence[Member]) -> None:
    memory_check.require_memory(_with_paths(request, unfinished), device_name=request.device, jobs=request.jobs)


def _with_paths(request: SweepRequest, members: Sequence[Member]) -> list[tuple[Member, Path]]:
    return [(member, member_path(request.sweep, member, request.out)) for member in members]


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


def as_run(sweep: Sweep, member: Member) -> Recipe:
    """The member's recipe, named as its run."""
    return member.recipe.model_copy(update={"name": sweep.run_names[member.fingerprint]})


def _lacking(request: SweepRequest) -> Lacking:
    return lambda member: missing_in(read_member(request.sweep, member, request.out))


def _run_here(
    request: SweepRequest, unfinished: Sequence[Member], deadline: float, reporter: SweepReporter, lacking: Lacking
) -> _Ends:
    """Run one member after another in this process; retry those in use at the end."""
    if unfinished:
        from cssl_cli.runs.device import choose_device

        choose_device(request.device)  # reports an unknown name once rather than for each member
    workshop = Workshop(request.home, reporter, request.device, request.data_root, request.track)
    ends = _Ends(len(request.members), {}, [], 0)
    names = {member.name for member in unfinished}
    numbered = [(number, member) for number, member in enumerate(request.members, start=1) if member.name in names]
    durations: list[float] = []
    for _ in range(2):
        in_use = []
        for position, (number, member) in enumerate(numbered):
            missing = lacking(member)
            if missing is None:
                continue
            if time.monotonic() >= deadline:
                ends.not_started += 1
                continue
            left = statistics.fmean(durations) * (len(numbered) - position) if durations else None
            reporter.say(f"[{number}/{len(request.members)}] {member.name}{'' if left is None else _about(left)}")
            reporter.show(_progress(request, len(numbered) - position, member, left, failed=len(ends.errors)))
            begun = time.monotonic()
            failure = workshop.complete(as_run(request.sweep, member), missing)
            durations.append(time.monotonic() - begun)
            if failure is None:
                continue
            if isinstance(failure.error, InUseError):
                in_use.append((number, member))
            else:
                ends.errors[member.name] = failure.sentence
        numbered = in_use
    ends.in_use = [member.name for _, member in numbered]
    return ends


def _about(seconds: float) -> str:
    return f", about {clock(seconds)} left"


def _progress(request: SweepRequest, left: int, member: Member, seconds: float | None, *, failed: int) -> SweepProgress:
    """With one member at work and `left` members to do, this one among them."""
    at_work = (MemberProgress(member.name, TaskProgress("", 0, 0, ""), 0.0),)
    finished = len(request.members) - left - failed
    return SweepProgress(at_work, finished, failed, left - 1, seconds, stopping=False)


def _run_in_pool(
    request: SweepRequest, unfinished: Sequence[Member], deadline: float, reporter: SweepReporter, lacking: Lacking
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
        track=prepare(request.track, request.home, reporter.notice),
    )
    by_name = {member.name: member for member in unfinished}
    pool = Pool(settings, lambda job: lacking(by_name[job.name]), reporter)
    jobs = [Job(member.name, as_run(sweep, member), member_path(sweep, member, out)) for member in unfinished]
    pool.run(jobs, done_before=len(request.members) - len(jobs))
    errors = {name: outcome.error for name, outcome in pool.outcomes.items() if outcome.error is not None}
    in_use = [name for name, outcome in pool.outcomes.items() if outcome.in_use]
    return _Ends(len(request.members), errors, in_use, pool.not_started)


def _unfinished(request: SweepRequest) -> list[Member]:
    """The selected members that are incomplete, in order."""
    names = {result.member.name for result in read_sweep(request.sweep, request.out) if missing_in(result)}
    return [member for member in request.members if member.name in names]
