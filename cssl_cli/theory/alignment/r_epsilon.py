"""R_ε: the share of images with two views more than ε apart. (docs/theory.md, 5.)"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cssl_cli.features.geometry import distances
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, numbers
from cssl_cli.theory.table import FeatureTable

QUANTITIES = ("epsilons", "curve", "diameter_quantiles", "curve_by_views", "mean_diameter_by_views")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MAX_SUBSETS = 4096  # sets of augmented views of an image to average over, two to the power of the views
BLOCK_NUMBERS = 4_000_000  # diameters in memory at a time


def diameters(features: Tensor) -> Tensor:
    """Largest distance (N,) between two of the stored views of each image, features (N, V, D), clean view included."""
    return distances(features, features).amax(dim=(1, 2))


def growing_diameters(features: Tensor) -> Tensor:
    """Diameters (N, V) of each image's first 1, 2, …, V stored views; column 0 is zero, and rows never fall."""
    return distances(features, features).tril().amax(dim=2).cummax(dim=1).values


def diameters_of_subsets(features: Tensor) -> tuple[Tensor, Tensor]:
    """Diameters (N, S) of the clean view with every set of augmented views, S = 2^(V − 1), and the sets' sizes (S,).

    The size counts the clean view. Views are added one by one, each to every set of earlier ones.
    """
    between = distances(features, features)
    diameter = between.new_zeros(len(features), 1)
    sizes = torch.ones(1, dtype=torch.int64, device=features.device)
    for new in range(1, features.shape[1]):
        farthest = between[:, new, :1]  # distance of the new view to the farthest of a set
        for old in range(1, new):
            farthest = torch.cat([farthest, torch.maximum(farthest, between[:, new, old : old + 1])], dim=1)
        diameter = torch.cat([diameter, torch.maximum(diameter, farthest)], dim=1)
        sizes = torch.cat([sizes, sizes + 1])
    return diameter, sizes


def r_epsilon(table: FeatureTable, epsilons: Sequence[float]) -> dict[str, Quantity]:
    """R_ε = P[diam(x) > ε] at each of `epsilons` and quantiles of the diameter, which lies in 0 … 2 on the unit sphere.

    Gives `epsilons` (the grid), `curve` (R_ε in its order, each point with its own Clopper–Pearson interval) and
    `diameter_quantiles` (level → diameter); and how they grow with 2, 3, …, V stored views, the clean one included:
    `curve_by_views`, a list of curves, and `mean_diameter_by_views`.
    """
    if table.num_views < 2:
        return dict.fromkeys(QUANTITIES, Absent("the diameter of an image needs at least two stored views"))
    diameter = diameters(table.features).cpu()
    exceeding = [int((diameter > epsilon).sum()) for epsilon in epsilons]
    levels = torch.quantile(diameter, diameter.new_tensor(QUANTILES))
    low_because = "a supremum over finitely many views is too small"
    return {
        "epsilons": Estimate(
            value=[float(epsilon) for epsilon in epsilons],
            estimator="the grid of ε behind the curve, chosen in the recipe",
            errs="exact for the table",
            sample=table.stored_sample,
        ),
        "curve": Estimate(
            value=[count / table.num_images for count in exceeding],
            estimator="share of images with two stored views, the clean one included, more than ε apart; "
            f"{low_because}; intervals pointwise, for the stored number of views",
            errs="low",
            interval=[clopper_pearson(count, table.num_images) for count in exceeding],
            sample=table.stored_sample,
        ),
        "diameter_quantiles": Estimate(
            value={f"{level:g}": value for level, value in zip(QUANTILES, numbers(levels), strict=True)},
            estimator="quantiles over images of the largest distance between two stored views, the clean one included; "
            f"{low_because}",
            errs="low",
            sample=table.stored_sample,
        ),
        **_by_views(table, epsilons),
    }


def _by_views(table: FeatureTable, epsilons: Sequence[float]) -> dict[str, Quantity]:
    """`curve_by_views` and `mean_diameter_by_views`: means over all sets of views of one size, if not too many."""
    num_subsets = 2**table.num_augmented
    if num_subsets <= MAX_SUBSETS:
        which = "the clean view and 1, 2, … augmented ones, averaged over all choices of those stored"
        sums = table.features.new_zeros(1 + len(epsilons), num_subsets)
        for block in table.features.split(max(1, BLOCK_NUMBERS // num_subsets)):
            diameter, sizes = diameters_of_subsets(block)
            sums += _sums(diameter, epsilons)
        rows = [sums[:, sizes == size].sum(dim=1) / (sizes == size).sum() for size in range(2, table.num_views + 1)]
    else:
        which = f"the first 2, 3, …, {table.num_views} stored views, the clean one being the first"
        rows = list(_sums(growing_diameters(table.features), epsilons)[:, 1:].T)
    means = torch.stack(rows) / table.num_images
    because = "too small as every supremum over finitely many views, and by how much shows where it still rises"
    return {
        "curve_by_views": Estimate(
            value=numbers(means[:, 1:]),
            estimator=f"share of images of diameter above ε over {which}, one row each; {because}",
            errs="low",
            sample=table.stored_sample,
        ),
        "mean_diameter_by_views": Estimate(
            value=numbers(means[:, 0]),
            estimator=f"mean over images of the diameter over {which}; {because}",
            errs="low",
            sample=table.stored_sample,
        ),
    }


def _sums(diameter: Tensor, epsilons: Sequence[float]) -> Tensor:
    """Sums over images (1 + E, S) of diameters (N, S), and of whether they exceed each of E epsilons."""
    return torch.stack([diameter.sum(dim=0), *((diameter > epsilon).double().sum(dim=0) for epsilon in epsilons)])
