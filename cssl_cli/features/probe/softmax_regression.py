"""Softmax regression with an L2 penalty, solved to convergence by preconditioned L-BFGS over the full batch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

MEMORY = 20
MAX_ITERATIONS = 2000
MAX_LINE_SEARCH_STEPS = 40
SLOPE_REDUCTION = 0.3
REFRESH_EVERY = 25
GRAM_ROWS_PER_FEATURE = 4
FEATURES_PER_IMAGE = 2  # from this many on, finding the span of the images saves time


@dataclass(frozen=True)
class Solution:
    """theta: (K, D + 1) float64, a row of weights and the bias for each class."""

    theta: Tensor
    converged: bool
    iterations: int


class SoftmaxRegression:
    """Minimises the mean cross-entropy of softmax(X Wᵀ + b) plus ½ · penalty · ‖W‖² over W (K, D) and b (K,).

    `features` X (N, D), centred and of unit scale; `labels` (N,) in 0 … K − 1. An iteration costs two products with X,
    which stays in its own floating-point type; the line search only touches logits, and everything of W's size is in
    float64. L-BFGS as in Nocedal and Wright, Numerical Optimization, algorithm 7.4.

    With fewer images than features, W lies in the span of the images: X is rotated to N axes of that span, where
    products, gradients and norms are the same and no matrix has D columns.
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        self.axes: Tensor | None = None  # (D, N)
        if FEATURES_PER_IMAGE * len(features) <= features.shape[1]:
            self.axes, turned = torch.linalg.qr(features.T.double())
            features = turned.T.to(features.dtype).contiguous()
        self.features = features
        self.num_images, self.num_features = features.shape
        # Logits and targets are class-major (K, N): the thin products and the softmax are faster this way.
        self.targets = one_hot(labels, num_classes).T.to(features.dtype).contiguous()
        # A preconditioner may be rough: evenly spaced images are enough to see how the features are correlated.
        sample = features[:: max(1, self.num_images // (GRAM_ROWS_PER_FEATURE * self.num_features))]
        self.gram = (sample.T @ sample / len(sample)).double()
        # Rounding can leave the product slightly indefinite where the features are dependent.
        self.gram.diagonal().add_(2 * torch.finfo(features.dtype).eps * self.gram.trace())

    def zeros(self) -> Tensor:
        """The starting point theta = 0."""
        return self._given(self._zeros())

    def _zeros(self) -> Tensor:
        return self.gram.new_zeros(len(self.targets), self.num_features + 1)

    def _turned(self, theta: Tensor) -> Tensor:
        """theta (K, D + 1) in the internal axes."""
        return theta if self.axes is None else torch.cat([theta[:, :-1] @ self.axes, theta[:, -1:]], dim=1)

    def _given(self, theta: Tensor) -> Tensor:
        """Internal axes back to theta (K, D + 1)."""
        return theta if self.axes is None else torch.cat([theta[:, :-1] @ self.axes.T, theta[:, -1:]], dim=1)

    def logits(self, theta: Tensor) -> Tensor:
        """(K, N) of the training images."""
        return self._logits(self._turned(theta))

    def _logits(self, theta: Tensor) -> Tensor:
        theta = theta.to(self.features.dtype)
        return theta[:, :-1] @ self.features.T + theta[:, -1:]

    def solve(self, penalty: float, *, start: Tensor, tolerance: float) -> Solution:
        """Goes from `start` until the gradient's norm is at most `tolerance` times its norm at theta = 0."""
        zeros = self._zeros()
        at_zeros = self._gradient(self._residual(self._logits(zeros)), zeros, penalty)
        inverse_hessian = _InverseHessian(self.gram, penalty)
        theta = self._turned(start)
        logits = self._logits(theta)
        gradient = self._gradient(self._residual(logits), theta, penalty)
        target, length = torch.stack([tolerance * at_zeros.norm(), gradient.norm()]).tolist()
        iterations = 0
        while length > target and iterations < MAX_ITERATIONS:
            direction = -inverse_hessian.times(gradient)
            change = self._logits(direction)
            found = self._line_search(logits, change, gradient, theta, direction, penalty)
            if found is None:  # at the limit of rounding: no descent is visible
                break
            step, residual = found
            theta = theta + step * direction
            iterations += 1
            if iterations % REFRESH_EVERY == 0:  # the running update of the logits drifts
                logits = self._logits(theta)
                residual = self._residual(logits)
            else:
                logits.add_(change, alpha=step)
            previous, gradient = gradient, self._gradient(residual, theta, penalty)
            moved, turned = step * direction, gradient - previous
            curvature = (moved * turned).sum()
            length, sign = torch.stack([gradient.norm(), curvature]).tolist()
            if sign > 0:  # rounding alone can make it negative
                inverse_hessian.remember(moved, turned, curvature)
        return Solution(self._given(theta), length <= target, iterations)

    def _residual(self, logits: Tensor) -> Tensor:
        """Probabilities less targets (K, N): the derivative of the cross-entropy in the logits."""
        return logits.softmax(dim=0).sub_(self.targets)

    def _gradient(self, residual: Tensor, theta: Tensor, penalty: float) -> Tensor:
        gradient = torch.cat([residual @ self.features, residual.sum(dim=1, keepdim=True)], dim=1).double()
        gradient /= self.num_images
        gradient[:, :-1] += penalty * theta[:, :-1]
        return gradient

    def _line_search(
        self, logits: Tensor, change: Tensor, gradient: Tensor, theta: Tensor, direction: Tensor, penalty: float
    ) -> tuple[float, Tensor] | None:
        """A step that brings the slope along `direction` near zero, and the residual there; None if there is none.

        The objective is convex, so its slope rises along the line and a bracketed root of it is all that is needed.
        """
        step = 1.0
        residual = self._residual(torch.add(logits, change, alpha=step))
        # A single transfer, as each waits for the device.
        first, loss_slope, penalty_slope, penalty_curvature = torch.stack(
            [
                (gradient * direction).sum(),
                _slope(residual, change),
                (theta[:, :-1] * direction[:, :-1]).sum(),
                direction[:, :-1].square().sum(),
            ]
        ).tolist()
        if not first < 0:
            return None
        low, low_slope, high, high_slope = 0.0, first, None, 0.0
        for _ in range(MAX_LINE_SEARCH_STEPS):
            slope = loss_slope / self.num_images + penalty * penalty_slope + step * (penalty * penalty_curvature)
            if abs(slope) <= SLOPE_REDUCTION * -first:
                return step, residual
            if slope < 0:
                low, low_slope = step, slope
            else:
                high, high_slope = step, slope
            if high is None:
                step *= 2
            else:
                secant = low_slope / (low_slope - high_slope)
                step = low + (high - low) * min(max(secant, 0.1), 0.9)
            residual = self._residual(torch.add(logits, change, alpha=step))
            loss_slope = _slope(residual, change).item()
        return None


def _slope(residual: Tensor, change: Tensor) -> Tensor:
    """Of the summed cross-entropy along `change` (K, N) of the logits."""
    return torch.linalg.vecdot(residual, change).double().sum()


class _InverseHessian:
    """The L-BFGS approximation of the inverse Hessian, built on that of ½ XᵀX/N + penalty.

    The latter bounds the blocks of the Hessian from above whatever the weights (Böhning, Annals of the Institute of
    Statistical Mathematics 1992), so that correlated features cost few iterations.
    """

    def __init__(self, gram: Tensor, penalty: float) -> None:
        bound = gram / 2
        bound.diagonal().add_(penalty)
        self.factor = torch.linalg.cholesky(bound)
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
        self.scale: Tensor | float = 1.0

    def remember(self, step: Tensor, gradient_change: Tensor, curvature: Tensor) -> None:
        """Records a step (K, D + 1), the change of the gradient, and their inner product, which is positive."""
        self.pairs.append((step, gradient_change, curvature))
        self.scale = curvature / (gradient_change * self._bound(gradient_change)).sum()

    def times(self, gradient: Tensor) -> Tensor:
        """The product with a gradient (K, D + 1)."""
        vector = gradient.clone()
        weights = []
        for step, gradient_change, curvature in reversed(self.pairs):
            weights.append((step * vector).sum() / curvature)
            vector -= weights[-1] * gradient_change
        vector = self.scale * self._bound(vector)
        for (step, gradient_change, curvature), weight in zip(self.pairs, reversed(weights), strict=True):
            vector += (weight - (gradient_change * vector).sum() / curvature) * step
        return vector

    def _bound(self, vector: Tensor) -> Tensor:
        weights = torch.cholesky_solve(vector[:, :-1].T, self.factor).T
        return torch.cat([weights, 2 * vector[:, -1:]], dim=1)
