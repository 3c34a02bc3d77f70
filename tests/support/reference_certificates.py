"""The certificates again, by loops over images and views in NumPy: slow, plain, and sharing nothing with the package.

A table is features (N, V, D) with view 0 the clean image, of weight 0 in every mean (the only view has weight 1), and
labels (N,); images have equal weights. Every class 0 … K − 1 occurs.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def norm(vector):
    return math.sqrt(sum(float(x) ** 2 for x in vector))


def augmented(image):
    return image[1:] if len(image) > 1 else image


def image_mean(image):
    return sum(augmented(image)) / len(augmented(image))


def class_of(features, labels, label):
    return [image for image, image_label in zip(features, labels, strict=True) if image_label == label]


def centers(features, labels):
    means = []
    for label in range(max(labels) + 1):
        images = class_of(features, labels, label)
        means.append(sum(image_mean(image) for image in images) / len(images))
    return means


def wrong(point, label, mu):
    """Not strictly nearest to the own centre."""
    return any(norm(point - mu[label]) >= norm(point - mu[k]) for k in range(len(mu)) if k != label)


def errors(features, labels):
    mu = centers(features, labels)
    return np.array([wrong(image[0], label, mu) for image, label in zip(features, labels, strict=True)])


def diameter(image):
    return max(norm(a - b) for a, b in itertools.product(image, image))


def augmented_distance(first, second):
    return min(norm(a - b) for a, b in itertools.product(first, second))


def ball_margin(reach, mu, l, k):
    return norm(mu[l] - mu[k]) / 2 - reach


def cap_margin(reach, mu, l, k, length):
    """Least signed distance to the bisector over the sphere of this radius within `reach` of μ_l, as in the docs."""
    edge, size = mu[l] - mu[k], norm(mu[l])
    offset = (size**2 - norm(mu[k]) ** 2) / 2
    if size < 1e-12:
        return (-length * norm(edge) - offset) / norm(edge)
    unit = mu[l] / size
    along = float(edge @ unit)
    across = norm(edge - along * unit)
    plane = min(max((length**2 + size**2 - reach**2) / (2 * size), -length), length)
    if plane <= -length * along / norm(edge):
        return (-length * norm(edge) - offset) / norm(edge)
    return (plane * along - math.sqrt(max(length**2 - plane**2, 0)) * across - offset) / norm(edge)


def margin(reach, mu, l, lengths):
    """Least over rivals of the better of ball and cap; lengths are what ‖f‖ may be, one or several to try."""
    least = math.inf
    for k in range(len(mu)):
        if k != l:
            ball = ball_margin(reach, mu, l, k)
            caps = [cap_margin(reach, mu, l, k, length) for length in lengths] if norm(mu[l] - mu[k]) > 0 else [ball]
            least = min(least, max(ball, min(caps)))
    return least


def largest_norm(features):
    return max(norm(view) for image in features for view in image)


def reach_b(features, labels, index):
    """Theorem B's bound on ‖f(x₀) − μ_l‖."""
    r, label, x0 = largest_norm(features), labels[index], features[index]
    mu = centers(features, labels)[label]
    eccentricity = max(norm(x0[0] - view) for view in x0)
    t, u, spread_means, spread_views = [], [], [], []
    for other, (image, image_label) in enumerate(zip(features, labels, strict=True)):
        if image_label != label:
            continue
        mean = image_mean(image)
        if other == index:
            t.append(norm(x0[0] - mean))
            u.append(eccentricity)
        else:
            way = eccentricity + augmented_distance(x0, image)
            t.append(min(2 * r, way + max(norm(view - mean) for view in image)))
            u.append(min(2 * r, way + diameter(image)))
        spread_means.append(norm(mean - mu) ** 2)
        spread_views.append(np.mean([norm(view - mu) ** 2 for view in augmented(image)]))
    t, u = np.array(t), np.array(u)
    by_means = max((t**2).mean() - np.mean(spread_means), 0)
    by_views = max((u**2).mean() - np.mean(spread_views), 0)
    return min(t.mean(), math.sqrt(by_means), math.sqrt(by_views))


def margin_c(features, labels, index, num_views):
    """Theorem C's least margin, with the extremes over the first `num_views` stored views."""
    mu, label, x0 = centers(features, labels), labels[index], features[index]
    least = math.inf
    for k in range(len(mu)):
        if k == label:
            continue
        if norm(mu[k] - mu[label]) == 0:
            least = min(least, 0.0)
            continue
        w = (mu[k] - mu[label]) / norm(mu[k] - mu[label])
        terms = []
        for other, image in enumerate(features):
            if labels[other] != label:
                continue
            direct = float(w @ (x0[0] - image_mean(image)))
            if other == index:
                terms.append(direct)
                continue
            back = float(w @ x0[0]) - min(float(w @ view) for view in x0[:num_views])
            forth = max(float(w @ view) for view in image[:num_views]) - float(w @ image_mean(image))
            terms.append(max(direct, back + forth))
        least = min(least, norm(mu[k] - mu[label]) / 2 - sum(terms) / len(terms))
    return least


def reach_a(features, labels, label, share, delta, epsilon):
    """Theorem A's D̄ for a set of this share of a class."""
    r, mu = largest_norm(features), centers(features, labels)[label]
    step = min(2 * r, delta + 2 * epsilon)
    spread = np.mean([norm(view - mu) ** 2 for image in class_of(features, labels, label) for view in augmented(image)])
    second = share * step**2 + 4 * r**2 * (1 - share) - spread
    return min(share * step + 2 * r * (1 - share), math.sqrt(max(second, 0)))


def largest_cliques(adjacent):
    """All of the largest size, by trying every set of a handful of vertices."""
    for size in range(len(adjacent), 0, -1):
        sets = itertools.combinations(range(len(adjacent)), size)
        cliques = [chosen for chosen in sets if all(adjacent[i][j] for i, j in itertools.combinations(chosen, 2))]
        if cliques:
            return cliques
    return [()]


def largest_clique(adjacent):
    return largest_cliques(adjacent)[0]


def cantelli(features, labels):
    mu, total = centers(features, labels), 0.0
    for label in range(len(mu)):
        clean = np.array([image[0] for image in class_of(features, labels, label)])
        tail = 0.0
        for k in range(len(mu)):
            if k == label:
                continue
            gap = norm(mu[k] - mu[label])
            if gap == 0:
                tail += 1
                continue
            projected = clean @ ((mu[k] - mu[label]) / gap)
            theta = gap / 2 - (projected.mean() - float(mu[label] @ (mu[k] - mu[label])) / gap)
            tail += projected.var() / (projected.var() + theta**2) if theta > 0 else 1
        total += len(clean) / len(features) * min(1, tail)
    return total


def theorem_1_condition(mu, r, rho, *, sharp=False):
    """Whether the condition on the centres holds for every pair: as the paper states it, or its sharpened form."""
    gap = 1 - min(norm(m) ** 2 for m in mu) / r**2
    charge = rho + rho**2 / 2 if sharp else rho + math.sqrt(2 * rho)
    return all(float(a @ b) < r**2 * (1 - charge - gap / 2) for a, b in itertools.permutations(mu, 2))


# ---------------------------------------------------------------------- random tables
KINDS = ("noise", "cluster", "simplex", "tight", "outliers", "antipodal", "flipped views", "few views")


def random_instance(seed):
    """A small table (features, labels) of one of `KINDS`: balanced or not, on the unit sphere."""
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    num_classes, width = int(random.integers(2, 5)), int(random.integers(2, 8))
    num_views = int(random.integers(1, 3)) if kind == "few views" else int(random.integers(2, 5))
    balanced = random.random() < 0.5
    sizes = random.integers(3, 7, size=1).repeat(num_classes) if balanced else random.integers(1, 7, size=num_classes)
    labels = random.permutation(np.repeat(np.arange(num_classes), sizes))
    directions = random.normal(size=(num_classes, width))
    if kind not in ("noise", "cluster") and width >= num_classes:
        directions = np.zeros((num_classes, width))
        directions[:, :num_classes] = np.eye(num_classes) - 1 / num_classes
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    spread = {"noise": 3.0, "cluster": 0.4, "simplex": 0.2}.get(kind, 0.05) * random.uniform(0, 1.5)
    images = directions[labels] + spread * random.normal(size=(len(labels), width)) / math.sqrt(width)
    jitter = {"noise": 2.0, "cluster": 0.2, "simplex": 0.1}.get(kind, 0.03) * random.uniform(0, 1.5)
    features = images[:, None] + jitter * random.normal(size=(len(labels), num_views, width)) / math.sqrt(width)
    odd = random.random(len(labels)) < random.uniform(0, 0.4)
    if kind == "outliers":
        features[odd] += 3 * random.normal(size=(int(odd.sum()), 1, width))
    elif kind == "antipodal":
        features[odd] = -features[odd]
    elif kind == "flipped views":
        features[odd, 1:] = -features[odd, 1:]
    return features / np.linalg.norm(features, axis=2, keepdims=True), labels
