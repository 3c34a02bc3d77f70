"""Of the information that two views of an image share, the share that is about its class. (docs/theory.md, 16.)

For features that are normal with the covariances of `view_covariances`, two views of an image share

    I(v; v′) = −½ log det(I − (R⁻¹M)²)

nats, with R = Σ + ρI. What tells the classes apart is measured by half of Pillai's trace, ½ tr R⁻¹B: to first order the
information I(v; y) = −½ log det(I − R⁻¹B) of a view about its class. The share is their ratio. A good augmentation
leaves the views of an image little in common but the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.theory.spectrum.view_covariances import ViewCovariances


@dataclass(frozen=True)
class ClassShare:
    """In nats: `shared`, what two views share; `about_class`, what of a view is about the class, None without classes.

    share: the latter over the former, no unit; None too where nothing is shared.
    """

    shared: float
    about_class: float | None

    @property
    def share(self) -> float | None:
        if self.about_class is None or self.shared <= 0:
            return None
        return self.about_class / self.shared


def class_share(covariances: ViewCovariances, *, ridge: float) -> ClassShare:
    """The share, with ρ = `ridge` times the mean eigenvalue of Σ; ridge > 0. Raises ValueError for features without
    variance."""
    of_view, of_pair = covariances.of_view, covariances.of_pair
    mean_eigenvalue = of_view.trace() / len(of_view)
    if not mean_eigenvalue > 0:
        raise ValueError("all views have the same features")
    regular = of_view + ridge * mean_eigenvalue * torch.eye(len(of_view), dtype=of_view.dtype, device=of_view.device)
    factor = torch.linalg.cholesky(regular)
    # log det(I − (R⁻¹M)²) = log det(R − M) + log det(R + M) − 2 log det R, without an eigendecomposition.
    shared = _log_det(factor) - 0.5 * sum(
        _log_det(torch.linalg.cholesky(both)) for both in (regular - of_pair, regular + of_pair)
    )
    if covariances.of_classes is None:
        return ClassShare(float(shared), None)
    pillai = torch.cholesky_solve(covariances.of_classes, factor).trace()
    return ClassShare(float(shared), 0.5 * float(pillai))


def _log_det(factor: Tensor) -> Tensor:
    return 2 * factor.diagonal().log().sum()
