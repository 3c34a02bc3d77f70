"""Crops against torchvision's, image by image; how their boxes are distributed; gradients."""

import itertools

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference

from cssl_cli.augment import build_augmentation
from cssl_cli.augment.crop import Crop
from cssl_cli.errors import InputError
from cssl_cli.host.randomness import stream
from tests.support.augmentations import (
    SIDE,
    assert_same_distribution,
    parameters_of,
    random_images,
)


# --- each operation against torchvision, image by image ---------------------------------------------------------------
@pytest.mark.parametrize("antialias", [True, False])
def test_crop_equals_resized_crop(antialias: bool) -> None:
    crop = Crop(image_size=SIDE, scale=(0.0005, 1.0), ratio=(0.1, 10.0))
    parameters = crop.parameters(torch.rand((200, 4), generator=stream(0, "crop")))
    extremes = torch.tensor(
        [(0, 0, SIDE, SIDE), (31, 31, 1, 1), (5, 7, 1, 1), (0, 3, 32, 1), (9, 0, 1, 32), (4, 6, 2, 3)]
    )
    for name, values in zip(("top", "left", "height", "width"), extremes.unbind(1), strict=True):
        parameters[name][: len(extremes)] = values.float()
    images = random_images(200)
    views = crop.apply(images, parameters)
    for i, view in enumerate(views):
        box = [int(parameters[name][i]) for name in ("top", "left", "height", "width")]
        expected = reference.resized_crop(images[i], *box, size=[SIDE, SIDE], antialias=antialias)
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(views[0], images[0], atol=1e-5, rtol=0)


def test_crop_does_not_look_outside_its_box() -> None:
    crop = Crop(image_size=SIDE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    box = {"top": 10.0, "left": 12.0, "height": 8.0, "width": 6.0}
    images = torch.ones(1, 3, SIDE, SIDE)
    images[:, :, 10:18, 12:18] = 0.25
    view = crop.apply(images, {name: torch.tensor([value]) for name, value in box.items()})
    torch.testing.assert_close(view, torch.full_like(view, 0.25), atol=1e-5, rtol=0)


# --- how parameters are distributed -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.3, 0.9), (0.5, 1.2))])
def test_crop_boxes_are_distributed_as_torchvision_draws_them(scale: tuple, ratio: tuple) -> None:
    num = 20_000
    image = torch.empty(3, SIDE, SIDE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draw = transforms.RandomResizedCrop(SIDE, scale, ratio)
        boxes = [draw.make_params([image]) for _ in range(num)]
    ours = parameters_of("crop", num, scale=scale, ratio=ratio)
    theirs = {name: torch.tensor([float(box[name]) for box in boxes]) for name in ours}
    for name in ours:
        assert_same_distribution(ours[name], theirs[name])
    assert_same_distribution(ours["height"] * SIDE + ours["width"], theirs["height"] * SIDE + theirs["width"])
    assert_same_distribution(ours["top"] * SIDE + ours["height"], theirs["top"] * SIDE + theirs["height"])


@pytest.mark.parametrize("scale", [(0.0001, 0.001), (0.08, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.0, 1.0), (0.2, 5.0)])
def test_crop_boxes_lie_inside_the_image(scale: tuple, ratio: tuple) -> None:
    crop = Crop(image_size=SIDE, scale=scale, ratio=ratio)
    corners = torch.tensor(list(itertools.product((0.0, 1 - 2**-24, 1.0), repeat=4)))
    boxes = crop.parameters(torch.cat([corners, torch.rand((500, 4), generator=stream(0, "crop"))]))
    for start, length in (("top", "height"), ("left", "width")):
        assert all(torch.equal(boxes[name], boxes[name].round()) for name in (start, length))
        assert boxes[length].min() >= 1
        assert boxes[start].min() >= 0
        assert (boxes[start] + boxes[length]).max() <= SIDE
    if scale == (1.0, 1.0):
        assert boxes["height"].min() == boxes["width"].min() == SIDE


def test_a_single_crop_ratio_gives_uniform_areas() -> None:
    boxes = parameters_of("crop", 20_000, scale=(0.25, 1.0), ratio=(1.0, 1.0))
    assert torch.equal(boxes["height"], boxes["width"])
    expected = (SIDE * (0.25 + 0.75 * torch.rand(20_000, generator=stream(5, "areas"))).sqrt()).round()
    assert_same_distribution(boxes["height"], expected)


def test_a_crop_that_never_fits_is_refused() -> None:
    with pytest.raises(InputError, match="no box") as caught:
        build_augmentation({"crop": {"scale": [0.9, 1.0], "ratio": [2.0, 3.0]}}, image_size=SIDE)
    assert caught.value.where == "augment.crop"
    assert caught.value.remedy


# --- gradients --------------------------------------------------------------------------------------------------------
def test_gradients_of_crop_reach_box_and_image() -> None:
    crop = Crop(image_size=6, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    box = {"top": [0.83, 1.21], "left": [1.17, 0.37], "height": [3.31, 4.13], "width": [2.71, 3.93]}
    names = list(box)
    values = [torch.tensor(box[name], dtype=torch.double, requires_grad=True) for name in names]
    images = torch.rand((2, 3, 6, 6), generator=stream(0, "images"), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda image, *parts: crop.apply(image, dict(zip(names, parts, strict=True))), (images, *values)
    )


# --- what is continuous, and what is discrete -------------------------------------------------------------------------
def test_a_crop_of_the_whole_image_varies_with_nothing() -> None:
    whole = build_augmentation({"crop": {"scale": (1.0, 1.0), "ratio": (0.75, 1.33)}}, image_size=32)
    assert whole.continuous == ()
