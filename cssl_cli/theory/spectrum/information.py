"""What features of a view tell of another view, of its image and of its class. (docs/theory.md, 16.)

For features that are normal with the covariances of `view_covariances`, R = Σ + ρI, and λ_i the eigenvalues of R⁻¹M, a
view shares with another one of its image, and with the image itself,

    I(v; v′) = −½ Σ log(1 − λ_i²)   and   I(v; x) = −½ Σ log(1 − λ_i)

nats. What tells the classes apart is ½ tr R⁻¹B, half of Pillai's trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.theory.spectrum.view_covariances import ViewCovariances


@dataclass(frozen=True)
class Information:
    """In nats, scalars: `shared` I(v; v′), `of_image` I(v; x), `about_class` ½ tr R⁻¹B, None without classes.

    directions: tr R⁻¹Σ, in how many directions the features vary beyond the ridge.
    """

    shared: Tensor
    of_image: Tensor
    about_class: Tensor | None
    directions: Tensor


def ridged(covariance: Tensor, ridge: float) -> Tensor:
    """R = Σ + ρI, with ρ = `ridge` times the mean eigenvalue of Σ (D, D)."""
    return covariance + ridge * covariance.trace() / len(covariance) * torch.eye(len(covariance)).to(covariance)


def information(covariances: ViewCovariances, *, ridge: float) -> Information:
    """By log determinants, without an eigendecomposition, so that it can be differentiated; Σ ≠ 0, ridge > 0."""
    of_view, of_pair = covariances.of_view, covariances.of_pair
    regular = ridged(of_view, ridge)
    factor = torch.linalg.cholesky(regular)
    whole = _log_det(factor)
    # log det(I − (R⁻¹M)²) = log det(R − M) + log det(R + M) − 2 log det R
    less, more = (_log_det(torch.linalg.cholesky(one)) for one in (regular - of_pair, regular + of_pair))
    inverse = torch.cholesky_inverse(factor)
    between = covariances.of_classes
    return Information(
        shared=whole - 0.5 * (less + more),
        of_image=0.5 * (whole - less),
        about_class=None if between is None else 0.5 * (inverse * between).sum(),
        directions=(inverse * of_view).sum(),
    )


def _log_det(factor: Tensor) -> Tensor:
    return 2 * factor.diagonal().log().sum()
