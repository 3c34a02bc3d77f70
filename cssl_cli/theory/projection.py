"""Features in two dimensions for plots: the first two principal components."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DIGITS = 5  # digits of the coordinates, which are only plotted


def projection(features: Tensor, labels: Tensor | None, num_classes: int) -> dict[str, Any]:
    """The features (N, D) of clean images on their first two principal components, and the means of the classes.

    `explained` gives the share of the variance in each. A projection does not preserve distances; use it only to look
    at. Coordinates are 0 if the features have no variance left.
    """
    features = features.double()
    centred = features - features.mean(dim=0)
    variances, directions = torch.linalg.eigh(centred.T @ centred)
    plane = directions[:, -2:].flip(1) if directions.shape[1] > 1 else directions
    # The sign of an eigenvector is arbitrary: its largest entry is made positive.
    plane = plane * plane.gather(0, plane.abs().argmax(dim=0, keepdim=True)).sign()
    points = torch.nn.functional.pad(centred @ plane, (0, 2 - plane.shape[1]))
    total = variances.clamp(min=0).sum().item()
    explained = [value / total if total > 0 else 0.0 for value in variances.clamp(min=0).flip(0)[:2].tolist()]
    centers = None
    if labels is not None:
        centers = [_rounded(points[labels == label].mean(dim=0)) for label in range(num_classes)]
    return {
        "method": "principal components",
        "explained": [*explained, 0.0][:2],
        "points": [_rounded(point) for point in points],
        "labels": None if labels is None else labels.tolist(),
        "centers": centers,
    }


def _rounded(point: Tensor) -> list[float]:
    return [round(coordinate, DIGITS) for coordinate in point.tolist()]
