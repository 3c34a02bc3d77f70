"""The norm of a network: linear maps against their matrices, blocks against their parts."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import MLP, build_encoder, materialize
from cssl_cli.theory.lipschitz.spectral import UnknownModule, network_norm, operator_norm
from tests.support.linear_maps import bound_of, linear_network, matrix_of, norm_of, randomize


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
    ("kernel", "stride", "padding", "windows"), [(3, 2, 1, 4), (2, 2, 0, 1), (3, 1, 1, 9), ((2, 5), (1, 2), 0, 6)]
)
def test_a_max_pool_moves_no_further_than_the_windows_of_a_pixel_allow(kernel, stride, padding, windows):
    pool = nn.MaxPool2d(kernel, stride, padding)
    bound = bound_of(pool, (1, 11, 11)).high
    assert bound == pytest.approx(math.sqrt(windows))
    images = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
    images[..., 4, 4] = 1  # in as many windows as any
    moved = (pool(images) - pool(torch.zeros_like(images))).norm().item()
    assert 0 < moved <= bound
    if kernel == 3:  # and 5, 5 for a stride of 2
        images = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
        images[..., 5, 5] = 1
        assert (pool(images)).norm().item() == pytest.approx(bound)


def test_a_library_network_is_bounded_where_every_layer_is_known(monkeypatch):
    roughly = partial(operator_norm, dense=16, steps=20)  # the same for both, which differ in their layers' names only
    monkeypatch.setattr("cssl_cli.theory.lipschitz.spectral.operator_norm", roughly)
    own = build_encoder({"name": "resnet18", "width": 64, "stem": "imagenet"})
    theirs = build_encoder({"name": "torchvision", "model": "resnet18"})
    materialize(own, torch.Generator().manual_seed(0))
    materialize(theirs, torch.Generator().manual_seed(1))
    theirs.load_state_dict(own.state_dict())
    bounds = [
        network_norm(net.double().eval(), input_shape=(3, 9, 9), std=(1.0,) * 3, generator=stream(0, "s"))
        for net in (own, theirs)
    ]
    assert bounds[0] == bounds[1]
    with pytest.raises(UnknownModule, match="SqueezeNet"):
        squeezed = build_encoder({"name": "torchvision", "model": "squeezenet1_1"})
        network_norm(squeezed, input_shape=(3, 33, 33), std=(1.0,) * 3, generator=stream(0, "s"))
