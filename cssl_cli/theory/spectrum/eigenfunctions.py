"""Eigenfunctions of the positive pairs among linear functions of the features. (docs/theory.md, 16.)

A function f(v) = uᵀφ(v) of a view has the variance uᵀΣu, and uᵀMu of it is common to all views of an image. The leading
solutions of Mu = λRu, R = Σ + ρI, are the functions that an augmentation changes least: the eigenfunctions of the
positive-pair Markov chain (Johnson, El Hanchi and Maddison, ICLR 2023, arXiv 2210.01883) and of the normalised
augmentation graph (HaoChen et al., NeurIPS 2021, arXiv 2106.04156), restricted to linear functions of φ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.theory.spectrum.information import ridged
from cssl_cli.theory.spectrum.view_covariances import ViewCovariances


@dataclass(frozen=True)
class Eigenvalues:
    """Along d functions: `of_pairs` (d,), the λ; `of_classes` (d,), the variance of the class means; None without
    classes. Both as shares of the function's variance and the ridge."""

    of_pairs: Tensor
    of_classes: Tensor | None


def whitened(covariances: ViewCovariances, *, ridge: float) -> tuple[Tensor, Tensor]:
    """The lower Cholesky factor L of R, and L⁻¹ M L⁻ᵀ, whose eigenvalues are the λ."""
    factor = torch.linalg.cholesky(ridged(covariances.of_view, ridge))
    half = torch.linalg.solve_triangular(factor, covariances.of_pair, upper=False)
    return factor, torch.linalg.solve_triangular(factor, half.T.contiguous(), upper=False)


def eigenvalues(covariances: ViewCovariances, *, ridge: float) -> Tensor:
    """The λ (D,) from the largest to the smallest."""
    return torch.linalg.eigvalsh(whitened(covariances, ridge=ridge)[1]).flip(0)


def eigenfunctions(covariances: ViewCovariances, *, ridge: float) -> Tensor:
    """The directions u (D, D), one a column, by falling λ."""
    factor, inner = whitened(covariances, ridge=ridge)
    vectors = torch.linalg.eigh(inner).eigenvectors.flip(1)
    return torch.linalg.solve_triangular(factor.T, vectors, upper=True)


def measured_along(directions: Tensor, covariances: ViewCovariances, *, ridge: float) -> Eigenvalues:
    """λ and class share along `directions` (D, d), found on other images.

    Each function is first made uncorrelated with those before it, so that what two of them share counts once: sums over
    the first d are what these span.
    """
    overlap = directions.T @ ridged(covariances.of_view, ridge) @ directions
    factor = torch.linalg.cholesky(overlap)
    functions = torch.linalg.solve_triangular(factor, directions.T, upper=False)

    def along(matrix: Tensor) -> Tensor:
        return ((functions @ matrix) * functions).sum(dim=1)

    between = covariances.of_classes
    return Eigenvalues(along(covariances.of_pair), None if between is None else along(between))
