"""Paired differences: by hand, against scipy, and what is left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cssl_cli.report.compare.paired_difference import paired_difference


def test_by_hand() -> None:
    found = paired_difference({0: 0.5, 1: 0.75, 2: 0.9}, {0: 0.25, 1: 0.25, 3: 0.1})
    assert found is not None
    assert (found.mean, found.n, found.unpaired) == (0.375, 2, 2)
    assert found.sd == pytest.approx(0.125 * math.sqrt(2))
    # t of one degree of freedom is Cauchy: its 97.5 % quantile is tan(0.475 π); sd / √2 = 0.125.
    half = math.tan(0.475 * math.pi) * 0.125
    assert found.interval == pytest.approx((0.375 - half, 0.375 + half))
    assert found.to_dict()["interval"] == list(found.interval)


@pytest.mark.parametrize("n", [3, 10])
def test_the_interval_and_p_are_scipys(n: int) -> None:
    a, b = np.random.default_rng(n).standard_normal((2, n))
    found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    expected = stats.ttest_rel(a, b)
    assert found is not None
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.beyond_noise == (expected.pvalue < 0.05)


def test_one_pair_or_equal_differences_have_no_interval() -> None:
    one = paired_difference({0: 0.5}, {0: 0.25, 1: 0.5})
    assert one is not None
    assert (one.mean, one.sd, one.n, one.interval, one.unpaired) == (0.25, None, 1, None, 1)
    assert (one.p, one.beyond_noise) == (None, None)
    same = paired_difference({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5})
    assert same is not None
    assert (same.mean, same.sd, same.interval) == (0.25, 0.0, None)
    assert (same.p, same.beyond_noise) == (None, None)
    none = paired_difference({0: 0.5, 1: 0.75}, {0: 0.5, 1: 0.75})
    assert none is not None
    assert none.beyond_noise is False


def test_differences_that_rounding_alone_makes_unlike_are_the_same() -> None:
    # Of 10,000 images 300 more are right in each seed; in floating point the three differences are not equal.
    a, b = {0: 0.31, 1: 0.61, 2: 0.83}, {0: 0.28, 1: 0.58, 2: 0.8}
    assert len({a[seed] - b[seed] for seed in a}) > 1
    found = paired_difference(a, b)
    assert found is not None
    assert (found.sd, found.interval, found.p) == (0.0, None, None)
    assert found.mean == pytest.approx(0.03)


def test_no_shared_seed_no_difference() -> None:
    assert paired_difference({0: 0.5}, {1: 0.5}) is None
    assert paired_difference({0: None, 1: math.nan}, {0: 0.5, 1: 0.5}) is None
