"""Cutout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cssl_cli.augment.op import Operation, between, chance, whole_number
from cssl_cli.recipe.ranges import AreaRange, Probability


@dataclass(frozen=True, kw_only=True)
class Settings:
    """erasing a box"""

    p: Probability = 0.5
    """probability that a box is erased"""
    scale: AreaRange = (0.02, 0.2)
    """area of the box as a share of the image"""


@dataclass(frozen=True, kw_only=True)
class Cutout(Settings, Operation):
    """A square of random place and size painted mid-gray (0.5), with probability `p`.

    `scale` is the range of its area as a share of the image. The square is wholly inside the image. It is mid-gray, not
    the image's own mean, so that its colour reveals nothing of what it covers.

    Parameters: `applied`; `top`, `left`, `side` in pixels.
    """

    num_parameters: ClassVar[int] = 3

    @property
    def continuous(self) -> tuple[int, ...]:
        return (0, 1, 2) if self.scale[0] < self.scale[1] else (1, 2)

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        applied, area_u = chance(theta[:, 0], self.p)
        side = (self.image_size * between(area_u, *self.scale).sqrt()).round().clamp(1, self.image_size)
        room = self.image_size - side + 1
        top, left = whole_number(theta[:, 1], room), whole_number(theta[:, 2], room)
        return {"applied": applied, "top": top, "left": left, "side": side}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        rows = self._covered(parameters["top"], parameters["side"])
        columns = self._covered(parameters["left"], parameters["side"])
        box = (rows[:, None, :, None] & columns[:, None, None, :]).to(images.dtype)
        return torch.lerp(images, torch.full_like(images, 0.5), box)

    def _covered(self, start: Tensor, length: Tensor) -> Tensor:
        """Which of the image's rows (or columns) lie in [start, start + length): (N, image_size)."""
        positions = torch.arange(self.image_size, device=start.device)
        return (positions >= start[:, None]) & (positions < (start + length)[:, None])
