"""The simple contrastive loss −f₁ᵀf₂ + λ f₁ᵀf₋, a counter-example of Huang et al., arXiv 2111.00743.

It is linear in the inner products, and its repulsion sees the mean of the projections alone: two opposite points, half
of the images on each, already attain its least value. It cannot prevent dimensional collapse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.methods import Method, directions
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import NonNegative, Widths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """the counter-example of arXiv 2111.00743, linear in the inner products: its features lose dimensions"""

    lambda_: NonNegative = 1.0
    """weight of the inner products of different images"""
    projector: Widths = (512, 128)
    """widths of the projector's layers, the last one P"""


def simple_contrastive_terms(
    z_1: Tensor, z_2: Tensor, *, lambda_: float, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """The two parts of the loss, whose sum is the loss; z_1 and z_2 are (B, P), B ≥ 2, and are scaled to unit norm.

    Alignment is −mean z_1ᵀz_2 over the images, in ±1. Repulsion is λ times the mean of zᵀz′ over all ordered pairs of
    views, first or second, of two different images; from −λ/(B − 1), where the projections' mean is 0, to λ.
    Of several `ranks`, each has the projections of its images, and gets its share.
    """
    num_images = ranks.size * len(z_1)
    z_1 = directions(z_1)
    z_2 = directions(z_2)
    alignment = ranks.share_of_mean((z_1 * z_2).sum(dim=1))
    # The sum over pairs of different images is that over all pairs less that within the images.
    images = z_1 + z_2
    total = ranks.sum(images.sum(dim=0))
    between_images = ranks.share(total.square().sum()) - images.square().sum()
    return -alignment, lambda_ * between_images / (4 * num_images * (num_images - 1))


def simple_contrastive_loss(z_1: Tensor, z_2: Tensor, *, lambda_: float) -> Tensor:
    """Simple contrastive loss of two views, (B, P) each: a scalar, at least −1 − λ/(B − 1)."""
    alignment, repulsion = simple_contrastive_terms(z_1, z_2, lambda_=lambda_)
    return alignment + repulsion


class SimpleContrastive(Method):
    """Encoder and projector (an MLP without batch norm) under the simple contrastive loss."""

    num_passes = 1
    shares = True

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], lambda_: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=False)
        self.lambda_ = lambda_

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # One pass over both views, as for SimCLR, from which it differs by the loss alone.
        z = self.projector(self.encoder(torch.cat([view_1, view_2])))
        with torch.autocast(z.device.type, enabled=False):
            alignment, repulsion = simple_contrastive_terms(*z.chunk(2), lambda_=self.lambda_, ranks=self.ranks)
        return {"loss": alignment + repulsion, "alignment": alignment, "repulsion": repulsion}


def build(encoder: Encoder, settings: Settings) -> SimpleContrastive:
    """The simple contrastive loss as the recipe's `method` block says."""
    return SimpleContrastive(encoder, projector=settings.projector, lambda_=settings.lambda_)
