"""NT-Xent, SimCLR's loss, at the batch size of training, and what it implies about the centres. (docs/theory.md, 11.)

A batch is B distinct images with two views each; every view is an anchor, with its other view as the positive and the
2(B − 1) views of the other images as negatives. The loss is L₁ + L₂ with L₁ = −E s₊ and

    L₂ = E log(exp(s₊) + Σ₋ exp(s₋)),   s = f·f′/T.

Given the anchor's class k and the number c of other images of its class, Jensen's inequality for the convex log-sum-exp
puts the means for s₊ and the s₋, which need not be independent of one another. With a_k the mean of f·f′ over two views
of an image of class k, g_k over views of two images of class k, t_k over views of one of class k and one of another,

    L₂ ≥ Σ_k p_k E_c φ_kc(t_k),   φ_kc(t) = log(exp(a_k/T) + 2c exp(g_k/T) + 2(B − 1 − c) exp(t/T)),

c hypergeometric when batches are drawn without replacement from a table: then a_k, g_k, t_k are the table's own means
over distinct views and images, and the inequality is exact for the table.

Bound on the mean inner product t̄ = Σ_k q_k t_k, q_k = p_k(1 − p_k)/W, W = 1 − Σ p_k², for any class sizes. The floor
F(t) = Σ_k p_k φ_k(t_k), φ_k = E_c φ_kc, is convex, so it lies above its tangent plane at any point t*; if there
p_k φ_k′(t*_k) = λ q_k for all k, then L₂ ≥ F(t) ≥ F(t*) + λ (t̄ − Σ q_k t*_k). With λ such that F(t*) = L₂ this reads
t̄ ≤ Σ q_k t*_k, the most that the floor allows. Equality for a collapsed simplex of balanced classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit, stdtrit
from torch import Tensor

from cssl_cli.nn.log_sum_exp import log_sum_exp_of_inner_products
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Interval, Quantity
from cssl_cli.theory.table import FeatureTable, class_moments

LOSSES = ("batch_size", "alignment_part", "divergence_part", "loss")
OF_CLASSES = ("collapse_floor", "collapse_gap")
OF_PAIRS = ("mean_inner_product", "mean_bound")
NEWTON_STEPS = 60
NEWTON_TOLERANCE = 1e-12  # of t, in units of T
LOGIT_LIMIT = 30.0  # how near its ends a share may come, on the logistic scale
LOGIT_TOLERANCE = 1e-7
NEGLIGIBLE = 1e-16  # probability of the class counts left out of an expectation
ROUNDING = 1e-13  # of the loss, in units of its largest exponent


def nt_xent(
    table: FeatureTable, *, temperature: float, batch_size: int, num_batches: int, generator: torch.Generator
) -> dict[str, Quantity]:
    """The loss over `num_batches` random batches of two distinct augmented views, and a bound on t̄ from it.

    `batch_size` is what was used, at most the table's images; `alignment_part` L₁ (over the whole table),
    `divergence_part` L₂ and `loss`, `collapse_floor` and `collapse_gap` = L₂ − floor ≥ 0 but for the noise of the
    batches; `mean_inner_product` t̄ and its upper bound `mean_bound`. Intervals: Student's, over the batches, so for
    the number that all batches of the table would give. Given classes, L₂ is the exact floor plus the mean over batches
    of the gap to the floor for the batch's own class counts, which varies less than L₂ itself.
    """
    assert temperature > 0
    assert num_batches >= 1
    if table.num_augmented < 2:
        return _absent(LOSSES + OF_CLASSES + OF_PAIRS, "the loss needs at least two augmented views of an image")
    if min(table.num_images, batch_size) < 2:
        return _absent(LOSSES + OF_CLASSES + OF_PAIRS, "the loss needs two images in a batch")
    return _Loss(table, temperature, min(batch_size, table.num_images), num_batches, generator).quantities()


def log_sum_exp_of_batch(views: Tensor, temperature: float) -> Tensor:
    """log(exp(s₊) + Σ₋ exp(s₋)) for every anchor of a batch (B, 2, D): (B, 2)."""
    flat = views.flatten(0, 1)
    return log_sum_exp_of_inner_products(flat, temperature=temperature).unflatten(0, views.shape[:2])


class ClassFloor:
    """φ_k of the module's text for K′ classes of the given sizes (K′,) and batches of B images, as a function of t.

    positives, same: a_k and g_k (K′,), g_k NaN for a class of one image.
    """

    def __init__(self, sizes: Tensor, positives: Tensor, same: Tensor, *, temperature: float, batch_size: int) -> None:
        self.temperature = temperature
        self.priors = sizes / sizes.sum()
        self.positives, self.same = positives / temperature, torch.nan_to_num(same) / temperature
        self.num_negatives = batch_size - 1
        # The likeliest counts first: those that matter are few.
        chances, counts = _hypergeometric(sizes, self.num_negatives).sort(dim=1, descending=True)
        needed = int((chances.flip(1).cumsum(dim=1).flip(1) > NEGLIGIBLE).sum(dim=1).max())
        self.chances, self.counts = chances[:, :needed], counts[:, :needed].double()
        self.same_class, self.other_classes = self.logarithms(self.counts)

    def logarithms(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """log(exp(a_k/T) + 2c exp(g_k/T)) and log(2(B − 1 − c)), (K′, C) each, for counts c (K′, C)."""
        same = torch.logaddexp(self.positives.unsqueeze(1), (2 * counts).log() + self.same.unsqueeze(1))
        return same, (2 * (self.num_negatives - counts)).log()

    def given_counts(self, others: Tensor, counts: Tensor) -> Tensor:
        """φ_kc(t_k) (K′, C) for t (K′,) and counts c (K′, C)."""
        same_class, other_classes = self.logarithms(counts)
        return torch.logaddexp(same_class, other_classes + (others / self.temperature).unsqueeze(1))

    def value(self, others: Tensor) -> Tensor:
        """φ_k(t_k) (K′,)."""
        exponents = self.other_classes + (others / self.temperature).unsqueeze(1)
        return (self.chances * torch.logaddexp(self.same_class, exponents)).sum(dim=1)

    def slope(self, others: Tensor) -> Tensor:
        """T φ_k′(t_k) (K′,), rising from 0 to the chance of a negative from another class."""
        exponents = self.other_classes + (others / self.temperature).unsqueeze(1)
        return (self.chances * torch.sigmoid(exponents - self.same_class)).sum(dim=1)

    def floor(self, others: Tensor) -> float:
        """F(t)."""
        return (self.priors * self.value(others)).sum().item()

    @property
    def reach(self) -> Tensor:
        """What T φ_k′ rises to (K′,)."""
        return (self.chances * (self.counts < self.num_negatives)).sum(dim=1)

    def where_slope_is(self, targets: Tensor, *, start: Tensor, span: float) -> Tensor:
        """t (K′,) in ± span at which T φ_k′(t_k) = targets (K′,), by Newton's method on its logarithm from `start`.

        A step that leaves the bracket known so far halves it instead.
        """
        # With NumPy: a few numbers, thousands of times, and a call of torch's takes several times as long.
        exponents_at_0 = (self.other_classes - self.same_class).numpy()
        chances, sought, point = self.chances.numpy(), targets.numpy(), start.numpy()
        low, high = np.full_like(point, -span), np.full_like(point, span)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            for _ in range(NEWTON_STEPS):
                exponents = exponents_at_0 + (point / self.temperature)[:, None]
                shares = chances * expit(exponents)
                slope = shares.sum(axis=1)
                low, high = np.where(slope < sought, point, low), np.where(slope < sought, high, point)
                curvature = (shares * expit(-exponents)).sum(axis=1)
                step = self.temperature * slope / curvature * np.log(sought / slope)
                # A NaN, where slope or curvature vanishes in rounding, is in no bracket either.
                inside = (point + step >= low) & (point + step <= high)
                previous, point = point, np.where(inside, point + step, (low + high) / 2)
                if np.abs(point - previous).max() <= NEWTON_TOLERANCE * self.temperature:
                    break
        return torch.from_numpy(point)


def mean_inner_product_bound(floor: ClassFloor, divergence: float) -> float | None:
    """The largest t̄ with F(t) ≤ `divergence` for some t; None if there is none, the loss lying below every floor.

    t*(u) solves T φ_k′(t_k) = u (1 − p_k) for every k, so that λ = u W/T; u runs from 0 to where some class has no
    solution, and F(t*) rises with it. At the best u the bound is stationary in u: an error of u counts squared only.
    """
    priors = floor.priors
    weights = priors * (1 - priors)
    largest = torch.cat([floor.positives, floor.same]).abs().max().item()  # over T, as in the next lines
    divergence += ROUNDING * (1 + largest)
    span = floor.temperature * (80 + math.log(2 * floor.num_negatives) + largest)
    if floor.floor(torch.full_like(priors, -span)) > divergence:
        return None
    largest_share = (floor.reach / (1 - priors)).min().item()
    point = torch.zeros_like(priors)

    def excess(logit: float) -> float:
        nonlocal point
        point = floor.where_slope_is(largest_share / (1 + math.exp(-logit)) * (1 - priors), start=point, span=span)
        return floor.floor(point) - divergence

    low, high = excess(-LOGIT_LIMIT), excess(LOGIT_LIMIT)
    if low < 0 < high:
        logit: Any = brentq(excess, -LOGIT_LIMIT, LOGIT_LIMIT, xtol=LOGIT_TOLERANCE)
    else:
        logit = LOGIT_LIMIT if high <= 0 else -LOGIT_LIMIT
    # Wherever the search stopped, the tangent plane there gives a bound.
    rise = -excess(logit) * floor.temperature * (1 + math.exp(-logit)) / largest_share
    return ((weights * point).sum().item() + rise) / weights.sum().item()


class _Loss:
    """The loss of a table over random batches."""

    def __init__(
        self, table: FeatureTable, temperature: float, batch_size: int, num_batches: int, generator: torch.Generator
    ) -> None:
        self.table, self.temperature, self.batch_size = table, temperature, batch_size
        self.alignment = table.view_means.square().sum(dim=1) - table.view_variances / table.num_augmented
        self.classes = None if table.labels is None else _Classes(table, temperature, batch_size, self.alignment)
        batches = [self.draw(generator) for _ in range(num_batches)]
        log_sum_exps = torch.stack([self.log_sum_exp(*batch) for batch in batches]).cpu()  # all batches in one wait
        self.log_sum_exps = [of_batch.mean().item() for of_batch in log_sum_exps]
        self.gaps = []
        if self.classes is not None:
            floors = (self.classes.floor_of_batch(images) for images, _ in batches)
            pairs = zip(log_sum_exps, floors, strict=True)
            self.gaps = [(of_batch - floor).mean().item() for of_batch, floor in pairs]

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Distinct images (B,) and two distinct augmented views (B, 2) of each, on the CPU."""
        count, views = self.batch_size, self.table.num_augmented
        images = torch.randperm(self.table.num_images, generator=generator)[:count]
        first = torch.randint(views, (count,), generator=generator)
        second = (first + torch.randint(1, views, (count,), generator=generator)) % views
        return images, 1 + torch.stack([first, second], dim=1)

    def log_sum_exp(self, images: Tensor, views: Tensor) -> Tensor:
        """Means (B,) over the two anchors of each image of a batch."""
        features = self.table.features
        batch = features[images.unsqueeze(1).to(features.device), views.to(features.device)]
        return log_sum_exp_of_batch(batch, self.temperature).mean(dim=1)

    def quantities(self) -> dict[str, Quantity]:
        if self.classes is None:
            return self.losses(self.log_sum_exps) | _absent(OF_CLASSES + OF_PAIRS, "the images have no labels")
        floor = self.classes.floor.floor(self.classes.others)
        quantities = self.losses([floor + gap for gap in self.gaps]) | {
            "collapse_floor": self.estimate(
                floor,
                "lower bound on the divergence part from the alignment of the classes and the inner products of their "
                "centres alone, averaged over how many images of each class a batch holds",
                "exact for the table",
            ),
            "collapse_gap": self.estimate(
                _mean(self.gaps),
                "divergence part less its collapse floor; 0 for a collapsed simplex, and never below but for the noise "
                "of the batches",
                "consistent",
                interval=_student(self.gaps),
            ),
        }
        if len(self.classes.priors) < 2:
            return quantities | _absent(OF_PAIRS, "the images are all of one class")
        return quantities | self.mean_bound(self.classes, [floor + gap for gap in self.gaps])

    def losses(self, divergences: list[float]) -> dict[str, Quantity]:
        alignment = -self.alignment.mean().item() / self.temperature
        divergence, interval = _mean(divergences), _student(divergences)
        sampled: Direction = "unbiased" if self.classes is None else "consistent"
        balanced = "" if self.classes is None else "; images of a class meet there with (n_k − 1)/(n − 1) for p_k"
        return {
            "batch_size": self.estimate(
                self.batch_size,
                "images in a batch: that of the training, or all images of the table if it has fewer",
                "exact for the table",
            ),
            "alignment_part": self.estimate(
                alignment,
                f"−E f·f′ / T over distinct augmented views of an image, T = {self.temperature:g}",
                "unbiased",
            ),
            "divergence_part": self.estimate(
                divergence,
                f"mean log-sum-exp over the views of {len(divergences)} random batches of {self.batch_size} distinct "
                f"images, two distinct augmented views each, encoder in eval mode{balanced}; interval over batches, "
                "for the number that all batches of these images would give",
                sampled,
                interval=interval,
            ),
            "loss": self.estimate(
                alignment + divergence,
                f"NT-Xent in batches of {self.batch_size}, the sum of both parts; interval of the second, over batches",
                sampled,
                interval=interval and (alignment + interval[0], alignment + interval[1]),
            ),
        }

    def mean_bound(self, classes: _Classes, divergences: list[float]) -> dict[str, Quantity]:
        # The loss is at least its floor, which is exact, whatever the noise of the batches made of it.
        least = classes.floor.floor(classes.others)
        bound = mean_inner_product_bound(classes.floor, max(_mean(divergences), least))
        ends = [mean_inner_product_bound(classes.floor, max(end, least)) for end in _student(divergences) or ()]
        known = torch.linalg.vector_norm(self.table.features[:, 1:], dim=2).max().item() ** 2
        assert bound is not None
        entry = self.estimate(
            bound,
            "upper bound on mean_inner_product from the divergence part (from its collapse floor, where that is "
            "greater), the alignment and the norms ‖μ_k‖² of the classes: the most that the floor allows; an equality "
            "for a collapsed simplex",
            "consistent",
            interval=(ends[0], ends[1]) if len(ends) == 2 and None not in ends else None,
            vacuous=bound >= known,
        )
        return {
            "mean_inner_product": self.estimate(
                (classes.priors * (1 - classes.priors) * classes.others).sum().item()
                / (1 - classes.priors.square().sum().item()),
                "mean of μ_k·μ_l over pairs of different classes, weights p_k p_l, centres over augmented views",
                "unbiased",
            ),
            "mean_bound": entry,
        }

    def estimate(self, value: float, estimator: str, errs: Direction, **facts: Any) -> Estimate:
        return Estimate(value, estimator, errs, self.table.augmented_sample, **facts)


class _Classes:
    """The K′ classes that occur in a labelled table, and the floor from them.

    Few numbers, read thousands of times: on the CPU, to avoid waiting for a GPU.
    """

    def __init__(self, table: FeatureTable, temperature: float, batch_size: int, alignment: Tensor) -> None:
        assert table.labels is not None
        labels, class_sizes, alignment = table.labels.cpu(), table.class_sizes.cpu(), alignment.cpu()
        present = (class_sizes > 0).nonzero().squeeze(1)
        self.place = torch.searchsorted(present, labels)
        sizes = class_sizes[present].double()
        self.priors = sizes / table.num_images
        moments = class_moments(table, table.features.new_ones(1, table.num_images))
        centers = moments.centers[0].cpu()[present]
        products = centers @ centers.T
        same = products.diagonal() - moments.center_errors[0].cpu()[present]
        positives = alignment.new_zeros(len(present)).index_add_(0, self.place, alignment) / sizes
        totals = products.fill_diagonal_(0) @ sizes
        self.others = totals / (table.num_images - sizes).clamp(min=1)  # t_k; no negative has it if there is one class
        self.floor = ClassFloor(sizes, positives, same, temperature=temperature, batch_size=batch_size)

    def floor_of_batch(self, images: Tensor) -> Tensor:
        """φ_kc(t_k) (B,) of every image of a batch (B,), c as in this batch."""
        place = self.place[images]
        counts = place.bincount(minlength=len(self.priors)).sub(1).clamp(min=0).double()
        return self.floor.given_counts(self.others, counts.unsqueeze(1)).squeeze(1)[place]


def _hypergeometric(sizes: Tensor, num_negatives: int) -> Tensor:
    """Chances (K, B) that c = 0, …, B − 1 of the B − 1 images drawn with one of class k are of its class.

    From the ratios of successive chances, (n − 1 − c)(B − 1 − c) / ((c + 1)(N − n − (B − 1) + c + 1)).
    """
    counts = torch.arange(num_negatives + 1, device=sizes.device, dtype=sizes.dtype)
    same, other = sizes.unsqueeze(1) - 1, (sizes.sum() - sizes).unsqueeze(1)
    possible = (counts <= same) & (num_negatives - counts <= other)
    ratios = (same - counts) * (num_negatives - counts) / ((counts + 1) * (other - num_negatives + counts + 1))
    steps = torch.where(possible[:, :-1] & possible[:, 1:], ratios[:, :-1], 1).log()
    logits = torch.cat([torch.zeros_like(same), steps.cumsum(dim=1)], dim=1)
    return torch.where(possible, logits, -torch.inf).softmax(dim=1)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _student(values: Sequence[float]) -> Interval | None:
    """Student's 95 % interval for the mean of independent values; None for a single one."""
    count, mean = len(values), _mean(values)
    if count < 2:
        return None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count)
    return mean - half, mean + half


def _absent(names: Sequence[str], reason: str) -> dict[str, Quantity]:
    return dict.fromkeys(names, Absent(reason))
