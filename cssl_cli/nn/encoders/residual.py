"""The blocks of ResNets (He et al., CVPR 2016), with the names and the order of torchvision's.

torchvision has them, too, but to import it takes as long as to import torch, in every command.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.nn.batch_norm import BatchNorm2d

CHANNELS_OF_A_VECTOR = 16  # float32 numbers in AVX-512; 8 in AVX2


def convolution(in_channels: int, out_channels: int, side: int, *, stride: int = 1) -> nn.Conv2d:
    """`side` × `side`, padded so that only the stride makes images smaller, without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=side, stride=stride, padding=side // 2, bias=False)


class StridedPointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution of stride 2 without bias, computed as one of stride 1 on every other pixel: the same function.

    For a channels_last input with fewer channels than a vector register holds, oneDNN writes past its buffer when it
    takes the gradient of a strided one's weights (its issue 6035): wrong gradients, or the end of the process.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, stride=2, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        # A bias there is once a batch norm has been folded in.
        return F.conv2d(input[:, :, ::2, ::2], self.weight, self.bias)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: (B, C, H, W) → (B, `channels`, H / stride, W / stride)."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 3, stride=stride)
        self.bn1 = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        h += x if self.downsample is None else self.downsample(x)
        return self.relu(h)


class Bottleneck(nn.Module):
    """A 3×3 convolution between two of 1×1, beside a shortcut: C → 4 · `channels`; the stride is that of the 3×3."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 1)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride=stride)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = convolution(channels, self.expansion * channels, 1)
        self.bn3 = BatchNorm2d(self.expansion * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        h += x if self.downsample is None else self.downsample(x)
        return self.relu(h)


Block = BasicBlock | Bottleneck


def stage(block: type[Block], in_channels: int, channels: int, num_blocks: int, *, stride: int) -> nn.Sequential:
    """`num_blocks` blocks, of which the first has the stride, and a projection where its shortcut does not fit."""
    out_channels = block.expansion * channels
    downsample = None
    if stride > 1 or in_channels != out_channels:
        if stride == 2 and in_channels < CHANNELS_OF_A_VECTOR:
            projection: nn.Conv2d = StridedPointwiseConv2d(in_channels, out_channels)
        else:
            projection = convolution(in_channels, out_channels, 1, stride=stride)
        downsample = nn.Sequential(projection, BatchNorm2d(out_channels))
    first = block(in_channels, channels, stride, downsample)
    return nn.Sequential(first, *(block(out_channels, channels, 1, None) for _ in range(num_blocks - 1)))
