"""The theory's terms again, by loops over pairs in NumPy: slow, plain, and sharing nothing with the package.

A table is features (N, V, D) with view 0 the clean image, and labels (N,). Unbiased forms are written as means of inner
products over pairs of distinct views and distinct images, which is what "unbiased" comes from.
"""

from __future__ import annotations

import itertools

import numpy as np


def pair_mean(first, second, *, distinct):
    """Mean inner product over pairs (a, b) of two lists of vectors, without the pairs at equal places if `distinct`."""
    products = [
        float(a @ b)
        for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second))
        if not (distinct and i == j)
    ]
    return sum(products) / len(products)


def image_alignment(views, *, distinct):
    """Mean ‖f(v) − f(v′)‖² over pairs of the given views of one image."""
    squares = [
        float(((a - b) ** 2).sum())
        for (i, a), (j, b) in itertools.product(enumerate(views), enumerate(views))
        if not (distinct and i == j)
    ]
    return sum(squares) / len(squares)


def alignment(features, *, distinct=True):
    return sum(image_alignment(image[1:], distinct=distinct) for image in features) / len(features)


def diameter(image):
    return max(np.sqrt(((a - b) ** 2).sum()) for a, b in itertools.product(image, image))


def r_epsilon(features, epsilon):
    return sum(diameter(image) > epsilon for image in features) / len(features)


def view_means(features, labels, label):
    """The mean over augmented views of each image of a class."""
    images = [image for image, image_label in zip(features, labels, strict=True) if image_label == label]
    return [sum(image[1:]) / (len(image) - 1) for image in images]


def inner_product(features, labels, k, l):
    """μ_k·μ_l; ‖μ_k‖² over distinct images when k = l."""
    return pair_mean(view_means(features, labels, k), view_means(features, labels, l), distinct=k == l)


def squared_distance(features, labels, k, l):
    if k == l:
        return 0.0
    norms = inner_product(features, labels, k, k) + inner_product(features, labels, l, l)
    return norms - 2 * inner_product(features, labels, k, l)


def priors(labels, num_classes):
    return [sum(label == k for label in labels) / len(labels) for k in range(num_classes)]


def mean_inner_product(features, labels, num_classes):
    p = priors(labels, num_classes)
    pairs = [(k, l) for k, l in itertools.product(range(num_classes), repeat=2) if k != l and p[k] * p[l] > 0]
    total = sum(p[k] * p[l] * inner_product(features, labels, k, l) for k, l in pairs)
    return total / sum(p[k] * p[l] for k, l in pairs)


def within(features, labels, label):
    """E‖f̄_x − μ_k‖² = E f(v)·f(v′) over views of one image − E f(v)·f(v′) over views of two images."""
    images = [image for image, image_label in zip(features, labels, strict=True) if image_label == label]
    same = sum(pair_mean(image[1:], image[1:], distinct=True) for image in images) / len(images)
    return same - inner_product(features, labels, label, label)


def within_views(features, labels, label):
    """E‖f(v) − μ_k‖² = E‖f(v)‖² − ‖μ_k‖²."""
    images = [image for image, image_label in zip(features, labels, strict=True) if image_label == label]
    squares = sum(float(view @ view) for image in images for view in image[1:])
    return squares / (len(images) * (len(images[0]) - 1)) - inner_product(features, labels, label, label)


def between(features, labels, num_classes):
    """Σ p_k ‖μ_k − μ‖² = ½ Σ p_k p_l ‖μ_k − μ_l‖²."""
    p = priors(labels, num_classes)
    pairs = itertools.product(range(num_classes), repeat=2)
    return sum(p[k] * p[l] * squared_distance(features, labels, k, l) for k, l in pairs) / 2
