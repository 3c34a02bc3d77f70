"""Many rows: p-values from the permutation variance, intervals from derivatives with respect to the row weights."""

from __future__ import annotations

import math

from cssl_cli.report.compare.rank_correlation.signs import Floats, Pair

Interval = tuple[float, float]
_QUANTILE = 1.959963984540054  # of the normal distribution at 97.5 %


def p_values(pair: Pair) -> tuple[float, float]:
    """Two-sided p-values of τ and of ρ, from the variance over all orders within groups.

    τ: normal, with Kendall's variance for ties (Rank Correlation Methods, 1970, chapter 4), summed over groups. ρ: the
    usual t distribution, with N − 2 degrees of freedom for one group, by Wallace's normal deviate (Ann. Math. Statist.
    1959), which is accurate to a thousandth here.
    """
    tau_variance, rho_variance, start = 0.0, 0.0, 0
    a, b = pair.x.ranks, pair.y.ranks
    for t, u, values in zip(pair.x.ties, pair.y.ties, pair.x.groups, strict=True):
        n, rows = len(values), slice(start, start + len(values))
        tau_variance += _tau_variance(n, t, u)
        rho_variance += float((a[rows] @ a[rows]) * (b[rows] @ b[rows])) / (n - 1)
        start += n
    freedom = len(a) - len(pair.x.groups)
    share = float(a @ b) ** 2 / rho_variance / freedom  # at most 1; for one group ρ²
    deviate = math.inf
    if share < 1:
        degrees = freedom - 1
        deviate = (8 * degrees + 1) / (8 * degrees + 3) * math.sqrt(-degrees * math.log1p(-share))
    return _two_sided(pair.score / math.sqrt(tau_variance)), _two_sided(deviate)


def _two_sided(deviate: float) -> float:
    return math.erfc(abs(deviate) / math.sqrt(2))


def _tau_variance(n: int, t: Floats, u: Floats) -> float:
    """The variance of concordant minus discordant pairs among n rows; `t`, `u`: how many rows share each value."""
    pairs_t, pairs_u = t * (t - 1), u * (u - 1)
    variance = (n * (n - 1) * (2 * n + 5) - (pairs_t @ (2 * t + 5)) - (pairs_u @ (2 * u + 5))) / 18
    variance += pairs_t.sum() * pairs_u.sum() / (2 * n * (n - 1))
    if n > 2:
        variance += (pairs_t @ (t - 2)) * (pairs_u @ (u - 2)) / (9 * n * (n - 1) * (n - 2))
    return float(variance)


def intervals(pair: Pair) -> tuple[Interval, Interval]:
    """95 % intervals of τ and of ρ on Fisher's scale.

    A row's derivative is that of the coefficient with respect to the row's weight, at equal weights; the root of the
    sum of squares is the standard error, the limit of the bootstrap's.
    """
    x, y, n = pair.x, pair.y, len(pair.x.ranks)
    root = math.sqrt(x.untied.sum() * y.untied.sum())
    d_tau = 2 * pair.concordance / root - pair.tau * (x.untied / x.untied.sum() + y.untied / y.untied.sum())
    a, b = x.ranks, y.ranks
    root = math.sqrt((a @ a) * (b @ b))
    d_rho = (a * b - x.times(b) - y.times(a)) / root
    d_rho -= pair.rho / 2 * ((a * a - 2 * x.times_ranks) / (a @ a) + (b * b - 2 * y.times_ranks) / (b @ b))
    correction = n / (n - 1)
    return _fisher(pair.tau, float(d_tau @ d_tau) * correction), _fisher(pair.rho, float(d_rho @ d_rho) * correction)


def _fisher(value: float, variance: float) -> Interval:
    z, half = math.atanh(value), _QUANTILE * math.sqrt(variance) / (1 - value * value)
    return math.tanh(z - half), math.tanh(z + half)
