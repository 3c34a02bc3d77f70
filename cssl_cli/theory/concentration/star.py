"""Stars: lower bounds of σ(δ) in the population, from images held out. (docs/theory.md, 8.)

A clique among sampled images says nothing about new ones. A star does. Let W be some views of an image x_c, its hub, of
diameter diam(W), and d(x, W) the least distance of a view of x to one of W. If x and y are both within ϱ of W, the path
from x to W, within W, and on to y shows

    d_A(x, y) ≤ 2ϱ + diam(W).

So {x in class k : 2 d(x, W) + diam(W) ≤ δ} is a main part at δ, and its probability a lower bound of σ_k(δ). With W and
δ fixed by one half of the images, the images of the other half that lie in it are a binomial count, of which Clopper
and Pearson give a lower bound. Hubs are all stored views of an image, or its clean view alone, of diameter 0.

Every δ of the grid uses the hub that is best for it, and its part of the 5 %: the bounds hold at all δ at once. Since
σ_k rises with δ, a bound at one δ is also one at every larger δ: each δ gets the largest bound up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.features.geometry import distances, require_finite
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.augmented_distance import TOLERANCE, augmented_distances
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample

QUANTITIES = ("star_deltas", "mean_star_sigma", "star_sigma", "star_sigma_per_class")
CONFIDENCE = 0.95
MAX_HUBS = 32  # images of a class that are tried as hubs


def star(
    vectors_of: Callable[[Tensor], Tensor],
    labels: Tensor | None,
    class_names: Sequence[str],
    *,
    num_views: int,
    deltas: Sequence[float],
    max_images: int,
    generator: torch.Generator,
) -> dict[str, Quantity]:
    """Lower bounds of σ(δ) of the population, at all δ at once with 95 % confidence: `QUANTITIES`.

    vectors_of: image indices (n,) → vectors (n, V, D) of their V = `num_views` views, view 0 the clean image; called
    for one class at a time. labels: (N,) in 0 … K − 1, or None: then everything is absent.
    deltas: in units of the median distance between clean images of different classes, of the half that chooses.
    max_images: about this many are used, the same share of each class. `generator` draws them, and the halves.
    """
    if labels is None:
        return dict.fromkeys(QUANTITIES, Absent("the images have no labels"))
    labels = labels.cpu()
    share = min(1.0, max_images / len(labels))
    classes, clean = [], []
    for label, name in enumerate(class_names):
        members = (labels == label).nonzero().squeeze(1)
        if len(members) >= 2:
            order = torch.randperm(len(members), generator=generator, device=generator.device).cpu()
            vectors = vectors_of(members[order[: max(2, round(share * len(members)))]])
            require_finite(vectors, "the vectors of the views")
            num_choosing = (len(vectors) + 1) // 2
            reach = least_deltas(vectors, vectors[: min(num_choosing, MAX_HUBS)])
            classes.append(_Class(name, reach[:, :num_choosing], reach[:, num_choosing:]))
            clean.append(vectors[:num_choosing, :1])
    if not classes:
        return dict.fromkeys(QUANTITIES, Absent("concentration needs a class with two images"))
    unit = _yardstick(clean)
    return _Report(classes, class_names, labels, [delta * unit for delta in deltas], num_views).quantities()


def least_deltas(vectors: Tensor, hubs: Tensor) -> NDArray[np.float64]:
    """The least δ (2H, n) at which images (n, V, D) lie in the stars of `hubs` (H, V, D), 2 d(x, W) + diam(W).

    The first H rows have all views of the hub as W, the others its clean view. Rounding only makes δ larger.
    """
    diameters = distances(hubs.double(), hubs.double()).amax(dim=(1, 2))
    whole = 2 * augmented_distances(vectors, hubs).T + diameters.unsqueeze(1)
    single = 2 * augmented_distances(vectors, hubs[:, :1]).T
    found: NDArray[np.float64] = (torch.cat([whole, single]) * (1 + TOLERANCE)).cpu().numpy()
    return found


def _yardstick(clean: Sequence[Tensor]) -> float:
    """Median distance between clean images (n_k, 1, D) of different classes, or within the only class."""
    among = augmented_distances(torch.cat(list(clean))).cpu().numpy()
    place = np.repeat(np.arange(len(clean)), [len(images) for images in clean])
    apart = np.triu(place[:, None] != place, 1) if len(clean) > 1 else np.triu(np.ones_like(among, dtype=bool), 1)
    return float(np.median(among[apart])) if apart.any() else 0.0


@dataclass(frozen=True)
class _Class:
    """The least δ of a class's images in every star: of the half that chooses, and of the half that is counted."""

    name: str
    choosing: NDArray[np.float64]
    counted: NDArray[np.float64]

    @property
    def num_counted(self) -> int:
        return self.counted.shape[1]

    def successes(self, delta: float) -> int:
        """How many of the counted images are in the star that holds most of the other half at δ."""
        inside = (self.choosing <= delta).sum(axis=1)
        # Of equally full stars the one that was full at the least δ, on average.
        best = np.lexsort((self.choosing.mean(axis=1), -inside))[0]
        return int((self.counted[best] <= delta).sum())


@dataclass(frozen=True)
class _Report:
    """Turns counts into bounds; `classes` are those with at least two images."""

    classes: list[_Class]
    class_names: Sequence[str]
    labels: Tensor
    deltas: list[float]
    num_views: int

    def quantities(self) -> dict[str, Quantity]:
        successes = [[one.successes(delta) for delta in self.deltas] for one in self.classes]
        nums = [one.num_counted for one in self.classes]
        per_class: dict[str, Any] = dict.fromkeys(self.class_names)
        per_class |= {
            one.name: self.rising(self.lower(counts, num))
            for one, counts, num in zip(self.classes, successes, nums, strict=True)
        }
        pooled = self.rising(self.lower([sum(counts) for counts in zip(*successes, strict=True)], sum(nums)))
        # Not above the bound of the class with the least σ, which holds with 95 %: no correction is needed.
        of_classes = [self.lower(counts, num) for counts, num in zip(successes, nums, strict=True)]
        least = self.rising([min(bounds) for bounds in zip(*of_classes, strict=True)])
        how = (
            "one-sided Clopper–Pearson bound on the probability of a star, the images within (δ − diam) / 2 of a hub, "
            f"which was chosen, as δ was, by the other half of the images, each of the {len(self.deltas)} δ with its "
            "part of the 5 %, and the largest up to each δ; holds at all δ at once with probability 95 % over the "
            "counted images, if they are independent draws from their classes, for σ of the full augmentation too, "
            "since finitely many views only make the distances to the hub too large"
        )
        intervals: dict[str, Any] = {
            name: None if values is None else [(low, 1.0) for low in values] for name, values in per_class.items()
        }
        sizes = self.labels.bincount(minlength=len(self.class_names)).tolist()
        absent = {
            name: f"has {size} of the 2 images needed"
            for name, size in zip(self.class_names, sizes, strict=True)
            if size < 2
        }
        return {
            "star_deltas": Estimate(
                self.deltas,
                "the recipe's deltas times the median distance between clean images of different classes, of the half "
                "that chooses the hubs",
                "exact for the table",
                self.sample,
            ),
            "mean_star_sigma": self.bound(
                pooled, f"lower bound of the mean over classes of σ, weighted by their counted images; {how}"
            ),
            "star_sigma": self.bound(
                least, f"lower bound of the least σ over classes, the least of their bounds; {how}"
            ),
            "star_sigma_per_class": Estimate(
                per_class,
                f"lower bound of σ of each class; {how}",
                "low",
                self.sample,
                interval=intervals,
                absent=absent,
            ),
        }

    @property
    def sample(self) -> Sample:
        """The counted images."""
        return Sample(sum(one.num_counted for one in self.classes), self.num_views)

    def lower(self, counts: Sequence[int], num: int) -> list[float]:
        """Lower bounds at every δ from `counts` of `num` images, each with its part of the 5 %."""
        confidence = 1 - (1 - CONFIDENCE) / max(1, len(self.deltas))
        return [clopper_pearson(count, num, confidence, side="lower")[0] for count in counts]

    def rising(self, bounds: Sequence[float]) -> list[float]:
        """The largest of the bounds at any δ up to each."""
        pairs = list(zip(self.deltas, bounds, strict=True))
        return [max(bound for other, bound in pairs if other <= delta) for delta in self.deltas]

    def bound(self, values: list[float], estimator: str) -> Estimate:
        interval = [(low, 1.0) for low in values]
        return Estimate(values, estimator, "low", self.sample, interval=interval, vacuous=not any(values))
