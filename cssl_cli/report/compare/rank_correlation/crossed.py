"""Rows that share sets of augmentations, or parts of them: p-values and intervals that allow for it.

Rows with the same set (several methods under the same augmentations) are alike, and so are rows of one method. If every
set occurs once with every method, permuting whole sets (in all methods alike) and whole methods preserves both kinds of
likeness, and resampling whole sets keeps the rows of a set together. Sets that share parts are alike, too: then the
parts are permuted (`parts.py`), and there is no interval, since none that we tried kept its coverage. If methods share
no sets, rows are only permuted within their method, again without an interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cssl_cli.report.compare.rank_correlation.bootstrap import (
    MIN_ROWS,
    Interval,
    percentile_interval,
    perfect_order_limits,
    weighted_coefficients,
    weights_within,
)
from cssl_cli.report.compare.rank_correlation.coefficients import (
    MAX_ROWS_RESAMPLED,
    PERFECT_ORDER,
    Coefficient,
    Intervals,
    RankCorrelation,
    Undefined,
)
from cssl_cli.report.compare.rank_correlation.parts import (
    MAX_PARTS,
    Bools,
    classes_of_columns,
    classes_of_parts,
    incidence,
    masks,
    overlap,
)
from cssl_cli.report.compare.rank_correlation.permutation import (
    NUM_ORDERS,
    SEED,
    PMethod,
    orders_within,
    permuted_scores,
    shares_as_far,
)
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints, Signs, group_codes, signs

MAX_ROWS_PERMUTED = 200  # beyond that, orders of sets or of parts take too long
BOOTSTRAP = "percentiles of the Bayesian bootstrap, over rows or over sets, whichever is further"
TOO_FEW = f"fewer than {MIN_ROWS} sets: no interval"
SHARED_PARTS = "rows share parts, for which no interval kept its coverage: none"
ALIKE = "rows of a method are alike: none"
Mask = NDArray[np.bool_]
Found = Sequence[RankCorrelation | Undefined]


@dataclass(frozen=True)
class Crossed:
    """The index of each of N rows' set and column (what distinguishes the row apart from its set).

    parts: which of P parts each row has, (N, P), if sets share parts; None if they share none and every set has every
    column.
    """

    sets: Ints
    columns: Ints
    parts: Bools | None = None

    @property
    def num_sets(self) -> int:
        return int(self.sets.max()) + 1

    @property
    def num_columns(self) -> int:
        return int(self.columns.max()) + 1

    @property
    def num_parts(self) -> int | None:
        return None if self.parts is None else self.parts.shape[1]

    def rows(self, order: Ints) -> Crossed:
        """The same for a subset of the rows, in the given order."""
        sets, columns = (group_codes(list(of[order]), len(order)) for of in (self.sets, self.columns))
        return Crossed(sets, columns, None if self.parts is None else self.parts[order])

    def among(self, order: Ints) -> Crossed | None:
        """What a subset of the rows shares on its own; None if nothing."""
        sets, columns = self.sets[order].tolist(), self.columns[order].tolist()
        if self.parts is not None:
            built_from = [frozenset(np.flatnonzero(of_row).tolist()) for of_row in self.parts[order]]
            return of_parts(built_from, columns) or crossed(list(zip(sets, columns, strict=True)))
        return crossed(list(zip(sets, columns, strict=True)))

    def orders(self, codes: Ints, most: int | None = None) -> tuple[Ints, PMethod]:
        """Orders (R, N) of the rows: those of whole sets, or of parts, and of whole columns within each group.

        The first leaves the rows unchanged. More than 60 rows get fewer orders, as they take more work. most: beyond
        so many orders, this number of them is drawn.
        """
        of_columns = classes_of_columns(self.sets, self.columns, codes)
        of_parts = self._classes_of_parts()
        orders, method = orders_within(np.sort(np.r_[of_parts, of_parts.max() + 1 + of_columns]))
        if method == "Monte Carlo" and len(codes) > MAX_ROWS_RESAMPLED:
            orders = orders[: max(1000, NUM_ORDERS * MAX_ROWS_RESAMPLED**2 // len(codes) ** 2)]
        if most is not None and len(orders) > most:
            drawn = 1 + np.random.default_rng(SEED).permutation(len(orders) - 1)[: most - 1]
            orders, method = orders[np.r_[0, drawn]], "Monte Carlo"
        num_parts = len(of_parts)
        images = self._images(_by_class(of_parts, orders[:, :num_parts]))
        columns = _by_class(of_columns, orders[:, num_parts:] - num_parts)
        row_at = np.full((self.num_sets, self.num_columns), -1)
        row_at[self.sets, self.columns] = np.arange(len(codes))
        return row_at[images[:, self.sets], columns[:, self.columns]], method

    def _classes_of_parts(self) -> Ints:
        if self.parts is None:
            return np.zeros(self.num_sets, dtype=np.int64)
        return classes_of_parts(self.parts, self.columns)

    def _images(self, orders: Ints) -> Ints:
        """For each order of the parts (R, P), the set that takes the place of each set, (R, S)."""
        if self.parts is None:
            return orders
        sets = self.parts[np.unique(self.sets, return_index=True)[1]]
        known = masks(sets)
        by_mask = np.argsort(known)
        images = (1 << orders) @ sets.T.astype(np.int64)
        return by_mask[np.searchsorted(known[by_mask], images)]


@dataclass(frozen=True)
class WithinColumns:
    """The index of each of N rows' column; rows are only permuted within their column."""

    columns: Ints

    def rows(self, order: Ints) -> WithinColumns:
        """The same for a subset of the rows, in the given order."""
        return WithinColumns(self.columns[order])

    def orders(self, _codes: Ints) -> tuple[Ints, PMethod]:
        """Orders (R, N) of the rows within their columns; the first leaves them unchanged."""
        orders, method = orders_within(np.sort(self.columns))
        return _by_class(self.columns, orders), method


def _by_class(classes: Ints, orders: Ints) -> Ints:
    """Orders (R, n) of items sorted by class, converted to the items' own sequence."""
    by_class = np.argsort(classes, kind="stable")
    return by_class[orders][:, np.argsort(by_class)]


def crossed(design: Sequence[tuple[Hashable, Hashable]]) -> Crossed | None:
    """The sets and columns of rows; None unless each of at least two sets has each of at least two columns once."""
    sets = group_codes([of_set for of_set, _ in design], len(design))
    columns = group_codes([column for _, column in design], len(design))
    num_sets, num_columns = len(set(sets)), len(set(columns))
    complete = len(set(design)) == len(design) == num_sets * num_columns
    return Crossed(sets, columns) if complete and num_sets > 1 and num_columns > 1 else None


def of_parts(built_from: Sequence[Set[Hashable]], columns: Sequence[Hashable]) -> Crossed | None:
    """Rows by parts and columns; None if the rows share no parts or no two parts are exchangeable."""
    parts = incidence(built_from)
    distinct = len({*zip(map(frozenset, built_from), columns, strict=True)}) == len(columns)
    if not len(columns) or not distinct or parts.shape[1] > MAX_PARTS or not overlap(parts):
        return None
    sets = group_codes([frozenset(of_row) for of_row in built_from], len(columns))
    found = Crossed(sets, group_codes(columns, len(columns)), parts)
    classes = classes_of_parts(parts, found.columns)
    return found if len(set(classes.tolist())) < len(classes) else None


def over_sets(
    found: Found, x: Floats, y: Floats, codes: Ints, design: Crossed | WithinColumns
) -> tuple[Found, Floats, PMethod]:
    """`found` for the columns of `x` (N, M) and complete `y` (N), with p and intervals over sets.

    Or with p over parts, or over rows within columns, without intervals.

    Also returns the scores (R, M) in all orders, row 0 the observed one, and how the orders were found. A row that
    misses a term keeps its place in the orders, without pairs for that term.
    """
    by_value = np.lexsort((*x.T[::-1], y))  # makes the result independent of the initial order
    x, y = x[by_value], y[by_value]
    codes, design = group_codes(list(codes[by_value]), len(y)), design.rows(by_value)
    of_x, of_y = [signs(column, codes) for column in x.T], signs(y, codes)
    orders, method = design.orders(codes)
    ranks = of_y.sum(axis=1, dtype=np.float64)
    scores = permuted_scores(of_x, ranks, orders)
    tau_p = shares_as_far(scores)
    results: list[RankCorrelation | Undefined] = []
    for position, result in enumerate(found):
        if isinstance(result, Undefined):
            results.append(result)
            continue
        there = np.isfinite(x[:, position])
        rho_p = shares_as_far(_rank_products(of_x[position], ranks, orders, there, codes))[0]
        one = replace(
            result,
            tau=replace(result.tau, p=tau_p[position], p_method=method),
            rho=replace(result.rho, p=rho_p, p_method=method),
        )
        if isinstance(design, WithinColumns):
            one = without_intervals(one, ALIKE)
        elif design.parts is not None:
            one = without_intervals(one)
        elif one.tau.interval is not None:
            one = _with_intervals(one, of_x[position], of_y, there, design.sets)
        results.append(one)
    return results, scores, method


def _rank_products(of_x: Signs, y: Floats, orders: Ints, there: Mask, codes: Ints) -> Floats:
    """Σ a·b (R, 1) of the ranks among the rows that are `there`, in each order."""
    a = of_x.sum(axis=1, dtype=np.float64)
    if there.all():  # rows stay in their groups, and the ranks are unchanged
        return (y[orders] @ a)[:, None]
    permuted = y.astype(np.float32)[orders]
    products = np.zeros(len(orders))
    for row in np.flatnonzero(there):
        others = there & (codes == codes[row])
        products += a[row] * np.sign(permuted[:, row, None] - permuted[:, others]).sum(axis=1, dtype=np.float64)
    return products[:, None]


def without_intervals(result: RankCorrelation, why: str = SHARED_PARTS) -> RankCorrelation:
    """The result without intervals, for rows that share parts or are alike in another way."""
    return _between(result, (None, None), why) if result.interval_method is not None else result


def without_tests(result: RankCorrelation) -> RankCorrelation:
    """The result without p and intervals, for rows that share more than any orders allow for."""
    tau, rho = (replace(one, p=None, p_method=None) for one in _both(result))
    return without_intervals(replace(result, tau=tau, rho=rho))


def _with_intervals(result: RankCorrelation, of_x: Signs, of_y: Signs, there: Mask, sets: Ints) -> RankCorrelation:
    """The intervals over rows, widened to those over sets; none with few sets."""
    x, y, sets = of_x[np.ix_(there, there)], of_y[np.ix_(there, there)], group_codes(list(sets[there]), there.sum())
    num_sets = int(sets.max()) + 1
    weights = weights_within(np.zeros(num_sets, dtype=np.int64))
    if weights is None:
        return _between(result, (None, None), TOO_FEW)
    if result.interval_method == PERFECT_ORDER:
        limits = (
            min(limit, abs(one.value))
            for limit, one in zip(perfect_order_limits((num_sets,)), _both(result), strict=True)
        )
        ends = [(limit, 1.0) if result.tau.value > 0 else (-1.0, -limit) for limit in limits]
        return _between(result, (ends[0], ends[1]), PERFECT_ORDER)
    tau, rho = weighted_coefficients(x, y, weights[:, sets])
    return _between(result, (percentile_interval(tau), percentile_interval(rho)), BOOTSTRAP)


def _between(result: RankCorrelation, over: Intervals, how: str) -> RankCorrelation:
    tau, rho = (
        replace(one, interval=_hull(one.interval, interval)) for one, interval in zip(_both(result), over, strict=True)
    )
    return replace(result, tau=tau, rho=rho, interval_method=how)


def _both(result: RankCorrelation) -> tuple[Coefficient, Coefficient]:
    return result.tau, result.rho


def _hull(one: Interval | None, other: Interval | None) -> Interval | None:
    return None if one is None or other is None else (min(one[0], other[0]), max(one[1], other[1]))
