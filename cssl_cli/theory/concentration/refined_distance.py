"""d_A with a search over the augmentation's parameters: how much too large the sampled minimum is. (docs/theory.md, 8.)

d_A(x, y) = min over θ, θ′ of ‖A_θ(x) − A_θ′(y)‖ over the unit cube of the augmentation's parameters (and the clean
images). A minimum over a few sampled views is far from it: two good views must be drawn for the same pair. Here the
best sampled pair of views is improved by an evolution strategy that changes one of the two views at a time: some
parameters are whole numbers (crop boxes), so gradients do not work. Whatever it finds is attained by the augmentation,
so a refined distance is still an upper bound of d_A, and a clique of refined distances within δ is one of the full
augmentation, on these images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cssl_cli.augment import Augmentation
from cssl_cli.features.extractor import stored_views
from cssl_cli.features.geometry import distances
from cssl_cli.theory.concentration.cliques import clique_bounds
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Quantity, Sample

QUANTITIES = (
    "sampled_within_median",
    "refined_within_median",
    "sampled_between_median",
    "refined_between_median",
    "sampled_mean_sigma",
    "refined_mean_sigma",
)
MIN_CLASS_IMAGES = 5  # with fewer images of a class σ would say little; fewer classes are used instead
EXTRA_VIEWS = 64  # extra views of each image of the sub-table, to start the search from
BLOCK_VIEWS = 1024  # views made at a time
BLOCK_NUMBERS = 2**23  # at most this many numbers in a temporary

# The evolution strategy, in units of the side of the unit cube.
FIRST_STEP = 0.3
STEP_RANGE = (0.01, 0.5)
SUCCESS, FAILURE = 1.5, 1.5**-0.25  # in balance when one trial in five is better
MOVED_SHARE, COPIED_SHARE, REDRAWN_SHARE = 0.5, 0.05, 0.05  # of the coordinates of a view in a trial

ToVectors = Callable[[Tensor], Tensor]


def refine_distances(
    images: Tensor,
    pairs: Tensor,
    start: Tensor,
    augmentation: Augmentation,
    *,
    to_vectors: ToVectors,
    steps: int,
    generator: torch.Generator,
    advance: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances (Q,), float64, of views of the `pairs` of images, made small from `start`, and their theta (Q, 2, P).

    images: (N, C, H, W), uint8; pairs: (Q, 2) indices; start: (Q, 2, P) the parameters of a view of each image of a
    pair; `to_vectors`: views (B, C, H, W), float in [0, 1] → vectors (B, D). Never larger than at the start. A step
    tries another view of the first image of every pair, then of the second; `advance` is called with 1 after each.
    """

    def vectors(side: int, theta: Tensor) -> Tensor:
        rows = pairs[:, side].split(BLOCK_VIEWS)
        parts = zip(rows, theta.split(BLOCK_VIEWS), strict=True)
        return torch.cat([to_vectors(augmentation.apply(images[at], part)) for at, part in parts])

    if len(pairs) == 0:
        return start.new_zeros(0, dtype=torch.float64), start
    theta = list(start.unbind(dim=1))
    views = [vectors(side, theta[side]) for side in (0, 1)]
    best = _row_distances(views[0], views[1])
    sizes = [torch.full_like(best, FIRST_STEP) for _ in (0, 1)]
    for _ in range(steps):
        for side in (0, 1) if augmentation.num_parameters else ():
            trial = _mutated(theta[side], theta[1 - side], sizes[side], _draws(theta[side], generator))
            trial_views = vectors(side, trial)
            found = _row_distances(trial_views, views[1 - side])
            # An equally good trial is accepted too: on plateaus, where a box stays the same, the search then drifts.
            accepted = (found <= best).unsqueeze(1)
            factor = torch.where(found > best, FAILURE, torch.where(found < best, SUCCESS, 1.0))
            sizes[side] = (sizes[side] * factor).clamp(*STEP_RANGE)
            theta[side] = torch.where(accepted, trial, theta[side])
            views[side] = torch.where(accepted, trial_views, views[side])
            best = torch.minimum(best, found)
        if advance:
            advance(1)
    return best, torch.stack(theta, dim=1)


def _draws(theta: Tensor, generator: torch.Generator) -> Tensor:
    """A normal number and two uniform ones (3, Q, P) for each coordinate of theta (Q, P), where theta lies."""
    numbers = torch.cat(
        [torch.randn((1, *theta.shape), generator=generator), torch.rand((2, *theta.shape), generator=generator)]
    )
    if theta.device.type == "cuda":  # from pinned memory, the copy need not be waited for
        numbers = numbers.pin_memory()
    return numbers.to(theta, non_blocking=True)


def _mutated(theta: Tensor, other: Tensor, sizes: Tensor, draws: Tensor) -> Tensor:
    """Points (Q, P) of the unit cube near theta: some coordinates moved by normal steps, reflected at the faces.

    A few coordinates are copied from `other`, the parameters of the pair's other view: two images often come close
    under the same augmentation. A few are drawn afresh, so that whether an operation is applied can change.
    """
    steps, fresh, chance = draws
    folded = (theta + steps * sizes.unsqueeze(1).to(theta)).remainder(2)
    moved = torch.where(folded > 1, 2 - folded, folded)
    trial = torch.where(chance < MOVED_SHARE, moved, theta)
    trial = torch.where(chance >= 1 - COPIED_SHARE - REDRAWN_SHARE, fresh, trial)
    return torch.where(chance >= 1 - COPIED_SHARE, other, trial)


def _row_distances(first: Tensor, second: Tensor) -> Tensor:
    return torch.linalg.vector_norm(first - second, dim=1, dtype=torch.float64)


def refined_concentration(
    images: Tensor,
    labels: Tensor | None,
    class_names: Sequence[str],
    augmentation: Augmentation,
    theta: Tensor,
    *,
    to_vectors: ToVectors,
    num_pairs: int,
    steps: int,
    deltas_absolute: Sequence[float],
    generator: torch.Generator,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Quantity]:
    """d_A and σ on a sub-table of images, with the stored views and after a search for nearer ones: `QUANTITIES`.

    images: (N, C, H, W), uint8; labels (N,); theta (N, m, P) of the stored augmented views. The sub-table, drawn from
    `generator`, has equally many images of each class, such that its pairs of the same class are at most `num_pairs`;
    as many pairs of different classes are drawn from it. Both are searched with `steps` steps, on `device`; what is
    drawn is the same on every device.
    """
    if labels is None:
        return dict.fromkeys(QUANTITIES, Absent("the images have no labels"))
    if theta.shape[1] == 0:
        return dict.fromkeys(QUANTITIES, Absent("the search starts from augmented views, and there are none"))
    labels = labels.cpu()
    rows = _sub_table(labels, len(class_names), num_pairs, generator)
    within, between = _pairs_of(labels[rows], num_pairs, generator)
    if len(within) == 0:
        return dict.fromkeys(QUANTITIES, Absent("a search needs a class with two images, and a pair to spend on it"))
    pairs = torch.cat([within, between])
    table = _Table.build(images[rows].to(device), augmentation, theta[rows].to(device), to_vectors, generator)
    sampled, start = table.nearest(pairs)
    found, _ = refine_distances(
        table.images,
        pairs.to(device),
        start,
        augmentation,
        to_vectors=to_vectors,
        steps=steps,
        generator=generator,
        advance=advance,
    )
    refined = torch.minimum(sampled, found)
    report = _Report(
        labels=labels[rows],
        within=within,
        num_between=len(between),
        deltas=[float(delta) for delta in deltas_absolute],
        sample=Sample(len(rows), 1 + theta.shape[1]),
        searched=f"after a search over the augmentation's parameters from {theta.shape[1] + EXTRA_VIEWS} views, "
        f"{2 * steps} trials a pair",
    )
    return report.quantities(sampled.cpu(), refined.cpu())


def _sub_table(labels: Tensor, num_classes: int, num_pairs: int, generator: torch.Generator) -> Tensor:
    """Image indices, ascending: a few images each of all classes, or of some where all would make too many pairs."""
    order = torch.randperm(len(labels), generator=generator, device=generator.device).cpu()
    classes = torch.randperm(num_classes, generator=generator, device=generator.device).tolist()
    members = [rows for label in classes if len(rows := order[labels[order] == label]) >= 2]
    if not members or num_pairs < 1:
        return order[:0]
    each = min(max(_most_images(num_pairs // len(members)), MIN_CLASS_IMAGES), _most_images(num_pairs))
    taken = members[: num_pairs // (each * (each - 1) // 2)]
    return torch.cat([rows[:each] for rows in taken]).sort().values


def _most_images(num_pairs: int) -> int:
    """The largest number of images with at most this many pairs."""
    return (1 + math.isqrt(1 + 8 * num_pairs)) // 2


def _pairs_of(labels: Tensor, num_between: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """All pairs (Q, 2) of the same class, and a random choice of those of different classes, as many where possible."""
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    same = labels[first] == labels[second]
    pairs = torch.stack([first, second], dim=1)
    apart = pairs[~same]
    order = torch.randperm(len(apart), generator=generator, device=generator.device).cpu()
    return pairs[same], apart[order[: min(num_between, int(same.sum()))]]


@dataclass(frozen=True)
class _Table:
    """The sub-table: n images, theta (n, W, P) of the stored and extra views, vectors (n, 1 + W, D), clean first."""

    images: Tensor
    theta: Tensor
    vectors: Tensor
    num_stored: int

    @classmethod
    def build(
        cls,
        images: Tensor,
        augmentation: Augmentation,
        theta: Tensor,
        to_vectors: ToVectors,
        generator: torch.Generator,
    ) -> _Table:
        extra = augmentation.draw(len(images) * EXTRA_VIEWS, generator).unflatten(0, (len(images), EXTRA_VIEWS))
        num_stored = 1 + theta.shape[1]
        theta = torch.cat([theta, extra.to(theta)], dim=1)
        step = max(1, BLOCK_VIEWS // theta.shape[1])
        vectors = []
        for some, points in zip(images.split(step), theta.split(step), strict=True):
            views = stored_views(some, augmentation, points)
            vectors.append(to_vectors(views.flatten(0, 1)).unflatten(0, views.shape[:2]))
        return cls(images, theta, torch.cat(vectors), num_stored)

    def nearest(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """d_A (Q,), float64, over the stored views of pairs (Q, 2), and theta (Q, 2, P) of near augmented views."""
        step = max(1, BLOCK_NUMBERS // self.vectors[0].numel())
        sampled, start = [], []
        for some in pairs.to(self.vectors.device).split(step):
            first, second = self.vectors[some[:, 0]], self.vectors[some[:, 1]]
            stored = distances(first[:, : self.num_stored].double(), second[:, : self.num_stored].double())
            sampled.append(stored.amin(dim=(1, 2)))
            # Where the search starts need not be exact: a Gram matrix will do.
            close = torch.cdist(first[:, 1:], second[:, 1:], compute_mode="use_mm_for_euclid_dist")
            close = close.flatten(1).argmin(dim=1)
            num = self.theta.shape[1]
            views = (self.theta[some[:, 0], close // num], self.theta[some[:, 1], close % num])
            start.append(torch.stack(views, dim=1))
        return torch.cat(sampled), torch.cat(start)


@dataclass(frozen=True)
class _Report:
    """Turns distances of the sub-table's pairs, `within` classes (Q, 2) first, into quantities."""

    labels: Tensor
    within: Tensor
    num_between: int
    deltas: list[float]
    sample: Sample
    searched: str

    def quantities(self, sampled: Tensor, refined: Tensor) -> dict[str, Quantity]:
        found: dict[str, Quantity] = {}
        too_large = "a minimum over finitely many views is too large"
        attained = "attained by views of the augmentation, hence still too large, but less"
        sigma = (
            "mean over classes, weighted by their images, of a certain lower bound of σ (cliques) on "
            f"{len(self.labels)} images, at the deltas of the concentration; "
        )
        for which, values, how, errs_why in (
            ("sampled", sampled, "over the stored views", too_large),
            ("refined", refined, self.searched, attained),
        ):
            found[f"{which}_within_median"] = self.estimate(
                values[: len(self.within)].quantile(0.5).item(),
                f"median d_A over {len(self.within)} pairs of the same class, {how}; {errs_why}",
                "high",
            )
            found[f"{which}_mean_sigma"] = self.estimate(
                self.mean_sigma(values[: len(self.within)]),
                f"{sigma}d_A {how}; too small for these images, as d_A is too large; few images make σ larger",
                "either",
            )
            found[f"{which}_between_median"] = (
                self.estimate(
                    values[len(self.within) :].quantile(0.5).item(),
                    f"median d_A over {self.num_between} pairs of different classes, {how}; {errs_why}",
                    "high",
                )
                if self.num_between
                else Absent("the images are all of one class")
            )
        return {name: found[name] for name in QUANTITIES}

    def mean_sigma(self, within: Tensor) -> list[float]:
        """Σ n_k σ_k / Σ n_k over the sub-table, lower bounds, at each δ."""
        matrix = np.full((len(self.labels), len(self.labels)), np.inf)
        first, second = self.within.numpy().T
        matrix[first, second] = matrix[second, first] = within.numpy()
        classes = [np.flatnonzero(self.labels.numpy() == label) for label in self.labels.unique().tolist()]
        blocks = [matrix[np.ix_(rows, rows)] for rows in classes]
        curve = [sum(clique_bounds(block <= delta).low for block in blocks) / len(matrix) for delta in self.deltas]
        # A clique at a smaller δ is one at a larger; the grid need not be in order.
        least = [
            max(value for value, at in zip(curve, self.deltas, strict=True) if at <= delta) for delta in self.deltas
        ]
        return [float(value) for value in least]

    def estimate(self, value: Any, estimator: str, errs: Direction) -> Estimate:
        return Estimate(value, estimator, errs, self.sample)
