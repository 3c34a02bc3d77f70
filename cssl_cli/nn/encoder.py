"""Building encoders by name, the multilayer perceptrons that methods put on top of them, and the weights of both.

All weights are drawn from one explicit generator.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.errors import unknown_name
from cssl_cli.nn.batch_norm import BatchNorm1d
from cssl_cli.nn.encoders import ENCODERS
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.nn.recompute import Encoder


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


def build_encoder(settings: Mapping[str, Any], channels: int = 3) -> Encoder:
    """The encoder of a recipe's `encoder` block, for images of so many channels; `materialize` gives it its weights.

    Built on the meta device, without storage, so that building draws nothing from torch's global generator.
    """
    name = settings["name"]
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS, where="encoder.name")
    module = importlib.import_module(ENCODERS[name])
    of_architecture = {key: settings[key] for key in settings if key not in ("name", "weights", "weights_sha256")}
    with torch.device("meta"):
        encoder: Encoder = module.build(name, module.Settings(**of_architecture), channels)
    return encoder


def materialize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give a module on the meta device its storage on the CPU and its initial weights, drawn from `generator`.

    Convolutions: normal, Kaiming, fan-out (torchvision's ResNet), biases 0. Linear layers: uniform in ±1/√fan-in,
    weights and biases (torch's default). Batch norm: scale 1, shift 0. In the order of `module.modules()`. A library's
    encoder draws as its library does, from a seed that `generator` gives.
    """
    # What `to_empty` does, which loads sympy, more than a second, because it asks `empty_like` of tensors on meta.
    module._apply(lambda tensor: torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype))
    inside: set[nn.Module] = set()  # of what draws its weights itself
    for part in module.modules():
        if part in inside:
            continue
        if isinstance(part, LibraryEncoder):
            part.draw_weights(generator)
            inside.update(part.modules())
        elif isinstance(part, nn.Conv2d):
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
