"""What a certificate reports: a bound on the error from the images it leaves uncertified, and its margins.

A point certified is a point classified right, so the error is at most the share of the others. (docs/theory.md, 10.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Direction, Estimate, Quantity

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def is_vacuous(bound: float) -> bool:
    """Whether a bound on an error says nothing, up to rounding."""
    return bound >= 1 - 1e-12


def error_bound(geometry: ClassGeometry, bound: float, estimator: str) -> Quantity:
    """A certain bound on the table's error."""
    return Estimate(bound, estimator, "exact for the table", geometry.sample, vacuous=is_vacuous(bound))


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


def bounds_from_certified(geometry: ClassGeometry, certified: Tensor, estimator: str) -> dict[str, Quantity]:
    """`error_bound`, `error_bound_per_class` and `certified_share_per_class` from which images (N,) are certified."""
    uncertified = ~certified
    bounds = geometry.class_means(uncertified)
    return {
        "error_bound": error_bound(geometry, uncertified.double().mean().item(), estimator),
        "error_bound_per_class": per_class(
            geometry,
            bounds,
            f"{estimator}; for each class, vacuous if for every one",
            vacuous=is_vacuous(bounds.min().item()),
        ),
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
    """The quantile of values (n,), interpolated; torch.quantile refuses more than 2²⁴ numbers."""
    ascending = values.sort().values
    rank = level * (len(ascending) - 1)
    below, above = ascending[int(rank)], ascending[min(int(rank) + 1, len(ascending) - 1)]
    return below.lerp(above, rank % 1)
