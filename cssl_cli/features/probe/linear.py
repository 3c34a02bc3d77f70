"""Linear probe: multinomial logistic regression on frozen features, its penalty chosen inside the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cssl_cli.features.probe.softmax_regression import SoftmaxRegression

SEARCH_TOLERANCE = 1e-3
FINAL_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Standardization:
    """Training mean (D,) and the reciprocal of the training standard deviation (D,), 0 for a constant feature."""

    mean: Tensor
    inverse_sd: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Standardization:
        """Of the columns of features (N, D)."""
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        sd = variance.sqrt()
        # A feature that varies only by rounding is constant: its noise must not be scaled up to unit variance.
        constant = sd <= torch.finfo(features.dtype).eps * 10 * features.abs().amax(dim=0)
        return cls(mean, torch.where(constant, 0, 1 / sd))

    def apply(self, features: Tensor) -> Tensor:
        """(N, D) of mean 0 and standard deviation 1 on the training set."""
        return (features - self.mean).mul_(self.inverse_sd)


@dataclass(frozen=True)
class LinearClassifier:
    """theta: (K′, D + 1) weights and biases over the K′ classes that occur in training; classes: (K′,) their labels."""

    standardization: Standardization
    theta: Tensor
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """The most probable class (N,) of features (N, D); the first of several equal ones."""
        return self.classes[self.logits(features).argmax(dim=1)]

    def logits(self, features: Tensor) -> Tensor:
        """(N, K′) of features (N, D)."""
        found = []
        for block in features.split(8192):
            block = self.standardization.apply(block.to(self.standardization.mean.dtype))
            theta = self.theta.to(block.dtype)
            found.append(block @ theta[:, :-1].T + theta[:, -1])
        return torch.cat(found)


def fit_linear(
    features: Tensor,
    labels: Tensor,
    *,
    penalties: Sequence[float],
    validation_fraction: float,
    generator: torch.Generator,
    folds: int = 0,
) -> tuple[LinearClassifier, dict[str, Any]]:
    """Fits the mean cross-entropy plus ½ · penalty · ‖W‖² on standardised features (N, D), labels (N,).

    The penalty is the one of `penalties` with the best accuracy on a held-out share of every class (the strongest of
    equals), drawn from `generator`; with `folds`, on all images, each held out once, in cross-validation over so many
    parts of every class. The whole training set is then fitted with it. With a single penalty, or a training
    set that can spare no image, the strongest is used and `validation_accuracy` is None.

    Returns the classifier and a report: `penalty`, `penalty_at_grid_edge`, `validation_accuracy` (0 to 1), `converged`
    and `iterations` of the final fit, and `warnings`, sentences for the reader.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    classes, targets = labels.unique(return_inverse=True)
    grid = sorted(penalties, reverse=True)
    if folds:
        held_out = split_folds(targets, folds=folds, generator=generator)
    else:
        held_out = [split_validation(targets, fraction=validation_fraction, generator=generator)]
    held_out = [part for part in held_out if part.any()]
    penalty, validation_accuracy = grid[0], None
    if len(grid) > 1 and held_out:
        penalty, validation_accuracy = _choose_penalty(features, targets, held_out, grid)
    standardization = Standardization.of(features)
    problem = SoftmaxRegression(standardization.apply(features), targets, len(classes))
    solution = problem.solve(penalty, start=problem.zeros(), tolerance=FINAL_TOLERANCE)
    at_edge = validation_accuracy is not None and penalty in (grid[0], grid[-1])
    return LinearClassifier(standardization, solution.theta, classes), {
        "penalty": penalty,
        "penalty_at_grid_edge": at_edge,
        "validation_accuracy": validation_accuracy,
        "converged": solution.converged,
        "iterations": solution.iterations,
        "warnings": _warnings(penalty, at_edge, solution.converged),
    }


def _warnings(penalty: float, at_edge: bool, converged: bool) -> list[str]:
    warnings = []
    if at_edge:
        warnings.append(f"the chosen penalty, {penalty:g}, is at the edge of probe.penalties; widen the grid")
    if not converged:
        warnings.append("the logistic regression stopped before it had converged")
    return warnings


def split_validation(labels: Tensor, *, fraction: float, generator: torch.Generator) -> Tensor:
    """Mask (N,) of held-out images: `fraction` of every class of `labels` (N,), at least one image and never all."""
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    on_cpu = labels.cpu()
    for label in on_cpu.unique():
        members = (on_cpu == label).nonzero().squeeze(1)
        number = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[members[torch.randperm(len(members), generator=generator)[:number]]] = True
    return held_out.to(labels.device)


def split_folds(labels: Tensor, *, folds: int, generator: torch.Generator) -> list[Tensor]:
    """Masks (N,) of the images that each fold holds out: every class of `labels` (N,) dealt out at random.

    No fold takes a class's only image.
    """
    fold_of = torch.full((len(labels),), -1)
    on_cpu = labels.cpu()
    for label in on_cpu.unique():
        members = (on_cpu == label).nonzero().squeeze(1)
        if len(members) > 1:
            dealt = members[torch.randperm(len(members), generator=generator)]
            fold_of[dealt] = torch.arange(len(members)) % folds
    return [(fold_of == fold).to(labels.device) for fold in range(folds)]


def _choose_penalty(
    features: Tensor, targets: Tensor, held_out: Sequence[Tensor], grid: Sequence[float]
) -> tuple[float, float]:
    """The penalty of the strong-to-weak `grid` with the best accuracy on the held-out images, and that accuracy."""
    right: list[list[Tensor]] = [[] for _ in grid]
    for part in held_out:
        kept = features[~part]
        standardization = Standardization.of(kept)
        validation, truth = standardization.apply(features[part]), targets[part]
        problem = SoftmaxRegression(standardization.apply(kept), targets[~part], int(targets.max()) + 1)
        theta = problem.zeros()
        for penalty, of_penalty in zip(grid, right, strict=True):
            theta = problem.solve(penalty, start=theta, tolerance=SEARCH_TOLERANCE).theta
            weights = theta.to(validation.dtype)
            predictions = (validation @ weights[:, :-1].T + weights[:, -1]).argmax(dim=1)
            of_penalty.append((predictions == truth).double())
    found = torch.stack([torch.cat(of_penalty).mean() for of_penalty in right]).tolist()
    best = max(found)
    return grid[found.index(best)], best
