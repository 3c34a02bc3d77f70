"""VICReg (Bardes et al., ICLR 2022, arXiv 2105.04906): views agree, columns keep their variance and decorrelate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.methods import Method, at_least_float32, column_moments
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.off_diagonal import off_diagonal_squares
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import NonNegative, Widths

STD_TARGET = 1.0  # the authors' γ
VARIANCE_FLOOR = 1e-4  # the authors' ε


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Bardes et al., arXiv 2105.04906: views agree, and columns keep their variance and decorrelate"""

    invariance: NonNegative = 25.0
    """weight of the distance between the views"""
    variance: NonNegative = 25.0
    """weight of what the columns' standard deviations lack of 1"""
    covariance: NonNegative = 1.0
    """weight of the covariances of different columns"""
    projector: Widths = (8192, 8192, 8192)
    """widths of the projector's layers, the last one P"""


def variance_part(z: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Mean over the P columns of max(0, 1 − √(var + ε)), with the unbiased variance over the batch (equation 1)."""
    _, variance = column_moments(z, ranks, correction=1)
    std = (variance + VARIANCE_FLOOR).sqrt()
    return ranks.share(F.relu(STD_TARGET - std).mean())


def covariance_part(z: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Sum of the squared covariances of different columns of (B, P), divided by P (equations 3 and 4)."""
    centered = z - ranks.mean(z.mean(dim=0))
    return off_diagonal_squares(centered, centered, ranks=ranks) / ((ranks.size * len(z) - 1) ** 2 * z.shape[1])


def vicreg_terms(
    z_1: Tensor, z_2: Tensor, *, invariance: float, variance: float, covariance: float, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor, Tensor]:
    """The three weighted parts of the loss (VICReg, equation 6), whose sum is the loss; z_1 and z_2 are (B, P).

    As in the authors' code, invariance is the mean over batch and columns of (z_1 − z_2)², variance the mean and
    covariance the sum of the two views' parts. All are ≥ 0; not scale-free.
    Of several `ranks`, each has the projections of its images, and gets its share.
    """
    z_1, z_2 = at_least_float32(z_1), at_least_float32(z_2)
    return (
        invariance * ranks.share_of_mean((z_1 - z_2).square()),
        variance * (variance_part(z_1, ranks) + variance_part(z_2, ranks)) / 2,
        covariance * (covariance_part(z_1, ranks) + covariance_part(z_2, ranks)),
    )


def vicreg_loss(z_1: Tensor, z_2: Tensor, *, invariance: float, variance: float, covariance: float) -> Tensor:
    """VICReg loss of two views, (B, P) each: 0 for identical views with uncorrelated columns of deviation ≥ 1."""
    return sum(
        vicreg_terms(z_1, z_2, invariance=invariance, variance=variance, covariance=covariance),
        start=z_1.new_zeros(()),
    )


class VICReg(Method):
    """Encoder and projector (an MLP with batch norm, the authors' expander) under the three parts."""

    shares = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: tuple[int, ...],
        invariance: float,
        variance: float,
        covariance: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=True)
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # One pass for each view: batch norm sees the B images of one view, as in the authors' code.
        z_1 = self.projector(self.encoder(view_1))
        z_2 = self.projector(self.encoder(view_2))
        with torch.autocast(z_1.device.type, enabled=False):
            invariance, variance, covariance = vicreg_terms(z_1, z_2, **self.weights, ranks=self.ranks)
        return {
            "loss": invariance + variance + covariance,
            "invariance": invariance,
            "variance": variance,
            "covariance": covariance,
        }


def build(encoder: Encoder, settings: Settings) -> VICReg:
    """VICReg as the recipe's `method` block says."""
    return VICReg(
        encoder,
        projector=settings.projector,
        invariance=settings.invariance,
        variance=settings.variance,
        covariance=settings.covariance,
    )
