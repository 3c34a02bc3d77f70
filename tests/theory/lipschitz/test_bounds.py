"""The Lipschitz constant: closed forms, Jacobians, ratios, and upper bounds above lower ones."""

import itertools
import json
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from cssl_cli.errors import InputError
from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.theory.estimate import Absent, Estimate, Sample
from cssl_cli.theory.lipschitz.bounds import largest_ratio, lipschitz, local_jacobian_norm, spectral_product
from tests.support.linear_maps import bound_of, linear_network, norm_of, randomize

SIDE = 8  # of the images
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
RGB = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3)}


def encoder_of(name, width, seed):
    return randomize(materialize(build_encoder({"name": name, "width": width}), stream(seed, "init")), seed)


def product(encoder, *, shape=(3, SIDE, SIDE), std=(1.0, 1.0, 1.0), least_norm=1.0):
    return spectral_product(
        encoder, input_shape=shape, std=std, least_norm=least_norm, sample=Sample(1, 1), generator=stream(0, "s")
    )


# ---------------------------------------------------------------------- networks
@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.GELU(), "GELU"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.AvgPool2d(2)), "AvgPool2d"),
        (nn.MaxPool2d(2, dilation=2), "dilated MaxPool2d"),
        (nn.Conv2d(3, 2, 3, padding="same"), "padding"),
        (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), "padding"),
        (nn.BatchNorm2d(3, track_running_stats=False), "running statistics"),
        (type("Own", (nn.Sequential,), {})(nn.ReLU()), "Own"),
    ],
)
def test_unknown_modules_are_named(module, named):
    found = product(module)
    assert set(found) == {"spectral_product", "spectral_product_unscaled"}
    assert all(isinstance(entry, Absent) and named in entry.reason for entry in found.values())


def test_the_bound_takes_the_upper_ends_of_the_norms():
    conv = randomize(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), seed=0)
    high = bound_of(conv, (8, 12, 12)).high
    found = product(conv, shape=(8, 12, 12), std=(1.0,) * 8, least_norm=0.5)
    assert found["spectral_product_unscaled"].value == pytest.approx(high, rel=1e-12)
    assert found["spectral_product"].value == pytest.approx(2 * high, rel=1e-12)


def test_features_of_zero_leave_only_the_unscaled_bound():
    found = product(linear_network(4, 0), least_norm=0.0)
    assert isinstance(found["spectral_product"], Absent)
    assert isinstance(found["spectral_product_unscaled"], Estimate)


def test_an_infinite_product_is_absent():
    network = nn.Sequential(*[nn.Linear(3, 3, bias=False) for _ in range(4)]).double()
    for part in network:
        part.weight.data = 1e100 * torch.eye(3, dtype=torch.float64)
    found = product(network, shape=(3,))
    assert all(isinstance(entry, Absent) for entry in found.values())


def test_a_bound_that_allows_everything_is_vacuous():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    norm = float(norm_of(network[1].weight.detach().numpy()))
    for factor, vacuous in ((509, False), (511, True)):
        assert product(network, shape=(3, 2, 2), least_norm=norm / factor)["spectral_product"].vacuous is vacuous


# ---------------------------------------------------------------------- Jacobians
def jacobian_of(encoder, image, mean, std):
    offset, scale = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (mean, std))

    def scaled(x):
        h = encoder((x.reshape(1, *image.shape) - offset) / scale)[0]
        return h / h.norm()

    return torch.autograd.functional.jacobian(scaled, image.flatten()).numpy()


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_the_local_norm_is_that_of_the_jacobian(name):
    encoder = encoder_of(name, 2, seed=0)
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = local_jacobian_norm(encoder, images, **RGB, steps=200, generator=stream(0, "j"))
    expected = sorted(norm_of(jacobian_of(encoder, image, **RGB)) for image in images)
    assert found["local_jacobian_largest"].value == pytest.approx(expected[-1], rel=1e-4)
    assert found["local_jacobian_median"].value == pytest.approx(expected[1], rel=1e-4)
    few = local_jacobian_norm(encoder, images, **RGB, steps=3, generator=stream(0, "j"))
    assert few["local_jacobian_largest"].value <= expected[-1] * (1 + 1e-9)


def test_the_jacobian_of_a_scaled_linear_map():
    # f(x) = Wx/‖Wx‖ has Jacobian (I − ffᵀ)W/‖Wx‖.
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)).double()
    weight = network[1].weight.detach().numpy()
    image = torch.rand(1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = weight @ image.flatten().numpy()
    f = h / np.linalg.norm(h)
    expected = norm_of((np.eye(4) - np.outer(f, f)) @ weight / np.linalg.norm(h))
    found = local_jacobian_norm(network, image, **PLAIN, steps=300, generator=stream(0, "j"))
    assert found["local_jacobian_largest"].value == pytest.approx(expected, rel=1e-8)


def test_images_with_features_zero_are_left_out():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)).double()
    images = torch.rand(3, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images[1] = 0
    found = local_jacobian_norm(network, images, **PLAIN, steps=5, generator=stream(0, "j"))
    assert found["local_jacobian_largest"].sample == (2, 1)
    nothing = local_jacobian_norm(network, images[1:2], **PLAIN, steps=5, generator=stream(0, "j"))
    assert all(isinstance(entry, Absent) for entry in nothing.values())


def test_the_encoder_keeps_its_mode_and_gathers_no_gradients():
    encoder = encoder_of("small", 2, seed=0).float().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.inference_mode():
        images = torch.rand(2, 3, SIDE, SIDE)
        local_jacobian_norm(encoder, images, **RGB, steps=2, generator=stream(0, "j"))
    assert encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


# ---------------------------------------------------------------------- ratios over pairs
def ratio_by_loops(vectors, features, *, same_image=False, resolution=0.0):
    views = [(i, v, f) for i in range(len(vectors)) for v, f in zip(vectors[i], features[i], strict=True)]
    ratios = [
        np.linalg.norm(f - g) / np.linalg.norm(v - w)
        for (i, v, f), (j, w, g) in itertools.combinations(views, 2)
        if np.linalg.norm(v - w) > resolution and (i == j or not same_image)
    ]
    return max(ratios, default=None)


def random_views(seed):
    random = np.random.default_rng(seed)
    n, num_views, width, out = (
        random.integers(1, 6),
        random.integers(1, 5),
        random.integers(1, 6),
        random.integers(1, 4),
    )
    vectors = random.random((n, num_views, width))
    if seed % 3 == 1:  # views very near to one another, far from the origin
        vectors = 100 + vectors[:, :1] + 1e-6 * random.normal(size=vectors.shape)
    features = np.tanh(vectors @ random.normal(size=(width, out)))
    if seed % 4 == 2 and num_views > 1:  # equal views
        vectors[:, 1], features[:, 1] = vectors[:, 0], features[:, 0]
    if seed % 5 == 3 and n > 1:
        vectors[1], features[1] = vectors[0], features[0]
    if seed % 7 == 4:
        features[:] = 1.0
    return vectors, features


@pytest.mark.parametrize("block", [4_000_000, 7])
def test_the_largest_ratio_agrees_with_loops(block, monkeypatch):
    monkeypatch.setattr(import_module("cssl_cli.theory.lipschitz.bounds"), "BLOCK_NUMBERS", block)
    for seed in range(140):
        vectors, features = random_views(seed)
        found = largest_ratio(torch.as_tensor(vectors), torch.as_tensor(features), generator=stream(0, "r"))
        for name, same_image in (("largest_ratio", False), ("largest_ratio_same_image", True)):
            expected = ratio_by_loops(vectors, features, same_image=same_image)
            if expected is None:
                assert isinstance(found[name], Absent)
            else:
                assert found[name].value == pytest.approx(expected, rel=1e-6, abs=1e-12), (seed, name)


def test_near_equal_pairs_keep_their_precision_or_are_left_out():
    random = np.random.default_rng(0)
    vectors = random.random((10, 2, 3000))
    features = random.normal(size=(10, 2, 4)) * 1e-3
    vectors[3, 1] = vectors[3, 0]
    vectors[3, 1, 0] += 1e-7
    features[3, 1] = features[3, 0] + np.array([1e-5, 0, 0, 0])
    pair = [torch.as_tensor(array) for array in (vectors, features)]
    assert largest_ratio(*pair, generator=stream(0, "r"))["largest_ratio"].value == pytest.approx(100, rel=1e-6)
    coarse = largest_ratio(*pair, generator=stream(0, "r"), resolution=1e-3)
    for name, same_image in (("largest_ratio", False), ("largest_ratio_same_image", True)):
        expected = ratio_by_loops(vectors, features, same_image=same_image, resolution=1e-3)
        assert coarse[name].value == pytest.approx(expected, rel=1e-9)
        assert "left out" in coarse[name].estimator


def test_one_vector_with_two_features_is_refused():
    vectors = torch.zeros(2, 1, 3)
    with pytest.raises(InputError, match="do not belong together"):
        largest_ratio(vectors, torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), generator=stream(0, "r"))


def test_many_images_are_compared_in_a_random_part():
    random = np.random.default_rng(0)
    vectors, features = (torch.as_tensor(random.random((60, 2, width))) for width in (5, 3))
    whole = largest_ratio(vectors, features, generator=stream(0, "r"))["largest_ratio"]
    assert whole.sample == (60, 2)
    parts = [largest_ratio(vectors, features, generator=stream(seed, "r"), max_views=20) for seed in range(5)]
    for part in parts:
        assert part["largest_ratio"].sample == (10, 2)
        assert part["largest_ratio_same_image"].sample == (60, 2)
        assert part["largest_ratio_same_image"].value <= part["largest_ratio"].value <= whole.value
    assert len({part["largest_ratio"].value for part in parts}) > 1


# ---------------------------------------------------------------------- all together
def test_scaling_to_unit_norm_is_lipschitz_outside_a_ball():
    random = np.random.default_rng(0)
    for width in (1, 2, 5):
        x, y = random.normal(size=(2, 20_000, width)) * random.exponential(size=(2, 20_000, 1)) ** 3
        y[::2] = x[::2] + 1e-3 * y[::2]
        lengths = [np.linalg.norm(v, axis=1) for v in (x, y)]
        moved = np.linalg.norm(x / lengths[0][:, None] - y / lengths[1][:, None], axis=1)
        bound = np.linalg.norm(x - y, axis=1) / np.minimum(*lengths)
        assert (moved <= bound * (1 + 1e-9) + 1e-12).all()
        assert (moved > 0.999 * bound).any()


@pytest.mark.parametrize(("name", "seeds"), [("small", 20), ("resnet18", 5), ("resnet50", 2)])
def test_lower_bounds_lie_below_upper_bounds(name, seeds):
    for seed in range(seeds):
        encoder = encoder_of(name, 2, seed)
        random = torch.Generator().manual_seed(seed)
        views = torch.rand(6, 3, 3, SIDE, SIDE, dtype=torch.float64, generator=random)
        views[:, 1] = (views[:, 0] + 0.01 * views[:, 1]).clamp(max=1)
        with torch.no_grad():
            offset, scale = (torch.tensor(RGB[key], dtype=torch.float64).view(1, 3, 1, 1) for key in ("mean", "std"))
            h = encoder((views.flatten(0, 1) - offset) / scale).unflatten(0, (6, 3))
        if float(h.norm(dim=2).min()) == 0:
            continue
        found = lipschitz(encoder, views, h, **RGB, generator=random, jacobian_images=3, jacobian_steps=5)
        json.dumps({key: entry.to_dict() for key, entry in found.items()}, allow_nan=False)
        value = {key: entry.value for key, entry in found.items()}
        assert value["local_jacobian_median"] <= value["local_jacobian_largest"] <= value["spectral_product"]
        assert value["largest_ratio_same_image"] <= value["largest_ratio"] <= value["spectral_product"]
        unscaled = largest_ratio(views.flatten(2), h, generator=random)["largest_ratio"].value
        assert unscaled <= value["spectral_product_unscaled"]
        assert value["spectral_product"] == pytest.approx(value["spectral_product_unscaled"] / h.norm(dim=2).min())
        unit = largest_ratio(views.flatten(2), unit_norm(h), generator=random)["largest_ratio"].value
        assert value["largest_ratio"] == unit


def test_the_bound_may_speak_of_more_views_than_are_compared():
    encoder = encoder_of("small", 2, 0)
    views = torch.rand(4, 2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = torch.rand(4, 2, 16, dtype=torch.float64) + 1
    found = lipschitz(
        encoder, views, features, **RGB, generator=stream(0, "l"), jacobian_steps=1, norms=torch.full((50, 2), 0.25)
    )
    assert found["spectral_product"].sample == (50, 2)
    assert found["spectral_product"].value == pytest.approx(4 * found["spectral_product_unscaled"].value)


def test_the_same_seed_gives_the_same_numbers():
    encoder = encoder_of("small", 2, 0)
    views = torch.rand(5, 2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = encoder(views.flatten(0, 1)).unflatten(0, (5, 2))
    one, other = (
        lipschitz(encoder, views, features, **PLAIN, generator=stream(3, "l"), jacobian_images=2, max_views=4)
        for _ in range(2)
    )
    assert one == other
