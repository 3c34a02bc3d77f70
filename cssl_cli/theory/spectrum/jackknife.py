"""The jackknife over groups of images: a function of covariances without its first-order bias, and its interval.

With T of all images and T₋g of those outside group g of G, the pseudo-values are G T − (G − 1) T₋g. Their mean has no
bias of the order of one over the number of images, and their spread is that of the mean (Quenouille, Biometrika 1956;
Tukey, Annals of Mathematical Statistics 1958). (docs/theory.md, 16.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from scipy.special import stdtr, stdtrit
from torch import Tensor

from cssl_cli.theory.estimate import Interval
from cssl_cli.theory.spectrum.view_covariances import ViewMoments, total

CONFIDENCE = 0.95


def pseudo_values(measure: Callable[[ViewMoments], Sequence[float]], parts: Sequence[ViewMoments]) -> Tensor:
    """Of several numbers, (numbers, G): `measure` gives them for the moments of any images, `parts` are G groups."""
    whole, groups = total(parts), len(parts)
    at_all = torch.tensor(measure(whole), dtype=torch.float64)
    without = torch.tensor([measure(whole.without(part)) for part in parts], dtype=torch.float64)
    return (groups * at_all - (groups - 1) * without).T


def standard_error(pseudo: Tensor) -> float:
    """Of the mean of pseudo-values (G,)."""
    return (pseudo.std() / math.sqrt(len(pseudo))).item()


def quantile(degrees: float) -> float:
    """Student's, of a two-sided interval at 95 %."""
    return float(stdtrit(degrees, 1 - (1 - CONFIDENCE) / 2))


def student_interval(value: float, error: float, *, degrees: float, least: float = -math.inf) -> Interval:
    """At 95 %, for a number of standard error `error` that cannot be below `least`."""
    half = quantile(degrees) * error
    return (max(value - half, min(least, value)), value + half)


# ---------------------------------------------------------------------- of one number, without its bias being removed
Jackknifed = tuple[float, tuple[float, ...]]  # a number, and the same with each of G groups left out


def jackknife_error(without: Sequence[float]) -> float:
    """Standard error from the values with each of G groups left out."""
    values = torch.tensor(without, dtype=torch.float64)
    return math.sqrt((len(values) - 1) / len(values) * (values - values.mean()).square().sum().item())


def jackknife_interval(value: float, without: Sequence[float]) -> Interval | None:
    """The 95 % interval by Student's t; None without groups."""
    if len(without) < 2:
        return None
    return student_interval(value, jackknife_error(without), degrees=len(without) - 1)


def jackknife_p(value: float, without: Sequence[float]) -> float:
    """Two-sided p of a value of 0, by Student's t."""
    error = jackknife_error(without)
    ratio = abs(value) / error if error > 0 else math.inf if value else 0.0
    return 2 * float(stdtr(len(without) - 1, -ratio))


def difference_of(one: Jackknifed, other: Jackknifed) -> Jackknifed:
    """On the same groups of images: what two sets of augmentations have in common cancels."""
    return one[0] - other[0], tuple(first - second for first, second in zip(one[1], other[1], strict=True))
