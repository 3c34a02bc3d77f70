"""Cutout against torchvision's erase; areas and places."""

import torch
import torchvision.transforms.v2.functional as reference

from cssl_cli.augment.cutout import Cutout
from cssl_cli.host.randomness import stream
from tests.support.augmentations import SIDE, assert_same_distribution, parameters_of, random_images


# --- each operation against torchvision, image by image ---------------------------------------------------------------
def test_cutout_equals_erase() -> None:
    cutout = Cutout(image_size=SIDE, p=1.0, scale=(0.001, 1.0))
    parameters = cutout.parameters(torch.rand((64, 3), generator=stream(0, "cutout")))
    images = random_images(64)
    for i, view in enumerate(cutout.apply(images, parameters)):
        top, left, side = (int(parameters[name][i]) for name in ("top", "left", "side"))
        assert 0 <= top <= SIDE - side
        assert 0 <= left <= SIDE - side
        assert torch.equal(view, reference.erase(images[i], top, left, side, side, torch.tensor(0.5)))


# --- how parameters are distributed -----------------------------------------------------------------------------------
def test_cutout_areas_and_places_are_uniform() -> None:
    values = parameters_of("cutout", 40_000, scale=(0.02, 0.2))
    chosen = {key: value[values["applied"]] for key, value in values.items()}
    num = len(chosen["side"])
    area, place = torch.rand((2, num), generator=stream(6, "cutout"))
    side = (SIDE * (0.02 + 0.18 * area).sqrt()).round()
    assert_same_distribution(chosen["side"], side)
    for name in ("top", "left"):
        assert_same_distribution(chosen[name], (place * (SIDE - side + 1)).floor())
