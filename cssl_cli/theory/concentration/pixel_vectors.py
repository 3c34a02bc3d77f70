"""Vectors of views that need no encoder: their pixels, as they are or standardised. (docs/theory.md, 8.)"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-5  # of pixel values in 0 … 1: a view whose pixels deviate less from their mean is constant


def pixels(views: Tensor) -> Tensor:
    """Raw pixel values (B, C·H·W) of views (B, C, H, W) in [0, 1]: the paper's distance, in units of a pixel value."""
    return views.flatten(1)


def standardized_pixels(views: Tensor) -> Tensor:
    """Pixels (B, D = C·H·W) of views (B, C, H, W) in [0, 1], each view of mean 0 and length 1; constant views are 0.

    That is (v − mean) / (standard deviation · √D) over all channels and pixels of a view, so that brightness and
    contrast do not count: ‖v − w‖² = 2 (1 − correlation of v and w), and distances lie between 0 and 2.
    """
    centred = views.flatten(1) - views.flatten(1).mean(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    constant = length < ROUNDING * math.sqrt(centred.shape[1])
    return torch.where(constant, 0, centred / torch.where(constant, 1, length))
