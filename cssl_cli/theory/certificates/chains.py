"""How far f(x₀) can lie from its class centre, by a chain of views through every image of the class.

To reach the mean f̄_x of another image x of its class from x₀, go from the clean view to the view of x₀ nearest to x,
cross the gap d_A^f between the two images, and go from the nearest view of x to its mean. Averaged over the class, this
bounds ‖f(x₀) − μ_l‖; taken along one direction w it bounds wᵀ(f(x₀) − μ_l). The images x (the *reference*) may be the
class itself, including x₀, or a sample without x₀. (docs/theory.md, 10, Theorems B and C.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.theory.augmented_distance import TOLERANCE
from cssl_cli.theory.certificates.conditions import SQUARE_PAD, gaps, others

ROWS = 1024  # of a distance matrix at a time


def chain_reach(
    distances: Tensor,
    *,
    eccentricity: Tensor,
    farthest: Tensor,
    radius: Tensor,
    diameter: Tensor,
    spread_of_means: Tensor,
    spread_of_views: Tensor,
    offset: Tensor | None,
) -> Tensor:
    """D̄ (n,) ≥ ‖f(x₀) − μ_l‖ of n query images, from n′ reference images of their class. (Theorem B.)

    distances:      (n, n′) d_A^f, exact to a relative `TOLERANCE`, by which they are enlarged here.
    eccentricity:   (n,) of the queries.
    farthest:       (n,) a bound on ‖f(x₀) − f(v)‖ over all reference views, 2r on the sphere.
    radius, diameter: (n′,) of the reference images.
    spread_of_means, spread_of_views: E‖f̄_x − μ_l‖² and E‖f(v) − μ_l‖² over the reference.
    offset:         (n,) ‖f(x₀) − f̄_{x₀}‖ if the queries are the reference, in the same order; else None.
    """
    first, second_means, second_views = [], [], []
    for start in range(0, len(distances), ROWS):
        rows = slice(start, start + ROWS)
        way = eccentricity[rows].unsqueeze(1) + distances[rows] * (1 + TOLERANCE)
        limit = farthest[rows].unsqueeze(1)
        to_means, to_views = torch.minimum(way + radius, limit), torch.minimum(way + diameter, limit)
        if offset is not None:
            own = torch.arange(start, start + len(way), device=way.device)
            to_means[own - start, own] = offset[rows]
            to_views[own - start, own] = eccentricity[rows]
        first.append(to_means.mean(dim=1))
        second_means.append(to_means.square().mean(dim=1))
        second_views.append(to_views.square().mean(dim=1))
    pad = SQUARE_PAD * farthest.square() / 4
    by_means = (torch.cat(second_means) - spread_of_means).clamp(min=0) + pad
    by_views = (torch.cat(second_views) - spread_of_views).clamp(min=0) + pad
    return torch.minimum(torch.cat(first), torch.minimum(by_means, by_views).sqrt())


def directional_margins(
    query: Tensor, reference: Tensor, reference_means: Tensor, centers: Tensor, own: int, *, itself: bool
) -> Tensor:
    """½‖μ_k − μ_l‖ − T_k(x₀), (V, n, K − 1), of queries (n, V, D) of class l = `own`. (Theorem C.)

    `reference` (n′, V, D) and `reference_means` (n′, D) are images of the class; centre l is the mean of the means.
    `itself` says that they are the queries, in the same order. The first axis is the number m′ = 1 … V of stored views
    behind the suprema. Two coinciding centres have margin 0.

    With a_i the least projection of query i's views on w = (μ_k − μ_l)/‖μ_k − μ_l‖, b_j the greatest of reference image
    j's, P_i that of the clean view and q_j that of the mean of j, the chain is P_i − q_j + max(0, b_j − a_i). Its mean
    over j comes from a sort of the b_j, not from all pairs.
    """
    gap = gaps(centers, own)
    directions = (others(centers, own) - centers[own]) / gap.clamp(min=torch.finfo(gap.dtype).tiny).unsqueeze(1)
    projected = query @ directions.T
    projected_reference = projected if itself else reference @ directions.T
    nearest = projected.cummin(dim=1).values.permute(1, 2, 0).contiguous()  # (V, K − 1, n)
    farthest = projected_reference.cummax(dim=1).values.permute(1, 2, 0).contiguous()
    overlaps = _mean_excess(farthest, nearest)
    if itself:
        overlaps = overlaps - (farthest - nearest) / len(reference)  # x₀ itself: wᵀ(f(x₀) − f̄_{x₀}), no chain
    lead = projected[:, 0] - reference_means.mean(dim=0) @ directions.T
    bound = lead + overlaps.transpose(1, 2)
    return torch.where(gap > 0, gap / 2 - bound, 0)


def _mean_excess(values: Tensor, thresholds: Tensor) -> Tensor:
    """Mean over j of max(0, value_j − threshold_i), (..., n), of values (..., n′) and thresholds (..., n)."""
    ascending = values.sort(dim=-1).values
    below = torch.searchsorted(ascending, thresholds, right=True)
    # Sums over the values from each position on; the last is the empty sum.
    tails = ascending.flip(-1).cumsum(dim=-1).flip(-1)
    tails = torch.cat([tails, torch.zeros_like(tails[..., :1])], dim=-1)
    size = values.shape[-1]
    excess = tails.gather(-1, below) - (size - below) * thresholds
    return excess.clamp(min=0) / size
