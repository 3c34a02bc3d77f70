"""Features in less than float32, on request, and the resulting error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RoughEncoder:
    """An encoder on the device in `precision`, compared with float32 on some of the batches.

    These are the first, second, third, fifth, ninth, … batch: few, but spread over all images.
    """

    def __init__(self, encoder: nn.Module, make_copy: Callable[[], nn.Module], precision: str) -> None:
        """`encoder` is the float32 one, `make_copy` returns another like it."""
        self.exact = encoder
        self.rough = make_copy().to(torch.bfloat16) if precision == "bfloat16" else encoder
        self.precision = precision
        self.num_batches = 0
        self.sums: list[Tensor] = []  # of each compared batch: squared error, length and spread
        self.largest: list[Tensor] = []
        self.num_views = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, D), float32, of normalised images (B, C, H, W)."""
        if self.precision == "bfloat16":
            features = self.rough(images.to(torch.bfloat16)).float()
        else:
            with _tf32():
                features = self.rough(images)
        self.num_batches += 1
        if (self.num_batches - 1) & (self.num_batches - 2) == 0:
            self._compare(features.double(), self.exact(images).double())
        return features

    def _compare(self, features: Tensor, exact: Tensor) -> None:
        errors, lengths = (features - exact).square().sum(dim=1), exact.square().sum(dim=1)
        spread = (exact - exact.mean(dim=0)).square().sum()
        self.sums.append(torch.stack([errors.sum(), lengths.sum(), spread]))
        self.largest.append(torch.where(lengths > 0, errors / lengths, 0).max())
        self.num_views += len(features)

    @property
    def error(self) -> dict[str, float | int | None]:
        """The error against float32 over `num_views` views.

        `of_length`: its root mean square over that of the features' lengths; `largest`: the largest error of a view
        over its length; `of_spread`: its root mean square over that of the distances from the batch's mean feature,
        None if all features are equal.
        """
        error, length, spread = torch.stack(self.sums).sum(dim=0).tolist()
        return {
            "of_length": math.sqrt(error / length) if length > 0 else 0.0,
            "largest": math.sqrt(torch.stack(self.largest).max().item()),
            "of_spread": math.sqrt(error / spread) if spread > 0 else None,
            "num_views": self.num_views,
        }


@contextmanager
def _tf32() -> Iterator[None]:
    """CUDA's convolutions take their inputs with 10 bits of mantissa."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
