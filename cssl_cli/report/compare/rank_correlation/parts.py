"""Rows built from shared parts: which parts, and which columns, are exchangeable.

A row is a set of parts (a pair of augmentations, say) in a column (its method). Rows that share a part are alike, and
arbitrary orders of rows would break that. Two parts are exchangeable if swapping them maps the rows onto themselves,
two columns if they have the same sets. Both are equivalence relations, and every permutation within their classes maps
rows onto rows: for all pairs of m parts, the m! orders of the parts, the quadratic assignment procedure (Hubert,
Assignment Methods in Combinatorial Data Analysis, 1987). Under the null hypothesis that such parts are exchangeable,
all these orders are equally likely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cssl_cli.report.compare.rank_correlation.signs import Ints

Bools = NDArray[np.bool_]
MAX_PARTS = 62  # bits of a set


@dataclass(frozen=True)
class BuiltFrom:
    """What each of N rows is built from: its parts, and its column.

    declared: whether the parts were declared, rather than read off the recipes.
    """

    parts: Sequence[Set[Hashable]]
    columns: Sequence[Hashable]
    declared: bool

    @property
    def usable(self) -> bool:
        """Whether the parts may be permuted: they were declared, or the rows leave no doubt."""
        return self.declared or all_of_one_size(incidence(self.parts))

    def rows(self, order: Sequence[int]) -> BuiltFrom:
        """The same for a subset of the rows."""
        return BuiltFrom([self.parts[row] for row in order], [self.columns[row] for row in order], self.declared)


def incidence(built_from: Sequence[Set[Hashable]]) -> Bools:
    """Which of the parts (P) each of N rows has, (N, P).

    Parts that all rows have are left out, as they distinguish none; parts that always occur together count as one.
    """
    names = sorted({part for parts in built_from for part in parts}, key=repr)
    has = [tuple(name in parts for parts in built_from) for name in names]
    distinct = [of_part for of_part in dict.fromkeys(has) if not all(of_part)]
    return np.array(distinct, dtype=np.bool_).reshape(len(distinct), len(built_from)).T


def overlap(parts: Bools) -> bool:
    """Whether sets (N, P) share parts in a way that makes them less free than rows without parts.

    False if no two different sets have a part in common, or if each set lacks exactly one part, each a different one.
    """
    sets = np.unique(parts, axis=0)
    sizes = sets.sum(axis=1)
    lacks_one = len(sets) == sets.shape[1] and bool((sizes == len(sets) - 1).all())
    return not lacks_one and bool((sets.sum(axis=0) > 1).any())


def all_of_one_size(parts: Bools) -> bool:
    """Whether the sets (N, P) are all possible sets of one size."""
    sets = np.unique(parts, axis=0)
    sizes = set(sets.sum(axis=1).tolist())
    return len(sizes) == 1 and len(sets) == math.comb(sets.shape[1], sizes.pop())


def masks(parts: Bools) -> Ints:
    """Each set (N, P) as a bit mask (N,)."""
    return parts.astype(np.int64) @ (1 << np.arange(parts.shape[1], dtype=np.int64))


def classes_of_parts(parts: Bools, columns: Ints) -> Ints:
    """The class of each part (P); parts of one class are exchangeable, in all columns at once."""
    rows = set(zip(masks(parts).tolist(), columns.tolist(), strict=True))

    def may_change(one: int, other: int) -> bool:
        order = np.arange(parts.shape[1])
        order[[one, other]] = other, one
        return rows.issuperset(zip(masks(parts[:, order]).tolist(), columns.tolist(), strict=True))

    return _classes(parts.shape[1], may_change)


def classes_of_columns(sets: Ints, columns: Ints, codes: Ints) -> Ints:
    """The class of each column: columns of one class are in one group (`codes`) and have the same sets."""
    of_column = [
        (codes[columns == column].tolist()[0], frozenset(sets[columns == column].tolist()))
        for column in range(int(columns.max()) + 1)
    ]
    return _classes(len(of_column), lambda one, other: of_column[one] == of_column[other])


def _classes(count: int, alike: Callable[[int, int], bool]) -> Ints:
    first_of: list[int] = []
    found = []
    for item in range(count):
        known = next((number for number, first in enumerate(first_of) if alike(first, item)), len(first_of))
        if known == len(first_of):
            first_of.append(item)
        found.append(known)
    return np.array(found, dtype=np.int64)
