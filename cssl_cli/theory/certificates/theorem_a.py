"""Theorem A: certificates by thresholds, class by class; the one closest to the paper's theorem. (docs/theory.md, 10.)

For any δ, ε and any set G of images of class l, all of diameter at most ε and pairwise within d_A^f ≤ δ, with share s
of the class,

    D̄ = min{ s b + 2r(1 − s), (s b² + 4r²(1 − s) − V_l)₊^½ },    b = min(2r, δ + 2ε),  V_l = E‖f(v) − μ_l‖²,

bounds ‖f(x₀) − μ_l‖ for x₀ in G. If D̄ meets the ball or the cap condition against each other class, all of G is
classified correctly, and at most the share 1 − s of the class is not. δ and ε are chosen for each class from quantiles
of its distances and diameters, to certify the largest G found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.theory.certificates.error_bounds import bounds_from_certified, per_class
from cssl_cli.theory.certificates.threshold_search import GoodSet, Part, ThresholdSearch
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.concentration.main_parts import main_part, size_bound
from cssl_cli.theory.estimate import Absent, Quantity

QUANTITIES = (
    "error_bound",
    "certified_per_class",
    "certified_share_per_class",
    "margin_per_class",
    "good_share_per_class",
    "delta_per_class",
    "epsilon_per_class",
)


@dataclass(frozen=True)
class ThresholdCertificate:
    """Which images (N,) are certified, and the set behind it for each class with images."""

    certified: Tensor
    sets: list[GoodSet]


def certify_a(geometry: ClassGeometry | Absent, within: Sequence[Tensor]) -> ThresholdCertificate | Absent:
    """The best set of every class; `within` holds the distances d_A^f (n_k, n_k) of each of the table's K classes."""
    if isinstance(geometry, Absent):
        return geometry
    sets = [_Cliques(geometry, own, within[label]).best() for own, label in enumerate(geometry.classes)]
    passed = torch.zeros(geometry.table.num_images, dtype=torch.bool, device=geometry.centers.device)
    for good in sets:
        passed[good.images] = good.certified
    return ThresholdCertificate(passed, sets)


def certificate_a(geometry: ClassGeometry | Absent, certified_a: ThresholdCertificate | Absent) -> dict[str, Quantity]:
    """The bound on the table's error by Theorem A and its terms, `QUANTITIES`, from the result of `certify_a`.

    A class that is not certified shows the set that came nearest to it.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    if isinstance(certified_a, Absent):
        return dict.fromkeys(QUANTITIES, certified_a)
    sets = certified_a.sets
    estimator = (
        "share of images outside the certified sets, pairwise within δ of one another and of diameter at most ε, found "
        f"for quantiles of δ and ε in each class, with the ball or the cap condition (Theorem A); {geometry.views_note}"
    )

    def of_class(values: Sequence[float], what: str) -> Quantity:
        shown = "; of the certified set, or of the one that came nearest to it"
        return per_class(geometry, geometry.centers.new_tensor(values), what + shown)

    bounds = bounds_from_certified(geometry, certified_a.certified, estimator)
    return {
        "error_bound": bounds["error_bound"],
        "certified_share_per_class": bounds["certified_share_per_class"],
        "certified_per_class": per_class(
            geometry, geometry.centers.new_tensor([float(good.certified) for good in sets]), "1 for a class certified"
        ),
        "margin_per_class": of_class(
            [good.margin for good in sets],
            "lower bound on how far its images lie on their side of the bisector to the nearest rival centre",
        ),
        "good_share_per_class": of_class([good.share for good in sets], "share s of the class"),
        "delta_per_class": of_class([good.delta for good in sets], "δ, a distance of features"),
        "epsilon_per_class": of_class([good.epsilon for good in sets], "ε, a distance of features"),
    }


class _Cliques(ThresholdSearch):
    """Cliques of the graph d_A^f ≤ δ on the images of diameter at most ε: any two members are one step apart."""

    def limits(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sizes = np.empty(len(self.deltas), dtype=np.int64)
        for delta in np.unique(self.deltas):
            adjacent = self.graph(delta, self.num_images)
            # Neighbours among the first images, for every count of them at once.
            tight = np.unique(self.num_tight)
            parts = np.add.reduceat(adjacent, np.r_[0, tight[:-1]], axis=1, dtype=np.int64)
            for size, degrees in zip(tight, parts.cumsum(axis=1).T, strict=True):
                sizes[(self.deltas == delta) & (self.num_tight == size)] = size_bound(degrees[:size])
        return sizes, np.ones_like(sizes)

    def part(self, place: int) -> Part:
        return Part(main_part(self.graph(self.deltas[place], self.num_tight[place])), 1)
