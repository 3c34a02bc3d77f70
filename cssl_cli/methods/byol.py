"""BYOL (Grill et al., NeurIPS 2020, arXiv 2006.07733): predict the projection of a slowly moving copy of oneself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from cssl_cli.methods import Method, copy_weights, directions, momentum_copy, move_towards, output_std
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import Added, Decay, LayerWidth, Widths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Grill et al., arXiv 2006.07733: predict what a momentum encoder makes of the other view"""

    ema_momentum: Decay = 0.996
    """share of its weights that the momentum encoder keeps at each step"""
    ema_schedule: Annotated[Literal["constant", "cosine"], Added()] = "constant"
    """course of that share: constant, or rising to 1 along half a cosine"""
    projector: Widths = (4096, 256)
    """widths of the projector's layers, the last one P"""
    predictor: LayerWidth = 4096
    """width of the predictor's hidden layer"""


def byol_half(p: Tensor, z: Tensor) -> Tensor:
    """Mean of ‖p/‖p‖ − z/‖z‖‖² over predictions p and targets z (B, P), in 0…4 (BYOL, equation 2).

    No gradient flows to the targets.
    """
    p = directions(p)
    z = directions(z.detach())
    return (p - z).square().sum(dim=1).mean()


def byol_loss(p_1: Tensor, p_2: Tensor, z_1: Tensor, z_2: Tensor) -> Tensor:
    """Each view's predictions against the other view's targets, all (B, P): a sum in 0…8 (BYOL, section 3.1)."""
    return byol_half(p_1, z_2) + byol_half(p_2, z_1)


class BYOL(Method):
    """Encoder, projector and predictor (MLPs with batch norm), and momentum copies of the former two as targets.

    The share that a copy keeps of itself at each step is m, constant, or rises from m to 1 over the training: in step k
    of K, from 0 on, 1 − (1 − m)(cos(πk/K) + 1)/2 (BYOL, section 3.1).
    """

    shares = True

    steps_done: Tensor

    def __init__(
        self, encoder: Encoder, *, projector: tuple[int, ...], predictor: int, ema_momentum: float, rising: bool = False
    ) -> None:
        super().__init__()
        width = projector[-1]
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=True)
        self.predictor = MLP(width, (predictor, width), batch_norm=True)
        self.momentum_encoder = momentum_copy(self.encoder)
        self.momentum_projector = momentum_copy(self.projector)
        self.ema_momentum = ema_momentum
        self.num_steps: int | None = None
        if rising:  # counted where the weights are: nothing waits for the device, and a recorded step goes on counting
            self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def before_training(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def after_initialization(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """The copies begin equal, and steps are counted from 0."""
        if "steps_done" in self._buffers:
            self.steps_done.zero_()
        copy_weights(self.momentum_encoder, self.encoder)
        copy_weights(self.momentum_projector, self.projector)

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # One pass for each view: batch norm sees the B images of one view, as in the authors' code.
        z_1, z_2 = self.targets(view_1), self.targets(view_2)
        p_1, p_2 = self.predictions(view_1), self.predictions(view_2)
        with torch.autocast(view_1.device.type, enabled=False):
            return {
                "loss": self.ranks.share(byol_loss(p_1, p_2, z_1, z_2)),
                "output_std": output_std(z_1, self.ranks),
            }

    def predictions(self, view: Tensor) -> Tensor:
        """What the online network expects the targets of the other view to be, (B, P)."""
        return self.predictor(self.projector(self.encoder(view)))

    @torch.no_grad()
    def targets(self, view: Tensor) -> Tensor:
        """Projections (B, P) of the momentum copies."""
        return self.momentum_projector(self.momentum_encoder(view))

    def after_step(self) -> None:
        """The momentum copies follow the new weights."""
        kept = self.kept_share()
        move_towards(self.momentum_encoder, self.encoder, ema_momentum=kept)
        move_towards(self.momentum_projector, self.projector, ema_momentum=kept)

    def kept_share(self) -> float | Tensor:
        """What the copies keep of themselves in this step, which is counted."""
        if "steps_done" not in self._buffers:
            return self.ema_momentum
        assert self.num_steps is not None, "before_training has not been called"
        lost = (1 - self.ema_momentum) * ((math.pi / self.num_steps * self.steps_done).cos() + 1) / 2
        self.steps_done += 1
        return 1 - lost


def build(encoder: Encoder, settings: Settings) -> BYOL:
    """BYOL as the recipe's `method` block says."""
    return BYOL(
        encoder,
        projector=settings.projector,
        predictor=settings.predictor,
        ema_momentum=settings.ema_momentum,
        rising=settings.ema_schedule == "cosine",
    )
