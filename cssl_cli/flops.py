"""Floating-point operations, counted as torch's formulas count them: a multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_flops(function: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in a call of `function`, those of its backward included."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def forward_flops(encoder: nn.Module, image_size: int) -> int:
    """Operations of an encoder on the meta device for one RGB image of this side; nothing is computed."""
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.no_grad():
        encoder.eval()
        return count_flops(lambda: encoder(image))
