"""Concentration: how large a part of each class has views all within δ of one another. (docs/theory.md, 8.)

With d_A(x, y) the least distance of a view of x to a view of y, the main part of a class at δ is a largest set of its
images with d_A ≤ δ between any two, and σ(δ) its share of the class; 1 − σ is what the paper's bounds lose to poor
concentration. On a table a main part is a maximum clique, for which there are certain bounds. δ is in units of a
yardstick that does not depend on the augmentation, the median distance between clean images of different classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.features.geometry import require_finite
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.augmented_distance import augmented_distances
from cssl_cli.theory.companions.trade_off import Extremes, diameters, trade_off_of
from cssl_cli.theory.concentration.class_overlap import LOW, Overlap, overlap_quantities
from cssl_cli.theory.concentration.cliques import clique_bounds
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Interval, Quantity, Sample
from cssl_cli.theory.subsets import balanced_subset

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTITIES = (
    "yardstick",
    "deltas",
    "sigma_low",
    "sigma_high",
    "mean_sigma_low",
    "mean_sigma_high",
    "sigma_low_per_class",
    "sigma_high_per_class",
    "within_quantiles",
    "trade_off",
    "same_image",
    "same_class",
    "between_quantiles",
    "within_over_between",
    "sigma_relative",
    "sigma_relative_high",
    "nearest_same_class",
    "least_between",
    "share_near_other_class",
    "share_meeting_other_class",
)

Distances = NDArray[np.float64]


def concentration(
    vectors_of: Callable[[Tensor], Tensor],
    labels: Tensor | None,
    class_names: Sequence[str],
    *,
    num_views: int,
    deltas: Sequence[float],
    between_images: int,
    generator: torch.Generator,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Quantity]:
    """σ over δ and the distances behind it: `QUANTITIES`.

    vectors_of: image indices (n,) → vectors (n, V, D) of their V = `num_views` views, view 0 the clean image; called
    for one class at a time, and for the images that stand for pairs of different classes: a class-balanced random
    choice, from `generator`, of at most `between_images` ≥ 2.
    labels: (N,) in 0 … K − 1, or None: then everything is absent. deltas: in units of the yardstick, at least 0.
    advance: called with the number of images done since the last call.
    """
    if labels is None:
        return dict.fromkeys(QUANTITIES, Absent("the images have no labels"))
    labels = labels.cpu()
    sizes = labels.bincount(minlength=len(class_names))
    if int(sizes.max()) < 2:
        return dict.fromkeys(QUANTITIES, Absent("concentration needs a class with two images"))
    subset = balanced_subset(labels, between_images, generator)
    between = _between(vectors_of(subset), labels[subset])
    grid = sorted(
        {delta * unit for unit in (between.yardstick, between.median) if unit is not None for delta in deltas}
    )
    found: list[tuple[str, Distances, Tensor, Future[tuple[list[float], list[float]]]]] = []
    # Cliques keep one core busy, while the distances of the next class use all of them.
    with ThreadPoolExecutor(max_workers=1) as searching:
        for label, name in enumerate(class_names):
            members = (labels == label).nonzero().squeeze(1)
            if len(members) >= 2:
                whole = len(subset) == len(labels)
                among, spans = between.of_class(label) if whole else _distances(vectors_of(members))
                found.append((name, among, spans, searching.submit(sigma_bounds, among, grid)))
            if advance and len(members):
                advance(len(members))
    classes = [
        _Class(name, len(among), *bounds.result(), _pairs(among), Extremes.of(spans, torch.from_numpy(among)))
        for name, among, spans, bounds in found
    ]
    absent = {
        name: f"has {size} of the 2 images needed"
        for name, size in zip(class_names, sizes.tolist(), strict=True)
        if size < 2
    }
    return _Report(
        classes=classes,
        class_names=class_names,
        absent=absent,
        between=between,
        relative=[float(delta) for delta in deltas],
        grid=grid,
        num_images=len(labels),
        num_views=num_views,
    ).quantities()


def yardstick(
    clean_of: Callable[[Tensor], Tensor], labels: Tensor | None, *, between_images: int, generator: torch.Generator
) -> float | None:
    """The yardstick of `concentration` with the same arguments; None where that is absent.

    clean_of: image indices (n,) → vectors (n, 1, D) of their clean views.
    """
    if labels is None or int(labels.bincount().max()) < 2:
        return None
    labels = labels.cpu()
    subset = balanced_subset(labels, between_images, generator)
    clean, spans = _distances(clean_of(subset))
    return _Between(labels[subset].numpy(), clean, spans, clean).yardstick


def sigma_bounds(distances: Distances, deltas: Sequence[float]) -> tuple[list[float], list[float]]:
    """Certain bounds (low, high) of σ(δ), the share of images in a largest set with d_A ≤ δ between any two.

    `distances` (n, n) between the images of a class; `deltas` ascending. A set within δ is within every larger δ, so
    the bounds at one δ serve at others: both are non-decreasing.
    """
    num = len(distances)
    low: list[int] = []
    high: list[int] = []
    for delta in deltas:
        whole = bool(low) and low[-1] == num
        bounds = (num, num) if whole else clique_bounds(distances <= delta)[:2]
        low.append(max(bounds[0], low[-1] if low else 0))
        high.append(bounds[1])
    least_above = np.minimum.accumulate(high[::-1])[::-1].tolist() if high else []
    return [size / num for size in low], [size / num for size in least_above]


@dataclass(frozen=True)
class _Class:
    """σ of a class of `size` images over the grid of δ, d_A of its pairs, and its images' extreme distances."""

    name: str
    size: int
    low: list[float]
    high: list[float]
    pairs: Distances
    extremes: Extremes


@dataclass(frozen=True)
class _Between:
    """The S images that stand for pairs of different classes: labels (S,), d_A (S, S), the largest distance (S,) of two
    views of each, and clean distances (S, S)."""

    labels: NDArray[np.int64]
    distances: Distances
    spans: Tensor
    clean: Distances

    @property
    def num_classes(self) -> int:
        return len(np.unique(self.labels))

    @cached_property
    def apart(self) -> NDArray[np.bool_]:
        """Which pairs (S, S), each once, are of different classes."""
        return np.triu(self.labels[:, None] != self.labels, 1)

    @cached_property
    def yardstick(self) -> float:
        """Median clean distance between classes, or within the class when there is only one."""
        return float(np.median(self.clean[self.apart] if self.num_classes > 1 else _pairs(self.clean)))

    @cached_property
    def median(self) -> float | None:
        """Median d_A between classes."""
        return float(np.median(self.distances[self.apart])) if self.num_classes > 1 else None

    @cached_property
    def overlap(self) -> Overlap:
        """Overlap between different classes; needs at least two."""
        return Overlap.of(torch.from_numpy(self.distances), torch.from_numpy(self.labels))

    def of_class(self, label: int) -> tuple[Distances, Tensor]:
        rows = np.flatnonzero(self.labels == label)
        return self.distances[np.ix_(rows, rows)], self.spans[rows]

    def nearest_of_same_class(self) -> float:
        """How many images have a nearest other image of their own class; ties count in proportion."""
        others = self.distances.copy()
        np.fill_diagonal(others, np.inf)
        nearest = others <= others.min(axis=1, keepdims=True)
        same = nearest & (self.labels[:, None] == self.labels)
        return float((same.sum(axis=1) / nearest.sum(axis=1)).sum())

    def chance(self) -> float:
        """Share of the other images that are of an image's own class, on average over images."""
        counts = np.bincount(self.labels)
        return float((counts * (counts - 1)).sum() / (len(self.labels) * (len(self.labels) - 1)))


def _between(vectors: Tensor, labels: Tensor) -> _Between:
    return _Between(labels.numpy(), *_distances(vectors), _distances(vectors[:, :1])[0])


def _distances(vectors: Tensor) -> tuple[Distances, Tensor]:
    """d_A (n, n) of images with vectors (n, V, D), and the largest distance (n,) of two views of each."""
    require_finite(vectors, "the vectors of the views")
    found: Distances = augmented_distances(vectors).cpu().numpy()
    return found, diameters(vectors).cpu()


def _pairs(distances: Distances) -> Distances:
    found: Distances = distances[np.triu_indices(len(distances), 1)]
    return found


@dataclass(frozen=True)
class _Report:
    """Turns measurements into quantities; `classes` are those with at least two images."""

    classes: list[_Class]
    class_names: Sequence[str]
    absent: dict[str, str]
    between: _Between
    relative: list[float]
    grid: list[float]
    num_images: int
    num_views: int

    def quantities(self) -> dict[str, Quantity]:
        yardstick = self.between.yardstick
        deltas = [delta * yardstick for delta in self.relative]
        errors = (
            "against the full augmentation too small, as finitely many views make distances too large; against the "
            "population of images too large on average, as few images have relatively larger cliques"
        )
        low = f"clique found, σ is at least this on this table; {errors}"
        high = f"least of colouring, matching and degeneracy bounds, σ is at most this on this table; {errors}"
        means = self.means(deltas)
        interval = self.mcdiarmid(*means)
        of_mean = (
            "mean over classes of σ, weighted by their shares p_k; interval (McDiarmid, pointwise) for the expected σ "
            "of a table of this many images and views at this δ held fixed, not for σ of the population; "
        )
        found: dict[str, Quantity] = {
            "yardstick": self.estimate(yardstick, self.yardstick_text, "consistent", self.subset_sample(1)),
            "deltas": self.estimate(
                deltas,
                "the recipe's deltas times the yardstick, which depends on the clean images and the distance only: "
                "the same for every augmentation of them",
            ),
            "sigma_low": self.estimate(self.least(deltas, "low"), f"least σ over classes; {low}"),
            "sigma_high": self.estimate(self.least(deltas, "high"), f"least σ over classes; {high}"),
            "mean_sigma_low": self.estimate(means[0], of_mean + low, interval=interval),
            "mean_sigma_high": self.estimate(means[1], of_mean + high, interval=interval),
            "sigma_low_per_class": self.per_class(deltas, "low", f"σ of each class; {low}"),
            "sigma_high_per_class": self.per_class(deltas, "high", f"σ of each class; {high}"),
            "within_quantiles": self.estimate(
                _quantiles(self.within),
                "quantiles of the least distance d_A between stored views, over all pairs of images of the same class; "
                "a minimum over finitely many views is too large",
                "high",
            ),
        }
        trade_off = trade_off_of([one.extremes for one in self.classes], self.num_views)
        return found | trade_off | self.between_quantities()

    def between_quantities(self) -> dict[str, Quantity]:
        """Quantities that need a second class."""
        names = QUANTITIES[QUANTITIES.index("between_quantiles") :]
        median, yardstick_deltas = self.between.median, [delta * self.between.yardstick for delta in self.relative]
        if median is None:
            return dict.fromkeys(names, Absent("the images are all of one class"))
        of_subset = f"over pairs of images of different classes among {len(self.between.labels):,} images"
        ratio: Quantity = Absent("the median distance between classes is zero")
        if median > 0:
            ratio = self.estimate(
                float(np.median(self.within)) / median,
                "ratio of the medians of d_A over pairs of the same class and of different classes; finitely many "
                "views make both too large and the ratio wrong in either direction",
            )
        low, high = self.means([delta * median for delta in self.relative])
        relative = (
            "mean over classes of σ at δ = the recipe's deltas times the median d_A between classes: an augmentation "
            "that only shrinks all distances leaves it as it was; certain {} bound on this table; too small with few "
            "views, though δ grows with them too, and too large with few images"
        )
        return {
            "between_quantiles": self.estimate(
                _quantiles(self.between.distances[self.between.apart]),
                f"quantiles of d_A {of_subset}; a minimum over finitely many views is too large",
                "high",
                self.subset_sample(self.num_views),
            ),
            "within_over_between": ratio,
            "sigma_relative": self.estimate(low, relative.format("lower")),
            "sigma_relative_high": self.estimate(high, relative.format("upper")),
            "nearest_same_class": self.nearest(),
            **self.overlap(yardstick_deltas),
        }

    def overlap(self, deltas: Sequence[float]) -> dict[str, Quantity]:
        """How near views of different classes come, which the paper assumes never to coincide."""
        sample, overlap = self.subset_sample(self.num_views), self.between.overlap
        found = overlap_quantities(overlap, self.class_names, sample, coincide=0.0)
        shares = [overlap.share(delta) for delta in deltas]
        return {
            "least_between": found["least_distance"],
            "share_near_other_class": self.estimate(
                shares,
                f"share of images with a view within δ of a view of another class, at each of `deltas`, {LOW}",
                "low",
                sample,
            ),
            "share_meeting_other_class": found["share_coinciding"],
        }

    def nearest(self) -> Quantity:
        count, num = self.between.nearest_of_same_class(), len(self.between.labels)
        half = (num + 1) // 2
        low, high = clopper_pearson(math.floor(count / 2), half)[0], clopper_pearson(math.ceil(count / 2), half)[1]
        return self.estimate(
            count / num,
            f"share of {num:,} images whose nearest other image under d_A is of their class, ties counted by the share "
            f"that is; {self.between.chance():.4f} by chance; the interval is Clopper and Pearson's of half as "
            "many images, since two that are one another's nearest are alike",
            sample=self.subset_sample(self.num_views),
            interval=(low, high),
        )

    @cached_property
    def within(self) -> Distances:
        return np.concatenate([one.pairs for one in self.classes])

    @property
    def yardstick_text(self) -> str:
        pairs = "of different classes" if self.between.num_classes > 1 else "of the only class"
        return (
            f"median distance between clean images {pairs}, over pairs of {len(self.between.labels):,} images; "
            "independent of the augmentation"
        )

    def curve(self, one: _Class, deltas: Sequence[float], bound: str) -> list[float]:
        """A bound of σ of a class at `deltas`, all of which are on the grid."""
        values: list[float] = getattr(one, bound)
        return [values[self.grid.index(delta)] for delta in deltas]

    def least(self, deltas: Sequence[float], bound: str) -> list[float]:
        curves = [self.curve(one, deltas, bound) for one in self.classes]
        return [min(values) for values in zip(*curves, strict=True)]

    def means(self, deltas: Sequence[float]) -> tuple[list[float], list[float]]:
        """Lower and upper bounds of Σ p_k σ_k, over the classes with two images or more."""
        weights = np.array([one.size for one in self.classes]) / sum(one.size for one in self.classes)
        low, high = (
            (weights @ np.array([self.curve(one, deltas, bound) for one in self.classes])).tolist()
            for bound in ("low", "high")
        )
        return low, high

    def mcdiarmid(self, low: Sequence[float], high: Sequence[float]) -> list[Interval]:
        """95 % intervals for the expected Σ p_k σ_k: replacing one of the images moves it by one over their number."""
        radius = math.sqrt(math.log(2 / 0.05) / (2 * sum(one.size for one in self.classes)))
        return [(max(0.0, a - radius), min(1.0, b + radius)) for a, b in zip(low, high, strict=True)]

    def per_class(self, deltas: Sequence[float], bound: str, estimator: str) -> Quantity:
        curves: dict[str, Any] = dict.fromkeys(self.class_names)
        curves |= {one.name: self.curve(one, deltas, bound) for one in self.classes}
        return self.estimate(curves, estimator, absent=self.absent)

    def subset_sample(self, num_views: int) -> Sample:
        return Sample(len(self.between.labels), num_views)

    def estimate(
        self,
        value: Any,
        estimator: str,
        errs: Direction = "exact for the table",
        sample: Sample | None = None,
        **facts: Any,
    ) -> Estimate:
        return Estimate(value, estimator, errs, sample or Sample(self.num_images, self.num_views), **facts)


def _quantiles(values: Distances) -> dict[str, float]:
    levels = np.quantile(values, QUANTILES)
    return {f"{level:g}": value for level, value in zip(QUANTILES, levels.tolist(), strict=True)}
