"""Running the members of a sweep: what is finished is read, what is half-finished goes on, the rest starts."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, Interrupted, InUseError, RunError
from cssl_cli.files import require_writable
from cssl_cli.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.run_dir import ANALYSIS, PROBE, RunDir
from cssl_cli.sweep import Member, Sweep

CONCENTRATION = "concentration.json"


@dataclass(frozen=True)
class MemberResult:
    """A member of a sweep with what its run directory holds, or the sentence that says why it failed."""

    member: Member
    path: Path
    probe: dict[str, Any] | None
    analysis: dict[str, Any] | None
    error: str | None


def member_path(sweep: Sweep, member: Member, out: Path) -> Path:
    """The run directory of a member; members that differ only in how they are measured share the first one's."""
    return RunDir.at(out / sweep.name, name=_run_name(sweep, member), fingerprint=member.recipe.fingerprint).path


def _run_name(sweep: Sweep, member: Member) -> str:
    fingerprint = member.recipe.fingerprint
    return next(other.name for other in sweep.members if other.recipe.fingerprint == fingerprint)


def read_member(sweep: Sweep, member: Member, out: Path) -> MemberResult:
    """What is on disk of a member; results that are damaged, or of other settings than the recipe's, do not count."""
    run = RunDir(member_path(sweep, member, out))
    probe = run.read_result(PROBE, member.recipe.settings("probe"))
    analysis = run.read_result(ANALYSIS, member.recipe.settings("analyze"))
    return MemberResult(member, run.path, probe, analysis, None)


def read_sweep(sweep: Sweep, out: Path) -> list[MemberResult]:
    """What is on disk of every member."""
    return [read_member(sweep, member, out) for member in sweep.members]


def run_sweep(
    sweep: Sweep,
    *,
    out: Path,
    reporter: Reporter,
    device_name: str | None = None,
    members: Sequence[Member] | None = None,
    budget: float | None = None,
) -> list[MemberResult]:
    """Pretrain, probe and analyse the `members` (None: all) that are not finished; a failure does not stop the rest.

    Gives every member of the sweep, those that were not meant as they are on disk. Members that another process works
    on are taken up once more after the others. After `budget` seconds no further member is started.
    """
    require_writable(out / sweep.name, "Choose another folder with --out DIR.")
    workshop = _Workshop(out / sweep.name, reporter, device_name)
    deadline = math.inf if budget is None else time.monotonic() + budget
    results: dict[str, MemberResult] = {}
    again = _pass(sweep, sweep.members if members is None else members, out, workshop, results, deadline)
    _pass(sweep, again, out, workshop, results, deadline)
    return [results.get(member.name) or read_member(sweep, member, out) for member in sweep.members]


def _pass(
    sweep: Sweep,
    members: Sequence[Member],
    out: Path,
    workshop: _Workshop,
    results: dict[str, MemberResult],
    deadline: float,
) -> list[Member]:
    """Complete the members that are not finished and enter their results; returns those that were in use."""
    in_use, not_started = [], 0
    for number, member in enumerate(members, start=1):
        result = read_member(sweep, member, out)
        if result.probe is None or result.analysis is None:
            if time.monotonic() >= deadline:
                not_started += 1
                continue
            workshop.reporter.say(f"[{number}/{len(members)}] {member.name}")
            named = member.recipe.model_copy(update={"name": _run_name(sweep, member)})
            error = workshop.complete(named, result)
            result = replace(read_member(sweep, member, out), error=None if error is None else error.what)
            if isinstance(error, InUseError):
                in_use.append(member)
        results[member.name] = result
    if not_started:
        workshop.reporter.say(
            f"the budget is used up: {not_started} of {len(members)} members not started; the same command goes on"
        )
    return in_use


def concentrate_sweep(
    sweep: Sweep,
    *,
    out: Path,
    reporter: Reporter,
    device_name: str | None = None,
    members: Sequence[Member] | None = None,
) -> dict[str, Any]:
    """The concentration of each row's augmented images, without training anything; of `members` only, where given.

    Written beside the runs when it is of the whole sweep. A row is measured with the first of its seeds; rows that do
    the same to the same images are one.
    """
    from cssl_cli.pipeline.concentrate import analyze_recipe

    home = RunDir(out / sweep.name)
    require_writable(home.path, "Choose another folder with --out DIR.")
    workshop = _Workshop(home.path, reporter, device_name)
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


class _Workshop:
    """Carries members through their stages and keeps what they share: the loaded images and the baselines."""

    def __init__(self, out: Path, reporter: Reporter, device_name: str | None) -> None:
        self.out, self.reporter, self.device_name = out, reporter, device_name
        self.baselines: dict[tuple[str, ...], dict[str, Any]] = {}
        self.data: tuple[str, Any] = ("", None)

    def complete(self, recipe: Recipe, so_far: MemberResult) -> CsslError | None:
        """Do the stages that are missing; the failure, or None."""
        try:
            self._stages(recipe, so_far)
        except Interrupted:
            raise
        except CsslError as error:
            self.reporter.say(f"failed: {error}")
            return error
        except Exception as error:  # a bug in one member must not cost a night's sweep; its traceback is kept
            log = so_far.path / "error.log"
            with suppress(OSError):
                so_far.path.mkdir(parents=True, exist_ok=True)
                log.write_text(traceback.format_exc(), encoding="utf-8")
            self.reporter.say(f"failed: {type(error).__name__}: {error} (traceback in {log})")
            return RunError(f"{type(error).__name__}: {error}")
        return None

    def _stages(self, recipe: Recipe, so_far: MemberResult) -> None:
        from cssl_cli.pipeline.analyze import analyze
        from cssl_cli.pipeline.pretrain import pretrain
        from cssl_cli.pipeline.probe import probe

        dataset = self.dataset(recipe)
        options: dict[str, Any] = {"reporter": self.reporter, "device_name": self.device_name, "dataset": dataset}
        run = pretrain(recipe, out=self.out, **options)
        if so_far.analysis is None:
            analyze(run.path, recipe=recipe, **options)
        if dataset.train is None or dataset.test is None:
            self.reporter.say("the images have no labels: there are no accuracies")
        elif so_far.probe is None:
            probe(run.path, recipe=recipe, baselines=self.baselines, **options)

    def dataset(self, recipe: Recipe) -> Any:
        """The recipe's images; kept until a recipe with other data comes."""
        from cssl_cli.pipeline.setup import prepare_data

        key = repr(recipe.settings("data"))
        if self.data[0] != key:
            self.data = (key, prepare_data(recipe, self.reporter))
        return self.data[1]
