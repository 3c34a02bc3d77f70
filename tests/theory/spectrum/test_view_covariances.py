"""Σ, M and B against loops over views and images, and against the populations that samples are of."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from cssl_cli.theory.spectrum import view_covariances as module
from cssl_cli.theory.spectrum.view_covariances import ViewCovariances, total, view_covariances, view_moments

SIZES = (3, 5, 2, 4)


def drawn(
    sizes: tuple[int, ...], *, num_views: int = 3, width: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, m, D) about an offset, and shuffled labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    means = random.normal(size=(len(sizes), width))[labels] + random.normal(size=(len(labels), width))
    return 5 + means[:, None] + random.normal(size=(len(labels), num_views, width)), labels


def covariances(features: np.ndarray, labels: np.ndarray | None, num_classes: int, groups: int = 1) -> ViewCovariances:
    parts = view_moments(
        torch.as_tensor(features),
        None if labels is None else torch.as_tensor(labels),
        num_classes=num_classes,
        groups=groups,
    )
    assert len(parts) == groups
    return view_covariances(total(parts))


def of_view_by_loops(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(axis=(0, 1))
    return sum(np.outer(view, view) for image in centred for view in image) / (features.shape[0] * features.shape[1])


def of_pair_by_loops(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(axis=(0, 1))
    pairs = [np.outer(one, other) for image in centred for one, other in permutations(image, 2)]
    return sum(pairs) / len(pairs)


def of_classes_by_loops(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The covariance of the class means, less p(1 − p) times the covariance of each mean."""
    images = features.mean(axis=1)
    kept = [label for label in np.unique(labels) if (labels == label).sum() >= 2]
    sizes = {label: (labels == label).sum() for label in kept}
    whole = sum(sizes.values())
    means = {label: images[labels == label].mean(axis=0) for label in kept}
    mean = sum(sizes[label] / whole * means[label] for label in kept)
    found = np.zeros((features.shape[2],) * 2)
    for label in kept:
        share = sizes[label] / whole
        found += share * np.outer(means[label] - mean, means[label] - mean)
        found -= share * (1 - share) * np.cov(images[labels == label].T, ddof=1) / sizes[label]
    return found


@pytest.mark.parametrize("block", [1024, 3])
def test_the_covariances_are_those_of_loops(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    features, labels = drawn(SIZES)
    for groups in (1, 3):
        found = covariances(features, labels, len(SIZES), groups)
        assert found.of_classes is not None
        np.testing.assert_allclose(found.of_view, of_view_by_loops(features), atol=1e-12)
        np.testing.assert_allclose(found.of_pair, of_pair_by_loops(features), atol=1e-12)
        np.testing.assert_allclose(found.of_classes, of_classes_by_loops(features, labels), atol=1e-12)
        assert (found.num_images, found.num_views) == (sum(SIZES), 3)


def test_without_labels_there_is_one_class_and_the_rest_is_the_same() -> None:
    features, labels = drawn(SIZES)
    labelled, plain = covariances(features, labels, len(SIZES)), covariances(features, None, len(SIZES))
    assert plain.of_classes is None
    torch.testing.assert_close(plain.of_view, labelled.of_view)
    torch.testing.assert_close(plain.of_pair, labelled.of_pair)
    assert covariances(features, np.zeros_like(labels), 1).of_classes is None


def test_a_class_of_one_image_and_an_empty_one_count_for_no_class_means() -> None:
    features, labels = drawn((3, 1, 0, 4))
    found = covariances(features, labels, 4)
    assert found.of_classes is not None
    np.testing.assert_allclose(found.of_classes, of_classes_by_loops(features, labels), atol=1e-12)
    np.testing.assert_allclose(found.of_view, of_view_by_loops(features), atol=1e-12)
    assert covariances(*drawn((3, 1, 0, 1)), 4).of_classes is None


@pytest.mark.parametrize("sizes", [(6, 6, 6), (15, 12, 9)])
def test_without_a_group_they_are_those_of_the_other_images(sizes: tuple[int, ...]) -> None:
    """Also the class means' noise, for classes that keep their proportions; here each loses a third of its images."""
    features, labels = drawn(sizes)
    parts = view_moments(torch.as_tensor(features), torch.as_tensor(labels), num_classes=len(sizes), groups=3)
    order = np.argsort(labels, kind="stable")
    for group, part in enumerate(parts):
        rows = np.sort(np.delete(order, np.s_[group::3]))
        assert part.images.tolist() == [size // 3 for size in sizes]
        rest = view_covariances(total(parts).without(part))
        assert rest.of_classes is not None
        np.testing.assert_allclose(rest.of_view, of_view_by_loops(features[rows]), atol=1e-12)
        np.testing.assert_allclose(rest.of_pair, of_pair_by_loops(features[rows]), atol=1e-12)
        exact = of_classes_by_loops(features[rows], labels[rows])
        tolerance = 1e-12 if len(set(sizes)) == 1 else 0.02 * np.abs(exact).max()
        np.testing.assert_allclose(rest.of_classes, exact, atol=tolerance)


def test_they_are_float64_and_ordered_whatever_the_features_are() -> None:
    """M ≼ Σ and B ≼ M + the noise: what keeps the log determinants defined."""
    features, labels = drawn((4, 4, 4), width=6)
    found = covariances(features.astype(np.float32), labels, 3)
    assert found.of_classes is not None
    assert found.of_view.dtype == found.of_pair.dtype == found.of_classes.dtype == torch.float64
    assert torch.linalg.eigvalsh(found.of_view - found.of_pair).min() > 0
    assert torch.linalg.eigvalsh(found.of_view - found.of_classes).min() > 0


def test_on_average_they_are_those_of_the_population() -> None:
    """400 samples of 24 images: all within four standard errors of the truth, up to 1/n of the common mean."""
    random, sizes, num_views = np.random.default_rng(1), (12, 8, 4), 2
    centers = np.array([[0.2, 0.0], [-0.2, 0.1], [0.0, -0.3]])
    shares = np.array(sizes) / sum(sizes)
    image_factor, view_factor = np.array([[0.8, 0.0], [0.3, 0.5]]), np.array([[0.6, 0.2], [0.0, 0.7]])
    labels = np.repeat(np.arange(3), sizes)
    found = []
    for _ in range(400):
        images = centers[labels] + random.normal(size=(24, 2)) @ image_factor.T
        views = images[:, None] + random.normal(size=(24, num_views, 2)) @ view_factor.T
        one = covariances(views, labels, 3)
        assert one.of_classes is not None
        found.append(np.stack([one.of_view, one.of_pair, one.of_classes]))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / 20
    deviations = centers - shares @ centers
    of_classes = deviations.T @ (deviations * shares[:, None])
    of_image, of_noise = image_factor @ image_factor.T, view_factor @ view_factor.T
    # The common mean has the noise of n images, which their covariances about it lack.
    lost = (of_image + of_noise / num_views) / 24
    of_pair = of_classes + of_image
    assert (np.abs(mean[2] - of_classes) < 4 * error[2]).all()
    assert (np.abs(mean[0] - (of_pair + of_noise - lost)) < 4 * error[0]).all()
    assert (np.abs(mean[1] - (of_pair - lost)) < 4 * error[1]).all()
    noise_of_means = (of_image + of_noise / num_views) * (shares * (1 - shares) / np.array(sizes)).sum()
    assert (noise_of_means.diagonal() > 8 * error[2].diagonal()).all()  # so that it would be seen
