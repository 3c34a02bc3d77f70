"""Samples, coefficients that are defined, and those of a normal distribution."""

from __future__ import annotations

import math

import numpy as np

from cssl_cli.report.compare.rank_correlation.coefficients import (
    RankCorrelation,
    Undefined,
    rank_correlation,
)


def sample(n: int, seed: int, *, ties: bool = False, slope: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(n)
    y = slope * x + generator.standard_normal(n)
    return (np.round(x), np.round(y)) if ties else (x, y)


def defined(found: RankCorrelation | Undefined) -> RankCorrelation:
    assert isinstance(found, RankCorrelation), found
    return found


def correlation(x, y, groups=None) -> RankCorrelation:
    return defined(rank_correlation(list(x), list(y), groups))


def normal_coefficients(r: float) -> tuple[float, float]:
    """τ and ρ of a bivariate normal distribution of correlation r."""
    return 2 / math.pi * math.asin(r), 6 / math.pi * math.asin(r / 2)
