"""Encoders that store less during training: activations are recomputed in the backward pass, batches split into parts.

Gradients are those of the whole batch, up to rounding. Recomputation neither updates the running statistics of
batch norms nor draws other random numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cssl_cli.nn.batch_norm import BatchNorm2d, SplitBatchNorm2d


class Encoder(nn.Module, ABC):
    """A network from images (B, C, H, W) to features (B, D), D = `num_features`, whose training passes can `keep_less`.

    Its batch norms are of `BatchNorm2d`. `draws`: whether a training pass draws from torch's global generators.
    """

    num_features: int
    draws: bool = False
    micro_batch: int | None = None
    checkpoint_activations: bool = False

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """The network itself; its blocks are called through `block`."""

    def block(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """A part of the network, of which a training pass keeps only the inputs with `checkpoint_activations`."""
        if self.training and self.checkpoint_activations:
            return self._recomputed(function, *inputs)
        return function(*inputs)

    def keep_less(self, *, checkpoint_activations: bool, micro_batch: int | None, batch_size: int) -> None:
        """What training passes keep for the gradient, from now on.

        checkpoint_activations: the inputs of blocks only, within which activations are computed again (Chen et al.,
        arXiv 1604.06174). micro_batch: the images only, of which the network takes so many at a time, forward and once
        more backward: what follows the encoder sees the features of the whole batch, so that its loss is exact
        (GradCache, Gao et al., arXiv 2101.06983). Batch norms normalise each micro-batch apart, as on so many devices,
        and their running statistics follow the mean of a pass's micro-batches, as `SplitBatchNorm2d` has it. The
        sub-batches of such a norm, those of `batch_size` images, stay what they are: a micro-batch holds whole ones.
        """
        self.checkpoint_activations, self.micro_batch = checkpoint_activations, micro_batch
        for norm in self._norms():
            norm.set_statistics_aside()
            if isinstance(norm, SplitBatchNorm2d) and micro_batch is not None:
                assert norm.num_splits * micro_batch % batch_size == 0, "a part of a sub-batch in a micro-batch"
                norm.num_splits = norm.num_splits * micro_batch // batch_size
            if isinstance(norm, SplitBatchNorm2d):
                norm.num_views = 1  # of several views, only the statistics of the last would be set aside

    @property
    def keeps_less(self) -> bool:
        return self.checkpoint_activations or self.micro_batch is not None

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or not self.keeps_less:
            return self.features(images)
        norms = self._norms()
        if self.micro_batch is None:
            features = self.features(images)
            self._follow(norms, [part for norm in norms for part in norm.statistics()], 1)
            return features
        assert len(images) % self.micro_batch == 0, f"{len(images)} images in micro-batches of {self.micro_batch}"
        parts, sums = [], [torch.zeros_like(part) for norm in norms for part in norm.statistics()]
        for images_of_part in images.split(self.micro_batch):
            parts.append(self._recomputed(self.features, images_of_part))
            if norms:
                torch._foreach_add_(sums, [part for norm in norms for part in norm.statistics()])
        self._follow(norms, sums, len(parts))
        return torch.cat(parts)

    def _norms(self) -> list[BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, BatchNorm2d)]

    @staticmethod
    def _follow(norms: list[BatchNorm2d], sums: list[Tensor], num_batches: int) -> None:
        for norm, mean, variance in zip(norms, sums[::2], sums[1::2], strict=True):
            norm.follow(mean / num_batches, variance / num_batches)

    def _recomputed(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """The function's output, of which nothing is kept but the inputs where a gradient is wanted."""
        if not torch.is_grad_enabled():
            return function(*inputs)
        # To read the state of random generators would wait for a GPU: only where it is needed.
        output: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=self.draws)
        return output
