"""Concentration of a table of vectors, and the distances between its images by loops."""

import itertools

import numpy as np
import torch

from cssl_cli.host.randomness import stream
from cssl_cli.theory.concentration.sigma import concentration
from cssl_cli.theory.estimate import Absent

DELTAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.3, 3.0)


def names(num_classes):
    return [f"class {label}" for label in range(num_classes)]


def measure(vectors, labels, *, deltas=DELTAS, between_images=1000, seed=0, num_classes=None, advance=None):
    vectors = torch.as_tensor(vectors)
    labels = None if labels is None else torch.as_tensor(labels)
    num_classes = num_classes or (1 if labels is None else int(labels.max()) + 1)
    return concentration(
        lambda rows: vectors[rows],
        labels,
        names(num_classes),
        num_views=vectors.shape[1],
        deltas=deltas,
        between_images=between_images,
        generator=stream(seed, "concentration"),
        advance=advance,
    )


def values(quantities):
    return {name: q.reason if isinstance(q, Absent) else q.value for name, q in quantities.items()}


def least_distance(views, others):
    return min(float(np.sqrt(((a - b) ** 2).sum())) for a, b in itertools.product(views, others))


def all_distances(vectors):
    num = len(vectors)
    found = np.zeros((num, num))
    for i, j in itertools.combinations(range(num), 2):
        found[i, j] = found[j, i] = least_distance(vectors[i], vectors[j])
    return found


def pairs_of(distances, labels, *, same):
    pairs = itertools.combinations(range(len(labels)), 2)
    return [distances[i, j] for i, j in pairs if (labels[i] == labels[j]) == same]
