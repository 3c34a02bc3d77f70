"""The Lipschitz constant: linear maps against their matrices, closed forms, and upper bounds above lower ones."""

import itertools
import json
import math
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from cssl_cli.errors import InputError
from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import MLP, build_encoder, materialize
from cssl_cli.theory.estimate import Absent, Estimate, Sample
from cssl_cli.theory.lipschitz.bounds import largest_ratio, lipschitz, local_jacobian_norm, spectral_product
from cssl_cli.theory.lipschitz.spectral import network_norm, operator_norm

SIDE = 8  # of the images
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
RGB = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3)}


def randomize(network, seed):
    """Random weights, batch norms with random scales, shifts and statistics; float64, eval mode."""
    random = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            part.weight.data = torch.randn(part.weight.shape, generator=random) / math.sqrt(fan_in)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.weight.data = torch.randn(part.weight.shape, generator=random)
            part.bias.data = torch.randn(part.bias.shape, generator=random)
            part.running_mean = torch.randn(part.running_mean.shape, generator=random)
            part.running_var = torch.rand(part.running_var.shape, generator=random) + 0.1
    return network.double().eval()


def encoder_of(name, width, seed):
    return randomize(materialize(build_encoder({"name": name, "width": width}), stream(seed, "init")), seed)


def matrix_of(linear, shape):
    """The matrix of an affine map, column by column."""
    zero = linear(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
    columns = []
    for place in range(math.prod(shape)):
        basis = torch.zeros(math.prod(shape), dtype=torch.float64)
        basis[place] = 1
        columns.append(linear(basis.reshape(1, *shape)).flatten() - zero)
    return torch.stack(columns, dim=1).detach().numpy()


def norm_of(matrix):
    return np.linalg.svd(matrix, compute_uv=False)[0]


def bound_of(network, shape, std=None):
    std = (1.0,) * shape[0] if std is None else std
    return network_norm(network, input_shape=shape, std=std, generator=stream(0, "spectral"))


def product(encoder, *, shape=(3, SIDE, SIDE), std=(1.0, 1.0, 1.0), least_norm=1.0):
    return spectral_product(
        encoder, input_shape=shape, std=std, least_norm=least_norm, sample=Sample(1, 1), generator=stream(0, "s")
    )


# ---------------------------------------------------------------------- the norm of a linear map
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3},
        {"kernel_size": 5, "padding": 2, "stride": 3},
        {"kernel_size": (1, 3), "padding": (0, 1)},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 1, "padding": 1},
    ],
)
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 4), (4, 2)])
@pytest.mark.parametrize("size", [(6, 6), (5, 8)])
def test_a_convolution_with_its_batch_norm_has_the_norm_of_its_matrix(geometry, inputs, outputs, size):
    conv = nn.Conv2d(inputs, outputs, bias=True, **geometry)
    network = randomize(nn.Sequential(conv, nn.BatchNorm2d(outputs)), seed=1)
    expected = norm_of(matrix_of(network, (inputs, *size)))
    norm = bound_of(network, (inputs, *size))
    assert norm.low == pytest.approx(expected, rel=1e-9)
    assert expected <= norm.high <= expected * (1 + 1e-8)


def test_a_grouped_convolution_has_the_norm_of_its_matrix():
    network = randomize(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2)), seed=0)
    std = (0.1, 0.5, 2.0, 1.0)
    scale = torch.tensor(std, dtype=torch.float64).view(1, 4, 1, 1)
    expected = norm_of(matrix_of(lambda images: network(images / scale), (4, 5, 5)))
    assert bound_of(network, (4, 5, 5), std).high == pytest.approx(expected, rel=1e-8)


def test_the_standard_deviation_of_the_channels_is_folded_into_the_first_map():
    std = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64).view(1, 3, 1, 1)
    network = randomize(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), seed=0)
    expected = norm_of(matrix_of(lambda images: network(images / std), (3, 6, 6)))
    assert bound_of(network, (3, 6, 6), (0.1, 0.5, 2.0)).high == pytest.approx(expected, rel=1e-8)
    assert bound_of(nn.Sequential(nn.ReLU()), (3, 6, 6), (0.1, 0.5, 2.0)).high == pytest.approx(10)
    assert bound_of(nn.Sequential(nn.Identity()), (3, 6, 6), (0.1, 0.5, 2.0)).high == pytest.approx(10)


@pytest.mark.parametrize("shape", [(4, 12), (12, 4)])
@pytest.mark.parametrize("steps", [60, 200])
def test_lanczos_brackets_the_norm_of_a_matrix_that_is_not_written_out(shape, steps):
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        matrix = torch.randn(*shape, 3, dtype=torch.float64, generator=random).flatten(1)
        matrix = torch.block_diag(*[matrix * scale for scale in torch.linspace(0.1, 1, 20, dtype=torch.float64)])
        rows, columns = matrix.shape
        norm = operator_norm(
            lambda x, matrix=matrix: x @ matrix.T,
            lambda y, matrix=matrix: y @ matrix,
            (columns,),
            (rows,),
            like=matrix,
            generator=random,
            dense=0,
            steps=steps,
        )
        exact = norm_of(matrix.numpy())
        assert norm.low <= exact * (1 + 1e-9)
        assert exact <= norm.high <= 1.05 * exact


def test_lanczos_on_a_clustered_spectrum_still_brackets():
    """1000 singular values, the largest a single one within 0.1 % of the next: the bound needs no gap."""
    values = torch.linspace(0, 1, 1000, dtype=torch.float64) ** 0.01
    values[-1] = 1.001
    for seed in range(10):
        norm = operator_norm(
            lambda x: x * values,
            lambda y: y * values,
            (1000,),
            (1000,),
            like=values,
            generator=torch.Generator().manual_seed(seed),
            dense=0,
        )
        assert norm.low <= 1.001 * (1 + 1e-12) <= norm.high <= 1.001 * 1.02


def test_the_upper_end_holds_before_lanczos_has_converged():
    """Squared singular values spread evenly over 0 … 1: no gap at the top, and few steps."""
    values = torch.linspace(0, 1, 20_000, dtype=torch.float64).sqrt()
    for seed in range(10):
        norm = operator_norm(
            lambda x: x * values,
            lambda y: y * values,
            (20_000,),
            (20_000,),
            like=values,
            generator=torch.Generator().manual_seed(seed),
            steps=40,
        )
        assert norm.low < 0.9999
        assert 1 <= norm.high <= 1.1


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_lanczos_that_comes_to_an_end_is_exact(scale):
    norm = operator_norm(
        lambda x: scale * x,
        lambda y: scale * y,
        (50,),
        (50,),
        like=torch.ones(1, dtype=torch.float64),
        generator=stream(0, "l"),
        dense=0,
    )
    assert norm.high == pytest.approx(scale, rel=1e-8)


def test_a_large_convolution_is_bracketed():
    conv = randomize(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), seed=0)
    norm = bound_of(conv, (8, 12, 12))  # 1152 numbers: not written out
    exact = norm_of(matrix_of(conv, (8, 12, 12)))
    assert norm.low <= exact * (1 + 1e-9)
    assert exact <= norm.high <= 1.012 * exact


# ---------------------------------------------------------------------- networks
def linear_network(num_channels, seed):
    """Convolution, batch norm, mean over pixels, linear map, without a ReLU: one matrix."""
    parts = [nn.Conv2d(3, num_channels, 3, padding=1), nn.BatchNorm2d(num_channels)]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_channels, 3)]
    return randomize(nn.Sequential(*parts), seed)


@pytest.mark.parametrize("seed", range(5))
def test_the_product_is_at_least_the_norm_of_a_linear_network(seed):
    network = linear_network(4, seed)
    whole = norm_of(matrix_of(network, (3, 6, 6)))
    parts = [norm_of(matrix_of(network[:2], (3, 6, 6))), 1 / 6, norm_of(network[4].weight.detach().numpy())]
    assert bound_of(network, (3, 6, 6)).high == pytest.approx(math.prod(parts), rel=1e-8)
    assert whole <= math.prod(parts) * (1 + 1e-12)


def test_the_mean_over_pixels():
    assert bound_of(nn.AdaptiveAvgPool2d(1), (3, 4, 9)).high == pytest.approx(1 / 6)
    assert norm_of(matrix_of(nn.AdaptiveAvgPool2d(1), (3, 4, 9))) == pytest.approx(1 / 6)


def test_batch_norm_alone_and_a_projector():
    batch_norm = randomize(nn.BatchNorm1d(5), 0)
    assert bound_of(batch_norm, (5,)).high == pytest.approx(norm_of(matrix_of(batch_norm, (5,))))
    projector = randomize(MLP(6, [7, 4], batch_norm=True), 0)
    first, second = (
        norm_of(matrix_of(part, shape)) for part, shape in ((projector.layers[:2], (6,)), (projector.layers[3], (7,)))
    )
    assert bound_of(projector, (6,)).high == pytest.approx(first * second, rel=1e-8)


@pytest.mark.parametrize("block_type", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_residual_block_is_branch_plus_shortcut(block_type, stride):
    channels = 4 if block_type is BasicBlock else 8
    downsample = None
    if stride == 2:
        downsample = nn.Sequential(nn.Conv2d(channels, channels, 1, stride=2, bias=False), nn.BatchNorm2d(channels))
    planes = channels // block_type.expansion
    block = randomize(block_type(channels, planes, stride=stride, downsample=downsample), 0)
    shape = (channels, 6, 6)
    middle = {1: 6, 2: 3}[stride]
    chain = [(block.conv1, block.bn1, shape)]
    if block_type is BasicBlock:
        chain.append((block.conv2, block.bn2, (planes, middle, middle)))
    else:
        chain += [(block.conv2, block.bn2, (planes, 6, 6)), (block.conv3, block.bn3, (planes, middle, middle))]
    branch = math.prod(norm_of(matrix_of(nn.Sequential(conv, bn), inputs)) for conv, bn, inputs in chain)
    shortcut = 1.0 if downsample is None else norm_of(matrix_of(downsample, shape))
    assert bound_of(block, shape).high == pytest.approx(branch + shortcut, rel=1e-8)


def test_an_identity_branch_doubles():
    block = randomize(BasicBlock(2, 2), 0)
    for conv, bn in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        conv.weight.data.zero_()
        for channel in range(2):
            conv.weight.data[channel, channel, 1, 1] = 1
        bn.weight.data.fill_(1)
        bn.running_var.fill_(1 - bn.eps)
    assert bound_of(block, (2, 5, 5)).high == pytest.approx(2)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.GELU(), "GELU"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2)), "MaxPool2d"),
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


@pytest.mark.parametrize(("name", "seeds"), [("small", 40), ("resnet18", 12), ("resnet50", 2)])
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
