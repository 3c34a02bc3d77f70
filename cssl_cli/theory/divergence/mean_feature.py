"""The squared norm ‖E f‖² of the mean feature of a view, over the whole population. (docs/theory.md, 7.)

‖E f‖² = Σ_kl p_k p_l μ_k·μ_l is the mean inner product of views of two independent images. In a sample with fixed
numbers of each class, two distinct images are of class k with the share n_k(n_k − 1) / n(n − 1) instead of p_k², so the
mean over all pairs would be off: with the unbiased ‖μ_k‖² of a class instead (docs/theory.md, 6), over distinct images
of it, every pair of classes keeps its weight p_k p_l. Without labels the images count as independent draws, and the
estimate is the mean over all pairs of distinct images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.features.intervals import MIN_REPLICATES, bootstrap_interval, replicate
from cssl_cli.theory.estimate import Absent, Estimate, Interval, Quantity
from cssl_cli.theory.table import FeatureTable, class_moments

QUANTITIES = ("squared_norm",)


def mean_feature(table: FeatureTable, weights: Tensor | None) -> dict[str, Quantity]:
    """`squared_norm` ‖E f‖², f over augmented views of all images; 0 when features are centred, below r² else.

    `weights` (R, N) resample the images, within classes where there are labels; None for no interval. An unbiased
    estimate may come out below 0.
    """
    reason = _why_absent(table)
    if reason is not None:
        return {"squared_norm": Absent(reason)}
    classed = table if table.labels is not None else _of_one_class(table)
    mean, squared = _statistics(classed, table.features.new_ones(1, table.num_images)).values()
    value = squared.item()
    interval = None
    if weights is not None and len(weights) >= MIN_REPLICATES and classed.all_resampled:
        replicates = replicate(lambda rows: _statistics(classed, rows), weights)
        interval = _interval(mean[0], value, degrees=classed.degrees_of_freedom, **replicates)
    pairs = "Σ p_k p_l mean over images of classes k and l" if table.labels is not None else "mean over pairs of images"
    return {
        "squared_norm": Estimate(
            value,
            f"inner product of augmented views of two distinct images, {pairs} (U form)",
            "unbiased",
            table.augmented_sample,
            interval=interval,
        )
    }


def _statistics(table: FeatureTable, weights: Tensor) -> dict[str, Tensor]:
    """The mean feature (R, D) and its unbiased squared norm (R,) under weights (R, N)."""
    moments = class_moments(table, weights)
    present = table.priors > 0
    priors = table.priors[present]
    mean = torch.einsum("k,rkd->rd", priors, moments.centers[:, present])
    errors = moments.center_errors[:, present] @ priors.square()
    return {"mean": mean, "squared_norm": mean.square().sum(dim=1) - errors}


def _interval(center: Tensor, value: float, mean: Tensor, squared_norm: Tensor, *, degrees: int) -> Interval | None:
    """The bootstrap interval, with the part linear in the resampling scaled to the variance it should have.

    Resampling moves ‖E f‖² by 2 mᵀδ, m the mean feature measured, and by a remainder of variance q. The noise of m is
    in the first and makes its variance too large by 2q on average: a factor of 3 in all where E f = 0.
    """
    linear = 2 * (mean - center) @ center
    remainder = squared_norm - value - linear
    share = 1 - 2 * remainder.var() / linear.var().clamp(min=torch.finfo(linear.dtype).tiny)
    replicates = value + share.clamp(min=0).sqrt() * linear + remainder
    return bootstrap_interval(value, replicates, degrees=degrees, least=0)


def _why_absent(table: FeatureTable) -> str | None:
    if table.num_augmented < 1:
        return "the mean feature needs at least one augmented view of an image"
    if table.labels is None:
        return "two distinct images are needed" if table.num_images < 2 else None
    single = [name for name, size in zip(table.class_names, table.class_sizes.tolist(), strict=True) if size == 1]
    if single:
        return f"two distinct images of every class are needed, and there is one of {single[0]}"
    return None


def _of_one_class(table: FeatureTable) -> FeatureTable:
    labels = torch.zeros(table.num_images, dtype=torch.int64, device=table.features.device)
    return FeatureTable(table.features, labels, ("image",))
