"""An explicit τ′ for Theorem 4, from concentration and alignment. (docs/theory.md, 12.)

Theorem 4 bounds inner products of class centres from the redundancy of the features and any τ′ ≥ ‖Σ_W‖², Σ_W the
within-class covariance of the view means f̄_x. What (σ, δ) and R_ε say of it: let G_k be images of class k, a share s_k
of it, of diameter at most ε_k and pairwise within d_A^f ≤ δ_k. Two view means of G_k are at most b_k = min(2r, δ_k +
2ε_k) apart, any others at most 2r; so with x, x′ independent images of the class,

    ‖Σ_W‖ ≤ tr Σ_W = ½ Σ_k p_k E‖f̄_x − f̄_x′‖² ≤ ½ Σ_k p_k [s_k² b_k² + 4r² (1 − s_k²)],

the first inequality because Σ_W has no negative eigenvalue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.features.geometry import distances
from cssl_cli.theory.augmented_distance import TOLERANCE, augmented_distances
from cssl_cli.theory.concentration.main_parts import main_part, pairs_grid, quantile_grid, size_bound
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, by_class
from cssl_cli.theory.table import FeatureTable

QUANTITIES = ("within_covariance_trace", "trace_bound", "share_per_class", "reach_per_class", "theorem_4_bound")
EPSILON_LEVELS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
DELTA_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MAX_SEARCHES = 5  # cliques searched for in a class
LARGE_CLASS = 400  # of more images, clean views alone stand for all: their distance is never below d_A^f


def explicit_tau(table: FeatureTable) -> dict[str, Quantity]:
    """tr Σ_W with its bound by main parts and diameters, and Theorem 4 with the square of that bound for τ′.

    For a table standardised as in the cross-correlation; only `theorem_4_bound`, divided by d, needs that.
    `share_per_class` s_k and `reach_per_class` b_k are those that make the bound least, on a grid of quantiles.
    """
    if table.num_augmented < 1:
        return dict.fromkeys(QUANTITIES, Absent("the cross-correlation needs augmented views"))
    if table.labels is None:
        return dict.fromkeys(QUANTITIES, Absent("the images have no labels"))
    present = [label for label, images in enumerate(table.members) if len(images)]
    radius = torch.linalg.vector_norm(table.features, dim=2).max().item()
    members = [table.members[label] for label in present]
    parts = [best_part(table.features[rows], radius) for rows in members]
    shares = table.priors.tolist()
    priors = [shares[label] for label in present]
    bound = 0.5 * sum(prior * part.mean_square for prior, part in zip(priors, parts, strict=True))
    trace = sum(
        prior * (table.view_means[rows] - table.view_means[rows].mean(dim=0)).square().sum(dim=1).mean().item()
        for prior, rows in zip(priors, members, strict=True)
    )
    length = table.features[:, 1:].square().sum(dim=2).mean().item()

    def of_class(values: list[float], what: str) -> Quantity:
        everywhere = torch.full((len(table.class_names),), torch.nan, dtype=torch.float64)
        everywhere[present] = torch.tensor(values, dtype=torch.float64)
        return _estimate(table, by_class(table.class_names, everywhere), what, absent=table.classes_below(1))

    return {
        "within_covariance_trace": _estimate(
            table,
            trace,
            "trace of the within-class covariance of the images' means over augmented views; at least ‖Σ_W‖",
        ),
        "trace_bound": _estimate(
            table,
            bound,
            "upper bound on tr Σ_W, ½ Σ p_k [s_k² b_k² + 4r² (1 − s_k²)], by main parts found in these features; its "
            "square is an explicit τ′ of Theorem 4; vacuous from E‖f‖² on",
            vacuous=bound >= length,
        ),
        "share_per_class": of_class([part.share for part in parts], "share s_k of the class in the main part used"),
        "reach_per_class": of_class(
            [part.reach for part in parts], "b_k = min(2r, δ_k + 2ε_k), at most which two of its views are apart"
        ),
        "theorem_4_bound": _theorem_4(table, priors, [table.class_names[label] for label in present], bound),
    }


@dataclass(frozen=True)
class Part:
    """A set G: its share s of the class, b, and s² b² + 4r² (1 − s²), a bound on E‖f̄_x − f̄_x′‖²."""

    share: float
    reach: float
    mean_square: float

    @classmethod
    def of(cls, share: float, reach: float, radius: float) -> Part:
        reach = min(2 * radius, reach)
        return cls(share, reach, share**2 * reach**2 + 4 * radius**2 * (1 - share**2))


def best_part(features: Tensor, radius: float) -> Part:
    """The set among those found that makes the bound least, for the features (n, V, D) of a class, ‖f‖ ≤ radius."""
    diameters, order = distances(features, features).amax(dim=(1, 2)).sort(stable=True)
    clean_only = len(features) > LARGE_CLASS
    apart = augmented_distances(features[order, :1] if clean_only else features[order])
    delta_grid, epsilon_grid = pairs_grid([apart], DELTA_LEVELS), quantile_grid(diameters, EPSILON_LEVELS)
    among, wide = apart.cpu().numpy(), diameters.cpu().numpy()
    hopes = sorted(
        (
            Part.of(_most(among[:tight, :tight] <= delta) / len(among), delta + 2 * epsilon, radius).mean_square,
            delta,
            tight,
        )
        for epsilon in epsilon_grid.tolist()
        for tight in (int(np.searchsorted(wide, epsilon, side="right")),)
        for delta in delta_grid.tolist()
    )
    best = Part.of(0.0, 2 * radius, radius)
    for hope, delta, tight in hopes[:MAX_SEARCHES]:
        if hope >= best.mean_square:
            break
        found = main_part(among[:tight, :tight] <= delta)
        # What the set really needs may be less than the thresholds it was found with.
        reach = among[np.ix_(found, found)].max() * (1 + TOLERANCE) + 2 * wide[found].max()
        best = min(best, Part.of(len(found) / len(among), float(reach), radius), key=lambda part: part.mean_square)
    return best


def _most(adjacent: NDArray[np.bool_]) -> int:
    """How many images a set can have at most, by the degrees of the graph (n, n), diagonal True."""
    return size_bound(adjacent.sum(axis=1))


def _theorem_4(table: FeatureTable, priors: list[float], names: list[str], root: float) -> Quantity:
    if len(priors) < 2:
        return Absent("the images are all of one class")
    width = table.features.shape[2]
    correlation = table.view_means.T @ table.view_means / table.num_images
    redundancy = (correlation - torch.eye(width, dtype=torch.float64, device=correlation.device)).square().sum().item()
    k, l = sorted(sorted(range(len(priors)), key=lambda position: -priors[position])[:2])
    share = priors[k] * priors[l]
    bound = math.sqrt(2 * max(redundancy + root**2 - (width - len(priors)) / 2, 0.0) / share) / width
    return _estimate(
        table,
        bound,
        "the paper's Theorem 4 with τ′ = trace_bound², root of 2 (L₂ + τ′ − (d − K)/2) / (p_k p_l), over d, for the "
        "pair of the largest classes, for which it is least",
        classes=(names[k], names[l]),
        vacuous=bound >= 1 / (2 * math.sqrt(share)),  # p_k ‖μ_k‖² + p_l ‖μ_l‖² ≤ d
    )


def _estimate(table: FeatureTable, value: Any, estimator: str, **facts: Any) -> Estimate:
    return Estimate(value, estimator, "exact for the table", table.augmented_sample, **facts)
