"""Statements about new images: held-out centres, and certificates with a binomial bound. (docs/theory.md, 10.)

One half of each class, the reference, gives the centres and the images behind the averages of Theorems B and C; every
image of the other half, a query, is tested against it. "Certified" implies "classified correctly" for each query, and
the queries are independent of the reference, so the population error of the reference's centres is at most the
probability of being uncertified, whose Clopper–Pearson bound follows from U of n₂ queries. An interval for the error
itself, from the same queries, is shorter: the certificate explains that number but does not improve on it.

There is one split, not several: over folds or repeated splits the tests would not be independent, since the centres of
one are the queries of another, and no binomial bound would hold for their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.certificates.chains import chain_reach, directional_margins
from cssl_cli.theory.certificates.conditions import best_margins, certified
from cssl_cli.theory.certificates.error_bounds import ONE_CLASS, is_vacuous
from cssl_cli.theory.class_geometry import ClassGeometry, halves, misclassified
from cssl_cli.theory.estimate import Absent, Estimate, Interval, Quantity, Sample

QUANTITIES = (
    "error",
    "error_bound",
    "chance",
    "error_upper",
    "uncertified_share",
    "by_views",
    "error_per_class",
    "error_bound_per_class",
)

SAMPLING = (
    "holds with probability 95 % over the queries if they are independent draws from the population, or of each class "
    "in its share of the population; for the classifier with the reference half's centres and for any rule by which "
    "the stored views were drawn"
)


@dataclass(frozen=True)
class Tested:
    """How the n₂ queries fared, class by class.

    certified_by_views: (V, n₂) by Theorem C with the suprema over the first 1 … V stored views, or by Theorem B, which
        uses all. An image certified with more views is certified with fewer.
    wrong: (n₂,) misclassified by the reference's centres.
    positions: (n₂,) the class, by the geometry's numbering.
    """

    certified_by_views: Tensor
    wrong: Tensor
    positions: Tensor

    @property
    def certified(self) -> Tensor:
        """Which queries (n₂,) are certified with all stored views."""
        return self.certified_by_views[-1]


def population(
    geometry: ClassGeometry | Absent, within: Sequence[Tensor], *, generator: torch.Generator
) -> dict[str, Quantity]:
    """The error of held-out centres and its certified bounds, `QUANTITIES`.

    `error` of the reference's centres on the queries, with its interval; `error_bound`, the 95 % upper bound on the
    population's error by certificates, beside `chance` and `error_upper`, the same bound computed from the errors;
    the `uncertified_share`; `by_views`, the bound with 1 … V stored views behind the suprema.

    `within` holds the distances d_A^f (n_k, n_k) of each of the table's K classes; `generator` draws the halves. A
    class with a single image is all reference; no statement is made about it.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    references, queries = halves(geometry, generator)
    if not any(len(places) for places in queries):
        return dict.fromkeys(QUANTITIES, Absent("a split takes two images of some class"))
    return _Report(geometry, certify_queries(geometry, within, references, queries)).quantities()


def certify_queries(
    geometry: ClassGeometry, within: Sequence[Tensor], references: Sequence[Tensor], queries: Sequence[Tensor]
) -> Tested:
    """Which queries are certified by B or C and which are misclassified.

    `references` and `queries` hold, for each class with images, positions in its list of members. Each query is tested
    without using any other.
    """
    reference_images = [images[places] for images, places in zip(geometry.members, references, strict=True)]
    centers = torch.stack([geometry.means[images].mean(dim=0) for images in reference_images])
    features = geometry.table.features
    radius = max(torch.linalg.vector_norm(features[images], dim=2).max().item() for images in reference_images)
    passed, wrong, positions = [], [], []
    for own, (images, places) in enumerate(zip(reference_images, queries, strict=True)):
        if len(places) == 0:
            continue
        query = geometry.members[own][places]
        along = directional_margins(
            features[query], features[images], geometry.means[images], centers, own, itself=False
        )
        norms = geometry.clean_norms[query]
        spread_of_means = (geometry.means[images] - centers[own]).square().sum(dim=1).mean()
        reach = chain_reach(
            within[geometry.classes[own]][places][:, references[own]],
            eccentricity=geometry.eccentricity[query],
            farthest=norms + radius,
            radius=geometry.radius[images],
            diameter=geometry.diameter[images],
            spread_of_means=spread_of_means,
            spread_of_views=spread_of_means + geometry.scatter[images].mean(),
            offset=None,
        )
        around = best_margins(reach, centers, own, least_norm=norms, largest_norm=norms, radius=radius)
        by_views = certified(along, centers, own, radius) | certified(around, centers, own, radius)
        # Certified with more views implies certified with fewer; enforced here, whatever the rounding.
        passed.append(by_views.flip(0).cummax(dim=0).values.flip(0))
        positions.append(torch.full_like(query, own))
        wrong.append(misclassified(features[query, 0], positions[-1], centers))
    return Tested(torch.cat(passed, dim=1), torch.cat(wrong), torch.cat(positions))


class _Report:
    """Turns the counts of the tested images into estimates and bounds."""

    def __init__(self, geometry: ClassGeometry, tested: Tested) -> None:
        self.geometry, self.tested = geometry, tested
        self.num_queries = len(tested.wrong)
        self.of_class = tested.positions.bincount(minlength=len(geometry.classes)).tolist()
        self.sample = Sample(self.num_queries, geometry.table.num_views)
        self.left_out = geometry.table.classes_below(2)
        self.chance = 1 - max(self.of_class) / self.num_queries
        self.split = (
            "a random half of each class gives the centres and averages, the other "
            f"{self.num_queries:,} images are tested"
        )

    def quantities(self) -> dict[str, Quantity]:
        tested = self.tested
        uncertified, errors = int((~tested.certified).sum()), int(tested.wrong.sum())
        by_views = [self.upper(int(count)) for count in (~tested.certified_by_views).sum(dim=1)]
        judged = f"vacuous unless below chance, {self.chance:.4g}"
        upper = "one-sided Clopper–Pearson bound on"
        uncertified_by = "the probability of an image certified by neither Theorem B nor C"
        return {
            "error": self.share(errors, "misclassified by the centres of the reference half"),
            "error_bound": self.bound(
                self.upper(uncertified), f"{upper} {uncertified_by}; {self.split}; {SAMPLING}; {judged}"
            ),
            "chance": Estimate(
                self.chance,
                "error of giving every tested image the name of the largest class among them, 1 − max p; bounds on the "
                "error are vacuous from here on",
                "exact for the table",
                self.sample,
            ),
            "error_upper": self.bound(
                self.upper(errors),
                f"{upper} the same error straight from the tested images, for comparison; {SAMPLING}; {judged}",
            ),
            "uncertified_share": self.share(uncertified, "certified by neither Theorem B nor C"),
            "by_views": Estimate(
                by_views,
                f"{upper} {uncertified_by}, with the suprema of C over the first 1, 2, … stored views only, the clean "
                "one first; all bound the same error, at once: an image certified with more views is certified with "
                f"fewer, so the first bound is the least; {self.split}; {SAMPLING}; {judged} (if none is)",
                "high",
                self.sample,
                interval=[(0.0, bound) for bound in by_views],
                absent=self.left_out,
                vacuous=is_vacuous(min(by_views), self.chance),
            ),
            **self.per_class(),
        }

    def upper(self, count: int, num: int | None = None) -> float:
        return clopper_pearson(count, num or self.num_queries, side="upper")[1]

    def share(self, count: int, what: str) -> Quantity:
        return Estimate(
            count / self.num_queries,
            f"share of the tested images {what}; {self.split}",
            "unbiased",
            self.sample,
            interval=clopper_pearson(count, self.num_queries),
            absent=self.left_out,
        )

    def bound(self, value: float, estimator: str) -> Quantity:
        return Estimate(
            value,
            estimator,
            "high",
            self.sample,
            interval=(0.0, value),
            absent=self.left_out,
            vacuous=is_vacuous(value, self.chance),
        )

    def per_class(self) -> dict[str, Quantity]:
        """The error and the bound in each class that has tested images, each at its own 95 %."""
        names = self.geometry.table.class_names
        errors: dict[str, float | None] = dict.fromkeys(names)
        bounds: dict[str, float | None] = dict.fromkeys(names)
        of_errors: dict[str, Interval | None] = dict.fromkeys(names)
        of_bounds: dict[str, Interval | None] = dict.fromkeys(names)
        of_images = (self.tested.positions, self.tested.wrong, ~self.tested.certified)
        positions, is_wrong, is_uncertified = (values.cpu() for values in of_images)
        for own, num in enumerate(self.of_class):
            if num == 0:
                continue
            name = names[self.geometry.classes[own]]
            rows = positions == own
            wrong, uncertified = int(is_wrong[rows].sum()), int(is_uncertified[rows].sum())
            bound = self.upper(uncertified, num)
            errors[name], of_errors[name] = wrong / num, clopper_pearson(wrong, num)
            bounds[name], of_bounds[name] = bound, (0.0, bound)
        return {
            "error_per_class": Estimate(
                errors,
                "share of the tested images of each class misclassified by the centres of the reference half; "
                f"{self.split}",
                "unbiased",
                self.sample,
                interval=of_errors,
                absent=self.left_out,
            ),
            "error_bound_per_class": Estimate(
                bounds,
                "one-sided Clopper–Pearson bound on the probability of an image certified by neither Theorem B nor C, "
                f"for each class at its own 95 %; {self.split}; 1 says nothing (vacuous: of any class)",
                "high",
                self.sample,
                interval=of_bounds,
                absent=self.left_out,
                vacuous=is_vacuous(min(bound for bound in bounds.values() if bound is not None), ONE_CLASS),
            ),
        }
