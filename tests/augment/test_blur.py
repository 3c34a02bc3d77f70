"""Blur against torchvision's, image by image; its kernel; gradients."""

import pytest
import torch
import torchvision.transforms.v2.functional as reference

from cssl_cli.augment import build_augmentation
from cssl_cli.augment.blur import Blur
from cssl_cli.errors import InputError
from tests.support.augmentations import SIDE, random_images, smooth_images, uniform


# --- each operation against torchvision, image by image ---------------------------------------------------------------
@pytest.mark.parametrize("kernel_size", [3, 5, 23])
def test_blur_equals_gaussian_blur(kernel_size: int) -> None:
    blur = Blur(image_size=SIDE, p=1.0, sigma=(0.1, 2.0), kernel_size=kernel_size)
    images, sigma = random_images(64), uniform(64, 0.1, 2.0)
    for image, view, s in zip(images, blur.apply(images, {"sigma": sigma}), sigma.tolist(), strict=True):
        torch.testing.assert_close(view, reference.gaussian_blur(image, kernel_size, s), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("side", "kernel_size"), [(8, 3), (32, 3), (39, 3), (64, 7), (96, 9), (224, 23)])
def test_default_kernel_is_the_odd_number_nearest_to_a_tenth_of_the_side(side: int, kernel_size: int) -> None:
    assert kernel_size == max(3, min(range(1, side, 2), key=lambda k: abs(k - side / 10)))
    images = random_images(2, side=side)
    view = Blur(image_size=side, p=1.0, sigma=(1.0, 1.0), kernel_size=None).apply(images, {"sigma": torch.ones(2)})
    torch.testing.assert_close(view, reference.gaussian_blur(images, kernel_size, 1.0), atol=1e-6, rtol=0)


# --- how parameters are distributed -----------------------------------------------------------------------------------
def test_a_kernel_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="65 pixels is too large"):
        build_augmentation({"blur": {"p": 0.5, "sigma": [0.1, 2.0], "kernel_size": 65}}, image_size=SIDE)
    Blur(image_size=SIDE, p=1.0, sigma=(1.0, 1.0), kernel_size=63).apply(random_images(1), {"sigma": torch.ones(1)})


# --- gradients --------------------------------------------------------------------------------------------------------
def test_gradients_of_blur_reach_sigma() -> None:
    blur = Blur(image_size=6, p=1.0, sigma=(0.1, 2.0), kernel_size=5)
    sigma = torch.tensor([0.5, 1.7], dtype=torch.double, requires_grad=True)
    images = smooth_images(2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda image, s: blur.apply(image, {"sigma": s}), (images, sigma), fast_mode=True)
