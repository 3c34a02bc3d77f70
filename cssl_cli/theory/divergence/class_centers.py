"""Class centres μ_k: lengths, inner products, distances; the paper's divergence. (docs/theory.md, 6.)"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cssl_cli.features.geometry import distances
from cssl_cli.features.intervals import MIN_CLASS_IMAGES, band_factor, bootstrap_interval, replicate
from cssl_cli.theory.estimate import (
    Absent,
    Direction,
    Estimate,
    Interval,
    Quantity,
    by_class,
    intervals_by_class,
    numbers,
)
from cssl_cli.theory.table import FeatureTable, class_moments

QUANTITIES = (
    "priors",
    "squared_norms",
    "norms",
    "inner_products",
    "squared_distances",
    "distances",
    "closest_pair",
    "largest_inner_product",
    "mean_inner_product",
    "simplex_inner_product",
)


def class_centers(table: FeatureTable, class_weights: Tensor | None) -> dict[str, Quantity]:
    """Geometry of the K centres μ_k = E[f(v) | class k], means over images and augmented views: `QUANTITIES`.

    `class_weights` (R, N) resample the images within classes; None for no intervals. Matrices (K, K) are in the order
    of the table's class names. Without labels or without an augmented view every quantity is absent.
    """
    if table.labels is None:
        return dict.fromkeys(QUANTITIES, Absent("the images have no labels"))
    if table.num_augmented < 1:
        return dict.fromkeys(QUANTITIES, Absent("class centres need at least one augmented view of an image"))
    geometry = _Geometry(table, class_weights)
    return {**geometry.of_classes(), **geometry.of_pairs()}


class _Geometry:
    """Statistics of the centres as measured, and their replicates (R, ...) under resampled images."""

    def __init__(self, table: FeatureTable, class_weights: Tensor | None) -> None:
        self.table = table
        ones = table.features.new_ones(1, table.num_images)
        self.measured = {name: rows[0] for name, rows in self.statistics(ones).items()}
        self.replicates = None if class_weights is None else replicate(self.statistics, class_weights)

    def statistics(self, weights: Tensor) -> dict[str, Tensor]:
        """Unbiased inner products and squared distances (R, K, K), and their summaries, under weights (R, N)."""
        moments = class_moments(self.table, weights)
        products = moments.centers @ moments.centers.mT
        squared_norms = products.diagonal(dim1=1, dim2=2) - moments.center_errors
        # Not ‖μ_k‖² + ‖μ_l‖² − 2 μ_k·μ_l: nearly equal centres would lose all their digits.
        squared = distances(moments.centers, moments.centers).square()
        errors = moments.center_errors.unsqueeze(1) + moments.center_errors.unsqueeze(2)
        to_itself = 0 * moments.view_variances  # NaN for a class without images
        shares = torch.outer(self.table.priors, self.table.priors).fill_diagonal_(0)
        return {
            "squared_norms": squared_norms,
            "inner_products": torch.diagonal_scatter(products, squared_norms, dim1=1, dim2=2),
            "squared_distances": torch.diagonal_scatter(squared - errors, to_itself, dim1=1, dim2=2),
            "mean_inner_product": torch.where(shares > 0, shares * products, 0).sum(dim=(1, 2)) / shares.sum(),
        }

    def of_classes(self) -> dict[str, Quantity]:
        """One number for each class, and the matrices over pairs of classes."""
        names, measured = self.table.class_names, self.measured
        replicates = None if self.replicates is None else self.replicates["squared_norms"]
        intervals = intervals_by_class(names, measured["squared_norms"], replicates, self.table.class_sizes, least=0)
        short = self.table.classes_below(2)
        return {
            "priors": self.estimate(
                by_class(names, self.table.priors), "share of each class among the images", "exact for the table"
            ),
            "squared_norms": self.estimate(
                by_class(names, measured["squared_norms"]),
                "mean inner product of two distinct images of the class, each the mean of its augmented views (U form)",
                "unbiased",
                interval=intervals,
                absent=short,
            ),
            "norms": self.estimate(
                by_class(names, _root(measured["squared_norms"])),
                "root of the unbiased ‖μ_k‖², 0 where that is negative",
                "consistent",
                interval=None if intervals is None else {name: _rooted(pair) for name, pair in intervals.items()},
                absent=short,
            ),
            "inner_products": self.estimate(
                numbers(measured["inner_products"]),
                "μ_k·μ_l of the means over images and augmented views; on the diagonal the unbiased ‖μ_k‖²",
                "unbiased",
                absent=short,
            ),
            "squared_distances": self.estimate(
                numbers(measured["squared_distances"]),
                "‖μ_k − μ_l‖² of the means over images and augmented views, less the squared errors of both (U form)",
                "unbiased",
                absent=short,
            ),
            "distances": self.estimate(
                numbers(_root(measured["squared_distances"])),
                "root of the unbiased ‖μ_k − μ_l‖², 0 where that is negative",
                "consistent",
                absent=short,
            ),
        }

    def of_pairs(self) -> dict[str, Quantity]:
        """Summaries over pairs of different classes."""
        num_classes = int((self.table.class_sizes > 0).sum())
        if num_classes < 2:
            return dict.fromkeys(QUANTITIES[-4:], Absent("the images are all of one class"))
        mean = self.measured["mean_inner_product"].item()
        interval = None
        if self.replicates is not None and self.table.all_resampled:
            degrees = self.table.degrees_of_freedom
            interval = bootstrap_interval(mean, self.replicates["mean_inner_product"], degrees=degrees)
        return {
            "closest_pair": self.closest_pair(),
            "largest_inner_product": self.largest_inner_product(),
            "mean_inner_product": self.estimate(
                mean,
                "mean of μ_k·μ_l over pairs of different classes, weighted by p_k p_l; centres over augmented views",
                "unbiased",
                interval=interval,
            ),
            "simplex_inner_product": self.estimate(
                -1 / (num_classes - 1),
                "−1/(K − 1), reached by a regular simplex of unit vectors: the least mean inner product of balanced "
                "classes on the unit sphere",
                "exact for the table",
            ),
        }

    def closest_pair(self) -> Quantity:
        squared = self.measured["squared_distances"]
        candidates = _off_diagonal(squared, fill=torch.inf)
        if torch.isinf(candidates).all():
            return Absent("a distance needs two images in each of two classes")
        pair = divmod(int(candidates.argmin()), len(squared))
        return self.estimate(
            _root(squared[pair]).item(),
            "least distance of two centres over augmented views, root of the unbiased square; the least of noisy "
            "numbers is too small on average, unless centres coincide; interval for the least distance of any two, "
            "from a band that holds all pairs at once",
            "low",
            interval=_rooted(self.interval_of_extreme("squared_distances", least=True)),
            classes=self.names(pair),
            absent=self.table.classes_below(2),
        )

    def largest_inner_product(self) -> Quantity:
        products = self.measured["inner_products"]
        pair = divmod(int(_off_diagonal(products, fill=-torch.inf).argmax()), len(products))
        return self.estimate(
            products[pair].item(),
            "largest μ_k·μ_l of two different classes, centres over augmented views; the largest of noisy numbers is "
            "too large on average; interval for the largest of any two, from a band that holds all pairs at once",
            "high",
            interval=self.interval_of_extreme("inner_products", least=False),
            classes=self.names(pair),
            absent=self.table.classes_below(1),
        )

    def interval_of_extreme(self, statistic: str, *, least: bool) -> Interval | None:
        """Interval of the least, or largest, number of all pairs in the population, whichever pair that is.

        If every pair k is within c deviations s_k of its number d_k, the least lies between the least of d_k − c s_k
        and the least of d_k + c s_k. The interval is conservative.
        """
        sizes = self.table.class_sizes
        present = (sizes > 0).nonzero().squeeze(1)
        if self.replicates is None or int(sizes[present].min()) < MIN_CLASS_IMAGES:
            return None
        first, second = present[torch.triu_indices(len(present), len(present), offset=1, device=present.device)]
        values, replicates = self.measured[statistic][first, second], self.replicates[statistic][:, first, second]
        factor = band_factor(values, replicates, degrees=int(sizes[present].min()) - 1)
        if factor is None:
            return None
        reach = factor * replicates.std(dim=0)
        ends = (values - reach, values + reach)
        low, high = (end.min().item() if least else end.max().item() for end in ends)
        return low, high

    def names(self, pair: tuple[int, int]) -> tuple[str, ...]:
        return tuple(self.table.class_names[label] for label in sorted(pair))

    def estimate(self, value: Any, estimator: str, errs: Direction, **facts: Any) -> Estimate:
        return Estimate(value, estimator, errs, self.table.augmented_sample, **facts)


def _off_diagonal(matrix: Tensor, *, fill: float) -> Tensor:
    """A copy with `fill` on the diagonal and wherever the matrix is undefined."""
    return torch.where(matrix.isnan(), fill, matrix).fill_diagonal_(fill)


def _root(squared: Tensor) -> Tensor:
    return squared.clamp(min=0).sqrt()


def _rooted(interval: Interval | None) -> Interval | None:
    if interval is None or interval[1] <= 0:  # both ends at 0 would claim a certainty that does not exist
        return None
    return (max(interval[0], 0.0) ** 0.5, interval[1] ** 0.5)
