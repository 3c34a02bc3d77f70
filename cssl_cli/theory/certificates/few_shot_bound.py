"""Bounds on the error with m labelled images per class, from means and variances only. (docs/theory.md, 10.)

A centre is the mean of m labelled images, μ̂_k = μ_k + ε_k, and a new image x of class i lies at c_i + ξ, c_i being the
mean clean feature. x is no nearer to μ̂_i than to μ̂_j iff Δ = ‖f(x) − μ̂_j‖² − ‖f(x) − μ̂_i‖² ≤ 0. With e = μ_j − μ_i,
Σ the covariance of clean features, S that of the f̄_x behind the centres, all independent,

    E Δ = ‖c_i − μ_j‖² − ‖c_i − μ_i‖² + (tr S_j − tr S_i)/m,
    Var Δ = 4 eᵀΣ_i e + (4/m) tr Σ_i(S_i + S_j) + Var(‖ε_j‖² − 2(c_i − μ_j)ᵀε_j) + Var(‖ε_i‖² − 2(c_i − μ_i)ᵀε_i),
    Var(‖ε‖² − 2bᵀε) = 4bᵀSb/m − 4E[bᵀy ‖y‖²]/m² + (E‖y‖⁴ − (tr S)²)/m³ + 2(m − 1) tr S²/m³,   y = f̄_x − μ,

and by Cantelli's inequality P[Δ ≤ 0] ≤ Var Δ / (Var Δ + (E Δ)²) where E Δ > 0. Only the first term of the variance does
not vanish as m grows: 4 eᵀΣ_i e/‖e‖⁴ is four times the directional CDNV (`neural_collapse`).

Luthra, Salunkhe and Galanti (arXiv 2603.03530) use clean images throughout (μ = c, S = Σ, v = tr Σ) and bound the
variance by norms; with d = ‖e‖, Ṽ = eᵀΣ_i e/d⁴, V = (v_i + v_j)/d², Θ = (E‖ξ_i‖⁴ + E‖ξ_j‖⁴)/d⁴,

    P[Δ ≤ 0] ≤ [4Ṽ + (√A + √B + √C)²] / (1 + (v_j − v_i)/(m d²))²,
    A = 4(V² + V/4)/m,  B = V/m,  C = (Θ + 2(m − 1)V²)/m³,

summed over j and averaged over i, as in their code (github.com/DLFundamentals/directional_cdnv_bounds, commit 947f141).
It needs E Δ > 0 as ours does. A pair counts at most 1 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.theory.certificates.error_bounds import is_vacuous
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Absent, Estimate, Quantity

MIN_IMAGES = 4  # in a class: two halves, each with a covariance
BLOCK_NUMBERS = 20_000_000  # entries of covariances held at a time
ROUNDING = 1e-12  # relative to r²: a smaller E Δ counts as none


@dataclass(frozen=True)
class PairMoments:
    """Moments behind Δ for ordered pairs (i, j) of classes, (K′, K′), and single classes, (K′,).

    distance:    ‖c_i − μ_j‖² − ‖c_i − μ_i‖².
    directional: eᵀΣ_i e, e = μ_j − μ_i.
    product:     tr Σ_i S_j.
    along:       bᵀS_j b for b = c_i − μ_j, the diagonal (i = j) included.
    skew:        E[bᵀy ‖y‖²] of class j for the same b.
    trace, square, fourth: tr S, tr S², E‖y‖⁴; lengths: Var ‖y‖², not negative.
    """

    distance: Tensor
    directional: Tensor
    product: Tensor
    along: Tensor
    skew: Tensor
    trace: Tensor
    square: Tensor
    fourth: Tensor
    lengths: Tensor

    def mean(self, shots: int) -> Tensor:
        """E Δ, (K′, K′)."""
        return self.distance + (self.trace.unsqueeze(0) - self.trace.unsqueeze(1)) / shots

    def variance(self, shots: int) -> Tensor:
        """Var Δ, (K′, K′)."""
        own = self.product.diagonal().unsqueeze(1)
        sums = self.lengths / shots**3 + 2 * (shots - 1) * self.square / shots**3
        centers = 4 * self.along / shots - 4 * self.skew / shots**2 + sums
        crossed = 4 * (own + self.product) / shots
        return 4 * self.directional + crossed + centers + centers.diagonal().unsqueeze(1)


def few_shot_bound(geometry: ClassGeometry | Absent, shots: Sequence[int]) -> dict[str, Quantity]:
    """`cantelli_1`, …, bounds on the error that `few_labels` measures, and `luthra_1`, …, for each of `shots`.

    For the population, from estimated moments, so a bound may fall short of the error by their noise. The `luthra`
    bounds are for centres of clean images and equal class shares. A class needs four images.
    """
    names = [f"{whose}_{count}" for whose in ("cantelli", "luthra") for count in shots]
    if isinstance(geometry, Absent):
        return dict.fromkeys(names, geometry)
    fewest = min(len(images) for images in geometry.members)
    if fewest < MIN_IMAGES:
        return dict.fromkeys(names, Absent(f"moments need {MIN_IMAGES} images of every class, one has {fewest}"))
    clean = geometry.table.features[:, 0]
    classes = [(clean[images], geometry.means[images]) for images in geometry.members]
    of_views = pair_moments(classes)
    of_clean = pair_moments([(own, own) for own, _ in classes]) if geometry.table.num_augmented else of_views
    negligible = ROUNDING * geometry.largest_norm**2
    found = {}
    for count in shots:
        bounds = cantelli_bounds(of_views, count, negligible=negligible).sum(dim=1).clamp(max=1)
        found[f"cantelli_{count}"] = _estimate(
            geometry,
            (geometry.priors * bounds).sum().item(),
            f"Cantelli's inequality for an image and centres of {count} labelled images a class, view means, from the "
            "moments of the classes; an estimate of a bound",
            chance=1 - geometry.priors.max().item(),
        )
    for count in shots:
        bounds = luthra_bounds(of_clean, count, negligible=negligible).clamp(max=1).sum(dim=1)
        found[f"luthra_{count}"] = _estimate(
            geometry,
            bounds.mean().item(),
            f"the bound of Luthra, Salunkhe and Galanti for centres of {count} clean images a class, classes of equal "
            "share, with unbiased moments, a pair counting at most 1; an estimate of a bound",
            chance=1 - 1 / len(classes),
        )
    return found


def _estimate(geometry: ClassGeometry, bound: float, estimator: str, *, chance: float) -> Quantity:
    return Estimate(
        bound,
        estimator,
        "consistent",
        geometry.sample,
        absent=geometry.missing,
        vacuous=is_vacuous(bound, chance),
    )


def cantelli_bounds(moments: PairMoments, shots: int, *, negligible: float = 0.0) -> Tensor:
    """Bounds on P[Δ ≤ 0] (K′, K′), 1 where E Δ ≤ 0, and 0 on the diagonal."""
    mean, variance = moments.mean(shots), moments.variance(shots).clamp(min=0)
    tail = variance / (variance + mean.square()).clamp(min=torch.finfo(mean.dtype).tiny)
    return torch.where(mean > negligible, tail, 1).fill_diagonal_(0)


def luthra_bounds(moments: PairMoments, shots: int, *, negligible: float = 0.0) -> Tensor:
    """As `cantelli_bounds`, by Luthra, Salunkhe and Galanti, for moments of clean images; may exceed 1."""
    square = moments.distance.clamp(min=torch.finfo(moments.distance.dtype).tiny)  # d²
    spread = (moments.trace.unsqueeze(0) + moments.trace.unsqueeze(1)) / square
    fourth = (moments.fourth.unsqueeze(0) + moments.fourth.unsqueeze(1)) / square.square()
    parts = (
        4 * (spread.square() + spread / 4) / shots,
        spread / shots,
        (fourth + 2 * (shots - 1) * spread.square()) / shots**3,
    )
    corrections = sum(part.sqrt() for part in parts) ** 2
    directional = moments.directional.clamp(min=0) / square.square()
    bound = (4 * directional + corrections) / (moments.mean(shots) / square).square()
    applies = (moments.distance > negligible) & (moments.mean(shots) > negligible)
    return torch.where(applies, bound, 1).fill_diagonal_(0)


def pair_moments(classes: list[tuple[Tensor, Tensor]], *, unbiased: bool = True) -> PairMoments:
    """The moments from clean features and view means, both (n_k, D), of each class.

    With `unbiased`, estimates for the population: squared distances less the noise of the means, covariances with
    divisor n − 1, and traces of products within a class from halves of it, since the images' own terms would dominate
    where D ≫ n. Otherwise, the moments of the table as its own population.
    """
    sizes = classes[0][0].new_tensor([len(clean) for clean, _ in classes])
    scale = sizes / (sizes - 1) if unbiased else torch.ones_like(sizes)  # of second moments with divisor n
    clean_means = torch.stack([clean.mean(dim=0) for clean, _ in classes])
    centers = torch.stack([means.mean(dim=0) for _, means in classes])
    deviations = [clean - mean for (clean, _), mean in zip(classes, clean_means, strict=True)]
    offsets = [means - center for (_, means), center in zip(classes, centers, strict=True)]
    trace = torch.stack([y.square().sum(dim=1).mean() for y in offsets]) * scale
    shared = torch.stack([(x * y).sum(dim=1).mean() for x, y in zip(deviations, offsets, strict=True)]) * scale
    square_to = (clean_means.unsqueeze(1) - centers).square().sum(dim=2)
    distance = square_to - square_to.diagonal().unsqueeze(1)
    product = _traces_of_products(deviations, offsets) * torch.outer(scale, scale)
    square = torch.stack([_trace_of_product(y, y) for y in offsets]) / sizes.square()
    directional = torch.stack(
        [(x @ (centers - center).T).square().mean(dim=0) for x, center in zip(deviations, centers, strict=True)]
    ) * scale.unsqueeze(1)
    if unbiased:
        # ‖c_i − μ_j‖² is too high by tr Σ_i/n_i + tr S_j/n_j, ‖c_i − μ_i‖² by the trace of the covariance of f − f̄
        # over n_i.
        noise = (2 * shared - trace).unsqueeze(1) / sizes.unsqueeze(1) + (trace / sizes).unsqueeze(0)
        distance = (distance - noise).fill_diagonal_(0)
        product = product.diagonal_scatter(_by_halves(classes))
        square = _by_halves([(means, means) for _, means in classes])
        own = product.diagonal()
        directional = (directional - product / sizes - (own / sizes).unsqueeze(1)).fill_diagonal_(0)
    along, skew = [], []
    for y, center in zip(offsets, centers, strict=True):
        projected = y @ (clean_means - center).T
        along.append(projected.square().mean(dim=0))
        skew.append(y.square().sum(dim=1) @ projected / len(y))
    return PairMoments(
        distance=distance,
        directional=directional,
        product=product,
        along=torch.stack(along, dim=1) * scale,
        skew=torch.stack(skew, dim=1),
        trace=trace,
        square=square,
        fourth=torch.stack([y.square().sum(dim=1).square().mean() for y in offsets]),
        lengths=torch.stack([y.square().sum(dim=1).var(correction=0) for y in offsets]),
    )


def _traces_of_products(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """tr A_i B_j (K′, K′) of the covariances, divisor n, of centred `first` and `second`, a band of rows at a time."""
    num_classes, width = len(first), first[0].shape[1]
    total = first[0].new_zeros(num_classes, num_classes)
    for band in torch.arange(width, device=total.device).split(max(1, BLOCK_NUMBERS // (2 * num_classes * width))):
        one, other = (
            torch.stack([(x[:, band].T @ x / len(x)).flatten() for x in centred]) for centred in (first, second)
        )
        total += one @ other.T
    return total


def _by_halves(classes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """tr Σ_k S_k (K′,), unbiased: Σ from every other image of the class, S from the rest, and vice versa."""
    found = []
    for pair in classes:
        halves = [[part - part.mean(dim=0) for part in (images[::2], images[1::2])] for images in pair]
        (clean, other_clean), (means, other_means) = halves
        count = (len(clean) - 1) * (len(other_clean) - 1)
        products = _trace_of_product(clean, other_means) + _trace_of_product(other_clean, means)
        found.append(products / (2 * count))
    return torch.stack(found)


def _trace_of_product(first: Tensor, second: Tensor) -> Tensor:
    """tr XᵀX YᵀY = ‖XYᵀ‖² of (n, D) and (l, D), using the smaller matrices."""
    if min(len(first), len(second)) > first.shape[1]:
        return ((first.T @ first) * (second.T @ second)).sum()
    return (first @ second.T).square().sum()
