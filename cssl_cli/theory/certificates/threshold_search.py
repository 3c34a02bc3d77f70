"""The choice of δ and ε for a class, shared by Theorem A and its version for connected parts. (docs/theory.md, 10.)

Let G be a set of images of class l with share s of it, all of diameter at most ε, any two joined by at most h steps
from image to image, each over a distance d_A^f ≤ δ. No two views of an image are more than ε apart, so

    ‖f(x₀) − f(v)‖ ≤ b = min(2r, hδ + (h + 1)ε)    for x₀ ∈ G and any view v of any image of G,

and D̄ = min{ s b + 2r(1 − s), (s b² + 4r²(1 − s) − V_l)₊^½ } bounds ‖f(x₀) − μ_l‖. With h = 1, G is a clique. δ and ε
run over quantiles of the class's distances and diameters; the largest certified G found is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.theory.augmented_distance import TOLERANCE
from cssl_cli.theory.certificates.conditions import SQUARE_PAD, best_margins, certified
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.concentration.main_parts import pairs_grid, quantile_grid

# A certified G has a large share s of its class and s² of the pairs: D̄ ≥ 2r(1 − s) − rounding must stay below what the
# cap allows, 0.82 r for a simplex of ten centres and 1.42 r at best.
EPSILON_LEVELS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
DELTA_LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MAX_SEARCHES = 20  # sets searched for in a class


class Part(NamedTuple):
    """Images of a class, as positions in its order by diameter, and the most steps h between any two of them."""

    members: NDArray[np.int64]
    hops: int


@dataclass(frozen=True)
class GoodSet:
    """A set G of a class: its images (a tensor of positions in the table), the δ and ε behind it, and its margin.

    `step` is hδ + (h + 1)ε, uncapped; `margin` is the least over the other classes, `certified` says whether it is
    positive beyond rounding.
    """

    images: Tensor
    share: float
    delta: float
    epsilon: float
    hops: int
    step: float
    margin: float
    certified: bool


class ThresholdSearch(ABC):
    """The choice of δ, ε and G for one class, over a grid of quantiles."""

    def __init__(self, geometry: ClassGeometry, own: int, distances: Tensor) -> None:
        """`distances` (n_k, n_k) are the class's d_A^f."""
        self.geometry, self.own = geometry, own
        members = geometry.members[own]
        # Sorted by diameter: the images of diameter at most ε come first.
        self.diameters, order = geometry.diameter[members].sort(stable=True)
        self.images = members[order]
        self.num_images = len(members)
        self.distances = distances[order][:, order].cpu().numpy()
        delta_grid = pairs_grid([distances], DELTA_LEVELS)
        epsilon_grid = quantile_grid(self.diameters, EPSILON_LEVELS)
        self.deltas, self.epsilons = (grid.reshape(-1) for grid in np.meshgrid(delta_grid, epsilon_grid))
        self.num_tight = np.searchsorted(self.diameters.cpu().numpy(), self.epsilons, side="right")
        # The choice looks at few numbers many times: on the CPU, to avoid waiting for a GPU.
        self.centers = geometry.centers.cpu()
        to_center = (geometry.means[members] - geometry.centers[own]).square().sum(dim=1)
        self.spread = (to_center + geometry.scatter[members]).mean().item()
        norms = geometry.clean_norms[members].cpu()
        self.least_norm, self.largest_norm = norms.min(), norms.max()

    @abstractmethod
    def limits(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """At every grid point, an upper bound of a set's size and a lower bound of its steps h."""

    @abstractmethod
    def part(self, place: int) -> Part:
        """The set at a grid point."""

    def best(self) -> GoodSet:
        """The largest certified set found, or else the one with the largest margin."""
        sizes, hops = self.limits()
        hopeful, margins = self.judge(sizes, hops)
        # Search for the largest set first; among equals, at the least thresholds.
        order = np.lexsort((self.deltas + 2 * self.epsilons, -sizes))
        chosen: GoodSet | None = None
        found = []
        for place in order[hopeful[order]][:MAX_SEARCHES]:
            if chosen and sizes[place] <= len(chosen.images):
                break
            found.append(self.search(int(place)))
            if found[-1].certified and (chosen is None or found[-1].share > chosen.share):
                chosen = found[-1]
        if chosen:
            return chosen
        # To show what is missing, search once more, where size and steps could at best bring a set nearest.
        found.append(self.search(int(margins.argmax())))
        return max(found, key=lambda good: good.margin)

    def graph(self, delta: float, num_tight: int) -> NDArray[np.bool_]:
        """Which pairs of the first `num_tight` images are within δ."""
        adjacent = self.distances[:num_tight, :num_tight] <= delta
        np.fill_diagonal(adjacent, True)
        return adjacent

    def search(self, place: int) -> GoodSet:
        members, steps = self.part(place)
        sizes, hops = np.zeros(len(self.deltas), dtype=np.int64), np.ones(len(self.deltas), dtype=np.int64)
        sizes[place], hops[place] = len(members), steps
        passed, margins = self.judge(sizes, hops)
        return GoodSet(
            images=self.images[torch.from_numpy(members).to(self.images.device)],
            share=len(members) / self.num_images,
            delta=float(self.deltas[place]),
            epsilon=float(self.epsilons[place]),
            hops=steps,
            step=float(self.steps(hops)[place]),
            margin=float(margins[place]),
            certified=bool(passed[place]),
        )

    def steps(self, hops: NDArray[np.int64]) -> NDArray[np.float64]:
        """hδ + (h + 1)ε of sets with these steps h, one at each grid point."""
        way: NDArray[np.float64] = hops * self.deltas * (1 + TOLERANCE) + (hops + 1) * self.epsilons
        return way

    def judge(self, sizes: NDArray[np.int64], hops: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Whether sets of these sizes and steps, one at each grid point, would be certified, and their margins."""
        centers, radius = self.centers, self.geometry.largest_norm
        share = centers.new_tensor(sizes / self.num_images)
        step = centers.new_tensor(self.steps(hops)).clamp(max=2 * radius)
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
        return passed.numpy(), margins.amin(dim=1).numpy()
