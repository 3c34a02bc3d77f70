"""Barlow Twins (Zbontar et al., ICML 2021, arXiv 2103.03230): the views' cross-correlation becomes the identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.methods import Method, at_least_float32, column_moments, powers_of_two
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.off_diagonal import off_diagonal_squares
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import NonNegative, Widths

VARIANCE_FLOOR = 1e-5  # the epsilon of the batch norm that the authors' code standardises with


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Zbontar et al., arXiv 2103.03230: make the cross-correlation of two views the identity"""

    lambda_: NonNegative = 0.005
    """weight of the redundancy term"""
    projector: Widths = (2048, 2048, 2048)
    """widths of the projector's layers, the last one P"""


def standardize(z: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Mean 0 and variance 1 of each of the P columns over the batch of (B, P); a constant column becomes 0.

    So does, nearly, one of variance far below `VARIANCE_FLOOR`, as in the authors' code; a column of any greater scale
    is standardised. Of several `ranks`, each has rows of the batch.
    """
    scale = powers_of_two(z, 0, ranks).clamp(max=1)
    z = z * scale
    # Of a column whose mean is huge, the floor must still exceed what rounding leaves of its variance.
    floor = (VARIANCE_FLOOR * scale.square().squeeze(0)).clamp(min=(4 * torch.finfo(z.dtype).eps) ** 2)
    mean, variance = column_moments(z, ranks, correction=0)
    return (z - mean) * torch.rsqrt(variance + floor)


def barlow_twins_terms(z_1: Tensor, z_2: Tensor, *, lambda_: float, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """The two parts of the loss (Barlow Twins, equation 1), whose sum is the loss; z_1 and z_2 are (B, P).

    With M the P×P cross-correlation of the standardised views: Σ_i (1 − M_ii)² and λ Σ_{i≠j} M_ij². Both are ≥ 0.
    Of several `ranks`, each has the projections of its images, and gets its share.
    """
    z_1, z_2 = at_least_float32(z_1), at_least_float32(z_2)
    z_1, z_2 = standardize(z_1, ranks), standardize(z_2, ranks) / (ranks.size * len(z_1))
    diagonal = ranks.sum((z_1 * z_2).sum(dim=0))
    return ranks.share((1 - diagonal).square().sum()), lambda_ * off_diagonal_squares(z_1, z_2, ranks=ranks)


def barlow_twins_loss(z_1: Tensor, z_2: Tensor, *, lambda_: float) -> Tensor:
    """Barlow Twins loss of two views, (B, P) each: a scalar, 0 for identical views with uncorrelated columns."""
    invariance, redundancy = barlow_twins_terms(z_1, z_2, lambda_=lambda_)
    return invariance + redundancy


class BarlowTwins(Method):
    """Encoder and projector (an MLP with batch norm) under the cross-correlation loss."""

    shares = True

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], lambda_: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=True)
        self.lambda_ = lambda_

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # One pass for each view: batch norm sees the B images of one view, as in the authors' code.
        z_1 = self.projector(self.encoder(view_1))
        z_2 = self.projector(self.encoder(view_2))
        with torch.autocast(z_1.device.type, enabled=False):
            invariance, redundancy = barlow_twins_terms(z_1, z_2, lambda_=self.lambda_, ranks=self.ranks)
        return {"loss": invariance + redundancy, "invariance": invariance, "redundancy": redundancy}


def build(encoder: Encoder, settings: Settings) -> BarlowTwins:
    """Barlow Twins as the recipe's `method` block says."""
    return BarlowTwins(encoder, projector=settings.projector, lambda_=settings.lambda_)
