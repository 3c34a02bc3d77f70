"""The losses of the methods as their papers write them: plain Python numbers, one loop for each sum."""

from __future__ import annotations

import math

import torch

Rows = list[list[float]]


def _unit(row: list[float]) -> list[float]:
    norm = math.sqrt(sum(value * value for value in row))
    return [value / norm for value in row]


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def moco(queries: torch.Tensor, keys: torch.Tensor, queue: torch.Tensor, temperature: float) -> float:
    """MoCo's equation 1 for each query, averaged."""
    total = 0.0
    for query, key in zip(queries.tolist(), keys.tolist(), strict=True):
        positive = math.exp(_dot(_unit(query), _unit(key)) / temperature)
        negatives = sum(math.exp(_dot(_unit(query), old) / temperature) for old in queue.tolist())
        total -= math.log(positive / (positive + negatives))
    return total / len(queries)


def simsiam(p_1: torch.Tensor, p_2: torch.Tensor, z_1: torch.Tensor, z_2: torch.Tensor) -> float:
    """SimSiam's algorithm 1."""

    def distance(p: Rows, z: Rows) -> float:
        return -sum(_dot(_unit(a), _unit(b)) for a, b in zip(p, z, strict=True)) / len(p)

    return distance(p_1.tolist(), z_2.tolist()) / 2 + distance(p_2.tolist(), z_1.tolist()) / 2


def byol(p_1: torch.Tensor, p_2: torch.Tensor, z_1: torch.Tensor, z_2: torch.Tensor) -> float:
    """BYOL's equation 2 in its second form, for both orders of the views."""

    def half(p: Rows, z: Rows) -> float:
        return sum(2 - 2 * _dot(_unit(a), _unit(b)) for a, b in zip(p, z, strict=True)) / len(p)

    return half(p_1.tolist(), z_2.tolist()) + half(p_2.tolist(), z_1.tolist())


def vicreg(z_1: torch.Tensor, z_2: torch.Tensor, weights: tuple[float, float, float]) -> tuple[float, float, float]:
    """VICReg's three parts with the factors of the authors' code."""
    num, width = z_1.shape

    def columns(z: torch.Tensor) -> Rows:
        return [z[:, i].tolist() for i in range(width)]

    def covariance(one: list[float], other: list[float]) -> float:
        means = sum(one) / num, sum(other) / num
        return sum((a - means[0]) * (b - means[1]) for a, b in zip(one, other, strict=True)) / (num - 1)

    distance = sum(
        (a - b) ** 2 for one, other in zip(z_1.tolist(), z_2.tolist(), strict=True)
        for a, b in zip(one, other, strict=True)
    ) / (num * width)  # fmt: skip
    hinge, correlation = 0.0, 0.0
    for view in (columns(z_1), columns(z_2)):
        hinge += sum(max(0.0, 1 - math.sqrt(covariance(column, column) + 1e-4)) for column in view) / width / 2
        for i in range(width):
            for j in range(width):
                correlation += covariance(view[i], view[j]) ** 2 / width if i != j else 0.0
    return weights[0] * distance, weights[1] * hinge, weights[2] * correlation


def t_info_nce(z_1: torch.Tensor, z_2: torch.Tensor, t_df: float, tau: float) -> float:
    """SimCLR's algorithm 1 with Student's t kernel of the distance in the place of exp(similarity / temperature)."""
    z = z_1.tolist() + z_2.tolist()
    num_images = len(z_1)

    def kernel(i: int, j: int) -> float:
        squared = sum((a - b) ** 2 for a, b in zip(z[i], z[j], strict=True))
        return (1 + squared / (tau * t_df)) ** (-(t_df + 1) / 2)

    total = 0.0
    for i in range(2 * num_images):
        others = sum(kernel(i, k) for k in range(2 * num_images) if k != i)
        total -= math.log(kernel(i, (i + num_images) % (2 * num_images)) / others)
    return total / (2 * num_images)


def simple_contrastive(z_1: torch.Tensor, z_2: torch.Tensor, lambda_: float) -> float:
    """−f₁ᵀf₂ + λ f₁ᵀf₋ for each view as f₁, with f₋ running over both views of all other images."""
    z = [_unit(row) for row in z_1.tolist() + z_2.tolist()]
    num_images = len(z_1)
    total = 0.0
    for i in range(2 * num_images):
        other_view = (i + num_images) % (2 * num_images)
        negatives = [k for k in range(2 * num_images) if k not in (i, other_view)]
        total -= _dot(z[i], z[other_view])
        total += lambda_ * sum(_dot(z[i], z[k]) for k in negatives) / len(negatives)
    return total / (2 * num_images)
