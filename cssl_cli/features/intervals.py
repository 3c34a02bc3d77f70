"""Uncertainty: exact binomial intervals (proportions.py), Student's over draws, and the bootstrap over images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor

MIN_REPLICATES = 20  # fewer cannot give a 95 % interval
MIN_BOOTSTRAP_IMAGES = 3  # below this a stratum cannot be resampled
MIN_CLASS_IMAGES = 5  # below this the interval of a single class undercovers


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval for the expectation of which `values` are independent draws, roughly normal.

    None for fewer than two, and for equal ones, which say nothing about their spread.
    """
    n = len(values)
    if n < 2 or max(values) == min(values):
        return None
    mean, half = statistics.fmean(values), -float(stdtrit(n - 1, (1 - confidence) / 2))
    half *= statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def bootstrap_weights(strata: Tensor, *, replicates: int, generator: torch.Generator) -> Tensor:
    """Random image weights (R, N), float64 on the CPU, of mean one in each stratum, for a bootstrap over images.

    `strata` (N,) gives each image's stratum; strata are resampled separately, so their sizes stay fixed. In a stratum
    of n images the weights are n times a Dirichlet vector of concentration 1 − 2/n: the Bayesian bootstrap (Rubin,
    Annals of Statistics 1981, concentration 1), with the concentration that makes the variance of a weighted mean equal
    to s²/n, with divisor n − 1 in s². No weight vanishes, so statistics over pairs of distinct images stay defined. A
    stratum of fewer than `MIN_BOOTSTRAP_IMAGES` images keeps weight one and allows no interval.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    # torch has no public gamma sampler that takes a generator.
    gamma = np.random.default_rng(seed)
    strata = strata.cpu()
    weights = torch.ones(replicates, len(strata), dtype=torch.float64)
    for stratum in strata.unique():
        members = (strata == stratum).nonzero().squeeze(1)
        n = len(members)
        if n >= MIN_BOOTSTRAP_IMAGES:
            draws = torch.from_numpy(gamma.standard_gamma(1 - 2 / n, size=(replicates, n)))
            weights[:, members] = n * draws / draws.sum(dim=1, keepdim=True)
    return weights


def replicate(statistics: Callable[[Tensor], dict[str, Tensor]], weights: Tensor) -> dict[str, Tensor]:
    """Every statistic under every row of image weights (R, N): name → (R, ...).

    `statistics` maps a block of rows (B, N) to tensors (B, ...); blocks bound the memory.
    """
    blocks = [statistics(rows) for rows in weights.split(25)]
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def band_factor(values: Tensor, replicates: Tensor, *, degrees: int, confidence: float = 0.95) -> float | None:
    """Half-width of a simultaneous band for P numbers, in their standard deviations, from replicates (R, P).

    The quantile of the largest deviation of any of them, wider for few `degrees` of freedom as in `bootstrap_interval`,
    and None in the same cases. Numbers without a deviation (fixed ones) are left out.
    """
    values, replicates = values.cpu(), replicates.cpu()  # a GPU would be waited for at each look at them
    if len(replicates) < MIN_REPLICATES or not torch.isfinite(replicates).all():
        return None
    deviations = replicates.std(dim=0)
    varies = deviations > 0
    if not varies.any():
        return 0.0
    largest = ((replicates - values)[:, varies] / deviations[varies]).abs().amax(dim=1)
    return torch.quantile(largest, confidence).item() * _student_over_normal(degrees, confidence)


def percentile_interval(values: Tensor, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of the central 95 % of values (R,); None for fewer than 20 or an undefined one."""
    values = values.cpu()  # a GPU would be waited for at each look at them
    if len(values) < MIN_REPLICATES or not torch.isfinite(values).all():
        return None
    tail = (1 - confidence) / 2
    low, high = torch.quantile(values, values.new_tensor([tail, 1 - tail])).tolist()
    return low, high


def bootstrap_interval(
    value: float,
    replicates: Tensor,
    *,
    degrees: int,
    least: float = -math.inf,
    most: float = math.inf,
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """Expanded percentile interval (low, high) from the bootstrap values (R,) of one number; always contains it.

    Plain percentiles are too narrow for few images, because they ignore that the spread is estimated. They are moved
    away from the number by the ratio of Student's quantile, with `degrees` of freedom (images minus strata), to the
    normal one. The number cannot be below `least` or above `most`: an interval entirely below the former is only noise.
    Returns None then, for fewer than 20 replicates, and for an undefined one. Source: Hesterberg, The American
    Statistician 2015, section 5.3, where the levels are moved instead.
    """
    ends = percentile_interval(replicates, confidence)
    if ends is None or not math.isfinite(value):
        return None
    low, high = ends
    wider = _student_over_normal(degrees, confidence)
    low, high = min(value, value - wider * (value - low)), max(value, value + wider * (high - value))
    return None if high < least else (max(low, min(least, value)), min(high, max(most, value)))


def _student_over_normal(degrees: int, confidence: float) -> float:
    tail = (1 - confidence) / 2
    return float(stdtrit(degrees, tail) / ndtri(tail))
