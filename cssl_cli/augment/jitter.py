"""Colour distortion: brightness, contrast, saturation and hue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor

from cssl_cli.augment import op
from cssl_cli.augment.color import blend, shift_hue
from cssl_cli.augment.op import Operation, between, chance, whole_number
from cssl_cli.recipe.ranges import NonNegative, Probability

BRIGHTNESS, CONTRAST, SATURATION = range(3)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """colour distortion"""

    p: Probability = 0.8
    """probability of colour distortion"""
    strength: Annotated[float, Ge(0), Le(2.5)] = 0.5
    """strength s, from which the four factors follow unless given"""
    brightness: NonNegative | None = None
    """largest relative change of brightness; null: 0.8 s"""
    contrast: NonNegative | None = None
    """largest relative change of contrast; null: 0.8 s"""
    saturation: NonNegative | None = None
    """largest relative change of saturation; null: 0.8 s"""
    hue: Annotated[float, Ge(0), Le(0.5)] | None = None
    """largest shift of hue in turns; null: 0.2 s"""


@dataclass(frozen=True, kw_only=True)
class Jitter(Settings, Operation):
    """Colour distortion with probability `p`: brightness, contrast, saturation and hue, in random order.

    Each of the first three has a factor uniform on [max(0, 1 − x), 1 + x], x being the field of its name; the hue is
    turned by a part of the colour circle uniform on [−hue, hue]. A field that is None follows from `strength` s:
    0.8 s for brightness, contrast and saturation, 0.2 s for hue.

    On images of other than three channels only brightness and contrast are defined: the other two must be 0.

    Parameters: `applied`; `brightness`, `contrast`, `saturation`, `hue`; `order`, an integer in 0 … 23: hue takes place
    order // 6 (0 is first) among the other three, which come in the (order % 6)-th of their permutations in
    lexicographic order. `apply` is differentiable in the factors and the hue.
    """

    num_parameters: ClassVar[int] = 5
    states: ClassVar[tuple[str, ...]] = ("applied", "order")
    coin: ClassVar[int | None] = 4

    @property
    def continuous(self) -> tuple[int, ...]:
        return tuple(place for place, extent in enumerate(self._extents) if extent > 0)

    @property
    def _extents(self) -> tuple[float, ...]:
        """Of brightness, contrast, saturation and hue."""
        factors = (self.brightness, self.contrast, self.saturation)
        hue = 0.2 * self.strength if self.hue is None else self.hue
        return (*(0.8 * self.strength if own is None else own for own in factors), hue)

    @classmethod
    def mixes_channels(cls, settings: Mapping[str, Any]) -> bool:
        *_, saturation, hue = cls(image_size=1, **settings)._extents
        return saturation > 0 or hue > 0

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        brightness_u, contrast_u, saturation_u, hue_u, order_u = theta.unbind(1)
        applied, order_u = chance(order_u, self.p)
        brightness, contrast, saturation, hue = self._extents
        return {
            "applied": applied,
            "brightness": _factor(brightness_u, brightness),
            "contrast": _factor(contrast_u, contrast),
            "saturation": _factor(saturation_u, saturation),
            "hue": between(hue_u, -hue, hue),
            "order": whole_number(order_u, 24).long(),
        }

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        # The place of hue differs from image to image, yet hue is by far the dearest step. So it is evaluated once, and
        # three blends stand on either side of it, of which an image uses three and passes the others unchanged.
        if op.on_cpu(images) and not _differentiated(images, parameters):
            return _apply_sorted(images, parameters)
        factors, kinds = _blends_in_order(parameters)
        before_hue = torch.arange(3, device=images.device) < (parameters["order"] // 6)[:, None]
        images = _blend_in_turn(images, factors, kinds, before_hue)
        images = _hue_shifted(images, parameters["hue"])
        return _blend_in_turn(images, factors, kinds, ~before_hue)


def _factor(u: Tensor, extent: float) -> Tensor:
    return between(u, max(0.0, 1 - extent), 1 + extent)


def _differentiated(images: Tensor, parameters: dict[str, Tensor]) -> bool:
    return torch.is_grad_enabled() and any(value.requires_grad for value in (images, *parameters.values()))


def _apply_sorted(images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Jitter with no blend that an image does not use: those that use one lie side by side, sorted by hue's place.

    To the last bit what it is without sorting. Not for autograd, as it writes in place.
    """
    place, order = (parameters["order"] // 6).sort(descending=True)
    parameters = {name: values[order] for name, values in parameters.items()}
    factors, kinds = _blends_in_order(parameters)
    coefficients = _coefficients(factors, kinds, images.dtype)
    images = images.index_select(0, order)
    ends = [int((place > turn).sum()) for turn in range(3)]  # of the images whose blend of this turn precedes hue
    for end, turn in zip(ends, coefficients.unbind(dim=2), strict=True):
        blend(images[:end], *turn[:, :end], out=images[:end])
    images = _hue_shifted(images, parameters["hue"])
    for end, turn in zip(ends, coefficients.unbind(dim=2), strict=True):
        blend(images[end:], *turn[:, end:], out=images[end:])
    return images.index_select(0, order.argsort())


def _hue_shifted(images: Tensor, hue: Tensor) -> Tensor:
    """Images of other than three channels have no hue to shift: theirs is 0 (`mixes_channels`)."""
    return shift_hue(images, hue) if images.shape[1] == 3 else images


def _blends_in_order(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Factors and kinds, both (N, 3), of the three blends of each image in the order they are applied."""
    permutation = parameters["order"] % 6
    first = permutation // 2
    rest_low = (first == BRIGHTNESS).long()
    rest_high = SATURATION - (first == SATURATION).long()
    swapped = permutation % 2 == 1
    second, third = torch.where(swapped, rest_high, rest_low), torch.where(swapped, rest_low, rest_high)
    kinds = torch.stack((first, second, third), dim=1)
    factors = torch.stack((parameters["brightness"], parameters["contrast"], parameters["saturation"]), dim=1)
    return factors.gather(1, kinds), kinds


def _blend_in_turn(images: Tensor, factors: Tensor, kinds: Tensor, active: Tensor) -> Tensor:
    """The three blends of each image, of which only the `active` (N, 3) ones change it."""
    for turn in _coefficients(torch.where(active, factors, 1.0), kinds, images.dtype).unbind(dim=2):
        images = blend(images, *turn)
    return images


def _coefficients(factors: Tensor, kinds: Tensor, dtype: torch.dtype) -> Tensor:
    """What `blend` takes, (3, N, 3, 1, 1, 1): factor, to_gray and to_mean of each image and turn."""
    rest = 1 - factors
    coefficients = torch.stack((factors, rest * (kinds == SATURATION), rest * (kinds == CONTRAST))).to(dtype)
    return coefficients[..., None, None, None]
