"""Fixed patch features: against loops over normalised patches, and what leaves them as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cssl_cli.features import patches
from cssl_cli.features.patches import (
    CONTRAST_FLOOR,
    NUM_FILTERS,
    PATCH,
    QUARTERS,
    SIDE,
    STRIDE,
    THRESHOLD,
    PatchFeatures,
    shrunk,
)
from cssl_cli.host.randomness import stream


def images_of(num: int, *, size: int = 32, seed: int = 0) -> Tensor:
    """Smooth random images (N, 3, H, W), uint8."""
    noise = torch.rand(num, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    pixels = torch.nn.functional.interpolate(noise, size=size, mode="bilinear")
    return (255 * pixels).byte()


def fitted(images: Tensor, seed: int = 0) -> PatchFeatures:
    return PatchFeatures.fit(images, stream(seed, "patches"), image_size=images.shape[-1])


def features_by_loops(features: PatchFeatures, image: np.ndarray) -> np.ndarray:
    """Features (D,) of one image (3, SIDE, SIDE): every patch normalised, then its responses."""
    filters = features.filters.double().numpy().reshape(len(features.filters), -1)
    places = range(0, SIDE - PATCH + 1, STRIDE)
    responses = np.empty((2 * len(filters), len(places), len(places)))
    for i, row in enumerate(places):
        for j, column in enumerate(places):
            patch = image[:, row : row + PATCH, column : column + PATCH].reshape(-1)
            normalised = (patch - patch.mean()) / np.sqrt(patch.var() + CONTRAST_FLOOR)
            response = filters @ normalised + features.offsets.double().numpy()
            responses[:, i, j] = np.maximum(np.concatenate([response, -response]) - THRESHOLD, 0)
    number = len(places)  # quarters overlap by a row where this is odd
    ends = [(k * number // QUARTERS, -(-(k + 1) * number // QUARTERS)) for k in range(QUARTERS)]
    return np.array([[[r[a:b, c:d].mean() for c, d in ends] for a, b in ends] for r in responses]).reshape(-1)


def test_they_agree_with_loops_over_patches() -> None:
    images = images_of(60)
    features = fitted(images)
    pixels = images[:3].double().numpy() / 255
    expected = np.stack([features_by_loops(features, image) for image in pixels])
    found = features(images[:3].float() / 255)
    assert found.shape == (3, features.width) == (3, 2 * NUM_FILTERS * QUARTERS**2)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    assert (expected > 0).mean() > 0.2


def test_large_images_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def kept(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return shrunk(images)

    monkeypatch.setattr(patches, "shrunk", kept)
    monkeypatch.setattr(patches, "BLOCK", 64)
    images = images_of(40, size=64)
    found = fitted(images)
    assert max(sizes) == 16  # as many pixels as 64 of 32 × 32
    monkeypatch.setattr(patches, "BLOCK", 512)
    assert torch.equal(found.filters, fitted(images).filters)


def test_the_filters_are_whitened_patches_of_the_images() -> None:
    """Responses to the patches that the filters were made of have about unit variance, and are hardly correlated."""
    images = images_of(400)
    features = fitted(images)
    patches = torch.nn.functional.unfold(images.float() / 255, PATCH, stride=5).transpose(1, 2).flatten(0, 1).double()
    patches = patches - patches.mean(dim=1, keepdim=True)
    patches = patches / (patches.square().mean(dim=1, keepdim=True) + CONTRAST_FLOOR).sqrt()
    responses = patches @ features.filters.flatten(1).double().T + features.offsets.double()
    assert responses.mean(dim=0).abs().max() < 0.25
    variances = responses.var(dim=0)
    assert variances.min() > 0.2  # the floor takes some from directions without variance
    assert variances.max() < 1.5


def test_brightness_is_divided_out_and_contrast_nearly() -> None:
    images = images_of(50)
    features, pixels = fitted(images), images[:8].float() / 255
    np.testing.assert_allclose(features(0.5 * pixels + 0.4), features(0.5 * pixels), atol=1e-4)
    assert (features(0.7 * pixels) - features(pixels)).abs().mean() < 0.05 * features(pixels).mean()


def test_a_faint_image_keeps_its_precision() -> None:
    """Contrast of 1 % around gray, as the negative control leaves it: the mean would drown it in float32."""
    images = images_of(50)
    features, pixels = fitted(images), images[:2].double() / 255
    faint = 0.5 + 0.01 * (pixels - 0.5)
    expected = np.stack([features_by_loops(features, image) for image in faint.numpy()])
    np.testing.assert_allclose(features(faint.float()).numpy(), expected, atol=2e-4)


def test_larger_images_are_averaged_down_and_smaller_ones_taken_as_they_are() -> None:
    images = images_of(50)
    features = fitted(images)
    twice = images[:4].float().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 255
    np.testing.assert_allclose(features(twice), features(images[:4].float() / 255), atol=1e-5)
    small = images_of(50, size=8)
    assert fitted(small)(small.float() / 255).shape == (50, features.width)


def test_the_same_generator_gives_the_same_filters() -> None:
    images = images_of(50)
    same, other = fitted(images), fitted(images, seed=1)
    assert torch.equal(fitted(images).filters, same.filters)
    assert not torch.equal(other.filters, same.filters)


def test_images_of_one_colour_have_features_too() -> None:
    images = torch.full((20, 3, 16, 16), 90, dtype=torch.uint8)
    assert torch.isfinite(fitted(images)(images.float() / 255)).all()
