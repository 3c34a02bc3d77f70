"""Jitter, gray and solarize against torchvision's, image by image; orders and extents of jitter; gradients."""

import itertools

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from scipy import stats
from torch import Tensor

from cssl_cli.augment.color import shift_hue
from cssl_cli.augment.flip import Flip
from cssl_cli.augment.gray import Gray
from cssl_cli.augment.jitter import Jitter
from cssl_cli.augment.solarize import Solarize
from cssl_cli.host.randomness import stream
from tests.support.augmentations import (
    JITTER,
    SIDE,
    SIGNIFICANCE,
    parameters_of,
    random_images,
    smooth_images,
    uniform,
)


# --- each operation against torchvision, image by image ---------------------------------------------------------------
def test_hue_equals_adjust_hue() -> None:
    images, hue = random_images(200), uniform(200, -0.5, 0.5)
    hue[2], hue[3], hue[4] = 0.0, 1 / 6, -1 / 3
    for image, view, h in zip(images, shift_hue(images, hue), hue.tolist(), strict=True):
        torch.testing.assert_close(view, reference.adjust_hue(image, h), atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", range(24))
def test_jitter_equals_the_four_adjustments_in_every_order(order: int) -> None:
    num = 24
    images = random_images(num, seed=order)
    factors = {name: uniform(num, 0.0, 2.0, seed=k) for k, name in enumerate(("brightness", "contrast", "saturation"))}
    parameters = {**factors, "hue": uniform(num, -0.5, 0.5, seed=9), "order": torch.full((num,), order)}
    names = list(list(itertools.permutations(("brightness", "contrast", "saturation")))[order % 6])
    names.insert(order // 6, "hue")
    adjust = {name: getattr(reference, f"adjust_{name}") for name in names}
    for i, view in enumerate(Jitter(image_size=SIDE, p=1.0, **JITTER).apply(images, parameters)):
        expected = images[i]
        for name in names:
            expected = adjust[name](expected, float(parameters[name][i]))
        torch.testing.assert_close(view, expected, atol=2e-5, rtol=0)


def test_jitter_orders_differ_within_a_batch() -> None:
    jitter = Jitter(image_size=SIDE, p=1.0, **JITTER)
    parameters = jitter.parameters(torch.rand((24, 5), generator=stream(3, "jitter")))
    parameters["order"] = torch.arange(24)
    images = random_images(1).expand(24, -1, -1, -1)
    together = jitter.apply(images, parameters)
    for i in range(24):
        alone = jitter.apply(images[i : i + 1], {name: values[i : i + 1] for name, values in parameters.items()})
        torch.testing.assert_close(together[i], alone[0], atol=1e-6, rtol=0)
    assert len({tuple(view.flatten().tolist()) for view in together}) == 24


def test_gray_solarize_and_flip_equal_their_functional_forms() -> None:
    images = random_images(32)
    images[0, :, 0, 0] = 0.25  # at the threshold
    gray = Gray(image_size=SIDE, p=1.0).apply(images, {})
    solarized = Solarize(image_size=SIDE, p=1.0, threshold=0.25).apply(images, {})
    torch.testing.assert_close(gray, reference.rgb_to_grayscale(images, num_output_channels=3), atol=1e-6, rtol=0)
    torch.testing.assert_close(solarized, reference.solarize(images, 0.25), atol=1e-6, rtol=0)
    assert torch.equal(Flip(image_size=SIDE, p=1.0).apply(images, {}), reference.horizontal_flip(images))


# --- how parameters are distributed -----------------------------------------------------------------------------------
def test_jitter_orders_are_equally_frequent_where_applied() -> None:
    values = parameters_of("jitter", 24_000)
    counts = torch.bincount(values["order"][values["applied"]], minlength=24)
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > SIGNIFICANCE


def test_jitter_extents_follow_from_strength_unless_given() -> None:
    assert parameters_of("jitter", 10_000, strength=2.0)["brightness"].min() >= 0  # max(0, 1 − 1.6)
    given = parameters_of("jitter", 10_000, strength=1.0, brightness=0.1, hue=0.0)
    assert given["brightness"].min() >= 0.9
    assert given["brightness"].max() <= 1.1
    assert given["contrast"].max() > 1.7
    assert torch.equal(given["hue"], torch.zeros(10_000))


# --- gradients --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", [0, 9, 14, 23])
def test_gradients_of_jitter_reach_factors_and_hue(order: int) -> None:
    jitter = Jitter(image_size=4, p=1.0, **JITTER)
    names = ("brightness", "contrast", "saturation", "hue")
    values = [torch.tensor(v, dtype=torch.double, requires_grad=True) for v in ([1.1, 0.9], [0.95, 1.1], [0.9, 1.1])]
    values.append(torch.tensor([0.04, -0.03], dtype=torch.double, requires_grad=True))
    images = smooth_images(2, 4).requires_grad_()

    def apply(image: Tensor, *parts: Tensor) -> Tensor:
        return jitter.apply(image, {**dict(zip(names, parts, strict=True)), "order": torch.full((2,), order)})

    assert torch.autograd.gradcheck(apply, (images, *values), fast_mode=True)


# --- normalize --------------------------------------------------------------------------------------------------------
def test_sorting_by_the_place_of_hue_changes_no_bit() -> None:
    """On a CPU the blends that an image does not use are skipped; asked for gradients, all are evaluated."""
    generator = torch.Generator().manual_seed(0)
    jitter = Jitter(image_size=8, p=1.0, **JITTER)
    images = torch.rand(200, 3, 8, 8, generator=generator)
    parameters = jitter.parameters(torch.rand(200, 5, generator=generator))
    assert set((parameters["order"] // 6).tolist()) == {0, 1, 2, 3}
    plain = jitter.apply(images.requires_grad_(), parameters)
    assert plain.requires_grad
    for count in (1, 7, 200):
        some = {name: values[:count] for name, values in parameters.items()}
        before = images[:count].detach().clone()
        given = before.clone()
        assert torch.equal(jitter.apply(given, some), plain[:count])
        assert torch.equal(given, before), "the images given are changed"
