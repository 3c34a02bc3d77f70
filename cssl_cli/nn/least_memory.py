"""What training a network takes at least, found without computing anything."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_WITH_WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LeastMemory(NamedTuple):
    """Numbers: the trained `weights`; `kept`, what a training pass keeps of an image; the `outputs` of an image, D."""

    weights: int
    kept: int
    outputs: int


def least_memory(network: nn.Module, image: tuple[int, ...]) -> LeastMemory:
    """Of a network on the meta device that takes images of this shape (C, H, W).

    Only the inputs of convolutions and linear layers are counted, each once and without the images themselves: the
    gradients of their weights need them. What attention, norms and activations keep besides depends on the kernels.
    """
    inputs: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if module.weight.requires_grad:
            inputs.append(arguments[0])

    handles = [part.register_forward_pre_hook(note) for part in network.modules() if isinstance(part, _WITH_WEIGHTS)]
    training, images = network.training, torch.empty(2, *image, device="meta")
    try:
        with torch.enable_grad():
            outputs = network.train()(images)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    kept: dict[int, int] = {}
    for one in inputs:  # several layers may read the same storage
        storage = one.untyped_storage()._cdata
        kept[storage] = max(kept.get(storage, 0), one.numel())
    kept.pop(images.untyped_storage()._cdata, None)
    weights = sum(one.numel() for one in network.parameters() if one.requires_grad)
    return LeastMemory(weights, sum(kept.values()) // 2, outputs.shape[1])
