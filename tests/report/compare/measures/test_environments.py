"""Sign errors over environments: by hand, with noise, and against plain loops."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from cssl_cli.report.compare.measures.environments import MIN_PAIRS, Z, environments_of, sign_errors
from tests.support.grids import full_grid, random_sample


def test_two_settings_in_five_places_by_hand() -> None:
    """Along a, in five places b, y rises by 1; x rises in three, falls in one and is tied in one: (1 + 1/2)/5 = 0.3.

    A term of which less is better is wrong where this one is right: (3 + 1/2)/5 = 0.7. Along b each pair of settings
    has two pairs of rows, too few.
    """
    grid = full_grid(2, 5)
    y = grid.codes[:, 0] + 0.1 * grid.codes[:, 1]
    x = np.concatenate([np.zeros(5), [1.0, 1, 1, -1, 0]])[:, None]
    found = environments_of(grid, y, np.zeros(10))
    errors, counts = sign_errors(found, np.hstack([x, x]), np.array([1.0, -1]))
    where = found.named.index((0, 0, 1))
    assert errors[where] == pytest.approx([0.3, 0.7])
    assert (counts[where] == 5).all()
    assert np.isnan(np.delete(errors, where, axis=0)).all()
    assert len(found.named) == 1 + 10


def test_pairs_within_noise_are_left_out() -> None:
    """Two standard errors of 0.1: a difference must exceed 1.96·√(0.1² + 0.1²) = 0.277. An unknown one adds nothing."""
    grid = full_grid(2, 7)
    steps = np.array([0.27, 0.28, -0.28, 0.5, 0.6, 0.7, 0.15])
    y = np.concatenate([np.arange(7.0), np.arange(7.0) + steps])
    errors = np.full(14, 0.1)
    errors[6] = np.nan  # 1.96 · 0.1 = 0.196 remain
    found = environments_of(grid, y, errors)
    along_a = np.array([found.named[place][0] == 0 for place in found.environment])
    order = np.argsort(found.first[along_a])
    assert found.beyond[along_a][order].tolist() == [False, True, True, True, True, True, False]
    assert pytest.approx(0.277, abs=1e-3) == Z * math.hypot(0.1, 0.1)
    rising = sign_errors(found, grid.codes[:, :1] / 1.0, np.ones(1))[0]
    assert rising[found.named.index((0, 0, 1)), 0] == pytest.approx(1 / 5)


@pytest.mark.parametrize("seed", range(3))
def test_like_plain_loops(seed: int) -> None:
    grid, x, y = random_sample(seed, rows=50)
    errors = np.random.default_rng(seed).random(50) / 5
    directions = np.array([1.0, -1, 1, -1, 1])
    found = environments_of(grid, y, errors)
    computed, counts = sign_errors(found, x, directions)
    for term in range(5):
        looped: dict[tuple[int, int, int], list[float]] = defaultdict(list)
        for i, j in itertools.combinations(range(50), 2):
            differ = np.flatnonzero(grid.codes[i] != grid.codes[j])
            if len(differ) != 1:
                continue
            axis = int(differ[0])
            key = (axis, *sorted((int(grid.codes[i, axis]), int(grid.codes[j, axis]))))
            kept = looped[key]
            if abs(y[i] - y[j]) <= 1.96 * math.hypot(errors[i], errors[j]) or math.isnan(x[i, term] + x[j, term]):
                continue
            kept.append((1 - directions[term] * np.sign(x[i, term] - x[j, term]) * np.sign(y[i] - y[j])) / 2)
        assert set(looped) == set(found.named)
        for position, key in enumerate(found.named):
            kept = looped[key]
            assert counts[position, term] == len(kept)
            expected = np.mean(kept) if len(kept) >= MIN_PAIRS else math.nan
            assert computed[position, term] == pytest.approx(expected, nan_ok=True)
