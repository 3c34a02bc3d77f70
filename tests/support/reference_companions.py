"""The companion measures again, by loops in NumPy: slow, plain, and sharing nothing with the package.

Features (N, V, D), view 0 the clean image; labels (N,).
"""

from __future__ import annotations

import itertools

import numpy as np


def unit(vector):
    length = np.sqrt((vector**2).sum())
    return vector / length if length > 0 else vector


def squared(a, b):
    return float(((a - b) ** 2).sum())


def uniformity(features, weights=None, labels=None):
    """Over pairs of distinct images, pairs of classes (all of at least two images) weighted by p_k p_l."""
    clean = [unit(image[0]) for image in features]
    labels = np.zeros(len(clean), dtype=int) if labels is None else np.asarray(labels)
    w = np.ones(len(clean)) if weights is None else weights
    total = 0.0
    for k, l in itertools.product(set(labels.tolist()), repeat=2):
        rows = itertools.product(np.flatnonzero(labels == k), np.flatnonzero(labels == l))
        pairs = [(i, j) for i, j in rows if i != j]
        kernel = sum(w[i] * w[j] * np.exp(-2 * squared(clean[i], clean[j])) for i, j in pairs)
        total += np.mean(labels == k) * np.mean(labels == l) * kernel / sum(w[i] * w[j] for i, j in pairs)
    return np.log(total)


def exponential_entropy(values):
    shares = [value / sum(values) + 1e-7 for value in values]
    return np.exp(-sum(share * np.log(share) for share in shares))


def rankme(features):
    clean = np.array([image[0] for image in features])
    smaller = clean @ clean.T if len(clean) < clean.shape[1] else clean.T @ clean
    return exponential_entropy(np.sqrt(np.linalg.eigvalsh(smaller).clip(min=0)))


def covariance(rows, divisor):
    mean = sum(rows) / len(rows)
    return sum(np.outer(row - mean, row - mean) for row in rows) / divisor


def spectrum(features):
    clean = [image[0] for image in features]
    return np.linalg.eigvalsh(covariance(clean, len(clean) - 1))[::-1]


def nesum(features):
    eigenvalues = spectrum(features)
    return eigenvalues.sum() / eigenvalues[0]


def alpha_req(features, first, last):
    """Weighted least squares by its normal equations, indices counted from 1."""
    index = np.arange(first, last + 1)
    design = np.stack([np.log(index), np.ones(len(index))], axis=1)
    weights = np.diag(1 / index)
    target = np.log(spectrum(features)[first - 1 : last])
    return -np.linalg.solve(design.T @ weights @ design, design.T @ weights @ target)[0]


def lidar(features):
    n, m = len(features), len(features[0]) - 1
    means = [sum(image[1:]) / m for image in features]
    within = np.diag([1e-4] * features.shape[2])
    for image, mean in zip(features, means, strict=True):
        for view in image[1:]:
            within = within + np.outer(view - mean, view - mean) / (n * (m - 1))
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return exponential_entropy(np.linalg.eigvalsh(root @ covariance(means, n - 1) @ root).clip(min=0))


def confusion(features, summary):
    """Share of augmented views with another image as near by a `summary` (min, mean, max) of the distances to it."""
    views = [[unit(view) for view in image[1:]] for image in features]
    confused = []
    for i, image in enumerate(views):
        for a, view in enumerate(image):
            own = summary([np.sqrt(squared(view, other)) for b, other in enumerate(image) if b != a])
            others = [summary([np.sqrt(squared(view, w)) for w in views[j]]) for j in range(len(views)) if j != i]
            confused.append(min(others) <= own + 1e-8)
    return sum(confused) / len(confused)


def nearest_view_elsewhere(features):
    """ACR in its own words: the nearest other view belongs to another image."""
    views = [(i, unit(view)) for i, image in enumerate(features) for view in image[1:]]
    elsewhere = 0
    for place, (i, view) in enumerate(views):
        others = [(squared(view, other), j) for at, (j, other) in enumerate(views) if at != place]
        elsewhere += min(others)[1] != i
    return elsewhere / len(views)


def moments(features, labels):
    """Class → (share, mean, mean squared distance to it, images) on clean views."""
    found = {}
    for label in sorted(set(labels.tolist())):
        images = [image[0] for image, own in zip(features, labels, strict=True) if own == label]
        mean = sum(images) / len(images)
        found[label] = (
            len(images) / len(features),
            mean,
            sum(squared(image, mean) for image in images) / len(images),
            images,
        )
    return found


def nc1_and_ratio(features, labels):
    classes = moments(features, labels).values()
    center = sum(share * mean for share, mean, _, _ in classes)
    between = sum(share * np.outer(mean - center, mean - center) for share, mean, _, _ in classes)
    within = sum(
        np.outer(image - mean, image - mean) / len(features) for _, mean, _, images in classes for image in images
    )
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / len(classes)
    return nc1, np.trace(within) / np.trace(between)


def cdnv(features, labels):
    """Pair of classes → its CDNV."""
    classes = moments(features, labels)
    return {
        (k, l): (classes[k][2] + classes[l][2]) / (2 * squared(classes[k][1], classes[l][1]))
        for k, l in itertools.combinations(classes, 2)
    }
