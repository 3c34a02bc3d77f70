"""Batch norm over sub-batches: by hand, and plain batch norm in all but the statistics of training."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from cssl_cli.errors import InputError
from cssl_cli.nn import batch_norm
from cssl_cli.nn.batch_norm import SplitBatchNorm2d, split_batch_norms
from cssl_cli.nn.encoder import build_encoder, materialize
from tests.support.small_methods import normal


def split_norm(num_splits: int = 4) -> SplitBatchNorm2d:
    norm = SplitBatchNorm2d(3, num_splits=num_splits).double()
    with torch.no_grad():
        norm.weight.copy_(normal(3, seed=5))
        norm.bias.copy_(normal(3, seed=6))
    return norm


def batch(num: int = 12) -> torch.Tensor:
    # Sub-batches that differ: image i has mean i.
    return normal(num, 3, 5, 5, seed=1) + torch.arange(num, dtype=torch.float64).view(-1, 1, 1, 1)


def test_each_sub_batch_is_normalised_by_hand() -> None:
    norm, images = split_norm(), batch()
    out = norm(images)
    for i in range(4):
        part = images[3 * i : 3 * i + 3]
        mean, variance = part.mean(dim=(0, 2, 3), keepdim=True), part.var(dim=(0, 2, 3), keepdim=True, correction=0)
        scale, shift = norm.weight.view(1, 3, 1, 1), norm.bias.view(1, 3, 1, 1)
        expected = (part - mean) / (variance + norm.eps).sqrt() * scale + shift
        torch.testing.assert_close(out[3 * i : 3 * i + 3], expected)


def test_gradients_are_those_of_batch_norms_side_by_side() -> None:
    norm, plain = split_norm(), nn.BatchNorm2d(3).double()
    plain.load_state_dict(norm.state_dict())
    weights = normal(12, 3, 5, 5, seed=9)
    ours, theirs = batch().requires_grad_(), batch().requires_grad_()
    (norm(ours) * weights).sum().backward()
    (torch.cat([plain(part) for part in theirs.split(3)]) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(norm.weight.grad, plain.weight.grad)
    torch.testing.assert_close(norm.bias.grad, plain.bias.grad)


def test_running_statistics_follow_the_mean_of_the_sub_batches() -> None:
    norm = split_norm()
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for images in (batch(), 2 * batch()):
        norm(images)
        parts = images.split(3)
        mean = 0.9 * mean + 0.1 * sum(part.mean(dim=(0, 2, 3)) for part in parts) / 4
        variance = 0.9 * variance + 0.1 * sum(part.var(dim=(0, 2, 3)) for part in parts) / 4
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.num_batches_tracked.item() == 2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_one_split_is_plain_batch_norm(memory_format: torch.memory_format) -> None:
    norm, plain = split_norm(1), nn.BatchNorm2d(3).double()
    plain.load_state_dict(norm.state_dict())
    images = batch().contiguous(memory_format=memory_format)
    torch.testing.assert_close(norm(images), plain(images))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[key], value)


def test_in_eval_mode_it_is_plain_batch_norm_of_the_same_names() -> None:
    norm, plain = split_norm(), nn.BatchNorm2d(3).double()
    norm(batch())
    plain.load_state_dict(norm.state_dict())
    odd = batch(7)  # no multiple of the splits
    assert torch.equal(norm.eval()(odd), plain.eval()(odd))
    with pytest.raises(AssertionError, match="7 images in 4 sub-batches"):
        norm.train()(odd)


def test_memory_format_and_precision_are_kept() -> None:
    images = batch().float().contiguous(memory_format=torch.channels_last)
    assert split_norm().float()(images).is_contiguous(memory_format=torch.channels_last)
    assert split_norm().float()(images.bfloat16()).dtype == torch.bfloat16


def test_a_resnet_with_split_batch_norms_loads_into_torchvision() -> None:
    network = build_encoder({"name": "resnet18", "width": 64})
    plain_names = list(network.state_dict())
    split_batch_norms(network, 2)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {type(norm) for norm in norms} == {SplitBatchNorm2d}
    assert len(norms) == 20
    assert list(network.state_dict()) == plain_names
    ours = materialize(network, torch.Generator().manual_seed(0))
    images = normal(4, 3, 16, 16, dtype=torch.float32)
    ours.train()(images)
    theirs = torchvision.models.resnet18()
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


# ---------------------------------------------------------------------- in one pass
@pytest.fixture
def as_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "launch_bound", lambda _: True)


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_one_pass_over_all_sub_batches_is_one_after_the_other(
    num_views: int, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, together = split_norm(), split_norm()
    together.num_views = num_views
    for seed in (1, 2):
        views = [(seed + view) * batch().contiguous(memory_format=memory_format) + view for view in range(num_views)]
        weights = normal(12 * num_views, 3, 5, 5, seed=seed).contiguous(memory_format=memory_format)
        ours, theirs = torch.cat(views).requires_grad_(), torch.cat(views).requires_grad_()
        out = torch.cat([apart(view) for view in theirs.chunk(num_views)])
        (out * weights).sum().backward()
        with monkeypatch.context() as patch:
            patch.setattr(batch_norm, "launch_bound", lambda _: True)
            found = together(ours)
        (found * weights).sum().backward()
        close(found, out)
        close(ours.grad, theirs.grad)
        for name in ("weight", "bias"):
            close(getattr(together, name).grad, getattr(apart, name).grad)
        for name in ("running_mean", "running_var"):
            close(getattr(together, name), getattr(apart, name))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("as_off_the_cpu")
def test_what_one_pass_gives_can_be_changed_in_place() -> None:
    """A view of another tensor would be copied twice for it (relu_), forward and backward."""
    images = batch().contiguous(memory_format=torch.channels_last).requires_grad_()
    out = split_norm()(images)
    assert out._base is None
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert type(F.relu_(out).grad_fn).__name__ == "ReluBackward0"


@pytest.mark.usefixtures("as_off_the_cpu")
def test_statistics_of_bfloat16_images_are_float32() -> None:
    images = (batch(64) + 10).bfloat16()
    norm = split_norm().float()
    out = norm(images)
    assert out.dtype == torch.bfloat16
    exact = images.double().unflatten(0, (4, -1))
    mean, variance = exact.mean(dim=(1, 3, 4)).mean(dim=0), exact.var(dim=(1, 3, 4)).mean(dim=0)
    torch.testing.assert_close(norm.running_mean.double(), 0.1 * mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var.double(), 0.9 + 0.1 * variance, rtol=1e-5, atol=0)
    plain = torch.cat([F.batch_norm(part, None, None, norm.weight, norm.bias, True) for part in images.split(16)])
    torch.testing.assert_close(out, plain, rtol=2**-7, atol=2**-7)


def test_compiled_code_takes_one_pass() -> None:
    torch.compiler.reset()
    norm, plain = split_norm(), split_norm()
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    ours, theirs = batch().requires_grad_(), batch().requires_grad_()
    out, expected = compiled(ours), plain(theirs)
    close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    close(ours.grad, theirs.grad)
    close(norm.running_var, plain.running_var)


class Acting(nn.BatchNorm2d):  # as in timm
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


def test_norms_keep_their_settings_and_what_does_more_is_not_replaced() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.BatchNorm2d(3, eps=1e-3, momentum=0.2))
        acting = nn.Sequential(Acting(3))
    split_batch_norms(network, 2)
    assert (type(network[0]), network[0].eps, network[0].momentum) == (SplitBatchNorm2d, 1e-3, 0.2)
    with pytest.raises(InputError, match="Acting"):
        split_batch_norms(acting, 2)
