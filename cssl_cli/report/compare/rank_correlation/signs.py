"""Which row is above which: the signs of all differences between rows of a group, and their sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cssl_cli.report.compare.rank_correlation.concordance import Floats, Ints, agreements

DIGITS = 12  # significant digits: equal means over different seeds differ in the last bits, which is no order
MAX_ROWS_PAIRED = 500  # rows of a group up to which the matrix of all pairs is quicker than counting without it

Signs = NDArray[np.float32]  # −1, 0, 1; sums are exact up to 16 million


def as_column(values: Sequence[float | None]) -> Floats:
    """Numbers as an array (N,) to `DIGITS` significant digits, with NaN for missing or non-finite ones."""
    rounded = (math.nan if value is None else float(f"{value:.{DIGITS - 1}e}") for value in values)
    column = np.fromiter(rounded, dtype=np.float64, count=len(values))
    column[~np.isfinite(column)] = math.nan
    return column


def group_codes(groups: Sequence[object] | None, num_rows: int) -> Ints:
    """An integer per group, (N,); all zero without groups."""
    numbered: dict[object, int] = {}
    labels = [None] * num_rows if groups is None else groups
    return np.array([numbered.setdefault(label, len(numbered)) for label in labels], dtype=np.int64)


def in_order(x: Floats, y: Floats, codes: Ints) -> tuple[Floats, Floats, Ints]:
    """The rows of groups of two or more, sorted by group, then by `y`: the result does not depend on their order."""
    size = np.bincount(codes, minlength=1)[codes]
    order = np.lexsort((*x.T[::-1], y, codes))
    order = order[size[order] > 1]
    return x[order], y[order], codes[order]


def group_sizes(codes: Ints) -> tuple[int, ...]:
    """The number of rows in each group, for rows sorted by group."""
    return tuple(int(size) for size in np.bincount(codes) if size)


def signs(values: Floats, codes: Ints) -> Signs:
    """sign(v_i − v_j) (N, N) between rows of the same group; 0 between groups or if a value is missing (NaN)."""
    same = codes[:, None] == codes
    return _signs(values) * same


def _signs(values: Floats) -> Signs:
    column = values[:, None]
    return np.subtract(column > values, column < values, dtype=np.float32)


@dataclass(frozen=True)
class Variable:
    """A variable over rows sorted by group: the values (n_g) of each group, none missing."""

    groups: tuple[Floats, ...]

    @cached_property
    def blocks(self) -> tuple[Signs | None, ...]:
        """The signs (n_g, n_g) of each group's differences; None for a group of many rows."""
        return tuple(_signs(values) if len(values) <= MAX_ROWS_PAIRED else None for values in self.groups)

    @property
    def matrix(self) -> Signs:
        """The signs (N, N) of all rows, 0 between groups: for few rows."""
        whole = np.zeros((len(self.ranks), len(self.ranks)), dtype=np.float32)
        start = 0
        for block in self.blocks:
            assert block is not None
            whole[start : start + len(block), start : start + len(block)] = block
            start += len(block)
        return whole

    @cached_property
    def _less_and_not_greater(self) -> list[tuple[Ints, Ints]]:
        """For each group, how many rows have a lesser value than each, and how many have no greater one."""
        ordered = [np.sort(values) for values in self.groups]
        pairs = list(zip(ordered, self.groups, strict=True))
        return [(np.searchsorted(known, of, "left"), np.searchsorted(known, of, "right")) for known, of in pairs]

    @cached_property
    def untied(self) -> Floats:
        """The number of rows in its group with which each row is not tied (N,)."""
        return self._rows([len(less) - (up_to - less) for less, up_to in self._less_and_not_greater])

    @cached_property
    def ranks(self) -> Floats:
        """Twice each row's midrank in its group, minus the mean (N,): an integer."""
        return self._rows([less + up_to - len(less) for less, up_to in self._less_and_not_greater])

    @cached_property
    def ties(self) -> list[Floats]:
        """For each group, the number of rows that share each of its values."""
        return [np.unique(values, return_counts=True)[1].astype(np.float64) for values in self.groups]

    @cached_property
    def times_ranks(self) -> Floats:
        return self.times(self.ranks)

    def times(self, vector: Floats) -> Floats:
        """The matrix of signs (N, N) times a vector (N,)."""
        parts = np.split(vector, np.cumsum([len(values) for values in self.groups])[:-1])
        found = []
        for values, part, (less, up_to) in zip(self.groups, parts, self._less_and_not_greater, strict=True):
            sums = np.concatenate([[0.0], np.cumsum(part[np.argsort(values, kind="stable")])])
            found.append(sums[less] - (sums[-1] - sums[up_to]))
        return self._rows(found)

    def varies(self) -> list[bool]:
        """For each group, whether the variable takes more than one value."""
        return [len(counts) > 1 for counts in self.ties]

    def _rows(self, parts: Sequence[NDArray[Any]]) -> Floats:
        return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def variable(values: Floats, codes: Ints) -> Variable:
    """The variable `values` (N,), none missing, for rows sorted by group."""
    return Variable(tuple(np.split(values, np.cumsum(group_sizes(codes))[:-1])))


@dataclass(frozen=True)
class Pair:
    """Two variables over the same rows."""

    x: Variable
    y: Variable

    @cached_property
    def _agreements(self) -> tuple[Floats, Floats]:
        found = []
        for a, b, of_a, of_b in zip(self.x.groups, self.y.groups, self.x.blocks, self.y.blocks, strict=True):
            if of_a is None or of_b is None:
                found.append(agreements(a, b))
            else:
                products = of_a * of_b
                untied = np.abs(products).sum(axis=1, dtype=np.float64)
                found.append((products.sum(axis=1, dtype=np.float64), untied))
        return np.concatenate([score for score, _ in found]), np.concatenate([untied for _, untied in found])

    @property
    def concordance(self) -> Floats:
        """For each row, the concordant minus the discordant rows of its group (N,)."""
        return self._agreements[0]

    @property
    def num_untied(self) -> int:
        """The number of pairs of rows tied in neither variable."""
        return int(self._agreements[1].sum()) // 2

    @property
    def num_pairs(self) -> int:
        """The number of pairs of rows in one group."""
        return sum(len(values) * (len(values) - 1) // 2 for values in self.x.groups)

    @property
    def all_agree(self) -> bool:
        """Whether no pair is discordant, or none concordant."""
        return abs(self.score) == self.num_untied

    @property
    def score(self) -> float:
        """Concordant minus discordant pairs."""
        return float(self.concordance.sum()) / 2

    @cached_property
    def tau(self) -> float:
        """Kendall's τ_b."""
        return 2 * self.score / math.sqrt(self.x.untied.sum() * self.y.untied.sum())

    @cached_property
    def rho(self) -> float:
        """Spearman's ρ, with midranks."""
        a, b = self.x.ranks, self.y.ranks
        return float(a @ b) / math.sqrt((a @ a) * (b @ b))
