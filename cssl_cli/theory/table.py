"""The table every term reads: features of N images in V stored views, in float64, with class labels where known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cssl_cli.errors import InputError
from cssl_cli.features.geometry import require_finite
from cssl_cli.features.intervals import MIN_BOOTSTRAP_IMAGES
from cssl_cli.theory.estimate import Sample


@dataclass(frozen=True)
class FeatureTable:
    """Features (N, V, D), float64; `labels` (N,) in 0 … K − 1 or None; K `class_names`.

    View 0 is the clean image: it has weight 0 in every mean over views, since it is not a draw from the augmentation,
    and enters every supremum over views. The m = V − 1 others are independent draws and have weight 1/m each.
    (docs/theory.md, 2.)
    """

    features: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]

    @classmethod
    def build(cls, features: Tensor, labels: Tensor | None, class_names: Sequence[str]) -> FeatureTable:
        """Checks the shapes and numbers and casts to float64.

        Raises RunError for NaN or infinite features, InputError for an empty table and for labels that do not fit.
        """
        if features.ndim != 3 or 0 in features.shape:
            raise InputError(f"features of shape (images, views, width) are needed, not {tuple(features.shape)}")
        require_finite(features, "the features of the views")
        if labels is not None:
            if labels.shape != features.shape[:1]:
                raise InputError(f"{len(features)} images have labels of shape {tuple(labels.shape)}")
            if int(labels.min()) < 0 or int(labels.max()) >= len(class_names):
                span = f"{int(labels.min())} to {int(labels.max())}"
                raise InputError(f"labels run from {span} but there are {len(class_names)} classes")
            labels = labels.to(features.device)
        return cls(features.double(), labels, tuple(class_names))

    @property
    def num_images(self) -> int:
        """N."""
        return self.features.shape[0]

    @property
    def num_views(self) -> int:
        """V, the stored views of an image, the clean one included."""
        return self.features.shape[1]

    @property
    def num_augmented(self) -> int:
        """m = V − 1, the views drawn from the augmentation."""
        return self.num_views - 1

    @property
    def stored_sample(self) -> Sample:
        """The sample of a number over all stored views."""
        return Sample(self.num_images, self.num_views)

    @property
    def augmented_sample(self) -> Sample:
        """The sample of a number over the augmented views."""
        return Sample(self.num_images, self.num_augmented)

    @cached_property
    def view_means(self) -> Tensor:
        """Mean feature (N, D) of each image's augmented views; needs m ≥ 1."""
        return self.features[:, 1:].mean(dim=1)

    @cached_property
    def view_variances(self) -> Tensor:
        """Unbiased trace (N,) of the covariance of each image's views, divisor m − 1; zero when m = 1."""
        deviations = self.features[:, 1:] - self.view_means.unsqueeze(1)
        return deviations.square().sum(dim=(1, 2)) / max(self.num_augmented - 1, 1)

    @cached_property
    def class_sizes(self) -> Tensor:
        """Images (K,) of each class; needs labels."""
        assert self.labels is not None
        return self.labels.bincount(minlength=len(self.class_names))

    @cached_property
    def members(self) -> tuple[Tensor, ...]:
        """Indices (n_k,), ascending, of the images of each of the K classes; needs labels."""
        assert self.labels is not None
        return self.labels.argsort(stable=True).split(self.class_sizes.tolist())

    @property
    def priors(self) -> Tensor:
        """Share (K,) of each class among the images."""
        return self.class_sizes.double() / self.num_images

    @property
    def all_resampled(self) -> bool:
        """Whether every class that occurs has enough images to be resampled."""
        return bool(((self.class_sizes >= MIN_BOOTSTRAP_IMAGES) | (self.class_sizes == 0)).all())

    @property
    def degrees_of_freedom(self) -> int:
        """Images minus the classes that occur, the degrees of freedom of a spread within classes."""
        return self.num_images - int((self.class_sizes > 0).sum())

    @property
    def strata(self) -> Tensor:
        """The strata (N,) in which images are resampled: their classes, whose sizes are fixed; a single one without
        labels, or if a class is too small."""
        if self.labels is None or not self.all_resampled:
            return torch.zeros(self.num_images, dtype=torch.int64, device=self.features.device)
        return self.labels

    def classes_below(self, needed: int) -> dict[str, str]:
        """Class name → why it has no estimate, for the classes with fewer than `needed` images."""
        sizes = zip(self.class_names, self.class_sizes.tolist(), strict=True)
        return {name: f"has {size} of the {needed} images needed" for name, size in sizes if size < needed}


@dataclass(frozen=True)
class ClassMoments:
    """First and second moments of every class under R weightings of its images; NaN where a class has too few.

    centers:         (R, K, D) weighted means of the images' view means.
    variances:       (R, K) unbiased E‖f̄_x − μ_k‖² for view means f̄_x over the m stored views (two images needed).
    center_errors:   (R, K) unbiased E‖centre − μ_k‖², by which the squared norm of a centre is too large.
    view_variances:  (R, K) weighted means of the trace of the views' covariance.
    """

    centers: Tensor
    variances: Tensor
    center_errors: Tensor
    view_variances: Tensor


def class_moments(table: FeatureTable, weights: Tensor) -> ClassMoments:
    """Moments under the image weights (R, N); one row of ones gives the plain estimates. Needs labels and m ≥ 1.

    With S₁ = Σw and S₂ = Σw² over a class, Σw‖f̄ − centre‖² · S₁ / (S₁² − S₂) is the mean of ½‖f̄_i − f̄_j‖² over pairs
    of distinct images weighted by w_i w_j, and S₂/S₁² times it the squared error of the centre. (docs/theory.md, 6.)
    """
    assert table.labels is not None
    centers, variances, center_errors, view_variances = [], [], [], []
    for members in table.members:
        rows = weights[:, members]
        means = table.view_means[members]
        # Sums about the class's own mean: about the origin, a large common offset would drown small spreads.
        origin = means.mean(dim=0)
        centred = means - origin
        total = rows.sum(dim=1)
        squares = rows.square().sum(dim=1)
        shift = rows @ centred / total.unsqueeze(1)
        scatter = rows @ centred.square().sum(dim=1) / total - shift.square().sum(dim=1)
        variance = scatter.clamp(min=0) * total.square() / (total.square() - squares)
        centers.append(origin + shift)
        variances.append(variance)
        center_errors.append(variance * squares / total.square())
        view_variances.append(rows @ table.view_variances[members] / total)
    return ClassMoments(
        centers=torch.stack(centers, dim=1),
        variances=torch.stack(variances, dim=1),
        center_errors=torch.stack(center_errors, dim=1),
        view_variances=torch.stack(view_variances, dim=1),
    )
