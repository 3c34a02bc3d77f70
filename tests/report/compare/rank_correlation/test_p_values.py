"""P-values of rank correlations: against enumeration, scipy and simulation, and what few rows can show."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from cssl_cli.report.compare.rank_correlation.attainable import (
    discordant_pairs,
    least_tau,
    p_without_ties,
    smallest_p_values,
)
from cssl_cli.report.compare.rank_correlation.coefficients import (
    MAX_ROWS_RESAMPLED,
    RankCorrelation,
    rank_correlations,
)
from cssl_cli.report.compare.rank_correlation.permutation import NUM_ORDERS, orders_within
from cssl_cli.report.compare.rank_correlation.signs import signs, variable
from tests.support.rank_correlations import correlation, defined, sample


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
def test_simulated_p_values_are_uniform_under_the_null(
    n: int, ties: bool, num_groups: int, draws: Callable[..., None]
) -> None:
    num_orders = 2500
    draws(orders=num_orders)
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
                attained = p_values[p_values <= level + 4 / math.sqrt(num_orders)].max(initial=0)
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
