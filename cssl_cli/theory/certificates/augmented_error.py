"""The error of G_f on augmented views of new images, beside that on the clean ones. (docs/theory.md, 10.)

A random half of each class gives the centres, means over images and augmented views. The augmented views of every
image in the other half are classified; the error is the mean over images of the share of misclassified views.

The views of an image are correlated, so the interval treats images as the units. With mean p and variance s² of the n
shares within classes (over all, if a class has a single one), the images are worth n* = p(1 − p)n/s² independent views,
and the interval is that of Clopper and Pearson for n*p of n* (Korn and Graubard, Survey Methodology 1998); n* is at
most the number of all views, and n where the shares of a class are equal.
"""

from __future__ import annotations

import torch
from scipy.special import betaincinv, stdtrit
from torch import Tensor

from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.class_geometry import ClassGeometry, halves, misclassified
from cssl_cli.theory.estimate import Absent, Estimate, Interval, Quantity, Sample

QUANTITIES = ("views", "clean")
ROUNDING = 1e-20  # a variance of shares below this is none


def augmented_error(geometry: ClassGeometry | Absent, *, generator: torch.Generator) -> dict[str, Quantity]:
    """`views`, the error on augmented views of images outside the centres, and `clean`, on these images themselves.

    Both have intervals for the error of these centres on the population. `generator` draws the halves. A class with a
    single image only contributes its centre.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    if geometry.table.num_augmented < 1:
        return dict.fromkeys(QUANTITIES, Absent("there is no augmented view to classify"))
    centers, queries = split_in_halves(geometry, generator)
    if len(queries) == 0:
        return dict.fromkeys(QUANTITIES, Absent("a split takes two images of some class"))
    features, positions = geometry.table.features[queries], geometry.positions[queries]
    wrong = torch.stack([misclassified(views, positions, centers) for views in features.unbind(dim=1)], dim=1)
    clean, shares = int(wrong[:, 0].sum()), wrong[:, 1:].double().mean(dim=1)
    left_out = geometry.table.classes_below(2)
    split = f"centres of a random half of each class, the other {len(queries)} images tested"
    return {
        "views": Estimate(
            shares.mean().item(),
            f"share of an image's augmented views not strictly nearest to the centre of its class, mean over images; "
            f"{split}",
            "unbiased",
            Sample(len(queries), geometry.table.num_augmented),
            interval=share_interval(shares, positions, geometry.table.num_augmented),
            absent=left_out,
        ),
        "clean": Estimate(
            clean / len(queries),
            f"share of the same images not strictly nearest to it when clean; {split}",
            "unbiased",
            Sample(len(queries), 1),
            interval=clopper_pearson(clean, len(queries)),
            absent=left_out,
        ),
    }


def split_in_halves(geometry: ClassGeometry, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The centres (K′, D) of the larger half of each class, and the other images (n₂,)."""
    references, others = halves(geometry, generator)
    centers = [
        geometry.means[images[places]].mean(dim=0) for images, places in zip(geometry.members, references, strict=True)
    ]
    queries = [images[places] for images, places in zip(geometry.members, others, strict=True)]
    return torch.stack(centers), torch.cat(queries)


def share_interval(shares: Tensor, classes: Tensor, trials: int, confidence: float = 0.95) -> Interval | None:
    """Interval for the expectation of independent `shares` (n,), each of `trials` dependent trials; None for n < 2.

    `classes` (n,) are the shares' strata, whose sizes are fixed.
    """
    n = len(shares)
    if n < 2:
        return None
    mean, degrees, deviations = shares.mean().item(), n - 1, shares - shares.mean()
    _, place, sizes = classes.unique(return_inverse=True, return_counts=True)
    if int(sizes.min()) > 1:
        means = shares.new_zeros(len(sizes)).index_add_(0, place, shares) / sizes
        degrees, deviations = n - len(sizes), shares - means[place]
    variance = deviations.square().sum().item() / degrees
    effective = float(n)
    if variance > ROUNDING:
        effective = min(mean * (1 - mean) * n / variance, float(n * trials))
    error = (1 - confidence) / 2
    # The variance is an estimate, which widens the interval as much as Student's is wider than the normal one.
    effective = min(effective, effective * (_quantile(error, effective) / _quantile(error, degrees)) ** 2)
    wrong, right = mean * effective, (1 - mean) * effective
    low = float(betaincinv(wrong, right + 1, error)) if wrong > 0 else 0.0
    high = float(betaincinv(wrong + 1, right, 1 - error)) if right > 0 else 1.0
    return low, high


def _quantile(error: float, degrees: float) -> float:
    """Student's quantile."""
    return float(stdtrit(max(degrees, 1.0), error))
