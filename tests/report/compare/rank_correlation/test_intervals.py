"""Intervals of rank correlations: which there is, its ends, and its coverage by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from cssl_cli.report.compare.rank_correlation.bootstrap import perfect_order_limits, weighted_coefficients
from cssl_cli.report.compare.rank_correlation.coefficients import (
    BOOTSTRAP,
    NORMAL_LIMIT,
    PERFECT_ORDER,
    rank_correlations,
)
from cssl_cli.report.compare.rank_correlation.signs import Pair, signs, variable
from tests.support.rank_correlations import correlation, defined, normal_coefficients, sample


def test_a_weight_of_two_is_a_row_that_stands_there_twice() -> None:
    x, y = sample(7, 3, ties=True)
    weights = np.array([2, 1, 3, 1, 1, 0, 1])
    codes = np.zeros(7, int)
    tau, rho = weighted_coefficients(signs(x, codes), signs(y, codes), weights[None].astype(float))
    twice = np.repeat(np.arange(7), weights)
    assert tau[0] == pytest.approx(stats.kendalltau(x[twice], y[twice]).statistic)
    assert rho[0] == pytest.approx(stats.spearmanr(x[twice], y[twice]).statistic)


def test_which_interval_there_is() -> None:
    for n, how in ((4, None), (5, BOOTSTRAP), (60, BOOTSTRAP), (61, NORMAL_LIMIT)):
        found = correlation(*sample(n, 1, slope=0.3))
        assert (found.tau.interval is None, found.rho.interval is None) == (how is None, how is None)
        assert how is None or found.interval_method == how
        for c in (found.tau, found.rho):
            assert c.interval is None or -1 <= c.interval[0] < c.value < c.interval[1] <= 1
    for n in (5, 61):
        x = np.arange(n)
        found = correlation(x, x**2)
        assert found.interval_method == PERFECT_ORDER
        assert found.tau.interval == (perfect_order_limits((n,))[0], 1.0)
        assert correlation(x, -x).rho.interval == (-1.0, -perfect_order_limits((n,))[1])
    assert correlation(*sample(8, 1), list("aabbccdd")).tau.interval is None  # no group has a spread
    x = np.tile(np.arange(2), 4)
    assert correlation(x, x, list("aabbccdd")).tau.interval is None  # in perfect order either


@pytest.mark.parametrize("lengths", [(5,), (10,), (3, 4)])
def test_the_end_for_a_perfect_order_is_where_one_has_chance_two_and_a_half_per_cent(lengths) -> None:
    tau, rho = perfect_order_limits(lengths)
    r = math.sin(math.pi * tau / 2)
    assert normal_coefficients(r) == (pytest.approx(tau), pytest.approx(rho))
    generator, draws = np.random.default_rng(77), 40_000
    perfect = np.ones(draws, bool)
    for length in lengths:
        x = np.sort(generator.standard_normal((draws, length)), axis=1)
        y = r * x + math.sqrt(1 - r * r) * generator.standard_normal((draws, length))
        perfect &= (np.diff(y, axis=1) > 0).all(axis=1)
    # Errors of the quantile (20,000 draws) and of this share.
    assert perfect.mean() == pytest.approx(0.025, abs=5 * math.sqrt(0.025 / 20_000 + 0.025 / draws))


def test_the_limit_of_many_rows_is_that_of_the_bootstrap() -> None:
    """Derivatives in the weights, against differences of the weighted coefficients."""
    from cssl_cli.report.compare.rank_correlation import normal_limit

    x, y = sample(12, 7, ties=True)
    codes = np.array([0] * 7 + [1] * 5)
    pair = Pair(variable(x, codes), variable(y, codes))
    step = 1e-5
    moved = np.ones((12, 12)) + step * np.eye(12)
    at = np.ones((1, 12))
    of_x, of_y = signs(x, codes).astype(float), signs(y, codes).astype(float)
    for k, interval in enumerate(normal_limit.intervals(pair)):
        value = weighted_coefficients(of_x, of_y, at)[k][0]
        derivative = (weighted_coefficients(of_x, of_y, moved)[k] - value) / step
        error = math.sqrt((derivative**2).sum() * 12 / 11)
        half = stats.norm.ppf(0.975) * error / (1 - value**2)
        assert interval == pytest.approx(np.tanh([np.arctanh(value) - half, np.arctanh(value) + half]), abs=1e-4)


# As docs/statistics.md states, from 2,000 samples a line.
MIN_COVERAGE = {5: 0.92}
MIN_COVERAGE_ELSE = 0.93


@pytest.mark.parametrize(
    ("sizes", "tau", "samples"),
    [((5,), 0.6, 300), ((10,), 0.0, 300), ((10,), 0.6, 300), ((5, 5), 0.4, 300), ((40,), 0.3, 180), ((70,), 0.5, 240)],
)
def test_intervals_cover_the_coefficients_of_a_normal_distribution(
    sizes, tau: float, samples: int, draws: Callable[..., None]
) -> None:
    draws(orders=20, resamples=500)  # p-values are not looked at
    generator = np.random.default_rng(31)
    n, codes = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)
    r = math.sin(math.pi * tau / 2)
    block, at_least = 6, MIN_COVERAGE.get(n, MIN_COVERAGE_ELSE)  # samples that share y, and so the work on it
    covered = np.zeros(2)
    for _ in range(samples // block):
        y = generator.standard_normal(n)
        x = r * y[:, None] + math.sqrt(1 - r * r) * generator.standard_normal((n, block))
        for found in rank_correlations(x, y, codes):
            for k, (c, value) in enumerate(
                zip((defined(found).tau, defined(found).rho), normal_coefficients(r), strict=True)
            ):
                assert c.interval is not None
                covered[k] += c.interval[0] <= value <= c.interval[1]
    error = math.sqrt(at_least * (1 - at_least) / samples)
    assert (covered / samples >= at_least - 3 * error).all(), covered / samples
