"""The intra-class distance and the squared norm of the mean feature: loops over pairs, and samples of a population."""

import numpy as np
import pytest
import torch

from cssl_cli.features.intervals import bootstrap_weights
from cssl_cli.host.randomness import stream
from cssl_cli.theory.analysis import LossSettings, analyze_table
from cssl_cli.theory.divergence.mean_feature import mean_feature
from cssl_cli.theory.divergence.spread import spread
from cssl_cli.theory.losses.info_nce import info_nce
from cssl_cli.theory.table import FeatureTable


def build(features, labels, num_classes=3):
    labels = None if labels is None else torch.as_tensor(labels)
    names = [f"class {label}" for label in range(num_classes)]
    return FeatureTable.build(torch.as_tensor(features), labels, names)


def random_table(seed, labels, *, num_views=4, width=3):
    random = np.random.default_rng(seed)
    images = random.normal(size=(3, width))[labels] + random.normal(size=(len(labels), width))
    return images[:, None] + 0.5 * random.normal(size=(len(labels), num_views, width))


def over_pairs(features, labels, k, l, function):
    """Mean over augmented views of two distinct images, the first of class k, the second of class l."""
    views = features[:, 1:]
    pairs = [(i, j) for i in np.flatnonzero(labels == k) for j in np.flatnonzero(labels == l) if i != j]
    return np.mean([function(v, w) for i, j in pairs for v in views[i] for w in views[j]])


LABELS = np.array([0, 1, 1, 0, 2, 1, 0, 2, 0])


@pytest.mark.parametrize("num_views", [2, 4])
def test_the_intra_class_distance_is_a_mean_over_pairs_of_images(num_views):
    features = random_table(0, LABELS, num_views=num_views)
    found = spread(build(features, LABELS), None)
    expected = [over_pairs(features, LABELS, k, k, lambda v, w: ((v - w) ** 2).sum()) for k in range(3)]
    assert list(found["intra_class_per_class"].value.values()) == pytest.approx(expected)
    assert found["intra_class"].value == pytest.approx(np.dot(np.bincount(LABELS) / 9, expected))
    assert found["intra_class"].value == pytest.approx(2 * found["within_views"].value)


def test_the_mean_feature_is_a_mean_over_pairs_of_images_with_the_weights_of_their_classes():
    features, shares = random_table(1, LABELS), np.bincount(LABELS) / 9
    expected = sum(
        shares[k] * shares[l] * over_pairs(features, LABELS, k, l, np.dot) for k in range(3) for l in range(3)
    )
    assert mean_feature(build(features, LABELS), None)["squared_norm"].value == pytest.approx(expected)
    same = np.zeros(9, dtype=int)
    unlabelled = mean_feature(build(features, None), None)["squared_norm"].value
    assert unlabelled == pytest.approx(over_pairs(features, same, 0, 0, np.dot))
    assert unlabelled != pytest.approx(expected, rel=1e-2)


def test_the_norm_of_a_balanced_sample_is_that_of_the_population_on_average():
    random, labels = np.random.default_rng(2), np.repeat(np.arange(3), 3)
    centers = np.array([[3.0, 0, 0], [-1, 2, 0], [1, -2, 1]])
    values, naive = [], []
    for _ in range(300):
        features = centers[labels][:, None] + random.normal(size=(9, 1, 3)) + random.normal(size=(9, 3, 3))
        values.append(mean_feature(build(features, labels), None)["squared_norm"].value)
        naive.append(mean_feature(build(features, None), None)["squared_norm"].value)
    truth = (centers.mean(axis=0) ** 2).sum()
    error = 4 * np.std(values) / len(values) ** 0.5
    assert np.mean(values) == pytest.approx(truth, abs=error)
    assert np.mean(naive) < truth - 2 * error  # the share of pairs of one class is 2/8 there, not 1/3


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_the_interval_holds_the_norm_as_often_as_it_says(offset):
    random, labels = np.random.default_rng(3), np.repeat(np.arange(3), 12)
    centers = random.normal(size=(3, 6))
    centers += np.eye(6)[0] * offset - centers.mean(axis=0)
    generator, held, widths = stream(0, "bootstrap"), [], []
    for _ in range(60):
        features = centers[labels][:, None] + random.normal(size=(36, 1, 6)) + 0.5 * random.normal(size=(36, 3, 6))
        weights = bootstrap_weights(torch.as_tensor(labels), replicates=100, generator=generator)
        low, high = mean_feature(build(features, labels), weights)["squared_norm"].interval
        held.append(low <= offset**2 <= high)
        widths.append(high - low)
    assert np.mean(held) >= 0.87
    if offset == 0:
        # Twice the interval of the noise, whose standard deviation is that of |δ|², δ of variance 1.08/36 in 6 axes.
        assert np.mean(widths) < 2 * 4 * (2 * 6) ** 0.5 * 1.08 / 36


def test_what_cannot_be_told_of_the_mean_feature_is_absent():
    features = random_table(4, LABELS)
    assert mean_feature(build(features[:, :1], LABELS), None)["squared_norm"].reason.startswith("the mean feature")
    single = mean_feature(build(features[:4], LABELS[:4] % 2 + (np.arange(4) == 3)), None)["squared_norm"]
    assert "one of class" in single.reason
    weights = torch.ones(30, 9, dtype=torch.float64)
    assert mean_feature(build(features, LABELS), weights)["squared_norm"].interval is None  # class 2 has two images


def analyzed(features, temperature):
    return analyze_table(
        torch.as_tensor(features),
        torch.as_tensor(LABELS),
        class_names=["a", "b", "c"],
        epsilons=(0.5,),
        bootstrap=0,
        loss=LossSettings(temperature=temperature, batch_size=8),
        generator=stream(0, "bootstrap"),
        only=("info_nce", "info_nce_paper"),
    )


def test_the_papers_info_nce_stands_beside_that_of_another_temperature():
    features = random_table(5, LABELS)
    found = analyzed(features, 0.5)
    plain = info_nce(build(features, LABELS), temperature=1.0, max_images=300, generator=stream(0, "bootstrap"))
    assert set(found["info_nce_paper"]) == set(found["info_nce"])
    assert found["info_nce_paper"]["loss"].value == pytest.approx(plain["loss"].value)
    assert found["info_nce"]["loss"].value != pytest.approx(plain["loss"].value)
    same = analyzed(features, 1.0)
    assert {quantity.reason for quantity in same["info_nce_paper"].values()} == {"the temperature is 1: as info_nce"}
