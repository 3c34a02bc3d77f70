"""Theorem A: certificates by thresholds, class by class; the reading nearest the paper's theorem. (docs/theory.md, 10.)

For any δ, ε and any set G of images of class l, all of diameter at most ε and pairwise within d_A^f ≤ δ, a share s of
the class,

    D̄ = min{ s b + 2r(1 − s), (s b² + 4r²(1 − s) − V_l)₊^½ },    b = min(2r, δ + 2ε),  V_l = E‖f(v) − μ_l‖²,

bounds ‖f(x₀) − μ_l‖ for x₀ in G. If D̄ meets, for each other class, the ball or the cap condition, all of G is
classified right, and at most the share 1 − s of the class is not. δ and ε are chosen for each class from quantiles of
its distances and diameters, so that the largest G found is certified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.theory.augmented_distance import TOLERANCE
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.conditions import SQUARE_PAD, best_margins, certified
from cssl_cli.theory.error_bounds import bounds_from_certified, per_class
from cssl_cli.theory.estimate import Absent, Quantity
from cssl_cli.theory.main_parts import main_part, pairs_grid, quantile_grid, size_bound

QUANTITIES = (
    "error_bound",
    "certified_per_class",
    "certified_share_per_class",
    "margin_per_class",
    "good_share_per_class",
    "delta_per_class",
    "epsilon_per_class",
)

# A certified G is a large share s of its class, and takes s² of the pairs: D̄ ≥ 2r(1 − s) − rounding must stay below
# what the cap allows, 0.82 r for a simplex of ten centres and 1.42 r at the very best.
EPSILON_LEVELS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
DELTA_LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MAX_SEARCHES = 20  # cliques looked for in a class


@dataclass(frozen=True)
class GoodSet:
    """A set G of a class: its images (a tensor of places in the table), what it was found with, and its margin.

    `margin` is the least over the other classes, `certified` says whether it is positive beyond rounding.
    """

    images: Tensor
    share: float
    delta: float
    epsilon: float
    margin: float
    certified: bool


@dataclass(frozen=True)
class ThresholdCertificate:
    """Which images (N,) are certified, and the set behind it for each class with images."""

    certified: Tensor
    sets: list[GoodSet]


def certify_a(geometry: ClassGeometry | Absent, within: Sequence[Tensor]) -> ThresholdCertificate | Absent:
    """The best set of every class; `within` are the distances d_A^f (n_k, n_k) of each of the table's K classes."""
    if isinstance(geometry, Absent):
        return geometry
    sets = [_ClassSearch(geometry, own, within[label]).best() for own, label in enumerate(geometry.classes)]
    passed = torch.zeros(geometry.table.num_images, dtype=torch.bool, device=geometry.centers.device)
    for good in sets:
        passed[good.images] = good.certified
    return ThresholdCertificate(passed, sets)


def certificate_a(
    geometry: ClassGeometry | Absent,
    within: Sequence[Tensor],
    certificate: ThresholdCertificate | Absent | None = None,
) -> dict[str, Quantity]:
    """The bound on the table's error by Theorem A and what it rests on, `QUANTITIES`.

    A class that is not certified shows the set that came nearest to it. `certificate` is certify_a's, if at hand.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    certificate = certificate or certify_a(geometry, within)
    assert not isinstance(certificate, Absent)
    sets = certificate.sets
    estimator = (
        "share of images outside the certified sets, pairwise within δ of one another and of diameter at most ε, found "
        f"for quantiles of δ and ε in each class, with the ball or the cap condition (Theorem A); {geometry.views_note}"
    )

    def of_class(values: Sequence[float], what: str) -> Quantity:
        shown = "; of the certified set, or of the one that came nearest to it"
        return per_class(geometry, geometry.centers.new_tensor(values), what + shown)

    bounds = bounds_from_certified(geometry, certificate.certified, estimator)
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


class _ClassSearch:
    """The choice of δ, ε and G for one class, over a grid of quantiles."""

    def __init__(self, geometry: ClassGeometry, own: int, distances: Tensor) -> None:
        self.geometry, self.own = geometry, own
        members = geometry.members[own]
        # By diameter: the images of diameter at most ε are the first so many.
        self.diameters, order = geometry.diameter[members].sort(stable=True)
        self.images = members[order]
        self.num_images = len(members)
        self.distances = distances[order][:, order].cpu().numpy()
        delta_grid = pairs_grid([distances], DELTA_LEVELS)
        epsilon_grid = quantile_grid(self.diameters, EPSILON_LEVELS)
        self.deltas, self.epsilons = (grid.reshape(-1) for grid in np.meshgrid(delta_grid, epsilon_grid))
        self.num_tight = np.searchsorted(self.diameters.cpu().numpy(), self.epsilons, side="right")
        to_center = (geometry.means[members] - geometry.centers[own]).square().sum(dim=1)
        self.spread = (to_center + geometry.scatter[members]).mean().item()
        norms = geometry.clean_norms[members]
        self.least_norm, self.largest_norm = norms.min(), norms.max()

    def best(self) -> GoodSet:
        """The largest certified set found, else the one with the largest margin."""
        limits = self.size_limits()
        hopeful, margins = self.judge(limits)
        # The largest set is looked for first; among equals, at the least thresholds.
        order = np.lexsort((self.deltas + 2 * self.epsilons, -limits))
        chosen: GoodSet | None = None
        found = []
        for place in order[hopeful[order]][:MAX_SEARCHES]:
            if chosen and limits[place] <= len(chosen.images):
                break
            found.append(self.search(int(place)))
            if found[-1].certified and (chosen is None or found[-1].share > chosen.share):
                chosen = found[-1]
        if chosen:
            return chosen
        # To show what is missing, one set more: where its size, at most, would bring it nearest.
        found.append(self.search(int(margins.argmax())))
        return max(found, key=lambda good: good.margin)

    def size_limits(self) -> NDArray[np.int64]:
        """At every place of the grid, how large a set can be at most."""
        limits = np.empty(len(self.deltas), dtype=np.int64)
        for delta in np.unique(self.deltas):
            adjacent = self.graph(delta, self.num_images)
            # Neighbours among the first so many images, for all ε in one pass.
            sizes = np.unique(self.num_tight)
            parts = np.add.reduceat(adjacent, np.r_[0, sizes[:-1]], axis=1, dtype=np.int64)
            for size, degrees in zip(sizes, parts.cumsum(axis=1).T, strict=True):
                limits[(self.deltas == delta) & (self.num_tight == size)] = size_bound(degrees[:size])
        return limits

    def graph(self, delta: float, num_tight: int) -> NDArray[np.bool_]:
        """Which pairs of the first `num_tight` images are within δ."""
        adjacent = self.distances[:num_tight, :num_tight] <= delta
        np.fill_diagonal(adjacent, True)
        return adjacent

    def search(self, place: int) -> GoodSet:
        members = main_part(self.graph(self.deltas[place], self.num_tight[place]))
        sizes = np.zeros(len(self.deltas), dtype=np.int64)
        sizes[place] = len(members)
        passed, margins = self.judge(sizes)
        return GoodSet(
            images=self.images[torch.from_numpy(members).to(self.images.device)],
            share=len(members) / self.num_images,
            delta=float(self.deltas[place]),
            epsilon=float(self.epsilons[place]),
            margin=float(margins[place]),
            certified=bool(passed[place]),
        )

    def judge(self, sizes: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Whether sets of these sizes, one at each place of the grid, would be certified, and their margins."""
        centers, radius = self.geometry.centers, self.geometry.largest_norm
        share = centers.new_tensor(sizes / self.num_images)
        step = centers.new_tensor(self.deltas * (1 + TOLERANCE) + 2 * self.epsilons).clamp(max=2 * radius)
        by_triangle = share * step + 2 * radius * (1 - share)
        square = share * step.square() + 4 * radius**2 * (1 - share) - self.spread
        by_variance = (square.clamp(min=0) + SQUARE_PAD * radius**2).sqrt()
        margins = best_margins(
            torch.minimum(by_triangle, by_variance),
            centers,
            self.own,
            least_norm=self.least_norm.expand(len(share)),
            largest_norm=self.largest_norm.expand(len(share)),
            radius=radius,
        )
        passed = certified(margins, centers, self.own, radius)
        return passed.cpu().numpy(), margins.amin(dim=1).cpu().numpy()
