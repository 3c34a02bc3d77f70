"""Encoders: images in, features `h` (B, D) out, and the multilayer perceptrons that methods put on top of them.

The ResNets are torchvision's with the stem for small images (3×3 convolution of stride 1, no max-pool) and a width
setting; at width 64 their parameters load into plain torchvision. All weights are drawn from one explicit generator.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from cssl_cli.errors import unknown_name
from cssl_cli.nn.batch_norm import BatchNorm1d, BatchNorm2d
from cssl_cli.nn.recompute import Encoder

CHANNELS_OF_A_VECTOR = 16  # float32 numbers in AVX-512; 8 in AVX2


class ResNet(Encoder, TorchvisionResNet):
    """Torchvision's ResNet with the small-image stem, `width` channels in the first stage, and no classifier.

    Input (B, 3, H, W), output (B, D) with D = `num_features` = 8 · width · block expansion. Parameter names are
    torchvision's, so a `state_dict` of width 64 loads into `torchvision.models.resnet18` or `resnet50`.
    (He et al., CVPR 2016; stem as in Chen et al., ICML 2020, appendix B.9.)
    """

    _make_layer: Callable[..., Any]  # torchvision's

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], num_blocks: Sequence[int], *, width: int) -> None:
        nn.Module.__init__(self)  # torchvision's own constructor fixes the width at 64
        self._norm_layer = BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(block, width, num_blocks[0])
        self.layer2 = self._make_layer(block, 2 * width, num_blocks[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * width, num_blocks[2], stride=2)
        self.layer4 = self._make_layer(block, 8 * width, num_blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Identity()
        self.num_features = 8 * width * block.expansion
        for stage in (self.layer2, self.layer3, self.layer4):
            shortcut = stage[0].downsample[0]
            if shortcut.in_channels < CHANNELS_OF_A_VECTOR:
                stage[0].downsample[0] = StridedPointwiseConv2d(shortcut.in_channels, shortcut.out_channels)

    def features(self, images: Tensor) -> Tensor:
        h = self.block(self._stem, images)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                h = self.block(block, h)
        return self.avgpool(h).flatten(1)

    def _stem(self, images: Tensor) -> Tensor:
        return self.relu(self.bn1(self.conv1(images)))


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


class SmallEncoder(Encoder):
    """Four convolutions with batch norm and ReLU (strides 1, 2, 2, 2), then the mean over pixels: for CPUs.

    Input (B, 3, H, W), output (B, D) with D = `num_features` = 8 · width.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for stage, (num_in, num_out) in enumerate(pairwise(channels)):
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


def folded(module: nn.Module) -> nn.Module:
    """A copy for eval mode in which each batch norm that follows a convolution is part of the convolution's weights.

    The same function up to rounding, without a pass over the activations for every batch norm.
    """
    copied = copy.deepcopy(module).eval()
    for parent in copied.modules():
        for (name, layer), (next_name, following) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, following))
                setattr(parent, next_name, nn.Identity())
    return copied


class MLP(nn.Module):
    """Linear layers of the given `sizes` with ReLU between them: a projector (or predictor).

    With `batch_norm`, each hidden layer is normalised before its ReLU and carries no bias. Input (B, D), output
    (B, P) with P = `sizes[-1]`.
    """

    def __init__(self, num_inputs: int, sizes: Sequence[int], *, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in sizes[:-1]:
            layers.append(nn.Linear(num_inputs, size, bias=not batch_norm))
            if batch_norm:
                layers.append(BatchNorm1d(size))
            layers.append(nn.ReLU(inplace=True))
            num_inputs = size
        layers.append(nn.Linear(num_inputs, sizes[-1]))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


ENCODERS: Mapping[str, Callable[..., Encoder]] = {
    "resnet18": lambda *, width: ResNet(BasicBlock, [2, 2, 2, 2], width=width),
    "resnet50": lambda *, width: ResNet(Bottleneck, [3, 4, 6, 3], width=width),
    "small": lambda *, width: SmallEncoder(width=width),
}


def build_encoder(settings: Mapping[str, Any]) -> Encoder:
    """The encoder named by `settings["name"]`, without storage: `materialize` gives it its weights.

    Built on the meta device, so that building draws nothing from torch's global generator.
    """
    settings = dict(settings)
    name = settings.pop("name")
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS, where="encoder.name")
    with torch.device("meta"):
        return ENCODERS[name](**settings)


def materialize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give a module on the meta device its storage on the CPU and its initial weights, drawn from `generator`.

    Convolutions: normal, Kaiming, fan-out (torchvision's ResNet), biases 0. Linear layers: uniform in ±1/√fan-in,
    weights and biases (torch's default). Batch norm: scale 1, shift 0. In the order of `module.modules()`.
    """
    module.to_empty(device="cpu")
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound, generator=generator)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_running_stats()
            if part.affine:
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)
        else:
            own = [name for name, _ in part.named_parameters(recurse=False)]
            assert not own, f"no rule to initialise {own} of {type(part).__name__}"
    return module
