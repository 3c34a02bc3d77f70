"""Intervals of the cross-correlation: influences against matrices and small steps, the noise taken out, coverage."""

import itertools
import math

import numpy as np
import pytest
import torch

from cssl_cli.features.intervals import bootstrap_weights
from cssl_cli.host.randomness import stream
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.losses.cross_correlation import LOSSES, cross_correlation, standardized_table
from cssl_cli.theory.losses.cross_correlation_intervals import _excess, loss_norms, within_norm
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_losses as reference

NAMES = (*LOSSES, "within_covariance_norm_unbiased")


def build(features, labels=None):
    names = [] if labels is None else [f"class {k}" for k in range(int(max(labels)) + 1)]
    labels = None if labels is None else torch.as_tensor(labels)
    return FeatureTable.build(standardized_table(torch.as_tensor(features)), labels, names)


def draws(strata, *, replicates=400, seed=0):
    return bootstrap_weights(torch.as_tensor(strata), replicates=replicates, generator=stream(seed, "bootstrap"))


def random_features(seed, *, num=14, views=4, width=3, mix=0.7):
    random = np.random.default_rng(seed)
    latent = random.normal(size=(num, 1, width)) @ (np.eye(width) + mix * random.normal(size=(width, width)))
    return latent + 0.8 * random.normal(size=(num, views, width))


# ---------------------------------------------------------------------- the reference
def resampled(features, labels, weights):
    """L₁, L₂ and ‖Σ_W‖² of weighted images, standardised again, in loops."""
    augmented = features[:, 1:]
    num, _, width = augmented.shape
    total = weights.sum()
    mean = sum(w * views_of.mean(axis=0) for w, views_of in zip(weights, augmented, strict=True)) / total
    variance = (
        sum(w * ((views_of - mean) ** 2).mean(axis=0) for w, views_of in zip(weights, augmented, strict=True)) / total
    )
    scaled = (augmented - mean) / np.sqrt(variance)
    m = np.zeros((width, width))
    for w, views_of in zip(weights, scaled, strict=True):
        pairs = list(itertools.permutations(views_of, 2))
        m += w / total * sum(np.outer(a, b) for a, b in pairs) / len(pairs)
    within = np.zeros((width, width))
    for k in set(labels):
        rows = labels == k
        means, own = scaled[rows].mean(axis=1), weights[rows]
        center = own @ means / own.sum()
        within += (means - center).T * own @ (means - center) / own.sum() * rows.sum() / num
    return ((1 - np.diag(m)) ** 2).sum(), ((m - np.eye(width)) ** 2).sum(), (within**2).sum()


def influences(features, labels):
    """How fast each of the three moves with the weight of an image, times N, by small steps; within classes for Σ_W."""
    num, step, found = len(features), 1e-5, []
    for i in range(num):
        sides = []
        for sign in (1, -1):
            weights = np.ones(num)
            weights[i] += sign * step
            sides.append(np.array(resampled(features, labels, weights)))
        found.append(num * (sides[0] - sides[1]) / (2 * step))
    return np.array(found)


def norms_of(features, labels):
    """The three estimates behind the intervals, of features standardised first."""
    table = build(features, labels)
    m = torch.as_tensor(reference.cross_correlation(table.features.numpy(), distinct=True))
    found = loss_norms(table.features[:, 1:], m, torch.as_tensor(labels))
    means = table.features[:, 1:].mean(dim=1)
    centers = torch.stack([means[labels == k].mean(dim=0) for k in range(max(labels) + 1)])
    mean_squares = table.features[:, 1:].square().mean(dim=1)
    return table, m.numpy(), found, within_norm(means - centers[labels], mean_squares, torch.as_tensor(labels))


@pytest.mark.parametrize("seed", range(4))
def test_the_influences_are_derivatives_and_the_noise_that_of_the_mean_of_the_parts(seed):
    features, labels = random_features(seed), np.arange(14) % 2
    table, m, found, within = norms_of(features, labels)
    slopes = influences(features, labels)
    values = resampled(features, labels, np.ones(14))
    parts = reference.correlation_parts(table.features.numpy(), m)
    for place, (name, of) in enumerate(
        {"invariance": np.array([np.diag(part) for part in parts]), "redundancy_loss": parts}.items()
    ):
        assert found[name].plug_in == pytest.approx(values[place])
        assert 2 * found[name].along.numpy() == pytest.approx(slopes[:, place], abs=1e-5)
        noise = reference.correlation_noise(of, labels)
        assert found[name].noise.sum().item() == pytest.approx(noise)
        bias = reference.diagonal_bias(table.features.numpy(), m, labels) if name == "invariance" else 0
        assert found[name].value == pytest.approx(values[place] - noise - bias)
    # Weights within a class move nothing together; the divisor is n_k − 1, 7/6 of both sides of the square; an image's
    # own part is taken out.
    e = table.features[:, 1:].numpy().mean(axis=1)
    e = np.stack([row - e[labels == labels[i]].mean(axis=0) for i, row in enumerate(e)]) * np.sqrt(7 / 6)
    q, covariance = (table.features[:, 1:].numpy() ** 2).mean(axis=1), e.T @ e / 14
    for k in range(2):
        own = [
            ((np.outer(e[i], e[i]) - (q[i][:, None] * covariance + covariance * q[i]) / 2) ** 2).sum() / 12
            for i in np.flatnonzero(labels == k)
        ]
        difference = within.influence.numpy()[labels == k] + 2 * np.array(own) - (7 / 6) ** 2 * slopes[labels == k, 2]
        assert difference == pytest.approx(np.full(7, difference.mean()), abs=1e-4)


def test_blocks_change_nothing(monkeypatch):
    features, labels = random_features(0), np.arange(14) % 2
    before = norms_of(features, labels)[2]
    monkeypatch.setattr("cssl_cli.theory.losses.cross_correlation_intervals.BLOCK_NUMBERS", 20)
    after = norms_of(features, labels)[2]
    for name in LOSSES:
        assert after[name].value == pytest.approx(before[name].value)
        assert after[name].noise.numpy() == pytest.approx(before[name].noise.numpy())


def test_the_squared_norm_of_a_covariance_is_unbiased():
    """Skewed data in five dimensions, samples of five: plugged in, ‖S‖² is three times as large as ‖Σ‖²."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(5, 5))
    truth = np.linalg.norm(mixing @ mixing.T) ** 2
    plug_in, unbiased = [], []
    for _ in range(8000):
        x = (random.exponential(size=(5, 5)) - 1) @ mixing.T
        x -= x.mean(axis=0)
        plug_in.append(np.linalg.norm(x.T @ x / 4) ** 2)
        unbiased.append(plug_in[-1] - _excess(torch.as_tensor(x)))
    error = np.std(unbiased) / math.sqrt(len(unbiased))
    assert abs(np.mean(unbiased) - truth) < 4 * error
    assert np.mean(plug_in) - truth > 20 * error


# ---------------------------------------------------------------------- closed forms and invariances
def test_perfectly_aligned_views_have_no_invariance_to_resample():
    # Every M_ii is 1 by the standardisation: a resample that were not standardised again would differ.
    images = np.random.default_rng(0).normal(size=(30, 1, 4)).repeat(3, axis=1)
    found = cross_correlation(build(images), draws([0] * 30))
    assert found["invariance"].interval == pytest.approx((0, 0), abs=1e-12)


def test_collapsed_classes_have_a_within_covariance_of_zero():
    features, labels = reference.collapsed(np.eye(3), [4, 5, 6])
    found = cross_correlation(build(features, labels), None, draws(labels))
    assert found["within_covariance_norm_unbiased"].interval == pytest.approx((0, 0), abs=1e-6)


def test_order_and_sign_of_coordinates_and_views_change_nothing():
    features, labels = random_features(1), np.arange(14) % 2
    weights = draws(labels), draws(labels)
    moved = features[:, [0, 3, 1, 2]][:, :, [2, 0, 1]] * [1, -2, 30] + [5, 0, 1]
    for name in NAMES:
        before, after = (cross_correlation(build(x, labels), *weights)[name].interval for x in (features, moved))
        assert after == pytest.approx(before)


@pytest.mark.parametrize("seed", range(20))
def test_every_interval_holds_its_value(seed):
    random = np.random.default_rng(seed)
    num, width = int(random.integers(8, 60)), int(random.integers(1, 40))
    labels = np.arange(num) % 2
    table = build(random_features(seed, num=num, width=width, mix=random.uniform()), labels)
    found = cross_correlation(table, draws(labels), draws(labels))
    for name in NAMES:
        if name == "redundancy_loss" and num < 2 * width:
            assert found[name].interval is None
            continue
        low, high = found[name].interval
        assert low <= found[name].value <= high


def test_too_few_images_or_resamples_have_none():
    features, labels = random_features(2, num=8), [0, 0, 0, 0, 0, 1, 1, 1]
    found = cross_correlation(build(features, labels), draws(labels), draws(labels))
    assert isinstance(found["within_covariance_norm_unbiased"], Absent)
    assert found["invariance"].interval is not None
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    few = cross_correlation(build(features, labels), *2 * [draws(labels, replicates=10)])
    assert all(few[name].interval is None for name in NAMES)
    two = cross_correlation(build(features[:2]), draws([0] * 2))
    assert all(two[name].interval is None for name in LOSSES)
    assert all(cross_correlation(build(features, labels))[name].interval is None for name in NAMES)


# ---------------------------------------------------------------------- coverage
@pytest.mark.parametrize(("width", "images", "tables"), [(3, 80, 250), (24, 60, 120), (6, 30, 250), (48, 60, 120)])
def test_the_intervals_cover_the_population(width, images, tables):
    """Gaussian images x about ± a class mean, views x + noise: all three are known, standardised as they are."""
    random, noise, num_views = np.random.default_rng(0), 0.7, 3
    mixing = np.eye(width) + 0.4 * random.normal(size=(width, width)) / np.sqrt(width)
    mean = 0.6 * random.normal(size=width)
    inner = mixing.T @ mixing
    scale = np.sqrt(np.diag(inner) + mean**2 + noise**2)
    m = (inner + np.outer(mean, mean)) / np.outer(scale, scale)
    within = (inner + noise**2 / num_views * np.eye(width)) / np.outer(scale, scale)
    truth = {
        "invariance": ((1 - np.diag(m)) ** 2).sum(),
        "redundancy_loss": ((m - np.eye(width)) ** 2).sum(),
        "within_covariance_norm_unbiased": np.linalg.norm(within),
    }
    labels = np.arange(images) % 2
    right = dict.fromkeys(truth, 0)
    for seed in range(tables):
        x = random.normal(size=(images, width)) @ mixing + np.where(labels, 1, -1)[:, None] * mean
        features = x[:, None] + noise * random.normal(size=(images, 1 + num_views, width))
        weights = draws(labels, replicates=200, seed=seed)
        found = cross_correlation(build(features, labels), weights, weights)
        for name in list(right):
            if found[name].interval is not None:
                low, high = found[name].interval
                right[name] += low <= truth[name] <= high
            else:  # too few images for so many coordinates
                assert name == "redundancy_loss"
                assert width == 48
                right.pop(name)
    # 250 tables leave a standard error of 1.4 %, 120 of 2 %; ‖Σ_W‖ of wide features is held more often.
    assert all(count / tables >= 0.90 for count in right.values()), right
    assert all(right[name] / tables <= 0.99 for name in LOSSES if name in right), right
