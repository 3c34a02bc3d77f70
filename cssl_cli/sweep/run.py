"""Running the members of a sweep: what is finished is read, what is half-finished goes on, the rest starts."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cssl_cli.errors import InputError, InUseError, ReadOnlyError
from cssl_cli.host.files import remove_leftovers, require_writable
from cssl_cli.host.progress import Reporter, SweepReporter
from cssl_cli.recipe import Recipe
from cssl_cli.runs import memory
from cssl_cli.runs.run_dir import ENCODER, RunDir
from cssl_cli.sweep.results_index import ResultsIndex, Take, Wanted, read_results
from cssl_cli.sweep.sweep import Member, Sweep
from cssl_cli.sweep.workers.pool import Job, Pool, PoolSettings
from cssl_cli.sweep.workers.stages import Missing, Workshop

CONCENTRATION = "concentration.json"
LOGS = "logs"  # of the workers, a file a member


@dataclass(frozen=True)
class MemberResult:
    """A member of a sweep with what its run directory holds, or why it failed, where, and what to do about it.

    `taken` is what a report took from the results (results_index.py), None where nothing was asked for. `damage` has a
    sentence for each file that does not count because it is not as it was written.
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
    """What is on disk of a member; results that are damaged, or of other settings than the recipe's, do not count."""
    recipe = member.recipe
    found = read_results(Wanted(member_path(sweep, member, out), recipe.settings("probe"), recipe.settings("analyze")))
    return MemberResult(member, found.path, found.probe, found.analysis, found.failure, damage=found.damage)


def read_sweep(sweep: Sweep, out: Path, take: Take | None = None) -> list[MemberResult]:
    """What is on disk of every member, and what is to be taken from it; results are read when looked into."""
    shared: dict[Any, dict[str, Any]] = {}  # the settings of equal blocks are one mapping

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


def run_sweep(
    sweep: Sweep,
    *,
    out: Path,
    reporter: SweepReporter,
    device_name: str | None = None,
    members: Sequence[Member] | None = None,
    budget: float | None = None,
    jobs: int | None = None,
    retries: int = 0,
    data_root: str | None = None,
    take: Take | None = None,
) -> list[MemberResult]:
    """Pretrain, probe and analyse the `members` (None: all) that are not finished; a failure does not stop the rest.

    With `jobs`, so many members at a time, each in a process of its own, and one that fails is tried again up to
    `retries` times; without, one after another in this process. Gives every member of the sweep, those that were not
    meant as they are on disk, with what is to be taken from each. Members that another process works on are
    taken up once more after the others. After `budget` seconds no further member is started. `data_root` is where the
    images lie, in place of the recipes' data.root.
    """
    home = out / sweep.name
    deadline = math.inf if budget is None else time.monotonic() + budget
    meant = sweep.members if members is None else members
    unfinished = _unfinished(sweep, meant, out)
    _require_memory(sweep, unfinished, out, device_name)
    try:
        require_writable(home, "Choose another folder with --out DIR; --report prints what is there.")
    except ReadOnlyError:
        if unfinished:
            raise
    remove_leftovers(home)
    _check_one_root(meant, data_root)
    for recipe in {member.recipe.data: member.recipe for member in meant}.values():
        recipe.settings(
            "data", data_root=data_root
        )  # told once if an environment variable is not set, rather than of each member
    if jobs is None:
        workshop = Workshop(home, reporter, device_name, data_root)
        ends = _run_here(sweep, meant, unfinished, out, workshop, deadline)
    else:
        settings = PoolSettings(
            workers=jobs,
            home=home,
            logs=home / LOGS,
            device=device_name,
            retries=retries,
            deadline=deadline,
            data_root=data_root,
        )
        ends = _run_in_pool(sweep, meant, unfinished, out, settings, reporter)
    _tell(ends, reporter)
    results = read_sweep(sweep, out, take)
    return [replace(result, error=ends.errors.get(result.member.name, result.error)) for result in results]


def require_memory(sweep: Sweep, members: Sequence[Member], out: Path, device_name: str | None) -> None:
    """`InputError` when one of the `members` that are not finished cannot fit into this machine's memory."""
    _require_memory(sweep, _unfinished(sweep, members, out), out, device_name)


def _require_memory(sweep: Sweep, unfinished: Sequence[Member], out: Path, device_name: str | None) -> None:
    alike: dict[Any, tuple[Member, bool]] = {}
    for member in unfinished:
        recipe = member.recipe
        blocks = (recipe.data, recipe.encoder, recipe.method, recipe.optim, recipe.train, recipe.analyze)
        trained = member_path(sweep, member, out).joinpath(ENCODER).exists()
        alike.setdefault((trained, *map(id, blocks)), (member, trained))  # members share blocks
    free = memory.free_memory()
    for member, trained in alike.values():
        try:
            memory.require_within(free, member.recipe, device_name, trained=trained)
        except InputError as error:
            error.where = f"{member.name}: {error.where}"
            error.remedy = f"{error.remedy} Without this row: --skip {member.row}"
            raise


def _check_one_root(members: Sequence[Member], data_root: str | None) -> None:
    """`InputError` where one folder is named for members whose images lie in several, or in none."""
    roots = {getattr(member.recipe.data, "root", ...) for member in members}
    if data_root is not None and (len(roots) > 1 or ... in roots):
        raise InputError(
            "the images of these members lie in no folder"
            if roots == {...}
            else "the images of these members do not all lie in one folder",
            where="--data-root",
            remedy="Leave it out, or choose members with --only.",
        )


@dataclass
class _Ends:
    """What became of the members that were to be run: sentences for those that failed, names of those in use."""

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
    """What a member lacks; None when nothing."""
    missing = Missing(probe=result.probe is None, analysis=result.analysis is None)
    if missing.probe and not missing.analysis and not RunDir(result.path).labelled():
        return None  # of images without labels there are no accuracies
    return missing if missing.probe or missing.analysis else None


def _as_run(sweep: Sweep, member: Member) -> Recipe:
    """The member's recipe under the name of its run."""
    return member.recipe.model_copy(update={"name": sweep.run_names[member.fingerprint]})


def _run_here(
    sweep: Sweep,
    members: Sequence[Member],
    unfinished: Sequence[Member],
    out: Path,
    workshop: Workshop,
    deadline: float,
) -> _Ends:
    """One member after another in this process; those in use are taken up once more after the others."""
    ends = _Ends(len(members), {}, [], 0)
    names = {member.name for member in unfinished}
    numbered = [(number, member) for number, member in enumerate(members, start=1) if member.name in names]
    for _ in range(2):
        in_use = []
        for number, member in numbered:
            missing = _missing(read_member(sweep, member, out))
            if missing is None:
                continue
            if time.monotonic() >= deadline:
                ends.not_started += 1
                continue
            workshop.reporter.say(f"[{number}/{len(members)}] {member.name}")
            failure = workshop.complete(_as_run(sweep, member), missing)
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
    sweep: Sweep,
    members: Sequence[Member],
    unfinished: Sequence[Member],
    out: Path,
    settings: PoolSettings,
    reporter: SweepReporter,
) -> _Ends:
    """Several members at a time, each in a process of its own."""
    by_name = {member.name: member for member in unfinished}
    pool = Pool(settings, lambda job: _missing(read_member(sweep, by_name[job.name], out)), reporter)
    jobs = [Job(member.name, _as_run(sweep, member), member_path(sweep, member, out)) for member in unfinished]
    pool.run(jobs, done_before=len(members) - len(jobs))
    errors = {name: outcome.error for name, outcome in pool.outcomes.items() if outcome.error is not None}
    in_use = [name for name, outcome in pool.outcomes.items() if outcome.in_use]
    return _Ends(len(members), errors, in_use, pool.not_started)


def _unfinished(sweep: Sweep, members: Sequence[Member], out: Path) -> list[Member]:
    """Those of the members that lack something, in their order."""
    names = {result.member.name for result in read_sweep(sweep, out) if _missing(result)}
    return [member for member in members if member.name in names]


def concentrate_sweep(
    sweep: Sweep,
    *,
    out: Path,
    reporter: Reporter,
    device_name: str | None = None,
    members: Sequence[Member] | None = None,
    data_root: str | None = None,
) -> dict[str, Any]:
    """The concentration of each row's augmented images, without training anything; of `members` only, where given.

    Written beside the runs when it is of the whole sweep. A row is measured with the first of its seeds; rows that do
    the same to the same images are one.
    """
    from cssl_cli.runs.concentrate import analyze_recipe

    home = RunDir(out / sweep.name)
    require_writable(home.path, "Choose another folder with --out DIR.")
    _check_one_root(sweep.members if members is None else members, data_root)
    workshop = Workshop(home.path, reporter, device_name, data_root)
    first_of_row: dict[str, Member] = {}
    for member in sweep.members if members is None else members:
        first_of_row.setdefault(member.row, member)
    alike: dict[str, list[Member]] = {}
    for member in first_of_row.values():
        alike.setdefault(_views_and_distances(member.recipe), []).append(member)
    rows = []
    for number, same_views in enumerate(alike.values(), start=1):
        first, *others = same_views
        reporter.say(f"[{number}/{len(alike)}] {', '.join(member.row for member in same_views)}")
        result = analyze_recipe(
            first.recipe, reporter=reporter, device_name=device_name, dataset=workshop.dataset(first.recipe)
        )
        same = [member.row for member in others]
        rows.append({"row": first.row, "same": same, "axes": dict(first.axes), "seed": first.seed, **result})
    content = {"sweep": sweep.name, "rows": rows}
    if members is None or len(members) == len(sweep.members):
        home.write_json(CONCENTRATION, content)
    return content


def _views_and_distances(recipe: Recipe) -> str:
    """All that the concentration of a recipe's augmented images depends on."""
    analysis = recipe.settings("analyze")
    blocks = ["data", "augment", *(["encoder"] if "untrained" in analysis["distances"] else [])]
    return repr([recipe.seed, analysis, *(recipe.settings(block) for block in blocks)])
