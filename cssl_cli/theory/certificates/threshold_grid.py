"""Main parts and diameters over a grid of (δ, ε), for Lemma 3.1 and Theorem 1. (docs/theory.md, 10.)

δ runs over quantiles of the distances d_A^f within classes, ε over quantiles of the images' diameters. At each δ every
class has a main part, a set of images pairwise within δ found by a search, and σ is the least of their shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.theory.augmented_distance import TOLERANCE
from cssl_cli.theory.certificates.conditions import ROUNDING
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.concentration.main_parts import main_part, pairs_grid, quantile_grid
from cssl_cli.theory.estimate import Absent

# ρ counts every image outside the main part twice and R_ε K times: both must be small.
DELTA_LEVELS = (0.0, 0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
EPSILON_LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)


def rho(
    share: NDArray[np.float64] | np.float64,
    r_epsilon: NDArray[np.float64],
    step: NDArray[np.float64],
    prior: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """ρ = 2(1 − σ) + R_ε/p + σ · step, for `step` = (δ + 2ε)/r or with L·d_A for d_A^f; arrays that broadcast.

    Not clipped, though from 2 on the triangle inequality says as much without any ρ.
    """
    return 2 * (1 - share) + r_epsilon / prior + share * step


def threshold_grid(geometry: ClassGeometry | Absent, within: Sequence[Tensor]) -> ThresholdGrid | Absent:
    """The grid of a table; `within` holds the distances d_A^f (n_k, n_k) of each of its K classes."""
    if isinstance(geometry, Absent):
        return geometry
    if not geometry.on_sphere:
        return Absent("Theorem 1 takes features that all have the same length above 0")
    return ThresholdGrid(geometry, [within[label] for label in geometry.classes])


class ThresholdGrid:
    """D values of δ and E of ε, for the K′ classes of a table that have images.

    deltas (D,), epsilons (E,), r_epsilon (E,) the share of images of diameter above ε, step (D, E) = (δ + 2ε)/r with δ
    enlarged by the rounding of the distances, priors (K′,).
    """

    def __init__(self, geometry: ClassGeometry, within: Sequence[Tensor]) -> None:
        self.geometry = geometry
        self.within = within
        self.deltas = pairs_grid(within, DELTA_LEVELS)
        self.epsilons = quantile_grid(geometry.diameter, EPSILON_LEVELS)
        self.diameters = [geometry.diameter[images].cpu().numpy() for images in geometry.members]
        self.sizes = np.array([len(diameters) for diameters in self.diameters])
        self.priors = self.sizes / self.sizes.sum()
        self.r_epsilon = (np.concatenate(self.diameters)[:, None] > self.epsilons).mean(axis=0)
        self.step = (self.deltas[:, None] * (1 + TOLERANCE) + 2 * self.epsilons) / geometry.largest_norm

    @cached_property
    def parts(self) -> list[list[NDArray[np.int64]]]:
        """The main part of each class at every δ, as positions within the class."""
        found: list[list[NDArray[np.int64]]] = [[] for _ in self.deltas]
        for matrix in self.within:
            distances = matrix.cpu().numpy()
            for place, delta in enumerate(self.deltas):
                adjacent = distances <= delta
                np.fill_diagonal(adjacent, True)
                part = main_part(adjacent)
                before = found[place - 1][-1] if place else part[:0]
                found[place].append(part if len(part) >= len(before) else before)  # a part within δ is within more
        return found

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """The share (D, K′) of each class in its main part."""
        return np.array([[len(part) for part in parts] for parts in self.parts]) / self.sizes

    @cached_property
    def sigma(self) -> NDArray[np.float64]:
        """The least share (D,) over classes."""
        return self.shares.min(axis=1)

    @cached_property
    def good_sizes(self) -> NDArray[np.int64]:
        """The number of images (D, E, K′) in the main part of their class and of diameter at most ε."""
        return np.array(
            [
                [
                    np.count_nonzero(diameters[part][:, None] <= self.epsilons, axis=0)
                    for part, diameters in zip(parts, self.diameters, strict=True)
                ]
                for parts in self.parts
            ]
        ).transpose(0, 2, 1)

    @cached_property
    def right_side(self) -> NDArray[np.float64]:
        """(1 − σ) + R_ε (D, E), of Lemma 3.1."""
        return (1 - self.sigma)[:, None] + self.r_epsilon

    @cached_property
    def telling(self) -> NDArray[np.bool_]:
        """Where (D, E) the right side is below 1 − max p_k, the error of always naming the largest class.

        Always true at the largest δ and ε, where the right side is 0.
        """
        return self.right_side < 1 - self.priors.max()

    @cached_property
    def rhos(self) -> NDArray[np.float64]:
        """ρ_l (D, E, K′) of Lemma 3.2: with the common σ and the class's own p_l."""
        return rho(self.sigma[:, None, None], self.r_epsilon[:, None], self.step[:, :, None], self.priors)

    @cached_property
    def least_rho(self) -> tuple[int, int]:
        """The grid point of the least ρ_max (that of the smallest class) where the right side is below chance."""
        return _place(np.where(self.telling, self.rhos.max(axis=2), np.inf).argmin(), self.telling.shape)

    @cached_property
    def slacks(self) -> NDArray[np.float64]:
        """1 − ρ_l − √(2ρ_l) − Δ_μ/2 − max_{k≠l} μ_l·μ_k/r² beyond rounding (D, E, K′): Lemma 3.2's condition."""
        products = (self.geometry.centers @ self.geometry.centers.T).cpu().numpy() / self.geometry.largest_norm**2
        least_norm = products.diagonal().min()
        np.fill_diagonal(products, -np.inf)
        room = 1 - (1 - least_norm) / 2 - products.max(axis=1) - ROUNDING
        found: NDArray[np.float64] = room - self.rhos - np.sqrt(2 * self.rhos)
        return found

    @cached_property
    def slack(self) -> NDArray[np.float64]:
        """The least over classes (D, E): positive where the condition holds for every class."""
        return self.slacks.min(axis=2)

    @cached_property
    def largest_slack(self) -> tuple[int, int]:
        """The grid point of the largest slack where the right side is below chance."""
        return _place(np.where(self.telling, self.slack, -np.inf).argmax(), self.telling.shape)


def _place(flat: np.intp, shape: tuple[int, ...]) -> tuple[int, int]:
    row, column = np.unravel_index(flat, shape)
    return int(row), int(column)
