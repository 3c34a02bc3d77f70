"""Few rows: intervals from random weights of the rows, and from what is possible if every pair of rows agrees."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cssl_cli.report.compare.rank_correlation.permutation import SEED
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints, Signs, group_sizes

Interval = tuple[float, float]
REPLICATES = 2000
CONFIDENCE = 0.95
MIN_ROWS = 5
MIN_ROWS_OF_GROUP = 3  # a smaller group has no spread to resample


def weights_within(codes: Ints) -> Floats | None:
    """Random weights (R, N) of rows sorted by group, with mean one in each group; None for too few rows.

    The Bayesian bootstrap: n times a Dirichlet vector of concentration 1 − 2/n, for which the variance of a weighted
    mean is the unbiased s²/n. Rows in groups of one or two keep weight one.
    """
    sizes = group_sizes(codes)
    enough = sum(size for size in sizes if size >= MIN_ROWS_OF_GROUP) >= MIN_ROWS
    return _dirichlet(sizes) if enough else None


@lru_cache(maxsize=8)
def _dirichlet(sizes: tuple[int, ...]) -> Floats:
    generator = np.random.default_rng(SEED)
    groups = [
        size * generator.dirichlet(np.full(size, 1 - 2 / size), size=REPLICATES)
        if size >= MIN_ROWS_OF_GROUP
        else np.ones((REPLICATES, size))
        for size in sizes
    ]
    return np.concatenate(groups, axis=1)


def weighted_coefficients(x: Signs, y: Signs, weights: Floats) -> tuple[Floats, Floats]:
    """τ_b and ρ, (R,) each, of rows with `weights` (R, N); NaN if a variable keeps only one value.

    A weight of 2 is the same as repeating the row.
    """

    def pairs(matrix: Signs) -> Floats:
        return np.einsum("rn,rn->r", weights @ matrix, weights)

    a, b = weights @ x.T, weights @ y.T
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = pairs(x * y) / np.sqrt(pairs(np.abs(x)) * pairs(np.abs(y)))
        rho = (weights * a * b).sum(1) / np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))
    return np.clip(tau, -1, 1), np.clip(rho, -1, 1)


def percentile_interval(replicates: NDArray[np.float64]) -> Interval | None:
    """The central 95 % of the defined replicates; None if fewer than half are defined."""
    defined = replicates[np.isfinite(replicates)]
    if 2 * len(defined) < len(replicates):
        return None
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


@lru_cache(maxsize=64)
def perfect_order_limits(lengths: tuple[int, ...]) -> tuple[float, float]:
    """The lower ends of (τ, ρ) when groups with these numbers of distinct values are all in perfect order.

    No resample would have a discordant pair. Instead take normal x and y = r x + √(1 − r²) e: rows sorted by x are in
    perfect order if r/√(1 − r²) exceeds −Δe/Δx for every two neighbours. The 2.5 % quantile of the largest such ratio
    gives the r at which a perfect order has probability 2.5 %; τ = 2/π asin r and ρ = 6/π asin(r/2).
    """
    generator = np.random.default_rng(SEED)
    draws = max(1000, min(20_000, 2_000_000 // max(1, sum(lengths))))
    largest = np.full(draws, -np.inf)
    for length in lengths:
        if length > 1:
            x = np.sort(generator.standard_normal((draws, length)), axis=1)
            e = generator.standard_normal((draws, length))
            largest = np.maximum(largest, (-np.diff(e, axis=1) / np.diff(x, axis=1)).max(axis=1))
    ratio = float(np.quantile(largest, (1 - CONFIDENCE) / 2))
    r = ratio / math.hypot(1, ratio)
    return 2 / math.pi * math.asin(r), 6 / math.pi * math.asin(r / 2)
