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
    """Sums over images, of which the covariances are made; those of disjoint sets of images add up.

    num_views: m, of each image. images: (K,), of each class; a single class without labels. first: (K, D), sums of the
    images' mean features φ̄. of_views: (D, D), sum over images of the mean of φφᵀ over views. of_images: (D, D), sum of
    φ̄φ̄ᵀ. noise: (K,) the factor of an image's φ̄φ̄ᵀ in `of_noise`, (D, D), from which the noise in the class means is
    estimated. It depends on the sizes of the classes among all images of the table.
    """

    num_views: int
    images: Tensor
    first: Tensor
    of_views: Tensor
    of_images: Tensor
    noise: Tensor
    of_noise: Tensor

    def without(self, part: ViewMoments) -> ViewMoments:
        """Those of the other images, when `part` is of some of them."""
        return ViewMoments(
            self.num_views,
            self.images - part.images,
            self.first - part.first,
            self.of_views - part.of_views,
            self.of_images - part.of_images,
            self.noise,
            self.of_noise - part.of_noise,
        )


@dataclass(frozen=True)
class ViewCovariances:
    """Σ `of_view`, M `of_pair` and B `of_classes`, each (D, D) float64; B is None without two classes.

    M is over distinct views, so that the noise of single views is not in it. From B the noise of the class means is
    taken away: the covariance of the images' mean features within a class over n_k. Both are unbiased but for the mean
    over all images, which is estimated from the same images.
    """

    of_view: Tensor
    of_pair: Tensor
    of_classes: Tensor | None
    num_images: int
    num_views: int


def view_moments(features: Tensor, labels: Tensor | None, *, num_classes: int, groups: int = 1) -> list[ViewMoments]:
    """The moments of `groups` disjoint parts of the images: features (N, m, D) of m ≥ 2 augmented views each.

    The images of each class are dealt to the groups in turn. Computed in float64, whatever the features are. Classes of
    fewer than two images do not count as classes.
    """
    num_images, num_views, width = features.shape
    if labels is None:
        labels, num_classes = torch.zeros(num_images, dtype=torch.int64), 1
    labels = labels.cpu()
    noise = _noise_factors(labels.bincount(minlength=num_classes))
    found = []
    dealt = labels.argsort(stable=True)
    for group in range(groups):
        rows = dealt[group::groups].sort().values
        of_views = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        of_images, of_noise = torch.zeros_like(of_views), torch.zeros_like(of_views)
        first = of_views.new_zeros(num_classes, width)
        for block in rows.split(BLOCK):
            views = features[block.to(features.device)].double()
            means, of_block = views.mean(dim=1), labels[block].to(features.device)
            flat = views.flatten(0, 1)
            of_views += flat.T @ flat / num_views
            of_images += means.T @ means
            first.index_add_(0, of_block, means)
            if not _all_equal(noise):
                of_noise += means.T @ (means * noise.to(features.device)[of_block].unsqueeze(1))
        if _all_equal(noise):  # classes of one size: nothing to weight
            of_noise = noise[0].item() * of_images
        counts = labels[rows].bincount(minlength=num_classes)
        found.append(ViewMoments(num_views, counts, first, of_views, of_images, noise, of_noise))
    return found


def _noise_factors(sizes: Tensor) -> Tensor:
    """p(1 − p) / (n (n − 1)) for the share p of each class (K,) of n images; 0 where n is below 2."""
    counted = torch.where(sizes >= 2, sizes, 0).double()
    shares = counted / counted.sum().clamp(min=1)
    return torch.where(sizes >= 2, shares * (1 - shares) / (counted * (counted - 1)).clamp(min=1), 0.0)


def _all_equal(values: Tensor) -> bool:
    return bool((values == values[0]).all())


def total(parts: Sequence[ViewMoments]) -> ViewMoments:
    """The moments of all parts together."""
    whole = parts[0]
    for part in parts[1:]:
        whole = ViewMoments(
            whole.num_views,
            whole.images + part.images,
            whole.first + part.first,
            whole.of_views + part.of_views,
            whole.of_images + part.of_images,
            whole.noise,
            whole.of_noise + part.of_noise,
        )
    return whole


def view_covariances(moments: ViewMoments) -> ViewCovariances:
    """The covariances of the images that the moments are of."""
    num_images, num_views = int(moments.images.sum()), moments.num_views
    mean = moments.first.sum(dim=0) / num_images
    centre = torch.outer(mean, mean)
    of_view = moments.of_views / num_images - centre
    of_mean = moments.of_images / num_images - centre
    # E φ̄φ̄ᵀ = M + (Σ − M) / m: the noise of single views is taken away.
    of_pair = (num_views * of_mean - of_view) / (num_views - 1)
    return ViewCovariances(of_view, of_pair, _between_classes(moments), num_images, num_views)


def _between_classes(moments: ViewMoments) -> Tensor | None:
    kept = ((moments.images > 0) & (moments.noise > 0)).nonzero().squeeze(1)
    if len(kept) < 2:
        return None
    sizes, noise = moments.images[kept].double().to(moments.first.device), moments.noise[kept].to(moments.first.device)
    shares = sizes / sizes.sum()
    means = moments.first[kept] / sizes.unsqueeze(1)
    deviations = means - shares @ means
    between = deviations.T @ (deviations * shares.unsqueeze(1))
    # Σ_k p(1 − p)/n times the covariance within class k. Where images were left out, the factors of all images are too
    # small, by a ratio that is the same for classes of one size, and a mean over classes of several.
    degrees = (moments.images - 1).clamp(min=0).double()
    ratio = (_noise_factors(moments.images) @ degrees) / (moments.noise @ degrees).clamp(min=1e-300)
    within = moments.of_noise - means.T @ (means * (noise * sizes).unsqueeze(1))
    return between - within * ratio.item()
