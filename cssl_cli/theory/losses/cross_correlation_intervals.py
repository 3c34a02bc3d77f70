"""The losses of the cross-correlation and ‖Σ_W‖ of the population, less the noise. (docs/theory.md, 12.)

Let M be the mean over images of X_i, in coordinates that were standardised, and q_i the mean squares of image i's
coordinates over its views. Weights w_i of mean 1 move the mean of the X_i and the variances that the coordinates were
divided by; to first order M moves by the mean of (w_i − 1) A_i with

    A_i = X_i − ½ (Q_i M + M Q_i),   Q_i = diag(q_i),   Σ_i A_i = 0.

A squared norm of a matrix of noisy entries is too large: E‖M − I‖² exceeds that of the population by E‖M − E M‖². With
so many images n_k of each class, and Ā_k the mean of its A_i, that is estimated, without bias but for the
standardisation, by

    Σ_k (n_k/N)² · Σ_{i in k} ‖A_i − Ā_k‖² / (n_k (n_k − 1)).

The diagonal is a quotient of means, Σ_i x_i / Σ_i q_i coordinate by coordinate, of features whose mean was subtracted:
to second order it is too small by Cov(x̄ − M q̄, q̄) + (1 − M) Var(f̄), which makes the invariance too large. Off the
diagonal such terms are small beside the spread of the loss, until the coordinates are as many as the images; so there
are no intervals with fewer than `IMAGES_PER_COORDINATE` images a coordinate.

Under weights ‖M − I‖² moves to first order by the mean of (w_i − 1) · 2⟨M − I, A_i⟩, of which the image's own part in
the noise is taken out. To resample it outright would be to form a D × D matrix, and to standardise again, for every
resample; this takes one number an image, and in all two products of N m D² operations.

‖Σ_W‖² is Σ_kl p_k p_l ⟨Σ_k, Σ_l⟩. With S_k the covariance of the view means of class k, divisor n_k − 1, the products
of two classes are unbiased as they are. That of one class with itself is so in the form of Himeno and Yamada (J.
Multivariate Anal. 2014, section 2), for n = n_k ≥ 4 images at x_i:

    (n − 1)/(n (n − 2)(n − 3)) · [(n − 1)(n − 2) ‖S‖² + (tr S)² − n Σ‖x_i − x̄‖⁴/(n − 1)].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.features.intervals import bootstrap_interval
from cssl_cli.theory.estimate import Interval

BLOCK_NUMBERS = 1 << 22  # features in a block, of which a few copies are held
IMAGES_PER_COORDINATE = 2  # fewer leave biases of second order as large as the spread
MIN_UNBIASED_IMAGES = 4  # of which ‖Σ_k‖² has an unbiased estimate


@dataclass(frozen=True)
class SquaredNorm:
    """‖M − I‖² as plugged in, with ⟨M − I, A_i⟩ (N,) and the part (N,) of each image in the squared noise of M; its
    `bias` by standardising, as far as it is known, and the number of `coordinates` D."""

    plug_in: float
    along: Tensor
    noise: Tensor
    bias: float
    degrees: int
    coordinates: int

    @property
    def value(self) -> float:
        """Less the squared noise of M and the bias."""
        return self.plug_in - self.noise.sum().item() - self.bias

    def interval(self, weights: Tensor) -> Interval | None:
        """Under images resampled in the classes that the noise was taken in, weights (R, N); None for few images."""
        num = len(self.along)
        if num < IMAGES_PER_COORDINATE * self.coordinates:
            return None
        influence = 2 * (self.along - num * self.noise)
        replicates = self.value + (weights - 1) @ influence / num
        return bootstrap_interval(self.value, replicates, degrees=self.degrees)


def loss_norms(features: Tensor, correlation: Tensor, place: Tensor) -> dict[str, SquaredNorm]:
    """For `invariance` Σ (1 − M_ii)² and `redundancy_loss` ‖M − I‖², of M (D, D) over distinct views.

    features (N, m, D): the augmented views, standardised; m ≥ 2. place (N,): the class of each, 0 … K − 1, of which
    none has a single image; zeros for images that were drawn as they come.
    """
    num, _, width = features.shape
    found, bias = features.new_empty(4, num), 0.0
    for label in place.unique().tolist():
        rows = (place == label).nonzero().squeeze(1)
        sums = _Sums.of(features[rows], correlation)
        found[:, rows] = sums.parts(num)
        bias += sums.bias(num, correlation.diagonal())
    squares, diagonal = correlation.square(), correlation.diagonal()
    invariance = (1 - diagonal).square().sum().item()
    redundancy = squares.sum().item() - 2 * diagonal.sum().item() + len(diagonal)
    degrees = num - len(place.unique())
    return {
        "invariance": SquaredNorm(invariance, found[0], found[1], bias, degrees, 1),
        "redundancy_loss": SquaredNorm(redundancy, found[2], found[3], 0.0, degrees, width),
    }


@dataclass(frozen=True)
class _Sums:
    """What the n images of a class come to: the inner products and squares (4, n) of the diagonal and of all, the mean
    of the A_i, and per coordinate (D,) the covariance of A_i's diagonal with q_i and the variance of the view means."""

    products: Tensor
    mean_of_diagonals: Tensor
    mean_of_all: Tensor
    covariance: Tensor
    variance: Tensor

    @classmethod
    def of(cls, features: Tensor, correlation: Tensor) -> _Sums:
        """features (n, m, D), n ≥ 2."""
        squares, diagonal = correlation.square(), correlation.diagonal()
        slope = squares.sum(dim=1) - diagonal  # ⟨M − I, Q M⟩ = q · slope
        num, views, width = features.shape
        products, shifts, lengths = [], [], []
        sum_x = torch.zeros_like(correlation)
        for block in features.split(max(1, BLOCK_NUMBERS // (views * width))):
            mean_square, moved = block.square().mean(dim=1), block @ correlation
            total = block.sum(dim=1)
            shift = (total.square() - views * mean_square) / (views * (views - 1)) - mean_square * diagonal
            along_m, trace = _distinct(block, moved), _distinct(block, block)
            cross = _distinct(block * mean_square.unsqueeze(1), moved)  # ⟨X_i, Q M⟩
            products.append(
                torch.stack(
                    [
                        shift @ (diagonal - 1),
                        shift.square().sum(dim=1),
                        along_m - trace - mean_square @ slope,
                        _own_square(block) - 2 * cross + _square_of_scaling(mean_square, squares),
                    ]
                )
            )
            flat = block.flatten(0, 1)
            sum_x += (total.T @ total - flat.T @ flat) / (views * (views - 1))
            shifts.append(shift)
            lengths.append(mean_square)
        shift, mean_square = torch.cat(shifts), torch.cat(lengths)
        mean = mean_square.mean(dim=0)
        return cls(
            torch.cat(products, dim=1),
            shift.mean(dim=0),
            sum_x / num - 0.5 * (mean.unsqueeze(1) + mean) * correlation,
            (shift * (mean_square - mean)).sum(dim=0) / (num - 1),
            features.mean(dim=1).var(dim=0),
        )

    def parts(self, num_images: int) -> Tensor:
        """The products, with each image's part in the squared noise of M for its square, (4, n), of N images in all.

        Σ‖A_i − Ā‖² over the class is given to its images as their ‖A_i‖² are.
        """
        found, size = self.products.clone(), self.products.shape[1]
        for number, mean in ((1, self.mean_of_diagonals), (3, self.mean_of_all)):
            whole = found[number].sum()
            left = (1 - size * mean.square().sum() / whole).clamp(min=0) if whole > 0 else 0.0
            found[number] *= left * size / ((size - 1) * num_images**2)
        return found

    def bias(self, num_images: int, diagonal: Tensor) -> float:
        """The class's part in the bias of Σ (1 − M_ii)² by standardising."""
        share = self.products.shape[1] / num_images**2
        return 2 * share * ((1 - diagonal) * (self.covariance + (1 - diagonal) * self.variance)).sum().item()


@dataclass(frozen=True)
class WithinNorm:
    """‖Σ_W‖² of the population at this number of views, and how it moves with the weight of an image (N,)."""

    square: float
    influence: Tensor
    degrees: int

    @property
    def value(self) -> float:
        """‖Σ_W‖, 0 where the estimate of its square is negative."""
        return math.sqrt(max(self.square, 0.0))

    def interval(self, weights: Tensor) -> Interval | None:
        """Under images resampled within classes, weights (R, N)."""
        replicates = self.square + (weights - 1) @ self.influence / len(self.influence)
        found = bootstrap_interval(self.square, replicates, degrees=self.degrees, least=0)
        return None if found is None else (math.sqrt(max(found[0], 0.0)), math.sqrt(max(found[1], 0.0)))


def within_norm(deviations: Tensor, mean_squares: Tensor, place: Tensor) -> WithinNorm | None:
    """From deviations (N, D), view means less the centre of their class, mean_squares (N, D) of the standardised
    coordinates over the augmented views of each image, and the class (N,) of each, 0 … K − 1. None where a class has
    fewer than four images."""
    sizes = place.bincount().double()
    if int(sizes.min()) < MIN_UNBIASED_IMAGES:
        return None
    num = len(deviations)
    scaled = deviations * (sizes / (sizes - 1)).sqrt()[place].unsqueeze(1)  # so that Σ_W has the divisors n_k − 1
    covariance = scaled.T @ scaled / num
    squares, moved = covariance.square(), scaled @ covariance
    along = (scaled * moved).sum(dim=1) - mean_squares @ squares.sum(dim=1)
    own, cross = scaled.square().sum(dim=1).square(), (scaled * mean_squares * moved).sum(dim=1)
    square = own - 2 * cross + _square_of_scaling(mean_squares, squares)
    excess = 0.0  # of Σ p_k² ‖S_k‖² over its unbiased form
    for label, size in enumerate(sizes.tolist()):
        rows = deviations[place == label]
        excess += (size / num) ** 2 * _excess(rows)
    influence = 2 * (along - square / (num - len(sizes)))
    return WithinNorm(squares.sum().item() - excess, influence, num - len(sizes))


def _excess(deviations: Tensor) -> float:
    """By how much ‖S‖² exceeds its unbiased form, for deviations (n, D) from the mean, n ≥ 4."""
    n = len(deviations)
    gram = deviations @ deviations.T if n < deviations.shape[1] else deviations.T @ deviations
    norm = (gram / (n - 1)).square().sum().item()
    lengths = deviations.square().sum(dim=1)
    trace, fourth = lengths.sum().item() / (n - 1), lengths.square().sum().item() / (n - 1)
    unbiased = (n - 1) / (n * (n - 2) * (n - 3)) * ((n - 1) * (n - 2) * norm + trace**2 - n * fourth)
    return norm - unbiased


def _distinct(first: Tensor, second: Tensor) -> Tensor:
    """Mean (N,) of inner products of different views a ≠ b, of first (N, m, D) and second (N, m, D)."""
    views = first.shape[1]
    everything = (first.sum(dim=1) * second.sum(dim=1)).sum(dim=1)
    return (everything - (first * second).sum(dim=(1, 2))) / (views * (views - 1))


def _own_square(views: Tensor) -> Tensor:
    """‖X_i‖² (N,), X_i the mean of f_a f_bᵀ over a ≠ b: a mean over two such pairs of views (N, m, D)."""
    gram = views @ views.mT
    pairs = views.shape[1] * (views.shape[1] - 1)
    rows = gram.sum(dim=2)
    total = rows.sum(dim=1).square() - 2 * rows.square().sum(dim=1) + gram.square().sum(dim=(1, 2))
    return total / pairs**2


def _square_of_scaling(mean_squares: Tensor, squares: Tensor) -> Tensor:
    """‖½ (Q_i M + M Q_i)‖² (N,), from q (N, D) and M's squared entries (D, D)."""
    return 0.5 * (mean_squares.square() @ squares.sum(dim=1) + ((mean_squares @ squares) * mean_squares).sum(dim=1))
