"""Encoders: torchvision's networks in all but stem and width, with weights from one explicit generator."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from cssl_cli.errors import InputError
from cssl_cli.host.randomness import stream
from cssl_cli.methods import method_names
from cssl_cli.nn.batch_norm import split_batch_norms
from cssl_cli.nn.encoder import MLP, build_encoder, materialize
from cssl_cli.nn.folding import folded
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.setup import initial_method

OWN = ("resnet18", "resnet34", "resnet50", "resnet101", "small")


def encoder(name: str, width: int, seed: int = 0) -> nn.Module:
    return materialize(build_encoder({"name": name, "width": width}), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_width_64_is_torchvisions_network_with_the_small_image_stem(name: str) -> None:
    ours = encoder(name, 64).eval()
    theirs = getattr(torchvision.models, name)()
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs.eval()(images))


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_with_the_stem_for_large_images_it_is_torchvisions_own_network(name: str) -> None:
    network = build_encoder({"name": name, "width": 64, "stem": "imagenet"})
    ours = materialize(network, torch.Generator().manual_seed(0)).eval()
    theirs = getattr(torchvision.models, name)()
    assert set(theirs.load_state_dict(ours.state_dict(), strict=False).missing_keys) == {"fc.weight", "fc.bias"}
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs.eval()(images))


@pytest.mark.parametrize(
    "settings", [{"name": "small"}, {"name": "resnet18"}, {"name": "resnet18", "stem": "imagenet"}]
)
def test_the_first_convolution_takes_the_channels_of_the_images(settings: dict[str, str]) -> None:
    """Otherwise the same network: with all but one channel black, that of gray images."""
    gray, many = (build_encoder({**settings, "width": 4}, channels=channels) for channels in (1, 4))
    materialize(gray, torch.Generator().manual_seed(0))
    materialize(many, torch.Generator().manual_seed(0))
    state = dict(gray.state_dict())
    first = next(iter(state))
    state[first] = torch.cat([state[first], many.state_dict()[first][:, 1:]], dim=1)
    many.load_state_dict(state)
    images = torch.zeros(2, 4, 32, 32)
    images[:, :1] = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(many.eval()(images), gray.eval()(images[:, :1]))


@pytest.mark.parametrize("stem", ["small_padding_2", "small_without_relu"])
def test_stems_of_others_have_the_same_shapes_and_are_other_functions(stem: str) -> None:
    plain, other = (
        materialize(build_encoder({"name": "resnet18", "width": 2, "stem": stem}), torch.Generator().manual_seed(0))
        for stem in ("small", stem)
    )
    other.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        stems = [network.eval()._stem(images) for network in (plain, other)]
        assert not torch.allclose(plain(images), other(images), rtol=1e-2)
    if stem == "small_padding_2":
        assert [part.shape[2:] for part in stems] == [(16, 16), (18, 18)]
    else:
        assert torch.equal(stems[0], stems[1].relu())


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("size", [32, 48])
def test_features_have_the_stated_width(name: str, size: int) -> None:
    network = encoder(name, 4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, size, size)).shape == (2, network.num_features)


def test_weights_follow_the_generator_alone() -> None:
    torch.manual_seed(0)
    first = encoder("resnet18", 8, seed=5).state_dict()
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    second = encoder("resnet18", 8, seed=5).state_dict()
    other = encoder("resnet18", 8, seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    torch.manual_seed(0)
    assert torch.equal(state, torch.random.get_rng_state()), "building drew from the global generator"


def test_initial_spread_of_the_weights() -> None:
    network = encoder("resnet18", 64)
    weight = network.layer3[0].conv2.weight  # 256 in, 256 out, 3x3: deviation sqrt(2 / fan-out)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.01)
    linear = materialize(MLP(100, [400, 2], batch_norm=False), torch.Generator().manual_seed(0)).layers[0]
    assert linear.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)
    assert linear.weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_the_projector_has_the_published_layers() -> None:
    plain = MLP(512, [512, 128], batch_norm=False).layers
    assert [type(layer).__name__ for layer in plain] == ["Linear", "ReLU", "Linear"]
    normed = MLP(512, [2048, 2048, 2048], batch_norm=True).layers
    expected = ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in normed] == expected
    assert normed[0].bias is None


def test_a_new_kind_of_layer_needs_a_rule() -> None:
    with torch.device("meta"):
        module = nn.PReLU()
    with pytest.raises(AssertionError, match="PReLU"):
        materialize(module, torch.Generator())


def test_an_unknown_encoder_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="resnet18"):
        build_encoder({"name": "resnet-18", "width": 64})


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "small"])  # the others are deeper ones
@pytest.mark.parametrize("splits", [1, 2])
def test_folded_batch_norms_are_the_same_function(name: str, splits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    network = build_encoder({"name": name, "width": 4})
    if splits > 1:
        split_batch_norms(network, splits)
    materialize(network, generator).double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # statistics and scales as after some training
            for tensor in (layer.running_mean, layer.weight, layer.bias):
                tensor.data.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    copy = folded(network)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=generator)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in copy.modules())
    network.eval()
    torch.testing.assert_close(copy(images), network(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 8])
def test_shortcuts_of_few_channels_have_the_gradients_of_strided_convolutions(name: str, width: int) -> None:
    """oneDNN's own of a channels_last input with fewer channels than a vector are wrong, or crash."""
    encoder = materialize(build_encoder({"name": name, "width": width}), stream(0, "init"))
    for stage in (encoder.layer2, encoder.layer3, encoder.layer4):
        shortcut = stage[0].downsample[0]
        assert isinstance(shortcut, nn.Conv2d)
        assert (shortcut.kernel_size, shortcut.stride, shortcut.bias) == ((1, 1), (2, 2), None)
        if shortcut.in_channels >= 16:
            assert type(shortcut) is nn.Conv2d
            continue
        for side in (7, 16):
            image = torch.randn(8, shortcut.in_channels, side, side, generator=stream(side, "order"))
            exact = image.double().requires_grad_()
            weight = shortcut.weight.detach().double().requires_grad_()
            expected = F.conv2d(exact, weight, stride=2)  # not oneDNN's in float64
            direction = torch.randn(expected.shape, generator=stream(side, "augment"))
            expected.backward(direction.double())
            image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
            shortcut.to(memory_format=torch.channels_last).zero_grad()
            found = shortcut(image)
            found.backward(direction.contiguous(memory_format=torch.channels_last))
            pairs = ((found, expected), (image.grad, exact.grad), (shortcut.weight.grad, weight.grad))
            for ours, theirs in pairs:
                torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", method_names())
def test_no_number_is_left_as_memory_had_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = nn.Module.to_empty

    def garbage(module: nn.Module, **options: object) -> nn.Module:
        for tensor in empty(module, **options).state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(math.nan)
        return module

    monkeypatch.setattr(nn.Module, "to_empty", garbage)
    for tensor in initial_method(load_recipe(f"{name}-shapes")).state_dict().values():
        assert torch.isfinite(tensor).all()
    with torch.device("meta"):
        layer = nn.Conv2d(3, 3, 3)
    assert materialize(layer, stream(0, "init")).bias.tolist() == [0, 0, 0]
