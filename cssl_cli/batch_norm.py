"""Batch norms of images: with statistics as exact as float32 holds on a CPU, too, and over sub-batches apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MOST_SUMS = 8192  # held side by side; 32 KiB


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, whose statistics of a batch err by the rounding of a float32 (10⁻⁷) on every device.

    Torch adds up the pixels of a channel one after the other where a CPU holds a float32 batch in channels_last, which
    errs by a relative 10⁻⁵ for 10⁵ pixels, and a ResNet-18 turns that into 10⁻² of its gradient.

    Input and output (B, C, H, W).
    """

    running_mean: Tensor
    running_var: Tensor
    batch_mean: Tensor
    batch_variance: Tensor
    statistics_aside = False

    def set_statistics_aside(self) -> None:
        """From now on a batch's statistics wait for a call of `follow`, and may be computed again without harm."""
        self.statistics_aside = True
        for name in ("batch_mean", "batch_variance"):
            self.register_buffer(name, torch.zeros_like(self.running_mean), persistent=False)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance (C) of the last batch, once they are set aside."""
        return self.batch_mean, self.batch_variance

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not (self.statistics_aside or _summed_one_by_one(input)):
            return super().forward(input)
        normalized, mean, variance = self._normalized(input)
        self._take(mean, variance)
        return normalized

    def _normalized(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images normalised together, their mean and their unbiased variance."""
        if _summed_one_by_one(part):
            return _InGroups.apply(part, self.weight, self.bias, self.eps)
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        # A momentum of 1 leaves the statistics of the images themselves where running ones are asked for.
        normalized = F.batch_norm(
            part, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        return normalized, mean, variance

    @torch.no_grad()
    def _take(self, mean: Tensor, variance: Tensor) -> None:
        if self.statistics_aside:
            self.batch_mean.copy_(mean)
            self.batch_variance.copy_(variance)
        else:
            self.follow(mean, variance)

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards a batch's: `mean` and unbiased `variance` (C)."""
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class SplitBatchNorm2d(BatchNorm2d):
    """Batch norm over `num_splits` sub-batches apart, as on so many devices; in eval mode plain batch norm.

    Input (B, C, H, W); in training the B images, a multiple of `num_splits`, are cut into consecutive runs of equal
    length. Parameters and buffers are those of `nn.BatchNorm2d`: the running statistics follow the mean of the
    sub-batches' statistics.
    """

    def __init__(self, num_features: int, *, num_splits: int) -> None:
        super().__init__(num_features)
        self.num_splits = num_splits

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert len(input) % self.num_splits == 0, f"{len(input)} images in {self.num_splits} sub-batches"
        parts = [self._normalized(part) for part in input.chunk(self.num_splits)]
        normalized, means, variances = zip(*parts, strict=True)
        self._take(torch.stack(means).mean(dim=0), torch.stack(variances).mean(dim=0))
        return torch.cat(normalized)


def split_batch_norms(module: nn.Module, num_splits: int) -> None:
    """Replace each `nn.BatchNorm2d` inside a module without storage by one that normalises sub-batches apart."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                with torch.device(child.weight.device):
                    setattr(parent, name, SplitBatchNorm2d(child.num_features, num_splits=num_splits))


def _summed_one_by_one(input: Tensor) -> bool:
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


class _InGroups(torch.autograd.Function):
    """Normalised batch (B, C, H, W), mean and unbiased variance (C) of a float32 batch in channels_last.

    Torch takes the statistics, but of groups of a channel's pixels, as if each were a channel; a float64 puts them
    together. The gradient is torch's, at the exact statistics.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = _statistics(input)
        normalized = F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)
        unbiased = variance * (input.numel() / (input.numel() - len(mean)))
        ctx.save_for_backward(input, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, unbiased)
        ctx.eps = eps
        return normalized, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        gradients = torch.ops.aten.native_batch_norm_backward(
            gradient, input, weight, None, None, mean, inverse, True, ctx.eps, ctx.needs_input_grad[:3]
        )
        return *gradients, None


def _statistics(input: Tensor) -> tuple[Tensor, Tensor]:
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
