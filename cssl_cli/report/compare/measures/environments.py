"""The worst case over environments: how often a term is wrong between two settings of an axis, all else equal.

An environment is a pair of settings of one axis. Its sign error is the share of its pairs of rows (one setting or the
other, equal in all other axes) that the term orders the wrong way round; ties count half. This is the weaker family of
Dziugaite et al. (In Search of Robust Measures of Generalization, 2020, appendix): their main one takes each choice of
the other settings apart, and averages over many seeds. Pairs whose accuracies differ by no more than noise are left
out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cssl_cli.report.compare.measures.grid import Grid, signs_of
from cssl_cli.report.compare.rank_correlation.parts import Bools
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints

MIN_PAIRS = 5  # of an environment: fewer would all be wrong by chance in more than 3 % of coin tosses
Z = 1.96  # standard errors of a difference that count as noise


@dataclass(frozen=True)
class Environments:
    """The pairs of rows (P) of all environments, with the sign of the accuracy and the index of the environment.

    named: the axis and the two settings of each environment. beyond: whether a pair's accuracies differ beyond noise.
    """

    first: Ints
    second: Ints
    signs: Floats
    environment: Ints
    named: tuple[tuple[int, int, int], ...]
    beyond: Bools


def environments_of(grid: Grid, y: Floats, errors: Floats) -> Environments:
    """The environments of rows with accuracies `y` (N) and their standard errors (N), NaN if unknown (no noise)."""
    span = max((len(settings) for settings in grid.settings), default=1)
    first, second, keys = [], [], []
    for axis in grid.of_settings:
        lines = grid.lines[axis]
        one, other = grid.codes[lines.first, axis], grid.codes[lines.second, axis]
        first.append(lines.first)
        second.append(lines.second)
        keys.append((axis * span + np.minimum(one, other)) * span + np.maximum(one, other))
    a, b = np.concatenate(first), np.concatenate(second)
    named, environment = np.unique(np.concatenate(keys), return_inverse=True)
    noise = Z * np.sqrt(np.nan_to_num(errors[a]) ** 2 + np.nan_to_num(errors[b]) ** 2)
    signs = signs_of(y, a, b).astype(np.float64)
    beyond = (signs != 0) & (np.abs(y[a] - y[b]) > noise)
    triples = tuple((int(key) // span**2, int(key) // span % span, int(key) % span) for key in named)
    return Environments(a, b, signs, environment.reshape(-1), triples, beyond)


def sign_errors(found: Environments, x: Floats, directions: Floats) -> tuple[Floats, Ints]:
    """The sign error and the number of pairs of each environment, (E, M), for the columns of `x` (N, M).

    directions (M): +1 if a greater term predicts a greater accuracy, −1 if a smaller. NaN with fewer than MIN_PAIRS.
    """
    kept = found.beyond
    a, b = found.first[kept], found.second[kept]
    environment, of_y = found.environment[kept], found.signs[kept]
    shape = len(found.named), x.shape[1]
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for column in range(shape[1]):  # one at a time: pairs are many
        values = x[:, column]
        there = np.isfinite(values[a]) & np.isfinite(values[b])
        wrong = there * (1 - directions[column] * signs_of(values, a, b) * of_y) / 2
        sums[:, column] = np.bincount(environment, wrong, minlength=shape[0])
        counts[:, column] = np.bincount(environment[there], minlength=shape[0])
    return np.where(counts >= MIN_PAIRS, sums / np.maximum(counts, 1), np.nan), counts
