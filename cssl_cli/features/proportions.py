"""Exact confidence intervals of proportions; without torch, so that reports may use them."""

from __future__ import annotations

from typing import Literal

from scipy.special import betaincinv


def clopper_pearson(
    successes: int, n: int, confidence: float = 0.95, side: Literal["two", "lower", "upper"] = "two"
) -> tuple[float, float]:
    """Exact confidence interval (low, high) for a probability after `successes` of `n` independent trials.

    `side="lower"` or `"upper"` puts the whole error on that end; the other end is then 1 or 0. Without trials
    (n = 0) the interval is (0, 1). Source: Clopper and Pearson, Biometrika 1934.
    """
    assert 0 <= successes <= n
    error = (1 - confidence) / (2 if side == "two" else 1)
    low, high = 0.0, 1.0
    if successes > 0 and side != "upper":
        low = float(betaincinv(successes, n - successes + 1, error))
    if successes < n and side != "lower":
        high = float(betaincinv(successes + 1, n - successes, 1 - error))
    return low, high
