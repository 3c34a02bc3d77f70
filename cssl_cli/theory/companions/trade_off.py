"""The trade-off of Cui, Wen and Wang: how far apart an image's views are, and how near those of its class.

"An Augmentation-Aware Theory for Self-Supervised Contrastive Learning", ICML 2025, arXiv 2505.22196, bounds the
supervised risk by the unsupervised risk and two distances: the largest between two views of an image, and the least
between a view of it and one of another image of its class. A stronger augmentation raises the first and lowers the
second; the best one is where their sum is least, in pixels or in features. (docs/theory.md, 13.)

What this was checked against. The abstract has the bound and its trade-off in words, a summary by others the two
distances, and that linear accuracy is best where their sum is least. The formulas were not available. That distances
are Euclidean and not squared, features of unit norm, and both distances means over images is our reading; and the clean
image counts as one of its views, as elsewhere here.

Intervals are by the jackknife, an image left out at a time within its class. Its variance is not too small on average
(Efron and Stein, Annals of Statistics 1981): that of an image's own distances is, as one image is the nearest of many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.features.geometry import distances
from cssl_cli.features.intervals import MIN_BOOTSTRAP_IMAGES
from cssl_cli.theory.estimate import Absent, Estimate, Interval, Quantity, Sample
from cssl_cli.theory.spectrum.jackknife import student_interval
from cssl_cli.theory.table import FeatureTable

BLOCK_NUMBERS = 4_000_000  # of the vectors, in float64 at a time


def trade_off(table: FeatureTable, within: Sequence[Tensor]) -> dict[str, Quantity]:
    """`same_image`, the largest distance of two views of an image, and `same_class`, the least distance of a view of it
    to one of another image of its class, both means over images; `trade_off`, their sum. None is negative.

    within: the augmented distances (n_k, n_k) of the images of each class; none without labels.
    """
    spans = diameters(table.features)
    if table.labels is None:
        alone = Extremes(spans, spans.new_full((len(spans), 2), torch.inf), torch.zeros_like(spans, dtype=torch.int64))
        unknown = Absent("the images have no labels")
        return trade_off_of([alone], table.num_views) | {"trade_off": unknown, "same_class": unknown}
    pairs = zip(table.members, within, strict=True)
    return trade_off_of([Extremes.of(spans[images], among) for images, among in pairs if len(images)], table.num_views)


def diameters(vectors: Tensor) -> Tensor:
    """Largest distance (N,), float64, between two of the views of each image, vectors (N, V, D)."""
    blocks = vectors.split(max(1, BLOCK_NUMBERS // vectors[0].numel()))
    return torch.cat([distances(block.double(), block.double()).amax(dim=(1, 2)) for block in blocks])


@dataclass(frozen=True)
class Extremes:
    """Of each of the n images of a class, the largest distance of two of its views, `spans` (n,), and the augmented
    distances `nearest` (n, 2) to the nearest two others, the first of which is number `place` (n,).

    They are infinite where there is no other image.
    """

    spans: Tensor
    nearest: Tensor
    place: Tensor

    @classmethod
    def of(cls, spans: Tensor, among: Tensor) -> Extremes:
        """From the augmented distances (n, n) among the images, n ≥ 1."""
        found = among.clone().fill_diagonal_(torch.inf).topk(min(2, len(among)), largest=False)
        return cls(spans, F.pad(found.values, (0, 2 - found.values.shape[1]), value=torch.inf), found.indices[:, 0])

    def means_without(self) -> Tensor:
        """(2, n): the means over the class of `spans` and of the distance to the nearest other, each image left out."""
        first, second = self.nearest.unbind(dim=1)
        farther = torch.zeros_like(first).index_add_(0, self.place, second - first)
        sums = torch.stack([self.spans.sum() - self.spans, first.sum() - first + farther])
        return sums / (len(self.spans) - 1)


def trade_off_of(classes: Sequence[Extremes], num_views: int) -> dict[str, Quantity]:
    """The quantities of the images of all `classes`, none of them empty, with so many views."""
    spans = torch.cat([one.spans for one in classes])
    nearest = torch.cat([one.nearest[:, 0] for one in classes if len(one.spans) > 1] or [spans[:0]])
    largest, least = spans.mean().item(), nearest.mean().item()
    errors = _standard_errors(classes)

    def interval(value: float, place: int) -> Interval | None:
        if errors is None or not math.isfinite(errors[place]):
            return None
        return student_interval(value, errors[place], degrees=len(spans) - len(classes), least=0.0)

    of_image: Quantity = Absent("the largest distance of two views of an image takes two stored views")
    if num_views > 1:
        of_image = Estimate(
            largest,
            "mean over images of the largest distance between two stored views, the clean one included; finitely many "
            "views make it too small",
            "low",
            Sample(len(spans), num_views),
            interval(largest, 0),
        )
    of_class: Quantity = Absent("the distance to another image of a class takes a class with two images")
    if math.isfinite(least):
        of_class = Estimate(
            least,
            "mean over images of the least distance of a stored view, the clean one included, to one of another image "
            "of the class; finitely many views and images make it too large: compare at equal numbers of both",
            "high",
            Sample(len(nearest), num_views),
            interval(least, 1),
        )
    both = next((part for part in (of_class, of_image) if isinstance(part, Absent)), None) or Estimate(
        largest + least,
        "mean largest distance of two stored views of an image, which is too small, plus mean least distance of its "
        "views to those of another image of its class, which is too large: compare at equal numbers of images and "
        "views",
        "either",
        Sample(len(nearest), num_views),
        interval(largest + least, 2),
    )
    return {"trade_off": both, "same_image": of_image, "same_class": of_class}


def _standard_errors(classes: Sequence[Extremes]) -> list[float] | None:
    """Of the two means and of their sum; None if a class has too few images."""
    if min(len(one.spans) for one in classes) < MIN_BOOTSTRAP_IMAGES:
        return None
    squares = torch.zeros(3, dtype=torch.float64)
    for one in classes:
        without = one.means_without().cpu()
        deviations = torch.cat([without, without.sum(dim=0, keepdim=True)])
        deviations -= deviations.mean(dim=1, keepdim=True)
        num = len(one.spans)
        squares += num * (num - 1) * deviations.square().sum(dim=1)
    return (squares.sqrt() / sum(len(one.spans) for one in classes)).tolist()
