"""Operations counted: what a training step and a forward pass cost, whatever runs them."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cssl_cli.pipeline.setup import initial_method
from cssl_cli.recipe import Recipe


def step_operations(recipe: Recipe, image_size: int, device: torch.device) -> int:
    """Operations of matrix products and convolutions in one eager step: both views, forward and backward.

    Augmentation and optimizer are left out: they hold no such products worth counting.
    """
    method = initial_method(recipe).to(device).train()
    views = [torch.randn(recipe.train.batch_size, 3, image_size, image_size, device=device) for _ in range(2)]
    with FlopCounterMode(display=False) as counter:
        method(*views)["loss"].backward()
    return counter.get_total_flops()


def forward_operations(encoder: nn.Module, image_size: int) -> int:
    """The same of the forward pass of one image through an encoder without storage."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return counter.get_total_flops()
