"""InfoNCE with one negative, and what it implies about the class centres: Theorem 3. (docs/theory.md, 11.)

With f₁, f₂ two views of an image, f₋ a view of another and T the temperature, the loss is L₁ + L₂,

    L₁ = −E f₁·f₂ / T,   L₂ = E log(exp(f₁·f₂/T) + exp(f₁·f₋/T)).

Write a_k = E[f₁·f₂ | class k], p_k for the share of a class and W = 1 − Σ p_k². Log-sum-exp is convex, and f₁·f₂ and
f₋ are independent given the classes, so by Jensen's inequality L₂ ≥ Σ_kl p_k p_l log(exp(a_k/T) + exp(μ_k·μ_l/T)), the
collapse floor; and once more over pairs k ≠ l, for the mean inner product t̄ and the mean ā of a_k with the weights
p_k(1 − p_k),

    exp(t̄/T) ≤ exp{[L₂ − Σ_k p_k² log(exp(a_k/T) + exp(‖μ_k‖²/T))] / W} − exp(ā/T).

Two conventions. V: f₁, f₂ drawn with replacement and f₋ from any image; then all this is exact for a stored table with
plug-in a_k and μ_k. U: distinct views and distinct images, as a training loss has them, pairs of classes weighted by
the p_k p_l of the population rather than by how many the sample has (image_pairs.py); exact with unbiased a_k and
‖μ_k‖².
"""

from __future__ import annotations

import itertools
import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.features.geometry import distances
from cssl_cli.features.intervals import MIN_BOOTSTRAP_IMAGES, bootstrap_interval, bootstrap_weights
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Interval, Quantity
from cssl_cli.theory.image_pairs import PairWeights
from cssl_cli.theory.subsets import balanced_subset
from cssl_cli.theory.table import FeatureTable, class_moments

LOSSES = ("alignment_part", "divergence_part", "loss")
OF_CLASSES = ("collapse_floor", "collapse_gap")
OF_PAIRS = ("mean_inner_product", "mean_bound", "mean_bound_from_loss_alone", "pair_bound", "theorem_3")
MAX_VIEWS = 8  # augmented views of an image that enter the enumeration, whose cost grows with their cube
BLOCK_NUMBERS = 2_000_000  # log-sum-exps in memory at a time
NORM_TOLERANCE = 1e-6  # of unit norm; features scaled in float32 agree to about 1e-7
ROUNDING = 1e-14  # of an average of log-sum-exps, in units of its largest exponent


def info_nce(
    table: FeatureTable, *, temperature: float, max_images: int, generator: torch.Generator, bootstrap: int = 0
) -> dict[str, Quantity]:
    """The loss by exact enumeration over at most `max_images` images, and bounds on inner products of centres from it.

    U convention: `alignment_part` L₁, `divergence_part` L₂ (with percentile intervals from `bootstrap` resamples, 0 for
    none), `loss`, `collapse_floor` and `collapse_gap` = L₂ − floor ≥ 0, zero iff every class is a point. V convention:
    `mean_inner_product` t̄ and its upper bounds `mean_bound` and `mean_bound_from_loss_alone` (‖μ_k‖² unknown); upper
    bounds for single pairs, the least over pairs: `pair_bound`, and `theorem_3` with a τ of ours at the best ε.
    Images are drawn from `generator` in the proportions of the classes; cost grows with images² · views³.
    """
    assert temperature > 0
    assert max_images >= 2
    names = LOSSES + OF_CLASSES + OF_PAIRS
    if table.num_augmented < 2:
        return dict.fromkeys(names, Absent("the loss needs at least two augmented views of an image"))
    if table.num_images < 2:
        return dict.fromkeys(names, Absent("the loss needs two images"))
    subset = _subset(table, max_images, generator)
    same = None if table.labels is None else table.priors.square().sum().item()
    enumeration = _Enumeration(
        subset,
        temperature,
        same,
        whole=subset.features.shape == table.features.shape,
        drawn_alike=_draws_classes(table, max_images) and len(table.class_sizes[table.class_sizes > 0].unique()) > 1,
    )
    quantities = enumeration.losses(bootstrap, generator)
    if table.labels is None:
        return quantities | dict.fromkeys(OF_CLASSES + OF_PAIRS, Absent("the images have no labels"))
    classes = _Classes(enumeration)
    quantities |= classes.floor()
    if len(classes.names) < 2:
        return quantities | dict.fromkeys(OF_PAIRS, Absent("the images are all of one class"))
    pair_bounds = {"pair_bound": classes.pair_bound(), "theorem_3": classes.theorem_3()}
    return quantities | classes.mean_bounds() | pair_bounds


def info_nce_paper(
    table: FeatureTable, *, temperature: float, max_images: int, generator: torch.Generator, bootstrap: int = 0
) -> dict[str, Quantity]:
    """`info_nce` as in the paper, which has no temperature; absent where `temperature`, the training's, is 1."""
    if temperature == 1:
        return dict.fromkeys(LOSSES + OF_CLASSES + OF_PAIRS, Absent("the temperature is 1: as info_nce"))
    return info_nce(table, temperature=1.0, max_images=max_images, generator=generator, bootstrap=bootstrap)


def _subset(table: FeatureTable, max_images: int, generator: torch.Generator) -> FeatureTable:
    """At most `max_images` random images, as evenly spread over the classes as the table's, in at most 1 + 8 views.

    If classes would have fewer than two images, random classes get pairs.
    """
    views = min(table.num_views, 1 + MAX_VIEWS)
    if table.num_images <= max_images:
        return FeatureTable(table.features[:, :views], table.labels, table.class_names)
    chosen = torch.randperm(table.num_images, generator=generator)
    if table.labels is not None:
        labels = table.labels.cpu()
        if _draws_classes(table, max_images):
            chosen = balanced_subset(labels, max_images, generator)
        chosen = chosen[labels[chosen].argsort(stable=True)]
    if len(chosen) > max_images:
        # At even distances in the order of the classes, so that a class keeps its share to within one image.
        phase = torch.rand(1, generator=generator, dtype=torch.float64)
        places = (torch.arange(max_images) + phase) * (len(chosen) / max_images)
        chosen = chosen[places.long().clamp(max=len(chosen) - 1)]
    chosen = chosen.to(table.features.device)
    return FeatureTable(
        table.features[chosen, :views], None if table.labels is None else table.labels[chosen], table.class_names
    )


def _draws_classes(table: FeatureTable, max_images: int) -> bool:
    """Whether there are too many classes for two images of each."""
    if table.labels is None or table.num_images <= max_images:
        return False
    return 2 * int((table.class_sizes > 0).sum()) > max_images


class _Enumeration:
    """The loss of a small table, over all its views and pairs of images."""

    def __init__(
        self, table: FeatureTable, temperature: float, same: float | None, *, whole: bool, drawn_alike: bool
    ) -> None:
        self.table, self.temperature, self.same, self.whole = table, temperature, same, whole
        self.drawn_alike = drawn_alike
        self.norms = torch.linalg.vector_norm(table.features[:, 1:], dim=2)
        self.largest_norm = self.norms.max().item()
        views, square = table.num_augmented, table.view_means.square().sum(dim=1)
        self.positives = square - table.view_variances / views  # f₁·f₂ over distinct views, (N,)
        self.positives_plug_in = square
        self.pairs, self.pairs_plug_in = self.log_sum_exps()
        self.slack = ROUNDING * (1 + self.largest_norm**2 / temperature)

    def log_sum_exps(self) -> tuple[Tensor, Tensor]:
        """Means (N, N) over views of the log-sum-exp, anchor's image × negative's: with distinct f₁, f₂, and any."""
        features = self.table.features[:, 1:] / math.sqrt(self.temperature)
        num_images, views = features.shape[:2]
        flat = features.flatten(0, 1)
        distinct, plug_in = [], []
        for anchors in features.split(max(1, BLOCK_NUMBERS // (views**3 * num_images))):
            positive = anchors @ anchors.mT
            negative = (anchors @ flat.T).unflatten(2, (num_images, views))
            terms = torch.logaddexp(positive[:, :, :, None, None], negative[:, :, None]).mean(dim=4)
            everything = terms.sum(dim=(1, 2))
            itself = terms.diagonal(dim1=1, dim2=2).sum(dim=2)
            distinct.append((everything - itself) / (views * (views - 1)))
            plug_in.append(everything / views**2)
        return torch.cat(distinct), torch.cat(plug_in)

    @cached_property
    def divergence(self) -> float:
        """L₂ over distinct views and images."""
        return self.mean_over_pairs(self.pairs.new_ones(1, len(self.pairs))).item()

    def mean_over_pairs(self, weights: Tensor) -> Tensor:
        """L₂ (R,) under image weights (R, N)."""
        return PairWeights.build(self.table.labels, weights, self.same).mean_of_matrix(self.pairs)

    @cached_property
    def divergence_plug_in(self) -> float:
        """L₂ with replacement."""
        return self.pairs_plug_in.mean().item()

    def losses(self, bootstrap: int, generator: torch.Generator) -> dict[str, Quantity]:
        alignment = -self.positives.mean().item() / self.temperature
        intervals = self.intervals(alignment, bootstrap, generator)
        which = "over distinct augmented views and distinct images (U form), pairs of classes weighted by p_k p_l"
        errs: Direction = "unbiased"
        if self.drawn_alike:
            which += "; classes were drawn with equal chances, though they are not equally large"
            errs = "either"
        return {
            "alignment_part": self.estimate(
                alignment,
                f"−E f₁·f₂ / T {which}, T = {self.temperature:g}",
                errs,
                interval=intervals.get("alignment_part"),
            ),
            "divergence_part": self.estimate(
                self.divergence,
                f"E log(exp(f₁·f₂/T) + exp(f₁·f₋/T)), one negative, {which}",
                errs,
                interval=intervals.get("divergence_part"),
            ),
            "loss": self.estimate(
                alignment + self.divergence,
                f"InfoNCE with one negative, the sum of both parts, {which}",
                errs,
                interval=intervals.get("loss"),
            ),
        }

    def intervals(
        self, alignment_part: float, bootstrap: int, generator: torch.Generator
    ) -> dict[str, Interval | None]:
        """From resampled images, each with its views, within classes where there are any."""
        table = self.table
        one_stratum = torch.zeros(table.num_images, dtype=torch.int64)
        strata = one_stratum if table.labels is None else table.labels
        enough = table.num_images >= MIN_BOOTSTRAP_IMAGES if table.labels is None else table.all_resampled
        if bootstrap < 1 or not enough:
            return {}
        weights = bootstrap_weights(strata, replicates=bootstrap, generator=generator).to(table.features.device)
        divergence = self.mean_over_pairs(weights)
        alignment = -(weights @ self.positives) / weights.sum(dim=1) / self.temperature
        resampled = {
            "alignment_part": (alignment_part, alignment),
            "divergence_part": (self.divergence, divergence),
            "loss": (alignment_part + self.divergence, alignment + divergence),
        }
        degrees = table.num_images - 1 if table.labels is None else table.degrees_of_freedom
        return {
            name: bootstrap_interval(value, replicates, degrees=degrees)
            for name, (value, replicates) in resampled.items()
        }

    def estimate(self, value: float, estimator: str, errs: Direction, **facts: Any) -> Estimate:
        if not self.whole:
            images, views = self.table.augmented_sample
            estimator += f"; on a random {images} of the images and {views} augmented views of each"
        return Estimate(value, estimator, errs, self.table.augmented_sample, **facts)


class _Classes:
    """The K′ classes that occur in the enumerated table, and the bounds they enter."""

    def __init__(self, enumeration: _Enumeration) -> None:
        self.enumeration = enumeration
        self.temperature = enumeration.temperature
        table = enumeration.table
        assert table.labels is not None
        present = (table.class_sizes > 0).nonzero().squeeze(1)
        self.names = [table.class_names[label] for label in present.tolist()]
        self.sizes = table.class_sizes[present].double()
        self.priors = self.sizes / table.num_images
        moments = class_moments(table, table.features.new_ones(1, table.num_images))
        centers = moments.centers[0, present]
        self.products = centers @ centers.T
        self.squared_norms = self.products.diagonal()
        self.unbiased_norms = self.squared_norms - moments.center_errors[0, present]  # NaN for a class of one image
        place = torch.searchsorted(present, table.labels)
        self.positives = self.class_means(enumeration.positives, place)
        self.positives_plug_in = self.class_means(enumeration.positives_plug_in, place)
        self.different = 1 - self.priors.square().sum().item()  # W: the chance that two images differ in class

    def class_means(self, values: Tensor, place: Tensor) -> Tensor:
        return values.new_zeros(len(self.sizes)).index_add_(0, place, values) / self.sizes

    def floor(self) -> dict[str, Quantity]:
        products = self.products.diagonal_scatter(self.unbiased_norms)
        terms = self.log_sum_exp(self.positives.unsqueeze(1), products)
        floor = (self.pair_shares() * torch.nan_to_num(terms)).sum().item()
        estimate = self.enumeration.estimate
        return {
            "collapse_floor": estimate(
                floor,
                "lower bound on L₂ from the alignment of the classes and the inner products of their centres alone, "
                "Σ p_k p_l log(exp(a_k/T) + exp(μ_k·μ_l/T)), U form",
                "exact for the table",
            ),
            "collapse_gap": estimate(
                # Not negative but for rounding.
                max(self.enumeration.divergence - floor, 0.0),
                "divergence part less its collapse floor, U form; 0 when every class has collapsed to a point",
                "exact for the table",
            ),
        }

    def pair_shares(self) -> Tensor:
        """How much the pairs of classes (K′, K′) count in L₂ in the U form, as in image_pairs.py."""
        several = self.sizes > 1
        if not several.any():  # a sample as it comes, all of whose pairs are of different classes
            return torch.outer(self.priors, self.priors).fill_diagonal_(0) / self.different
        alike = torch.where(several, self.priors.square(), 0)
        same = self.enumeration.same
        assert same is not None
        apart = torch.outer(self.priors, self.priors).fill_diagonal_(0)
        if self.different > 0:
            apart *= (1 - same) / self.different
        return apart + torch.diag(same * alike / alike.sum())

    def mean_bounds(self) -> dict[str, Quantity]:
        priors, weights = self.priors, torch.outer(self.priors, self.priors).fill_diagonal_(0)
        estimate, largest = self.enumeration.estimate, self.enumeration.largest_norm**2
        from_loss = self.mean_bound(torch.zeros_like(priors))
        bound = self.mean_bound(self.squared_norms)
        which = "upper bound on mean_inner_product from L₂ with replacement (V form) and the class-wise alignment"
        return {
            "mean_inner_product": estimate(
                (weights * self.products).sum().item() / self.different,
                "mean of μ_k·μ_l over pairs of different classes, weights p_k p_l, centres over augmented views",
                "unbiased",
            ),
            "mean_bound": estimate(
                bound,
                f"{which} and ‖μ_k‖²; an equality for a collapsed simplex",
                "exact for the table",
                vacuous=bound >= largest,
            ),
            "mean_bound_from_loss_alone": estimate(
                from_loss,
                f"{which}, with nothing known of ‖μ_k‖²",
                "exact for the table",
                vacuous=from_loss >= largest,
            ),
        }

    def mean_bound(self, squared_norms: Tensor) -> float:
        """The bound on t̄ from the module's text, for squared norms (K′,) of the centres or lower bounds of them."""
        same = (self.priors.square() * self.log_sum_exp(self.positives_plug_in, squared_norms)).sum().item()
        mean = (self.enumeration.divergence_plug_in - same + self.enumeration.slack) / self.different
        positive = (self.priors * (1 - self.priors) * self.positives_plug_in).sum().item() / self.different
        return self.temperature * _log_difference(mean, positive / self.temperature, self.enumeration.slack)

    def pair_bound(self) -> Quantity:
        # One pair may be kept of the floor's sum, since none of the others is negative: a_k = E‖f̄_x‖² ≥ 0.
        divergence, slack = self.enumeration.divergence_plug_in + self.enumeration.slack, self.enumeration.slack
        priors, positives = self.priors.tolist(), (self.positives_plug_in / self.temperature).tolist()
        bound, k, l = min(
            (self.temperature * _log_difference(divergence / (priors[k] * priors[l]), positives[k], slack), k, l)
            for k, l in itertools.permutations(range(len(priors)), 2)
        )
        return self.enumeration.estimate(
            bound,
            "the paper's pair form without τ, μ_k·μ_l ≤ T log(exp(L₂/(p_k p_l)) − exp(a_k/T)), V form; the least over "
            "pairs of classes, for the pair named",
            "exact for the table",
            classes=self.pair_names(k, l),
            vacuous=bound >= self.enumeration.largest_norm**2,
        )

    def theorem_3(self) -> Quantity:
        """μ_k·μ_l ≤ T log(exp((L₂ + τ)/(p_k p_l)) − exp((1 − ε²/2)/T)), our τ = R_ε log((1 + exp((2 − ε²/2)/T))/2).

        For an image of diameter ≤ ε, f₁·f₂ ≥ 1 − ε²/2; for the others, of which there are R_ε, it is ≥ −1, and putting
        1 − ε²/2 for it raises the log-sum-exp by τ/R_ε at most. Terms of the sum may be left out while
        exp((1 − ε²/2)/T) + exp(−1/T) ≥ 1. τ does not rise with ε at fixed R_ε, so the ε at which R_ε falls are tried.
        """
        norms = self.enumeration.norms
        odd = norms.flatten()[(norms - 1).abs().argmax()].item()
        if abs(odd - 1) > NORM_TOLERANCE:
            return Absent(f"it is stated for features of norm 1, and there are some of norm {odd:.4g}")
        temperature, views = self.temperature, self.enumeration.table.features[:, 1:]
        diameter = distances(views, views).amax(dim=(1, 2)).sort().values
        epsilons = torch.cat([diameter.new_zeros(1), diameter])
        epsilons = epsilons[1 - epsilons.square() / 2 >= temperature * math.log(-math.expm1(-1 / temperature))]
        rates = (diameter.unsqueeze(0) > epsilons.unsqueeze(1)).double().mean(dim=1)
        taus = rates * (F.softplus((2 - epsilons.square() / 2) / temperature, threshold=700) - math.log(2))
        k, l = self.priors.topk(2).indices.tolist()
        share = (self.priors[k] * self.priors[l]).item()
        bounds = []
        for epsilon, tau in zip(epsilons.tolist(), taus.tolist(), strict=True):
            total = (self.enumeration.divergence_plug_in + tau + self.enumeration.slack) / share
            positive = (1 - epsilon**2 / 2) / temperature
            bounds.append((temperature * _log_difference(total, positive, self.enumeration.slack), epsilon))
        bound, epsilon = min(bounds)
        return self.enumeration.estimate(
            bound,
            "Theorem 3 with exp(1 − ε²/2) for exp(1 − ε) and a τ of ours for the paper's, R_ε log((1 + exp((2 − "
            f"ε²/2)/T))/2), V form; at the best ε, {epsilon:.3g}, for the pair of the largest classes",
            "exact for the table",
            classes=self.pair_names(k, l),
            vacuous=bound >= 1,
        )

    def log_sum_exp(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.logaddexp(first / self.temperature, second / self.temperature)

    def pair_names(self, k: int, l: int) -> tuple[str, ...]:
        return tuple(self.names[position] for position in sorted((k, l)))


def _log_difference(first: float, second: float, slack: float) -> float:
    """log(exp(first) − exp(second)), first ≥ second up to rounding; a difference below `slack` is taken for `slack`.

    So an upper bound stays one: with good alignment and a low temperature the two agree to their last digits.
    """
    return first + math.log(-math.expm1(-max(first - second, slack)))
