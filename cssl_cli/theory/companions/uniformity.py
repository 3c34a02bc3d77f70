"""Uniformity: how evenly the clean images spread over the unit sphere. (docs/theory.md, 13.)

log E exp(−2 ‖z − z′‖²) over pairs of distinct images, z of unit norm: 0 when all images coincide, never below −8.
Wang and Isola, ICML 2020, arXiv 2005.10242. The mean is over pairs of the population: with labels, pairs of the same
class have the weight they have there, not the one of a sample with a fixed number of images a class (image_pairs.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.features.geometry import unit_norm
from cssl_cli.features.intervals import MIN_BOOTSTRAP_IMAGES, bootstrap_interval
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.image_pairs import PairWeights
from cssl_cli.theory.table import FeatureTable

SCALE = 2.0  # t of the Gaussian kernel
LEAST, MOST = -4 * SCALE, 0.0  # of antipodal points, and of equal ones
BLOCK_IMAGES = 1000  # rows of the kernel in memory at a time


def uniformity(table: FeatureTable, weights: Tensor | None = None) -> dict[str, Quantity]:
    """`uniformity` of the clean images, between −8 and 0.

    `weights` (R, N) resample the images, within classes where there are labels; None for no interval.
    """
    num_images = table.num_images
    if num_images < 2:
        return {"uniformity": Absent("uniformity needs two images")}
    clean = unit_norm(table.features[:, 0])
    ones = clean.new_ones(1, num_images)
    rows = ones if weights is None else torch.cat([ones, weights.to(clean)])
    pairs = PairWeights.build(table.labels, rows)
    of_class = [_kernel_sums(clean[images], rows[:, images]) for images in pairs.members]
    total = _kernel_sums(clean, rows) if len(of_class) > 1 else of_class[0]
    values = pairs.mean(total, torch.stack(of_class, dim=1)).log()
    enough = num_images >= MIN_BOOTSTRAP_IMAGES if table.labels is None else table.all_resampled
    degrees = num_images - len(of_class)
    return {
        "uniformity": Estimate(
            value=values[0].item(),
            estimator="log of the mean of exp(−2‖z − z′‖²) over pairs of distinct clean images, scaled to unit norm; "
            "pairs of classes weighted by p_k p_l",
            errs="consistent",
            interval=bootstrap_interval(values[0].item(), values[1:], degrees=degrees, least=LEAST, most=MOST)
            if enough and degrees > 0
            else None,
            sample=Sample(num_images, 1),
        )
    }


def _kernel_sums(points: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (R,) of exp(−2 ‖z_i − z_j‖²) over i ≠ j, for points (N, D) and weights (R, N).

    Each pair is visited once. Squared distances come from inner products: their error of about 1e-15 is negligible for
    a kernel between exp(−8) and 1.
    """
    squares = points.square().sum(dim=1)
    sums = weights.new_zeros(len(weights))
    for start in range(0, len(points), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        kernel = squares[block, None] + squares[None, start:] - 2 * points[block] @ points[start:].T
        kernel = kernel.clamp_(min=0).mul_(-SCALE).exp_().triu_(diagonal=1)
        sums += ((weights[:, block] @ kernel) * weights[:, start:]).sum(dim=1)
    return 2 * sums
