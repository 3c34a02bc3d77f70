"""Networks of torchvision and timm as encoders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cssl_cli.errors import InputError
from cssl_cli.methods import copy_weights, momentum_copy
from cssl_cli.nn.batch_norm import BatchNorm2d
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.nn.folding import folded
from cssl_cli.nn.least_memory import least_memory
from tests.support.hub_cache import in_hub_cache

CONVOLUTIONAL = {"name": "torchvision", "model": "shufflenet_v2_x0_5"}
TRANSFORMER = {"name": "timm", "model": "vit_tiny_patch16_224", "image_size": 64, "patch_size": 32}


def encoder(settings: dict[str, Any], seed: int = 0) -> LibraryEncoder:
    if settings["name"] == "timm":
        pytest.importorskip("timm")
    built = materialize(build_encoder(settings), torch.Generator().manual_seed(seed))
    assert isinstance(built, LibraryEncoder)
    return built


@pytest.mark.parametrize("settings", [CONVOLUTIONAL, TRANSFORMER], ids=["torchvision", "timm"])
def test_weights_follow_the_generator_alone_and_are_those_of_the_library(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = encoder(settings, seed=5).state_dict()
    assert torch.equal(state, torch.random.get_rng_state()), "drew from the global generator"
    torch.manual_seed(1)
    second, other = encoder(settings, seed=5).state_dict(), encoder(settings, seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert all(torch.isfinite(tensor).all() for tensor in first.values())


def test_it_is_the_librarys_network_without_its_classifier() -> None:
    ours = encoder(CONVOLUTIONAL).eval()
    theirs = torchvision.models.shufflenet_v2_x0_5()
    assert set(theirs.load_state_dict(ours.state_dict(), strict=False).missing_keys) == {"fc.weight", "fc.bias"}
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = ours(images)
        torch.testing.assert_close(features, theirs.eval()(images))
    assert features.shape == (2, ours.num_features) == (2, 1024)
    again = encoder(CONVOLUTIONAL, seed=1)
    again.load_state_dict(theirs.state_dict())
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_momentum_copy_has_weights_of_its_own_under_the_same_names() -> None:
    network, other = encoder(CONVOLUTIONAL), encoder(CONVOLUTIONAL, seed=1)
    copied = momentum_copy(network)
    copy_weights(copied, other)
    for name, tensor in copied.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert not torch.equal(network.state_dict()["conv1.0.weight"], other.state_dict()["conv1.0.weight"])
    both = nn.ModuleDict({"encoder": network, "momentum": copied})
    assert {name.partition(".")[0] for name in both.state_dict()} == {"encoder", "momentum"}
    assert "encoder.conv1.0.weight" in both.state_dict()
    both.load_state_dict(both.state_dict())


@pytest.mark.parametrize(
    ("model", "width"),
    [
        ("squeezenet1_1", 512),
        ("mobilenet_v3_small", 1024),
        ("alexnet", 4096),
        ("densenet121", 1024),
        ("googlenet", 1024),
    ],
)
def test_the_classifier_is_taken_off_wherever_it_is(model: str, width: int) -> None:
    assert build_encoder({"name": "torchvision", "model": model}).num_features == width


def test_a_model_of_a_fixed_size_takes_images_of_the_size_it_is_given() -> None:
    small = build_encoder({"name": "torchvision", "model": "vit_b_32", "image_size": 64})
    assert small.state_dict()["encoder.pos_embedding"].shape == (1, 5, 768)
    small.require((3, 64, 64))
    with pytest.raises(InputError, match="cannot take images of 3 channels and 32x32 pixels"):
        small.require((3, 32, 32))
    with pytest.raises(InputError, match="takes images of any size"):
        build_encoder({"name": "torchvision", "model": "resnet18", "image_size": 64})


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({"name": "torchvision", "model": "vit_b_32", "image_size": 100}, "encoder", "Input shape indivisible"),
        ({"name": "torchvision", "model": "maxvit_t", "image_size": 64}, "encoder", "not divisible by partition size"),
        ({"name": "timm", "model": "resnet18.none"}, "encoder.model", "unknown model of timm 'resnet18.none'"),
        ({**TRANSFORMER, "model": "vit_tiny_patch16_224.none"}, "encoder.model", "unknown model of timm"),
    ],
)
def test_what_a_library_refuses_to_build_is_an_error_of_the_recipe(
    settings: dict[str, Any], where: str, said: str
) -> None:
    if settings["name"] == "timm":
        pytest.importorskip("timm")
    with pytest.raises(InputError, match=said) as refused:
        build_encoder(settings)
    assert refused.value.where == where
    assert refused.value.remedy is not None


@pytest.mark.parametrize("settings", [CONVOLUTIONAL, TRANSFORMER], ids=["torchvision", "timm"])
def test_folded_features_are_the_same(settings: dict[str, Any]) -> None:
    network = encoder(settings).eval()
    generator = torch.Generator().manual_seed(0)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(type(part) is BatchNorm2d for part in norms)
    for part in norms:
        part.running_mean.normal_(std=0.1, generator=generator)
        part.running_var.uniform_(0.5, 2, generator=generator)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.inference_mode():
        plain, fold = network(images), folded(network)(images)
    assert (plain - fold).norm() <= 1e-4 * plain.norm()
    if norms:
        assert not any(isinstance(part, nn.BatchNorm2d) for part in folded(network).modules())


def test_what_would_be_computed_twice_in_a_micro_batch_is_refused() -> None:
    network = build_encoder({"name": "torchvision", "model": "resnet18"})
    network.keep_less(checkpoint_activations=False, micro_batch=2, batch_size=4)
    with pytest.raises(InputError, match="blocks") as refused:
        network.keep_less(checkpoint_activations=True, micro_batch=None, batch_size=4)
    assert refused.value.where == "train.checkpoint_activations"
    network.model.bn1 = nn.SyncBatchNorm(64)
    with pytest.raises(InputError, match=r"bn1 .* SyncBatchNorm"):
        network.keep_less(checkpoint_activations=False, micro_batch=2, batch_size=4)


def test_an_unknown_model_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="convnext_tiny"):
        build_encoder({"name": "torchvision", "model": "convnext-tiny"})


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'cssl_cli\[timm\]'"):
        build_encoder({"name": "timm", "model": "resnet18"})


def test_timm_gets_sizes_patches_and_channels_where_the_model_takes_them() -> None:
    pytest.importorskip("timm")
    network = build_encoder(TRANSFORMER, channels=1)
    assert network.state_dict().keys() == build_encoder({**TRANSFORMER, "channels": 1}, channels=1).state_dict().keys()
    with pytest.raises(InputError, match="is 1, and the images have 4 channels") as refused:
        build_encoder({**TRANSFORMER, "channels": 1}, channels=4)
    assert refused.value.where == "encoder.channels"
    assert network.num_features == 192
    assert network.state_dict()["patch_embed.proj.weight"].shape == (192, 1, 32, 32)
    assert network.state_dict()["pos_embed"].shape == (1, 5, 192)
    with pytest.raises(InputError) as refused:
        build_encoder({"name": "timm", "model": "resnet18", "image_size": 64})
    assert refused.value.where == "encoder.image_size"
    with pytest.raises(InputError, match="Did you mean 'resnet18'"):
        build_encoder({"name": "timm", "model": "resnet1"})


@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "densenet121", "vit_b_32"])
def test_torchvisions_networks_take_any_number_of_channels(model: str) -> None:
    settings = {"name": "torchvision", "model": model}
    network, plain = build_encoder(settings, channels=5), build_encoder(settings)
    shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    changed = [name for name, tensor in network.state_dict().items() if tensor.shape != shapes[name]]
    assert set(shapes) == set(network.state_dict())
    (first,) = changed
    assert network.state_dict()[first].shape[1] == 5
    network.require((5, 224, 224))
    with pytest.raises(InputError, match="cannot take images of 3 channels"):
        network.require((3, 224, 224))


def test_weights_of_another_number_of_channels_follow_the_generator() -> None:
    drawn = [
        materialize(build_encoder(CONVOLUTIONAL, channels=2), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    first, same, other = (network.state_dict()["conv1.0.weight"] for network in drawn)
    assert first.shape[1] == 2
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert drawn[0](torch.zeros(2, 2, 32, 32)).shape == (2, 1024)


def test_weights_of_timm_are_found_in_the_cache_of_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from cssl_cli.nn.encoders.timm_models import Settings, cached_weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cached_weights(Settings(model="resnet18")) == []
    known = timm.models.get_pretrained_cfg("resnet18")
    path = tmp_path / "hub" / "checkpoints" / known.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    path.touch()
    (found,) = cached_weights(Settings(model="resnet18"))
    assert (found.path, found.mean) == (path, known.mean)
    assert known.tag in found.called


def test_weights_of_timm_of_any_tag_are_found_in_the_cache_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub").constants
    from cssl_cli.nn.encoders.timm_models import Settings, cached_weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name, revision in (("resnet18.tv_in1k", "main"), ("resnet18.a1_in1k", "main"), ("resnet34.a1_in1k", "other")):
        in_hub_cache(tmp_path, f"timm/{name}", "model.safetensors", name.encode(), revision=revision)
    found = cached_weights(Settings(model="resnet18"))
    assert [weights.called for weights in found] == ["timm's resnet18.a1_in1k", "timm's resnet18.tv_in1k"]
    assert [weights.path.read_text() for weights in found] == ["resnet18.a1_in1k", "resnet18.tv_in1k"]
    (found,) = cached_weights(Settings(model="resnet18.tv_in1k"))
    assert found.called == "timm's resnet18.tv_in1k"
    assert cached_weights(Settings(model="resnet34")) == []  # of another revision only


@pytest.mark.parametrize("settings", [CONVOLUTIONAL, TRANSFORMER], ids=["torchvision", "timm"])
def test_what_training_takes_is_never_less_than_is_counted(settings: dict[str, Any]) -> None:
    network = build_encoder(settings)
    image = (3, 64, 64)
    found = least_memory(network, image)
    kept: dict[int, Tensor] = {}
    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = network.train()(torch.empty(2, *image, device="meta"))
    saved = sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values()) // 2
    assert saved / 12 < found.kept <= saved
    assert found.outputs == outputs.shape[1] == network.num_features
    assert found.weights == sum(parameter.numel() for parameter in network.parameters())
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.requires_grad_(False)
    assert least_memory(network, image).kept == 0  # whose gradients no one needs
