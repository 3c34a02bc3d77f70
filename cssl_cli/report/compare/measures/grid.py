"""Rows by their settings of several axes, the lines of rows that differ along one axis only, and their pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cssl_cli.report.compare.rank_correlation.permutation import SEED
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints

Signs = NDArray[np.int8]  # −1, 0, 1; a pair without both values counts as 0


@dataclass(frozen=True)
class Lines:
    """The pairs (P) of rows that differ along one axis only: their rows, and the line that each pair is of.

    Pairs are sorted by line. A line is a choice of settings of all other axes that at least two rows have.
    """

    first: Ints
    second: Ints
    line: Ints

    @property
    def num_lines(self) -> int:
        return int(self.line[-1]) + 1 if len(self.line) else 0

    def sums(self, values: Floats) -> Floats:
        """The sums (L, M) of `values` (P, M) over the pairs of each line."""
        if not len(self.line):
            return np.zeros((0, values.shape[1]))
        return np.add.reduceat(values, np.flatnonzero(np.diff(self.line, prepend=-1)), axis=0)


@dataclass(frozen=True)
class Grid:
    """The setting of each row in each axis, as an index (N, A) into the axis's `settings`; not all need to occur.

    drawn: the axes of random draws, which have lines, but no settings that can be held fixed or compared.
    """

    axes: tuple[str, ...]
    settings: tuple[tuple[str, ...], ...]
    codes: Ints
    drawn: frozenset[str] = frozenset()

    @property
    def of_settings(self) -> list[int]:
        """The axes that are not drawn."""
        return [position for position, axis in enumerate(self.axes) if axis not in self.drawn]

    @cached_property
    def lines(self) -> tuple[Lines, ...]:
        """The lines along each axis."""
        return tuple(_lines(np.delete(self.codes, axis, axis=1)) for axis in range(len(self.axes)))


def grid_of(rows: Sequence[Mapping[str, str]], drawn: Set[str] = frozenset()) -> Grid:
    """The grid of rows given by their setting in each axis; axes in which all rows are alike are left out."""
    names = dict.fromkeys(axis for row in rows for axis in row)
    settings = {axis: tuple(dict.fromkeys(row.get(axis, "") for row in rows)) for axis in names}
    varying = {axis: known for axis, known in settings.items() if len(known) > 1}
    codes = np.array(
        [[known.index(row.get(axis, "")) for axis, known in varying.items()] for row in rows], dtype=np.int64
    )
    codes = codes.reshape(len(rows), len(varying))
    return Grid(tuple(varying), tuple(varying.values()), codes, frozenset(drawn & varying.keys()))


def _lines(others: Ints) -> Lines:
    """The pairs of rows that agree in all `others` (N, A − 1)."""
    line = np.unique(others, axis=0, return_inverse=True)[1].reshape(-1)
    by_line = np.argsort(line, kind="stable")
    starts = np.flatnonzero(np.diff(line[by_line], prepend=-1))
    sizes = np.diff(starts, append=len(line))
    first, second, of_line = [], [], []
    for size in np.unique(sizes[sizes > 1]):
        found = np.flatnonzero(sizes == size)
        members = by_line[starts[found][:, None] + np.arange(size)]
        one, other = np.triu_indices(size, 1)
        first.append(members[:, one].ravel())
        second.append(members[:, other].ravel())
        of_line.append(np.repeat(found, len(one)))
    if not of_line:
        none = np.zeros(0, dtype=np.int64)
        return Lines(none, none, none)
    order = np.argsort(np.concatenate(of_line), kind="stable")
    dense = np.unique(np.concatenate(of_line)[order], return_inverse=True)[1]
    return Lines(np.concatenate(first)[order], np.concatenate(second)[order], dense)


def signs_of(values: Floats, first: Ints, second: Ints) -> Signs:
    """sign(v_i − v_j) of each pair, (P) or (P, M), for `values` (N) or (N, M); 0 where one is missing (NaN)."""
    a, b = values[first], values[second]
    return np.subtract(a > b, a < b, dtype=np.int8)


def shuffled(column: Floats, groups: Ints, count: int) -> Floats:
    """The values of a column (N) in `count` random orders (N, R) within `groups` (N); missing ones keep their place."""
    there = np.flatnonzero(np.isfinite(column))
    by_group = there[np.argsort(groups[there], kind="stable")]
    drawn = np.random.default_rng(SEED).random((len(there), count)) / 2
    found = np.repeat(column[:, None], count, axis=1)
    found[by_group] = column[there][np.argsort(groups[there][:, None] + drawn, axis=0)]
    return found
