"""Mean and variance of each channel of a batch, accurate to the rounding of a float32 on every device."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_SUMS = 8192  # held side by side; 32 KiB


def channel_statistics(input: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C) of images (B, C, H, W) or rows (B, C), in float32 or better."""
    if summed_one_by_one(input):
        return statistics_in_groups(input)
    if input.device.type == "cpu":
        input = input.to(torch.promote_types(input.dtype, torch.float32))
    return torch.batch_norm_update_stats(input, None, None, 0.0)


def summed_one_by_one(input: Tensor) -> bool:
    """Whether torch would add up the pixels of a channel (B · H · W, two at least) one after the other.

    Not in NCHW, not in compiled code, and not where sums of bfloat16 numbers are taken, which err by more anyway.
    """
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and input.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
        and input.numel() > input.shape[1]  # of a single pixel there is no variance: torch says so
    )


def statistics_in_groups(input: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C) over B, H and W, float32.

    Of groups of pixels first: sums over a B-th or less of the numbers err by less, and by their own roundings.
    """
    num_channels, num_pixels = input.shape[1], input.shape[2] * input.shape[3]
    num_groups = 1
    while num_pixels % (2 * num_groups) == 0 and 2 * num_groups * num_channels <= MOST_SUMS:
        num_groups *= 2
    rows = input.permute(0, 2, 3, 1).reshape(len(input), num_pixels // num_groups, 1, num_groups * num_channels)
    means, variances = torch.batch_norm_update_stats(rows.permute(0, 3, 1, 2), None, None, 0.0)
    means, variances = (part.view(num_groups, num_channels).double() for part in (means, variances))
    mean = means.mean(dim=0)
    between = (means - mean).square_()  # torch.var takes several times as long
    return mean.float(), (variances + between).mean(dim=0).float()
