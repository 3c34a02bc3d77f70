"""Lengths and distances of feature vectors, for the probes and the terms of the theory."""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.errors import RunError


def unit_norm(features: Tensor) -> Tensor:
    """Features (..., D) scaled to Euclidean length 1, in their own floating-point type; a zero vector stays zero."""
    # Dividing by the largest entry first keeps the squares from overflowing or vanishing.
    largest = features.abs().amax(dim=-1, keepdim=True)
    scaled = features / torch.where(largest > 0, largest, 1)
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / torch.where(length > 0, length, 1)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances (..., A, B) between the rows of (..., A, D) and (..., B, D).

    Computed from differences, never from a Gram matrix, so that small distances between long vectors keep their
    relative precision.
    """
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def require_finite(features: Tensor, what: str) -> None:
    """Raises RunError if `features` contain an infinite or undefined number; `what` names them in the message."""
    if features.numel() and not torch.isfinite(torch.stack(torch.aminmax(features))).all():  # one pass, no copy
        raise RunError(
            f"{what} contain infinite or undefined numbers (NaN)",
            remedy="The encoder has diverged or its weights are damaged; pretrain again with a lower optim.lr.",
        )
