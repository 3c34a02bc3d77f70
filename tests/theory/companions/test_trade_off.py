"""The trade-off of Cui, Wen and Wang: against loops, closed forms, its direction of error and its intervals."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import t

from cssl_cli.theory.class_geometry import within_class_distances
from cssl_cli.theory.companions.trade_off import trade_off
from cssl_cli.theory.estimate import Absent, Estimate, Sample
from cssl_cli.theory.table import FeatureTable
from tests.support.concentrations import measure as measure_concentration

NAMES = ("trade_off", "same_image", "same_class")


def measure(features, labels=None):
    names = [f"class {label}" for label in range(1 if labels is None else max(labels) + 1)]
    labels = None if labels is None else torch.as_tensor(labels)
    table = FeatureTable.build(torch.as_tensor(np.asarray(features, dtype=float)), labels, names)
    return trade_off(table, [] if labels is None else within_class_distances(table))


def values(found):
    return [found[name].value for name in NAMES]


# ---------------------------------------------------------------------- the reference: loops over images and views
def distance(v, w):
    return sum((a - b) ** 2 for a, b in zip(v, w, strict=True)) ** 0.5


def by_loops(features, labels):
    largest = [max(distance(v, w) for v, w in itertools.product(image, image)) for image in features]
    least = []
    for own, image in enumerate(features):
        others = [j for j in range(len(features)) if j != own and labels[j] == labels[own]]
        if others:
            least.append(min(distance(v, w) for j in others for v in image for w in features[j]))
    same_image, same_class = sum(largest) / len(largest), sum(least) / len(least)
    return [same_image + same_class, same_image, same_class]


@pytest.mark.parametrize("seed", range(10))
def test_it_agrees_with_loops(seed):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(4), [3, 5, 1, 2])).tolist()
    features = random.normal(size=(11, int(random.integers(2, 5)), int(random.integers(1, 6))))
    found = measure(features, labels)
    assert values(found) == pytest.approx(by_loops(features.tolist(), labels))
    assert [found[name].sample.num_images for name in NAMES] == [10, 11, 10]
    in_pixels = measure_concentration(features, labels)
    several = [place for place, label in enumerate(labels) if label != 2]  # those of which a main part is sought
    of_several = by_loops(features[several].tolist(), [labels[place] for place in several])
    assert values(in_pixels) == pytest.approx(of_several)
    for share in (7, 3):  # of the images for pairs of different classes: class by class, then
        assert values(measure_concentration(features, labels, between_images=share)) == pytest.approx(of_several)


def test_four_images_on_a_line():
    """Views at 0 and 3, and at 4 and 5, of one class; of the other at 0 and 0, and at 10 and 12."""
    features = [[[0], [3]], [[4], [5]], [[0], [0]], [[10], [12]]]
    found = measure(features, [0, 0, 1, 1])
    assert values(found) == [(3 + 1 + 0 + 2) / 4 + (1 + 1 + 10 + 10) / 4, 1.5, 5.5]
    assert [found[name].errs for name in NAMES] == ["either", "low", "high"]


def test_a_stronger_augmentation_trades_one_distance_for_the_other():
    """Images at 0 and 1 with views up to s to the right: s within an image, 1 − s between the two."""
    for strength in (0.0, 0.25, 0.75):
        features = [[[0.0], [strength]], [[1.0], [1 + strength]]]
        assert values(measure(features, [0, 0])) == pytest.approx([1, strength, 1 - strength])


# ---------------------------------------------------------------------- what it errs by, and its interval
def population(random, num_images, num_views):
    """Two classes on the unit circle."""
    labels = np.arange(num_images) % 2
    angles = (
        2 * labels[:, None] + random.normal(size=(num_images, 1)) + 0.3 * random.normal(size=(num_images, num_views))
    )
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1), labels.tolist()


def test_more_views_raise_one_and_lower_the_other_and_more_images_lower_the_latter():
    def mean(num_images, num_views):
        drawn = (population(np.random.default_rng(seed), num_images, num_views) for seed in range(20))
        return np.mean([values(measure(features, labels)) for features, labels in drawn], axis=0)

    few, views, images = mean(20, 2), mean(20, 6), mean(60, 2)
    assert views[1] > 1.5 * few[1]
    assert views[2] < 0.6 * few[2]
    assert images[1] == pytest.approx(few[1], rel=0.1)
    assert images[2] < 0.6 * few[2]


def interval_by_loops(features, labels, place):
    """Jackknife: of every class its images, left out one at a time; classes keep their weights."""
    classes = [[image for image, own in zip(features, labels, strict=True) if own == label] for label in set(labels)]
    variance = 0.0
    for images in classes:
        left = [images[:j] + images[j + 1 :] for j in range(len(images))]
        means = [by_loops(others, [0] * len(others))[place] for others in left]
        share = len(images) / len(features)
        variance += share**2 * (len(images) - 1) ** 2 / len(images) * np.var(means, ddof=1)
    half = t.ppf(0.975, len(features) - len(classes)) * variance**0.5
    value = by_loops(features, labels)[place]
    return pytest.approx((max(0, value - half), value + half))


def test_the_interval_agrees_with_loops():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [4, 6]).tolist()
    features = random.normal(size=(10, 3, 2)).tolist()
    found, in_pixels = measure(features, labels), measure_concentration(np.array(features), labels)
    for place, name in enumerate(NAMES):
        assert found[name].interval == interval_by_loops(features, labels, place)
        assert in_pixels[name].interval == pytest.approx(found[name].interval)
    unlabelled = measure(features)["same_image"]
    assert unlabelled.interval == interval_by_loops(features, [0] * 10, 1)


def test_intervals_hold_the_mean_over_tables_of_the_size():
    drawn = [measure(*population(np.random.default_rng(seed), 40, 3)) for seed in range(200)]
    for name in NAMES:
        mean = np.mean([found[name].value for found in drawn])
        held = np.mean([found[name].interval[0] <= mean <= found[name].interval[1] for found in drawn])
        assert held >= 0.91, name


# ---------------------------------------------------------------------- what there is not
def test_the_refusals():
    views = np.random.default_rng(0).normal(size=(4, 3, 2))
    unlabelled = measure(views)
    assert isinstance(unlabelled["same_image"], Estimate)
    assert unlabelled["same_image"].interval is not None
    assert unlabelled["same_image"].sample == Sample(4, 3)
    assert {unlabelled[name] for name in ("trade_off", "same_class")} == {Absent("the images have no labels")}
    single = measure(views, [0, 1, 2, 3])
    reason = Absent("the distance to another image of a class takes a class with two images")
    assert (single["trade_off"], single["same_class"]) == (reason, reason)
    clean = measure(views[:, :1], [0, 0, 1, 1])
    reason = Absent("the largest distance of two views of an image takes two stored views")
    assert (clean["trade_off"], clean["same_image"]) == (reason, reason)
    assert isinstance(clean["same_class"], Estimate)
    pairs = measure(views, [0, 0, 1, 1])
    assert [pairs[name].interval for name in NAMES] == [None] * 3  # a class of two images without one has no pair
