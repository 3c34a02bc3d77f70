"""Batch norms whose statistics are accurate to float32 on a CPU, and batch norms over separate sub-batches.

Off the CPU and in compiled code, where each small kernel costs as much as a large one, none counts its batches: torch
adds 1 to `num_batches_tracked` in each forward pass, one kernel each time. `Trainer` sets the counters instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cssl_cli.errors import InputError
from cssl_cli.nn.batch_norm_over_ranks import batch_norm_over_ranks
from cssl_cli.nn.channel_statistics import statistics_in_groups, summed_one_by_one
from cssl_cli.nn.ranks import ALONE, Ranks


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
    ranks = ALONE
    per_rank = False  # whether each rank normalises its images apart

    def set_statistics_aside(self) -> None:
        """From now on a batch's statistics wait for a call of `follow`, and may be computed again without harm."""
        self.statistics_aside = True
        for name in ("batch_mean", "batch_variance"):
            self.register_buffer(name, torch.zeros_like(self.running_mean), persistent=False)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance (C) of the last batch, once they are set aside."""
        return self.batch_mean, self.batch_variance

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        if self.statistics_aside or summed_one_by_one(input) or not self.ranks.alone:
            normalized, mean, variance = self._normalized(input)
            self._take(mean, variance)
            return normalized
        return _uncounted(self, input) if launch_bound(input) else super().forward(input)

    def _normalized(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images normalised together, with those of other ranks unless `per_rank`; their mean and unbiased variance."""
        if not self.ranks.alone and not self.per_rank:
            return _over_ranks(self, part)
        if summed_one_by_one(part):
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
        if self.per_rank:
            mean, variance = self.ranks.mean(torch.stack([mean, variance])).unbind()
        _follow(self, mean, variance)


class BatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d`, but for the counter of batches where each kernel counts. Input and output (B, D)."""

    ranks = ALONE

    def forward(self, input: Tensor) -> Tensor:
        if self.training and not self.ranks.alone:
            normalized, mean, variance = _over_ranks(self, input)
            _follow(self, mean, variance)
            return normalized
        return _uncounted(self, input) if self.training and launch_bound(input) else super().forward(input)


class SplitBatchNorm2d(BatchNorm2d):
    """Batch norm over `num_splits` sub-batches apart, as on so many devices; in eval mode plain batch norm.

    Input (B, C, H, W); in training the B images, a multiple of `num_splits`, are cut into consecutive runs of equal
    length. Parameters and buffers are those of `nn.BatchNorm2d`: the running statistics follow the mean of the
    sub-batches' statistics. Where an input is `launch_bound`, all sub-batches are normalised in one pass, and the input
    holds the batches of `num_views` views, one after the other, which the running statistics follow one by one.
    """

    def __init__(self, num_features: int, *, num_splits: int, num_views: int = 1) -> None:
        super().__init__(num_features)
        self.num_splits = num_splits
        self.num_views = num_views

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        if launch_bound(input):
            return self._in_one_pass(input)
        assert len(input) % self.num_splits == 0, f"{len(input)} images in {self.num_splits} sub-batches"
        parts = [self._normalized(part) for part in input.chunk(self.num_splits)]
        normalized, means, variances = zip(*parts, strict=True)
        self._take(torch.stack(means).mean(dim=0), torch.stack(variances).mean(dim=0))
        return torch.cat(normalized)

    def _in_one_pass(self, input: Tensor) -> Tensor:
        num_parts = self.num_views * self.num_splits
        assert len(input) % num_parts == 0, f"{len(input)} images in {num_parts} sub-batches"
        normalized, statistics = _SideBySide.apply(
            input, self.weight, self.bias, self.running_mean, num_parts, self.eps
        )
        of_views = statistics.view(2, self.num_views, self.num_splits, -1).mean(dim=2).unbind(dim=1)
        for mean, variance in of_views:
            self._take(mean, variance)
        return normalized


def split_batch_norms(module: nn.Module, num_splits: int, *, num_views: int = 1) -> None:
    """Replace each `nn.BatchNorm2d` inside a module without storage by one that normalises sub-batches apart.

    `InputError` where one is of another kind, which does more than that.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.BatchNorm2d):
                continue
            if type(child) not in (nn.BatchNorm2d, BatchNorm2d):
                raise InputError(
                    f"batch norms of the encoder are of another kind, {type(child).__name__}",
                    where="method.batch_norm_splits",
                    remedy="Give method.batch_norm_splits=1, or another encoder.",
                )
            with torch.device(child.weight.device):
                norm = SplitBatchNorm2d(child.num_features, num_splits=num_splits, num_views=num_views)
            norm.eps, norm.momentum = child.eps, child.momentum
            setattr(parent, name, norm)


def share_batch_norms(module: nn.Module, ranks: Ranks, *, in_parts: bool) -> None:
    """From now on the batch norms inside a module normalise the images of all ranks together.

    Those that normalise sub-batches apart, or micro-batches (`in_parts`), go on so: each rank has whole ones, and only
    the running statistics are those of all. `InputError` where that cannot be.
    """
    for norm in module.modules():
        if not isinstance(norm, nn.modules.batchnorm._NormBase) or not norm.track_running_stats:
            continue
        if not isinstance(norm, BatchNorm1d | BatchNorm2d):
            raise InputError(
                f"batch norms of the encoder are of a kind that cannot be shared by processes, {type(norm).__name__}",
                where="encoder.name",
                remedy="Train with one process, or another encoder.",
            )
        norm.ranks = ranks
        if isinstance(norm, SplitBatchNorm2d) and not in_parts:
            if norm.num_splits % ranks.size:
                raise InputError(
                    f"{norm.num_splits} sub-batches cannot be dealt to {ranks.size} processes",
                    where="method.batch_norm_splits",
                    remedy="Give method.batch_norm_splits=1, or a number of processes that divides it.",
                )
            norm.num_splits //= ranks.size
        if isinstance(norm, BatchNorm2d):
            norm.per_rank = in_parts or isinstance(norm, SplitBatchNorm2d)


def launch_bound(input: Tensor) -> bool:
    """Whether many small kernels on this input would take longer to launch than to run: off the CPU; or it is compiled,
    where each makes the graph longer."""
    return input.device.type != "cpu" or torch.compiler.is_compiling()


def _over_ranks(norm: BatchNorm1d | BatchNorm2d, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The input of all ranks normalised, its mean and unbiased variance."""
    ranks = norm.ranks
    return batch_norm_over_ranks(
        input, norm.weight, norm.bias, eps=norm.eps, key=ranks.key, rank=ranks.rank, size=ranks.size
    )


@torch.no_grad()
def _follow(norm: BatchNorm1d | BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards a batch's: `mean` and unbiased `variance` (C)."""
    assert norm.momentum is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    if not launch_bound(mean):
        norm.num_batches_tracked.add_(1)
    torch._foreach_lerp_([norm.running_mean, norm.running_var], [mean, variance], norm.momentum)


def _uncounted(norm: nn.BatchNorm1d | nn.BatchNorm2d, input: Tensor) -> Tensor:
    """Torch's batch norm in training, without the counter."""
    assert norm.momentum is not None
    return F.batch_norm(
        input,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        training=True,
        momentum=norm.momentum,
        eps=norm.eps,
    )


class _InGroups(torch.autograd.Function):
    """Normalised batch (B, C, H, W), mean and unbiased variance (C) of a float32 batch in channels_last.

    Torch takes the statistics, but of groups of a channel's pixels, as if each were a channel; a float64 puts them
    together. The gradient is torch's, at the exact statistics.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = statistics_in_groups(input)
        normalized = F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)
        unbiased = variance * (input.numel() / (input.numel() - len(mean)))
        ctx.save_for_backward(input, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, unbiased)
        ctx.eps = eps
        return normalized, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        input, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        gradients = torch.ops.aten.native_batch_norm_backward(
            gradient, input, weight, None, None, mean, inverse, True, ctx.eps, ctx.needs_input_grad[:3]
        )
        return *gradients, None


class _SideBySide(torch.autograd.Function):
    """The parts of a batch (B, C, H, W) normalised apart, and their means and unbiased variances (2, parts · C).

    One batch norm of torch's, whose channels are those of all parts; of bfloat16 images its statistics are float32.
    That takes a copy before it and one after it, which cost less than to launch all kernels for each part. The output
    is no view of another tensor: what follows changes it in place.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, any_numbers: Tensor, num_parts: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        beside = _side_by_side(input, num_parts)
        # In one kernel what would take three. A momentum of 1 leaves nothing of what the statistics are before.
        repeated = torch.cat([weight] * num_parts + [bias] * num_parts + [any_numbers] * (2 * num_parts)).view(4, -1)
        weights, biases, means, variances = repeated
        normalized, *saved = torch.ops.aten.native_batch_norm(
            beside, weights, biases, means, variances, training=True, momentum=1.0, eps=eps
        )
        ctx.save_for_backward(beside, weights, *saved)
        ctx.num_parts, ctx.eps = num_parts, eps
        statistics = repeated[2:]
        ctx.mark_non_differentiable(statistics)
        return _one_after_another(normalized, num_parts), statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        beside, weights, mean, inverse = ctx.saved_tensors
        gradients = torch.ops.aten.native_batch_norm_backward(
            _side_by_side(gradient, ctx.num_parts),
            beside,
            weights,
            None,
            None,
            mean,
            inverse,
            True,
            ctx.eps,
            [True] * 3,
        )
        of_input, of_weight, of_bias = gradients
        parameters = (one.view(ctx.num_parts, -1).sum(dim=0) for one in (of_weight, of_bias))
        return _one_after_another(of_input, ctx.num_parts), *parameters, None, None, None


def _side_by_side(images: Tensor, num_parts: int) -> Tensor:
    """(B, C, H, W) → (B/parts, parts · C, H, W), in channels_last."""
    pixels = images.permute(0, 2, 3, 1).unflatten(0, (num_parts, -1))
    return pixels.permute(1, 2, 3, 0, 4).flatten(3).permute(0, 3, 1, 2)


def _one_after_another(beside: Tensor, num_parts: int) -> Tensor:
    """Undoes `_side_by_side`; in channels_last."""
    length, num_channels, *sides = beside.shape
    shape = (num_parts * length, num_channels // num_parts, *sides)
    images = torch.empty(shape, dtype=beside.dtype, device=beside.device, memory_format=torch.channels_last)
    pixels = beside.permute(0, 2, 3, 1).unflatten(3, (num_parts, -1))
    images.permute(0, 2, 3, 1).unflatten(0, (num_parts, -1)).copy_(pixels.permute(3, 0, 1, 2, 4))
    return images
