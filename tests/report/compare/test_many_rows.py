"""A hundred thousand rows, simulated: the statistics find what was planted, and nothing else, in a few gigabytes."""

from __future__ import annotations

import math
import resource

import numpy as np
import pytest

from cssl_cli.report.compare.measures.environments import environments_of, sign_errors
from cssl_cli.report.compare.measures.granulated import along_axes
from cssl_cli.report.compare.measures.grid import grid_of
from cssl_cli.report.compare.measures.information import cells_of, information, least_information, pairs_of
from cssl_cli.report.compare.rank_correlation.coefficients import RankCorrelation, rank_correlations

pytestmark = pytest.mark.soak
NUM_ROWS = 100_000
R = 0.3  # correlation of the first term with the accuracy; the second has none, the third is the first axis


@pytest.fixture(scope="module")
def simulated() -> tuple[list[dict[str, str]], np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    rows = [{"a": str(i % 10), "b": str(i // 10 % 100), "c": str(i // 1000)} for i in range(NUM_ROWS)]
    accuracy = random.standard_normal(NUM_ROWS)
    noise = random.standard_normal((2, NUM_ROWS))
    of_axis = np.array([float(row["a"]) for row in rows])
    return rows, np.stack([R * accuracy + math.sqrt(1 - R * R) * noise[0], noise[1], of_axis], axis=1), accuracy


def test_rank_correlations(simulated: tuple[list[dict[str, str]], np.ndarray, np.ndarray]) -> None:
    rows, x, y = simulated
    groups = np.array([int(row["a"]) for row in rows])
    for codes in (np.zeros(NUM_ROWS, dtype=np.int64), groups):
        planted, none, *of_axis = rank_correlations(x[:, : 3 if codes is not groups else 2], y, codes)
        assert isinstance(planted, RankCorrelation)
        assert isinstance(none, RankCorrelation)
        assert planted.tau.interval is not None
        low, high = planted.tau.interval
        assert low < 2 / math.pi * math.asin(R) < high < low + 0.01
        assert planted.tau.p < 1e-100
        assert none.tau.p > 1e-3
        assert all(isinstance(one, RankCorrelation) and one.tau.p > 1e-3 for one in of_axis)


def test_along_axes(simulated: tuple[list[dict[str, str]], np.ndarray, np.ndarray]) -> None:
    rows, x, y = simulated
    grid = grid_of(rows)
    for axis in along_axes(grid, x, y):
        assert axis.psi[:2] == pytest.approx([2 / math.pi * math.asin(R), 0], abs=0.01)
    pairs = pairs_of(y)
    least, _ = least_information(information(x, pairs, cells_of(grid, pairs)))
    assert least[0] > 0.02
    assert least[1:].max() < 0.01
    wrong, _ = sign_errors(environments_of(grid, y, np.zeros(NUM_ROWS)), x, np.ones(3))
    assert np.nanmean(wrong[:, 0]) == pytest.approx(0.5 - math.asin(R) / math.pi, abs=0.01)
    assert np.nanmean(wrong[:, 1]) == pytest.approx(0.5, abs=0.01)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20
