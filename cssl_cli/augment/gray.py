"""Grayscale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from cssl_cli.augment.color import luminance
from cssl_cli.augment.op import Operation, chance
from cssl_cli.recipe.ranges import Probability


@dataclass(frozen=True, kw_only=True)
class Settings:
    """grayscale"""

    p: Probability = 0.2
    """probability of grayscale"""


@dataclass(frozen=True, kw_only=True)
class Gray(Settings, Operation):
    """Luminance in all three channels, with probability `p`. Parameters: `applied`."""

    num_parameters: ClassVar[int] = 1
    continuous = ()

    @classmethod
    def mixes_channels(cls, settings: Mapping[str, Any]) -> bool:  # noqa: ARG003
        return True

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        return {"applied": chance(theta[:, 0], self.p)[0]}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:  # noqa: ARG002
        return luminance(images).expand_as(images)
