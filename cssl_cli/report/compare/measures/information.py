"""What the order of two rows in a term says about their order in the accuracy, once settings of both rows are known.

V_μ and V_g are the signs of the differences of two rows in the term and in the accuracy, U_S the settings that the two
rows have in a set S of axes (those of the one and those of the other). The criterion (Jiang et al. 2019, section 3) is

    K = min over S of at most two axes of  I(V_μ; V_g | U_S) / H(V_g | U_S),

between 0 and 1: near 0 if some axes explain what the term knows. Estimated from the counts of all pairs of rows, which
is biased upwards, the more so the fewer rows have the same settings: `expected_information` says by how much. Pairs
with equal accuracies are left out; pairs tied in the term are a third value of V_μ.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from cssl_cli.report.compare.measures.grid import Grid, Signs, shuffled, signs_of
from cssl_cli.report.compare.rank_correlation.parts import Bools
from cssl_cli.report.compare.rank_correlation.permutation import SEED
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints

MAX_GIVEN = 2  # axes
MAX_PAIRS = 50_000  # beyond that, so many of the pairs are drawn
CHUNK = 2_000_000  # pairs times terms at once


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows (P) that differ in the accuracy, with its sign: all of them, or MAX_PAIRS drawn ones."""

    first: Ints
    second: Ints
    signs: Signs
    num_tied: int
    drawn: bool


@dataclass(frozen=True)
class Cells:
    """The pairs by the settings that both rows have in the axes `given`.

    cell: the index (P) of these settings. turned: whether the pair is read from its second row to its first, so that
    both ways round are one cell. alike (C): whether both rows of a cell have the same settings; then the two ways round
    are both counted, half each.
    """

    given: tuple[int, ...]
    cell: Ints
    turned: Bools
    alike: Bools


def pairs_of(y: Floats) -> Pairs:
    """The pairs of rows with different accuracies `y` (N)."""
    num_pairs = len(y) * (len(y) - 1) // 2
    drawn = num_pairs > MAX_PAIRS
    if drawn:
        first, second = _pairs_numbered(
            np.sort(np.random.default_rng(SEED).choice(num_pairs, MAX_PAIRS, replace=False)), len(y)
        )
    else:
        first, second = np.triu_indices(len(y), 1)
    signs = signs_of(y, first, second)
    differ = signs != 0
    return Pairs(first[differ], second[differ], signs[differ], int((~differ).sum()), drawn)


def _pairs_numbered(numbers: Ints, n: int) -> tuple[Ints, Ints]:
    """The rows (P) of pairs by their number (P) in the order (0, 1), (0, 2) … (n − 2, n − 1), which is not stored."""
    starts = np.arange(n, dtype=np.int64)
    starts = starts * (2 * n - starts - 1) // 2  # the number of the first pair of each row
    first = np.searchsorted(starts, numbers, side="right") - 1
    first = np.minimum(first, n - 2)  # the last row is the first of no pair
    return first, numbers - starts[first] + first + 1


def cells_of(grid: Grid, pairs: Pairs) -> list[Cells]:
    """The pairs by the settings of each set of at most `MAX_GIVEN` axes that are not drawn."""
    sets = [
        given
        for size in range(min(MAX_GIVEN, len(grid.of_settings)) + 1)
        for given in itertools.combinations(grid.of_settings, size)
    ]
    return [_cells(grid, pairs, given) for given in sets]


def _cells(grid: Grid, pairs: Pairs, given: tuple[int, ...]) -> Cells:
    codes = _settings(grid, given)
    a, b = codes[pairs.first], codes[pairs.second]
    low, high = np.minimum(a, b), np.maximum(a, b)
    known, cell = np.unique(low * (codes.max() + 1) + high, return_inverse=True)
    return Cells(given, cell.reshape(-1), a > b, known // (codes.max() + 1) == known % (codes.max() + 1))


def _settings(grid: Grid, given: tuple[int, ...]) -> Ints:
    """A code (N) of each row's settings in the axes `given`."""
    codes = np.zeros(len(grid.codes), dtype=np.int64)
    for axis in given:
        codes = codes * len(grid.settings[axis]) + grid.codes[:, axis]
    return codes


def information(x: Floats, pairs: Pairs, cells: list[Cells]) -> Floats:
    """I(V_μ; V_g | U_S)/H(V_g | U_S) of the columns of `x` (N, M) for each set of axes, (S, M).

    NaN where the settings alone decide which row has the greater accuracy, so that nothing is left to say.
    """
    found = np.full((len(cells), x.shape[1]), np.nan)
    step = max(1, CHUNK // max(1, len(pairs.first)))
    for start in range(0, x.shape[1], step):
        columns = slice(start, start + step)
        of_x = signs_of(x[:, columns], pairs.first, pairs.second)
        known = np.isfinite(x[:, columns])
        there = known[pairs.first] & known[pairs.second]
        for position, one in enumerate(cells):
            found[position, columns] = _of_counts(_counts(one, of_x, pairs.signs, there))
    return found


def least_information(found: Floats) -> tuple[Floats, Ints]:
    """K (M) and the position of the set where it is attained (−1 for none), from `found` (S, M)."""
    filled = np.where(np.isfinite(found), found, np.inf)
    least = filled.min(axis=0)
    return np.where(np.isfinite(least), least, np.nan), np.where(np.isfinite(least), filled.argmin(axis=0), -1)


def expected_information(grid: Grid, column: Floats, pairs: Pairs, cells: Cells, count: int) -> float:
    """What a term (N) that says nothing beyond the settings of `cells` has given these, by bias.

    The mean over `count` random orders of its values among the rows with the same settings: what it knows of the
    settings stays.
    """
    random = shuffled(column, _settings(grid, cells.given), count)
    return float(information(random, pairs, [cells]).mean())


def _counts(cells: Cells, of_x: Signs, of_y: Signs, there: Bools) -> Floats:
    """How many pairs (M, C, 2, 3) of each cell have each sign of the accuracy and of the term."""
    num_terms, num_cells = of_x.shape[1], len(cells.alike)
    turn = np.where(cells.turned, -1, 1).astype(np.int8)
    index = (6 * cells.cell + 3 * (of_y * turn > 0) + 1)[:, None] + of_x * turn[:, None]
    index += 6 * num_cells * np.arange(num_terms)
    counts = np.bincount(index.ravel() if there.all() else index[there], minlength=6 * num_cells * num_terms)
    found = counts.reshape(num_terms, num_cells, 2, 3).astype(np.float64)
    both_ways = found[:, cells.alike]
    found[:, cells.alike] = (both_ways + both_ways[:, :, ::-1, ::-1]) / 2
    return found


def _of_counts(counts: Floats) -> Floats:
    """The normalised information (M) of counts (M, C, 2, 3)."""
    of_cell = counts.sum(axis=(2, 3))
    of_x, of_y = counts.sum(axis=2), counts.sum(axis=3)
    entropy = _n_log_n(of_cell).sum(axis=1) - _n_log_n(of_y).sum(axis=(1, 2))
    left = _n_log_n(of_x).sum(axis=(1, 2)) - _n_log_n(counts).sum(axis=(1, 2, 3))  # H(V_g | V_μ, U_S)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (entropy - left) / entropy
    return np.where(entropy > 1e-9, np.clip(share, 0, 1), np.nan)


def _n_log_n(counts: Floats) -> Floats:
    return counts * np.log(np.where(counts > 0, counts, 1))
