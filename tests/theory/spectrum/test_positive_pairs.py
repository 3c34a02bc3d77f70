"""The positive-pair spectrum: closed forms, brute force, and what finitely many images do to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from cssl_cli.theory.estimate import Absent, Estimate, Quantity
from cssl_cli.theory.spectrum.contexture import contexture
from cssl_cli.theory.spectrum.eigenfunctions import eigenfunctions, eigenvalues, measured_along
from cssl_cli.theory.spectrum.information import information
from cssl_cli.theory.spectrum.jackknife import pseudo_values, quantile, standard_error, student_interval
from cssl_cli.theory.spectrum.positive_pairs import RIDGE, positive_pairs
from cssl_cli.theory.spectrum.view_covariances import ViewCovariances, total, view_covariances, view_moments
from cssl_cli.theory.table import FeatureTable

TINY = 1e-10  # a ridge that changes nothing


@dataclass(frozen=True)
class Population:
    """Normal features: class means (K, D), and the deviations (D,) of an image about its class and a view about its
    image."""

    centers: np.ndarray
    of_image: np.ndarray
    of_view: np.ndarray

    def draw(self, seed: int, num_images: int, num_views: int = 3) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        num_classes, width = self.centers.shape
        labels = np.arange(num_images) % num_classes
        images = self.centers[labels] + random.normal(size=(num_images, width)) * self.of_image
        return images[:, None] + random.normal(size=(num_images, num_views, width)) * self.of_view, labels

    def table(self, seed: int, num_images: int, num_views: int = 3) -> FeatureTable:
        """With a clean view that is far from all others."""
        views, labels = self.draw(seed, num_images, num_views)
        features = np.concatenate([1e3 + views[:, :1], views], axis=1)
        names = [str(label) for label in range(len(self.centers))]
        return FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)

    @property
    def covariances(self) -> ViewCovariances:
        centred = self.centers - self.centers.mean(axis=0)
        of_classes = torch.as_tensor(centred.T @ centred / len(centred))
        of_pair = of_classes + torch.as_tensor(np.diag(self.of_image**2))
        return ViewCovariances(of_pair + torch.as_tensor(np.diag(self.of_view**2)), of_pair, of_classes, 0, 0)


def of_correlations(*correlations: float) -> Population:
    """Of variance 1 in every direction, with a single class."""
    found = np.array(correlations)
    return Population(np.zeros((1, len(found))), np.sqrt(found), np.sqrt(1 - found))


# Two classes apart along the first of ten directions.
APART = Population(
    np.array([[1.0] + [0.0] * 9, [-1.0] + [0.0] * 9]),
    np.sqrt(np.linspace(0.9, 0.1, 10)),
    np.sqrt(np.linspace(0.1, 0.9, 10)),
)


def covariances(views: np.ndarray, labels: np.ndarray | None = None) -> ViewCovariances:
    of = None if labels is None else torch.as_tensor(labels)
    return view_covariances(
        total(view_moments(torch.as_tensor(views), of, num_classes=1 if of is None else int(of.max()) + 1))
    )


def value(quantity: Quantity) -> float:
    assert isinstance(quantity, Estimate), quantity
    assert isinstance(quantity.value, float)
    return quantity.value


def curve(quantity: Quantity) -> np.ndarray:
    assert isinstance(quantity, Estimate), quantity
    return np.array(quantity.value)


# ---------------------------------------------------------------------- closed forms
def test_the_spectrum_of_known_correlations_is_found() -> None:
    """λ / (1 + ρ), ρ the ridge, which is the share of a variance of 1."""
    found = positive_pairs(of_correlations(0.9, 0.5, 0.0).table(0, 20_000))
    exact = np.array([0.9, 0.5, 0.0]) / (1 + RIDGE)
    for name in ("eigenvalues", "in_sample"):
        np.testing.assert_allclose(curve(found[name]), exact, atol=0.01)
    assert value(found["shared"]) == pytest.approx(-0.5 * np.log(1 - exact**2).sum(), abs=0.02)
    assert value(found["of_image"]) == pytest.approx(-0.5 * np.log(1 - exact).sum(), abs=0.02)


def test_identical_views_have_only_eigenvalues_of_one() -> None:
    views, _ = of_correlations(1.0, 1.0, 1.0).draw(1, 40)
    torch.testing.assert_close(eigenvalues(covariances(views), ridge=TINY), torch.ones(3, dtype=torch.float64))
    found = positive_pairs(of_correlations(1.0, 1.0, 1.0).table(1, 4000))
    np.testing.assert_allclose(curve(found["eigenvalues"]), 1 / (1 + RIDGE), atol=0.005)


def test_independent_views_have_only_eigenvalues_of_zero() -> None:
    found = positive_pairs(of_correlations(0.0, 0.0, 0.0).table(2, 20_000))
    np.testing.assert_allclose(curve(found["eigenvalues"]), 0, atol=0.01)
    assert value(found["shared"]) == pytest.approx(0, abs=0.001)


def test_class_means_are_found_along_their_direction() -> None:
    """Of the variance 2 (1 + ρ′) of the first direction, 1 is between the classes and 1.9 common to the views."""
    found = positive_pairs(APART.table(3, 20_000))
    rho = RIDGE * 11 / 10
    share = 1 / (2 + rho)
    assert value(found["about_class"]) == pytest.approx(share / 2, abs=0.005)
    assert value(found["leading_label_energy"]) == pytest.approx(share, abs=0.01)
    assert curve(found["eigenvalues"])[0] == pytest.approx(1.9 / (2 + rho), abs=0.01)
    assert value(found["share"]) == pytest.approx(share / 2 / value(found["shared"]), rel=0.01)


def test_the_label_energy_is_what_a_regression_of_the_labels_explains() -> None:
    """Of one-hot labels, each in units of its own variance over 1 − p_k; the mean over K − 1."""
    random = np.random.default_rng(4)
    population = Population(random.normal(size=(3, 4)), np.ones(4), 0.5 * np.ones(4))
    views, labels = population.draw(5, 30_000, 2)
    kept = (labels != 2) | (np.arange(len(labels)) % 2 == 0)  # classes of shares 2 : 2 : 1
    views, labels = views[kept], labels[kept]
    features = np.concatenate([views[:, :1], views], axis=1)
    table = FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), ["a", "b", "c"])
    inputs = views.reshape(-1, 4) - views.mean(axis=(0, 1))
    shares = np.bincount(labels) / len(labels)
    targets = (np.eye(3)[np.repeat(labels, 2)] - shares) / np.sqrt(shares)
    ridged = inputs.T @ inputs / len(inputs) + RIDGE * inputs.var(axis=0).mean() * np.eye(4)
    slopes = inputs.T @ targets / len(inputs)
    explained = (slopes * np.linalg.solve(ridged, slopes)).sum() / 2
    assert 0.3 < explained < 0.9
    assert curve(positive_pairs(table)["label_energy"])[-1] == pytest.approx(explained, abs=0.005)


# ---------------------------------------------------------------------- brute force
def test_in_sample_the_eigenvalues_are_canonical_correlations() -> None:
    """Of the two views of an image, each pair taken both ways round."""
    views, _ = of_correlations(0.8, 0.5, 0.2, 0.1).draw(6, 50, 2)
    views = views @ np.random.default_rng(7).normal(size=(4, 4))
    centred = views - views.mean(axis=(0, 1))
    one, other = np.concatenate([centred, centred[:, ::-1]]).transpose(1, 0, 2)
    whiten = np.linalg.inv(np.linalg.cholesky(one.T @ one / len(one)))
    exact = np.linalg.eigvalsh(whiten @ (one.T @ other / len(one)) @ whiten.T)[::-1]
    np.testing.assert_allclose(eigenvalues(covariances(views), ridge=TINY), exact, atol=1e-7)
    assert information(covariances(views), ridge=TINY).shared.item() == pytest.approx(-0.5 * np.log(1 - exact**2).sum())


def test_without_a_ridge_any_invertible_map_leaves_it() -> None:
    views, labels = APART.draw(8, 60)
    mapped = views @ np.random.default_rng(9).normal(size=(10, 10)) + 7
    before, after = (information(covariances(one, labels), ridge=TINY) for one in (views, mapped))
    for name in ("shared", "of_image", "about_class", "directions"):
        assert getattr(after, name).item() == pytest.approx(getattr(before, name).item(), rel=1e-5), name
    assert before.directions.item() == pytest.approx(10)


def test_along_its_own_eigenfunctions_a_table_has_its_eigenvalues() -> None:
    found = covariances(*APART.draw(10, 80))
    assert found.of_classes is not None
    functions = eigenfunctions(found, ridge=0.2)
    along = measured_along(functions, found, ridge=0.2)
    torch.testing.assert_close(along.of_pairs, eigenvalues(found, ridge=0.2))
    assert along.of_classes is not None
    regular = found.of_view + 0.2 * found.of_view.trace() / 10 * torch.eye(10, dtype=torch.float64)
    assert along.of_classes.sum().item() == pytest.approx(torch.linalg.solve(regular, found.of_classes).trace().item())


def test_what_two_functions_share_counts_once() -> None:
    """The second direction is hardly another than the first: what it adds is that of the rest, λ = ½, no class."""
    population = replace(APART, of_image=np.sqrt([0.5] * 10), of_view=np.sqrt([0.5] * 10)).covariances
    directions = torch.zeros(10, 2, dtype=torch.float64)
    directions[0] = 1.0
    directions[1, 1] = 0.01
    along = measured_along(directions, population, ridge=TINY)
    assert along.of_classes is not None
    np.testing.assert_allclose(along.of_classes, [0.5, 0], atol=1e-6)
    np.testing.assert_allclose(along.of_pairs, [0.75, 0.5], atol=1e-6)


# ---------------------------------------------------------------------- finitely many images
NOISY = Population(np.zeros((4, 24)), np.sqrt(np.linspace(0.8, 0.0, 24)), np.sqrt(np.linspace(0.2, 1.0, 24)))


def test_few_images_bias_the_spectrum_either_way_and_the_jackknife_takes_it_from_sums() -> None:
    """30 tables of 96 images and 24 directions, whose classes are names only."""
    exact = information(NOISY.covariances, ridge=RIDGE)
    first = eigenvalues(NOISY.covariances, ridge=RIDGE)[0].item()
    found, plain = [], []
    for seed in range(30):
        table = NOISY.table(seed, 96)
        found.append(positive_pairs(table))
        plain.append(information(covariances(table.features[:, 1:].numpy()), ridge=RIDGE).shared.item())
    cross_fitted, in_sample = (np.mean([curve(one[name])[0] for one in found]) for name in ("eigenvalues", "in_sample"))
    assert cross_fitted < first - 0.05 < first + 0.05 < in_sample
    shared = np.array([value(one["shared"]) for one in found])
    assert abs(shared.mean() - exact.shared.item()) < 0.15 * (np.mean(plain) - exact.shared.item())
    for name, truth in (("shared", exact.shared), ("of_image", exact.of_image), ("about_class", 0.0), ("share", 0.0)):
        intervals = [one[name].interval for one in found]  # type: ignore[union-attr]
        held = [low <= truth <= high for low, high in intervals]  # type: ignore[misc]
        assert np.mean(held) >= 0.86, name
    energies = np.array([value(one["leading_label_energy"]) for one in found])
    assert abs(energies.mean()) < 3 * energies.std() / math.sqrt(30)


def test_a_table_of_too_few_images_for_its_directions_has_curves_only() -> None:
    found = positive_pairs(NOISY.table(0, 40))
    for name in ("shared", "of_image", "about_class", "share"):
        quantity = found[name]
        assert isinstance(quantity, Absent)
        assert quantity.reason.startswith("features that vary in 2")
        assert quantity.reason.endswith(" images or more")
    assert len(curve(found["eigenvalues"])) == len(curve(found["functions"]))
    assert isinstance(found["leading_label_energy"], Estimate)


def test_a_small_class_leaves_what_needs_no_classes() -> None:
    table = NOISY.table(0, 96)
    assert table.labels is not None
    few = table.labels.clone()
    few[few == 3] = 2
    few[:3] = 3
    found = positive_pairs(replace(table, labels=few))
    assert (
        found["share"]
        == found["label_energy"]
        == Absent("the noise of class means needs 4 images of every class, and there are 3 of 3")
    )
    assert isinstance(found["shared"], Estimate)


def test_a_share_of_nothing_is_absent() -> None:
    found = positive_pairs(of_correlations(0.0, 0.0).table(3, 200))
    assert found["share"] == Absent("the images are all of one class")
    nothing = replace(APART, centers=0 * APART.centers, of_image=np.zeros(10), of_view=np.ones(10)).table(4, 200)
    assert positive_pairs(nothing)["share"] == Absent("what two views of an image share is not above its own noise")


def test_a_curve_has_the_same_points_at_every_width() -> None:
    narrow, wide = (
        positive_pairs(Population(np.zeros((1, width)), np.ones(width), np.ones(width)).table(0, 8))["functions"]
        for width in (40, 130)
    )
    assert isinstance(narrow, Estimate)
    assert isinstance(wide, Estimate)
    assert narrow.value[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9]  # type: ignore[index]
    assert narrow.value[-2:] == [38, 40]  # type: ignore[index]
    assert wide.value[-3:] == [117, 128, 130]  # type: ignore[index]
    assert set(narrow.value) - {40} <= set(wide.value)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the jackknife, and τ
def test_the_jackknife_of_a_plain_variance_is_the_unbiased_one() -> None:
    numbers = np.array([1.0, 4.0, 2.0, 7.0, 5.0, 5.0])
    views = np.repeat(numbers[:, None, None], 2, axis=1)
    parts = view_moments(torch.as_tensor(views), None, num_classes=1, groups=6)
    (pseudo,) = pseudo_values(lambda moments: [view_covariances(moments).of_view.item()], parts)
    assert numbers.var() < pseudo.mean().item() == pytest.approx(numbers.var(ddof=1))
    (pseudo,) = pseudo_values(lambda moments: [moments.first.sum().item() / moments.images.sum().item()], parts)
    assert pseudo.mean().item() == pytest.approx(4.0)
    assert standard_error(pseudo) == pytest.approx(numbers.std(ddof=1) / math.sqrt(6))


def test_an_interval_is_student_s() -> None:
    assert quantile(9) == pytest.approx(2.2622, abs=1e-4)
    assert student_interval(1.0, 0.5, degrees=9) == pytest.approx((-0.1311, 2.1311), abs=1e-4)
    assert student_interval(1.0, 0.5, degrees=9, least=0)[0] == 0
    assert student_interval(-0.1, 0.5, degrees=9, least=0)[0] == -0.1


def test_tau_weighs_the_next_eigenvalue_against_the_sum() -> None:
    """By hand: 1/(1 − 0.5) + 0.9/1.4 = 2.643 for one function, 1/(1 − 0.1) + 1 = 2.111 for two."""
    found = contexture(torch.tensor([0.9, 0.5, 0.1]))
    assert found is not None
    assert found.tau == pytest.approx(1 / 0.9 + 1)
    assert found.dimension == 2
    steep = contexture(torch.tensor([0.9, 0.2, 0.2, 0.2]))
    assert steep is not None
    assert steep == (pytest.approx(1 / 0.8 + 0.9 / 1.3), 1)
    assert contexture(torch.tensor([0.9])) is None
    assert contexture(torch.tensor([-0.1, -0.2])) is None
    long = torch.full((600,), 0.9)
    long[512:] = 0.0  # beyond the functions considered
    found = contexture(long)
    assert found is not None
    assert found == (pytest.approx(2.0, rel=1e-5), 512)


def test_variance_that_is_all_in_a_few_images_is_too_little() -> None:
    """Left out by the jackknife, they leave views that are all equal."""
    features = torch.ones(12, 3, 1)
    features[0] = -1
    found = positive_pairs(FeatureTable.build(features, torch.arange(12) % 2, ["a", "b"]))
    reason = "without a few of the images, all augmented views of half of them have the same features"
    assert set(found.values()) == {Absent(reason)}
