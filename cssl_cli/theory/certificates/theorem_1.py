"""The paper's Theorem 1, read in feature distances: a bound on the error of G_f from (σ, δ), ε, R_ε and the centres.

Each class has a main part, a share σ or more of it, pairwise within d_A^f ≤ δ (in place of the paper's L·d_A ≤ Lδ), and
R_ε = P[diam(x) > ε] over the stored views. With ‖f‖ ≡ r, Δ_μ = 1 − min_k ‖μ_k‖²/r² and

    ρ_l = 2(1 − σ) + R_ε / p_l + σ (δ + 2ε)/r,   ρ_max = max_l ρ_l,

if μ_lᵀμ_k < r²(1 − ρ − √(2ρ) − Δ_μ/2) for all l ≠ k and ρ = ρ_max, the error is at most (1 − σ) + R_ε. No ρ above
0.77 can meet the condition, whatever the centres; ρ is reported unclipped and may be far above 2.

Sharpened (docs/theory.md, 10): with s the share of class l in its main part and of diameter at most ε, ‖f(x₀) − μ_l‖ ≤
rρ′, ρ′ = 2(1 − s) + s min{(δ + 2ε)/r, 2}, and μ_lᵀμ_k < r²(1 − ρ′ − ρ′²/2 − Δ_μ/2) suffices, class by class, for an
error of at most 1 − s in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.theory.certificates.conditions import REACH_PAD, ROUNDING, certified, paper_shape_margins
from cssl_cli.theory.certificates.error_bounds import error_bound, per_class
from cssl_cli.theory.certificates.threshold_grid import ThresholdGrid, rho
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample

QUANTITIES = (
    "rho",
    "rho_per_class",
    "rho_needed",
    "delta",
    "epsilon",
    "sigma",
    "R_epsilon",
    "error_bound",
    "sharp_error_bound",
)
TELLING = "where (1 − σ) + R_ε is below 1 − max p, the error of always naming the largest class"


def rho_needed(centers: Tensor, radius: float) -> float | None:
    """The ρ ≥ 0 at which the condition on the centres (K, D) becomes an equality, for all pairs; None if it fails at 0.

    1 − ρ − √(2ρ) − Δ_μ/2 = max_{k≠l} μ_lᵀμ_k/r² is a quadratic equation in √ρ.
    """
    products = centers @ centers.T / radius**2
    least_norm = products.diagonal().min().item()
    largest = products.fill_diagonal_(-torch.inf).max().item()
    room = 1 - (1 - least_norm) / 2 - largest - ROUNDING
    return ((math.sqrt(2 + 4 * room) - math.sqrt(2)) / 2) ** 2 if room > 0 else None


def theorem_1(grid: ThresholdGrid | Absent) -> dict[str, Quantity]:
    """The least ρ over the grid of (δ, ε), the ρ that the centres allow, and the bounds on the error: `QUANTITIES`.

    `rho` is the least ρ_max among the grid points whose bound, if the condition held, would be below chance;
    `rho_per_class`, `delta`, `epsilon`, `sigma` and `R_epsilon` belong to the same point.
    """
    if isinstance(grid, Absent):
        return dict.fromkeys(QUANTITIES, grid)
    geometry = grid.geometry
    needed = rho_needed(geometry.centers, geometry.largest_norm)
    place = grid.least_rho
    of_classes = grid.rhos[place]
    largest = float(of_classes.max())
    weakest = int(grid.shares[place[0]].argmin())
    over = (
        f"over {len(grid.deltas)} quantiles of d_A^f within classes as δ and {len(grid.epsilons)} of diameters as ε; "
        f"main parts are cliques found by search; {geometry.views_note}"
    )
    at = f"at the least ρ {over}"

    def exact(value: float, estimator: str, **facts: Any) -> Quantity:
        return Estimate(value, estimator, "exact for the table", geometry.sample, **facts)

    return {
        "rho": exact(
            largest,
            f"least ρ_max = 2(1 − σ) + R_ε/min p + σ (δ + 2ε)/r {TELLING}, {over}; the class named has the least main "
            "part (vacuous: more than the centres allow)",
            vacuous=needed is None or largest > needed,
            classes=(geometry.table.class_names[geometry.classes[weakest]],),
        ),
        "rho_per_class": per_class(
            geometry,
            geometry.centers.new_tensor(of_classes),
            f"ρ_l = 2(1 − σ) + R_ε/p_l + σ (δ + 2ε)/r of Lemma 3.2, {at}",
        ),
        "rho_needed": Absent("the centres meet the theorem's condition for no ρ, not even 0")
        if needed is None
        else exact(
            needed,
            "the ρ below which the theorem's condition on the centres holds for every pair of classes; plug-in centres",
        ),
        "delta": exact(float(grid.deltas[place[0]]), f"δ, a distance of features, {at}"),
        "epsilon": exact(float(grid.epsilons[place[1]]), f"ε, a distance of features, {at}"),
        "sigma": exact(float(grid.sigma[place[0]]), f"σ, the least share of a class in its main part, {at}"),
        "R_epsilon": exact(float(grid.r_epsilon[place[1]]), f"R_ε {at}"),
        "error_bound": error_bound(
            geometry,
            _paper_bound(grid, needed),
            f"least (1 − σ) + R_ε where Theorem 1 as stated applies, {over}; 1 where it applies nowhere",
        ),
        "sharp_error_bound": error_bound(
            geometry,
            1 - int(_sharp_sizes(grid).sum()) / int(grid.sizes.sum()),
            "share of images outside the main parts of diameter at most ε that the sharpened theorem (ρ′ + ρ′²/2 for "
            f"ρ + √(2ρ)) shows right, δ and ε chosen for each class {over}",
        ),
    }


def _paper_bound(grid: ThresholdGrid, needed: float | None) -> float:
    """The least (1 − σ) + R_ε among the grid points with ρ_max below `needed`; 1 if there is none."""
    if needed is None:
        return 1.0
    return float(np.where(grid.rhos.max(axis=2) < needed, grid.right_side, 1.0).min())


def _sharp_sizes(grid: ThresholdGrid) -> NDArray[np.int64]:
    """For each class, the largest certified number (K′,) of main-part images of diameter at most ε, or 0."""
    return np.array([np.where(_sharp(grid, own), sizes, 0).max() for own, sizes in enumerate(grid.good_sizes.T)])


def _sharp(grid: ThresholdGrid, own: int) -> NDArray[np.bool_]:
    """Whether the sharpened condition holds for the class at each grid point (E, D)."""
    geometry = grid.geometry
    share = grid.good_sizes[:, :, own] / grid.sizes[own]
    reach = 2 * (1 - share) + share * np.minimum(grid.step, 2)
    margins = paper_shape_margins(
        geometry.centers.new_tensor(reach.reshape(-1) + REACH_PAD) * geometry.largest_norm,
        geometry.centers,
        own,
        least_norm=geometry.least_norm,
        largest_norm=geometry.largest_norm,
    )
    passed = certified(margins, geometry.centers, own, geometry.largest_norm)
    found: NDArray[np.bool_] = passed.cpu().numpy().reshape(share.shape).T
    return found


def pixel_rho(
    deltas: Sequence[float],
    sigma: Sequence[float],
    epsilons: Sequence[float],
    r_epsilon: Sequence[float],
    *,
    lipschitz: float,
    priors: Sequence[float],
    sample: Sample,
    radius: float = 1.0,
) -> dict[str, Quantity]:
    """`pixel_rho`, `pixel_delta`, `pixel_epsilon`: the least ρ_max with the paper's own Lδ. A diagnostic, no bound.

    `sigma` at `deltas` is the least share over classes of a main part within d_A ≤ δ in pixels, `r_epsilon` the R_ε at
    `epsilons`; `lipschitz` is a measured lower bound of L, which makes ρ too small. `priors` are the p_k above 0.
    """
    names = ("pixel_rho", "pixel_delta", "pixel_epsilon")
    if not len(deltas) or not len(epsilons):
        return dict.fromkeys(names, Absent("a grid of δ and of ε is needed"))
    # Views on the sphere are at most its width apart: R = 0 beyond the grid.
    epsilons, r_epsilon = [*epsilons, 2 * radius], [*r_epsilon, 0.0]
    step = (lipschitz * np.asarray(deltas, float)[:, None] + 2 * np.asarray(epsilons, float)) / radius
    shares, rates = np.asarray(sigma, float)[:, None], np.asarray(r_epsilon, float)
    telling = (1 - shares) + rates < 1 - max(priors)
    if not telling.any():
        return dict.fromkeys(names, Absent(f"there is no δ and ε of the recipe in pixels {TELLING}"))
    rhos = np.where(telling, rho(shares, rates, step, min(priors)), np.inf)
    delta, epsilon = np.unravel_index(rhos.argmin(), rhos.shape)
    why = (
        f"least ρ_max {TELLING}, over {len(deltas)} values of δ, in pixels, and {len(epsilons)} of ε, with L·δ for the "
        "distance of features, L the largest ratio measured: a lower bound of the true one, so that this is no "
        "certificate"
    )
    return {
        "pixel_rho": Estimate(float(rhos[delta, epsilon]), why, "either", sample),
        "pixel_delta": Estimate(float(deltas[int(delta)]), f"δ in pixels at the {why}", "exact for the table", sample),
        "pixel_epsilon": Estimate(float(epsilons[int(epsilon)]), f"ε at the {why}", "exact for the table", sample),
    }
