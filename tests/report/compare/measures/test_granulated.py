"""ψ and Ψ: against arithmetic by hand, against plain loops, and in simulations of what they are for."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from cssl_cli.report.compare.measures import orders as orders_module
from cssl_cli.report.compare.measures.granulated import along_axes, mean_over_axes, psi_in_orders
from cssl_cli.report.compare.measures.grid import Grid, grid_of
from cssl_cli.report.compare.measures.information import (
    cells_of,
    expected_information,
    information,
    least_information,
    pairs_of,
)
from cssl_cli.report.compare.measures.orders import INCOMPLETE, TOO_MANY, orders_of_settings
from cssl_cli.report.compare.rank_correlation.permutation import shares_as_far
from tests.support.grids import effects, full_grid, partial_grid, random_sample
from tests.support.rank_correlations import correlation


def psi_of(grid: Grid, x: list[float], y: list[float]) -> list[float]:
    return [
        float(axis.psi[0]) for axis in along_axes(grid, np.array(x, dtype=float)[:, None], np.array(y, dtype=float))
    ]


# ---------------------------------------------------------------------- by hand
def test_two_by_two_by_hand() -> None:
    """Rows (a, b) = 00, 01, 10, 11 with y = 1, 2, 3, 4 and x = 1, 2, 4, 3.

    Along a: 00–10 has x 1 → 4, y 1 → 3: +1; 01–11 has x 2 → 3, y 2 → 4: +1. ψ_a = (1 + 1)/2 = 1.
    Along b: 00–01 has x 1 → 2, y 1 → 2: +1; 10–11 has x 4 → 3, y 3 → 4: −1. ψ_b = (1 − 1)/2 = 0. Ψ = (1 + 0)/2.
    """
    grid, x, y = full_grid(2, 2), [1, 2, 4, 3], [1, 2, 3, 4]
    assert psi_of(grid, x, y) == [1.0, 0.0]
    assert mean_over_axes(along_axes(grid, np.array(x)[:, None] / 1, np.array(y) / 1))[0] == 0.5


def test_ties_and_lines_that_lack_rows_by_hand() -> None:
    """Axis a has three settings, b two; the row (2, 1) is missing.

    Along a, b = 0: x = 1, 1, 2 and y = 1, 2, 3. Pairs: 0–1 tied: 0; 0–2: +1; 1–2: +1. τ = 2/3, the tie stays below.
    Along a, b = 1: x = 5, 4 and y = 4, 5: one pair, −1. τ = −1. Each line counts the same: ψ_a = (2/3 − 1)/2 = −1/6.
    Along b: a = 0: x 1 → 5, y 1 → 4: +1; a = 1: x 1 → 4, y 2 → 5: +1; a = 2 has one row: no line. ψ_b = 1.
    Ψ = (1 − 1/6)/2 = 5/12. Pairs along a: 3 + 1, one tied; along b: 2.
    """
    grid = partial_grid([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)])
    x, y = np.array([1.0, 1, 2, 5, 4])[:, None], np.array([1.0, 2, 3, 4, 5])
    found = along_axes(grid, x, y)
    assert [axis.psi[0] for axis in found] == pytest.approx([-1 / 6, 1])
    assert mean_over_axes(found)[0] == pytest.approx(5 / 12)
    assert [(axis.num_lines[0], axis.num_pairs[0], axis.num_tied[0]) for axis in found] == [(2, 4, 1), (2, 2, 0)]


def test_an_axis_without_a_line_has_no_psi_and_the_mean_leaves_it_out() -> None:
    grid = partial_grid([(0, 0), (0, 1), (1, 2), (1, 3)])  # along a no two rows agree in b
    found = along_axes(grid, np.array([1.0, 2, 3, 4])[:, None], np.array([1.0, 2, 3, 4]))
    assert math.isnan(found[0].psi[0])
    assert mean_over_axes(found)[0] == found[1].psi[0] == 1


def test_a_term_that_cannot_change_along_an_axis_counts_0_there() -> None:
    """What is measured before training is the same for all temperatures: it predicts nothing along that axis."""
    grid = full_grid(3, 4)
    found = along_axes(grid, grid.codes[:, :1] / 1.0, grid.codes[:, 0] + 0.1 * grid.codes[:, 1])
    assert [axis.psi[0] for axis in found] == [1, 0]
    assert mean_over_axes(found)[0] == 0.5
    assert found[1].num_tied_in_term[0] == found[1].num_pairs[0] == 18


# ---------------------------------------------------------------------- against plain loops
def looped(grid: Grid, x: list[float], y: list[float]) -> tuple[list[float | None], list[tuple[int, int, int]]]:
    """ψ of each axis, with lines, pairs and ties, by going over all rows."""
    psi: list[float | None] = []
    counts = []
    for axis in range(len(grid.axes)):
        lines = defaultdict(list)
        for row, codes in enumerate(grid.codes.tolist()):
            if not math.isnan(x[row]):
                lines[tuple(code for other, code in enumerate(codes) if other != axis)].append(row)
        taus, num_pairs, ties = [], 0, 0
        for rows in lines.values():
            signs = [
                ((x[i] > x[j]) - (x[i] < x[j])) * ((y[i] > y[j]) - (y[i] < y[j]))
                for i, j in itertools.combinations(rows, 2)
            ]
            num_pairs, ties = num_pairs + len(signs), ties + signs.count(0)
            taus += [sum(signs) / len(signs)] if signs else []
        psi.append(sum(taus) / len(taus) if taus else None)
        counts.append((len(taus), num_pairs, ties))
    return psi, counts


@pytest.mark.parametrize("seed", range(6))
def test_like_plain_loops(seed: int) -> None:
    grid, x, y = random_sample(seed, rows=(12, 30, 60)[seed % 3])
    found = along_axes(grid, x, y)
    whole = mean_over_axes(found)
    for term in range(x.shape[1]):
        psi, counts = looped(grid, x[:, term].tolist(), y.tolist())
        assert [None if math.isnan(axis.psi[term]) else axis.psi[term] for axis in found] == pytest.approx(psi)
        assert [(axis.num_lines[term], axis.num_pairs[term], axis.num_tied[term]) for axis in found] == counts
        known = [value for value in psi if value is not None]
        assert whole[term] == pytest.approx(sum(known) / len(known))


def test_in_orders_like_one_order_after_the_other() -> None:
    grid, x, y = random_sample(3, rows=40)
    orders = np.stack([np.arange(40), *(np.random.default_rng(1).permutation(40) for _ in range(5))])
    one_by_one = np.stack([mean_over_axes(along_axes(grid, x, y[order])) for order in orders])
    assert psi_in_orders(grid, x, y, orders) == pytest.approx(one_by_one, abs=1e-9)


# ---------------------------------------------------------------------- orders of the settings
def parts_of(grid: Grid, axes: tuple[int, ...] | None = None) -> list[frozenset[tuple[int, int]]]:
    chosen = range(len(grid.axes)) if axes is None else axes
    return [frozenset((axis, int(codes[axis])) for axis in chosen) for codes in grid.codes]


def orders_of(grid: Grid) -> np.ndarray:
    found = orders_of_settings(parts_of(grid), [()] * len(grid.codes))
    assert not isinstance(found, str), found
    return found[0]


def test_settings_change_places_in_all_rows_at_once() -> None:
    """3! · 2! · 2! orders, each of which maps rows that differ along one axis only onto such rows."""
    grid = full_grid(3, 2, 2)
    orders = orders_of(grid)
    assert len(np.unique(orders, axis=0)) == len(orders) == 24
    assert orders[0].tolist() == list(range(12))
    for axis, lines in enumerate(grid.lines):
        moved = grid.codes[orders]
        differs = moved[:, lines.first] != moved[:, lines.second]
        assert differs[:, :, axis].all()
        assert not np.delete(differs, axis, axis=2).any()


def test_axes_held_fixed_and_grids_that_lack_rows() -> None:
    grid = full_grid(3, 2, 2)
    orders, method = orders_of_settings(parts_of(grid, (1, 2)), grid.codes[:, 0].tolist())
    assert (len(orders), method) == (4, "exact")
    assert (grid.codes[orders][:, :, 0] == grid.codes[:, 0]).all()
    lacking = partial_grid([row for row in itertools.product(range(3), range(2)) if row != (0, 0)])
    assert len(orders_of(lacking)) == 2  # the two settings of `a` that are complete
    none = partial_grid([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)])
    assert orders_of_settings(parts_of(none), [()] * 6) == INCOMPLETE
    assert orders_of_settings([frozenset([row]) for row in range(80)], [()] * 80) == TOO_MANY


def test_of_more_orders_than_there_is_time_for_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = full_grid(5, 4, 2)
    monkeypatch.setattr(orders_module, "MAX_MOVED", 0)
    orders, method = orders_of_settings(parts_of(grid), [()] * 40)
    assert (orders.shape, method) == ((1000, 40), "Monte Carlo")
    assert orders[0].tolist() == list(range(40))
    assert len(np.unique(orders, axis=0)) == 1000


def within_lines(line: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Random orders (count, N) of rows within their lines (N)."""
    place = np.argsort(line, kind="stable")
    orders = np.empty((count, len(line)), dtype=np.int64)
    orders[:, place] = np.argsort(line + generator.random((count, len(line))) / 2, axis=1)
    return orders


def test_p_holds_its_level_where_both_have_effects_of_the_axes_and_orders_within_lines_do_not() -> None:
    """Tables 4 × 3 × 3 without association: the effect of a setting makes the lines along its axis alike."""
    grid, generator, num_tables = full_grid(4, 3, 3), np.random.default_rng(17), 200
    orders, along = orders_of(grid), grid.lines[0]
    small, small_within = 0, 0
    for _ in range(num_tables):
        x, y = (effects(grid, generator, (1.5, 1, 1)) for _ in range(2))
        small += shares_as_far(psi_in_orders(grid, x[:, None], y, orders))[0] <= 0.05
        shuffled = within_lines(grid.codes @ [0, 3, 1], 99, generator)
        permuted = y[np.vstack([np.arange(36), shuffled])]
        of_x, of_y = (np.sign(values[..., along.first] - values[..., along.second]) for values in (x, permuted))
        small_within += shares_as_far((of_y @ of_x)[:, None])[0] <= 0.05
    assert small / num_tables <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_tables)
    assert small_within / num_tables > 0.2


# ---------------------------------------------------------------------- what it is for
def test_a_term_that_predicts_through_one_axis_only() -> None:
    """Its pooled τ is high, as the axis decides the accuracy; ψ elsewhere, Ψ and K say that it knows nothing else."""
    grid, generator = full_grid(5, 3, 3, 3), np.random.default_rng(5)
    of_axis = generator.permutation(5)[grid.codes[:, 0]] / 1.0
    y = 3 * of_axis + effects(grid, generator, (0, 0.5, 0.5, 0.5), noise=0.5)
    through_one = of_axis + 0.1 * generator.standard_normal(len(y))
    through_all = y + 0.5 * generator.standard_normal(len(y))
    x = np.stack([through_one, through_all], axis=1)
    assert correlation(through_one, y).tau.value > 0.75
    found = along_axes(grid, x, y)
    one, every = (np.array([axis.psi[term] for axis in found]) for term in range(2))
    assert one[0] > 0.95
    assert np.abs(one[1:]).max() < 0.25
    assert every.min() > 0.4
    assert mean_over_axes(found)[0] < 0.4 < 0.6 < mean_over_axes(found)[1]
    pairs = pairs_of(y)
    cells = cells_of(grid, pairs)
    least, where = least_information(information(x, pairs, cells))
    chance = [expected_information(grid, x[:, term], pairs, cells[where[term]], 50) for term in range(2)]
    assert cells[where[0]].given[0] == 0  # what it knows is the first axis
    assert least[0] < 2 * chance[0] < 0.05
    assert least[1] > max(0.2, 5 * chance[1])


def test_axes_in_which_all_rows_are_alike_are_none() -> None:
    grid = grid_of([{"a": "1", "b": "x"}, {"a": "2", "b": "x"}, {"a": "2", "b": "x", "c": "y"}])
    assert grid.axes == ("a", "c")
    assert grid.settings == (("1", "2"), ("", "y"))
