"""Fade as a rounded loss of contrast."""

import pytest
import torch
import torchvision.transforms.v2.functional as reference

from cssl_cli.augment.fade import Fade
from cssl_cli.host.randomness import stream
from tests.support.augmentations import SIDE, random_images, uniform


def test_fade_equals_rounded_contrast_of_an_image_whose_mean_is_mid_gray() -> None:
    # torchvision takes contrast from the mean luminance: mid-gray, where an image stands beside its negative.
    images, middle = random_images(32), 128 / 255
    mirrored = torch.cat([images, 2 * middle - images], dim=3)
    contrast = uniform(32, 0.0, 1.0)
    faded = Fade(image_size=SIDE, p=1.0, contrast=(0.0, 1.0)).apply(images, {"contrast": contrast})
    for i, view in enumerate(faded):
        expected = reference.adjust_contrast(mirrored[i], float(contrast[i]))[..., :SIDE]
        # Half a level; the weights of the luminance add up to 0.9999.
        assert (view - expected).abs().max() <= 0.5 / 255 + 1e-4
        levels = 255 * view
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_fade_leaves_nothing_where_the_contrast_is_below_half_a_level() -> None:
    faded = Fade(image_size=SIDE, p=1.0, contrast=(0.0, 0.5 / 129))
    views = faded.apply(random_images(8), faded.parameters(torch.rand((8, 1), generator=stream(0, "fade"))))
    assert views.unique().tolist() == pytest.approx([128 / 255])
