"""Batch norms are folded where the graph shows that they follow a convolution, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cssl_cli.nn.folding import folded


class Parts(nn.Module):
    """A convolution and a norm, registered in this order; `forward` says in which order they run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)


class After(Parts):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images))


class Before(Parts):  # as in networks of pre-activation
    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.norm(images))


class Between(Parts):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images).relu())


class Beside(Parts):
    def forward(self, images: Tensor) -> Tensor:
        h = self.conv(images)
        return self.norm(h) + h


class Twice(Parts):
    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(images)))


class Looking(Parts):  # cannot be traced
    def forward(self, images: Tensor) -> Tensor:
        h = self.conv(images)
        return self.norm(h) if h.sum() > -1e9 else h


class Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class OfAnotherKind(After):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Own(4, 4, 3, padding=1, bias=False)


class Watched(After):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(_doubled)


def _doubled(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return 2 * output


@pytest.mark.parametrize("kind", [After, Before, Between, Beside, Twice, Looking, OfAnotherKind, Watched])
def test_only_a_norm_that_alone_takes_the_output_of_a_convolution_is_folded(kind: type[Parts]) -> None:
    generator = torch.Generator().manual_seed(0)
    network = kind().double()
    for tensor in (network.conv.weight, network.norm.running_mean, network.norm.weight, network.norm.bias):
        assert tensor is not None
        tensor.data.normal_(generator=generator)
    network.norm.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
    copy = folded(network)
    assert isinstance(copy.norm, nn.Identity) == (kind is After)
    images = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(copy(images), network.eval()(images), rtol=1e-10, atol=1e-10)
