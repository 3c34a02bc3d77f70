"""What few rows can show at best: the exact distribution of Kendall's τ over all orders of rows without ties."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cssl_cli.report.compare.rank_correlation.signs import Floats


@lru_cache(maxsize=64)
def discordant_pairs(sizes: tuple[int, ...]) -> Floats:
    """The probability of 0, 1, 2, … discordant pairs if every order within groups of these `sizes` is equally likely.

    A row put before k others in an order is discordant with 0, …, k of them, each equally likely: the distribution is
    that of a sum of independent uniform numbers (Kendall, Biometrika 1938), over the rows of all groups.
    """
    probability = np.ones(1)
    for size in sizes:
        for choices in range(2, size + 1):
            probability = np.convolve(probability, np.full(choices, 1 / choices))
    return probability


def p_without_ties(sizes: tuple[int, ...], score: float) -> float:
    """The two-sided p-value of a `score`, the concordant minus the discordant pairs."""
    probability = discordant_pairs(sizes)
    return min(1.0, float(probability[np.abs(_scores(probability)) >= abs(score)].sum()))


def smallest_p_values(sizes: tuple[int, ...]) -> tuple[float, float]:
    """The two-sided p-values of a perfect order, and of one with a single discordant pair."""
    num_pairs = len(discordant_pairs(sizes)) - 1
    return p_without_ties(sizes, num_pairs), p_without_ties(sizes, num_pairs - 2)


def least_tau(sizes: tuple[int, ...], level: float) -> float | None:
    """The least |τ| whose two-sided p-value is at most `level`; None if not even a perfect order reaches it."""
    probability = discordant_pairs(sizes)
    scores = _scores(probability)
    attained = [score for score in scores if score > 0 and p_without_ties(sizes, score) <= level]
    return float(min(attained) / scores.max()) if attained else None


def _scores(probability: Floats) -> Floats:
    """Concordant minus discordant pairs, for each number of discordant ones."""
    num_pairs = len(probability) - 1
    return num_pairs - 2 * np.arange(num_pairs + 1, dtype=np.float64)
