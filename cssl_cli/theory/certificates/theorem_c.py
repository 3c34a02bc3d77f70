"""Theorem C: certificates along the directions between centres, the sharpest of the family. (docs/theory.md, 10.)

For k ≠ l and w = (μ_k − μ_l)/‖μ_k − μ_l‖, an image x₀ of class l is classified correctly if for every k

    T_k(x₀) = mean over x of max{ wᵀf(x₀) − wᵀf̄_x, [wᵀf(x₀) − min_v wᵀf(v)] + [max_v wᵀf(v) − wᵀf̄_x] } < ½‖μ_k − μ_l‖,

with the minimum over views of x₀ and the maximum over views of x, since T_k ≥ wᵀ(f(x₀) − μ_l). That inequality only
needs the first entry of the maximum, so it holds for any set of views behind the extremes: with few views the
certificate is sharper, and what more views lose is the cost of their spread along w.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.theory.certificates.chains import directional_margins
from cssl_cli.theory.certificates.conditions import certified
from cssl_cli.theory.certificates.error_bounds import bounds_from_certified, is_vacuous, margins_of_images
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Absent, Estimate, Quantity

QUANTITIES = (
    "error_bound",
    "error_bound_per_class",
    "certified_share_per_class",
    "by_views",
    "margin_quantiles",
    "margin_median_per_class",
)


@dataclass(frozen=True)
class DirectionalCertificate:
    """For m′ = 1 … V stored views behind the extremes: `certified_by_views` (V, N) and `margins_by_views` (V, N), the
    least margin ½‖μ_k − μ_l‖ − T_k over the other classes."""

    certified_by_views: Tensor
    margins_by_views: Tensor

    @property
    def certified(self) -> Tensor:
        """Which images (N,) are certified with all stored views."""
        return self.certified_by_views[-1]


def certify_c(geometry: ClassGeometry | Absent) -> DirectionalCertificate | Absent:
    """Tests every image of the table; O(n log n) for each class, rival and number of views."""
    if isinstance(geometry, Absent):
        return geometry
    shape = (geometry.table.num_views, geometry.table.num_images)
    passed = torch.zeros(shape, dtype=torch.bool, device=geometry.centers.device)
    margins = geometry.centers.new_zeros(shape)
    for own, images in enumerate(geometry.members):
        features = geometry.features(own)
        of_class = directional_margins(features, features, geometry.means[images], geometry.centers, own, itself=True)
        passed[:, images] = certified(of_class, geometry.centers, own, geometry.largest_norm)
        margins[:, images] = of_class.amin(dim=2)
    return DirectionalCertificate(passed, margins)


def certificate_c(
    geometry: ClassGeometry | Absent, certified_c: DirectionalCertificate | Absent
) -> dict[str, Quantity]:
    """The bounds on the table's error by Theorem C, `QUANTITIES`, from the result of `certify_c`."""
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    if isinstance(certified_c, Absent):
        return dict.fromkeys(QUANTITIES, certified_c)
    estimator = (
        "share of images not certified by the chain of views along the directions between centres (Theorem C); "
        f"{geometry.views_note}"
    )
    by_views = (~certified_c.certified_by_views).double().mean(dim=1).tolist()
    return {
        **bounds_from_certified(geometry, certified_c.certified, estimator),
        "by_views": Estimate(
            by_views,
            "the bound with suprema over the first 1, 2, … stored views only, the clean one first; centres and means "
            "over all augmented views throughout, so that each bounds the same error, that of these images with their "
            "own centres (vacuous: none is below chance)",
            "exact for the table",
            geometry.sample,
            vacuous=is_vacuous(min(by_views), geometry.chance),
            warning=geometry.in_table_warning,
        ),
        **margins_of_images(geometry, certified_c.margins_by_views[-1]),
    }
