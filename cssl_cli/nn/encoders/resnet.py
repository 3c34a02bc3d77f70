"""ResNets (He et al., CVPR 2016), as torchvision's, with a choice of stem and width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn

from cssl_cli.nn.batch_norm import BatchNorm2d
from cssl_cli.nn.encoders.residual import BasicBlock, Block, Bottleneck, stage
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import Added, Width


@dataclass(frozen=True, kw_only=True)
class Settings:
    """torchvision's ResNet, with a stem for small images unless another is chosen"""

    width: Width = 64
    """channels of the first stage; 64 as published"""
    stem: Annotated[Literal["small", "small_padding_2", "small_without_relu", "imagenet"], Added()] = "small"
    """small: 3x3, stride 1, no pooling; as solo-learn and lightly have that: small_padding_2, small_without_relu; imagenet: 7x7, stride 2, pooling"""  # noqa: E501


class ResNet(Encoder):
    """A ResNet with a choice of stem, `width` channels in the first stage, and no classifier.

    Input (B, C, H, W), C = `channels`, output (B, D) with D = `num_features` = 8 · width · block expansion. Parameter
    names are torchvision's. A `state_dict` of width 64 loads into torchvision's model of that name: with the stem
    `imagenet` as it is, with a small one once the model has it, too (Chen et al., ICML 2020, appendix B.9).
    """

    def __init__(
        self,
        block: type[Block],
        num_blocks: Sequence[int],
        *,
        width: int,
        stem: str,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        else:
            padding = 2 if stem == "small_padding_2" else 1
            self.conv1 = nn.Conv2d(channels, width, kernel_size=3, stride=1, padding=padding, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.relu = nn.Identity() if stem == "small_without_relu" else nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        deep = block.expansion * width
        self.layer1 = stage(block, width, width, num_blocks[0], stride=1)
        self.layer2 = stage(block, deep, 2 * width, num_blocks[1], stride=2)
        self.layer3 = stage(block, 2 * deep, 4 * width, num_blocks[2], stride=2)
        self.layer4 = stage(block, 4 * deep, 8 * width, num_blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Identity()
        self.num_features = 8 * deep

    def features(self, images: Tensor) -> Tensor:
        h = self.block(self._stem, images)
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in blocks:
                h = self.block(block, h)
        return self.avgpool(h).flatten(1)

    def _stem(self, images: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(images))))


_BLOCKS: Mapping[str, tuple[type[Block], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def build(name: str, settings: Settings, channels: int) -> ResNet:
    """The ResNet of that name as the recipe's `encoder` block says."""
    return ResNet(*_BLOCKS[name], width=settings.width, stem=settings.stem, channels=channels)
