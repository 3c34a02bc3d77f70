"""What a mean and a variance alone imply about the error of G_f: Cantelli's inequality. (docs/theory.md, 10.)

Along w = (μ_k − μ_l)/‖μ_k − μ_l‖ the clean images of class l have mean wᵀc_l and variance v, and one of them is nearer
to μ_k than to μ_l, or as near, iff wᵀ(f(x) − c_l) ≥ θ = ½‖μ_k − μ_l‖ − wᵀ(c_l − μ_l). That has probability at most
v/(v + θ²) if θ > 0. Views enter only through the centres: a comparator for the certificates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.theory.certificates.conditions import ROUNDING, gaps, others
from cssl_cli.theory.certificates.error_bounds import error_bound, error_bound_per_class
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Absent, Quantity

QUANTITIES = ("error_bound", "error_bound_per_class")


def variance_bound(geometry: ClassGeometry | Absent) -> dict[str, Quantity]:
    """`error_bound` Σ_l p_l min{1, Σ_{k≠l} v/(v + θ²)} (a term with θ ≤ 0 counts 1) and `error_bound_per_class`."""
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    bounds = torch.stack([_class_bound(geometry, own) for own in range(len(geometry.classes))])
    estimator = (
        "Cantelli's inequality for the clean images of each class along the directions between centres, summed over "
        "the other classes; uses means and variances, and views for the centres only"
    )
    return {
        "error_bound": error_bound(geometry, (geometry.priors * bounds).sum().item(), estimator),
        "error_bound_per_class": error_bound_per_class(geometry, bounds, estimator),
    }


def _class_bound(geometry: ClassGeometry, own: int) -> Tensor:
    clean = geometry.features(own)[:, 0]
    mean = clean.mean(dim=0)
    gap = gaps(geometry.centers, own)
    directions = (others(geometry.centers, own) - geometry.centers[own]) / torch.where(gap > 0, gap, 1).unsqueeze(1)
    variance = ((clean - mean) @ directions.T).square().mean(dim=0)
    theta = gap / 2 - directions @ (mean - geometry.centers[own])
    beyond_rounding = theta * gap > ROUNDING * geometry.largest_norm**2
    tail = variance / (variance + theta.square()).clamp(min=torch.finfo(theta.dtype).tiny)
    return torch.where(beyond_rounding, tail, 1).sum().clamp(max=1)
