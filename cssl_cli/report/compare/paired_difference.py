"""The difference of two rows over the seeds they share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95
ROUNDING = 1e-12  # smaller deviations, relative to the values, count as zero


def exceeds(a: float, b: float) -> bool:
    """Whether a > b by more than rounding."""
    return a - b > ROUNDING * max(abs(a), abs(b))


def equal(a: float, b: float) -> bool:
    """Whether neither exceeds the other."""
    return not exceeds(a, b) and not exceeds(b, a)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a − b over the n seeds that both have, its sample standard deviation, and a 95 % t interval.

    p: of the two-sided t test that the mean is 0. A single pair has no deviation, interval or p. Equal differences have
    no interval or p either: they show that the values were rounded alike, not that the difference is known exactly.
    `unpaired` counts the seeds that only one of the two has.
    """

    mean: float
    sd: float | None
    n: int
    interval: tuple[float, float] | None
    unpaired: int
    p: float | None = None

    @property
    def beyond_noise(self) -> bool | None:
        """Whether other seeds would show the same sign, at 95 %; None if that cannot be told.

        It cannot be told from a single pair, nor from equal differences: two seeds often differ by the same image, and
        a deviation of 0 would turn that into certainty.
        """
        if self.interval is None:
            return False if self.n > 1 and self.mean == 0 else None
        return not self.interval[0] <= 0 <= self.interval[1]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {**vars(self), "interval": None if self.interval is None else list(self.interval)}


def paired_difference(
    values_a: Mapping[Hashable, float | None], values_b: Mapping[Hashable, float | None]
) -> PairedDifference | None:
    """a − b over the seeds (keys) for which both have a finite number; None if there are none."""
    a, b = (_present(values) for values in (values_a, values_b))
    shared = [seed for seed in a if seed in b]
    differences = [a[seed] - b[seed] for seed in shared]
    if not differences:
        return None
    n, mean = len(differences), statistics.fmean(differences)
    sd = statistics.stdev(differences) if n > 1 else None
    if sd is not None and sd <= ROUNDING * max(abs(values[seed]) for values in (a, b) for seed in shared):
        sd = 0.0  # shares of the same images differ by whole images; these differ by rounding only
    interval = p = None
    if sd:
        error = sd / math.sqrt(n)
        half = _t_quantile(n - 1) * error
        interval, p = (mean - half, mean + half), _two_sided_p(mean / error, n - 1)
    return PairedDifference(mean, sd, n, interval, unpaired=len(a) + len(b) - 2 * n, p=p)


def as_json(content: Any) -> Any:
    """Content with its differences as JSON types, each with whether it is beyond seed noise."""
    if isinstance(content, PairedDifference):
        return {**content.to_dict(), "beyond_noise": content.beyond_noise}
    if isinstance(content, dict):
        return {key: as_json(value) for key, value in content.items()}
    return [as_json(value) for value in content] if isinstance(content, list) else content


def _present(values: Mapping[Hashable, float | None]) -> dict[Hashable, float]:
    return {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit  # takes a fifth of a second, and few reports need it

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def _two_sided_p(t: float, degrees: int) -> float:
    from scipy.special import stdtr

    return 2 * float(stdtr(degrees, -abs(t)))
