"""A small convolutional network for CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from cssl_cli.nn.batch_norm import BatchNorm2d
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import Width


@dataclass(frozen=True, kw_only=True)
class Settings:
    """a small convolutional network for CPUs"""

    width: Width = 32
    """channels of the first stage"""


class SmallEncoder(Encoder):
    """Four convolutions with batch norm and ReLU (strides 1, 2, 2, 2), then the mean over pixels: for CPUs.

    Input (B, C, H, W), C = `channels`, output (B, D) with D = `num_features` = 8 · width.
    """

    def __init__(self, *, width: int, channels: int = 3) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for stage, (num_in, num_out) in enumerate(pairwise(sizes)):
            layers += [
                nn.Conv2d(num_in, num_out, kernel_size=3, stride=1 if stage == 0 else 2, padding=1, bias=False),
                BatchNorm2d(num_out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.num_features = 8 * width

    def features(self, images: Tensor) -> Tensor:
        h = images
        for first in range(0, len(self.layers), 3):
            h = self.block(self._stage, h, first)
        return h.mean(dim=(2, 3))

    def _stage(self, h: Tensor, first: int) -> Tensor:
        """A convolution, its batch norm and its ReLU, from the layer `first` on."""
        for layer in list(self.layers)[first : first + 3]:
            h = layer(h)
        return h


def build(name: str, settings: Settings, channels: int) -> SmallEncoder:  # noqa: ARG001
    """The small encoder as the recipe's `encoder` block says."""
    return SmallEncoder(width=settings.width, channels=channels)
