"""The granulated Kendall coefficient: which terms order the rows that differ along one axis only.

With τ of a line the mean of sign(x_i − x_j)·sign(y_i − y_j) over its pairs,

    ψ_axis = the mean of τ over the lines along the axis,      Ψ = the mean of ψ over the axes

(Jiang et al., Fantastic Generalization Measures and Where to Find Them, 2019, section 3). A tied pair counts 0 and is
not taken out of the denominator, as there. A line needs two rows that have both numbers; each line counts the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cssl_cli.report.compare.measures.grid import Grid, Lines, Signs, signs_of
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints

DIGITS = 9  # of Ψ, by which orders are compared: means of the same numbers differ in rounding
CHUNK = 4_000_000  # pairs times orders at once


@dataclass(frozen=True)
class AlongAxis:
    """ψ of M terms along one axis, with the lines and pairs that each has, and the pairs that are tied, (M) each.

    ψ is NaN for a term without a line. num_tied: in the term, the accuracy or both; num_tied_in_term: in the term.
    """

    psi: Floats
    num_lines: Ints
    num_pairs: Ints
    num_tied: Ints
    num_tied_in_term: Ints


@dataclass(frozen=True)
class _Weighted:
    """A line's pairs, and for each pair and term (P, M) its share of ψ if term and accuracy agree."""

    lines: Lines
    shares: Floats
    signs: Floats
    num_lines: Ints


def along_axes(grid: Grid, x: Floats, y: Floats) -> list[AlongAxis]:
    """ψ of the columns of `x` (N, M) along each axis, for complete `y` (N); NaN is missing."""
    return [_along(lines, x, signs_of(y, lines.first, lines.second)[:, None]) for lines in grid.lines]


def _along(lines: Lines, x: Floats, of_y: Signs) -> AlongAxis:
    step = max(1, CHUNK // max(1, len(lines.line)))
    parts = [_of_terms(_weighted(lines, x[:, start : start + step]), of_y) for start in range(0, x.shape[1], step)]
    return AlongAxis(*(np.concatenate(columns) for columns in zip(*parts, strict=True))) if parts else _NOTHING


def _of_terms(pairs: _Weighted, of_y: Signs) -> tuple[Floats, Ints, Ints, Ints, Ints]:
    """The fields of `AlongAxis` for some of the terms."""
    there, tied = pairs.shares > 0, pairs.signs == 0
    psi = np.clip((pairs.shares * pairs.signs * of_y).sum(axis=0), -1, 1)
    return (
        np.where(pairs.num_lines > 0, psi, np.nan),
        pairs.num_lines,
        there.sum(axis=0),
        (there & (tied | (of_y == 0))).sum(axis=0),
        (there & tied).sum(axis=0),
    )


_NOTHING = AlongAxis(np.zeros(0), *(np.zeros(0, dtype=np.int64) for _ in range(4)))


def mean_over_axes(of_axes: list[AlongAxis]) -> Floats:
    """Ψ (M): the mean of ψ over the axes that have one; NaN if none has."""
    psi = np.stack([axis.psi for axis in of_axes])
    known = np.isfinite(psi)
    with np.errstate(invalid="ignore"):
        return np.where(known, psi, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def psi_in_orders(grid: Grid, x: Floats, y: Floats, orders: Ints) -> Floats:
    """Ψ (R, M) of the columns of `x` (N, M) with `y` (N) in each of the `orders` (R, N); 0 for a term without lines.

    A row that misses a term keeps its place in the orders, without pairs for that term.
    """
    weighted = [_weighted(lines, x) for lines in grid.lines]
    num_axes = np.maximum(sum((pairs.num_lines > 0).astype(np.int64) for pairs in weighted), 1)
    scores = np.zeros((len(orders), x.shape[1]))
    for pairs in weighted:
        step = max(1, CHUNK // max(1, len(pairs.lines.line)))
        products = pairs.shares * pairs.signs
        for start in range(0, len(orders), step):
            permuted = y[orders[start : start + step]]
            of_y = np.sign(permuted[:, pairs.lines.first] - permuted[:, pairs.lines.second])
            scores[start : start + step] += of_y @ products
    return np.round(scores / num_axes, DIGITS)


def _weighted(lines: Lines, x: Floats) -> _Weighted:
    there = np.isfinite(x[lines.first]) & np.isfinite(x[lines.second])
    pairs_of_line = lines.sums(there.astype(np.float64))
    num_lines = (pairs_of_line > 0).sum(axis=0)
    shares = there / np.maximum(pairs_of_line, 1)[lines.line] / np.maximum(num_lines, 1)
    return _Weighted(lines, shares, signs_of(x, lines.first, lines.second).astype(np.float64), num_lines)
