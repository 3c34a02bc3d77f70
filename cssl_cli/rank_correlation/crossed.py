"""Rows that share their set of augmentations: p-values and intervals over sets rather than over rows.

Rows of one set (several methods under the same augmentations) are alike, and so are rows of one method. Where every set
stands with every method once, orders of whole sets, the same for all methods, and of whole methods leave both kinds of
likeness as they are, and resampling whole sets leaves the rows of a set together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cssl_cli.rank_correlation import PERFECT_ORDER, Absent, Coefficient, Intervals, RankCorrelation
from cssl_cli.rank_correlation.bootstrap import (
    MIN_ROWS,
    Interval,
    percentile_interval,
    perfect_order_limits,
    weighted_coefficients,
    weights_within,
)
from cssl_cli.rank_correlation.permutation import PMethod, orders_within, permuted_scores, shares_as_far
from cssl_cli.rank_correlation.signs import Floats, Ints, Signs, group_codes, signs

BOOTSTRAP = "percentiles of the Bayesian bootstrap, over rows or over sets, whichever is further"
TOO_FEW = f"fewer than {MIN_ROWS} sets: no interval"
Mask = NDArray[np.bool_]
Found = Sequence[RankCorrelation | Absent]


@dataclass(frozen=True)
class Crossed:
    """For each of N rows the numbers of its set and of its column (what it is apart from its set): all combinations."""

    sets: Ints
    columns: Ints

    @property
    def num_sets(self) -> int:
        return int(self.sets.max()) + 1

    def orders(self, codes: Ints) -> tuple[Ints, PMethod]:
        """Orders (R, N) of the rows by those of whole sets and, in each group, of whole columns; first as they are."""
        first_of = np.unique(self.columns, return_index=True)[1]
        by_group = np.argsort(codes[first_of], kind="stable")
        row_at = np.empty((self.num_sets, len(by_group)), dtype=np.int64)
        place = np.argsort(by_group)[self.columns]  # of each row's column among those that stand group by group
        row_at[self.sets, place] = np.arange(len(codes))
        orders, method = orders_within(np.r_[np.zeros(self.num_sets, dtype=np.int64), 1 + codes[first_of][by_group]])
        of_sets, of_columns = orders[:, : self.num_sets], orders[:, self.num_sets :] - self.num_sets
        return row_at[of_sets[:, self.sets], of_columns[:, place]], method


def crossed(design: Sequence[tuple[Hashable, Hashable]]) -> Crossed | None:
    """The sets and columns of rows; None unless each of two or more sets has each of two or more columns once."""
    sets = group_codes([of_set for of_set, _ in design], len(design))
    columns = group_codes([column for _, column in design], len(design))
    num_sets, num_columns = len(set(sets)), len(set(columns))
    complete = len(set(design)) == len(design) == num_sets * num_columns
    return Crossed(sets, columns) if complete and num_sets > 1 and num_columns > 1 else None


def over_sets(found: Found, x: Floats, y: Floats, codes: Ints, design: Crossed) -> tuple[Found, Floats, PMethod]:
    """`found` for the columns of `x` (N, M) and `y` (N), of which `y` misses none, with p and intervals over sets.

    With the scores (R, M) in all orders, row 0 the observed ones, and how the orders were found. A row that misses a
    term keeps its place in the orders, without pairs for that term.
    """
    by_value = np.lexsort((*x.T[::-1], y))  # the order on entry will not matter
    x, y = x[by_value], y[by_value]
    codes, sets, columns = (group_codes(list(of[by_value]), len(y)) for of in (codes, design.sets, design.columns))
    design = Crossed(sets, columns)
    of_x, of_y = [signs(column, codes) for column in x.T], signs(y, codes)
    orders, method = design.orders(codes)
    ranks = of_y.sum(axis=1, dtype=np.float64)
    scores = permuted_scores(of_x, ranks, orders)
    tau_p = shares_as_far(scores)
    results: list[RankCorrelation | Absent] = []
    for position, result in enumerate(found):
        if isinstance(result, Absent):
            results.append(result)
            continue
        there = np.isfinite(x[:, position])
        rho_p = shares_as_far(_rank_products(of_x[position], ranks, orders, there, codes))[0]
        one = replace(
            result,
            tau=replace(result.tau, p=tau_p[position], p_method=method),
            rho=replace(result.rho, p=rho_p, p_method=method),
        )
        if one.tau.interval is not None:
            one = _with_intervals(one, of_x[position], of_y, there, sets)
        results.append(one)
    return results, scores, method


def _rank_products(of_x: Signs, y: Floats, orders: Ints, there: Mask, codes: Ints) -> Floats:
    """Σ a·b (R, 1) of the ranks among the rows that are `there`, in each order."""
    permuted, a = y.astype(np.float32)[orders], of_x.sum(axis=1, dtype=np.float64)
    products = np.zeros(len(orders))
    for row in np.flatnonzero(there):
        others = there & (codes == codes[row])
        products += a[row] * np.sign(permuted[:, row, None] - permuted[:, others]).sum(axis=1, dtype=np.float64)
    return products[:, None]


def _with_intervals(result: RankCorrelation, of_x: Signs, of_y: Signs, there: Mask, sets: Ints) -> RankCorrelation:
    """The intervals over rows, widened to those over sets; none for few sets."""
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
