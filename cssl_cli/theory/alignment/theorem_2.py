"""Theorem 2's η(ε), and its constants n, m and LM as measured on stored views. (docs/theory.md, 5.)

The theorem's model: half of the views come from m discrete transformations, each of probability 1/(2m), half from a
family A_θ with θ uniform on [0, 1]ⁿ and ‖f(A_θ x) − f(A_θ′ x)‖ ≤ LM ‖θ − θ′‖. Then R_ε ≤ η(ε) √L_align and, more
sharply, R_ε ≤ η̃(ε) L_align, with

    η = inf_h 4 max{1, m² h²ⁿ} / (h²ⁿ (ε − c h)),   η̃ = inf_h 2 max{1, m hⁿ} / (hⁿ (ε − c h)²),   c = 2 √n LM,

over the sides 0 < h ≤ 1, h < ε/c of a cube in θ. (h > 1 never helps if m ≥ 1 and means nothing if m = 0.)

A pipeline composes instead: every view has an outcome of each coin *and* a θ. Applied to it, n counts the coordinates
with which views vary continuously, m the transformations that only a coin decides, and LM is estimated over pairs of
views that agree in all coins and orders, the only pairs for which the model needs it. A neighbourhood of a view then
has the probability of its outcomes times hⁿ, less than the model's ½ hⁿ once they are less likely than ½: the bound for
the pipeline itself is larger than the one computed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.features.geometry import distances
from cssl_cli.theory.estimate import Absent

LARGEST_EXPONENT = math.log(1e300)
BLOCK_IMAGES = 1000


@dataclass(frozen=True)
class ViewParameters:
    """The parameters of m augmented views of N images, split as in Theorem 2.

    continuous: (N, m, n) coordinates in [0, 1]. states: (N, m, S) whole numbers; views with equal states
    differ only in `continuous`. discrete: the names of the discrete transformations.
    """

    continuous: Tensor
    states: Tensor
    discrete: tuple[str, ...]

    @classmethod
    def all_continuous(cls, theta: Tensor) -> ViewParameters:
        """From theta (N, m, P), taking all coordinates as continuous."""
        return cls(theta, theta.new_zeros(*theta.shape[:2], 0), ())


@dataclass(frozen=True)
class Constants:
    """n, m and a lower bound of LM."""

    num_parameters: int
    num_discrete: int
    lipschitz: float

    @property
    def of_family(self) -> tuple[int, int]:
        """m and n."""
        return self.num_discrete, self.num_parameters


def theorem_2_constants(parameters: ViewParameters | None, features: Tensor) -> Constants | Absent:
    """The constants for the features (N, m, D) of the augmented views, or why Theorem 2 cannot be read."""
    if parameters is None or features.shape[1] < 2 or parameters.continuous.shape[2] == 0:
        return Absent("Theorem 2 needs an augmentation with continuous parameters, and two augmented views")
    largest = parameter_ratio(parameters.continuous, features, parameters.states)
    if largest == 0:
        return Absent("no two stored views of an image agree in coins and orders and differ in their features")
    return Constants(parameters.continuous.shape[2], len(parameters.discrete), largest)


def parameter_ratio(theta: Tensor, features: Tensor, states: Tensor | None = None) -> float:
    """Largest ‖f(A_θ x) − f(A_θ′ x)‖ / ‖θ − θ′‖ over pairs of views of one image, from (N, m, P) and (N, m, D).

    With `states` (N, m, S), over pairs of equal states. At most the Lipschitz constant LM, if there is one. 0 if there
    is no such pair of different θ.
    """
    largest = 0.0
    for start in range(0, len(theta), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        points = theta[block].to(features.device, torch.float64)
        steps = distances(points, points)
        moved = distances(features[block].double(), features[block].double())
        allowed = steps > 0
        if states is not None:
            of_block = states[block].to(features.device)
            allowed &= (of_block.unsqueeze(2) == of_block.unsqueeze(1)).all(dim=3)
        if allowed.any():
            largest = max(largest, (moved[allowed] / steps[allowed]).max().item())
    return largest


def log_eta_paper(epsilon: float, num_discrete: int, num_parameters: int, lipschitz: float) -> float:
    """log η(ε) of Theorem 2, for ε > 0, n ≥ 1 and LM > 0; exact, since the best h is known.

    Up to h = m^(−1/n) the function is log-convex in h with its minimum at 2n ε / (c (2n + 1)); from there on it rises.
    """
    n = num_parameters
    slope = 2 * math.sqrt(n) * lipschitz
    log_h = _log_side(2 * n * epsilon / (slope * (2 * n + 1)), num_discrete, n)
    log_weight = max(0.0, 2 * math.log(num_discrete) + 2 * n * log_h) if num_discrete else 0.0
    return math.log(4) + log_weight - 2 * n * log_h - math.log(epsilon - slope * math.exp(log_h))


def log_eta_sharp(epsilon: float, num_discrete: int, num_parameters: int, lipschitz: float) -> float:
    """log η̃(ε), as `log_eta_paper`; here the minimum lies at n ε / (c (n + 2))."""
    n = num_parameters
    slope = 2 * math.sqrt(n) * lipschitz
    log_h = _log_side(n * epsilon / (slope * (n + 2)), num_discrete, n)
    log_weight = max(0.0, math.log(num_discrete) + n * log_h) if num_discrete else 0.0
    return math.log(2) + log_weight - n * log_h - 2 * math.log(epsilon - slope * math.exp(log_h))


def eta_paper(epsilon: float, num_discrete: int, num_parameters: int, lipschitz: float) -> float:
    """η(ε) of Theorem 2: R_ε ≤ η(ε) √L_align; inf where it exceeds 1e300."""
    return exp_or_inf(log_eta_paper(epsilon, num_discrete, num_parameters, lipschitz))


def eta_sharp(epsilon: float, num_discrete: int, num_parameters: int, lipschitz: float) -> float:
    """η̃(ε): R_ε ≤ η̃(ε) L_align; inf where it exceeds 1e300."""
    return exp_or_inf(log_eta_sharp(epsilon, num_discrete, num_parameters, lipschitz))


def exp_or_inf(exponent: float) -> float:
    """exp, inf where it exceeds 1e300."""
    return math.exp(exponent) if exponent <= LARGEST_EXPONENT else math.inf


def _log_side(free: float, num_discrete: int, num_parameters: int) -> float:
    """log h of the best side: the free minimum, cut at 1 and at m^(−1/n)."""
    at_most = -math.log(num_discrete) / num_parameters if num_discrete else 0.0
    return min(math.log(free), at_most, 0.0)
