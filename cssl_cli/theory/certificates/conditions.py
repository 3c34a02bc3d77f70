"""When a bound on ‖f(x₀) − μ_l‖ shows that x₀ of class l is classified correctly: three conditions, as margins.

G_f sends x₀ to class l rather than k iff f(x₀) lies on l's side of the bisector of μ_l and μ_k. With e = μ_l − μ_k, the
signed distance of f(x₀) to the bisector is (f(x₀)ᵀe − ½(‖μ_l‖² − ‖μ_k‖²)) / ‖e‖. A *margin* is a lower bound of that
distance, given only ‖f(x₀) − μ_l‖ ≤ D̄; x₀ is classified correctly if its margins against all k ≠ l are positive:

    ball   ½‖e‖ − D̄: uses nothing else;
    cap    the least signed distance over {‖f‖ = ‖f(x₀)‖, ‖f − μ_l‖ ≤ D̄}: also uses the norm of f(x₀);
    paper's shape   ½(r² + min_k ‖μ_k‖²) − r D̄ − ½D̄² − μ_lᵀμ_k, over ‖e‖: the form of the paper's Theorem 1, with
           √(2ρ) sharpened to ρ and ρ to ρ²/2. Never better than the cap.

The proofs are in docs/theory.md, 10.

**Rounding.** A certificate is a proof about the numbers in the table, so bounds from floating-point sums are rounded to
the safe side: D̄ is enlarged by `REACH_PAD`, and a margin counts if margin · ‖e‖, half the difference of the squared
distances to the two centres, exceeds `ROUNDING` r².
"""

from __future__ import annotations

import torch
from torch import Tensor

REACH_PAD = 1e-12  # times r
ROUNDING = 1e-12  # times r²
SQUARE_PAD = 1e-13  # times r²: rounding of a difference of mean squares, before its root is taken


def others(centers: Tensor, own: int) -> Tensor:
    """The centres (K − 1, D) of all classes except `own`, in order."""
    return torch.cat([centers[:own], centers[own + 1 :]])


def gaps(centers: Tensor, own: int) -> Tensor:
    """‖μ_l − μ_k‖ (K − 1,), l = `own`."""
    return torch.linalg.vector_norm(others(centers, own) - centers[own], dim=1)


def ball_margins(reach: Tensor, centers: Tensor, own: int) -> Tensor:
    """½‖μ_l − μ_k‖ − D̄, (n, K − 1), for bounds D̄ = `reach` (n,) of points of class l = `own`."""
    return gaps(centers, own) / 2 - reach.unsqueeze(1)


def cap_margins(reach: Tensor, centers: Tensor, own: int, *, least_norm: Tensor, largest_norm: Tensor) -> Tensor:
    """The cap's margins (n, K − 1), for points whose norm is known to lie between `least_norm` and `largest_norm` (n,).

    ‖f − μ_l‖ ≤ D̄ and ‖f‖ ≥ `least_norm` give f·u ≥ c along u = μ_l/‖μ_l‖; the margin is the least signed distance over
    the ball of radius `largest_norm` beyond that plane. With equal norms this is the cap itself.
    """
    own_center, other_centers = centers[own], others(centers, own)
    edges = own_center - other_centers
    gap = torch.linalg.vector_norm(edges, dim=1)
    length = torch.linalg.vector_norm(own_center)
    middle = (edges * (own_center + other_centers)).sum(dim=1) / 2
    low, high, reach = (values.unsqueeze(1) for values in (least_norm, largest_norm, reach))
    anywhere = -high * gap
    tiny = torch.finfo(centers.dtype).tiny
    along_unit = own_center / length.clamp(min=tiny)
    along = edges @ along_unit
    across = torch.linalg.vector_norm(edges - torch.outer(along, along_unit), dim=1)
    # c = high − depth; this form of the depth keeps its digits when the cap is small.
    depth = (reach.square() - (low - length).square()) / (2 * length).clamp(min=tiny) + (high - low)
    depth = torch.minimum(depth.clamp(min=0), 2 * high)
    plane = high - depth
    on_rim = plane * along - (depth * (2 * high - depth)).clamp(min=0).sqrt() * across
    inside = (plane * gap <= -high * along) | (length <= tiny)  # the opposite pole of e lies in the cap
    least = torch.where(inside, anywhere, on_rim)
    return torch.where(gap > 0, (least - middle) / gap.clamp(min=tiny), -reach)


def paper_shape_margins(reach: Tensor, centers: Tensor, own: int, *, least_norm: float, largest_norm: float) -> Tensor:
    """The sharpened paper's shape as margins (n, K − 1); −D̄ where two centres coincide."""
    gap = gaps(centers, own)
    least_center = centers.square().sum(dim=1).min()
    room = (least_norm**2 + least_center) / 2 - largest_norm * reach - reach.square() / 2
    margin = room.unsqueeze(1) - others(centers, own) @ centers[own]
    tiny = torch.finfo(centers.dtype).tiny
    return torch.where(gap > 0, margin / gap.clamp(min=tiny), -reach.unsqueeze(1))


def best_margins(
    reach: Tensor, centers: Tensor, own: int, *, least_norm: Tensor, largest_norm: Tensor, radius: float
) -> Tensor:
    """The better of ball and cap (n, K − 1), for D̄ enlarged by the rounding pad; `radius` is r."""
    safe = reach + REACH_PAD * radius
    cap = cap_margins(safe, centers, own, least_norm=least_norm, largest_norm=largest_norm)
    return torch.maximum(ball_margins(safe, centers, own), cap)


def certified(margins: Tensor, centers: Tensor, own: int, radius: float) -> Tensor:
    """Whether margins (..., K − 1) against all other classes are positive beyond rounding: bool (...)."""
    return (margins * gaps(centers, own) > ROUNDING * radius**2).all(dim=-1)
