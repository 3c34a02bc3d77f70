"""What a certificate reports: a bound on the error, from the images it leaves uncertified, and its margins.

A certified point is classified correctly, so the error is at most the share of the other points. The bound is vacuous
unless it is below chance, 1 − max_k p_k, which always naming the largest class achieves without an encoder. For a
single class nothing is known without a bound: its error is 0 if its name is the one always given, else 1. A bound on
the error in one class is therefore vacuous only from 1 on. (docs/theory.md, 10.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Direction, Estimate, Quantity

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


ONE_CLASS = 1.0  # the trivial bound on the error in one class


def is_vacuous(bound: float, chance: float) -> bool:
    """Whether a bound on an error is no better than `chance`, up to rounding."""
    return bound >= chance - 1e-12


def error_bound(geometry: ClassGeometry, bound: float, estimator: str) -> Quantity:
    """A certain bound on the table's error with its own centres."""
    return Estimate(
        bound,
        f"{estimator}; of these images with their own centres, vacuous unless below chance, {geometry.chance:.4g}",
        "exact for the table",
        geometry.sample,
        vacuous=is_vacuous(bound, geometry.chance),
        warning=geometry.in_table_warning,
    )


def per_class(
    geometry: ClassGeometry,
    values: Tensor,
    estimator: str,
    errs: Direction = "exact for the table",
    **facts: Any,
) -> Quantity:
    """One number (K′,) for each class with images."""
    facts = {"absent": geometry.missing, **facts}
    return Estimate(geometry.by_class(values), estimator, errs, geometry.sample, **facts)


def error_bound_per_class(geometry: ClassGeometry, bounds: Tensor, estimator: str) -> Quantity:
    """Certain bounds (K′,) on the table's error in each class."""
    return per_class(
        geometry,
        bounds,
        f"{estimator}; for each class, of these images with their own centres; 1 says nothing (vacuous: of any class)",
        vacuous=is_vacuous(bounds.min().item(), ONE_CLASS),
        warning=geometry.in_table_warning,
    )


def bounds_from_certified(geometry: ClassGeometry, certified: Tensor, estimator: str) -> dict[str, Quantity]:
    """`error_bound`, `error_bound_per_class` and `certified_share_per_class`, given which images (N,) are certified."""
    uncertified = ~certified
    bounds = geometry.class_means(uncertified)
    return {
        "error_bound": error_bound(geometry, uncertified.double().mean().item(), estimator),
        "error_bound_per_class": error_bound_per_class(geometry, bounds, estimator),
        "certified_share_per_class": per_class(geometry, 1 - bounds, f"1 less the {estimator}; for each class"),
    }


def margins_of_images(geometry: ClassGeometry, margins: Tensor) -> dict[str, Quantity]:
    """`margin_quantiles` and `margin_median_per_class` of images' least margins (N,) against the other classes."""
    what = (
        "a lower bound on how far the clean image lies on its own side of the bisector to the nearest rival centre; "
        "the image is certified where it is positive"
    )
    medians = torch.stack([_quantile(margins[images], 0.5) for images in geometry.members])
    return {
        "margin_quantiles": Estimate(
            {f"{level:g}": _quantile(margins, level).item() for level in QUANTILES},
            f"quantiles over images of the margin, {what}",
            "exact for the table",
            geometry.sample,
        ),
        "margin_median_per_class": per_class(
            geometry, medians, f"median over the images of the class of the margin, {what}"
        ),
    }


def _quantile(values: Tensor, level: float) -> Tensor:
    """The interpolated quantile of values (n,); torch.quantile rejects more than 2²⁴ numbers."""
    ascending = values.sort().values
    rank = level * (len(ascending) - 1)
    below, above = ascending[int(rank)], ascending[min(int(rank) + 1, len(ascending) - 1)]
    return below.lerp(above, rank % 1)
