"""Theorem B: certificates by an averaged chain of views, without threshold or clique. (docs/theory.md, 10.)

For an image x₀ of class l, the mean over the images x of its class of

    min{2r, ecc(x₀) + d_A^f(x₀, x) + rad(x)}    (alignment + concentration + alignment)

bounds ‖f(x₀) − μ_l‖, and so do two second moments (`chains.chain_reach`); x₀ is certified if that bound meets the ball
or the cap condition (`conditions`) against each other class. The bound competes with divergence, half the distance to
the nearest centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.theory.certificates.chains import chain_reach
from cssl_cli.theory.certificates.conditions import best_margins, certified, gaps
from cssl_cli.theory.certificates.error_bounds import bounds_from_certified, margins_of_images, per_class
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Absent, Quantity

QUANTITIES = (
    "error_bound",
    "error_bound_per_class",
    "certified_share_per_class",
    "eccentricity_per_class",
    "distance_per_class",
    "radius_per_class",
    "half_distance_per_class",
    "margin_quantiles",
    "margin_median_per_class",
)


@dataclass(frozen=True)
class ChainCertificate:
    """For each image: whether it is `certified`, its bound `reach` on ‖f(x₀) − μ_l‖, its least margin; all (N,)."""

    certified: Tensor
    reach: Tensor
    margins: Tensor


def certify_b(geometry: ClassGeometry | Absent, within: Sequence[Tensor]) -> ChainCertificate | Absent:
    """Tests every image; `within` holds the distances d_A^f (n_k, n_k) of each of the table's K classes."""
    if isinstance(geometry, Absent):
        return geometry
    reach, margins = torch.zeros_like(geometry.radius), torch.zeros_like(geometry.radius)
    passed = torch.zeros_like(reach, dtype=torch.bool)
    for own, images in enumerate(geometry.members):
        norms = geometry.clean_norms[images]
        spread_of_means = (geometry.means[images] - geometry.centers[own]).square().sum(dim=1).mean()
        of_class = chain_reach(
            within[geometry.classes[own]],
            eccentricity=geometry.eccentricity[images],
            farthest=torch.full_like(norms, 2 * geometry.largest_norm),
            radius=geometry.radius[images],
            diameter=geometry.diameter[images],
            spread_of_means=spread_of_means,
            spread_of_views=spread_of_means + geometry.scatter[images].mean(),
            offset=geometry.offset[images],
        )
        of_rivals = best_margins(
            of_class, geometry.centers, own, least_norm=norms, largest_norm=norms, radius=geometry.largest_norm
        )
        reach[images] = of_class
        margins[images] = of_rivals.amin(dim=1)
        passed[images] = certified(of_rivals, geometry.centers, own, geometry.largest_norm)
    return ChainCertificate(passed, reach, margins)


def certificate_b(
    geometry: ClassGeometry | Absent, within: Sequence[Tensor], certified_b: ChainCertificate | Absent
) -> dict[str, Quantity]:
    """The bounds on the table's error by Theorem B and the terms behind them, `QUANTITIES`.

    `within` and `certified_b` are the input and the result of `certify_b`.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    if isinstance(certified_b, Absent):
        return dict.fromkeys(QUANTITIES, certified_b)
    estimator = (
        "share of images not certified by the chain of views averaged over the class, with the ball or the cap "
        f"condition (Theorem B); {geometry.views_note}"
    )
    few_views = "a supremum over finitely many views is too small"
    distances = torch.stack([_mean_off_diagonal(within[label]) for label in geometry.classes])
    half = torch.stack([gaps(geometry.centers, own).min() / 2 for own in range(len(geometry.classes))])
    return {
        **bounds_from_certified(geometry, certified_b.certified, estimator),
        "eccentricity_per_class": per_class(
            geometry,
            geometry.class_means(geometry.eccentricity),
            f"alignment: mean over images of the largest distance of a view to the clean one; {few_views}",
            "low",
        ),
        "distance_per_class": per_class(
            geometry,
            distances,
            "concentration: mean over pairs of distinct images of the least distance between their views, the clean "
            "ones included; a minimum over finitely many views is too large",
            "high",
            absent=geometry.table.classes_below(2),
        )
        if not distances.isnan().all()
        else Absent("an augmented distance needs two images of a class"),
        "radius_per_class": per_class(
            geometry,
            geometry.class_means(geometry.radius),
            "alignment: mean over images of the largest distance of a view to the image's mean; a supremum over "
            "finitely many views is too small, the noise of their mean may make it too large",
            "either",
        ),
        "half_distance_per_class": per_class(
            geometry,
            half,
            "divergence: half the distance of the class's centre to the nearest other, centres as used for the "
            "certificate (their noise makes each distance too large, the least of several too small)",
            "either",
        ),
        **margins_of_images(geometry, certified_b.margins),
    }


def _mean_off_diagonal(distances: Tensor) -> Tensor:
    """Mean over pairs of distinct images; NaN for a class of a single image."""
    size = len(distances)
    return (distances.sum() - distances.diagonal().sum()) / (size * (size - 1) if size > 1 else torch.nan)
