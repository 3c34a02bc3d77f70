"""Luminance, blends and the colour circle, as pure functions of images; hue and saturation are of RGB images only."""

from __future__ import annotations

import torch
from torch import Tensor


def luminance(images: Tensor) -> Tensor:
    """ITU-R 601 luminance (N, 1, H, W) of RGB images (N, 3, H, W); of other numbers of channels, their mean."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
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
