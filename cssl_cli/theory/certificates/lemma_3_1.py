"""Lemma 3.1: the right side (1 − σ) + R_ε over (δ, ε), where its premise holds, and corollaries. (docs/theory.md, 10.)

*If all images of the main parts of diameter at most ε are classified correctly, the error is at most (1 − σ) + R_ε.*
The right side alone is no bound: it falls to 0 as δ and ε grow, where the premise requires all images to be classified
correctly. In the paper, the condition of Lemma 3.2 stands in for the premise: for every class l and every k ≠ l

    μ_lᵀμ_k < r²(1 − ρ_l − √(2ρ_l) − Δ_μ/2),   ρ_l = 2(1 − σ) + R_ε/p_l + σ (δ + 2ε)/r,

The condition's *slack* is its right side minus its left, in units of r², minimized over the pairs of classes. On a
table the premise can also be checked by counting, image by image; but that uses the errors it is to bound.

The paper's corollaries bound R_ε by Theorem 2, R_ε ≤ η(ε) √L_align. With InfoNCE on the unit sphere at temperature 1,
L₁ = ½ L_align − 1, the error is at most (1 − σ) + η √(2 + 2 L₁); with the cross-correlation of d standardised features,
L₁ = Σ_i (1 − M_ii)² and L_align ≤ 2 √(d L₁), at most (1 − σ) + √2 η d^¼ L₁^¼. They also need Lemma 3.2's condition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cssl_cli.features.geometry import distances
from cssl_cli.theory.alignment.theorem_2 import (
    Constants,
    ViewParameters,
    exp_or_inf,
    log_eta_paper,
    theorem_2_constants,
)
from cssl_cli.theory.certificates.error_bounds import error_bound, per_class
from cssl_cli.theory.certificates.threshold_grid import EPSILON_LEVELS, ThresholdGrid
from cssl_cli.theory.class_geometry import misclassified
from cssl_cli.theory.concentration.main_parts import quantile_grid
from cssl_cli.theory.estimate import Absent, Estimate, Quantity
from cssl_cli.theory.table import FeatureTable

QUANTITIES = (
    "deltas",
    "epsilons",
    "sigma",
    "R_epsilon",
    "right_side",
    "least_right_side",
    "least_delta",
    "least_epsilon",
    "counted_bound",
    "slack",
    "largest_slack",
    "slack_per_class",
    "slack_delta",
    "slack_epsilon",
    "slack_right_side",
)
COROLLARIES = ("infonce_bound", "cross_correlation_bound")


def lemma_and_corollaries(
    grid: ThresholdGrid | Absent,
    constants: Constants | Absent,
    standardized: FeatureTable,
    parameters: ViewParameters | None,
) -> dict[str, Quantity]:
    """`lemma_3_1` and its `corollaries`; `constants` belong to the grid's table, `parameters` to its views."""
    of_standardized = theorem_2_constants(parameters, standardized.features[:, 1:])
    return lemma_3_1(grid) | corollaries(grid, constants, standardized, of_standardized)


def lemma_3_1(grid: ThresholdGrid | Absent) -> dict[str, Quantity]:
    """`QUANTITIES`: the grid, the right side and the slack over it as matrices (D, E), and where they are best.

    `least_right_side` is the right side's minimum, without any condition; `counted_bound` its minimum where the premise
    holds as counted, 1 if nowhere; `largest_slack`, with its δ, ε, right side and slack of each class, the slack's
    maximum where the right side is below 1 − max p, the error of always naming the largest class.
    """
    if isinstance(grid, Absent):
        return dict.fromkeys(QUANTITIES, grid)
    geometry = grid.geometry
    over = (
        f"{len(grid.deltas)} quantiles of d_A^f within classes as δ and {len(grid.epsilons)} of the diameter as ε; "
        f"main parts are cliques found by search; {geometry.views_note}"
    )

    def exact(value: Any, estimator: str, **facts: Any) -> Quantity:
        return Estimate(value, estimator, "exact for the table", geometry.sample, **facts)

    least = np.unravel_index(grid.right_side.argmin(), grid.right_side.shape)
    best = grid.largest_slack
    at_best = f"where the slack is largest, {over}"
    what = (
        "right less left side of Lemma 3.2's condition, 1 − ρ_l − √(2ρ_l) − Δ_μ/2 − μ_l·μ_k/r², the least over pairs "
        "of classes"
    )
    weakest = int(grid.slacks[best].argmin())
    return {
        "deltas": exact(grid.deltas.tolist(), f"the grid of δ, distances of features: {over}"),
        "epsilons": exact(grid.epsilons.tolist(), f"the grid of ε, distances of features: {over}"),
        "sigma": exact(grid.sigma.tolist(), "σ at each δ, the least share of a class in the main part found"),
        "R_epsilon": exact(grid.r_epsilon.tolist(), "R_ε at each ε over the stored views"),
        "right_side": exact(grid.right_side.tolist(), f"(1 − σ) + R_ε, a row for each δ, a column for each ε; {over}"),
        "least_right_side": exact(
            float(grid.right_side[least]),
            f"least (1 − σ) + R_ε, whether the premise holds there or not, over {over}; no bound on the error",
        ),
        "least_delta": exact(float(grid.deltas[least[0]]), "δ at the least (1 − σ) + R_ε"),
        "least_epsilon": exact(float(grid.epsilons[least[1]]), "ε at the least (1 − σ) + R_ε"),
        "counted_bound": error_bound(
            geometry,
            counted_bound(grid),
            "least (1 − σ) + R_ε where all images of the main parts of diameter at most ε are classified right, which "
            f"is counted, and so uses the errors themselves; 1 where that holds nowhere; over {over}",
        ),
        "slack": exact(grid.slack.tolist(), f"{what}; a row for each δ, a column for each ε; {over}"),
        "largest_slack": exact(
            float(grid.slack[best]),
            f"{what}, at its largest where (1 − σ) + R_ε is below 1 − max p; over {over}; the class named has it "
            "(vacuous: not positive, so that the condition holds at no such place)",
            classes=(geometry.table.class_names[geometry.classes[weakest]],),
            vacuous=bool(grid.slack[best] <= 0),
        ),
        "slack_per_class": per_class(
            geometry, geometry.centers.new_tensor(grid.slacks[best]), f"slack of the class, {at_best}"
        ),
        "slack_delta": exact(float(grid.deltas[best[0]]), f"δ {at_best}"),
        "slack_epsilon": exact(float(grid.epsilons[best[1]]), f"ε {at_best}"),
        "slack_right_side": exact(
            float(grid.right_side[best]), f"(1 − σ) + R_ε {at_best}: a bound on the error only if the slack is positive"
        ),
    }


def premise(grid: ThresholdGrid) -> NDArray[np.bool_]:
    """Where (D, E) all images of the main parts of diameter at most ε are classified correctly."""
    geometry = grid.geometry
    wrong = misclassified(geometry.table.features[:, 0], geometry.positions, geometry.centers)
    of_classes = [wrong[images].cpu().numpy() for images in geometry.members]
    found = np.ones((len(grid.deltas), len(grid.epsilons)), dtype=bool)
    for place, parts in enumerate(grid.parts):
        for part, errors, diameter in zip(parts, of_classes, grid.diameters, strict=True):
            tightest = diameter[part][errors[part]].min(initial=np.inf)  # least diameter of a misclassified image
            found[place] &= grid.epsilons < tightest
    return found


def counted_bound(grid: ThresholdGrid) -> float:
    """The least right side where the premise holds; 1 if nowhere."""
    return float(np.where(premise(grid), grid.right_side, 1.0).min())


def corollaries(
    grid: ThresholdGrid | Absent,
    infonce: Constants | Absent,
    standardized: FeatureTable,
    correlation: Constants | Absent,
) -> dict[str, Quantity]:
    """The least value of each of `COROLLARIES`; η uses the constants of the features in question.

    `infonce` belongs to the grid's own table: its corollary is taken where the condition of Lemma 3.2 holds, and is a
    bound only there. `correlation` belongs to the `standardized` table, each coordinate of mean 0 and variance 1, whose
    ε are quantiles of its own diameters; these features have no common norm, so the condition cannot be tested.
    """
    if isinstance(grid, Absent):
        return dict.fromkeys(COROLLARIES, grid)
    table, width = grid.geometry.table, standardized.features.shape[2]
    diameter = distances(standardized.features, standardized.features).amax(dim=(1, 2))
    own_epsilons = quantile_grid(diameter, EPSILON_LEVELS).tolist()
    return {
        "infonce_bound": _corollary(
            grid,
            grid.epsilons.tolist(),
            infonce,
            math.sqrt(2 * table.view_variances.mean().item()),
            "(1 − σ) + η(ε) √(2 + 2 L₁), L₁ = ½ alignment − 1 the alignment part of InfoNCE at temperature 1",
            holds=grid.slack > 0,
        ),
        "cross_correlation_bound": _corollary(
            grid,
            own_epsilons,
            correlation,
            math.sqrt(2) * (width * _invariance(standardized)) ** 0.25,
            "(1 − σ) + √2 η(ε) d^¼ L₁^¼, L₁ = Σ (1 − M_ii)² of the standardised features, whose distances ε are",
            holds=None,
        ),
    }


def _corollary(
    grid: ThresholdGrid,
    epsilons: Sequence[float],
    constants: Constants | Absent,
    root: float,
    what: str,
    *,
    holds: NDArray[np.bool_] | None,
) -> Quantity:
    """The least (1 − σ) + η(ε) · root where the condition `holds` (D, E); anywhere, and vacuous, if it holds nowhere.

    `root` equals or bounds √L_align.
    """
    if isinstance(constants, Absent):
        return constants
    log_root = math.log(root) if root > 0 else -math.inf
    numbers = (1 - grid.sigma)[:, None] + np.array(
        [
            exp_or_inf(log_eta_paper(epsilon, *constants.of_family, constants.lipschitz) + log_root)
            if epsilon > 0
            else math.inf
            for epsilon in epsilons
        ]
    )
    said = "the condition of Lemma 3.2 holds nowhere, without which this is no bound"
    if holds is None:
        said = "whether Lemma 3.2's condition holds for these features is not known, without which this is no bound"
    is_bound = holds is not None and bool(np.isfinite(numbers[holds]).any())
    if is_bound:
        said = "over the places where Lemma 3.2's condition holds"
    least = float(numbers[holds].min() if is_bound else numbers.min())
    if math.isinf(least):
        return Absent("the bound exceeds 1e300 or is infinite")
    found = error_bound(
        grid.geometry,
        least,
        f"least {what}; σ and ε over quantiles, η of Theorem 2 with n = {constants.num_parameters}, m = "
        f"{constants.num_discrete} and LM = {constants.lipschitz:.4g}, the largest ratio seen: the corollary's own "
        f"number is larger; {said}",
    )
    assert isinstance(found, Estimate)
    return replace(found, errs="low", vacuous=found.vacuous or not is_bound)


def _invariance(table: FeatureTable) -> float:
    """Σ_i (1 − M_ii)² with M over distinct augmented views (U form)."""
    augmented = table.features[:, 1:]
    views = augmented.shape[1]
    squares = augmented.square().sum(dim=1).mean(dim=0)
    diagonal = (views**2 * table.view_means.square().mean(dim=0) - squares) / (views * (views - 1))
    return float((1 - diagonal).square().sum())
