"""Crops against torchvision's, image by image; how their boxes are distributed; gradients."""

import itertools

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference

from cssl_cli.augment import build_augmentation, clean_views
from cssl_cli.augment.crop import Crop
from cssl_cli.errors import InputError
from cssl_cli.host.randomness import stream
from tests.support.augmentations import (
    EVERYTHING,
    SIDE,
    assert_same_distribution,
    parameters_of,
    random_images,
    theta_of,
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


# From a store: boxes that are reduced, enlarged, both, and of single pixels.
EXTREMES = [(0, 0, 48, 48), (47, 47, 1, 1), (5, 7, 1, 1), (0, 3, 48, 1), (9, 0, 1, 48), (4, 6, 2, 3), (8, 8, 32, 32)]


@pytest.mark.parametrize("side", [13, 32, 47])
def test_crop_from_a_larger_store_equals_resized_crop_with_antialiasing(side: int) -> None:
    crop = Crop(image_size=side, store_size=48, scale=(0.0005, 1.0), ratio=(0.1, 10.0))
    parameters = crop.parameters(torch.rand((60, 4), generator=stream(0, "crop")))
    for name, values in zip(("top", "left", "height", "width"), torch.tensor(EXTREMES).unbind(1), strict=True):
        parameters[name][: len(EXTREMES)] = values.float()
    assert (parameters["top"] + parameters["height"]).max() == 48
    images = random_images(60, side=48)
    views = crop.apply(images, parameters)
    assert views.shape == (60, 3, side, side)
    for i, view in enumerate(views):
        box = [int(parameters[name][i]) for name in ("top", "left", "height", "width")]
        expected = reference.resized_crop(images[i], *box, size=[side, side], antialias=True)
        torch.testing.assert_close(view, expected, atol=2e-6, rtol=0)


def test_the_clean_view_is_a_crop_of_the_whole_store_and_the_view_without_a_crop() -> None:
    images = (random_images(300, side=48) * 255).round().to(torch.uint8)  # more than a block
    clean = clean_views(images, 32)
    torch.testing.assert_close(
        clean, reference.resize(images.float() / 255, [32, 32], antialias=True), atol=2e-6, rtol=0
    )
    for settings in ({"crop": {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}}, {}):
        augmentation = build_augmentation(settings, image_size=32, store_size=48)
        theta = theta_of(augmentation, 300)
        assert torch.equal(augmentation.apply(images, theta), clean)
        assert torch.equal(augmentation.clean(images), clean)
    assert torch.equal(clean_views(images, 48), images.float() / 255)


def test_a_store_of_the_views_own_size_changes_no_bit() -> None:
    images = (random_images(100) * 255).round().to(torch.uint8)
    views = []
    for store in (None, SIDE):
        augmentation = build_augmentation(EVERYTHING, image_size=SIDE, store_size=store)
        views.append(augmentation.apply(images, theta_of(augmentation, 100)))
    assert torch.equal(*views)


def test_views_from_a_store_do_not_depend_on_the_batch_and_follow_the_other_operations() -> None:
    augmentation = build_augmentation(EVERYTHING, image_size=SIDE, store_size=80)
    images, theta = random_images(200, side=80), theta_of(augmentation, 200)
    views = augmentation.apply(images, theta)
    assert views.shape == (200, 3, SIDE, SIDE)
    for i in (0, 99, 199):
        alone = augmentation.apply(images[i : i + 1], theta[i : i + 1])
        torch.testing.assert_close(alone[0], views[i], atol=1e-6, rtol=0)
    cropped = augmentation.operations["crop"].apply(images, augmentation.parameters(theta)["crop"])
    rest = build_augmentation({**EVERYTHING, "crop": None}, image_size=SIDE)
    torch.testing.assert_close(rest.apply(cropped, theta[:, 4:]), views, atol=1e-6, rtol=0)


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
    _require_gradients(crop, images_side=6)


@pytest.mark.parametrize("store", [7, 9])
def test_gradients_of_crop_from_a_store_reach_box_and_image(store: int) -> None:
    _require_gradients(Crop(image_size=3, store_size=store, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)), images_side=store)


def _require_gradients(crop: Crop, images_side: int) -> None:
    box = {"top": [0.83, 1.21], "left": [1.17, 0.37], "height": [3.31, 4.13], "width": [2.71, 3.93]}
    names = list(box)
    values = [torch.tensor(box[name], dtype=torch.double, requires_grad=True) for name in names]
    images = torch.rand(
        (2, 3, images_side, images_side), generator=stream(0, "images"), dtype=torch.double, requires_grad=True
    )
    assert torch.autograd.gradcheck(
        lambda image, *parts: crop.apply(image, dict(zip(names, parts, strict=True))), (images, *values), fast_mode=True
    )


# --- what is continuous, and what is discrete -------------------------------------------------------------------------
def test_a_crop_of_the_whole_image_varies_with_nothing() -> None:
    whole = build_augmentation({"crop": {"scale": (1.0, 1.0), "ratio": (0.75, 1.33)}}, image_size=32)
    assert whole.continuous == ()
