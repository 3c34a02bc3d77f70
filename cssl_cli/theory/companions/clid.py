"""CLID: cluster learnability and intrinsic dimension of the clean features. (docs/theory.md, 13.)

Lu et al., "Using Representation Expressiveness and Learnability to Evaluate Self-Supervised Learning Methods", TMLR
2023, arXiv 2206.01251, have two measures of features:

* expressiveness: their intrinsic dimension. It is that of TwoNN here (Facco et al., Scientific Reports 2017): with r_1
  and r_2 the distances of a point to its nearest and second nearest other, ln(r_2/r_1) is exponential of rate d where
  the density is constant, so that d is the slope through the origin of −ln(1 − F) on it, F = 0/n, 1/n, … over the
  ⌊0.9 n⌋ smallest. The points without the largest tenth and the fit are those of scikit-dimension's `TwoNN`.
* learnability: the validation accuracy of a k-NN classifier trained to predict the clusters that k-means finds. Half of
  the points train, the nearest one by cosine decides (k = 1), and there are ⌊√n⌋ clusters.

What this was checked against. The abstract and the authors' note on the accepted version (OpenReview BxdrpnRHNh) say
that learnability is the average validation accuracy; earlier versions have the speed of learning in a sequence, which
depends on its order. Nearest neighbour, cosine, halves and √n are those of implementations by others, which agree in
them but for the clusters: one leaves their number to the caller and clusters the features as they are. The authors' sum
of both measures is not here: it needs them on one scale, which depends on the other encoders.

Two choices free the numbers from chance. The accuracy is the mean over all halves, not over a few: a point's j-th
nearest other is its nearest training point with a probability that only depends on j. And points are taken in the order
of their distance from the mean, not in that of the images. Equal points count once, and so do equal directions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cssl_cli.features.geometry import unit_norm
from cssl_cli.features.intervals import MIN_BOOTSTRAP_IMAGES, bootstrap_interval
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.table import FeatureTable

KEPT = 0.9  # share of the ratios that the dimension is fitted to
EQUAL_RATIOS = 1e-20  # a mean square of ln(r_2/r_1) below this is rounding
CLUSTERINGS = 5
MAX_ITERATIONS = 100  # of k-means
ZERO = 1e-13  # squared distances of unit vectors below this are rounding
NEIGHBOURS = 64  # that none of the nearest 64 is in a random half has probability 2⁻⁶⁴

LEARNABILITY = ("cluster_learnability", "learnability_by_clustering", "cluster_chance")


def clid(
    table: FeatureTable, *, max_images: int, generator: torch.Generator, weights: Tensor | None = None
) -> dict[str, Quantity]:
    """`intrinsic_dimension`, > 0; `cluster_learnability`, 0 to 1, a mean over `learnability_by_clustering`.

    `cluster_chance` is the learnability of clusters of these sizes that have nothing to do with the features. At most
    `max_images` different images are used, drawn at random from `generator`, which also starts k-means: distances
    between all of them are needed. `weights` (R, N) resample the images; None for no interval.
    """
    clean = table.features[:, 0]
    chosen = _different(clean)
    if len(chosen) > max_images:
        places = torch.randperm(len(chosen), generator=generator)[:max_images].sort().values
        chosen = chosen[places.to(chosen.device)]
    points = clean[chosen]
    enough = len(clean) >= MIN_BOOTSTRAP_IMAGES if table.labels is None else table.all_resampled
    rows = weights[:, chosen].to(clean) if weights is not None and enough else None
    strata = 1 if table.labels is None else int((table.class_sizes > 0).sum())
    return {
        "intrinsic_dimension": _intrinsic_dimension(points, rows, strata),
        **_cluster_learnability(points, generator),
    }


def _different(points: Tensor) -> Tensor:
    """The places (n,) of different points (N, D), from the mean outwards: whatever the order of the images."""
    _, copies = torch.unique(points, dim=0, return_inverse=True)
    places = torch.arange(len(points), device=points.device)
    first = torch.full_like(places, len(points)).scatter_reduce_(0, copies, places, "amin")
    first = first[first < len(points)]
    centred = points[first] - points[first].mean(dim=0)
    return first[centred.square().sum(dim=1).argsort(stable=True)]


def _squared_distances(points: Tensor) -> Tensor:
    """(n, n), from inner products."""
    centred = points - points.mean(dim=0)
    squares = centred.square().sum(dim=1)
    return (squares[:, None] + squares[None, :] - 2 * centred @ centred.T).clamp_(min=0)


# ---------------------------------------------------------------------- intrinsic dimension
def _intrinsic_dimension(points: Tensor, rows: Tensor | None, strata: int) -> Quantity:
    count = len(points)
    if count < 3:
        return Absent(f"an intrinsic dimension needs three images with different features, and there are {count}")
    nearest = _squared_distances(points).fill_diagonal_(torch.inf).topk(2, largest=False).indices
    # Inner products find the neighbours, differences give their distances: those of close points keep their precision.
    lengths = torch.linalg.vector_norm(points[nearest] - points.unsqueeze(1), dim=2).sort(dim=1).values
    ratios = (lengths[:, 1] / lengths[:, 0]).log()
    if ratios.sort().values[: int(KEPT * count)].square().mean() <= EQUAL_RATIOS:
        which = "every" if ratios.square().mean() <= EQUAL_RATIOS else "nearly every"
        return Absent(f"the two nearest others of {which} image are equally near")
    value = two_nn(ratios, ratios.new_ones(1, count)).item()
    interval = None
    if rows is not None and count > strata:
        resampled = two_nn(ratios, _shared_with_neighbours(rows, nearest))
        interval = bootstrap_interval(value, resampled, degrees=count - strata, least=0)
    return Estimate(
        value=value,
        estimator="TwoNN: slope through the origin of −ln(1 − F) on ln(r₂/r₁), r₁ and r₂ the distances to the nearest "
        "two of the other clean images, without the largest tenth of the ratios, unscaled features; in many dimensions "
        "far too low, as no sample fills them: compare at equal numbers of images",
        errs="consistent",
        sample=Sample(count, 1),
        interval=interval,
    )


def two_nn(ratios: Tensor, weights: Tensor) -> Tensor:
    """The dimension (R,) of the ratios ln(r_2/r_1) (n,) of points with weights (R, n), where F is the weight before."""
    ordered, order = ratios.sort()
    shares = weights[:, order] / weights.sum(dim=1, keepdim=True)
    below = shares.cumsum(dim=1) - shares
    count = len(ratios)
    kept = shares * (below < (int(KEPT * count) - 0.5) / count)
    # F is only needed below 0.9: above, and just below 0 where a resample has a negative weight, any number will do.
    heights = -torch.log1p(-below.clamp(0, KEPT))
    return (kept * heights) @ ordered / (kept @ ordered.square())


def _shared_with_neighbours(rows: Tensor, nearest: Tensor) -> Tensor:
    """Weights (R, n) whose deviations from 1 an image shares with its nearest two (n, 2).

    The ratio of an image depends on its neighbours, too, and neighbours have similar ratios. With weights of their own,
    the interval would be a quarter too narrow.
    """
    deviations = rows - 1
    return 1 + (deviations + deviations[:, nearest[:, 0]] + deviations[:, nearest[:, 1]]) / math.sqrt(3)


# ---------------------------------------------------------------------- cluster learnability
def _cluster_learnability(points: Tensor, generator: torch.Generator) -> dict[str, Quantity]:
    points = unit_norm(points)
    squares = _squared_distances(points)
    kept = (squares < ZERO).int().argmax(dim=1).unique()
    points, squares = points[kept], squares[kept][:, kept]
    count = len(points)
    num_clusters = math.isqrt(count)
    if num_clusters < 2:
        reason = f"two clusters need four images with features in different directions, and there are {count}"
        return dict.fromkeys(LEARNABILITY, Absent(reason))
    nearest = squares.clone().fill_diagonal_(torch.inf).topk(min(NEIGHBOURS, count - 1), largest=False).indices
    clusters = [_k_means(points, squares, num_clusters, generator) for _ in range(CLUSTERINGS)]
    learnabilities = [mean_accuracy(labels, nearest) for labels in clusters]
    chances = [_chance(labels) for labels in clusters]
    sample = Sample(count, 1)
    how = f"k-means with {num_clusters} clusters, the root of the number of images, on clean features of unit norm"
    accuracy = (
        f"mean over all halves of the images of the accuracy on one half of the nearest image of the other: {how}"
    )
    return {
        "cluster_learnability": Estimate(
            sum(learnabilities) / CLUSTERINGS,
            f"{accuracy}, mean over {CLUSTERINGS} starts; depends on the number of images, which decides that of the "
            "clusters: compare at equal numbers. No interval: the clusters themselves change with the images, by more "
            "than a bootstrap of the images in given clusters shows",
            "either",
            sample,
        ),
        "learnability_by_clustering": Estimate(learnabilities, f"{accuracy}, start by start", "either", sample),
        "cluster_chance": Estimate(
            sum(chances) / CLUSTERINGS,
            f"probability that two different images share a cluster: {how}, mean over {CLUSTERINGS} starts",
            "exact for the table",
            sample,
        ),
    }


def mean_accuracy(labels: Tensor, nearest: Tensor) -> float:
    """Accuracy of the 1-NN classifier on one half of the points, trained on the other, mean over all ways to halve.

    `labels` (n,); `nearest` (n, j) the nearest others of each point, in order. The ⌊n/2⌋ training points are, for a
    point that is tested, a random sample of the others: its j-th nearest is the first among them with the probability
    that the sample holds it and none of the j − 1 before it.
    """
    count = len(labels)
    half, before, first = count // 2, 1.0, []
    for place in range(nearest.shape[1]):
        left = count - 1 - place
        first.append(before * half / left)
        before *= max(left - half, 0) / left
    alike = (labels[nearest] == labels.unsqueeze(1)).double()
    return (alike @ alike.new_tensor(first)).mean().item()


def _chance(labels: Tensor) -> float:
    sizes = labels.bincount().double()
    return (sizes @ (sizes - 1)).item() / (len(labels) * (len(labels) - 1))


def _k_means(points: Tensor, squares: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Clusters (n,) of points (n, D) with squared distances (n, n): Lloyd's algorithm from k-means++ centres.

    Arthur and Vassilvitskii, SODA 2007. A cluster that loses its last point keeps its centre.
    """
    draws = torch.rand(num_clusters, generator=generator, dtype=torch.float64).to(points.device)
    places = [(draws[:1] * len(points)).long()]
    to_nearest = squares[places[0]].squeeze(0)
    for draw in draws[1:]:
        reach = to_nearest.cumsum(dim=0)
        places.append(torch.searchsorted(reach, draw * reach[-1:], right=True).clamp_(max=len(points) - 1))
        to_nearest = torch.minimum(to_nearest, squares[places[-1]].squeeze(0))
    centers = points[torch.cat(places)]
    clusters = torch.full((len(points),), -1, device=points.device)
    for _ in range(MAX_ITERATIONS):
        before, clusters = clusters, (centers.square().sum(dim=1) / 2 - points @ centers.T).argmin(dim=1)
        if torch.equal(before, clusters):
            break
        members = one_hot(clusters, num_clusters).to(points.dtype)
        sizes = members.sum(dim=0).unsqueeze(1)
        centers = torch.where(sizes > 0, members.T @ points / sizes.clamp(min=1), centers)
    return clusters
