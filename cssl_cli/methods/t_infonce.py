"""t-InfoNCE (Hu et al., ICLR 2023, arXiv 2205.14814): SimCLR with Student's t distribution of distances (t-SimCLR).

Contrastive learning as stochastic neighbour embedding, and its heavy-tailed form as t-SNE: projections keep their
norm, and views of different images have room to part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.methods import Method, at_least_float32
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.log_sum_exp import log_sum_exp_of_t_kernel
from cssl_cli.nn.pair_scores import log_t_kernel
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import Positive, Widths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hu et al., arXiv 2205.14814: SimCLR with Student's t distribution of unnormalised distances"""

    t_df: Positive = 10.0
    """degrees of freedom of Student's t distribution"""
    tau: Positive = 5.0
    """what the squared distances are divided by, a temperature"""
    projector: Widths = (512, 128)
    """widths of the projector's layers, the last one P"""


def t_info_nce_terms(
    z_1: Tensor, z_2: Tensor, *, t_df: float, tau: float, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """The two parts of t-InfoNCE, whose sum is the loss; z_1 and z_2 are (B, P) and are not normalised.

    With s the log kernel of the squared distances among all 2B projections, and j(i) the other view of i, as in
    NT-Xent: the alignment part is −mean s(i, j(i)), ≥ 0; the divergence part is mean log Σ_{k≠i} exp s(i, k).
    Of several `ranks`, each has the projections of its images, and gets its share.
    """
    num_images = len(z_1)
    z = at_least_float32(torch.cat([z_1, z_2]))
    z = z - ranks.mean(z.mean(dim=0))  # the distances stay, with fewer digits lost in their differences
    between_views = (z[:num_images] - z[num_images:]).square().sum(dim=1)
    positive = log_t_kernel(between_views, t_df=t_df, tau=tau)
    of_others = log_sum_exp_of_t_kernel(z, t_df=t_df, tau=tau, ranks=ranks)
    return -ranks.share_of_mean(positive), ranks.share_of_mean(of_others)


def t_info_nce_loss(z_1: Tensor, z_2: Tensor, *, t_df: float, tau: float) -> Tensor:
    """t-InfoNCE loss of two views, (B, P) each: a scalar ≥ 0, log(2B − 1) when all projections coincide."""
    alignment, divergence = t_info_nce_terms(z_1, z_2, t_df=t_df, tau=tau)
    return alignment + divergence


class TInfoNCE(Method):
    """Encoder and projector (an MLP without batch norm) under t-InfoNCE."""

    num_passes = 1
    shares = True

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], t_df: float, tau: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=False)
        self.t_df = t_df
        self.tau = tau

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # One pass over both views, as for SimCLR.
        z = self.projector(self.encoder(torch.cat([view_1, view_2])))
        with torch.autocast(z.device.type, enabled=False):
            alignment, divergence = t_info_nce_terms(*z.chunk(2), t_df=self.t_df, tau=self.tau, ranks=self.ranks)
        return {"loss": alignment + divergence, "alignment": alignment, "divergence": divergence}


def build(encoder: Encoder, settings: Settings) -> TInfoNCE:
    """t-InfoNCE as the recipe's `method` block says."""
    return TInfoNCE(encoder, projector=settings.projector, t_df=settings.t_df, tau=settings.tau)
