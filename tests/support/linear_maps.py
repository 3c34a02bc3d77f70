"""Networks of random weights, and the matrices of linear maps."""

import math

import numpy as np
import torch
from torch import nn

from cssl_cli.host.randomness import stream
from cssl_cli.theory.lipschitz.spectral import network_norm


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


def linear_network(num_channels, seed):
    """Convolution, batch norm, mean over pixels, linear map, without a ReLU: one matrix."""
    parts = [nn.Conv2d(3, num_channels, 3, padding=1), nn.BatchNorm2d(num_channels)]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_channels, 3)]
    return randomize(nn.Sequential(*parts), seed)
