"""Whether members of a sweep fit into this machine's memory, alone and together with those that run beside them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from cssl_cli.errors import InputError
from cssl_cli.runs import memory
from cssl_cli.runs.run_dir import ENCODER
from cssl_cli.sweep.sweep import Member


def require_memory(work: Sequence[tuple[Member, Path]], *, device_name: str | None, jobs: int | None) -> None:
    """`InputError` if the members to run, given with their run directories, cannot fit.

    Runs start in order, so with `jobs` workers that many neighbours run at the same time.
    """
    free = memory.free_memory()
    needs = list(_needs(work, free, device_name).values())
    if jobs is not None and free is not None and needs:
        _require_together(needs, free, jobs)


def most_together(work: Sequence[tuple[Member, Path]], *, device_name: str | None, limit: int) -> int:
    """How many of the members, at most `limit`, fit at a time; at least one. `InputError` if one alone cannot."""
    free = memory.free_memory()
    needs = list(_needs(work, free, device_name).values())
    return limit if free is None else max(_fitting(needs, free, limit), 1)


def _needs(work: Sequence[tuple[Member, Path]], free: float | None, device_name: str | None) -> dict[Path, float]:
    """The bytes that each run needs at most, in order; `InputError` if one alone does not fit."""
    needs: dict[Any, float] = {}  # of members that share their blocks
    of_runs: dict[Path, float] = {}
    for member, path in work:
        recipe, trained = member.recipe, path.joinpath(ENCODER).exists()
        blocks = (recipe.data, recipe.encoder, recipe.method, recipe.optim, recipe.train, recipe.analyze)
        key = (trained, *map(id, blocks))
        if key not in needs:
            _require_alone(member, free, device_name, trained=trained)
            needs[key] = memory.largest_need(recipe, device_name, trained=trained)
        of_runs[path] = max(needs[key], of_runs.get(path, 0.0))
    return of_runs


def _require_alone(member: Member, free: float | None, device_name: str | None, *, trained: bool) -> None:
    try:
        memory.require_within(free, member.recipe, device_name, trained=trained)
    except InputError as error:
        error.where = f"{member.name}: {error.where}"
        error.remedy = f"{error.remedy} Without this row: --skip {member.row}"
        raise


def _require_together(needs: Sequence[float], free: float, jobs: int) -> None:
    """needs: bytes of each run, in the order in which runs start."""
    jobs = min(jobs, len(needs))
    fitting = _fitting(needs, free, jobs)
    if fitting >= jobs:
        return
    raise InputError(
        f"{jobs} members at a time do not fit in memory: they need about {memory.gib(_most_at_once(needs, jobs))} GiB, "
        f"{memory.gib(free)} are free",
        where="--jobs",
        remedy=f"Give --jobs {fitting}, or use a machine with more memory.",
    )


def _fitting(needs: Sequence[float], free: float, jobs: int) -> int:
    """How many neighbouring runs, at most `jobs`, fit wherever they lie."""
    return bisect_right(range(1, jobs + 1), free, key=lambda number: _most_at_once(needs, number))


def _most_at_once(needs: Sequence[float], jobs: int) -> float:
    """The most that `jobs` neighbouring runs need together."""
    sums = [0.0, *accumulate(needs)]
    jobs = min(jobs, len(needs))
    return max(last - first for first, last in zip(sums, sums[jobs:], strict=False))
