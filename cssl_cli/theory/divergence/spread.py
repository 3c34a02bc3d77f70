"""Spread of the features within classes and between class centres. (docs/theory.md, 7.)

The paper's intra-class distance E‖f(v₁) − f(v₂)‖², v₁ and v₂ views of two distinct images of a class, is twice the
spread of single views about the centre, E‖f(v) − μ_k‖²: v₁ and v₂ are independent and identically distributed. The
estimates have the same factor, exactly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cssl_cli.features.intervals import bootstrap_interval, replicate
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Quantity, by_class, intervals_by_class
from cssl_cli.theory.table import FeatureTable, class_moments

ROUNDING = 1e-9  # of a spread of unit-norm features
QUANTITIES = (
    "within",
    "within_views",
    "intra_class",
    "between",
    "ratio",
    "within_per_class",
    "within_views_per_class",
    "intra_class_per_class",
)


def spread(table: FeatureTable, class_weights: Tensor | None) -> dict[str, Quantity]:
    """Traces of covariances, in squared units of the features.

    `within` tr Σ_W = Σ p_k E‖f̄_x − μ_k‖² of the images' mean features f̄_x over all views; `within_views` the same of
    the single views, Σ p_k E‖f(v) − μ_k‖²; `intra_class` the paper's intra-class distance Σ p_k E‖f(v₁) − f(v₂)‖²,
    twice that, v₁ and v₂ views of two distinct images of class k; `between` tr Σ_B = Σ p_k ‖μ_k − μ‖², μ = Σ p_k μ_k;
    `ratio` tr Σ_W / tr Σ_B; and the three within classes `per_class`. `class_weights` (R, N) resample the images within
    classes; None for no intervals.
    """
    if table.labels is None:
        return dict.fromkeys(QUANTITIES, Absent("the images have no labels"))
    if table.num_augmented < 1:
        return dict.fromkeys(QUANTITIES, Absent("the spread needs at least one augmented view of an image"))
    return _Spread(table, class_weights).quantities()


class _Spread:
    """The spreads as measured, and their replicates (R, ...) under resampled images."""

    def __init__(self, table: FeatureTable, class_weights: Tensor | None) -> None:
        self.table = table
        ones = table.features.new_ones(1, table.num_images)
        self.measured = {name: rows[0] for name, rows in self.statistics(ones).items()}
        self.replicates = {} if class_weights is None else replicate(self.statistics, class_weights)

    def statistics(self, weights: Tensor) -> dict[str, Tensor]:
        """The spreads (R,) and (R, K) under weights (R, N); `within` is NaN when one view cannot show the noise."""
        moments = class_moments(self.table, weights)
        priors, num_views = self.table.priors, self.table.num_augmented
        noise = moments.view_variances / num_views if num_views > 1 else torch.nan
        within = moments.variances - noise
        within_views = moments.variances + (1 - 1 / num_views) * moments.view_variances
        centers = torch.where(priors.unsqueeze(1) > 0, moments.centers, 0)
        mean = (priors.unsqueeze(1) * centers).sum(dim=1, keepdim=True)
        plug_in = (priors * (centers - mean).square().sum(dim=2)).sum(dim=1)
        between = plug_in - _mean_over_classes(priors, (1 - priors) * moments.center_errors)
        total_within = _mean_over_classes(priors, within)
        return {
            "within": total_within,
            "within_views": _mean_over_classes(priors, within_views),
            "intra_class": _mean_over_classes(priors, 2 * within_views),
            "between": between,
            # After subtracting the noise of few views, a spread may come out below 0.
            "ratio": total_within.clamp(min=0) / torch.where(between > 0, between, torch.nan),
            "within_per_class": within,
            "within_views_per_class": within_views,
            "intra_class_per_class": 2 * within_views,
        }

    def quantities(self) -> dict[str, Quantity]:
        within = "trace of the within-class covariance of the images' means over augmented views, divisor n_k − 1, "
        views = "mean squared distance of a single augmented view to its class centre, divisor n_k − 1 over images"
        pairs = (
            "mean of ‖f(v₁) − f(v₂)‖² over augmented views of two distinct images of a class, shares of the classes p_k"
        )
        quantities = {
            "within": self.number("within", within + "less the noise of finitely many views"),
            "within_views": self.number("within_views", views),
            "intra_class": self.number("intra_class", pairs),
            "between": self.number(
                "between", "Σ p_k ‖μ_k − μ‖² of the centres over augmented views, less their squared errors"
            ),
            "ratio": self.number(
                "ratio", "within over between; no interval where resampled centres may coincide", "consistent"
            ),
            "within_per_class": self.per_class("within_per_class", "within, for each class"),
            "within_views_per_class": self.per_class("within_views_per_class", "within_views, for each class"),
            "intra_class_per_class": self.per_class("intra_class_per_class", "intra_class, for each class"),
        }
        if int((self.table.class_sizes > 0).sum()) < 2:
            one_class = Absent("the images are all of one class")
            quantities |= {"between": one_class, "ratio": one_class}
        return quantities

    def number(self, name: str, estimator: str, errs: Direction = "unbiased") -> Quantity:
        value = self.measured[name].item()
        if math.isnan(value):
            return Absent(self.why_undefined(name))
        if name == "ratio" and self.measured["within"].item() < -ROUNDING:
            return Absent("the spread within classes is not above the noise of the views")
        interval = None
        if name in self.replicates and self.table.all_resampled:
            degrees = self.table.degrees_of_freedom
            interval = bootstrap_interval(value, self.replicates[name], degrees=degrees, least=0)
        return self.estimate(value, estimator, errs, interval=interval)

    def per_class(self, name: str, estimator: str) -> Quantity:
        if name == "within_per_class" and self.table.num_augmented < 2:
            return Absent(self.why_undefined(name))
        names = self.table.class_names
        return self.estimate(
            by_class(names, self.measured[name]),
            estimator,
            "unbiased",
            interval=intervals_by_class(
                names, self.measured[name], self.replicates.get(name), self.table.class_sizes, least=0
            ),
            absent=self.table.classes_below(2),
        )

    def why_undefined(self, name: str) -> str:
        if name in ("within", "ratio", "within_per_class") and self.table.num_augmented < 2:
            return "the noise of the views needs at least two augmented views of an image"
        sizes = zip(self.table.class_names, self.table.class_sizes.tolist(), strict=True)
        single = [class_name for class_name, size in sizes if size == 1]
        if single:
            some = ", ".join(single[:5]) + (f" and {len(single) - 5} others" if len(single) > 5 else "")
            return f"a spread needs two images of every class, and there is one of {some}"
        return "the spread between classes is not above its own noise"

    def estimate(self, value: Any, estimator: str, errs: Direction, **facts: Any) -> Estimate:
        return Estimate(value, estimator, errs, self.table.augmented_sample, **facts)


def _mean_over_classes(priors: Tensor, values: Tensor) -> Tensor:
    """Σ p_k value_k (R,) of values (R, K); a class without images counts for nothing."""
    return torch.where(priors > 0, priors * values, 0).sum(dim=1)
