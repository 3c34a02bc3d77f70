"""Horizontal flip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cssl_cli.augment.op import Operation, chance
from cssl_cli.recipe.ranges import Probability


@dataclass(frozen=True, kw_only=True)
class Settings:
    """horizontal flip"""

    p: Probability = 0.5
    """probability of a horizontal flip"""


@dataclass(frozen=True, kw_only=True)
class Flip(Settings, Operation):
    """Mirrors left and right with probability `p`. Parameters: `applied`."""

    num_parameters: ClassVar[int] = 1
    continuous = ()

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        return {"applied": chance(theta[:, 0], self.p)[0]}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:  # noqa: ARG002
        return images.flip(-1)
