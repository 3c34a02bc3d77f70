"""Solarization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cssl_cli.augment.op import Operation, chance
from cssl_cli.recipe.ranges import Probability


@dataclass(frozen=True, kw_only=True)
class Settings:
    """solarization"""

    p: Probability = 0.2
    """probability of solarization"""
    threshold: Probability = 0.5
    """brightness from which values are inverted (black 0, white 1)"""


@dataclass(frozen=True, kw_only=True)
class Solarize(Settings, Operation):
    """Values at or above `threshold` inverted, with probability `p`. Parameters: `applied`."""

    num_parameters: ClassVar[int] = 1
    of_all_images: ClassVar[tuple[str, ...]] = ("threshold",)
    continuous = ()

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        return {"applied": chance(theta[:, 0], self.p)[0]}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:  # noqa: ARG002
        return torch.lerp(images, 1 - images, (images >= self.threshold).to(images.dtype))
