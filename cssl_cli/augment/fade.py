"""Contrast reduced towards gray: a negative control, not an augmentation to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cssl_cli.augment.op import Operation, between, chance, per_image
from cssl_cli.recipe.ranges import Probability, ShareRange

LEVELS = 255  # image values are multiples of 1 / LEVELS
MIDDLE = 128 / LEVELS  # a level, so that zero contrast leaves no trace of the image: 0.5 would round to either side


@dataclass(frozen=True, kw_only=True)
class Settings:
    """a negative control: contrast contracted towards mid-gray"""

    p: Probability = 1.0
    """probability that contrast is contracted towards mid-gray"""
    contrast: ShareRange = (0.0, 0.01)
    """share of the contrast that is left, rounded to 256 levels"""


@dataclass(frozen=True, kw_only=True)
class Fade(Settings, Operation):
    """With probability `p`, a share of the contrast to mid-gray is left, uniform on `contrast` [low, high].

    Rounded to the 256 levels of an image file, since otherwise nothing would be lost: in floating point a network could
    amplify what is left. Faded views of all classes are near one point: their concentration is near perfect and means
    nothing. Parameters: `applied`, `contrast`.
    """

    num_parameters: ClassVar[int] = 1

    @property
    def continuous(self) -> tuple[int, ...]:
        return (0,) if self.contrast[0] < self.contrast[1] else ()

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        applied, u = chance(theta[:, 0], self.p)
        return {"applied": applied, "contrast": between(u, *self.contrast)}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        faded = (images - MIDDLE) * per_image(parameters["contrast"]).to(images.dtype) + MIDDLE
        return (faded * LEVELS).round() / LEVELS
