"""Do views of different classes coincide? The paper assumes they never do; this measures it.

Of images of different classes, the least augmented distance d_A, the share of images with a view within δ of a view of
another class, and the share with one that coincides. The theorems as proved in docs/theory.md, 10, do not need the
assumption; if it fails for many images, no encoder can tell their classes apart by those views, whatever 1 − σ is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.theory.augmented_distance import TOLERANCE, augmented_distances
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Quantity, Sample
from cssl_cli.theory.subsets import balanced_subset

QUANTITIES = ("least_distance", "deltas", "share_within", "share_within_delta", "share_coinciding")
COINCIDE = 1e-5  # closer unit-norm features differ only by the rounding of an encoder in float32


def class_overlap(
    geometry: ClassGeometry | Absent,
    deltas: Sequence[float],
    delta: float | None,
    *,
    max_images: int,
    generator: torch.Generator,
) -> dict[str, Quantity]:
    """`QUANTITIES`, of unit-norm features: d_A^f between classes among at most `max_images` random images, balanced.

    `share_within` is in the order of `deltas`, ascending, `share_within_delta` at `delta`; those two are absent without
    a grid.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    table = geometry.table
    rows = balanced_subset(geometry.positions.cpu(), max_images, generator)
    positions = geometry.positions.cpu()[rows]
    if len(positions.unique()) < 2:
        return dict.fromkeys(QUANTITIES, Absent("the images looked at are all of one class"))
    device = table.features.device
    overlap = Overlap.of(augmented_distances(table.features[rows.to(device)]).cpu(), positions)
    sample = Sample(len(rows), table.num_views)
    found = overlap_quantities(overlap, [table.class_names[label] for label in geometry.classes], sample, COINCIDE)
    no_grid = Absent("there is no grid of δ: features do not all have the same length above 0")
    within = f"share of images with a view within δ of a view of another class, {LOW}"
    return {
        "least_distance": found["least_distance"],
        "deltas": Estimate(list(deltas), "the grid of δ of Theorem 1", "exact for the table", sample)
        if len(deltas)
        else no_grid,
        "share_within": Estimate([overlap.share(d) for d in deltas], within, "low", sample) if len(deltas) else no_grid,
        "share_within_delta": no_grid
        if delta is None
        else Estimate(overlap.share(delta), f"{within}; at the δ of Theorem 1's least ρ", "low", sample),
        "share_coinciding": found["share_coinciding"],
    }


LOW = "among the images and views looked at: too low, as more of either only bring others nearer"


@dataclass(frozen=True)
class Overlap:
    """For each image its least distance (n,) to an image of another class; over all, the pair (i, j) of the least."""

    nearest: Tensor
    classes: tuple[int, int]

    @classmethod
    def of(cls, distances: Tensor, labels: Tensor) -> Overlap:
        """From all distances (n, n) of images with `labels` (n,) of two classes or more; symmetric."""
        across = distances.masked_fill(labels.unsqueeze(1) == labels, torch.inf)
        nearest, partner = across.min(dim=1)
        image = int(nearest.argmin())
        one, other = int(labels[image]), int(labels[partner[image]])
        return cls(nearest, (min(one, other), max(one, other)))

    @property
    def least(self) -> float:
        return self.nearest.min().item()

    def share(self, delta: float) -> float:
        """The share of images with a view within δ of another class, to the precision of the distances."""
        return (self.nearest <= delta * (1 + TOLERANCE)).double().mean().item()


def overlap_quantities(
    overlap: Overlap, class_names: Sequence[str], sample: Sample, coincide: float
) -> dict[str, Quantity]:
    """`least_distance` with its two classes and `share_coinciding`, distances up to `coincide` counting as 0."""
    high: Direction = "high"
    rounding = f", or less than {coincide:g} apart, its rounding" if coincide else ""
    return {
        "least_distance": Estimate(
            overlap.least,
            "least d_A between images of different classes, for the classes named, among the images and views looked "
            "at: too large, as more of either only bring others nearer",
            high,
            sample,
            classes=tuple(class_names[label] for label in overlap.classes),
        ),
        "share_coinciding": Estimate(
            overlap.share(coincide),
            f"share of images with a view that coincides with a view of another class{rounding}, {LOW}",
            "low",
            sample,
        ),
    }
