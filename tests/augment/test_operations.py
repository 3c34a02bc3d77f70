"""The augmentations, image by image against torchvision's functional forms, and what drawing and applying promise."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference
from scipy import stats
from torch import Tensor

from cssl_cli.augment import OPERATIONS, Augmentation, build_augmentation, normalize
from cssl_cli.augment.blur import Blur
from cssl_cli.augment.color import shift_hue
from cssl_cli.augment.crop import Crop
from cssl_cli.augment.cutout import Cutout
from cssl_cli.augment.fade import Fade
from cssl_cli.augment.flip import Flip
from cssl_cli.augment.gray import Gray
from cssl_cli.augment.jitter import Jitter
from cssl_cli.augment.solarize import Solarize
from cssl_cli.errors import InputError
from cssl_cli.host.randomness import stream

SIDE = 32
JITTER = {"strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None}
EVERYTHING = {
    "crop": {"scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3]},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, **JITTER},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": [0.1, 2.0], "kernel_size": None},
    "solarize": {"p": 0.2, "threshold": 0.5},
    "cutout": {"p": 0.5, "scale": [0.02, 0.2]},
    "fade": {"p": 0.3, "contrast": [0.1, 0.6]},
}
# Less likely than this under a correct implementation; the draws are seeded, so a test passes always or never.
SIGNIFICANCE = 1e-4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Images this small gain nothing from threads, which wait for each other when other tests run beside these."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def random_images(num: int, *, side: int = SIDE, seed: int = 0) -> Tensor:
    """Smooth and noisy, gray, black, white and saturated images, float32 (num, 3, side, side) in [0, 1]."""
    images = torch.rand((num, 3, side, side), generator=stream(seed, "images"))
    images[1::4] = torch.nn.functional.avg_pool2d(images[1::4], 5, stride=1, padding=2)
    images[2::8] = images[2::8, :1]
    images[3::8] = images[3::8].round()
    if num > 16:
        images[-1], images[-2] = 0.0, 1.0
    return images


def uniform(num: int, low: float, high: float, seed: int = 1) -> Tensor:
    """`num` numbers in [low, high], both ends among them."""
    values = low + (high - low) * torch.rand(num, generator=stream(seed, "parameters"))
    values[0], values[1] = low, high
    return values


def theta_of(augmentation: Augmentation, num: int, seed: int = 0) -> Tensor:
    return augmentation.draw(num, stream(seed, "theta"))


def everything(**changes: dict | None) -> Augmentation:
    return build_augmentation({**EVERYTHING, **changes}, image_size=SIDE)


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


def test_cutout_equals_erase() -> None:
    cutout = Cutout(image_size=SIDE, p=1.0, scale=(0.001, 1.0))
    parameters = cutout.parameters(torch.rand((64, 3), generator=stream(0, "cutout")))
    images = random_images(64)
    for i, view in enumerate(cutout.apply(images, parameters)):
        top, left, side = (int(parameters[name][i]) for name in ("top", "left", "side"))
        assert 0 <= top <= SIDE - side
        assert 0 <= left <= SIDE - side
        assert torch.equal(view, reference.erase(images[i], top, left, side, side, torch.tensor(0.5)))


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


def test_operations_follow_one_another_in_the_stated_order() -> None:
    augmentation = everything()
    theta, images = theta_of(augmentation, 40), random_images(40)
    parameters = augmentation.parameters(theta)
    assert list(parameters) == ["crop", "flip", "jitter", "gray", "blur", "solarize", "cutout", "fade"]
    for i, view in enumerate(augmentation.apply(images, theta)):
        expected = images[i : i + 1]
        for name, values in parameters.items():
            one = {key: value[i : i + 1] for key, value in values.items()}
            if "applied" not in one or bool(one["applied"]):
                expected = augmentation.operations[name].apply(expected, one)
        torch.testing.assert_close(view, expected[0], atol=1e-6, rtol=0)


# --- how parameters are distributed -----------------------------------------------------------------------------------


def parameters_of(name: str, num: int, **changes: object) -> dict[str, Tensor]:
    augmentation = build_augmentation({name: {**EVERYTHING[name], **changes}}, image_size=SIDE)
    return augmentation.parameters(theta_of(augmentation, num))[name]


def assert_same_distribution(sample: Tensor, other: Tensor) -> None:
    """Two samples of whole numbers, by a chi-squared test on their counts, rare values pooled."""
    values, inverse = torch.cat([sample, other]).unique(return_inverse=True)
    counts = torch.stack([torch.bincount(part, minlength=len(values)) for part in inverse.split(len(sample))])
    common = counts.sum(0) >= 20
    table = torch.cat([counts[:, common], counts[:, ~common].sum(1, keepdim=True)], dim=1)
    assert stats.chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue > SIGNIFICANCE


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


def test_a_kernel_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="65 pixels is too large"):
        build_augmentation({"blur": {"p": 0.5, "sigma": [0.1, 2.0], "kernel_size": 65}}, image_size=SIDE)
    Blur(image_size=SIDE, p=1.0, sigma=(1.0, 1.0), kernel_size=63).apply(random_images(1), {"sigma": torch.ones(1)})


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


def test_cutout_areas_and_places_are_uniform() -> None:
    values = parameters_of("cutout", 40_000, scale=(0.02, 0.2))
    chosen = {key: value[values["applied"]] for key, value in values.items()}
    num = len(chosen["side"])
    area, place = torch.rand((2, num), generator=stream(6, "cutout"))
    side = (SIDE * (0.02 + 0.18 * area).sqrt()).round()
    assert_same_distribution(chosen["side"], side)
    for name in ("top", "left"):
        assert_same_distribution(chosen[name], (place * (SIDE - side + 1)).floor())


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
    with pytest.raises(ValueError, match=r"theta of shape \(3, 17\) expected"):
        augmentation.apply(torch.zeros(3, 3, SIDE, SIDE), theta)


def test_an_unknown_operation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="unknown augmentation 'colour'"):
        build_augmentation({"colour": {}}, image_size=SIDE)
    with pytest.raises(InputError, match="Did you mean 'jitter'"):
        build_augmentation({"jiter": {}}, image_size=SIDE)


# --- gradients --------------------------------------------------------------------------------------------------------


def smooth_images(num: int, side: int) -> Tensor:
    """Float64 images whose channels are far apart, so that no kink of a maximum or a clamp lies within reach."""
    noise = torch.rand((num, 3, side, side), generator=stream(2, "images"), dtype=torch.double)
    return 0.05 * noise + torch.tensor([0.55, 0.4, 0.25], dtype=torch.double)[:, None, None]


def test_gradients_of_crop_reach_box_and_image() -> None:
    crop = Crop(image_size=6, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    box = {"top": [0.83, 1.21], "left": [1.17, 0.37], "height": [3.31, 4.13], "width": [2.71, 3.93]}
    names = list(box)
    values = [torch.tensor(box[name], dtype=torch.double, requires_grad=True) for name in names]
    images = torch.rand((2, 3, 6, 6), generator=stream(0, "images"), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda image, *parts: crop.apply(image, dict(zip(names, parts, strict=True))), (images, *values)
    )


def test_gradients_of_blur_reach_sigma() -> None:
    blur = Blur(image_size=6, p=1.0, sigma=(0.1, 2.0), kernel_size=5)
    sigma = torch.tensor([0.5, 1.7], dtype=torch.double, requires_grad=True)
    images = smooth_images(2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda image, s: blur.apply(image, {"sigma": s}), (images, sigma))


@pytest.mark.parametrize("order", [0, 9, 14, 23])
def test_gradients_of_jitter_reach_factors_and_hue(order: int) -> None:
    jitter = Jitter(image_size=4, p=1.0, **JITTER)
    names = ("brightness", "contrast", "saturation", "hue")
    values = [torch.tensor(v, dtype=torch.double, requires_grad=True) for v in ([1.1, 0.9], [0.95, 1.1], [0.9, 1.1])]
    values.append(torch.tensor([0.04, -0.03], dtype=torch.double, requires_grad=True))
    images = smooth_images(2, 4).requires_grad_()

    def apply(image: Tensor, *parts: Tensor) -> Tensor:
        return jitter.apply(image, {**dict(zip(names, parts, strict=True)), "order": torch.full((2,), order)})

    assert torch.autograd.gradcheck(apply, (images, *values))


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


# --- what is continuous, and what is discrete -------------------------------------------------------------------------


def test_coordinates_are_told_apart() -> None:
    augmentation = everything()
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


def test_a_crop_of_the_whole_image_varies_with_nothing() -> None:
    whole = build_augmentation({"crop": {"scale": (1.0, 1.0), "ratio": (0.75, 1.33)}}, image_size=32)
    assert whole.continuous == ()


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
