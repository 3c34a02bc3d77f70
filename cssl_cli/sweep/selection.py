"""Selecting members: by patterns over their rows, and by shares among machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from cssl_cli.errors import InputError, nearest, some
from cssl_cli.sweep.sweep import Member, Sweep


def select(
    sweep: Sweep, *, only: Sequence[str] = (), skip: Sequence[str] = (), shard: str | None = None
) -> tuple[Member, ...]:
    """The members, in order, whose row matches a pattern of `only` (if any) and none of `skip`; of these, one `shard`.

    A pattern is a row's name; * and ? match any characters. A shard "I/N" takes every N-th run, starting with the I-th
    (counted from 1), so that the shards of a sweep share its runs without overlap. Members that differ only in how
    they are measured have one run and stay together. Raises InputError for a pattern that matches no row, for an
    invalid shard, and for an empty selection.
    """
    rows = list(dict.fromkeys(member.row for member in sweep.members))
    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            if not any(fnmatchcase(row, pattern) for row in rows):
                raise no_such_row(pattern, rows, where=option)
    members = [
        member
        for member in sweep.members
        if (not only or _matches(member.row, only)) and not _matches(member.row, skip)
    ]
    if shard is not None:
        members = _share(members, *_parse_shard(shard))
    if not members:
        raise InputError("no member is left to run", where=sweep.name, remedy=f"Rows: {some(rows)}.")
    return tuple(members)


def no_such_row(name: str, rows: Sequence[str], *, where: str) -> InputError:
    """The error for an unknown row; suggests the nearest name."""
    guess = nearest(name, rows)
    hint = f"Did you mean {guess!r}? " if guess else ""
    return InputError(f"no row is called {name!r}", where=where, remedy=f"{hint}Rows: {some(rows)}.")


def _matches(row: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(row, pattern) for pattern in patterns)


def _parse_shard(shard: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(
            f"{shard!r} names no share", where="--shard", remedy="Give I/N with I from 1 to N, such as 2/8."
        )
    return int(found[1]), int(found[2])


def _share(members: Sequence[Member], index: int, count: int) -> list[Member]:
    runs = list(dict.fromkeys(member.fingerprint for member in members))
    mine = set(runs[index - 1 :: count])
    return [member for member in members if member.fingerprint in mine]
