"""CLID and the risk decomposition again, by loops in NumPy: slow, plain, and sharing nothing with the package."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import minimize


def length(vector):
    return np.sqrt((vector**2).sum())


def different(points):
    """The points without copies."""
    kept = []
    for point in points:
        if not any(np.array_equal(point, other) for other in kept):
            kept.append(point)
    return kept


def intrinsic_dimension(points):
    """TwoNN by the steps of its paper: ratios, their empirical distribution, a line through the origin."""
    points = different(points)
    logs = []
    for i, point in enumerate(points):
        others = sorted(length(point - other) for j, other in enumerate(points) if j != i)
        logs.append(np.log(others[1] / others[0]))
    count = len(logs)
    pairs = [(log, -np.log(1 - place / count)) for place, log in enumerate(sorted(logs)) if place < int(0.9 * count)]
    return sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs)


def accuracy_of_halves(points, labels):
    """Accuracies of the nearest point of the first ⌊n/2⌋ of each possible half on the others, one by one."""
    count = len(points)
    found = []
    for half in itertools.combinations(range(count), count // 2):
        rest = [i for i in range(count) if i not in half]
        right = [labels[min(half, key=lambda j: length(points[i] - points[j]))] == labels[i] for i in rest]
        found.append(np.mean(right))
    return found


def is_k_means(points, clusters):
    """Whether each point is as near to the mean of its cluster as to that of any other."""
    names = sorted(set(clusters.tolist()))
    means = {
        name: np.mean([point for point, own in zip(points, clusters, strict=True) if own == name], 0) for name in names
    }
    return all(
        length(point - means[own]) <= min(length(point - mean) for mean in means.values()) + 1e-12
        for point, own in zip(points, clusters, strict=True)
    )


def logistic_errors(train, train_labels, test, test_labels, penalty):
    """Errors of softmax regression on features of mean 0 and deviation 1, its weights penalised by ½ penalty ‖W‖²."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    classes = np.unique(train_labels)
    members = (train_labels[:, None] == classes).astype(float)

    def objective(flat):
        theta = flat.reshape(len(classes), -1)
        logits = train @ theta[:, :-1].T + theta[:, -1]
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        residual = (np.exp(logs) - members) / len(train)
        gradient = np.concatenate([residual.T @ train + penalty * theta[:, :-1], residual.sum(axis=0)[:, None]], axis=1)
        loss = -(members * logs).sum() / len(train) + 0.5 * penalty * (theta[:, :-1] ** 2).sum()
        return loss, gradient.ravel()

    start = np.zeros(len(classes) * (train.shape[1] + 1))
    options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-10}
    theta = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x.reshape(len(classes), -1)
    predictions = classes[(test @ theta[:, :-1].T + theta[:, -1]).argmax(axis=1)]
    return int((predictions != test_labels).sum())
