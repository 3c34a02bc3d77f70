"""The losses, their floors and R_ε again, by loops in NumPy, and random tables to try them on; nothing of the package.

A table is features (N, V, D) with view 0 the clean image, which enters no mean, and labels (N,).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

KINDS = ("noise", "clusters", "simplex", "outliers", "antipodal")


def simplex_vectors(num_classes, width):
    """K unit vectors with every two at inner product −1/(K − 1), in the first K of `width` coordinates."""
    vectors = np.zeros((num_classes, width))
    vectors[:, :num_classes] = np.eye(num_classes) - 1 / num_classes
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_table(random, *, num_views=3, sizes=None, width=None, kind=None):
    """Unit features of 2 to 4 classes, of one of `KINDS`, and shuffled labels."""
    sizes = sizes or random.integers(1, 5, size=random.integers(2, 5)).tolist()
    width = width or int(random.integers(2, 7))
    kind = kind or str(random.choice(KINDS))
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = random.normal(size=(len(sizes), width))
    if kind in ("simplex", "outliers", "antipodal") and width >= len(sizes):
        centers = simplex_vectors(len(sizes), width)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    image_noise, view_noise = random.uniform(0, 1.5, size=2) * ((3, 3) if kind == "noise" else (0.2, 0.1))
    images = centers[labels] + image_noise * random.normal(size=(len(labels), width))
    features = images[:, None] + view_noise * random.normal(size=(len(labels), num_views, width))
    if kind in ("outliers", "antipodal"):
        odd = random.random(len(labels)) < 0.3
        features[odd] = -features[odd] if kind == "antipodal" else random.normal(size=features[odd].shape)
        torn = random.random(len(labels)) < 0.2
        features[torn, -1] = -features[torn, -1]  # the last view opposite to the others
    return features / np.linalg.norm(features, axis=2, keepdims=True), labels


def collapsed(centers, sizes, *, num_views=3):
    """Every view of every image at the centre (K, D) of its class."""
    labels = np.repeat(np.arange(len(centers)), sizes)
    return np.repeat(centers[labels][:, None], num_views, axis=1), labels


def log_sum_exp(values):
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def diameter(views):
    return max(math.dist(a, b) for a, b in itertools.product(views, views))


def rate(features, epsilon):
    """Share of images with two of the given views more than ε apart."""
    return sum(diameter(views) > epsilon for views in features) / len(features)


def alignment(features):
    """Mean ‖f(v) − f(v′)‖² over images and pairs of distinct views of those given."""
    pairs = [math.dist(a, b) ** 2 for views in features for a, b in itertools.permutations(views, 2)]
    return sum(pairs) / len(pairs)


# ---------------------------------------------------------------------- InfoNCE
def info_nce_divergence(features, temperature, *, distinct, labels=None):
    """E log(e^{f₁·f₂/T} + e^{f₁·f₋/T}) over all views and images, or over distinct ones weighted by `pair_weights`."""
    labels = np.zeros(len(features), dtype=int) if labels is None else labels
    weights, means = pair_weights(labels), {}
    for i, j in itertools.product(range(len(features)), repeat=2):
        if distinct and i == j:
            continue
        views, terms = features[i, 1:], []
        for a, b in itertools.product(range(len(views)), repeat=2):
            if distinct and a == b:
                continue
            terms += [
                log_sum_exp([views[a] @ views[b] / temperature, views[a] @ f / temperature]) for f in features[j, 1:]
            ]
        means.setdefault((labels[i], labels[j]) if distinct else None, []).append(np.mean(terms))
    if not distinct:
        return np.mean(means[None])
    return sum(weights[pair] * np.mean(found) for pair, found in means.items())


def pair_weights(labels):
    """How often two images of the population are of the classes k and l: p_k p_l.

    A class of one image shows no pair of its own: p_k² goes to the others, in proportion to theirs. If all are so, the
    images are a sample as it comes.
    """
    share = {k: np.mean(labels == k) for k in set(labels.tolist())}
    several = [k for k in share if (labels == k).sum() > 1]
    same = sum(p**2 for p in share.values()) if several else 0
    weights = {(k, l): share[k] * share[l] for k, l in itertools.permutations(share, 2)}
    apart = sum(weights.values())
    weights = {pair: (1 - same) * weight / apart for pair, weight in weights.items()}
    return weights | {(k, k): same * share[k] ** 2 / sum(share[l] ** 2 for l in several) for k in several}


def positives(features, labels, label, *, distinct):
    """Mean f(v)·f(v′) over views of one image, images of one class."""
    products = []
    for views in features[labels == label][:, 1:]:
        for (i, a), (j, b) in itertools.product(enumerate(views), repeat=2):
            if not (distinct and i == j):
                products.append(a @ b)
    return sum(products) / len(products)


def between_images(features, labels, k, l, *, distinct):
    """Mean f(v)·f(v′) over views of an image of class k and one of class l."""
    products = []
    for i, j in itertools.product(np.flatnonzero(labels == k), np.flatnonzero(labels == l)):
        if not (distinct and i == j):
            products += [a @ b for a in features[i, 1:] for b in features[j, 1:]]
    return sum(products) / len(products) if products else None


def info_nce_floor(features, labels, temperature, *, distinct):
    total = 0.0
    share = {k: np.mean(labels == k) for k in set(labels.tolist())}
    plug_in = {(k, l): share[k] * share[l] for k, l in itertools.product(share, repeat=2)}
    for (k, l), weight in (pair_weights(labels) if distinct else plug_in).items():
        a = positives(features, labels, k, distinct=distinct)
        g = between_images(features, labels, k, l, distinct=distinct)
        total += weight * log_sum_exp([a / temperature, g / temperature])
    return total


def mean_inner_product(features, labels):
    """Over pairs of images of different classes: weights p_k p_l over pairs of classes."""
    means = features[:, 1:].mean(axis=1)
    pairs = [means[i] @ means[j] for i, j in itertools.permutations(range(len(labels)), 2) if labels[i] != labels[j]]
    return sum(pairs) / len(pairs)


# ---------------------------------------------------------------------- NT-Xent
def batch_divergence(batch, temperature):
    """Mean log(e^{s₊} + Σ₋ e^{s₋}) over the anchors of a batch (B, 2, D)."""
    views = [(i, view) for i, pair in enumerate(batch) for view in pair]
    total = 0.0
    for place, (_, anchor) in enumerate(views):
        total += log_sum_exp([anchor @ view / temperature for other, (_, view) in enumerate(views) if other != place])
    return total / len(views)


def nt_xent_divergence(features, batch_size, temperature):
    """Over every batch of distinct images and every choice of two distinct augmented views of each."""
    view_pairs = list(itertools.combinations(range(1, features.shape[1]), 2))
    values = [
        batch_divergence([features[i, list(pair)] for i, pair in zip(images, choice, strict=True)], temperature)
        for images in itertools.combinations(range(len(features)), batch_size)
        for choice in itertools.product(view_pairs, repeat=batch_size)
    ]
    return sum(values) / len(values)


def nt_xent_floor(features, labels, batch_size, temperature):
    """Over every anchor image and every choice of the other images of its batch."""
    total, count = 0.0, 0
    num_images = len(labels)
    for anchor in range(num_images):
        k = labels[anchor]
        a = positives(features, labels, k, distinct=True)
        g = between_images(features, labels, k, k, distinct=True)
        different = [
            between_images(features, labels, k, l, distinct=True) * (labels == l).sum() for l in set(labels) - {k}
        ]
        t = sum(different) / (labels != k).sum() if different else None
        others = [image for image in range(num_images) if image != anchor]
        for negatives in itertools.combinations(others, batch_size - 1):
            terms = [a] + [g if labels[image] == k else t for image in negatives for _ in range(2)]
            total += log_sum_exp([term / temperature for term in terms])
            count += 1
    return total / count


# ---------------------------------------------------------------------- cross-correlation
def cross_correlation(features, *, distinct):
    """E f(v) f(v′)ᵀ over images and pairs of augmented views, with or without a view and itself."""
    products = [
        np.outer(a, b)
        for views in features[:, 1:]
        for (i, a), (j, b) in itertools.product(enumerate(views), repeat=2)
        if not (distinct and i == j)
    ]
    return sum(products) / len(products)


def correlation_parts(features, m):
    """The A_i of docs/theory.md, 12: how M moves with the weight of image i, standardised anew, for M of distinct
    views."""
    parts = []
    for views in features[:, 1:]:
        x = sum(np.outer(a, b) for a, b in itertools.permutations(views, 2)) / (len(views) * (len(views) - 1))
        q = (views**2).mean(axis=0)
        parts.append(x - (q[:, None] * m + m * q) / 2)
    return np.array(parts)


def correlation_noise(parts, strata):
    """The squared noise of their mean, with so many images of each stratum."""
    total = 0.0
    for k in set(strata.tolist()):
        own = parts[strata == k]
        spread = ((own - own.mean(axis=0)) ** 2).sum()
        total += (len(own) / len(parts)) ** 2 * spread / (len(own) * (len(own) - 1))
    return total


def diagonal_bias(features, m, strata):
    """By how much standardising makes Σ (1 − M_ii)² too large, to second order, coordinate by coordinate."""
    total, num = 0.0, len(features)
    diagonals = np.array([np.diag(part) for part in correlation_parts(features, m)])
    for d in range(features.shape[2]):
        q = (features[:, 1:, d] ** 2).mean(axis=1)
        means = features[:, 1:, d].mean(axis=1)
        for k in set(strata.tolist()):
            own = strata == k
            share = own.sum() / num**2
            too_small = np.cov(diagonals[own, d], q[own])[0, 1] + (1 - m[d, d]) * means[own].var(ddof=1)
            total += 2 * (1 - m[d, d]) * share * too_small
    return total


def within_covariance(features, labels):
    """Σ_k p_k Cov(f̄ | class k)."""
    total = 0
    for k in set(labels.tolist()):
        means = features[labels == k][:, 1:].mean(axis=1)
        total = total + len(means) / len(labels) * np.cov(means.T, bias=True).reshape(features.shape[2], -1)
    return total
