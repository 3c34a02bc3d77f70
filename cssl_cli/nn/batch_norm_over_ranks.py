"""Batch norm whose statistics, and whose gradients, are those of the images of all ranks.

Each rank takes mean and variance of its own images, the means and variances of all are put together (not sums of
squares, which lose digits), and in the backward pass the two sums over the batch that its gradient has are added up
over the ranks. An exchange of 2C numbers each way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.nn.channel_statistics import channel_statistics
from cssl_cli.nn.operators import define_operator

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def batch_norm_over_ranks(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float, key: int, rank: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The images (b, C, H, W), or rows (b, C), of this rank normalised; mean and unbiased variance (C) of all ranks'.

    key, rank, size as of `Ranks`. Every rank has as many images. Differentiable once.
    """
    normalized, mean, variance, _ = torch.ops.cssl.batch_norm_over_ranks(input, weight, bias, eps, key, rank, size)
    return normalized, mean, variance


def _forward(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, key: int, rank: int, size: int
) -> Outputs:
    """The images normalised; mean, unbiased variance, and 1/√(biased variance + ε) of all ranks' images."""
    own = torch.stack(channel_statistics(input))
    means, variances = torch.ops.cssl.rows_of_ranks(own, key, rank, size).double().unflatten(0, (size, 2)).unbind(1)
    mean = means.mean(dim=0)
    variance = (variances + (means - mean).square()).mean(dim=0)
    num = size * input.numel() // len(mean)
    inverse, unbiased = (variance + eps).rsqrt(), variance * (num / (num - 1))
    mean, variance, unbiased, inverse = (part.to(own.dtype) for part in (mean, variance, unbiased, inverse))
    normalized = F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)
    return normalized, mean, unbiased, inverse


def _shapes(input: Tensor, *_: Any) -> Outputs:
    dtype, num_channels = torch.promote_types(input.dtype, torch.float32), input.shape[1]
    mean, variance, inverse = (input.new_empty(num_channels, dtype=dtype) for _ in range(3))
    return torch.empty_like(input), mean, variance, inverse


def _backward(
    gradient: Tensor, input: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, key: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the images, and this rank's shares of those of weight and bias."""
    if input.ndim == 4 and not input.is_contiguous():
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    scale = inverse if weight is None else inverse * weight
    ones = torch.ones_like(mean) if weight is None else weight
    # As if mean and variance were constants, which leaves the two sums over the batch in the parameters' places.
    variance, eps = inverse.reciprocal().square_(), 0.0
    direct, along, total = torch.ops.aten.native_batch_norm_backward(
        gradient, input, ones, mean, variance, None, None, False, eps, [True] * 3
    )
    along_all, total_all = torch.ops.cssl.sum_over_ranks(torch.stack([along, total]), key)
    num = size * input.numel() // len(mean)
    slope = -scale * inverse * along_all / num
    offset = -scale * total_all / num - slope * mean
    shape = (1, -1, 1, 1) if input.ndim == 4 else (1, -1)
    if direct.dtype == slope.dtype:
        of_input = direct.addcmul_(input, slope.view(shape)).add_(offset.view(shape))
    else:
        of_input = (direct + torch.addcmul(offset.view(shape), input, slope.view(shape))).to(input.dtype)
    return of_input, along, total


def _backward_shapes(_: Tensor, input: Tensor, __: Tensor | None, mean: Tensor, *___: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(input), torch.empty_like(mean), torch.empty_like(mean)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    input, weight, _, _, ctx.key, _, ctx.size = inputs
    _, mean, variance, inverse = output
    ctx.mark_non_differentiable(mean, variance, inverse)
    ctx.set_materialize_grads(False)
    ctx.has_parameters = weight is not None
    ctx.save_for_backward(input, weight, mean, inverse)


def _pull(ctx: Any, gradient: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    assert gradient is not None, "the ranks would wait for each other"
    input, weight, mean, inverse = ctx.saved_tensors
    of_input, of_weight, of_bias = torch.ops.cssl.batch_norm_over_ranks_backward(
        gradient, input, weight, mean, inverse, ctx.key, ctx.size
    )
    parameters = (of_weight, of_bias) if ctx.has_parameters else (None, None)
    return of_input, *parameters, None, None, None, None


define_operator(
    "batch_norm_over_ranks",
    "(Tensor input, Tensor? weight, Tensor? bias, float eps, int key, int rank, int size) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    shapes=_shapes,
    backward=_pull,
    keep=_keep,
)
define_operator(
    "batch_norm_over_ranks_backward",
    "(Tensor gradient, Tensor input, Tensor? weight, Tensor mean, Tensor inverse, int key, int size) "
    "-> (Tensor, Tensor, Tensor)",
    _backward,
    shapes=_backward_shapes,
)
