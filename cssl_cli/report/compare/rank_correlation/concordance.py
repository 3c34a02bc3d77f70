"""With how many other rows each row is concordant and discordant, in O(n log² n) time and O(n) memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def agreements(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """For each row of `x` (n) and `y` (n), concordant minus discordant rows, and rows tied in neither variable.

    Of the rows that are smaller or greater in either, only those that are smaller in both take a count; the others
    follow from it and from the ranks.
    """
    a, b = _ranks(x), _ranks(y)
    less_x, equal_x = _less(a), _equal(a)
    less_y, equal_y = _less(b), _equal(b)
    both_equal, x_less_y_equal = _within_ties(b, a)
    _, x_equal_y_less = _within_ties(a, b)
    both_less = _both_less(a, b)
    x_less_y_greater = less_x - both_less - x_less_y_equal
    x_greater_y_less = less_y - both_less - x_equal_y_less
    x_greater_y_equal = equal_y - both_equal - x_less_y_equal
    both_greater = (len(x) - 1 - less_x - equal_x) - x_greater_y_less - x_greater_y_equal
    concordant, discordant = both_less + both_greater, x_less_y_greater + x_greater_y_less
    return (concordant - discordant).astype(np.float64), (concordant + discordant).astype(np.float64)


def _ranks(values: Floats) -> Ints:
    """Ranks from 0, the same for equal values."""
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _less(ranks: Ints) -> Ints:
    """How many are less than each."""
    counts = np.bincount(ranks)
    return (np.cumsum(counts) - counts)[ranks]


def _equal(ranks: Ints) -> Ints:
    """How many others are equal to each."""
    return np.bincount(ranks)[ranks] - 1


def _within_ties(tied: Ints, ranks: Ints) -> tuple[Ints, Ints]:
    """How many others with the same `tied` have equal `ranks`, and how many have less."""
    order = np.lexsort((ranks, tied))
    new_tie = np.diff(tied[order], prepend=-1) != 0
    new_pair = new_tie | (np.diff(ranks[order], prepend=-1) != 0)
    starts = np.flatnonzero(new_pair)
    length = np.diff(starts, append=len(order))
    of_pair = np.cumsum(new_pair) - 1
    equal, less = np.empty_like(order), np.empty_like(order)
    equal[order] = length[of_pair] - 1
    less[order] = starts[of_pair] - np.flatnonzero(new_tie)[np.cumsum(new_tie) - 1]
    return equal, less


def _both_less(a: Ints, b: Ints) -> Ints:
    """How many are less than each in `a` and in `b`."""
    order = np.lexsort((-b, a))  # so that of equal a, none before is less in b
    found = np.empty_like(order)
    found[order] = _earlier_and_less(b[order])
    return found


def _earlier_and_less(values: Ints) -> Ints:
    """How many before each are less: of sorted runs, merged bottom up, the left one is counted for the right one."""
    n, span = len(values), int(values.max()) + 1
    index, found, width = np.arange(n), np.zeros(n, dtype=np.int64), 1
    while width < n:
        run, right = index // (2 * width), index // width % 2 == 1
        left = np.sort(values[~right] + run[~right] * span)
        found[right] += np.searchsorted(left, values[right] + run[right] * span) - run[right] * width
        width *= 2
    return found
