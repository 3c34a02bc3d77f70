"""Covariances of a view, between the views of an image, and between the classes. (docs/theory.md, 16.)

With φ the features of a view, centred over all views: Σ = E φ(v)φ(v)ᵀ; M = E φ(v)φ(v′)ᵀ for two independent views of
one image; B the covariance of the class means. B ≼ M ≼ Σ in the population, since class means average images, and
images average views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 1024  # images whose views are put in float64 together


@dataclass(frozen=True)
class ViewMoments:
    """Sums over images, from which the covariances of any union of disjoint sets of images follow.

    num_views: m, of each image. images: (K,), of each class; a single class without labels. first: (K, D), sums of the
    images' mean features φ̄. of_views: (D, D), sum over images of the mean of φφᵀ over views. of_images: (K, D, D), sums
    of φ̄φ̄ᵀ.
    """

    num_views: int
    images: Tensor
    first: Tensor
    of_views: Tensor
    of_images: Tensor

    def __add__(self, other: ViewMoments) -> ViewMoments:
        assert self.num_views == other.num_views
        return ViewMoments(
            self.num_views,
            self.images + other.images,
            self.first + other.first,
            self.of_views + other.of_views,
            self.of_images + other.of_images,
        )

    def __sub__(self, other: ViewMoments) -> ViewMoments:
        assert self.num_views == other.num_views
        return ViewMoments(
            self.num_views,
            self.images - other.images,
            self.first - other.first,
            self.of_views - other.of_views,
            self.of_images - other.of_images,
        )


@dataclass(frozen=True)
class ViewCovariances:
    """Σ `of_view`, M `of_pair` and B `of_classes`, each (D, D) float64; B is None without two classes.

    M is over distinct views, so that the noise of single views is not in it. From B the noise of the class means is
    taken away: within-class covariance of the images' mean features over n_k. Both are unbiased but for the mean over
    all images, which is estimated from the same images.
    """

    of_view: Tensor
    of_pair: Tensor
    of_classes: Tensor | None
    num_images: int
    num_views: int


def view_moments(features: Tensor, labels: Tensor | None, *, num_classes: int) -> ViewMoments:
    """The moments of features (N, m, D) of m ≥ 2 augmented views each; float64, whatever the features are."""
    num_images, num_views, width = features.shape
    if labels is None:
        labels, num_classes = torch.zeros(num_images, dtype=torch.int64), 1
    labels = labels.to(features.device)
    of_views = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    of_images = of_views.new_zeros(num_classes, width, width)
    first = of_views.new_zeros(num_classes, width)
    for start in range(0, num_images, BLOCK):
        views = features[start : start + BLOCK].double()
        means, of_block = views.mean(dim=1), labels[start : start + BLOCK]
        flat = views.flatten(0, 1)
        of_views += flat.T @ flat / num_views
        first.index_add_(0, of_block, means)
        for label in of_block.unique().tolist():
            of_class = means[of_block == label]
            of_images[label] += of_class.T @ of_class
    return ViewMoments(num_views, labels.bincount(minlength=num_classes), first, of_views, of_images)


def view_covariances(moments: ViewMoments) -> ViewCovariances:
    """The covariances that the moments give; classes of fewer than two images count for Σ and M only."""
    num_images, num_views = int(moments.images.sum()), moments.num_views
    mean = moments.first.sum(dim=0) / num_images
    centre = torch.outer(mean, mean)
    of_view = moments.of_views / num_images - centre
    of_mean = moments.of_images.sum(dim=0) / num_images - centre
    # E φ̄φ̄ᵀ = M + (Σ − M) / m: the noise of single views is taken away.
    of_pair = (num_views * of_mean - of_view) / (num_views - 1)
    return ViewCovariances(of_view, of_pair, _between_classes(moments), num_images, num_views)


def _between_classes(moments: ViewMoments) -> Tensor | None:
    kept = (moments.images >= 2).nonzero().squeeze(1)
    if len(kept) < 2:
        return None
    sizes = moments.images[kept].double()
    shares = sizes / sizes.sum()
    means = moments.first[kept] / sizes.unsqueeze(1)
    deviations = means - shares @ means
    between = deviations.T @ (deviations * shares.unsqueeze(1))
    for label, size, share, mean in zip(kept.tolist(), sizes.tolist(), shares.tolist(), means, strict=True):
        within = (moments.of_images[label] - size * torch.outer(mean, mean)) / (size - 1)
        between -= share * (1 - share) / size * within
    return between


def total(parts: Sequence[ViewMoments]) -> ViewMoments:
    """The moments of all parts together."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole
