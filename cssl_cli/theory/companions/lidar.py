"""LiDAR: the effective rank of the directions in which images differ but their views do not. (docs/theory.md, 13.)

Σ_b is the covariance of the images' mean features over augmented views (divisor n − 1), Σ_w that of single views about
them (divisor n (m − 1)) plus 1e-4 I; LiDAR is the exponential of the entropy of the eigenvalues of
Σ_w^{−1/2} Σ_b Σ_w^{−1/2}. Thilak et al., ICLR 2024, arXiv 2312.04000.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.theory.estimate import Absent, Estimate, Quantity
from cssl_cli.theory.table import FeatureTable

RIDGE = 1e-4  # δ, added to the within-image covariance
ENTROPY_OFFSET = 1e-7
SINGULAR = 1e-13  # below this share of the largest variance, that of another direction is rounding
EQUAL = 1e-24  # mean features whose variance is below this share of their mean square are equal


def lidar(table: FeatureTable) -> dict[str, Quantity]:
    """`lidar`, between 1 and min(D, n − 1) up to its offset 1e-7; the clean views are left out."""
    return {"lidar": _why_absent(table) or _of_spectrum(table)}


def _of_spectrum(table: FeatureTable) -> Quantity:
    found = _eigenvalues(table)
    if found is None:
        return Absent("the features are so large that 1e-4 is lost beside their covariance; scale them down")
    shares = found.clamp(min=0)
    shares = shares / shares.sum() + ENTROPY_OFFSET
    return Estimate(
        value=(-(shares * shares.log()).sum()).exp().item(),
        estimator="exponential of the entropy of the discriminant spectrum between images, whitened by the "
        "covariance of their augmented views plus 1e-4, features unscaled; no more than images less one, and the "
        "noise of the views in the former falls with their number only: compare at equal images, views and width",
        errs="either",
        sample=table.augmented_sample,
    )


def _why_absent(table: FeatureTable) -> Quantity | None:
    if table.num_augmented < 2:
        return Absent("LiDAR needs at least two augmented views of an image")
    if table.num_images < 2:
        return Absent("LiDAR needs two images")
    means = table.view_means
    if (means - means.mean(dim=0)).square().sum() <= EQUAL * means.square().sum():
        return Absent("all images have the same mean feature over their augmented views")
    return None


def _eigenvalues(table: FeatureTable) -> Tensor | None:
    """Eigenvalues (D,) of Σ_w^{−1/2} Σ_b Σ_w^{−1/2}; None where Σ_w is singular but for rounding."""
    num_images, num_views = table.num_images, table.num_augmented
    means = table.view_means
    width = means.shape[1]
    between = means - means.mean(dim=0)
    within = RIDGE * torch.eye(width, dtype=means.dtype, device=means.device)
    for views in table.features[:, 1:].unbind(dim=1):
        deviations = views - means
        within += deviations.T @ deviations / (num_images * (num_views - 1))
    # With Σ_w = L Lᵀ the eigenvalues are those of L⁻¹ Σ_b L⁻ᵀ.
    factor, failed = torch.linalg.cholesky_ex(within)
    if failed or factor.diagonal().square().min() < SINGULAR * within.diagonal().max():
        return None
    whitened = torch.linalg.solve_triangular(factor, between.T, upper=False)
    return torch.linalg.eigvalsh(whitened @ whitened.T / (num_images - 1))
