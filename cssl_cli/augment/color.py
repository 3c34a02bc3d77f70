"""Colour distortion (jitter), grayscale and solarize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cssl_cli.augment import op
from cssl_cli.augment.op import Operation, between, chance, whole_number

BRIGHTNESS, CONTRAST, SATURATION = range(3)


@dataclass(frozen=True, kw_only=True)
class Jitter(Operation):
    """Colour distortion with probability `p`: brightness, contrast, saturation and hue, in random order.

    Each of the first three has a factor uniform on [max(0, 1 − x), 1 + x], where x is the field of its name. The hue
    is rotated by an angle uniform on [−hue, hue], in turns. A field that is None follows from `strength` s: 0.8 s for
    brightness, contrast and saturation, 0.2 s for hue.

    Parameters: `applied`; `brightness`, `contrast`, `saturation`, `hue`; `order`, an integer in 0 … 23: hue takes place
    order // 6 (0 is first) among the other three, which are in the (order % 6)-th of their permutations in
    lexicographic order. `apply` is differentiable in the factors and the hue.
    """

    p: float
    strength: float
    brightness: float | None
    contrast: float | None
    saturation: float | None
    hue: float | None

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
        # The place of hue differs from image to image, but hue is by far the most expensive step. So it is evaluated
        # once, with three blends on either side; an image uses three of them and passes the others unchanged.
        if op.on_cpu(images) and not _differentiated(images, parameters):
            return _apply_sorted(images, parameters)
        factors, kinds = _blends_in_order(parameters)
        before_hue = torch.arange(3, device=images.device) < (parameters["order"] // 6)[:, None]
        images = _blend_in_turn(images, factors, kinds, before_hue)
        images = shift_hue(images, parameters["hue"])
        return _blend_in_turn(images, factors, kinds, ~before_hue)


@dataclass(frozen=True, kw_only=True)
class Gray(Operation):
    """Luminance in all three channels, with probability `p`. Parameters: `applied`."""

    p: float

    num_parameters: ClassVar[int] = 1
    continuous = ()

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        return {"applied": chance(theta[:, 0], self.p)[0]}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:  # noqa: ARG002
        return luminance(images).expand_as(images)


@dataclass(frozen=True, kw_only=True)
class Solarize(Operation):
    """Values at or above `threshold` inverted, with probability `p`. Parameters: `applied`."""

    p: float
    threshold: float

    num_parameters: ClassVar[int] = 1
    continuous = ()

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        return {"applied": chance(theta[:, 0], self.p)[0]}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:  # noqa: ARG002
        return torch.lerp(images, 1 - images, (images >= self.threshold).to(images.dtype))


def luminance(images: Tensor) -> Tensor:
    """ITU-R 601 luminance (N, 1, H, W) of RGB images (N, 3, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def blend(images: Tensor, factor: Tensor, to_gray: Tensor, to_mean: Tensor, *, out: Tensor | None = None) -> Tensor:
    """factor · image + to_gray · luminance + to_mean · mean luminance, clamped to [0, 1]; coefficients (N, 1, 1, 1).

    With factor f, brightness is (f, 0, 0), saturation (f, 1 − f, 0) and contrast (f, 0, 1 − f). (1, 0, 0) changes
    no bit of an image in [0, 1].
    """
    gray = luminance(images)
    shift = (gray * to_gray).add_(gray.mean(dim=(1, 2, 3), keepdim=True) * to_mean)
    return torch.addcmul(shift, images, factor, out=out).clamp_(0, 1)


def shift_hue(images: Tensor, hue: Tensor) -> Tensor:
    """Rotate the hue of RGB images (N, 3, H, W) by hue (N,) in [−0.5, 0.5] turns; value and saturation stay.

    The same function as RGB → HSV → RGB, without its divisions and case distinctions. With chroma c = max − min, the
    angle from red in units of c sixths of a turn is ±(c + green + blue − red − min), positive where green exceeds blue;
    and a channel is min + c where its own angle is within one sixth, min beyond two, linear between.
    """
    red, green, blue = images.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue) - low
    angle = torch.copysign(chroma - low + green + blue - red, green - blue)
    # Per image and channel, in sixths of a turn: shift, less the channel's own place on the circle, within [−3, 3].
    turn = torch.remainder(6 * hue[:, None] - 2 * torch.arange(3, device=images.device) + 3, 6) - 3
    low, chroma, angle = low[:, None], chroma[:, None], angle[:, None]
    angles = torch.addcmul(angle, chroma, turn[:, :, None, None].to(images.dtype))
    from_opposite = angles.abs_().sub_(3 * chroma).abs_()  # |angle|, measured from the far side of the circle
    # Between chroma and twice that; clamp is several times slower with tensors for its ends.
    return torch.minimum(torch.maximum(from_opposite, chroma), 2 * chroma).add_(low - chroma)


def _factor(u: Tensor, extent: float) -> Tensor:
    return between(u, max(0.0, 1 - extent), 1 + extent)


def _differentiated(images: Tensor, parameters: dict[str, Tensor]) -> bool:
    return torch.is_grad_enabled() and any(value.requires_grad for value in (images, *parameters.values()))


def _apply_sorted(images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Jitter that computes only the blends an image uses, by sorting images by the place of hue.

    The result equals that without sorting to the last bit. Not for autograd: it writes in place.
    """
    place, order = (parameters["order"] // 6).sort(descending=True)
    parameters = {name: values[order] for name, values in parameters.items()}
    factors, kinds = _blends_in_order(parameters)
    coefficients = _coefficients(factors, kinds, images.dtype)
    images = images.index_select(0, order)
    ends = [int((place > turn).sum()) for turn in range(3)]  # of the images whose blend in this turn precedes hue
    for end, turn in zip(ends, coefficients.unbind(dim=2), strict=True):
        blend(images[:end], *turn[:, :end], out=images[:end])
    images = shift_hue(images, parameters["hue"])
    for end, turn in zip(ends, coefficients.unbind(dim=2), strict=True):
        blend(images[end:], *turn[:, end:], out=images[end:])
    return images.index_select(0, order.argsort())


def _blends_in_order(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Factors and kinds, both (N, 3), of the three blends of each image in order of application."""
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
    """Applies the three blends of each image; only the `active` (N, 3) ones change it."""
    for turn in _coefficients(torch.where(active, factors, 1.0), kinds, images.dtype).unbind(dim=2):
        images = blend(images, *turn)
    return images


def _coefficients(factors: Tensor, kinds: Tensor, dtype: torch.dtype) -> Tensor:
    """Arguments of `blend`, (3, N, 3, 1, 1, 1): factor, to_gray and to_mean of each image and turn."""
    rest = 1 - factors
    coefficients = torch.stack((factors, rest * (kinds == SATURATION), rest * (kinds == CONTRAST))).to(dtype)
    return coefficients[..., None, None, None]
