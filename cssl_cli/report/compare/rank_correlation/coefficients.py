"""Rank correlation over the rows of a table: Kendall's τ_b and Spearman's ρ, p-values and intervals.

With sx_ij = sign(x_i − x_j), zero between rows of different groups,

    τ_b = Σ sx·sy / √(Σ|sx| Σ|sy|),      ρ = Σ a·b / √(Σ a² Σ b²),   a_i = Σ_j sx_ij,   b_i = Σ_j sy_ij.

a_i is twice the midrank of row i in its group minus the mean, so this is Spearman's ρ with ties; with several groups
both are coefficients *within* groups, using pairs, ranks and permutations of each group only. Shapes: N rows, M terms,
R orders or resamples. Only numpy is needed. docs/statistics.md explains what the numbers mean and how they err.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cssl_cli.report.compare.rank_correlation import normal_limit
from cssl_cli.report.compare.rank_correlation.attainable import p_without_ties
from cssl_cli.report.compare.rank_correlation.bootstrap import (
    MIN_ROWS,
    Interval,
    percentile_interval,
    perfect_order_limits,
    weighted_coefficients,
    weights_within,
)
from cssl_cli.report.compare.rank_correlation.permutation import orders_within, permuted_scores, shares_as_far
from cssl_cli.report.compare.rank_correlation.signs import (
    Floats,
    Ints,
    Pair,
    as_column,
    group_codes,
    group_sizes,
    in_order,
    variable,
)

MAX_ROWS_RESAMPLED = 60  # beyond that, p-values and intervals use the normal limit
MIN_ROWS_COMPARED = 3
BOOTSTRAP = "percentiles of the Bayesian bootstrap over rows"
PERFECT_ORDER = "every pair agrees: from the normal correlation at which that has chance 2.5 %"
NORMAL_LIMIT = "normal limit of Fisher's z"
TOO_FEW = f"fewer than {MIN_ROWS} rows: no interval"
Method = Literal["exact", "Monte Carlo", "asymptotic"]
Intervals = tuple[Interval | None, Interval | None]  # of τ and of ρ
PValue = tuple[float, Method]
NO_INTERVALS: Intervals = (None, None)


@dataclass(frozen=True)
class Undefined:
    """A coefficient that cannot be computed from the rows, and a sentence that says why."""

    reason: str

    def to_dict(self) -> dict[str, Any]:
        """`value` null and the `reason`."""
        return {"value": None, "reason": self.reason}


@dataclass(frozen=True)
class Coefficient:
    """τ_b or ρ, its two-sided p-value if every order of the rows is equally likely, and its 95 % interval.

    `p_method` is how the p-value was computed.
    """

    value: float
    p: float | None
    p_method: Method | None
    interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {**vars(self), "interval": None if self.interval is None else list(self.interval)}


@dataclass(frozen=True)
class RankCorrelation:
    """Both coefficients of two variables over n rows.

    Of the `num_pairs` pairs of rows (within groups, if there are any) `num_tied_pairs` are tied in one variable or
    both. `p_method`: how both p-values were computed; `interval_method`: how the intervals were, or why there are none.
    """

    tau: Coefficient
    rho: Coefficient
    n: int
    num_pairs: int
    num_tied_pairs: int
    interval_method: str | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {**vars(self), "tau": self.tau.to_dict(), "rho": self.rho.to_dict()}


def rank_correlation(
    x: Sequence[float | None], y: Sequence[float | None], groups: Sequence[object] | None = None
) -> RankCorrelation | Undefined:
    """τ_b and ρ between `x` (N) and `y` (N), over the rows that have both; within `groups` (N) if given.

    None and non-finite numbers count as missing. Undefined with fewer than three rows (in groups of two or more), or if
    a variable is constant.
    """
    return rank_correlations(as_column(x)[:, None], as_column(y), group_codes(groups, len(y)))[0]


def rank_correlations(
    x: Floats, y: Floats, codes: Ints, *, with_intervals: bool = True
) -> list[RankCorrelation | Undefined]:
    """`rank_correlation` for each of the M columns of `x` (N, M) with `y` (N) in groups `codes` (N).

    NaN is missing. Columns that miss the same rows share their permutations and resamples.
    """
    found: list[RankCorrelation | Undefined] = [Undefined("no number at all")] * x.shape[1]
    present = np.isfinite(x) & np.isfinite(y)[:, None]
    for pattern in np.unique(present, axis=1).T:
        columns = np.flatnonzero((present == pattern[:, None]).all(axis=0))
        results = _complete(x[np.ix_(pattern, columns)], y[pattern], codes[pattern], with_intervals)
        for column, result in zip(columns, results, strict=True):
            found[column] = result
    return found


def _complete(x: Floats, y: Floats, codes: Ints, with_intervals: bool) -> list[RankCorrelation | Undefined]:
    """`rank_correlations` for rows without missing numbers."""
    num_rows, grouped = len(y), len(np.unique(codes)) > 1
    x, y, codes = in_order(x, y, codes)
    if len(y) < MIN_ROWS_COMPARED:
        place, count = (" in groups of two or more", len(y)) if grouped else ("", num_rows)
        return [Undefined(f"{count} of at least {MIN_ROWS_COMPARED} rows with both numbers{place}")] * x.shape[1]
    of_y = variable(y, codes)
    pairs = {column: Pair(variable(x[:, column], codes), of_y) for column in range(x.shape[1])}
    defined = [column for column, pair in pairs.items() if _both_vary(pair)]
    same = Undefined(f"one of the two is the same in all rows{' of each group' if grouped else ''}")
    found: list[RankCorrelation | Undefined] = [same] * x.shape[1]
    if not defined:
        return found
    finish = _few_rows if len(y) <= MAX_ROWS_RESAMPLED else _many_rows
    results = finish([pairs[column] for column in defined], codes, with_intervals)
    for column, result in zip(defined, results, strict=True):
        found[column] = result
    return found


def _both_vary(pair: Pair) -> bool:
    """Whether both variables take more than one value within some group."""
    return any(a and b for a, b in zip(pair.x.varies(), pair.y.varies(), strict=True))


def _few_rows(pairs: Sequence[Pair], codes: Ints, with_intervals: bool) -> Iterator[RankCorrelation]:
    of_x, of_y = [pair.x.matrix for pair in pairs], pairs[0].y
    orders, method = orders_within(codes)
    tau_p = shares_as_far(permuted_scores(of_x, of_y.ranks, orders))
    # Ranks are integers, and so are these sums of their products.
    rho_p = shares_as_far(of_y.ranks[orders] @ np.stack([pair.x.ranks for pair in pairs], axis=1))
    weights = weights_within(codes) if with_intervals else None
    for position, pair in enumerate(pairs):
        of_tau: PValue = tau_p[position], method
        if pair.num_untied == pair.num_pairs:  # the distribution is then known, whatever the number of orders
            of_tau = p_without_ties(group_sizes(codes), pair.score), "exact"
        spans, how = NO_INTERVALS, TOO_FEW if with_intervals else None
        if weights is not None and pair.all_agree:
            spans, how = _of_perfect_order(pair), PERFECT_ORDER
        elif weights is not None:
            tau, rho = weighted_coefficients(of_x[position], of_y.matrix, weights)
            spans, how = (percentile_interval(tau), percentile_interval(rho)), BOOTSTRAP
        yield _result(pair, of_tau, (rho_p[position], method), spans, how)


def _many_rows(pairs: Sequence[Pair], _: Ints, with_intervals: bool) -> Iterator[RankCorrelation]:
    for pair in pairs:
        spans, how = NO_INTERVALS, None
        if with_intervals and pair.all_agree:
            spans, how = _of_perfect_order(pair), PERFECT_ORDER
        elif with_intervals:
            spans, how = normal_limit.intervals(pair), NORMAL_LIMIT
        tau_p, rho_p = normal_limit.p_values(pair)
        yield _result(pair, (tau_p, "asymptotic"), (rho_p, "asymptotic"), spans, how)


def _of_perfect_order(pair: Pair) -> Intervals:
    """The intervals if no two rows are discordant (or none concordant), with or without ties."""
    lengths = sorted(min(len(t), len(u)) for t, u in zip(pair.x.ties, pair.y.ties, strict=True))
    tau, rho = perfect_order_limits(tuple(lengths))
    tau, rho = min(tau, abs(pair.tau)), min(rho, abs(pair.rho))
    return ((tau, 1.0), (rho, 1.0)) if pair.score > 0 else ((-1.0, -tau), (-1.0, -rho))


def _result(pair: Pair, of_tau: PValue, of_rho: PValue, spans: Intervals, how: str | None) -> RankCorrelation:
    return RankCorrelation(
        tau=Coefficient(pair.tau, *of_tau, spans[0]),
        rho=Coefficient(pair.rho, *of_rho, spans[1]),
        n=len(pair.x.ranks),
        num_pairs=pair.num_pairs,
        num_tied_pairs=pair.num_pairs - pair.num_untied,
        interval_method=how,
    )
