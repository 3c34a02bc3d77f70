"""The cross-correlation of two views, and what it implies about the class centres: Theorem 4. (docs/theory.md, 12.)

For features of D = d coordinates of mean 0 and variance 1, M = E f(v) f(v′)ᵀ with v, v′ two views of an image,

    L₁ = Σ_i (1 − M_ii)²,   L₂ = ‖M − I‖²,

norms being Frobenius'. With view means f̄_x and v, v′ independent, M = E f̄ f̄ᵀ; so with U = [√p_k μ_k] and the
within-class covariance Σ_W of the f̄_x, M − U Uᵀ = Σ_W, and ‖U Uᵀ − I_d‖² = ‖UᵀU − I_K‖² + d − K for any d and K. As
‖U Uᵀ − I‖ ≤ √L₂ + ‖Σ_W‖,

    Σ_{k≠l} p_k p_l (μ_k·μ_l)² + Σ_k (p_k ‖μ_k‖² − 1)² ≤ (√L₂ + ‖Σ_W‖)² − (d − K),

which bounds the root mean square of the inner products and, two entries of a symmetric matrix being equal, each of
them. For centred features √p is a null vector of UᵀU, so UᵀU − I has the eigenvalue −1 there: UᵀU − I + √p √pᵀ, of
entries √(p_k p_l) (μ_k·μ_l + 1), has a squared norm less by 1, and d − K becomes d − K + 1. No norm condition enters.
Inner products are divided by d here, so that they compare with those of features of norm 1.

V form: v, v′ independent among the stored views, a view with itself included; exact for a table. U form: v ≠ v′, as in
the training.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cssl_cli.features.intervals import MIN_BOOTSTRAP_IMAGES
from cssl_cli.theory.estimate import Absent, Direction, Estimate, Quantity
from cssl_cli.theory.losses.cross_correlation_intervals import MIN_UNBIASED_IMAGES, loss_norms, within_norm
from cssl_cli.theory.table import FeatureTable

LOSSES = ("invariance", "redundancy_loss")
PLUG_IN = ("invariance_plug_in", "redundancy_loss_plug_in", "constant_coordinates")
ALIGNMENT = ("alignment", "alignment_bound")
WITHIN = ("within_covariance_norm", "within_covariance_norm_unbiased")
OF_PAIRS = (
    "rms_inner_product",
    "rms_bound",
    "largest_inner_product",
    "pair_bound",
    "theorem_4_bound",
    "centred_inner_product",
    "centred_pair_bound",
)
CONSTANT = 1e-12  # a standard deviation below this share of a coordinate's root mean square is rounding
TOLERANCE = 1e-9  # of mean 0 and variance at most 1
BLOCK_NUMBERS = 30_000_000  # features copied at a time


def standardized_table(features: Tensor) -> Tensor:
    """Features (N, V, D) in float64, each coordinate of mean 0 and variance 1 over all augmented views of all images.

    The clean view is shifted and scaled with them; without augmented views, mean and variance are of the clean ones. A
    coordinate that is constant over those views becomes 0, in the clean view too.
    """
    features = features.double()
    augmented = features[:, 1:] if features.shape[1] > 1 else features
    mean = augmented.mean(dim=(0, 1))
    variance = torch.zeros_like(mean)
    for block in _blocks(augmented):
        variance += (block - mean).square().sum(dim=(0, 1))
    variance /= augmented.shape[0] * augmented.shape[1]
    varies = variance.sqrt() > CONSTANT * (variance + mean.square()).sqrt()
    scale = torch.where(varies, variance.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0)
    return (features - mean).mul_(scale)


def cross_correlation(
    table: FeatureTable, weights: Tensor | None = None, class_weights: Tensor | None = None
) -> dict[str, Quantity]:
    """The terms of Barlow Twins' loss and the bounds on the centres from it; for a table standardised as above.

    weights, class_weights: (R, N) of the images, resampled from all and within classes, for the intervals of the losses
    and of ‖Σ_W‖; None for none.
    `invariance` L₁, `redundancy_loss` L₂ (U form, less the noise of M) and both `_plug_in` (V form);
    `constant_coordinates`, zero in all augmented views, each of which adds 1 to either; `alignment` of the standardised
    features and its `alignment_bound` 2 √(d L₁) (Lemma 4.1; at most about 2d both); `within_covariance_norm` ‖Σ_W‖ of
    the table, and `within_covariance_norm_unbiased` of the population. Divided by d: `rms_inner_product` over pairs of
    different classes, weights p_k p_l, and its `rms_bound`; `largest_inner_product`, the largest |μ_k·μ_l|, with
    `pair_bound` and `theorem_4_bound` (the paper's, τ′ = ‖Σ_W‖²) for the same pair; `centred_inner_product`
    |μ_k·μ_l + 1| of that pair with `centred_pair_bound`.
    """
    if table.num_augmented < 1:
        reason = Absent("the cross-correlation needs augmented views")
        return dict.fromkeys(LOSSES + PLUG_IN + ALIGNMENT + WITHIN + OF_PAIRS, reason)
    measured = _Correlation(table)
    return {**measured.losses(weights), **measured.alignment(), **measured.classes(class_weights)}


def pair_bounds(
    redundancy: float, within_norm: float, shares: Tensor, *, width: int, num_classes: int
) -> dict[str, Tensor]:
    """Bounds on |μ_k·μ_l| (`pair_bound`, `theorem_4_bound`) and |μ_k·μ_l + 1| (`centred_pair_bound`), not divided by d.

    redundancy, within_norm: L₂ in V form and ‖Σ_W‖. shares: p_k p_l, of any shape.
    """
    total = (math.sqrt(redundancy) + within_norm) ** 2
    excess = width - num_classes
    # Negative only by rounding, as each bounds a square.
    return {
        "pair_bound": (max(total - excess, 0.0) / (2 * shares)).sqrt(),
        "theorem_4_bound": (2 * max(redundancy + within_norm**2 - excess / 2, 0.0) / shares).sqrt(),
        "centred_pair_bound": (max(total - excess - 1, 0.0) / (2 * shares)).sqrt(),
    }


class _Correlation:
    """M of a table in both forms, and its split by classes."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self.width = table.features.shape[2]
        self.identity = torch.eye(self.width, dtype=torch.float64, device=table.features.device)
        self.plug_in = table.view_means.T @ table.view_means / table.num_images
        self.redundancy = (self.plug_in - self.identity).square().sum().item()
        # E f fᵀ over single views; with it M over distinct views, free of what a view shares with itself alone.
        views = table.num_augmented
        single = torch.zeros_like(self.plug_in)
        for block in _blocks(table.features[:, 1:]):
            flat = block.flatten(0, 1)
            single.addmm_(flat.T, flat)
        single /= table.num_images * views
        self.second_moments = single.diagonal()
        self.distinct = (views * self.plug_in - single) / (views - 1) if views > 1 else None

    def losses(self, weights: Tensor | None) -> dict[str, Quantity]:
        quantities: dict[str, Quantity] = {}
        if self.distinct is None:
            quantities |= dict.fromkeys(LOSSES, Absent("two distinct views need two augmented views of an image"))
        elif self.table.num_images < 2:
            quantities |= dict.fromkeys(LOSSES, Absent("the noise of the cross-correlation needs two images"))
        else:
            which = (
                "from the cross-correlation M of distinct augmented views (U form), less what the noise of M adds to it"
            )
            names = {"invariance": "Σ (1 − M_ii)²", "redundancy_loss": "‖M − I‖², diagonal included,"}
            resampled = weights is not None and self.table.num_images >= MIN_BOOTSTRAP_IMAGES
            for name, norm in loss_norms(self.table.features[:, 1:], self.distinct, self.table.strata).items():
                interval = norm.interval(weights) if resampled and weights is not None else None
                quantities[name] = self.estimate(norm.value, f"{names[name]} {which}", "consistent", interval=interval)
        which = "with M = E f̄ f̄ᵀ of the images' means over augmented views (V form), the table's own"
        return quantities | {
            "invariance_plug_in": self.estimate(
                _invariance(self.plug_in), f"Σ (1 − M_ii)² {which}", "exact for the table"
            ),
            "redundancy_loss_plug_in": self.estimate(
                self.redundancy, f"‖M − I‖², diagonal included, {which}", "exact for the table"
            ),
            "constant_coordinates": self.estimate(
                int((self.second_moments == 0).sum()),
                f"coordinates of the {self.width} that are the same in all augmented views; each adds 1 to both losses",
                "exact for the table",
            ),
        }

    def alignment(self) -> dict[str, Quantity]:
        if self.distinct is None:
            return dict.fromkeys(ALIGNMENT, Absent("alignment needs at least two augmented views of an image"))
        alignment = self.estimate(
            2 * self.table.view_variances.mean().item(),
            f"alignment of the features as they are here, ‖f‖² about {self.width}; distinct views (U form); of few "
            "images too high, as these are what the coordinates were standardised by",
            "consistent",
        )
        bound: Quantity = Absent("Lemma 4.1 is stated for coordinates of variance 1, and some have more")
        if self.second_moments.max() <= 1 + TOLERANCE:
            value = 2 * math.sqrt(self.width * _invariance(self.distinct))
            bound = self.estimate(
                value,
                "Lemma 4.1, 2 √(d · invariance), upper bound on the alignment beside it; vacuous from 2d on, the "
                "alignment of independent views",
                "exact for the table",
                vacuous=value >= 2 * self.width,
            )
        return {"alignment": alignment, "alignment_bound": bound}

    def classes(self, weights: Tensor | None) -> dict[str, Quantity]:
        table = self.table
        if table.labels is None:
            return dict.fromkeys(WITHIN + OF_PAIRS, Absent("the images have no labels"))
        present = (table.class_sizes > 0).nonzero().squeeze(1)
        centers = torch.stack([table.view_means[images].mean(dim=0) for images in table.members if len(images)])
        deviations = table.view_means - centers[torch.searchsorted(present, table.labels)]
        place = torch.searchsorted(present, table.labels)
        within = torch.linalg.matrix_norm(deviations.T @ deviations / table.num_images).item()
        quantities: dict[str, Quantity] = {
            "within_covariance_norm": self.estimate(
                within,
                "Frobenius norm of the within-class covariance of the images' means over augmented views, divisor n_k; "
                "its square is the least τ′ of Theorem 4",
                "exact for the table",
            ),
            "within_covariance_norm_unbiased": self.unbiased_within(deviations, place, weights),
        }
        if len(present) < 2:
            return quantities | dict.fromkeys(OF_PAIRS, Absent("the images are all of one class"))
        priors = table.priors[present]
        names = [table.class_names[label] for label in present.tolist()]
        products = centers @ centers.T
        is_centred = bool((priors @ centers).norm() <= TOLERANCE * math.sqrt(self.width))
        quantities |= self.root_mean_squares(products, priors, within)
        return quantities | self.largest_pair(products, priors, within, names, is_centred=is_centred)

    def unbiased_within(self, deviations: Tensor, place: Tensor, weights: Tensor | None) -> Quantity:
        blocks = _blocks(self.table.features[:, 1:])
        norm = within_norm(deviations, torch.cat([block.square().mean(dim=1) for block in blocks]), place)
        if norm is None:
            return Absent(f"it needs {MIN_UNBIASED_IMAGES} images of every class")
        return self.estimate(
            norm.value,
            "the same norm of the population at this number of views: root of an unbiased estimate of the square, 0 "
            "where that is negative; coordinates standardised over these images",
            "consistent",
            interval=None if weights is None else norm.interval(weights),
        )

    def root_mean_squares(self, products: Tensor, priors: Tensor, within: float) -> dict[str, Quantity]:
        shares = torch.outer(priors, priors).fill_diagonal_(0)
        different = shares.sum().item()
        total = (math.sqrt(self.redundancy) + within) ** 2 - (self.width - len(priors))
        known = (priors * products.diagonal() - 1).square().sum().item()
        bound = math.sqrt(max(total - known, 0.0) / different) / self.width  # negative only by rounding
        return {
            "rms_inner_product": self.estimate(
                math.sqrt((shares * products.square()).sum().item() / different) / self.width,
                "root mean square of μ_k·μ_l / d over pairs of different classes, weights p_k p_l",
                "exact for the table",
            ),
            "rms_bound": self.estimate(
                bound,
                "upper bound on rms_inner_product from L₂ (V form), ‖Σ_W‖ and the norms ‖μ_k‖²",
                "exact for the table",
                # Σ p ‖μ‖² ≤ E‖f‖² ≤ d, and so Σ p_k p_l (μ_k·μ_l)² ≤ d²: as much is known without the bound.
                vacuous=bound >= 1 / math.sqrt(different),
            ),
        }

    def largest_pair(
        self, products: Tensor, priors: Tensor, within: float, names: list[str], *, is_centred: bool
    ) -> dict[str, Quantity]:
        """The pair of classes with the largest |μ_k·μ_l|, and its bounds."""
        num_classes = len(priors)
        k, l = sorted(divmod(int(products.abs().fill_diagonal_(-1).argmax()), num_classes))
        product = products[k, l].item()
        share = priors[k] * priors[l]
        bounds = pair_bounds(self.redundancy, within, share, width=self.width, num_classes=num_classes)
        pair = (names[k], names[l])
        caution = ""
        if self.width >= 5 * num_classes:
            caution = (
                "; at a width of five times the classes or more, perfect decorrelation would contradict the hypothesis "
                "of Theorem 1 for balanced classes, so that small losses here do not make that theorem speak"
            )

        # p_k ‖μ_k‖² + p_l ‖μ_l‖² ≤ E‖f‖² ≤ d, and so |μ_k·μ_l| ≤ d / (2 √(p_k p_l)) without any bound.
        known = 1 / (2 * math.sqrt(share.item()))

        def bound(name: str, estimator: str) -> Quantity:
            value = bounds[name].item() / self.width
            return self.estimate(value, estimator, "exact for the table", classes=pair, vacuous=value >= known)

        quantities = {
            "largest_inner_product": self.estimate(
                abs(product) / self.width,
                "largest |μ_k·μ_l| / d of two different classes",
                "exact for the table",
                classes=pair,
            ),
            "pair_bound": bound(
                "pair_bound",
                "upper bound on |μ_k·μ_l| / d, root of ((√L₂ + ‖Σ_W‖)² − (d − K)) / (2 p_k p_l), for the same pair"
                + caution,
            ),
            "theorem_4_bound": bound(
                "theorem_4_bound",
                "the paper's Theorem 4 with τ′ = ‖Σ_W‖², root of 2 (L₂ + τ′ − (d − K)/2) / (p_k p_l), over d, for the "
                "same pair" + caution,
            ),
        }
        if not is_centred:
            not_centred = Absent("it is stated for features of mean 0 over all augmented views")
            return quantities | dict.fromkeys(("centred_inner_product", "centred_pair_bound"), not_centred)
        return quantities | {
            "centred_inner_product": self.estimate(
                abs(product + 1) / self.width,
                "|μ_k·μ_l + 1| / d of the same pair, 0 for a simplex of balanced classes",
                "exact for the table",
                classes=pair,
            ),
            "centred_pair_bound": bound(
                "centred_pair_bound",
                "upper bound on |μ_k·μ_l + 1| / d for centred features, root of ((√L₂ + ‖Σ_W‖)² − (d − K + 1)) / "
                "(2 p_k p_l), for the same pair",
            ),
        }

    def estimate(self, value: float, estimator: str, errs: Direction, **facts: Any) -> Estimate:
        return Estimate(value, estimator, errs, self.table.augmented_sample, **facts)


def _invariance(correlation: Tensor) -> float:
    return (1 - correlation.diagonal()).square().sum().item()


def _blocks(features: Tensor) -> tuple[Tensor, ...]:
    """Features (N, V, D) in blocks of images."""
    return features.split(max(1, BLOCK_NUMBERS // (features.shape[1] * features.shape[2])))
