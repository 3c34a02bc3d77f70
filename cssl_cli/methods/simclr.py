"""SimCLR (Chen et al., ICML 2020, arXiv 2002.05709): the two views of an image attract, all other images repel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.methods import Method, directions
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.log_sum_exp import log_sum_exp_of_inner_products
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import Positive, Widths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Chen et al., arXiv 2002.05709: contrast with the other images of the batch"""

    temperature: Positive = 0.5
    """what the cosine similarities are divided by"""
    projector: Widths = (512, 128)
    """widths of the projector's layers, the last one P"""


def nt_xent_terms(z_1: Tensor, z_2: Tensor, *, temperature: float, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """The two parts of NT-Xent (SimCLR, algorithm 1), whose sum is the loss; z_1 and z_2 are (B, P), of any norm.

    With s the cosine similarities among all 2B projections divided by the temperature, and j(i) the other view of i:
    the alignment part is −mean s(i, j(i)), in ±1/temperature; the divergence part is mean log Σ_{k≠i} exp s(i, k).
    Of several `ranks`, each has the projections of its images, and gets its share.
    """
    num_images = len(z_1)
    z = directions(torch.cat([z_1, z_2]))
    positive = (z[:num_images] * z[num_images:]).sum(dim=1) / temperature
    of_others = log_sum_exp_of_inner_products(z, temperature=temperature, ranks=ranks)
    return -ranks.share_of_mean(positive), ranks.share_of_mean(of_others)


def nt_xent_loss(z_1: Tensor, z_2: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent loss of two views, (B, P) each: a scalar, log(2B − 1) when all projections coincide."""
    alignment, divergence = nt_xent_terms(z_1, z_2, temperature=temperature)
    return alignment + divergence


class SimCLR(Method):
    """Encoder and projector (an MLP without batch norm) under NT-Xent."""

    num_passes = 1
    shares = True

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=False)
        self.temperature = temperature

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # One pass over both views: batch norm sees all 2B images, as in the authors' code.
        z = self.projector(self.encoder(torch.cat([view_1, view_2])))
        with torch.autocast(z.device.type, enabled=False):
            alignment, divergence = nt_xent_terms(*z.chunk(2), temperature=self.temperature, ranks=self.ranks)
        return {"loss": alignment + divergence, "alignment": alignment, "divergence": divergence}


def build(encoder: Encoder, settings: Settings) -> SimCLR:
    """SimCLR as the recipe's `method` block says."""
    return SimCLR(encoder, projector=settings.projector, temperature=settings.temperature)
