"""The operations together: their order, their probabilities, what drawing and applying promise."""

import math

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from scipy import stats

from cssl_cli.augment import OPERATIONS, build_augmentation, normalize
from cssl_cli.errors import InputError
from cssl_cli.host.randomness import stream
from tests.support.augmentations import (
    EVERYTHING,
    JITTER,
    NAMED,
    SIDE,
    SIGNIFICANCE,
    everything,
    parameters_of,
    random_images,
    theta_of,
)


# --- each operation against torchvision, image by image ---------------------------------------------------------------
def test_operations_follow_one_another_in_the_stated_order() -> None:
    augmentation = everything()
    theta, images = theta_of(augmentation, 40), random_images(40)
    parameters = augmentation.parameters(theta)
    order = ["crop", "flip", "jitter", "gray", "blur", "solarize", "cutout", "fade"]
    assert [name for name in parameters if name in order] == order
    for i, view in enumerate(augmentation.apply(images, theta)):
        expected = images[i : i + 1]
        for name, values in parameters.items():
            one = {key: value[i : i + 1] for key, value in values.items()}
            if "applied" not in one or bool(one["applied"]):
                expected = augmentation.operations[name].apply(expected, one)
        torch.testing.assert_close(view, expected[0], atol=1e-6, rtol=0)


# --- how parameters are distributed -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "key", "low", "high"),
    [
        ("jitter", "brightness", 0.6, 1.4),
        ("jitter", "contrast", 0.6, 1.4),
        ("jitter", "saturation", 0.6, 1.4),
        ("jitter", "hue", -0.1, 0.1),
        ("blur", "sigma", 0.1, 2.0),
        ("fade", "contrast", 0.1, 0.6),
    ],
)
def test_continuous_parameters_are_uniform_where_applied(name: str, key: str, low: float, high: float) -> None:
    values = parameters_of(name, 10_000)
    chosen = values[key][values["applied"]]
    assert low <= chosen.min()
    assert chosen.max() <= high
    assert stats.kstest(chosen.numpy(), stats.uniform(low, high - low).cdf).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "crop"])
@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_operations_are_applied_with_their_probability(name: str, p: float) -> None:
    num = 10_000
    happened = int(parameters_of(name, num, p=p)["applied"].sum())
    assert stats.binomtest(happened, num, p).pvalue > SIGNIFICANCE


# --- what drawing and applying promise --------------------------------------------------------------------------------
def test_theta_is_uniform_on_the_unit_cube_and_belongs_to_its_stream() -> None:
    augmentation = everything()
    theta = theta_of(augmentation, 4000)
    assert theta.shape == (4000, augmentation.num_parameters)
    assert theta.dtype == torch.float32
    assert stats.kstest(theta.flatten().numpy(), "uniform").pvalue > SIGNIFICANCE
    state = torch.get_rng_state()
    assert torch.equal(theta, theta_of(augmentation, 4000))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(theta, theta_of(augmentation, 4000, seed=1))


def test_columns_of_theta_are_disjoint_and_cover_it() -> None:
    augmentation = everything()
    columns = [i for part in augmentation.columns.values() for i in range(augmentation.num_parameters)[part]]
    assert columns == list(range(augmentation.num_parameters))
    assert list(augmentation.columns) == list(OPERATIONS)


def test_an_operation_reads_its_own_columns_only() -> None:
    augmentation = everything()
    theta = theta_of(augmentation, 50)
    before = augmentation.parameters(theta)
    for name, columns in augmentation.columns.items():
        changed = theta.clone()
        changed[:, columns] = torch.rand(changed[:, columns].shape, generator=stream(7, name))
        after = augmentation.parameters(changed)
        same = {op: all(torch.equal(before[op][key], after[op][key]) for key in before[op]) for op in before}
        assert same == {op: op != name for op in before}


def test_apply_is_a_function_of_image_and_theta() -> None:
    augmentation = everything()
    images, theta = random_images(200), theta_of(augmentation, 200)
    kept = images.clone(), theta.clone()
    views = augmentation.apply(images, theta)
    assert views.dtype == torch.float32
    assert views.is_contiguous()
    assert torch.equal(views, augmentation.apply(images, theta))
    assert torch.equal(images, kept[0])
    assert torch.equal(theta, kept[1])


def test_a_view_does_not_depend_on_the_batch_around_it() -> None:
    augmentation = everything()
    images, theta = random_images(200), theta_of(augmentation, 200)
    views = augmentation.apply(images, theta)
    shuffled = torch.randperm(200, generator=stream(0, "order"))
    torch.testing.assert_close(
        augmentation.apply(images[shuffled], theta[shuffled]), views[shuffled], atol=1e-6, rtol=0
    )
    for i in (0, 99, 199):
        alone = augmentation.apply(images[i : i + 1], theta[i : i + 1])
        torch.testing.assert_close(alone[0], views[i], atol=1e-6, rtol=0)


def test_views_stay_in_range_and_finite() -> None:
    augmentation = everything(jitter={"p": 1.0, **JITTER, "strength": 2.0, "hue": 0.5})
    views = augmentation.apply(random_images(300), theta_of(augmentation, 300))
    assert views.isfinite().all()
    assert views.min() >= -1e-6
    assert views.max() <= 1 + 1e-6


def test_uint8_and_float_images_agree() -> None:
    augmentation = everything()
    images = (random_images(100) * 255).round().to(torch.uint8)
    theta = theta_of(augmentation, 100)
    assert torch.equal(augmentation.apply(images, theta), augmentation.apply(images.float() / 255, theta))


@pytest.mark.parametrize("settings", [{}, dict.fromkeys(EVERYTHING)])
def test_without_operations_views_are_the_images(settings: dict) -> None:
    augmentation = build_augmentation(settings, image_size=SIDE)
    images = (random_images(5) * 255).round().to(torch.uint8)
    theta = theta_of(augmentation, 5)
    assert theta.shape == (5, 0)
    views = augmentation.apply(images, theta)
    assert torch.equal(views, images.float() / 255)
    floats = images.float() / 255
    assert augmentation.apply(floats, theta).data_ptr() != floats.data_ptr()


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "crop"])
def test_images_not_chosen_keep_every_bit(name: str) -> None:
    augmentation = build_augmentation({name: {**EVERYTHING[name], "p": 0.5}}, image_size=SIDE)
    images, theta = random_images(200), theta_of(augmentation, 200)
    chosen = augmentation.parameters(theta)[name]["applied"]
    views = augmentation.apply(images, theta)
    assert torch.equal(views[~chosen], images[~chosen])
    changed = (views != images).flatten(1).any(dim=1)
    assert changed[chosen].float().mean() > 0.8  # a gray image stays gray, a black one black
    for p in (0.0, 1.0):
        operation = OPERATIONS[name](image_size=SIDE, **{**EVERYTHING[name], "p": p})
        applied = operation.parameters(theta)["applied"]
        assert applied.all() if p else not applied.any()


def test_both_ways_to_leave_images_out_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    augmentation = everything()
    images, theta = random_images(200), theta_of(augmentation, 200)
    expected = augmentation.apply(images, theta)
    monkeypatch.setattr("cssl_cli.augment.op.on_cpu", lambda _: False)
    views = augmentation.apply(images, theta)
    torch.testing.assert_close(views, expected, atol=1e-6, rtol=0)
    untouched = ~torch.stack([v["applied"] for v in augmentation.parameters(theta).values() if "applied" in v]).any(0)
    assert torch.equal(views[untouched], expected[untouched])


def test_off_the_cpu_nothing_waits_for_values_or_leaves_the_device() -> None:
    """The meta device has shapes but no values: reading one, or mixing in a tensor from the host, is an error there."""
    augmentation = everything()
    images = torch.empty((7, 3, SIDE, SIDE), dtype=torch.uint8, device="meta")
    views = augmentation.apply(images, theta_of(augmentation, 7).to("meta"))
    assert views.shape == images.shape
    assert normalize(views, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).device.type == "meta"


def test_autocast_does_not_touch_the_views() -> None:
    augmentation = everything()
    images, theta = random_images(20), theta_of(augmentation, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views = augmentation.apply(images, theta)
    assert torch.equal(views, augmentation.apply(images, theta))


def test_shapes_that_do_not_fit_are_refused() -> None:
    augmentation = everything()
    theta = theta_of(augmentation, 4)
    with pytest.raises(ValueError, match="side 32 expected"):
        augmentation.apply(torch.zeros(4, 3, 16, 16), theta)
    with pytest.raises(ValueError, match=rf"theta of shape \(3, {augmentation.num_parameters}\) expected"):
        augmentation.apply(torch.zeros(3, 3, SIDE, SIDE), theta)


def test_an_unknown_operation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="unknown augmentation 'colour'"):
        build_augmentation({"colour": {}}, image_size=SIDE)
    with pytest.raises(InputError, match="Did you mean 'jitter'"):
        build_augmentation({"jiter": {}}, image_size=SIDE)


# --- gradients --------------------------------------------------------------------------------------------------------
def test_gradients_flow_from_the_views_to_theta() -> None:
    augmentation = everything()
    theta = theta_of(augmentation, 300).requires_grad_()
    images = random_images(300).requires_grad_()
    augmentation.apply(images, theta).square().sum().backward()
    assert theta.grad is not None
    assert images.grad is not None
    assert theta.grad.isfinite().all()
    assert images.grad.isfinite().all()
    reached = {name: bool(theta.grad[:, columns].any()) for name, columns in augmentation.columns.items()}
    assert reached["jitter"]
    assert reached["blur"]


def test_gradients_flow_after_a_first_use_in_inference_mode() -> None:
    augmentation = everything(crop={"scale": [0.123, 1.0], "ratio": [0.7, 1.3]})
    images, theta = random_images(20), theta_of(augmentation, 20)
    with torch.inference_mode():
        views = augmentation.apply(images, theta)
    again = augmentation.apply(images, theta.requires_grad_())
    again.sum().backward()
    assert torch.equal(again.detach(), views)


# --- normalize --------------------------------------------------------------------------------------------------------
def test_normalize_equals_torchvision() -> None:
    images, mean, std = random_images(5), (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
    kept = images.clone()
    torch.testing.assert_close(
        normalize(images, mean, std), reference.normalize(images, mean, std), atol=1e-6, rtol=1e-6
    )
    assert torch.equal(images, kept)
    flat = normalize(
        images, [float(images[:, c].mean()) for c in range(3)], [float(images[:, c].std()) for c in range(3)]
    )
    assert math.isclose(float(flat.mean()), 0, abs_tol=1e-5)
    assert math.isclose(float(flat[:, 0].std()), 1, abs_tol=1e-5)


# --- what is continuous, and what is discrete -------------------------------------------------------------------------
def test_coordinates_are_told_apart() -> None:
    others = dict.fromkeys(OPERATIONS.keys() - NAMED.keys())  # None: not applied
    augmentation = everything(**others)
    # crop 4, jitter 4 of 5 (the last is the order), blur 1, cutout 3, fade 1
    assert len(augmentation.continuous) == 13
    assert augmentation.columns["jitter"].stop - 1 not in augmentation.continuous
    assert augmentation.discrete == ("flip", "gray", "solarize")
    fixed = everything(
        crop={"scale": [0.5, 0.5], "ratio": [1.0, 1.0]},
        blur={"p": 0.5, "sigma": [1.0, 1.0], "kernel_size": None},
        jitter={"p": 0.5, **JITTER, "hue": 0.0},
        cutout={"p": 0.0, "scale": [0.1, 0.2]},
        fade=None,
        gray={"p": 1.0},
        **others,
    )
    assert len(fixed.continuous) == 2 + 3
    assert fixed.discrete == ("flip", "blur", "solarize")
    nothing = build_augmentation({}, image_size=SIDE)
    assert (nothing.continuous, nothing.discrete) == ((), ())
    assert nothing.states(torch.zeros(3, 0)).shape == (3, 0)


def test_what_is_left_of_a_coin_is_uniform_and_nothing_where_it_fell_the_other_way() -> None:
    augmentation = build_augmentation({"blur": {"p": 0.25, "sigma": (0.1, 2.0), "kernel_size": None}}, image_size=32)
    theta = augmentation.draw(8000, stream(0, "coins"))
    applied, values = augmentation.states(theta)[:, 0] == 1, augmentation.continuous_values(theta)
    assert values.shape == (8000, 1)
    assert (values[~applied] == 0).all()
    drawn = values[applied, 0].sort().values
    assert (drawn - torch.linspace(0, 1, len(drawn))).abs().max() < 1.63 / len(drawn) ** 0.5  # Kolmogorov, 1 %
    sigma = augmentation.parameters(theta)["blur"]["sigma"][applied]
    torch.testing.assert_close(0.1 + 1.9 * values[applied, 0], sigma)


def test_views_of_equal_states_move_with_the_continuous_coordinates_alone() -> None:
    """Redrawn in all its other columns, with the states kept, a view stays what it was to the last bit."""
    augmentation = everything()
    theta, other = theta_of(augmentation, 4000), theta_of(augmentation, 4000, seed=1)
    mixed = other.clone()
    mixed[:, list(augmentation.continuous)] = theta[:, list(augmentation.continuous)]
    same = (augmentation.states(theta) == augmentation.states(mixed)).all(dim=1)
    rows = (same & (theta != mixed).any(dim=1)).nonzero().squeeze(1)[:40]
    assert len(rows) == 40
    images = random_images(40)
    torch.testing.assert_close(
        augmentation.apply(images, theta[rows]), augmentation.apply(images, mixed[rows]), rtol=0, atol=0
    )
    flipped = theta[:, augmentation.columns["flip"].start] < 0.5
    assert torch.equal(augmentation.states(theta)[:, 0] == 1, flipped)


# --- channels ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["crop", "flip", "blur", "solarize", "cutout", "fade"])
@pytest.mark.parametrize("store", [SIDE, 40])
def test_operations_treat_each_of_many_channels_alike(name: str, store: int) -> None:
    """Five channels as five gray images under the same theta."""
    augmentation = build_augmentation({name: NAMED[name]}, image_size=SIDE, store_size=store, channels=5)
    images, theta = torch.rand((12, 5, store, store), generator=stream(0, "images")), theta_of(augmentation, 12)
    views = augmentation.apply(images, theta)
    for channel in range(5):
        alone = augmentation.apply(images[:, channel : channel + 1], theta)
        torch.testing.assert_close(views[:, channel : channel + 1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_every_operation_works_on_any_number_of_channels_or_says_that_it_needs_colours(channels: int) -> None:
    images = torch.rand((3, channels, SIDE, SIDE), generator=stream(0, "images"))
    for name, settings in NAMED.items():
        if name in ("jitter", "gray"):
            with pytest.raises(InputError) as refused:
                build_augmentation({name: settings}, image_size=SIDE, channels=channels)
            assert refused.value.remedy is not None
            assert refused.value.remedy.startswith(f"Drop it: augment.{name}=null.")
        else:
            augmentation = build_augmentation({name: settings}, image_size=SIDE, channels=channels)
            assert augmentation.apply(images, theta_of(augmentation, 3)).shape == images.shape


def test_brightness_and_contrast_are_those_of_the_same_images_in_gray_colours() -> None:
    """The luminance of gray colours is 0.9999 of theirs."""
    settings = {"jitter": {"p": 0.8, **JITTER, "saturation": 0.0, "hue": 0.0}}
    images = torch.rand((60, 1, SIDE, SIDE), generator=stream(0, "images"))
    gray, colours = (build_augmentation(settings, image_size=SIDE, channels=channels) for channels in (1, 3))
    theta = theta_of(gray, 60)
    views = gray.apply(images, theta)
    assert (views - images).abs().amax() > 0.2
    torch.testing.assert_close(colours.apply(images.expand(-1, 3, -1, -1), theta)[:, :1], views, atol=2e-4, rtol=0)
    many = build_augmentation(settings, image_size=SIDE, channels=4).apply(images.expand(-1, 4, -1, -1), theta)
    torch.testing.assert_close(many, views.expand(-1, 4, -1, -1), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="jitter mix"):
        build_augmentation({"jitter": {**settings["jitter"], "hue": 0.1}}, image_size=SIDE, channels=1)
