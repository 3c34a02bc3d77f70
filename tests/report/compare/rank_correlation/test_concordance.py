"""Concordant and discordant rows of each row, against all pairs, and of more rows than pairs could be held of."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from cssl_cli.report.compare.rank_correlation import signs
from cssl_cli.report.compare.rank_correlation.concordance import agreements
from cssl_cli.report.compare.rank_correlation.signs import Pair, Variable, as_column, variable


@pytest.mark.parametrize("levels", [2, 3, 10, 10_000])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 37, 64, 101])
def test_as_of_all_pairs(n: int, levels: int) -> None:
    random = np.random.default_rng(n * levels)
    x, y = (random.integers(0, levels, n).astype(np.float64) for _ in range(2))
    products = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    score, untied = agreements(x, y)
    assert np.array_equal(score, products.sum(axis=1))
    assert np.array_equal(untied, np.abs(products).sum(axis=1))


@pytest.mark.parametrize("levels", [2, 7, 10_000])
def test_a_variable_is_what_its_signs_say(levels: int) -> None:
    random = np.random.default_rng(levels)
    codes = np.repeat([0, 1, 2], [1, 20, 30])
    values, vector = random.integers(0, levels, 51).astype(np.float64), random.standard_normal(51)
    found = variable(values, codes)
    matrix = np.sign(values[:, None] - values) * (codes[:, None] == codes)
    assert np.array_equal(found.matrix, matrix)
    assert np.array_equal(found.ranks, matrix.sum(axis=1))
    assert np.array_equal(found.untied, np.abs(matrix).sum(axis=1))
    assert found.times(vector) == pytest.approx(matrix @ vector)
    assert [list(counts) for counts in found.ties] == [
        list(np.unique(values[codes == code], return_counts=True)[1]) for code in range(3)
    ]


def test_a_hundred_thousand_rows() -> None:
    random = np.random.default_rng(0)
    x = as_column(random.standard_normal(100_000).tolist())
    y = np.round(x + random.standard_normal(100_000), 1)
    tracemalloc.start()
    score, untied = agreements(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26  # all pairs would be 40 GB
    of_x, of_y = Variable((x,)), Variable((y,))
    tau = score.sum() / np.sqrt(of_x.untied.sum() * of_y.untied.sum())
    assert tau == pytest.approx(stats.kendalltau(x, y).statistic)
    assert untied.sum() == of_y.untied.sum()  # x has no ties


@pytest.mark.parametrize("levels", [3, 10_000])
def test_few_and_many_rows_are_counted_alike(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(levels)
    codes = np.repeat([0, 1, 2], [1, 20, 30])
    x, y = (variable(random.integers(0, levels, 51).astype(np.float64), codes) for _ in range(2))
    few = Pair(x, y)
    monkeypatch.setattr(signs, "MAX_ROWS_PAIRED", 25)
    many = Pair(Variable(x.groups), Variable(y.groups))
    assert [block is None for block in many.x.blocks] == [False, False, True]
    assert np.array_equal(few.concordance, many.concordance)
    assert (few.num_untied, few.score, few.tau, few.rho) == (many.num_untied, many.score, many.tau, many.rho)
