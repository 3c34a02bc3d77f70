"""Intervals for the losses of the cross-correlation and for ‖Σ_W‖, from the bootstrap's weights. (docs/theory.md, 12.)

To resample ‖M − I‖² outright is to form a D × D matrix, and to standardise again, for every resample. Its first-order
part takes one number an image. Let M be the mean over images of X_i, in coordinates that were standardised, and q_i the
mean squares of image i's coordinates over its views. Weights w_i of mean 1 move the mean of the X_i and the variances
that the coordinates were divided by; to first order M moves by the mean of (w_i − 1) A_i with

    A_i = X_i − ½ (Q_i M + M Q_i),   Q_i = diag(q_i),   Σ_i A_i = 0,

and ‖M − I‖² by the mean of (w_i − 1) · 2⟨M − I, A_i⟩. M as measured holds 1/N of the image's own A_i, which is taken
out: ‖A_i‖²/(N − 1). All of it takes one product of the features with M, N m D² operations.

A squared norm of a matrix of noisy entries is too large on average, and a first-order part cannot show it. The mean of
the two halves of the table, less the whole, does: an error of order 1/N doubles with half the images, while first-order
parts cancel. The intervals reach down (or up, where the halves say too small) by this bias: they hold the number that
was measured and, as often as they say, that of the population.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cssl_cli.intervals import percentile_interval
from cssl_cli.theory.estimate import Interval

BLOCK_NUMBERS = 1 << 22  # features in a block, of which a few copies are held


def loss_intervals(
    features: Tensor, correlation: Tensor, weights: Tensor, bias: Mapping[str, float]
) -> dict[str, Interval | None]:
    """For `invariance` Σ (1 − M_ii)² and `redundancy_loss` ‖M − I‖², of M (D, D) over distinct views.

    features (N, m, D): the augmented views, standardised; N ≥ 3, m ≥ 2. weights (R, N) of the images. bias: of either,
    from halves of the table.
    """
    squares, diagonal = correlation.square(), correlation.diagonal()
    slope = squares.sum(dim=1) - diagonal  # ⟨M − I, Q M⟩ = q · slope
    parts = []
    for block in features.split(max(1, BLOCK_NUMBERS // features[0].numel())):
        mean_square, moved = block.square().mean(dim=1), block @ correlation
        total = block.sum(dim=1)
        views = block.shape[1]
        shift = (total.square() - views * mean_square) / (views * (views - 1)) - mean_square * diagonal  # A_i's
        along_m, trace = _distinct(block, moved), _distinct(block, block)
        cross = _distinct(block * mean_square.unsqueeze(1), moved)  # ⟨X_i, Q M⟩
        parts.append(
            torch.stack(
                [
                    shift @ (diagonal - 1),
                    shift.square().sum(dim=1),
                    along_m - trace - mean_square @ slope,
                    _own_square(block) - 2 * cross + _square_of_scaling(mean_square, squares),
                ]
            )
        )
    along_1, square_1, along_2, square_2 = torch.cat(parts, dim=1)
    invariance = (1 - diagonal).square().sum().item()
    redundancy = squares.sum().item() - 2 * diagonal.sum().item() + len(diagonal)
    return {
        "invariance": _reaching(_resampled(invariance, along_1, square_1, weights), bias["invariance"]),
        "redundancy_loss": _reaching(_resampled(redundancy, along_2, square_2, weights), bias["redundancy_loss"]),
    }


def within_norm_interval(deviations: Tensor, mean_squares: Tensor, weights: Tensor, bias: float) -> Interval | None:
    """For ‖Σ_W‖ of the population, at this number of views.

    deviations (N, D): view means less the centre of their class. mean_squares (N, D): of the standardised coordinates
    over the augmented views of each image. weights (R, N), drawn within classes. bias: of ‖Σ_W‖², from halves; of the
    square, in which the noise is of order 1/N even where it is most of it.
    """
    covariance = deviations.T @ deviations / len(deviations)
    squares, moved = covariance.square(), deviations @ covariance
    along = (deviations * moved).sum(dim=1) - mean_squares @ squares.sum(dim=1)
    own, cross = deviations.square().sum(dim=1).square(), (deviations * mean_squares * moved).sum(dim=1)
    square = own - 2 * cross + _square_of_scaling(mean_squares, squares)
    found = _reaching(_resampled(squares.sum().item(), along, square, weights), bias)
    return None if found is None else (math.sqrt(found[0]), math.sqrt(found[1]))


def _resampled(value: float, along: Tensor, square: Tensor, weights: Tensor) -> Interval | None:
    """Of ‖M − I‖² = value, from ⟨M − I, A_i⟩ (N,) and ‖A_i‖² (N,), to first order."""
    influence = 2 * (along - square / (len(along) - 1))
    return percentile_interval(value + (weights - 1) @ influence / len(along))


def _reaching(interval: Interval | None, bias: float) -> Interval | None:
    """Made longer by the bias, on the side where the unbiased number lies; none of these is negative."""
    if interval is None:
        return None
    return max(0.0, interval[0] - max(0.0, bias)), max(0.0, interval[1] - min(0.0, bias))


def _distinct(first: Tensor, second: Tensor) -> Tensor:
    """Mean (N,) of inner products of different views a ≠ b, of first (N, m, D) and second (N, m, D)."""
    views = first.shape[1]
    everything = (first.sum(dim=1) * second.sum(dim=1)).sum(dim=1)
    return (everything - (first * second).sum(dim=(1, 2))) / (views * (views - 1))


def _own_square(views: Tensor) -> Tensor:
    """‖X_i‖² (N,), X_i the mean of f_a f_bᵀ over a ≠ b: a mean over two such pairs of views (N, m, D)."""
    gram = views @ views.mT
    pairs = views.shape[1] * (views.shape[1] - 1)
    rows = gram.sum(dim=2)
    total = rows.sum(dim=1).square() - 2 * rows.square().sum(dim=1) + gram.square().sum(dim=(1, 2))
    return total / pairs**2


def _square_of_scaling(mean_squares: Tensor, squares: Tensor) -> Tensor:
    """‖½ (Q_i M + M Q_i)‖² (N,), from q (N, D) and M's squared entries (D, D)."""
    return 0.5 * (mean_squares.square() @ squares.sum(dim=1) + ((mean_squares @ squares) * mean_squares).sum(dim=1))
