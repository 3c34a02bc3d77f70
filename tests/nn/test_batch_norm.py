"""Batch norm whose statistics are exact in channels_last: torch's batch norm in float64 is the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cssl_cli.nn.batch_norm import BatchNorm2d, SplitBatchNorm2d
from cssl_cli.nn.encoder import build_encoder, materialize
from tests.support.small_methods import normal

EPS = torch.finfo(torch.float32).eps

# Sides of powers of two, odd ones, prime ones, more channels than sums may lie side by side, single images and pixels.
SHAPES = [
    (64, 16, 32, 32),
    (64, 64, 8, 8),
    (30, 3, 15, 20),
    (7, 5, 13, 11),
    (4, 9000, 2, 2),
    (1, 8, 16, 16),
    (50, 8, 1, 1),
    (3, 1, 6, 6),
]


def channels_last(images: Tensor) -> Tensor:
    return images.float().contiguous(memory_format=torch.channels_last)


def batch(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """Channels of different means, some far from zero, and deviations."""
    channel = torch.arange(shape[1], dtype=torch.float64).view(1, -1, 1, 1)
    return normal(*shape, seed=seed) * (1 + channel % 3) + channel % 7 - 3


def norms(num_channels: int) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    """Ours in float32 and torch's in float64, with the same weights."""
    theirs = nn.BatchNorm2d(num_channels)
    with torch.no_grad():
        theirs.weight.copy_(1 + 0.5 * normal(num_channels, seed=5))
        theirs.bias.copy_(normal(num_channels, seed=6))
    ours = BatchNorm2d(num_channels)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs.double()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_batch_norm(shape: tuple[int, ...]) -> None:
    ours, theirs = norms(shape[1])
    images, weights = channels_last(batch(shape)), channels_last(normal(*shape, seed=9))
    mine, reference = images.clone().requires_grad_(), images.double().requires_grad_()
    out, expected = ours(mine), theirs(reference)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    scale = float(reference.grad.abs().max())
    torch.testing.assert_close(mine.grad.double(), reference.grad, rtol=1e-4, atol=1e-5 * scale)
    for name in ("weight", "bias"):
        found, right = getattr(ours, name).grad.double(), getattr(theirs, name).grad
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_running_statistics_are_torchs(shape: tuple[int, ...]) -> None:
    ours, theirs = norms(shape[1])
    for seed in (1, 2, 3):
        images = channels_last(batch(shape, seed))
        ours(images)
        theirs(images.double())
    torch.testing.assert_close(ours.running_mean.double(), theirs.running_mean, rtol=4 * EPS, atol=4 * EPS)
    torch.testing.assert_close(ours.running_var.double(), theirs.running_var, rtol=4 * EPS, atol=4 * EPS)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 3
    images = channels_last(batch(shape, 4))
    torch.testing.assert_close(ours.eval()(images).double(), theirs.eval()(images.double()), rtol=1e-5, atol=1e-5)


def test_statistics_of_many_pixels_err_by_the_rounding_of_a_number() -> None:
    images = channels_last(batch((256, 16, 32, 32)))
    ours = BatchNorm2d(16)
    ours.momentum = 1.0  # the running statistics are those of the batch
    ours(images)
    exact = images.double()
    mean, variance = exact.mean(dim=(0, 2, 3)), exact.var(dim=(0, 2, 3))
    # A group has 256 · 1024 / 512 = 512 numbers: a sum's roundings are a random walk of as many steps of half an eps,
    # and 512 groups average theirs.
    assert ((ours.running_var - variance) / variance).abs().max() < 4 * EPS
    assert ((ours.running_mean - mean).abs() / (variance.sqrt() + mean.abs())).max() < 4 * EPS


def test_gradients_of_an_encoder_are_as_exact_in_channels_last_as_elsewhere() -> None:
    encoder = materialize(build_encoder({"name": "small", "width": 8}), torch.Generator().manual_seed(0)).train()
    # Without ReLU, which would turn a rounding about zero into a jump.
    encoder.layers = nn.Sequential(*(layer for layer in encoder.layers if not isinstance(layer, nn.ReLU)))
    images = normal(256, 3, 32, 32, seed=2)
    weights = normal(256, encoder.num_features, seed=3)

    def gradient(dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
        encoder.to(dtype).to(memory_format=memory_format)  # type: ignore[call-overload]
        encoder.zero_grad(set_to_none=True)
        features = encoder(images.to(dtype).contiguous(memory_format=memory_format))
        (features.square() * weights.to(dtype)).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in encoder.parameters()]).double()

    last = gradient(torch.float32, torch.channels_last)
    first = gradient(torch.float32, torch.contiguous_format)
    exact = gradient(torch.float64, torch.contiguous_format)
    assert (last - exact).norm() < 2 * (first - exact).norm()


@pytest.mark.parametrize("kind", ["NCHW", "float64", "bfloat16"])
def test_other_batches_are_torchs_to_the_bit(kind: str) -> None:
    images = batch((6, 4, 8, 8))
    images = {
        "NCHW": images.float(),
        "float64": images.contiguous(memory_format=torch.channels_last),
        "bfloat16": channels_last(images).bfloat16(),
    }[kind]
    ours, theirs = BatchNorm2d(4), nn.BatchNorm2d(4)
    if kind == "float64":
        ours, theirs = ours.double(), theirs.double()
    assert torch.equal(ours(images), theirs(images))
    for mine, reference in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(mine, reference)


def test_a_gradient_in_another_memory_format_is_taken() -> None:
    ours, theirs = norms(4)
    images = channels_last(batch((6, 4, 8, 8)))
    mine, reference = images.clone().requires_grad_(), images.double().requires_grad_()
    weights = normal(6, 4, 1, 1, seed=3)  # expanded over the pixels, strides of zero
    ours(mine).mean(dim=(2, 3), keepdim=True).backward(weights.float())
    theirs(reference).mean(dim=(2, 3), keepdim=True).backward(weights)
    torch.testing.assert_close(mine.grad.double(), reference.grad, rtol=1e-4, atol=1e-6)


def test_images_that_need_no_gradient_get_none() -> None:
    ours, _ = norms(3)
    images = channels_last(batch((6, 3, 8, 8)))
    ours(images).sum().backward()
    assert images.grad is None
    torch.testing.assert_close(ours.bias.grad, torch.full((3,), 6.0 * 64))


def test_of_a_single_pixel_there_is_no_variance() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


def test_compiled_code_is_one_graph_with_torchs_batch_norm() -> None:
    ours, theirs = norms(4)
    images = channels_last(batch((6, 4, 8, 8)))
    torch.compiler.reset()
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    plain = nn.BatchNorm2d(4)
    plain.load_state_dict(ours.state_dict())
    assert torch.equal(compiled(images), plain(images))
    assert torch.equal(ours.running_var, plain.running_var)
    torch.testing.assert_close(theirs(images.double()), plain(images).double(), rtol=1e-4, atol=1e-4)


def test_sub_batches_in_channels_last_are_normalised_apart() -> None:
    images = batch((12, 5, 6, 7)) + torch.arange(12, dtype=torch.float64).view(-1, 1, 1, 1)
    ours, theirs = SplitBatchNorm2d(5, num_splits=4), SplitBatchNorm2d(5, num_splits=4).double()
    mine, reference = channels_last(images).requires_grad_(), images.clone().requires_grad_()
    weights = normal(12, 5, 6, 7, seed=9)
    (ours(mine) * weights.float()).sum().backward()
    (theirs(reference) * weights).sum().backward()
    torch.testing.assert_close(mine.grad.double(), reference.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_mean.double(), theirs.running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.running_var.double(), theirs.running_var, rtol=1e-6, atol=1e-6)
    assert ours.num_batches_tracked == 1
