"""From stored images to the side that an encoder sees: boxes of them, and the whole, resized with antialiasing.

The same numbers as torchvision's functional `resized_crop(..., antialias=True)`, as two matrix products: a box of each
image at once, in steps that do not depend on the boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.augment.op import blocks_of


def as_floats(images: Tensor) -> Tensor:
    """Images in [0, 1], float32, of uint8 images or of a copy of floating-point ones."""
    return images / 255 if images.dtype == torch.uint8 else images.to(torch.float32, copy=True)


def clean_views(images: Tensor, side: int) -> Tensor:
    """Whole images (N, C, side, side), float32 in [0, 1], of images (N, C, S, S), uint8 or floating point in [0, 1].

    Resized where S is not `side`: a view that nothing is done to, and that of a crop whose box is the whole image.
    """
    stored = images.shape[-1]
    if stored == side:
        return as_floats(images)
    start = torch.zeros(1, device=images.device)
    weights = _weights(start, start + stored, stored=stored, side=side)
    # In blocks, as views are made: the floats of all stored images would take several times the memory.
    return torch.cat([_resized(as_floats(images[rows]), weights, weights) for rows in blocks_of(images)])


def resized_boxes(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, *, side: int) -> Tensor:
    """A box of each floating-point image (N, C, S, S), resized to (N, C, side, side).

    Boxes (N,) are in pixels. Pixels outside of them do not enter. Differentiable in the boxes, of which a pixel that
    is only partly inside counts by that part.
    """
    stored = images.shape[-1]
    rows = _weights(top, height, stored=stored, side=side)
    columns = _weights(left, width, stored=stored, side=side)
    return _resized(images, rows, columns)


def _weights(start: Tensor, length: Tensor, *, stored: int, side: int) -> Tensor:
    """How much each of `stored` pixels enters each of `side` output pixels, (N, side, stored); rows sum to 1.

    A triangle around the output pixel's place, as wide as two of the larger pixels: linear interpolation where the box
    is enlarged, an average where it is reduced.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / side
    places = (torch.arange(side, device=start.device)[:, None] + 0.5) * scale  # from the start of the box
    pixels = torch.arange(stored, device=start.device) - start
    triangle = (1 - (pixels + 0.5 - places).abs() / scale.clamp(min=1)).clamp(min=0)
    inside = (torch.minimum(pixels + 1, length) - pixels.clamp(min=0)).clamp(0, 1)
    weights = triangle * inside
    return weights / weights.sum(dim=2, keepdim=True)


def _resized(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weights (N or 1, side, S) applied to the rows and columns of images (N, C, S, S)."""
    across = images.flatten(1, 2) @ columns.to(images.dtype).transpose(1, 2)
    return rows.to(images.dtype).unsqueeze(1) @ across.unflatten(1, images.shape[1:3])
