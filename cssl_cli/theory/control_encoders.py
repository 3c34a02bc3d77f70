"""Control encoders: features made without training that show what a term rewards. (docs/theory.md, 15.)

    hash          f(v) ∝ h_x + noise of norm 0.05     a random direction h_x for each image, blind to its class
    class_aware   f(v) ∝ h_y + noise of norm up to 2  a direction h_y for each class, views of an image far apart

A term that prefers the first to an encoder that classifies better, or such an encoder to the second if that one
classifies better, cannot choose between encoders.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cssl_cli.features.geometry import unit_norm
from cssl_cli.theory.estimate import Absent

HASH, CLASS_AWARE = "hash", "class_aware"
HASH_NOISE = 0.05  # two views 0.07 apart: below every ε of the usual grid, and far below any trained encoder's
CLASS_NOISE = 2.0  # alignment 2 − 2/(1 + 2²) = 1.6, where independent views have 2
CLASS_MARGIN = 4.0  # at least this many deviations of the noise from a class's direction to its border with another


def control_features(
    features: Tensor, labels: Tensor | None, *, num_classes: int, generator: torch.Generator
) -> dict[str, Tensor | Absent]:
    """Features (N, V, D) of both controls, for the table of an encoder's unscaled `features` (N, V, D).

    Every vector has the root mean square length of `features`, since some measures depend on it. labels: (N,) in
    0 … `num_classes` − 1; without them there is no class-aware control. `generator`, of the CPU, draws directions and
    noise; float32, on the CPU.
    """
    num_images, num_views, width = features.shape
    length = features.double().square().sum(dim=2).mean().sqrt().float().cpu()

    def around(directions: Tensor, noise: float) -> Tensor:
        drawn = torch.randn(num_images, num_views, width, generator=generator)
        return length * unit_norm(directions.unsqueeze(1) + drawn * (noise / math.sqrt(width)))

    hashed = around(unit_norm(torch.randn(num_images, width, generator=generator)), HASH_NOISE)
    if labels is None:
        return {HASH: hashed, CLASS_AWARE: Absent("the images have no labels")}
    directions = _class_directions(num_classes, width, generator)
    return {HASH: hashed, CLASS_AWARE: around(directions[labels.cpu()], class_noise(width))}


def class_noise(width: int) -> float:
    """Norm of the class-aware control's noise at this width: as large as nearest centres tolerate.

    Along the line between two orthogonal directions the noise has the deviation noise / √width, and the border is at
    distance 1/√2.
    """
    return min(CLASS_NOISE, math.sqrt(width / 2) / CLASS_MARGIN)


def _class_directions(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
    """Random unit vectors (K, D), orthogonal if the width allows it."""
    drawn = torch.randn(width, num_classes, generator=generator)
    return torch.linalg.qr(drawn).Q.T if num_classes <= width else unit_norm(drawn.T)
