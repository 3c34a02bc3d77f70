"""The rows of a table: members that differ only in their seed, with mean and deviation of every quantity."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cssl_cli.report.compare.catalogue import BY_NAME, Interval
from cssl_cli.report.compare.extract import Circumstances, extract_of
from cssl_cli.report.control_encoders import Fooled
from cssl_cli.sweep.claims import is_negative_control
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sampling import DRAW

METHOD_AXIS = "method"


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (None for a single value) and number of seeds behind a cell.

    interval: of a single value, the 95 % interval over images, if known.
    """

    mean: float
    sd: float | None
    n: int
    interval: Interval | None = None


@dataclass(frozen=True)
class Stopped:
    """The epoch at which a row was stopped, of how many; its mean k-NN accuracy there, None if a member has none."""

    epoch: int
    epochs: int
    knn: float | None


@dataclass(frozen=True)
class Row:
    """A row of the table.

    group: its method, within which rows are also compared. control: whether it is a negative control. members: all its
    members; values, circumstances, fooled: the numbers of each by quantity, how they were measured, and verdicts of
    control encoders. done: how many have finished; a failed member counts in no cell, however far it got. stopped:
    where successive halving stopped the row, if it did; then none of its members counts.
    """

    name: str
    group: str
    control: bool
    members: tuple[MemberResult, ...]
    values: tuple[Mapping[str, float | None], ...]
    circumstances: tuple[Circumstances, ...]
    fooled: tuple[Fooled, ...]
    done: int
    cells: Mapping[str, Summary | None]
    stopped: Stopped | None = None

    def mean(self, quantity: str) -> float | None:
        """A cell's mean over all finished members of the row; None if some lack the number.

        A mean over some of the seeds may be selective: W/B is missing where the centres are closest together.
        """
        cell = self.cells[quantity]
        return cell.mean if cell is not None and cell.n == self.done else None


def is_finished(result: MemberResult) -> bool:
    """Whether a member's results count."""
    return bool(result.analysis) and not result.error


def finished(results: Sequence[MemberResult]) -> list[MemberResult]:
    """The members whose results count."""
    return [result for result in results if is_finished(result)]


def rows_of(results: Sequence[MemberResult]) -> list[Row]:
    """The rows (a variant with all its seeds) in the order of the results."""
    members: dict[str, list[MemberResult]] = {}
    for result in results:
        members.setdefault(result.member.row, []).append(result)
    return [_row(name, tuple(of_row)) for name, of_row in members.items()]


def _row(name: str, members: tuple[MemberResult, ...]) -> Row:
    first, extracts = members[0].member, [extract_of(result) for result in members]
    values = tuple(extract.values for extract in extracts)
    stopped = _stopped(members)
    counted = [] if stopped else zip(members, extracts, strict=True)
    done = [extract for result, extract in counted if is_finished(result)]
    intervals = done[0].intervals if len(done) == 1 else {}
    return Row(
        name=name,
        group=first.axes.get(METHOD_AXIS, first.recipe.method.name),
        control=is_negative_control(first.recipe),
        members=members,
        values=values,
        circumstances=tuple(extract.circumstances for extract in extracts),
        fooled=tuple(extract.fooled for extract in extracts),
        done=len(done),
        cells={name: summarize([extract.values[name] for extract in done], intervals.get(name)) for name in BY_NAME},
        stopped=stopped,
    )


def _stopped(members: Sequence[MemberResult]) -> Stopped | None:
    """Where a row was stopped; a row goes on or stops with all its members."""
    found = [result.stopped for result in members if result.stopped]
    if not found:
        return None
    known = [of_member["knn"] for of_member in found if of_member["knn"] is not None]
    mean = statistics.fmean(known) if len(known) == len(members) else None
    return Stopped(found[0]["epoch"], found[0]["epochs"], mean)


def is_of_draws(axis: str, rows: Sequence[Row]) -> bool:
    """Whether an axis is that of random draws, which have an order in no field and are no settings to hold fixed."""
    return axis == DRAW and any(row.members[0].member.sampled for row in rows)


def summarize(values: Sequence[float | None], interval: Interval | None = None) -> Summary | None:
    """Mean ± sample standard deviation of the values present, with the `interval` of a single one; None without any."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    if len(present) == 1:  # most cells of a large sweep
        return Summary(present[0], None, 1, interval)
    mean = statistics.fmean(present)
    # statistics.stdev computes with fractions, too slow for a thousand rows.
    squares = math.fsum((value - mean) ** 2 for value in present)
    return Summary(mean, math.sqrt(squares / (len(present) - 1)), len(present), interval)


def row_content(row: Row) -> dict[str, Any]:
    """A row as JSON types."""
    return {
        "row": row.name,
        "axes": dict(row.members[0].member.axes),
        "sampled": dict(row.members[0].member.sampled),
        "group": row.group,
        "control": row.control,
        "stopped": None if row.stopped is None else vars(row.stopped),
        "cells": {name: vars(cell) if cell else None for name, cell in row.cells.items()},
    }


def circumstances(rows: Sequence[Row]) -> dict[str, set[Any]]:
    """The circumstances under which the finished members were measured: sets, since a sweep may vary them."""
    distinct = {
        one for row in rows for result, one in zip(row.members, row.circumstances, strict=True) if is_finished(result)
    }
    return {name: {getattr(one, name) for one in distinct} for name in Circumstances._fields}
