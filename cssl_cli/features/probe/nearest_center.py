"""The paper's classifier G_f: the nearest class centre, a mean over augmented views. (docs/theory.md, 1.)"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.features.geometry import distances, unit_norm

TIED = -1  # no class: two centres are equally near


class CenterAccumulator:
    """Class centres (K, D) of unit-norm features, gathered block by block in float64."""

    def __init__(self, num_classes: int, num_features: int, *, keep: bool = False) -> None:
        """`keep`: whether the mean of each image's views is kept for `centers_of`, which takes as much as features."""
        self._kept: list[Tensor] | None = [] if keep else None
        self._labels: list[Tensor] = []
        self._sums = torch.zeros(num_classes, num_features, dtype=torch.float64)
        self._counts = torch.zeros(num_classes, dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Adds raw features (B, V, D) of V augmented views of B images with labels (B,); scales them itself.

        All V views must be draws from the augmentation; the clean image is not one.
        """
        means = unit_norm(features.double()).mean(dim=1).cpu()
        self._sums.index_add_(0, labels.cpu(), means)
        self._counts += labels.cpu().bincount(minlength=len(self._counts))
        if self._kept is not None:
            self._kept.append(means.float())
            self._labels.append(labels.cpu())

    def centers(self) -> Tensor:
        """μ_k (K, D), float64 on the CPU: means over the images of each class; NaN for a class without images."""
        return self._sums / self._counts.unsqueeze(1)

    def centers_of(self, rows: Tensor) -> Tensor:
        """The same of some of the images, by their places in the order in which they were added."""
        assert self._kept is not None, "made without keep"
        if len(self._kept) > 1:
            self._kept, self._labels = [torch.cat(self._kept)], [torch.cat(self._labels)]
        part = CenterAccumulator(*self._sums.shape)
        part._sums.index_add_(0, self._labels[0][rows], self._kept[0][rows].double())
        part._counts += self._labels[0][rows].bincount(minlength=len(self._counts))
        return part.centers()


def nearest_center_predict(features: Tensor, centers: Tensor) -> Tensor:
    """The class (N,) whose centre (K, D) is nearest to the unit-norm version of features (N, D).

    `TIED` if two centres are nearest at exactly the same distance, which the theory counts as an error. A class whose
    centre is NaN is never predicted.
    """
    distance = center_distances(features, centers)
    nearest, prediction = distance.min(dim=1)
    tied = (distance == nearest.unsqueeze(1)).sum(dim=1) > 1
    return prediction.masked_fill(tied, TIED)


def center_distances(features: Tensor, centers: Tensor) -> Tensor:
    """Distances (N, K), float64, of the unit-norm version of features (N, D) to centres (K, D); infinite for NaN."""
    centers = centers.to(features.device, torch.float64)
    blocks = [distances(unit_norm(block.double()), centers) for block in features.split(4096)]
    return torch.cat(blocks).nan_to_num(nan=torch.inf)
