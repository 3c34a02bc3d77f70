"""Rank correlations: values against scipy and loops, and what rows cannot give."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from cssl_cli.report.compare.rank_correlation.coefficients import (
    Undefined,
    rank_correlation,
    rank_correlations,
)
from cssl_cli.report.compare.rank_correlation.signs import group_codes
from tests.support.rank_correlations import correlation, sample


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


# ---------------------------------------------------------------------- what is undefined
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
