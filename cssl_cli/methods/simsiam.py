"""SimSiam (Chen & He, CVPR 2021, arXiv 2011.10566): predict one view from the other, with no gradient to the target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cssl_cli.methods import Method, directions, output_std
from cssl_cli.nn.batch_norm import BatchNorm1d
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import LayerWidth, Widths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Chen & He, arXiv 2011.10566: predict the other view, with no gradient to what is predicted"""

    projector: Widths = (2048, 2048)
    """widths of the projector's layers, the last one P"""
    predictor: LayerWidth = 512
    """width of the predictor's hidden layer"""


def negative_cosine_similarity(p: Tensor, z: Tensor) -> Tensor:
    """−mean of the cosine similarities of predictions p and targets z (B, P), in ±1 (SimSiam, equation 1).

    No gradient flows to the targets.
    """
    p = directions(p)
    z = directions(z.detach())
    return -(p * z).sum(dim=1).mean()


def simsiam_loss(p_1: Tensor, p_2: Tensor, z_1: Tensor, z_2: Tensor) -> Tensor:
    """Each view's predictions against the other view's projections, all (B, P): in ±1 (SimSiam, equation 4)."""
    return (negative_cosine_similarity(p_1, z_2) + negative_cosine_similarity(p_2, z_1)) / 2


class SimSiam(Method):
    """Encoder, projector and predictor, MLPs with batch norm; the projector's output is normalised, too.

    The normalisation of the output has no scale and shift, as in the authors' code. The predictor is a bottleneck of
    two layers: P to its hidden width and back.
    """

    shares = True

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], predictor: int) -> None:
        super().__init__()
        width = projector[-1]
        self.encoder = encoder
        self.projector = nn.Sequential(
            MLP(encoder.num_features, projector, batch_norm=True),
            BatchNorm1d(width, affine=False),
        )
        self.predictor = MLP(width, (predictor, width), batch_norm=True)

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # One pass for each view: batch norm sees the B images of one view, as in the authors' code.
        z_1, z_2 = self.projector(self.encoder(view_1)), self.projector(self.encoder(view_2))
        p_1, p_2 = self.predictor(z_1), self.predictor(z_2)
        with torch.autocast(z_1.device.type, enabled=False):
            return {
                "loss": self.ranks.share(simsiam_loss(p_1, p_2, z_1, z_2)),
                "output_std": output_std(z_1, self.ranks),
            }


def build(encoder: Encoder, settings: Settings) -> SimSiam:
    """SimSiam as the recipe's `method` block says."""
    return SimSiam(encoder, projector=settings.projector, predictor=settings.predictor)
