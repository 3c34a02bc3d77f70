"""CLID: against loops, closed forms, the width of its interval, and what it refuses to say."""

import itertools
import math

import numpy as np
import pytest
import torch

from cssl_cli.features.intervals import bootstrap_weights
from cssl_cli.host.randomness import stream
from cssl_cli.theory.companions.clid import (
    LEARNABILITY,
    _intrinsic_dimension,
    _k_means,
    _squared_distances,
    clid,
    mean_accuracy,
)
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_clid as reference


def build(points, labels=None):
    """A table of clean images alone."""
    labels = None if labels is None else torch.as_tensor(labels)
    names = [f"class {label}" for label in range(1 if labels is None else int(labels.max()) + 1)]
    return FeatureTable.build(torch.as_tensor(np.asarray(points, dtype=float))[:, None], labels, names)


def measure(points, *, max_images=1000, seed=0, weights=None):
    return clid(build(points), max_images=max_images, generator=stream(seed, "halves"), weights=weights)


def dimension(points):
    return measure(points)["intrinsic_dimension"].value


# ---------------------------------------------------------------------- intrinsic dimension
@pytest.mark.parametrize("seed", range(10))
def test_the_dimension_agrees_with_loops(seed):
    random = np.random.default_rng(seed)
    points = random.normal(size=(int(random.integers(3, 40)), int(random.integers(1, 9)))) + 100
    assert dimension(points) == pytest.approx(reference.intrinsic_dimension(points), rel=1e-9)
    with_copies = np.concatenate([points, points[:3], points[:1]])
    assert dimension(with_copies) == pytest.approx(reference.intrinsic_dimension(points), rel=1e-9)


def test_four_points_on_a_line():
    # The ratios of 0, 1, 3 and 7 are 3/1, 2/1, 3/2 and 6/4; the largest is left out.
    x, y = np.log([1.5, 1.5, 2]), -np.log([1, 3 / 4, 2 / 4])
    assert dimension([[0], [1], [3], [7]]) == pytest.approx((x @ y) / (x @ x))


@pytest.mark.parametrize(("flat", "off_by"), [(1, 0.1), (2, 0.15), (5, 0.6)])
def test_a_uniform_sample_of_a_flat_has_its_dimension(flat, off_by):
    random = np.random.default_rng(flat)
    embedding, _ = np.linalg.qr(random.normal(size=(20, flat)))
    found = dimension(random.uniform(size=(1000, flat)) @ embedding.T)
    assert found == pytest.approx(flat, abs=off_by)


def test_close_pairs_far_from_the_origin_keep_their_precision():
    random = np.random.default_rng(0)
    points = random.normal(size=(20, 4))
    points = 1e4 + np.concatenate([points, points + 1e-6 * random.normal(size=points.shape)])
    assert dimension(points) == pytest.approx(reference.intrinsic_dimension(points), rel=1e-9)


def test_the_interval_is_as_wide_as_the_dimension_varies():
    """Weights of its own for each image would make it a quarter too narrow: neighbours have similar ratios."""
    random, values, widths, covered = np.random.default_rng(0), [], [], []
    for _ in range(150):
        points = torch.as_tensor(random.normal(size=(100, 2)))
        weights = bootstrap_weights(
            torch.zeros(100, dtype=torch.int64),
            replicates=100,
            generator=stream(int(random.integers(2**31)), "weights"),
        )
        found = _intrinsic_dimension(points, weights, strata=1)
        low, high = found.interval
        values.append(found.value)
        widths.append((high - low) / (2 * 1.984))  # Student's quantile, 99 degrees
        covered.append(low <= 2 <= high)
    assert 0.88 <= np.mean(widths) / np.std(values) <= 1.12
    assert np.mean(covered) >= 0.9


def test_what_has_no_dimension():
    simplex = np.eye(4)
    assert measure(simplex)["intrinsic_dimension"] == Absent("the two nearest others of every image are equally near")
    grid = [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [30.0, 7.0]]  # four of a square, one apart
    assert measure(grid)["intrinsic_dimension"] == Absent(
        "the two nearest others of nearly every image are equally near"
    )
    for points in (np.ones((6, 2)), [[0.0], [1.0]], [[0.0]]):
        found = measure(points)["intrinsic_dimension"]
        assert "needs three images with different features" in found.reason


# ---------------------------------------------------------------------- learnability
@pytest.mark.parametrize("seed", range(5))
def test_the_accuracy_is_the_mean_over_all_halves(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(4, 10))
    points, labels = random.normal(size=(count, 3)), random.integers(3, size=count)
    nearest = _squared_distances(torch.as_tensor(points)).fill_diagonal_(math.inf).argsort(dim=1)[:, :-1]
    expected = np.mean(reference.accuracy_of_halves(points, labels))
    assert mean_accuracy(torch.as_tensor(labels), nearest) == pytest.approx(expected)


def test_labels_that_have_nothing_to_do_with_the_points_are_learned_by_chance():
    points = np.random.default_rng(0).normal(size=(6, 2))
    nearest = _squared_distances(torch.as_tensor(points)).fill_diagonal_(math.inf).argsort(dim=1)[:, :-1]
    shuffled = [mean_accuracy(torch.tensor(labels), nearest) for labels in itertools.permutations([0, 0, 0, 1, 1, 2])]
    assert np.mean(shuffled) == pytest.approx((3 * 2 + 2 * 1) / (6 * 5))


@pytest.mark.parametrize(("count", "size"), [(16, 4), (100, 10)])
def test_tight_clusters_are_learned_but_for_images_without_a_trained_neighbour(count, size):
    random = np.random.default_rng(0)
    directions = np.repeat(np.eye(count // size), size, axis=0)
    found = measure(directions + 1e-3 * random.normal(size=directions.shape))
    alone = math.comb(count - 1 - count // 2, size - 1) / math.comb(count - 1, size - 1)
    assert found["cluster_learnability"].value == pytest.approx(1 - alone)
    assert found["learnability_by_clustering"].value == pytest.approx([1 - alone] * 5)
    assert found["cluster_chance"].value == pytest.approx((size - 1) / (count - 1))


@pytest.mark.parametrize("seed", range(5))
def test_the_clusters_are_those_of_k_means(seed):
    random = np.random.default_rng(seed)
    points = torch.as_tensor(random.normal(size=(40, 3)))
    clusters = _k_means(points, _squared_distances(points), 6, stream(seed, "k-means"))
    assert len(clusters.unique()) == 6
    assert reference.is_k_means(points.numpy(), clusters.numpy())


def test_learnability_is_of_directions_and_the_dimension_is_not():
    random = np.random.default_rng(0)
    points, lengths = random.normal(size=(30, 4)), random.uniform(1, 2, size=(30, 1))
    # From the mean outwards the order is another one, which is where k-means starts: both are means over starts.
    one, other = measure(points), measure(points * lengths)
    assert one["intrinsic_dimension"].value != other["intrinsic_dimension"].value
    assert one["cluster_learnability"].value == pytest.approx(other["cluster_learnability"].value, abs=0.15)


@pytest.mark.parametrize(("few", "count"), [(np.eye(3), 3), (np.linspace(1, 2, 9)[:, None] * [[0.6, 0.8]], 1)])
def test_too_few_directions_to_cluster(few, count):
    found = measure(np.repeat(few, 5, axis=0))
    for name in LEARNABILITY:
        assert found[name] == Absent(
            f"two clusters need four images with features in different directions, and there are {count}"
        )


def test_a_random_part_of_many_images_is_measured_and_told():
    points = np.random.default_rng(0).normal(size=(60, 3))
    found = measure(points, max_images=25)
    assert {quantity.sample for quantity in found.values()} == {(25, 1)}
    assert found == measure(points, max_images=25) == measure(points[::-1].copy(), max_images=25)
    assert found != measure(points, max_images=25, seed=1)
