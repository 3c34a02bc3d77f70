"""Bounds on R_ε = P[diam(x) > ε] from alignment: certain ones, and the paper's Theorem 2. (docs/theory.md, 5.)

* An image's diameter over V views satisfies diam² ≤ 2 Σ_j ‖f_j − f̄‖² = (V − 1) a, with a the mean of ‖f_i − f_j‖² over
  i ≠ j. By Markov's inequality R_ε ≤ (V − 1) L_align / ε², for the stored views and for V independent ones alike.
* A diameter is at most 2r, so L_align ≤ ε² (1 − R_ε) + 4r² R_ε.
* A random m-subset of m′ independent views holds a given extreme pair with probability m(m − 1) / (m′(m′ − 1)).
* Theorem 2 (theorem_2.py): R_ε ≤ η(ε) √L_align, and more sharply R_ε ≤ η̃(ε) L_align.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from cssl_cli.features.geometry import distances
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.alignment.theorem_2 import exp_or_inf, log_eta_paper, log_eta_sharp
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Quantity, Sample
from cssl_cli.theory.table import FeatureTable


def r_epsilon_bounds(
    table: FeatureTable,
    epsilons: Sequence[float],
    *,
    num_parameters: int | None,
    num_discrete: int,
    lipschitz: float | None,
    more_views: Sequence[int],
) -> dict[str, Quantity]:
    """Bounds on R_ε in the order of `epsilons`, not clipped at 1; None where a bound is infinite.

    Upper bounds: `stored_views` (of the table's R_ε), `iid_views` (of that of m independent views), `more_views` (of
    that of m′ independent views, for each of `more_views`), `theorem_2` and `theorem_2_sharp` (of that of all views,
    read with `num_parameters` continuous coordinates, `num_discrete` discrete transformations and `lipschitz` for LM;
    `theorem_2_constants` holds the three).
    Lower bound: `converse`, of R_ε over the augmented views and hence over any more.
    """
    measured = _Measured(table, [float(epsilon) for epsilon in epsilons])
    return {
        **measured.from_alignment(),
        "more_views": measured.more_views(more_views),
        **measured.theorem_2(num_parameters, num_discrete, lipschitz),
    }


class _Measured:
    """The input of the bounds: alignment and R_ε of the table."""

    def __init__(self, table: FeatureTable, epsilons: list[float]) -> None:
        self.table, self.epsilons = table, epsilons
        views = table.num_augmented
        self.alignment = 2 * table.view_variances.mean().item() if views >= 2 else None
        self.largest_norm = torch.linalg.vector_norm(table.features, dim=2).max().item()

    def from_alignment(self) -> dict[str, Quantity]:
        stored: Quantity = Absent("the diameter of an image needs at least two stored views")
        if self.table.num_views >= 2:
            stored = self.upper(
                _markov(_alignment_of_stored_views(self.table), self.table.num_views),
                "(views − 1) · alignment / ε², alignment the mean of ‖f(v) − f(v′)‖² over pairs of distinct stored "
                "views, the clean one included; bounds the table's own R_ε",
                "exact for the table",
                self.table.stored_sample,
            )
        if self.alignment is None:
            return {"stored_views": stored, "iid_views": self.no_alignment(), "converse": self.no_alignment()}
        return {
            "stored_views": stored,
            "iid_views": self.upper(
                _markov(self.alignment, self.table.num_augmented),
                "(views − 1) · alignment / ε² from the unbiased alignment, for as many independent augmented views; "
                "certain for those stored",
                "unbiased",
                self.table.augmented_sample,
            ),
            "converse": self.converse(self.alignment),
        }

    def converse(self, alignment: float) -> Quantity:
        bounds = []
        for epsilon in self.epsilons:
            room = 4 * self.largest_norm**2 - epsilon**2
            bounds.append(max((alignment - epsilon**2) / room, 0.0) if room > 0 else 0.0)
        return Estimate(
            bounds,
            "lower bound (alignment − ε²) / (4r² − ε²) on R_ε over the augmented views, and hence over more, r the "
            "largest norm; 0 where it is negative or ε ≥ 2r",
            "exact for the table",
            self.table.augmented_sample,
            vacuous=max(bounds, default=0.0) <= 0,
        )

    def more_views(self, more_views: Sequence[int]) -> Quantity:
        table, stored = self.table, self.table.num_augmented
        if stored < 2:
            return self.no_alignment()
        counts = [views for views in more_views if views > stored]
        if not counts:
            return Absent(f"there are already {stored} augmented views of an image")
        augmented = table.features[:, 1:]
        diameter = distances(augmented, augmented).amax(dim=(1, 2)).cpu()
        exceeding = [int((diameter > epsilon).sum()) for epsilon in self.epsilons]
        points = [count / table.num_images for count in exceeding]
        intervals = [clopper_pearson(count, table.num_images) for count in exceeding]
        value: Any = {}
        interval: Any = {}
        for views in counts:
            factor = views * (views - 1) / (stored * (stored - 1))
            value[str(views)] = [factor * point for point in points]
            interval[str(views)] = [(factor * low, factor * high) for low, high in intervals]
        return Estimate(
            value,
            f"upper bound on R_ε for that many independent views: m′(m′ − 1)/(m(m − 1)) times R_ε over the {stored} "
            "augmented views stored; Clopper–Pearson intervals times the same factor, to be read where no image "
            "exceeds ε and the bound comes out as 0",
            "unbiased",
            table.augmented_sample,
            interval=interval,
            vacuous=all(bound >= 1 for bounds in value.values() for bound in bounds),
        )

    def theorem_2(self, num_parameters: int | None, num_discrete: int, lipschitz: float | None) -> dict[str, Quantity]:
        absent = None
        if self.alignment is None:
            absent = self.no_alignment()
        elif not num_parameters:
            absent = Absent("Theorem 2 needs an augmentation with continuous parameters")
        elif not lipschitz:
            absent = Absent("no two stored views of an image agree in coins and orders and differ in their features")
        if absent is not None:
            return dict.fromkeys(("theorem_2", "theorem_2_sharp", "theorem_2_constants"), absent)
        assert num_parameters is not None
        assert lipschitz is not None
        assert self.alignment is not None
        log_alignment = math.log(self.alignment) if self.alignment > 0 else -math.inf

        def bound(name: str, log_eta: Callable[..., float], power: float) -> Quantity:
            bounds = [
                exp_or_inf(log_eta(epsilon, num_discrete, num_parameters, lipschitz) + power * log_alignment)
                if epsilon > 0
                else math.inf
                for epsilon in self.epsilons
            ]
            return self.upper(
                bounds,
                f"{name} with n = {num_parameters} continuous parameters, m = {num_discrete} discrete transformations "
                f"and LM = {lipschitz:.4g}, the largest ratio of distances between features and between parameters "
                "over views that agree in coins and orders: less than the true LM, which need not exist; a pipeline, "
                "which composes, has lighter neighbourhoods than the theorem: its own bound is larger still",
                "low",
                self.table.augmented_sample,
            )

        return {
            "theorem_2": bound("Theorem 2, η(ε) √alignment", log_eta_paper, 0.5),
            "theorem_2_sharp": bound("Theorem 2 with the first power, η̃(ε) · alignment", log_eta_sharp, 1.0),
            "theorem_2_constants": Estimate(
                {"n": num_parameters, "m": num_discrete, "LM": lipschitz},
                "of Theorem 2: continuous coordinates that views are drawn with, discrete transformations, and the "
                "largest ratio of distances between features and between those coordinates over stored views of one "
                "image that agree in coins and orders, less than the true LM",
                "low",
                self.table.augmented_sample,
            ),
        }

    def upper(
        self, bounds: list[float] | Callable[[float], float], estimator: str, errs: Direction, sample: Sample
    ) -> Quantity:
        """Upper bounds at every ε, given as a list or as a function of ε."""
        values = bounds if isinstance(bounds, list) else [bounds(epsilon) for epsilon in self.epsilons]
        infinite = [f"{epsilon:g}" for epsilon, value in zip(self.epsilons, values, strict=True) if math.isinf(value)]
        return Estimate(
            [None if math.isinf(value) else value for value in values],
            estimator,
            errs,
            sample,
            absent={f"epsilon {epsilon}": "the bound exceeds 1e300 or is infinite" for epsilon in infinite},
            vacuous=all(value >= 1 for value in values),
        )

    def no_alignment(self) -> Absent:
        return Absent("the bound needs at least two augmented views of an image beside the clean one")


def _markov(alignment: float, num_views: int) -> Callable[[float], float]:
    """ε ↦ (V − 1) L_align / ε², inf at 0."""

    def bound(epsilon: float) -> float:
        log = math.log((num_views - 1) * alignment) if alignment > 0 else -math.inf
        return exp_or_inf(log - 2 * math.log(epsilon)) if epsilon > 0 else math.inf

    return bound


def _alignment_of_stored_views(table: FeatureTable) -> float:
    """Mean of ‖f_i − f_j‖² over pairs of distinct stored views: twice the trace of their covariance, divisor V − 1."""
    deviations = table.features - table.features.mean(dim=1, keepdim=True)
    return 2 * deviations.square().sum().item() / (table.num_images * (table.num_views - 1))
