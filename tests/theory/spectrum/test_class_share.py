"""The share of the information that views share: closed forms, canonical correlations by brute force, leaving out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cssl_cli.theory.spectrum.class_share import ClassShare, class_share
from cssl_cli.theory.spectrum.view_covariances import (
    ViewCovariances,
    ViewMoments,
    total,
    view_covariances,
    view_moments,
)

TINY = 1e-9  # a ridge that changes nothing


def table(
    seed: int, *, num_images: int, width: int, correlation: float = 0.5, center: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Views (N, 2, D) of variance 1 within a class, λ of all directions the correlation; two classes at ± `center` in
    the first coordinate."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    images = math.sqrt(correlation) * random.normal(size=(num_images, 1, width))
    views = images + math.sqrt(1 - correlation) * random.normal(size=(num_images, 2, width))
    views[..., 0] += center * (2 * labels[:, None] - 1)
    return views, labels


def moments(views: np.ndarray, labels: np.ndarray | None, groups: int = 1) -> list[ViewMoments]:
    of = None if labels is None else torch.as_tensor(labels)
    return view_moments(torch.as_tensor(views), of, num_classes=2, groups=groups)


def covariances_without(parts: list[ViewMoments], part: ViewMoments) -> ViewCovariances:
    return view_covariances(total(parts).without(part))


def share_of(views: np.ndarray, labels: np.ndarray | None, *, ridge: float = TINY, groups: int = 1) -> ClassShare:
    return class_share(moments(views, labels, groups), ridge=ridge)


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_of_a_gaussian_pair_of_known_correlation(correlation: float) -> None:
    views, labels = table(0, num_images=40_000, width=2, correlation=correlation)
    exact = 2 * -0.5 * math.log(1 - correlation**2)
    assert share_of(views, labels).shared == pytest.approx(exact, abs=0.01)


def test_of_a_mean_that_depends_on_the_class() -> None:
    """Between the classes 1 of a variance of 2 along one direction: λ = (1 + ½) / 2 there, b = ½."""
    found = share_of(*table(1, num_images=40_000, width=2, center=1.0))
    shared = -0.5 * (math.log(1 - 0.75**2) + math.log(1 - 0.5**2))
    assert found.shared == pytest.approx(shared, abs=0.01)
    assert found.about_class == pytest.approx(0.25, abs=0.005)
    assert found.share == pytest.approx(0.25 / shared, abs=0.01)


def test_what_identical_views_share_is_bounded_by_the_ridge_alone() -> None:
    """λ = 1 of all D directions; with the ridge, of variance 1 in every direction, λ = 1 / (1 + ρ)."""
    random = np.random.default_rng(2)
    images = np.linalg.qr(random.normal(size=(50, 3)) - 0)[0]
    images -= images.mean(axis=0)
    images = images @ np.linalg.inv(np.linalg.cholesky(images.T @ images / 50)).T  # of covariance I
    found = share_of(np.repeat(images[:, None], 2, axis=1), None, ridge=0.1)
    assert found.shared == pytest.approx(-1.5 * math.log(1 - 1 / 1.1**2), rel=1e-9)
    assert found.about_class is None
    assert found.share is None


def test_independent_views_share_nothing_and_have_no_share() -> None:
    exact = ClassShare(0.0, 0.1)
    assert exact.share is None
    assert share_of(*table(3, num_images=40_000, width=3, correlation=0.0)).shared == pytest.approx(0, abs=1e-3)


# ---------------------------------------------------------------------- brute force
def canonical_correlations(views: np.ndarray) -> np.ndarray:
    """Of the two views of each image, taken both ways round: singular values of whitened covariances."""
    centred = views - views.mean(axis=(0, 1))
    one, other = np.concatenate([centred, centred[:, ::-1]]).transpose(1, 0, 2)
    whiten = np.linalg.inv(np.linalg.cholesky(one.T @ one / len(one)))
    return np.linalg.svd(whiten @ (one.T @ other / len(one)) @ whiten.T, compute_uv=False)


def test_what_views_share_is_that_of_their_canonical_correlations() -> None:
    views, labels = table(4, num_images=60, width=5)
    mixed = views @ np.random.default_rng(5).normal(size=(5, 5))
    exact = -0.5 * np.log(1 - canonical_correlations(mixed) ** 2).sum()
    assert share_of(mixed, labels).shared == pytest.approx(exact, rel=1e-6)
    assert share_of(views, labels).shared == pytest.approx(exact, rel=1e-6)  # any invertible map, without a ridge


def test_with_a_ridge_it_is_that_of_the_eigenvalues() -> None:
    views, labels = table(6, num_images=40, width=4, center=1.0)
    found = share_of(views, labels, ridge=0.3)
    covariances = view_covariances(total(moments(views, labels)))
    assert covariances.of_classes is not None
    of_view, of_pair, of_classes = (
        matrix.numpy() for matrix in (covariances.of_view, covariances.of_pair, covariances.of_classes)
    )
    regular = of_view + 0.3 * np.trace(of_view) / 4 * np.eye(4)
    values = np.linalg.eigvals(np.linalg.solve(regular, of_pair)).real
    assert found.shared == pytest.approx(-0.5 * np.log(1 - values**2).sum(), rel=1e-9)
    assert found.about_class == pytest.approx(0.5 * np.trace(np.linalg.solve(regular, of_classes)), rel=1e-9)
    rotation = np.linalg.qr(np.random.default_rng(7).normal(size=(4, 4)))[0]
    turned = share_of(3 * views @ rotation + 10, labels, ridge=0.3)
    assert turned.shared == pytest.approx(found.shared, rel=1e-9)
    assert turned.share == pytest.approx(found.share, rel=1e-9)


def test_classes_that_images_ignore_have_no_share_on_average() -> None:
    """The noise of the class means, half the trace of its covariance (1 − ¼) I / 16, would be 0.05 of it."""
    found = [share_of(*table(seed, num_images=16, width=2), ridge=0.05).about_class for seed in range(100)]
    error = np.std(found) / 10
    assert abs(np.mean(found)) < 3 * error < 0.025


# ---------------------------------------------------------------------- leaving out, and refusing
def test_leaving_out_a_group_is_right_to_first_order() -> None:
    views, labels = table(8, num_images=2000, width=3, center=1.0)
    parts = moments(views, labels, groups=10)
    found = class_share(parts, ridge=0.05)
    assert found.about_class is not None
    assert len(found.share_without) == len(found.shared_without) == len(found.about_class_without) == 10
    whole = total(parts)
    for place, part in enumerate(parts):
        exact = class_share([whole.without(part)], ridge=0.05)
        assert exact.about_class is not None
        moved = abs(exact.shared - found.shared) + abs(exact.about_class - found.about_class)
        assert abs(found.shared_without[place] - exact.shared) < 0.2 * moved
        assert abs(found.about_class_without[place] - exact.about_class) < 0.2 * moved
        shared, about = found.shared_without[place], found.about_class_without[place]
        assert found.share_without[place] == pytest.approx(about / shared)


def test_groups_change_nothing_but_what_is_left_out() -> None:
    views, labels = table(9, num_images=60, width=3, center=1.0)
    alone, grouped = share_of(views, labels), share_of(views, labels, groups=5)
    assert alone.shared_without == alone.about_class_without == alone.share_without == ()
    assert grouped.shared == pytest.approx(alone.shared, rel=1e-9)
    assert grouped.share == pytest.approx(alone.share, rel=1e-9)


def test_the_classes_may_be_known_of_some_images_only() -> None:
    views, labels = table(10, num_images=200, width=3, center=1.0)
    some = np.arange(0, 200, 5)
    labelled = moments(views[some], labels[some], groups=4)
    found = class_share(moments(views, None, groups=4), ridge=0.05, labelled=labelled)
    assert found.shared == pytest.approx(share_of(views, None, ridge=0.05).shared)
    covariances, of_some = view_covariances(total(moments(views, None))), view_covariances(total(labelled))
    assert of_some.of_classes is not None
    regular = covariances.of_view + 0.05 * covariances.of_view.trace() / 3 * torch.eye(3, dtype=torch.float64)
    exact = 0.5 * torch.linalg.solve(regular, of_some.of_classes).trace().item()
    assert found.about_class == pytest.approx(exact, rel=1e-9)
    for part, known, about_class in zip(
        moments(views, None, groups=4), labelled, found.about_class_without, strict=True
    ):
        rest, of_rest = covariances_without(moments(views, None, groups=4), part), covariances_without(labelled, known)
        moved = rest.of_view + 0.05 * rest.of_view.trace() / 3 * torch.eye(3, dtype=torch.float64)
        exact = 0.5 * torch.linalg.solve(moved, of_rest.of_classes).trace().item()
        assert about_class == pytest.approx(exact, rel=0.05)  # to first order


def test_the_interval_is_not_much_wider_for_classes_of_a_few_images() -> None:
    sizes, found = (300, 40, 4, 2), []
    labels = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    for seed in range(40):
        views = torch.as_tensor(table(seed, num_images=sum(sizes), width=3)[0])
        parts = view_moments(views, labels, num_classes=4, groups=20)
        found.append(class_share(parts, ridge=0.05))
    errors = [math.sqrt(19 * np.var(one.about_class_without)) for one in found]
    assert 1 < np.mean(errors) / np.std([one.about_class for one in found], ddof=1) < 2.2


def test_features_without_variance_are_refused() -> None:
    with pytest.raises(ValueError, match="all views have the same features"):
        share_of(np.ones((6, 2, 3)), None)
