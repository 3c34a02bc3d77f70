"""p-values of many terms screened together: the chance that any of them would look as good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (M), valid for any dependence of the M terms (Holm, Scand. J. Statist. 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(value) for value in adjusted]


def step_down_min_p(scores: Floats) -> list[float]:
    """Adjusted p-values (M) from the scores (R, M) of all terms in the same orders of the rows, row 0 the observed one.

    Westfall and Young's step-down min-p (Resampling-Based Multiple Testing, 1993, algorithm 2.8): how often the least
    p-value of this term and the less significant ones would be as small. Terms that rank the rows alike count almost as
    one.
    """
    counts = _orders_as_far(scores)
    order = np.argsort(counts[0], kind="stable")
    least = np.minimum.accumulate(counts[:, order[::-1]], axis=1)[:, ::-1]
    adjusted = np.empty(scores.shape[1])
    adjusted[order] = np.maximum.accumulate((least <= counts[0, order]).mean(axis=0))
    return [float(value) for value in adjusted]


def smallest_p_values_of(scores: Floats) -> list[float]:
    """The least p-value each term could have, from the scores (R, M) of the terms in all orders."""
    return [float(p) for p in p_values_of_orders(scores).min(axis=0)]


def smallest_adjusted_p(scores: Floats) -> float:
    """The least adjusted p-value any term could have, from the scores (R, M) of the terms in all orders."""
    counts = _orders_as_far(scores)
    return float((counts.min(axis=1) <= counts.min(axis=0).min()).mean())


def p_values_of_orders(scores: Floats) -> Floats:
    """The p-value (R, M) of each term in each order, from its scores (R, M) in all orders."""
    return _orders_as_far(scores) / len(scores)


def _orders_as_far(scores: Floats) -> Ints:
    """For each order and term (R, M), how many orders have a score at least as far from 0: R times its p-value."""
    far = np.abs(scores)
    return np.stack([len(far) - np.searchsorted(np.sort(term), term) for term in far.T], axis=1)
