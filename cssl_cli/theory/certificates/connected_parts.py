"""Theorem A with connected parts instead of cliques, and classes joined by edges d_A^f ≤ δ. (docs/theory.md, 10.)

Let x₀, x₁, …, x_j be images of diameter at most ε, each within d_A^f ≤ δ of the next. From any view of x₀, go within x₀
to its view nearest to x₁ (ε), cross to x₁ (δ), move within x₁ (ε), and so on to any view of x_j, so that

    ‖f(v) − f(v′)‖ ≤ jδ + (j + 1)ε    for all views v of x₀, v′ of x_j.

A component of the graph d_A^f ≤ δ on a class's images of diameter at most ε, with at most h steps between any two of
them (its hop diameter), therefore satisfies Theorem A with b = hδ + (h + 1)ε. Components, unlike the largest clique,
can be found exactly. But the same images are also a clique at their largest distance δ′ ≤ hδ + (h − 1)ε, with a step
δ′ + 2ε that is no longer: on a table, connectivity certifies nothing that cliques at every δ would not. Such arguments
appear in Wang et al., ICLR 2022 (arXiv 2203.13457) and in Zhang, Wang and Wang (arXiv 2511.03114).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from cssl_cli.theory.augmented_distance import TOLERANCE, augmented_distances
from cssl_cli.theory.certificates.error_bounds import bounds_from_certified, per_class
from cssl_cli.theory.certificates.threshold_search import GoodSet, Part, ThresholdSearch
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.concentration.main_parts import TIES
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.subsets import balanced_subset

OF_PARTS = (
    "error_bound",
    "certified_share_per_class",
    "certified_per_class",
    "margin_per_class",
    "part_share_per_class",
    "delta_per_class",
    "epsilon_per_class",
    "hops_per_class",
    "step_per_class",
    "clique_step_per_class",
)
OF_EDGES = ("edge_deltas", "edges_across", "pairs_across")
QUANTITIES = (*OF_PARTS, *OF_EDGES)
EDGE_LEVELS = (0.01, 0.05, 0.25, 0.5)  # shares of the pairs within classes that are edges


def connected_parts(
    geometry: ClassGeometry | Absent, within: Sequence[Tensor], *, max_images: int, generator: torch.Generator
) -> dict[str, Quantity]:
    """The bound of Theorem A with connected parts and the terms behind it; the share of edges across classes.

    `within` holds the distances d_A^f (n_k, n_k) of each of the table's K classes. Edges are counted among at most
    `max_images` images, equally many per class, drawn by `generator`.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    return _parts(geometry, within) | _edges(geometry, max_images, generator)


def best_parts(geometry: ClassGeometry, within: Sequence[Tensor]) -> list[GoodSet]:
    """For each class with images, the largest certified connected part, or else the one that came nearest to it."""
    return [_Components(geometry, own, within[label]).best() for own, label in enumerate(geometry.classes)]


def hop_diameter(adjacent: NDArray[np.bool_]) -> int:
    """The most steps between two vertices of a connected graph (n, n), diagonal True.

    Uses powers of the graph: two vertices are at most h steps apart if its h-th power joins them. Doubling h until all
    are joined, then bisecting, takes 2 log₂ h products.
    """
    powers = [adjacent]
    while not powers[-1].all():
        powers.append(_joined(powers[-1], powers[-1]))
    if len(powers) == 1:
        return min(1, len(adjacent) - 1)
    hops, reached = 2 ** (len(powers) - 2), powers[-2]  # this many steps do not yet join all
    for exponent in reversed(range(len(powers) - 2)):
        further = _joined(reached, powers[exponent])
        if not further.all():
            hops, reached = hops + 2**exponent, further
    return hops + 1


def _joined(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.bool_]:
    joined: NDArray[np.bool_] = first.astype(np.float32) @ second.astype(np.float32) > 0
    return joined


class _Components(ThresholdSearch):
    """The largest component of the graph d_A^f ≤ δ on the images of diameter at most ε."""

    def limits(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        found = [self.component(place) for place in range(len(self.deltas))]
        hops = [self.eccentricity(place, members) for place, members in enumerate(found)]
        return np.array([len(members) for members in found]), np.array(hops)

    def component(self, place: int) -> NDArray[np.int64]:
        """The members of the largest component; among equals, that of the image of least diameter."""
        num_tight = int(self.num_tight[place])
        if num_tight == 1:
            return np.zeros(1, dtype=np.int64)
        labels = fcluster(self.linkages[num_tight], self.deltas[place], criterion="distance")
        sizes = np.bincount(labels)
        return np.flatnonzero(labels == labels[sizes[labels].argmax()])

    @cached_property
    def linkages(self) -> dict[int, NDArray[np.float64]]:
        """For each number of tight images, the order in which components merge as δ grows."""
        sizes = np.unique(self.num_tight).tolist()
        return {
            size: linkage(squareform(self.distances[:size, :size], checks=False), "single")
            for size in sizes
            if size > 1
        }

    def eccentricity(self, place: int, members: NDArray[np.int64]) -> int:
        """The most steps from its first member to another, a lower bound of the hop diameter."""
        adjacent = self.graph(self.deltas[place], self.num_tight[place])[np.ix_(members, members)]
        reached, hops = adjacent[0], int(len(members) > 1)
        while not reached.all():
            reached, hops = adjacent[reached].any(axis=0), hops + 1
        return hops

    def part(self, place: int) -> Part:
        members = self.component(place)
        adjacent = self.graph(self.deltas[place], self.num_tight[place])
        return Part(members, hop_diameter(adjacent[np.ix_(members, members)]))


def _parts(geometry: ClassGeometry, within: Sequence[Tensor]) -> dict[str, Quantity]:
    parts = best_parts(geometry, within)
    passed = torch.zeros(geometry.table.num_images, dtype=torch.bool, device=geometry.centers.device)
    for part in parts:
        passed[part.images] = part.certified
    bounds = bounds_from_certified(
        geometry,
        passed,
        "share of images outside the certified connected parts: components of d_A^f ≤ δ on the images of diameter at "
        "most ε, for quantiles of δ and ε in each class, of hop diameter h, with b = hδ + (h + 1)ε in Theorem A; "
        f"{geometry.views_note}",
    )

    def clique_step(part: GoodSet) -> float:
        own = int(geometry.positions[part.images[0]])
        rows = torch.isin(geometry.members[own], part.images)
        farthest = within[geometry.classes[own]][rows][:, rows].max().item()
        images = min(2, len(part.images))
        return farthest * (1 + TOLERANCE) + images * part.epsilon

    def of_class(value: Callable[[GoodSet], float], what: str) -> Quantity:
        shown = "; of the certified part, or of the one that came nearest to it"
        return per_class(geometry, geometry.centers.new_tensor([value(part) for part in parts]), what + shown)

    return {
        "error_bound": bounds["error_bound"],
        "certified_share_per_class": bounds["certified_share_per_class"],
        "certified_per_class": of_class(lambda part: float(part.certified), "1 for a class certified"),
        "margin_per_class": of_class(
            lambda part: part.margin,
            "lower bound on how far its images lie on their side of the bisector to the nearest rival centre",
        ),
        "part_share_per_class": of_class(lambda part: part.share, "share s of the class"),
        "delta_per_class": of_class(lambda part: part.delta, "δ, a distance of features"),
        "epsilon_per_class": of_class(lambda part: part.epsilon, "ε, a distance of features"),
        "hops_per_class": of_class(lambda part: part.hops, "hop diameter h, in steps of at most δ"),
        "step_per_class": of_class(lambda part: part.step, "b = hδ + (h + 1)ε, which from 2r on says nothing"),
        "clique_step_per_class": of_class(
            clique_step,
            "δ′ + 2ε, with δ′ the largest d_A^f between two of the same images, which are a clique at δ′: "
            "never more than b; ε for a single image",
        ),
    }


# ---------------------------------------------------------------------- edges
def _edges(geometry: ClassGeometry, max_images: int, generator: torch.Generator) -> dict[str, Quantity]:
    """The share of the edges d_A^f ≤ δ that join images of different classes, at a few δ."""
    table = geometry.table
    assert table.labels is not None
    rows = balanced_subset(table.labels.cpu(), max_images, generator).to(table.labels.device)
    labels = geometry.positions[rows].cpu().numpy()
    counts = np.bincount(labels, minlength=len(geometry.classes))
    if (counts < 2).any():
        return dict.fromkeys(OF_EDGES, Absent("edges are counted between two images of every class"))
    distances = augmented_distances(table.features[rows]).cpu().numpy()
    np.fill_diagonal(distances, np.inf)
    same = labels[:, None] == labels
    pairs = np.outer(counts, counts) - np.diag(counts)
    priors = geometry.priors.cpu().numpy()
    weights = np.outer(priors, priors) / pairs  # of a pair of images of two classes, so that classes count as p_k p_l
    weights = weights[labels][:, labels]
    levels = np.quantile(distances[same & np.isfinite(distances)], EDGE_LEVELS, method="higher") * (1 + TIES)
    edges = [np.where(distances <= delta, weights, 0) for delta in levels]
    across = [float(weighted[~same].sum() / weighted.sum()) for weighted in edges]
    names = [f"{level:g}" for level in EDGE_LEVELS]
    sample = Sample(len(rows), table.num_views)
    of_pairs = f"among {len(rows):,} images, equally many of each class as far as it has them"
    return {
        "edge_deltas": Estimate(
            dict(zip(names, levels.tolist(), strict=True)),
            f"quantiles of d_A^f over pairs of images of the same class {of_pairs}",
            "exact for the table",
            sample,
        ),
        "edges_across": Estimate(
            dict(zip(names, across, strict=True)),
            "share of the edges d_A^f ≤ δ that join images of different classes, at the δ that makes so large a share "
            f"of the pairs within classes edges; {of_pairs}, pairs of classes weighted by p_k p_l; finitely many views "
            "make d_A^f too large within classes and across",
            "either",
            sample,
        ),
        "pairs_across": Estimate(
            float(1 - (priors**2).sum()),
            "share of all pairs that join different classes, 1 − Σ p_k²: what edges that know no classes would have",
            "exact for the table",
            sample,
        ),
    }
