"""Symmetric scores of pairs of vectors, a tile of pairs at a time, and what their gradients come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Rows and columns of a tile: on a CPU its scores stay in the cache, elsewhere they should keep the device busy.
CPU_TILE = 512
DEVICE_TILE = 4096


def log_t_kernel(squared_distance: Tensor, *, t_df: float, tau: float) -> Tensor:
    """−(t_df + 1)/2 · log(1 + d²/(τ · t_df)): the log density of Student's t at d/√τ, but for a
    constant; of any shape, ≤ 0. With growing t_df it becomes the Gaussian's −d²/(2τ)."""
    return -(t_df + 1) / 2 * torch.log1p(squared_distance / (tau * t_df))


class Scores(Protocol):
    """A symmetric score of two vectors, and what a tile of its gradients comes to for the vectors."""

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        """Scores (M, N) of vectors (M, P) and (N, P)."""

    def slopes(self, weights: Tensor, scores: Tensor) -> Tensor:
        """Gradients of a sum of scores, weighted by (M, N), in the form that `pull` takes. May change `weights`."""

    def pull(self, slopes: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Gradients (M, P) of the same sum with respect to the first vectors."""


@dataclass(frozen=True)
class InnerProduct:
    """z·z′ / temperature."""

    temperature: float

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        return (first / self.temperature) @ second.T

    def slopes(self, weights: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        return weights

    def pull(self, slopes: Tensor, first: Tensor, second: Tensor) -> Tensor:  # noqa: ARG002
        return slopes @ (second / self.temperature)


@dataclass(frozen=True)
class TKernel:
    """`log_t_kernel` of the squared distance."""

    t_df: float
    tau: float

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        squared_norms = first.square().sum(dim=1).unsqueeze(1) + second.square().sum(dim=1)
        squared_distance = squared_norms.addmm_(first, second.T, alpha=-2).clamp_(min=0)
        return log_t_kernel(squared_distance, t_df=self.t_df, tau=self.tau)

    def slopes(self, weights: Tensor, scores: Tensor) -> Tensor:
        # With respect to d²: −(t_df + 1)/2 / (τ t_df + d²), where 1 + d²/(τ t_df) = exp(−2 s/(t_df + 1)).
        slope = (self.t_df + 1) / (2 * self.tau * self.t_df)
        return weights.mul_((scores * (2 / (self.t_df + 1))).exp_()).mul_(-slope)

    def pull(self, slopes: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return 2 * (slopes.sum(dim=1).unsqueeze(1) * first - slopes @ second)


SCORES: dict[str, type[InnerProduct] | type[TKernel]] = {"inner_product": InnerProduct, "t_kernel": TKernel}


def tile_of(z: Tensor) -> int:
    """Rows and columns of a tile of scores of vectors z."""
    return CPU_TILE if z.device.type == "cpu" else DEVICE_TILE
