"""The positive-pair spectrum: what views share, and how much of it is about the class. (docs/theory.md, 16.)

Numbers over all directions are functions of the table's covariances, less their bias for finitely many images by the
jackknife over groups of images. The spectrum is cross-fitted: directions from half of the groups, measured on the other
half, averaged over both. The images of each class are dealt to the groups in turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cssl_cli.theory.estimate import Absent, Direction, Estimate, Interval, Quantity
from cssl_cli.theory.spectrum.contexture import contexture
from cssl_cli.theory.spectrum.eigenfunctions import eigenfunctions, eigenvalues, measured_along
from cssl_cli.theory.spectrum.information import information
from cssl_cli.theory.spectrum.jackknife import pseudo_values, quantile, standard_error, student_interval
from cssl_cli.theory.spectrum.view_covariances import ViewMoments, total, view_covariances, view_moments
from cssl_cli.theory.table import FeatureTable

RIDGE = 0.05  # ρ over the mean eigenvalue of Σ
GROUPS = 10  # of images, for the jackknife; even, since two halves are made of them
MIN_IMAGES = 4  # in all, and of each class: two in either half
IMAGES_A_DIRECTION = 2  # with fewer, what the jackknife leaves of the bias matters
PER_DOUBLING = 8  # points of a curve over the number of functions
EQUAL = 1e-24  # views whose variance is below this share of their mean square are equal
ROUNDING = 1e-12  # a variance below this share of a mean square is what rounding left of it
OVER_ALL = ("shared", "of_image", "about_class", "share")
CURVES = ("functions", "eigenvalues", "in_sample", "label_energy", "leading_label_energy", "tau", "tau_dimension")
OF_LABELS = ("about_class", "share", "label_energy", "leading_label_energy")
RIDGED = f"ridge {RIDGE:g} of the mean variance, augmented views, features unscaled"
JACKKNIFE = f"{RIDGED}, less its bias by the jackknife over groups of images"
CROSS_FITTED = (
    f"{RIDGED}; directions from one half of the images, measured on the other half, each made uncorrelated with those "
    "before it; averaged over both"
)


def positive_pairs(table: FeatureTable) -> dict[str, Quantity]:
    """Over all directions, in nats: `shared` I(v; v′), `of_image` I(v; x), `about_class` ½ tr R⁻¹B; and `share`, the
    last over the first. Over the numbers of `functions`: the `eigenvalues`, 0 to 1, those `in_sample`, and the
    `label_energy`, the share of the labels' variance that so many leading functions explain; `leading_label_energy` of
    as many functions as classes less one. `tau` and the number of functions `tau_dimension` at which it is attained.
    """
    reason = _why_absent(table)
    if reason is not None:
        return dict.fromkeys((*OVER_ALL, *CURVES), Absent(reason))
    spectrum = _Spectrum(table)
    if spectrum.varies_in_few:
        reason = "without a few of the images, all augmented views of half of them have the same features"
        return dict.fromkeys((*OVER_ALL, *CURVES), Absent(reason))
    return {**spectrum.over_all(), **spectrum.curves()}


def _why_absent(table: FeatureTable) -> str | None:
    if table.num_augmented < 2:
        return "what views share needs at least two augmented views of an image"
    if table.num_images < MIN_IMAGES:
        return f"two halves of the images need {MIN_IMAGES} images"
    views = table.features[:, 1:]
    if views.var(dim=(0, 1)).sum() <= EQUAL * views.square().sum(dim=2).mean():
        return "all augmented views have the same features"
    return None


def _why_without_classes(table: FeatureTable) -> str | None:
    if table.labels is None:
        return "the images have no labels"
    sizes = table.class_sizes
    if int((sizes > 0).sum()) < 2:
        return "the images are all of one class"
    few = ((sizes > 0) & (sizes < MIN_IMAGES)).nonzero().flatten().tolist()
    if few:
        return (
            f"the noise of class means needs {MIN_IMAGES} images of every class, and there are {int(sizes[few[0]])} of "
            f"{table.class_names[few[0]]}"
        )
    return None


class _Spectrum:
    """All that is measured of a table with two augmented views, four images and a variance."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self.without_classes = _why_without_classes(table)
        # Sums about the common mean: about the origin, a large offset would drown small variances.
        centred = table.features[:, 1:] - table.view_means.mean(dim=0)
        self.parts = view_moments(
            centred,
            table.labels if self.without_classes is None else None,
            num_classes=len(table.class_names),
            groups=min(GROUPS, table.num_images // 2 * 2),
        )

    @property
    def varies_in_few(self) -> bool:
        """Whether a half of the images, or what the jackknife leaves of one, has no variance."""
        for half in (self.parts[::2], self.parts[1::2]):
            whole = total(half)
            for rest in (whole, *map(whole.without, half)):
                mean_square = rest.of_views.trace() / rest.images.sum()
                if view_covariances(rest).of_view.trace() <= ROUNDING * mean_square:
                    return True
        return False

    # ---------------------------------------------------------------------- over all directions
    def over_all(self) -> dict[str, Quantity]:
        shared, of_image, about_class, directions = pseudo_values(_information, self.parts)
        needed = math.ceil(IMAGES_A_DIRECTION * directions.mean().item())
        if self.table.num_images < needed:
            reason = f"features that vary in {directions.mean():.0f} directions need {needed:,} images or more"
            return {**dict.fromkeys(OVER_ALL, Absent(reason)), **self._of_labels("about_class", "share")}
        return {
            "shared": self._mean(shared, f"I(v; v′) of normal features, {JACKKNIFE}", least=0),
            "of_image": self._mean(of_image, f"I(v; x) of normal features, {JACKKNIFE}", least=0),
            "about_class": self._mean(about_class, f"½ tr R⁻¹B, of the class means less their noise, {JACKKNIFE}"),
            "share": self._share(about_class, shared),
            **self._of_labels("about_class", "share"),
        }

    def _mean(self, pseudo: Tensor, estimator: str, *, least: float = -math.inf) -> Quantity:
        value, degrees = pseudo.mean().item(), len(pseudo) - 1
        interval = student_interval(value, standard_error(pseudo), degrees=degrees, least=least)
        return self._estimate(value, estimator, "consistent", interval)

    def _share(self, about_class: Tensor, shared: Tensor) -> Quantity:
        degrees = len(shared) - 1
        if shared.mean() <= quantile(degrees) * standard_error(shared):
            return Absent("what two views of an image share is not above its own noise")
        share = (about_class.mean() / shared.mean()).item()
        remainder = (about_class - share * shared) / shared.mean()  # to first order, the ratio moves with it
        interval = student_interval(share, standard_error(remainder), degrees=degrees)
        estimator = "½ tr R⁻¹B of the class means over I(v; v′), both less their bias"
        return self._estimate(share, estimator, "consistent", interval)

    # ---------------------------------------------------------------------- over the number of functions
    def curves(self) -> dict[str, Quantity]:
        halves = self.parts[::2], self.parts[1::2]
        both = [
            (eigenfunctions(view_covariances(total(one)), ridge=RIDGE), other)
            for one, other in (halves, reversed(halves))
        ]
        found = [measured_along(functions, view_covariances(total(other)), ridge=RIDGE) for functions, other in both]
        of_pairs = torch.stack([one.of_pairs for one in found]).mean(dim=0)
        in_sample = eigenvalues(view_covariances(total(self.parts)), ridge=RIDGE)
        points = _points(len(of_pairs))
        at = points - 1
        ends = "the first ones too {}, the last ones too {}"
        curves = {
            "functions": self._estimate(points.tolist(), "numbers of leading functions", "exact for the table"),
            "eigenvalues": self._estimate(
                of_pairs[at].tolist(), f"λ, {CROSS_FITTED}; {ends.format('low', 'high')}", "consistent"
            ),
            "in_sample": self._estimate(
                in_sample[at].tolist(), f"λ, {RIDGED}; {ends.format('high', 'low')}", "consistent"
            ),
            **self._contexture(of_pairs),
        }
        if self.without_classes is not None:
            return {**curves, **self._of_labels("label_energy", "leading_label_energy")}
        of_classes = torch.stack([one.of_classes for one in found if one.of_classes is not None])
        energy = of_classes.mean(dim=0).cumsum(dim=0) / self._num_contrasts
        leading = min(self._num_contrasts, len(energy))
        value = energy[leading - 1].item()
        explained = f"share of the labels' variance that {{}} explain, {CROSS_FITTED}"
        return {
            **curves,
            "label_energy": self._estimate(energy[at].tolist(), explained.format("the leading functions"), "low"),
            "leading_label_energy": self._estimate(
                value,
                f"{explained.format('as many leading functions as classes less one')}; interval for the directions "
                "found",
                "low",
                self._interval_along([(functions[:, :leading], other) for functions, other in both], value),
            ),
        }

    def _interval_along(self, both: Sequence[tuple[Tensor, Sequence[ViewMoments]]], value: float) -> Interval:
        """Of the label energy: either half's part of it moves with the groups that measure it."""

        def error(functions: Tensor, groups: Sequence[ViewMoments]) -> float:
            def energy(moments: ViewMoments) -> list[float]:
                of_classes = measured_along(functions, view_covariances(moments), ridge=RIDGE).of_classes
                assert of_classes is not None
                return [of_classes.sum().item() / self._num_contrasts]

            return standard_error(pseudo_values(energy, groups)[0])

        return student_interval(value, math.hypot(*(error(*one) for one in both)) / 2, degrees=len(self.parts) - 2)

    def _contexture(self, of_pairs: Tensor) -> dict[str, Quantity]:
        found = contexture(of_pairs)
        if found is None:
            reason = "τ compares numbers of functions, and there is one, or no eigenvalue above 0"
            return dict.fromkeys(("tau", "tau_dimension"), Absent(reason))
        proxy = "of the proxy of the error of the leading functions, β = 1, cross-fitted λ"
        return {
            "tau": self._estimate(found.tau, f"the least {proxy}", "consistent"),
            "tau_dimension": self._estimate(
                found.dimension, f"the number of functions at the least {proxy}", "consistent"
            ),
        }

    @property
    def _num_contrasts(self) -> int:
        """The classes that occur, less one: the variance of the labels, each in units of its share."""
        return int((self.table.class_sizes > 0).sum()) - 1

    def _of_labels(self, *names: str) -> dict[str, Quantity]:
        """Why these are absent, where there are no classes to speak of."""
        return {} if self.without_classes is None else dict.fromkeys(names, Absent(self.without_classes))

    def _estimate(
        self, value: float | list[float], estimator: str, errs: Direction, interval: Interval | None = None
    ) -> Quantity:
        return Estimate(value, estimator, errs, self.table.augmented_sample, interval=interval)


def _information(moments: ViewMoments) -> tuple[float, float, float, float]:
    found = information(view_covariances(moments), ridge=RIDGE)
    about_class = math.nan if found.about_class is None else found.about_class.item()
    return found.shared.item(), found.of_image.item(), about_class, found.directions.item()


def _points(most: int) -> Tensor:
    """Numbers of functions, some at each doubling, with `most` at the end; the same ones for every width up to it."""
    spaced = 2 ** (torch.arange(PER_DOUBLING * most.bit_length(), dtype=torch.float64) / PER_DOUBLING)
    return torch.cat([spaced.round().long().clamp(max=most), torch.tensor([most])]).unique()
