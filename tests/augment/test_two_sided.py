"""Pairs of views of two kinds: each kind is that of the plain augmentation, bit for bit."""

from __future__ import annotations

import pytest
import torch

from cssl_cli.augment import build_augmentation
from cssl_cli.augment.two_sided import TwoSided
from cssl_cli.errors import InputError
from tests.support.augmentations import SIDE, random_images

FIRST = {
    "crop": {"scale": (0.3, 1.0), "ratio": (0.75, 1.3)},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, "strength": 0.5},
    "blur": {"p": 1.0, "sigma": (0.1, 2.0), "kernel_size": None},
}
SECOND = {
    "crop": None,
    "flip": {"p": 0.5},
    "jitter": {"p": 0.4, "strength": 1.0},
    "blur": {"p": 0.1, "sigma": (0.5, 1.0), "kernel_size": None},
    "solarize": {"p": 0.5, "threshold": 0.5},
}
NUM = 64


def plain(operations: dict, store: int | None = None):
    return build_augmentation(operations, image_size=SIDE, store_size=store)


def both(store: int | None = None) -> TwoSided:
    found = build_augmentation({**FIRST, "view_2": SECOND}, image_size=SIDE, store_size=store)
    assert isinstance(found, TwoSided)
    return found


@pytest.mark.parametrize("store", [None, 2 * SIDE])
def test_each_view_is_that_of_its_own_augmentation(store: int | None) -> None:
    augmentation = both(store)
    images = random_images(NUM, side=store or SIDE)
    theta = augmentation.draw_pairs(NUM, torch.Generator().manual_seed(0))
    assert theta.shape == (2 * NUM, augmentation.num_parameters)
    views = augmentation.apply(torch.cat([images, images]), theta).chunk(2)
    for side, operations in enumerate((FIRST, SECOND)):
        own = plain(operations, store)
        columns = [theta.chunk(2)[side][:, augmentation.columns[name]] for name in own.operations]
        expected = own.apply(images, torch.cat(columns, dim=1))
        if side == 0:
            assert torch.equal(expected, views[side])
        else:  # no crop is a crop of the whole, which rounds; on either side of a threshold, once in a while
            assert ((expected - views[side]).abs() < 1e-5).double().mean() > 0.9999


def test_every_other_view_of_the_mixture_is_of_the_second_kind() -> None:
    augmentation = both()
    theta = augmentation.draw(4000, torch.Generator().manual_seed(0))
    of_second = augmentation.states(theta)[:, -1]
    assert of_second.double().mean() == pytest.approx(0.5, abs=0.03)
    solarized = augmentation.parameters(theta)["solarize"]["applied"]
    assert not solarized[of_second == 0].any()
    assert solarized[of_second == 1].double().mean() == pytest.approx(0.5, abs=0.04)
    blurred = augmentation.parameters(theta)["blur"]["applied"]
    assert blurred[of_second == 0].all()
    assert blurred[of_second == 1].double().mean() == pytest.approx(0.1, abs=0.03)


def test_coordinates_are_uniform_given_the_states() -> None:
    augmentation = both()
    theta = augmentation.draw(4000, torch.Generator().manual_seed(0))
    values, states = augmentation.continuous_values(theta), augmentation.states(theta)
    assert values.shape == (4000, len(augmentation.continuous))
    assert augmentation.discrete == ("flip", "solarize", "view_2")
    first = states[:, -1] == 0
    blur = augmentation.continuous.index(augmentation.columns["blur"].start)
    applied = augmentation.parameters(theta)["blur"]["applied"]
    for rows in (first, ~first & applied):
        own = values[rows, blur]
        assert own.mean() == pytest.approx(0.5, abs=0.05)
        assert own.max() > 0.95
    assert (values[~first & ~applied, blur] == 0).all()


def test_views_that_are_made_alike_are_the_plain_augmentation() -> None:
    same = build_augmentation({**FIRST, "view_2": FIRST}, image_size=SIDE)
    assert not isinstance(same, TwoSided)
    images, theta = random_images(8), same.draw(8, torch.Generator().manual_seed(0))
    assert torch.equal(same.apply(images, theta), plain(FIRST).apply(images, theta))
    assert torch.equal(same.of_side(theta, 1), theta)


@pytest.mark.parametrize(
    ("name", "settings", "where"),
    [
        ("blur", {"p": 0.1, "sigma": (0.1, 2.0), "kernel_size": 5}, "augment.view_2.blur.kernel_size"),
        ("solarize", {"p": 0.2, "threshold": 0.4}, "augment.view_2.solarize.threshold"),
    ],
)
def test_what_is_one_for_all_images_of_a_pass_cannot_differ(name: str, settings: dict, where: str) -> None:
    first = {**FIRST, "solarize": {"p": 0.2, "threshold": 0.5}}
    with pytest.raises(
        InputError, match=r"is (5, and null|0\.4, and 0\.5) for the first .* only be the same"
    ) as caught:
        build_augmentation({**first, "view_2": {**first, name: settings}}, image_size=SIDE)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"crop": {"scale": (0.9, 1.0), "ratio": (3.0, 4.0)}}, "augment.view_2.crop"),
        ({"blur": {"p": 0.1, "sigma": (0.1, 2.0), "kernel_size": 199}}, "augment.view_2.blur.kernel_size"),
    ],
)
def test_a_fault_of_the_second_view_is_named_there(changed: dict, where: str) -> None:
    with pytest.raises(InputError) as caught:
        build_augmentation({**FIRST, "view_2": {**FIRST, **changed}}, image_size=SIDE)
    assert caught.value.where == where
    with pytest.raises(InputError) as caught:
        build_augmentation({**FIRST, **changed, "view_2": SECOND}, image_size=SIDE)
    assert caught.value.where == where.replace("view_2.", "")


def test_colours_of_either_view_need_three_channels() -> None:
    flip = {"flip": {"p": 0.5}}
    with pytest.raises(InputError, match="gray mix"):
        build_augmentation({**flip, "view_2": {**flip, "gray": {"p": 0.2}}}, image_size=SIDE, channels=1)
