"""Successive halving: all rows train to an early epoch, the best go on, and so on; the last ones train to their end.

What goes on is decided by the k-NN accuracies at the rungs' epochs as the run directories have them (knn.jsonl), and by
nothing else, so that a sweep that is killed and started again decides the same. No schedule changes: a member that was
stopped is the same run cut short, which `cssl sweep` without --halve brings to its end.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cssl_cli.errors import CsslError, DamagedError, InputError, RunError, some
from cssl_cli.host.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.runs.results import number
from cssl_cli.runs.run_dir import EPOCH_KNN, RunDir
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.sweep import Member
from cssl_cli.sweep.workers.missing import Missing

WHERE = "--halve"


@dataclass(frozen=True)
class Entrant:
    """A row and all its members, which go on or stop together; rows that share all their runs are one entrant."""

    rows: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        return " = ".join(self.rows)


@dataclass(frozen=True)
class Decision:
    """Which entrants go on from a rung and which do not, each the best first, with their k-NN accuracies.

    An entrant without an accuracy in one of its members (it failed, its features are not finite) does not go on.
    """

    kept: tuple[Entrant, ...]
    stopped: tuple[Entrant, ...]
    accuracies: tuple[float | None, ...]  # of the kept, then of the stopped


@dataclass(frozen=True)
class Halving:
    """The entrants, the number of rungs before the end, and how many times fewer entrants each leaves."""

    entrants: tuple[Entrant, ...]
    num_rungs: int
    eta: int

    def epoch(self, member: Member, rung: int) -> int:
        """The epoch of the rung (0: the first) for a member: a share of its own training."""
        return _epoch(member.recipe, self.num_rungs - rung, self.eta)

    def in_words(self) -> str:
        """How many rows train to which epochs."""
        counts = [len(self.entrants)]
        for _ in range(self.num_rungs):
            counts.append(num_kept(counts[-1], self.eta))
        epochs = [
            _span({self.epoch(member, rung) for one in self.entrants for member in one.members})
            for rung in range(self.num_rungs)
        ]
        last = _span({member.recipe.train.epochs or 0 for one in self.entrants for member in one.members})
        steps = [f"{count} to epoch {epoch}" for count, epoch in zip(counts, (*epochs, last), strict=True)]
        return f"successive halving by k-NN accuracy: of {len(self.entrants)} rows {', '.join(steps)}"


class Ends(Protocol):
    """How members ended: sentences for failed ones, names of those in use, and how many were not started."""

    errors: dict[str, str]
    in_use: list[str]
    not_started: int


E = TypeVar("E", bound=Ends)
Lacking = Callable[[Member], Missing | None]
"""What a member lacks now, as far as it is to be run: another process may have finished it."""


def run_halved(
    request: SweepRequest,
    halving: Halving,
    train: Callable[[SweepRequest, Lacking | None], E],
    path_of: Callable[[Member], Path],
    reporter: Reporter,
) -> E:
    """Run the members by successive halving; without a decision at a rung that was not reached by all.

    train: runs the members of a part of the request, as far as they lack something; None: all their results.
    """

    def lacking_to(rung: int, member: Member) -> Missing | None:
        epoch = halving.epoch(member, rung)
        reached = _has_reached(RunDir(path_of(member)), epoch)
        return None if reached else Missing(probe=False, analysis=False, until=epoch)

    reporter.say(halving.in_words())
    standing, errors = halving.entrants, dict[str, str]()
    for rung in range(halving.num_rungs + 1):
        part = replace(request, selected=tuple(member for one in standing for member in one.members))
        ends = train(part, partial(lacking_to, rung) if rung < halving.num_rungs else None)
        tried = {member.name for member in part.members}  # again, so that an earlier error of theirs is settled
        errors = {name: error for name, error in errors.items() if name not in tried} | ends.errors
        ends.errors = errors
        if ends.in_use or ends.not_started or rung == halving.num_rungs:
            break
        decision = close_rung(halving, standing, rung, path_of)
        reporter.say(told(decision))
        going_on = {one.rows for one in decision.kept}
        standing = tuple(one for one in standing if one.rows in going_on)
    return ends


def halving_of(request: SweepRequest) -> Halving:
    """The rungs of a request with `eta`; `InputError` where there is nothing to choose from or by."""
    assert request.eta is not None
    entrants = _entrants(request)
    recipes = [member.recipe for member in request.members]
    for lacking, remedy in (
        (
            [member.row for member in request.members if member.recipe.probe.every is None],
            "Set probe.every, such as probe.every=1.",
        ),
        (
            [member.row for member in request.members if not member.recipe.train.epochs],
            "Set train.epochs in place of train.steps.",
        ),
    ):
        if lacking:
            what = "no k-NN accuracy through training" if "probe" in remedy else "no number of epochs"
            rows = list(dict.fromkeys(lacking))
            raise InputError(f"{some(rows)} {'has' if len(rows) == 1 else 'have'} {what}", where=WHERE, remedy=remedy)
    most = 0
    while request.eta ** (most + 1) <= len(entrants):
        most += 1
    for num_rungs in range(most, 0, -1):
        if all(_increasing(recipe, num_rungs, request.eta) for recipe in recipes):
            return Halving(entrants, num_rungs, request.eta)
    few = len(entrants) < request.eta
    raise InputError(
        f"{len(entrants)} rows leave nothing to choose from, where one in {request.eta} goes on"
        if few
        else "the training is too short for its k-NN accuracies to choose by",
        where=WHERE,
        remedy="Leave it out, or choose more rows."
        if few
        else "Leave it out, set a smaller probe.every or more epochs.",
    )


def _entrants(request: SweepRequest) -> tuple[Entrant, ...]:
    by_row: dict[str, list[Member]] = {}
    for member in request.members:
        by_row.setdefault(member.row, []).append(member)
    by_runs: dict[tuple[str, ...], list[str]] = {}
    for row, members in by_row.items():
        by_runs.setdefault(tuple(member.fingerprint for member in members), []).append(row)
    return tuple(
        Entrant(tuple(rows), tuple(member for row in rows for member in by_row[row])) for rows in by_runs.values()
    )


def _epoch(recipe: Recipe, before_end: int, eta: int) -> int:
    """The first epoch with a k-NN accuracy in which at least 1/eta^before_end of the training is done."""
    every, epochs = recipe.probe.every or 1, recipe.train.epochs or 0
    return -(-epochs // (every * eta**before_end)) * every


def _increasing(recipe: Recipe, num_rungs: int, eta: int) -> bool:
    epochs = [_epoch(recipe, before_end, eta) for before_end in range(num_rungs, 0, -1)]
    ends = [*epochs, recipe.train.epochs or 0]
    return all(one < other for one, other in pairwise(ends))


# ------------------------------------------------------------------------------------------------------------ decisions
def num_kept(count: int, eta: int) -> int:
    """How many of `count` entrants go on: one in `eta`, rounded up."""
    return -(-count // eta)


def _has_reached(run: RunDir, epoch: int) -> bool:
    """Whether a run was measured at the epoch, also without success."""
    with suppress(DamagedError):
        return any(record["epoch"] == epoch for record in run.read_records(EPOCH_KNN))
    return False


def require_reached(run: RunDir, epoch: int, *, labelled: bool) -> None:
    """A CsslError unless a run that trained to the epoch was measured there."""
    run.read_records(EPOCH_KNN)  # which says what is damaged
    if _has_reached(run, epoch):
        return
    if not labelled:
        raise InputError("the images have no labels, hence no k-NN accuracy to choose by", where=WHERE)
    raise RunError(
        f"it has no k-NN accuracy at epoch {epoch}, although it was trained further",
        remedy=f"Restore {EPOCH_KNN} from a copy, delete the run, or leave out --halve.",
    )


def decide(entrants: Sequence[Entrant], accuracies: Sequence[float | None], eta: int) -> Decision:
    """Which entrants go on, given the accuracy of each; of equal ones those that come first in the sweep.

    `RunError` if none has an accuracy.
    """
    order = sorted(
        range(len(entrants)), key=lambda one: -1.0 if (accuracy := accuracies[one]) is None else accuracy, reverse=True
    )
    known = [one for one in order if accuracies[one] is not None]
    if not known:
        raise RunError(
            "no row has a k-NN accuracy in all its members, so that none can go on",
            where=WHERE,
            remedy="With --report in place of --halve, the same command says which members failed, and why.",
        )
    kept = known[: num_kept(len(entrants), eta)]
    going_on = set(kept)
    stopped = [one for one in order if one not in going_on]
    return Decision(
        tuple(entrants[one] for one in kept),
        tuple(entrants[one] for one in stopped),
        tuple(accuracies[one] for one in (*kept, *stopped)),
    )


def accuracy_of(values: Sequence[float | None]) -> float | None:
    """The mean k-NN accuracy of an entrant's members; None if one has none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def mark_stopped(run: RunDir, facts: dict[str, Any]) -> None:
    """Write why the run was stopped into its status, unless that is there, or it failed, or another process has it."""
    _mark(run, facts)


def _mark(run: RunDir, stopped: dict[str, Any] | None) -> None:
    """Write where the run was stopped into its status; None: that it goes on."""
    with suppress(CsslError):
        if not _is_unfinished(run) or run.status().get("stopped") == stopped:
            return
        with run.locked():
            if _is_unfinished(run):  # still: another process may have had it
                status = run.status()
                kept = {name: status[name] for name in ("step", "num_steps") if name in status}
                run.write_status("interrupted", **kept, stopped=stopped)


def _is_unfinished(run: RunDir) -> bool:
    return run.status()["state"] in ("running", "interrupted")


def close_rung(halving: Halving, standing: Sequence[Entrant], rung: int, path_of: Callable[[Member], Path]) -> Decision:
    """Decide which of the standing entrants go on, all of which reached the rung or failed, and mark those stopped.

    The marks of an earlier sweep, which had other rows, are taken from those that go on.
    """
    values = {
        member.name: _knn_of(RunDir(path_of(member)), halving.epoch(member, rung))
        for entrant in standing
        for member in entrant.members
    }
    accuracies = [accuracy_of([values[member.name] for member in entrant.members]) for entrant in standing]
    decision = decide(standing, accuracies, halving.eta)
    for entrant in decision.kept:
        for member in entrant.members:
            _mark(RunDir(path_of(member)), None)
    for place, entrant in enumerate(decision.stopped, start=len(decision.kept) + 1):
        for member in entrant.members:
            facts = {
                "epoch": halving.epoch(member, rung),
                "epochs": member.recipe.train.epochs,
                "knn": values[member.name],
                "place": place,
                "num_rows": len(standing),
                "num_kept": len(decision.kept),
                "eta": halving.eta,
            }
            mark_stopped(RunDir(path_of(member)), facts)
    return decision


def _knn_of(run: RunDir, epoch: int) -> float | None:
    """The k-NN accuracy of a run at an epoch; None if it has none there, or its records are damaged."""
    with suppress(DamagedError):
        for record in run.read_records(EPOCH_KNN):
            if record["epoch"] == epoch:
                return number(record.get("knn"))
    return None


def told(decision: Decision) -> str:
    """A decision as a sentence."""
    kept = [
        entrant.name if accuracy is None else f"{entrant.name} (k-NN {100 * accuracy:.1f})"
        for entrant, accuracy in zip(decision.kept, decision.accuracies, strict=False)
    ]
    return f"{len(kept)} of {len(decision.accuracies)} rows go on: {some(kept)}"


def _span(values: set[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
