"""Rank correlation: values against scipy and loops, p-values against enumeration, intervals against simulation."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from cssl_cli.report.compare.rank_correlation.attainable import (
    discordant_pairs,
    least_tau,
    p_without_ties,
    smallest_p_values,
)
from cssl_cli.report.compare.rank_correlation.bootstrap import perfect_order_limits, weighted_coefficients
from cssl_cli.report.compare.rank_correlation.coefficients import (
    BOOTSTRAP,
    MAX_ROWS_RESAMPLED,
    NORMAL_LIMIT,
    PERFECT_ORDER,
    RankCorrelation,
    Undefined,
    rank_correlation,
    rank_correlations,
)
from cssl_cli.report.compare.rank_correlation.permutation import NUM_ORDERS, orders_within
from cssl_cli.report.compare.rank_correlation.signs import Pair, group_codes, signs, variable


def sample(n: int, seed: int, *, ties: bool = False, slope: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(n)
    y = slope * x + generator.standard_normal(n)
    return (np.round(x), np.round(y)) if ties else (x, y)


def defined(found: RankCorrelation | Undefined) -> RankCorrelation:
    assert isinstance(found, RankCorrelation), found
    return found


def correlation(x, y, groups=None) -> RankCorrelation:
    return defined(rank_correlation(list(x), list(y), groups))


def normal_coefficients(r: float) -> tuple[float, float]:
    """τ and ρ of a bivariate normal distribution of correlation r."""
    return 2 / math.pi * math.asin(r), 6 / math.pi * math.asin(r / 2)


# ---------------------------------------------------------------------- values
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_the_rounding_of_means_makes_no_order(scale: float) -> None:
    rounded, exact = [0.1 + 0.2, 0.3, 0.2, 0.5], [0.3, 0.3, 0.2, 0.5]
    assert rounded[0] != exact[0]
    y = [4.0, 1.0, 2.0, 3.0]
    found = correlation([scale * value for value in rounded], y)
    assert found == correlation(exact, y) == correlation(y, exact)
    assert found.num_tied_pairs == 1
    assert correlation(y, rounded) == found
    assert correlation([0.3 + 1e-9, *exact[1:]], y).num_tied_pairs == 0


def by_loops(x, y, groups) -> tuple[float, float, int, int]:
    """τ_b and ρ within groups, pairs and tied pairs, by loops over rows and pairs."""
    concordant = discordant = tied_x = tied_y = pairs = tied = 0
    for i, j in itertools.combinations(range(len(x)), 2):
        if groups[i] != groups[j]:
            continue
        pairs += 1
        dx, dy = x[i] - x[j], y[i] - y[j]
        tied += dx == 0 or dy == 0
        tied_x += dx == 0
        tied_y += dy == 0
        concordant += dx * dy > 0
        discordant += dx * dy < 0
    tau = (concordant - discordant) / math.sqrt((pairs - tied_x) * (pairs - tied_y))

    def centered_midranks(values) -> list[float]:
        ranks = []
        for value, group in zip(values, groups, strict=True):
            peers = [other for other, g in zip(values, groups, strict=True) if g == group]
            below, same = sum(p < value for p in peers), sum(p == value for p in peers)
            ranks.append(below + (same + 1) / 2 - (len(peers) + 1) / 2)
        return ranks

    a, b = centered_midranks(x), centered_midranks(y)
    products = [sum(s * t for s, t in zip(u, v, strict=True)) for u, v in ((a, b), (a, a), (b, b))]
    return tau, products[0] / math.sqrt(products[1] * products[2]), pairs, tied


@pytest.mark.parametrize("n", [4, 11, 70])
@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_scipy(n: int, ties: bool) -> None:
    x, y = sample(n, n, ties=ties)
    found = correlation(x, y)
    assert found.tau.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert found.rho.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found.n, found.num_pairs) == (n, n * (n - 1) // 2)
    assert found.num_tied_pairs == by_loops(x, y, [0] * n)[3]


@pytest.mark.parametrize("n", [12, 75])
@pytest.mark.parametrize("ties", [False, True])
def test_within_groups_only_their_pairs_and_ranks_count(n: int, ties: bool) -> None:
    x, y = sample(n, 3, ties=ties)
    groups = ["ab c"[i % 4] for i in range(n - 1)] + ["alone"]
    tau, rho, pairs, tied = by_loops(x, y, groups)
    found = correlation(x, y, groups)
    assert (found.tau.value, found.rho.value) == (pytest.approx(tau), pytest.approx(rho))
    assert (found.n, found.num_pairs, found.num_tied_pairs) == (n - 1, pairs, tied)


def test_a_difference_between_groups_is_none_within_them() -> None:
    x, y, groups = [1, 2, 3, 11, 12, 13], [3, 2, 1, 13, 12, 11], list("aaabbb")
    assert correlation(x, y).tau.value == pytest.approx((9 - 6) / 15)
    assert correlation(x, y, groups).tau.value == -1


@pytest.mark.parametrize("n", [5, 9, 30, 80])
def test_order_of_rows_monotone_transforms_and_signs_change_nothing(n: int) -> None:
    x, y = sample(n, n, ties=n == 9)
    found = correlation(x, y)
    order = np.random.default_rng(1).permutation(n)
    assert correlation(x[order], y[order]) == found
    assert correlation(np.exp(3 * x), y**3) == found
    flipped = correlation(-x, y)
    assert (flipped.tau.value, flipped.rho.value) == (-found.tau.value, pytest.approx(-found.rho.value))
    # Drawn orders are others then.
    assert (flipped.tau.p, flipped.rho.p) == pytest.approx((found.tau.p, found.rho.p), abs=0.02)


# ---------------------------------------------------------------------- what is absent
def test_rows_that_miss_a_number_do_not_count() -> None:
    x, y = sample(9, 2)
    found = correlation([*x, None, 1.0, math.inf], [*y, 0.3, math.nan, 0.5])
    assert found == correlation(x, y)
    assert found.n == 9


@pytest.mark.parametrize(
    ("x", "y", "groups", "words"),
    [
        ([], [], None, "0 of at least 3"),
        ([1.0], [1.0], None, "1 of at least 3"),
        ([1.0, 2.0, None], [1.0, 2.0, 3.0], None, "2 of at least 3"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], None, "the same in all rows"),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], None, "the same in all rows"),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], list("abc"), "in groups of two or more"),
        ([1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 3.0], list("aabb"), "of each group"),
    ],
)
def test_what_cannot_be_computed_says_why(x, y, groups, words: str) -> None:
    found = rank_correlation(x, y, groups)
    assert isinstance(found, Undefined)
    assert words in found.reason
    assert found.to_dict() == {"value": None, "reason": found.reason}


def test_columns_with_gaps_are_as_each_by_itself() -> None:
    generator = np.random.default_rng(5)
    x, y = generator.standard_normal((11, 4)), generator.standard_normal(11)
    x[2, 1] = x[3, 2] = x[7, 2] = np.nan
    groups = [i % 2 for i in range(11)]
    together = rank_correlations(x, y, group_codes(groups, 11))
    assert together == [rank_correlation(list(column), list(y), groups) for column in x.T]


# ---------------------------------------------------------------------- p-values
def p_by_enumeration(x, y, groups) -> tuple[float, float]:
    """Two-sided p-values of τ and ρ over every order of y within groups; ranks times two are whole numbers."""
    rows = {group: [i for i, g in enumerate(groups) if g == group] for group in dict.fromkeys(groups)}
    scores = []
    for orders in itertools.product(*(itertools.permutations(members) for members in rows.values())):
        permuted = list(y)
        for members, order in zip(rows.values(), orders, strict=True):
            for place, source in zip(members, order, strict=True):
                permuted[place] = y[source]
        tau = rho = 0
        for members in rows.values():
            for i, j in itertools.combinations(members, 2):
                tau += int(np.sign((x[i] - x[j]) * (permuted[i] - permuted[j])))
            a, b = (stats.rankdata([values[i] for i in members]) for values in (x, permuted))
            rho += 4 * round(float((a * b).sum() - len(members) * a.mean() * b.mean()) * 4) // 4
        scores.append((abs(tau), abs(rho)))
    observed = scores[0]
    return tuple(sum(score[k] >= observed[k] for score in scores) / len(scores) for k in (0, 1))  # type: ignore[return-value]


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize("ties", [False, True])
def test_p_values_of_few_rows_are_those_of_enumeration(n: int, ties: bool) -> None:
    x, y = ([0, 1, 1, 2, 3, 3][:n], [1, 1, 0, 2, 2, 2][:n]) if ties else sample(n, 8)
    found = correlation(x, y)
    assert (found.tau.p, found.rho.p) == pytest.approx(p_by_enumeration(x, y, [0] * n))
    assert (found.tau.p_method, found.rho.p_method) == ("exact", "exact")


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_within_groups_are_those_of_enumeration(ties: bool) -> None:
    groups = list("abababa")
    x, y = ([0, 1, 1, 2, 1, 0, 2], [1, 1, 0, 2, 2, 2, 2]) if ties else sample(7, 4)
    found = correlation(x, y, groups)
    assert (found.tau.p, found.rho.p) == pytest.approx(p_by_enumeration(x, y, groups))


@pytest.mark.parametrize("n", [8, 9, 40])
def test_without_ties_the_p_value_of_tau_is_scipys_exact_one(n: int) -> None:
    x, y = sample(n, 21, slope=0.4)
    found = correlation(x, y)
    assert found.tau.p == pytest.approx(stats.kendalltau(x, y, method="exact").pvalue)
    assert found.tau.p_method == "exact"


def test_drawn_orders_agree_with_scipys_permutation_test() -> None:
    x, y = sample(10, 6, ties=True)
    found = correlation(x, y)
    assert (found.tau.p_method, found.rho.p_method) == ("Monte Carlo", "Monte Carlo")
    for statistic, p in ((stats.kendalltau, found.tau.p), (stats.spearmanr, found.rho.p)):
        reference = stats.permutation_test(
            (y,), lambda v, s=statistic: s(x, v).statistic, permutation_type="pairings", n_resamples=400, rng=3
        ).pvalue
        error = math.sqrt(p * (1 - p) * (1 / NUM_ORDERS + 1 / 400))
        assert p == pytest.approx(reference, abs=5 * error)


def test_a_drawn_p_value_is_never_zero() -> None:
    x = np.arange(30.0)
    found = correlation(x, x)
    assert found.rho.p == 1 / NUM_ORDERS
    assert found.tau.p == pytest.approx(2 / math.factorial(30))


def test_orders_are_all_of_them_or_drawn_within_groups_the_observed_first() -> None:
    orders, method = orders_within(np.array([0, 0, 0, 1, 1]))
    assert method == "exact"
    assert {tuple(order) for order in orders} == {
        (*a, *b) for a in itertools.permutations((0, 1, 2)) for b in itertools.permutations((3, 4))
    }
    assert len(orders) == 12
    orders, method = orders_within(np.repeat([0, 1], 7))
    assert (method, orders.shape) == ("Monte Carlo", (NUM_ORDERS, 14))
    assert (np.sort(orders[:, :7], axis=1) == np.arange(7)).all()
    for drawn in orders_within(np.zeros(5, int))[0], orders:
        assert (drawn[0] == np.arange(drawn.shape[1])).all()
    # Each row as often in each place of its group.
    counts = np.bincount(orders[1:, 3], minlength=7)
    assert stats.chisquare(counts[:7]).pvalue > 1e-4


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("ties", [False, True])
def test_p_values_are_uniform_on_their_levels_under_the_null(n: int, ties: bool) -> None:
    """Over all orders of y, each as likely: P(p ≤ a) = a at every a that occurs, hence ≤ a at any."""
    x, y = ([0, 0, 1, 2, 2][:n], [0, 1, 1, 2, 3][:n]) if ties else (range(n), range(n))
    found = [correlation(x, order) for order in itertools.permutations(y)]
    for p_values in ([c.tau.p for c in found], [c.rho.p for c in found]):
        for level in set(p_values):
            assert sum(p <= level + 1e-12 for p in p_values) / len(p_values) == pytest.approx(level)


@pytest.mark.parametrize(
    ("n", "ties", "num_groups"), [(3, False, 1), (4, True, 1), (10, False, 1), (10, True, 1), (10, True, 2)]
)
def test_simulated_p_values_are_uniform_under_the_null(n: int, ties: bool, num_groups: int) -> None:
    generator = np.random.default_rng(n)
    codes = np.arange(n) % num_groups
    tau, rho = [], []
    for _ in range(8):
        x, y = generator.standard_normal((n, 150)), generator.standard_normal(n)
        if ties:
            x, y = np.round(1.3 * x), np.round(1.3 * y)
        for found in rank_correlations(x, y, codes, with_intervals=False):
            if isinstance(found, RankCorrelation):  # else constant
                tau.append(found.tau.p)
                rho.append(found.rho.p)
    for p_values in (np.array(tau), np.array(rho)):
        for level in (0.01, 0.05, 0.1, 0.2, 0.5):
            error = math.sqrt(level * (1 - level) / len(p_values))
            assert (p_values <= level).mean() <= level + 4.5 * error
            if not ties:  # else each sample has levels of its own
                attained = p_values[p_values <= level + 4 / math.sqrt(NUM_ORDERS)].max(initial=0)
                assert (p_values <= attained).mean() == pytest.approx(attained, abs=4.5 * error + 0.01)


@pytest.mark.parametrize("ties", [False, True])
def test_many_rows_have_scipys_asymptotic_p_value(ties: bool) -> None:
    n = MAX_ROWS_RESAMPLED + 1
    x, y = sample(n, 5, ties=ties, slope=0.3)
    found = correlation(x, y)
    assert (found.tau.p_method, found.rho.p_method) == ("asymptotic", "asymptotic")
    assert found.tau.p == pytest.approx(stats.kendalltau(x, y, method="asymptotic").pvalue)
    assert found.rho.p == pytest.approx(stats.spearmanr(x, y).pvalue, rel=1e-3)


@pytest.mark.parametrize("ties", [False, True])
def test_the_variance_within_groups_is_that_of_drawn_orders(ties: bool) -> None:
    from cssl_cli.report.compare.rank_correlation.permutation import permuted_scores, shares_as_far

    generator = np.random.default_rng(9)
    x, y = generator.standard_normal(66), generator.standard_normal(66)
    codes = np.repeat([0, 1, 2], [30, 24, 12])
    if ties:
        x, y = np.round(x), np.round(y)
    found = rank_correlations(x[:, None], y, codes)[0]
    orders, _ = orders_within(codes)
    drawn = shares_as_far(permuted_scores([signs(x, codes)], variable(y, codes).ranks, orders))[0]
    assert defined(found).tau.p == pytest.approx(drawn, abs=0.03)


# ---------------------------------------------------------------------- what few rows can show
@pytest.mark.parametrize("sizes", [(3,), (5,), (3, 4), (2, 2, 3)])
def test_the_distribution_of_discordant_pairs_is_that_of_enumeration(sizes: tuple[int, ...]) -> None:
    counts = Counter(
        sum(a > b for order in orders for a, b in itertools.combinations(order, 2))
        for orders in itertools.product(*(itertools.permutations(range(size)) for size in sizes))
    )
    total = math.prod(math.factorial(size) for size in sizes)
    assert discordant_pairs(sizes) == pytest.approx([counts[k] / total for k in range(max(counts) + 1)])


def test_the_smallest_p_values_of_few_rows() -> None:
    assert smallest_p_values((5,)) == (pytest.approx(2 / 120), pytest.approx(2 * 5 / 120))
    assert smallest_p_values((4,))[0] == pytest.approx(1 / 12)
    assert smallest_p_values((3, 3))[0] == pytest.approx(2 / 36)
    assert least_tau((4,), 0.05) is None
    assert least_tau((5,), 0.05) == 1
    tau = least_tau((10,), 0.05)
    assert tau is not None
    pairs = 45
    assert p_without_ties((10,), tau * pairs) <= 0.05 < p_without_ties((10,), tau * pairs - 2)


# ---------------------------------------------------------------------- intervals
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
def test_intervals_cover_the_coefficients_of_a_normal_distribution(sizes, tau: float, samples: int) -> None:
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
