"""K, the conditional information: against arithmetic by hand, plain counting, and its bias."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from cssl_cli.report.compare.measures import information as module
from cssl_cli.report.compare.measures.grid import Grid, shuffled
from cssl_cli.report.compare.measures.information import (
    cells_of,
    expected_information,
    information,
    least_information,
    pairs_of,
)
from tests.support.grids import effects, full_grid, random_sample


def found_in(grid: Grid, x: np.ndarray, y: np.ndarray) -> tuple[dict[tuple[int, ...], list[float]], list[float]]:
    """The normalised information of each term by set of axes, and K."""
    pairs = pairs_of(y)
    cells = cells_of(grid, pairs)
    values = information(x, pairs, cells)
    by_set = {one.given: of_set.tolist() for one, of_set in zip(cells, values, strict=True)}
    return by_set, least_information(values)[0].tolist()


def h(share: float) -> float:
    """The entropy of a coin, in bits."""
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def test_two_by_two_by_hand() -> None:
    """Rows (a, b) = 00, 01, 10, 11 with y = 1, 2, 3, 4 and x = 1, 2, 4, 3: only 10–11 disagrees.

    Nothing given: 6 pairs, each both ways round, so V_g = ±1 as often: H = 1. V_μ agrees in 5 of 6: I = 1 − h(1/6).
    a given: 00–01 (a = 0 in both) agrees always: H = I = 1; 10–11 (a = 1) disagrees always: I = 1, too; the four pairs
    from a = 0 to a = 1 all have V_g = +1: H = 0. (1 + 1)/(1 + 1) = 1.
    b given: 00–10 and 01–11 agree: H = I = 1 each. From b = 0 to b = 1: 00–01 and 00–11 have V_g = V_μ = +1; 10–01 has
    V_g = V_μ = −1; 10–11 has V_g = +1, V_μ = −1. H = h(1/4); left given V_μ: 0 for two pairs, 1 bit for the other two:
    I = h(1/4) − 1/2. Weighted by 1, 1 and 4 pairs: (2 + 4 (h(1/4) − 1/2))/(2 + 4 h(1/4)) = 0.619.
    a and b given: one pair a cell, whose settings decide V_g: nothing is left to say.
    """
    by_set, least = found_in(full_grid(2, 2), np.array([[1.0], [2], [4], [3]]), np.array([1.0, 2, 3, 4]))
    assert by_set[()] == pytest.approx([1 - h(1 / 6)])
    assert by_set[0,] == pytest.approx([1.0])
    assert by_set[1,] == pytest.approx([(2 + 4 * (h(1 / 4) - 1 / 2)) / (2 + 4 * h(1 / 4))])
    assert by_set[1,] == pytest.approx([0.6187], abs=1e-4)
    assert math.isnan(by_set[0, 1][0])
    assert least == pytest.approx([0.35], abs=1e-3)


def test_a_tie_of_the_term_is_a_value_of_its_own() -> None:
    """y = 1, 2, 3 and x = 1, 1, 2 along one axis of three (b never differs): of three pairs one is tied in x.

    Both ways round V_g is ±1 in 3 each: H = 1. The tie leaves 1 bit in 1 of 3 pairs, the others none: I = 1 − 1/3.
    """
    grid = full_grid(3, 2)
    y = np.array([1.0, 9, 2, 9, 3, 9])
    x = np.array([1.0, np.nan, 1, np.nan, 2, np.nan])[:, None]
    assert found_in(grid, x, y)[0][()] == pytest.approx([2 / 3])


def test_terms_that_say_all_and_nothing() -> None:
    grid, generator = full_grid(3, 3, 3), np.random.default_rng(0)
    y = generator.standard_normal(27)
    x = np.stack([y, -y, np.zeros(27), np.exp(y)], axis=1)
    assert found_in(grid, x, y)[1] == pytest.approx([1, 1, 0, 1])


# ---------------------------------------------------------------------- against plain counting
def counted(grid: Grid, x: list[float], y: list[float], given: tuple[int, ...]) -> float:
    """I/H from a table of all ordered pairs, as the definition has it."""
    joint: Counter[tuple[tuple[int, ...], int, int]] = Counter()
    for i, j in itertools.permutations(range(len(y)), 2):
        if y[i] != y[j] and not math.isnan(x[i] + x[j]):
            settings = tuple(int(code) for row in (i, j) for code in grid.codes[row, list(given)])
            joint[settings, (x[i] > x[j]) - (x[i] < x[j]), 1 if y[i] > y[j] else -1] += 1
    total = sum(joint.values())
    of_cell, of_x, of_y = Counter[object](), Counter[object](), Counter[object]()
    for (settings, mu, g), count in joint.items():
        of_cell[settings] += count
        of_x[settings, mu] += count
        of_y[settings, g] += count
    info = sum(n / total * math.log(n * of_cell[u] / (of_x[u, mu] * of_y[u, g])) for (u, mu, g), n in joint.items())
    entropy = -sum(n / total * math.log(n / of_cell[u]) for (u, _), n in of_y.items())  # type: ignore[misc]
    return info / entropy if entropy > 1e-9 else math.nan


@pytest.mark.parametrize("seed", range(4))
def test_like_plain_counting(seed: int) -> None:
    grid, x, y = random_sample(seed, rows=(14, 25)[seed % 2], terms=3)
    by_set, least = found_in(grid, x, y)
    assert len(by_set) == 1 + 3 + 3
    for term in range(3):
        expected = {given: counted(grid, x[:, term].tolist(), y.tolist(), given) for given in by_set}
        assert [of_set[term] for of_set in by_set.values()] == pytest.approx(list(expected.values()), nan_ok=True)
        assert least[term] == pytest.approx(min(value for value in expected.values() if not math.isnan(value)))


def test_many_terms_at_once_like_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, x, y = random_sample(9, rows=40, terms=7)
    whole = found_in(grid, x, y)
    monkeypatch.setattr(module, "CHUNK", 1)
    for one, other in zip(whole[0].values(), found_in(grid, x, y)[0].values(), strict=True):
        assert one == pytest.approx(other, nan_ok=True)


# ---------------------------------------------------------------------- how it errs
def test_a_random_term_has_more_than_nothing_and_the_reference_says_how_much() -> None:
    """The bias shrinks with the rows; as a minimum, K is mostly a little below the reference of its set."""
    generator = np.random.default_rng(2)
    found = []
    for sizes in ((3, 3), (4, 4, 3), (5, 5, 5)):
        grid = full_grid(*sizes)
        y = effects(grid, generator, (1,) * len(sizes))
        x = generator.permuted(np.repeat(y[:, None], 60, axis=1), axis=0)
        pairs = pairs_of(y)
        cells = cells_of(grid, pairs)
        least, where = least_information(information(x, pairs, cells))
        expected = [expected_information(grid, x[:, i], pairs, cells[where[i]], 10) for i in range(60)]
        found.append((float(least.mean()), float(np.mean(expected))))
    biased, expected = zip(*found, strict=True)
    assert biased[0] > 0.04 > 0.01 > biased[1] > biased[2] > 0
    assert all(0.8 * a < b < 2.5 * a for a, b in zip(biased, expected, strict=True))


def test_the_reference_keeps_what_the_term_knows_of_the_settings() -> None:
    """Given its axis, a term that only copies it says nothing, in any order within the settings; alone it says much."""
    grid, generator = full_grid(4, 3, 3), np.random.default_rng(3)
    y = 5 * grid.codes[:, 0] + generator.standard_normal(36)
    x = grid.codes[:, 0] + 0.01 * generator.standard_normal(36)
    pairs = pairs_of(y)
    nothing, of_axis = cells_of(grid, pairs)[:2]
    alone = information(x[:, None], pairs, [nothing])[0, 0]
    assert alone > 0.35 > 0.05 > expected_information(grid, x, pairs, nothing, 30)
    given = information(x[:, None], pairs, [of_axis])[0, 0]
    assert expected_information(grid, x, pairs, of_axis, 30) == pytest.approx(given, abs=0.08)


def test_random_orders_stay_within_groups_and_leave_missing_values_in_place() -> None:
    column = np.array([1, 2, np.nan, 3, 4, 5.0])
    groups = np.array([0, 1, 0, 0, 1, 0])
    found = shuffled(column, groups, 200)
    assert np.isnan(found[2]).all()
    assert (np.sort(found[[0, 3, 5]], axis=0) == np.array([[1], [3], [5]])).all()
    assert (np.sort(found[[1, 4]], axis=0) == np.array([[2], [4]])).all()
    assert len(np.unique(found[[0, 3, 5]], axis=1).T) == 6
    assert len(np.unique(found[[1, 4]], axis=1).T) == 2


def test_of_many_pairs_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, generator = full_grid(5, 5, 4), np.random.default_rng(4)
    y = effects(grid, generator, (1, 1, 1))
    x = (y + 2 * generator.standard_normal(100))[:, None]
    every = found_in(grid, x, y)[1][0]
    monkeypatch.setattr(module, "MAX_PAIRS", 2000)
    pairs = pairs_of(y)
    assert (len(pairs.first), pairs.drawn) == (2000, True)
    assert len({*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}) == 2000
    assert found_in(grid, x, y)[1][0] == pytest.approx(every, rel=0.3)


@pytest.mark.parametrize("n", [2, 3, 10, 57])
def test_pairs_have_their_numbers(n: int) -> None:
    numbers = np.arange(n * (n - 1) // 2)
    for found, expected in zip(module._pairs_numbered(numbers, n), np.triu_indices(n, 1), strict=True):
        assert np.array_equal(found, expected)


def test_pairs_of_many_rows_are_drawn_without_the_others() -> None:
    pairs = pairs_of(np.random.default_rng(0).standard_normal(100_000))
    assert pairs.drawn
    assert len(np.unique(pairs.first * 100_000 + pairs.second)) == module.MAX_PAIRS
    assert (pairs.first < pairs.second).all()
    assert pairs.second.max() > 99_000
