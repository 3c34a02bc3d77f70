"""The cross-correlation: identities, every bound on random tables, where the bounds are met, what cannot be given."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.losses.cross_correlation import (
    ALIGNMENT,
    LOSSES,
    OF_PAIRS,
    PLUG_IN,
    WITHIN,
    cross_correlation,
    pair_bounds,
    standardized_table,
)
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_losses as reference

seeds = st.integers(0, 2**32 - 1)


def correlation_of(features, labels, *, standardize=True):
    features = torch.as_tensor(features)
    if standardize:
        features = standardized_table(features)
    names = [] if labels is None else [f"class {k}" for k in range(max(int(labels.max()) + 1, 2))]
    return cross_correlation(FeatureTable.build(features, None if labels is None else torch.as_tensor(labels), names))


def value(quantities, name):
    return quantities[name].value


def standardized(random, **options):
    features, labels = reference.random_table(random, **options)
    return standardized_table(torch.as_tensor(features)).numpy(), labels


def moments(features, labels):
    """Shares, centres, M (V form), Σ_W, by loops."""
    classes = sorted(set(labels.tolist()))
    p = np.array([(labels == k).mean() for k in classes])
    centers = np.stack([features[labels == k][:, 1:].mean(axis=(0, 1)) for k in classes])
    m = reference.cross_correlation(features, distinct=False)
    return p, centers, m, reference.within_covariance(features, labels)


# ---------------------------------------------------------------------- standardisation
def test_standardised_coordinates_have_mean_0_and_variance_1_over_augmented_views():
    random = np.random.default_rng(0)
    features = random.normal(size=(20, 4, 5)) * [1, 10, 1e-3, 1e5, 1] + [0, 3, 1, -1e6, 7]
    features[:, 0] += 50
    features[:, 1:, 4] = 0.1  # constant but in the clean view
    kept = torch.as_tensor(features).clone()
    out = standardized_table(torch.as_tensor(features)).numpy()
    augmented = out[:, 1:].reshape(-1, 5)
    assert augmented.mean(axis=0) == pytest.approx(np.zeros(5), abs=1e-9)
    assert augmented.var(axis=0) == pytest.approx([1, 1, 1, 1, 0], abs=1e-9)
    assert (out[:, :, 4] == 0).all()
    assert out[:, 0, 0] == pytest.approx((features[:, 0, 0] - features[:, 1:, 0].mean()) / features[:, 1:, 0].std())
    assert torch.equal(kept, torch.as_tensor(features))
    assert standardized_table(torch.as_tensor(features[:, :1]))[:, 0].std(
        dim=0, correction=0
    ).tolist() == pytest.approx([1] * 5)
    assert standardized_table(torch.as_tensor(features).float()).dtype == torch.float64


def test_constant_coordinates_are_counted():
    features, labels = reference.random_table(np.random.default_rng(0), sizes=[3, 3], width=3)
    padded = np.concatenate([features, np.full((*features.shape[:2], 2), 0.3)], axis=2)
    one, other = correlation_of(features, labels), correlation_of(padded, labels)
    assert value(one, "constant_coordinates") == 0
    assert value(other, "constant_coordinates") == 2
    for name in (*LOSSES, "invariance_plug_in", "redundancy_loss_plug_in"):
        assert value(other, name) == pytest.approx(value(one, name) + 2)
    assert value(other, "alignment") == pytest.approx(value(one, "alignment"))


# ---------------------------------------------------------------------- against loops
@pytest.mark.parametrize("seed", range(8))
def test_losses_and_norms_agree_with_loops(seed):
    features, labels = standardized(np.random.default_rng(seed), num_views=4)
    measured = correlation_of(features, labels, standardize=False)
    width = features.shape[2]
    for suffix, distinct in (("", True), ("_plug_in", False)):
        m = reference.cross_correlation(features, distinct=distinct)
        of_diagonal = of_all = 0.0
        if distinct:  # less the noise of M; a class of two images or fewer cannot be resampled by itself
            sizes = [(labels == k).sum() for k in set(labels.tolist())]
            parts, strata = reference.correlation_parts(features, m), labels if min(sizes) > 2 else 0 * labels
            diagonals = np.array([np.diag(part) for part in parts])
            of_diagonal = reference.correlation_noise(diagonals, strata) + reference.diagonal_bias(features, m, strata)
            of_all = reference.correlation_noise(parts, strata)
        of_diagonal, of_all = ((1 - np.diag(m)) ** 2).sum() - of_diagonal, ((m - np.eye(width)) ** 2).sum() - of_all
        assert value(measured, "invariance" + suffix) == pytest.approx(of_diagonal, abs=1e-9)
        assert value(measured, "redundancy_loss" + suffix) == pytest.approx(of_all, abs=1e-9)
    assert value(measured, "alignment") == pytest.approx(reference.alignment(features[:, 1:]), abs=1e-9)
    p, centers, _, within = moments(features, labels)
    assert value(measured, "within_covariance_norm") == pytest.approx(np.linalg.norm(within), abs=1e-9)
    pairs = list(itertools.permutations(range(len(p)), 2))
    squares = sum(p[k] * p[l] * (centers[k] @ centers[l]) ** 2 for k, l in pairs)
    assert value(measured, "rms_inner_product") == pytest.approx(
        math.sqrt(squares / sum(p[k] * p[l] for k, l in pairs)) / width, abs=1e-12
    )
    largest = max(pairs, key=lambda pair: abs(centers[pair[0]] @ centers[pair[1]]))
    product = centers[largest[0]] @ centers[largest[1]]
    assert value(measured, "largest_inner_product") == pytest.approx(abs(product) / width)
    assert value(measured, "centred_inner_product") == pytest.approx(abs(product + 1) / width)
    expected = tuple(f"class {sorted(set(labels.tolist()))[k]}" for k in sorted(largest))
    for name in ("largest_inner_product", "pair_bound", "theorem_4_bound", "centred_pair_bound"):
        assert measured[name].classes == expected


@given(seeds, st.booleans())
@settings(max_examples=250)
def test_the_identities(seed, standardize):
    features, labels = reference.random_table(np.random.default_rng(seed))
    if standardize:
        features = standardized_table(torch.as_tensor(features)).numpy()
    p, centers, m, within = moments(features, labels)
    num_classes, width = centers.shape
    u = (np.sqrt(p)[:, None] * centers).T
    assert np.abs(m - u @ u.T - within).max() < 1e-8
    gram = u.T @ u
    left = ((u @ u.T - np.eye(width)) ** 2).sum()
    assert left == pytest.approx(((gram - np.eye(num_classes)) ** 2).sum() + width - num_classes, abs=1e-8)
    off = ((gram - np.diag(np.diag(gram))) ** 2).sum()
    redundancy = ((m - np.eye(width)) ** 2).sum()
    exact = (
        redundancy
        - 2 * ((m - np.eye(width)) * within).sum()
        + (within**2).sum()
        - (width - num_classes)
        - ((np.diag(gram) - 1) ** 2).sum()
    )
    assert off == pytest.approx(exact, abs=1e-8)


# ---------------------------------------------------------------------- inequalities
def test_every_bound_on_random_tables():
    spoke = dict.fromkeys(("rms_bound", "pair_bound", "centred_pair_bound", "alignment_bound"), 0)

    @given(seeds, st.sampled_from([3, 4]), st.sampled_from([True, True, False]))
    @settings(max_examples=200)
    def check(seed, num_views, centred):
        features, labels = reference.random_table(np.random.default_rng(seed), num_views=num_views)
        measured = correlation_of(features, labels, standardize=centred)
        assert value(measured, "rms_inner_product") <= value(measured, "rms_bound") + 1e-9
        assert value(measured, "largest_inner_product") <= value(measured, "pair_bound") + 1e-9
        assert value(measured, "pair_bound") * math.sqrt(2) <= value(measured, "theorem_4_bound") + 1e-9
        assert value(measured, "alignment") <= value(measured, "alignment_bound") + 1e-9
        if centred:
            assert value(measured, "centred_inner_product") <= value(measured, "centred_pair_bound") + 1e-9
        else:
            assert isinstance(measured["centred_pair_bound"], Absent)
        for name in spoke:
            spoke[name] += getattr(measured[name], "vacuous", True) is False
        p, centers, m, within = moments(features, labels) if seed % 5 == 0 else (None,) * 4
        if p is not None:
            width = features.shape[2]
            for k, l in itertools.combinations(range(len(p)), 2):
                bounds = pair_bounds(
                    ((m - np.eye(width)) ** 2).sum(),
                    np.linalg.norm(within),
                    torch.tensor(p[k] * p[l]),
                    width=width,
                    num_classes=len(p),
                )
                assert abs(centers[k] @ centers[l]) <= bounds["pair_bound"] + 1e-9
                assert bounds["pair_bound"] * math.sqrt(2) <= bounds["theorem_4_bound"] + 1e-9

    check()
    assert all(count > 4 for count in spoke.values()), spoke


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("num_classes", [2, 3, 5, 10])
def test_a_collapsed_simplex_meets_the_centred_bound(num_classes):
    # Rotated and whitened, so that M = I on the K − 1 dimensions that the simplex spans: every loss is 0.
    simplex = reference.simplex_vectors(num_classes, num_classes)
    axes = np.linalg.svd(simplex)[2][: num_classes - 1]
    centers = simplex @ axes.T
    centers *= math.sqrt((num_classes - 1) / (centers**2).sum(axis=1).mean())
    features, labels = reference.collapsed(centers, [3] * num_classes)
    measured = correlation_of(features, labels, standardize=False)
    width = num_classes - 1
    for name in ("invariance", "redundancy_loss", "redundancy_loss_plug_in", "within_covariance_norm", "alignment"):
        assert value(measured, name) == pytest.approx(0, abs=1e-9)
    assert value(measured, "rms_inner_product") == pytest.approx(1 / width)
    assert value(measured, "rms_bound") == pytest.approx(1 / width, rel=1e-6)
    assert value(measured, "centred_inner_product") == pytest.approx(0, abs=1e-9)
    assert value(measured, "centred_pair_bound") == pytest.approx(0, abs=1e-4)


def test_collapsed_orthogonal_classes():
    features, labels = reference.collapsed(2 * np.eye(4), [2] * 4)  # p_k ‖μ_k‖² = 1, so that UᵀU = I
    measured = correlation_of(features, labels, standardize=False)
    for name in ("redundancy_loss_plug_in", "rms_inner_product", "rms_bound", "largest_inner_product", "pair_bound"):
        assert value(measured, name) == pytest.approx(0, abs=1e-9)


def test_independent_coordinates_and_views():
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 9, 6))
    measured = correlation_of(features, random.integers(0, 2, size=400))
    # Distinct views share nothing: M = 0, L₁ = d, the alignment that of independent vectors.
    assert value(measured, "invariance") == pytest.approx(6, rel=0.02)
    assert value(measured, "redundancy_loss") == pytest.approx(6, rel=0.02)
    assert value(measured, "alignment") == pytest.approx(12, rel=0.02)
    assert value(measured, "alignment_bound") == pytest.approx(12, rel=0.02)


def test_lemma_4_1_is_met_when_all_coordinates_are_alike():
    # Each coordinate ±1, the sign kept from view to view in the same share of the images.
    base = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    features = np.stack([base, base, base], axis=1)
    features[[0, 7], 2] *= -1  # of opposite signs, so that the mean stays 0
    measured = correlation_of(features, None)
    assert value(measured, "alignment") == pytest.approx(3 * 4 * 2 / 8)
    assert value(measured, "alignment_bound") == pytest.approx(value(measured, "alignment"))


@pytest.mark.parametrize("ratio", np.linspace(0.001, 0.2, 50))
def test_perfect_decorrelation_contradicts_theorem_1(ratio):
    """K/d ≤ 1/5: ρ ≥ 1 − √((1 + K/d)/2) puts the threshold below −K/d ≤ μ_k·μ_l/d."""
    rho = 1 - math.sqrt((1 + ratio) / 2)
    assert 1 - rho - math.sqrt(2 * rho) - (1 - ratio) / 2 < -ratio


def test_the_caution_is_given_where_it_applies():
    features, labels = reference.random_table(np.random.default_rng(0), sizes=[3, 3], width=10)
    assert "Theorem 1" in correlation_of(features, labels)["pair_bound"].estimator
    assert "Theorem 1" not in correlation_of(features[:, :, :9], labels)["pair_bound"].estimator


# ---------------------------------------------------------------------- invariances
def numbers(measured):
    return [getattr(quantity, "value", None) for quantity in measured.values()]


def test_what_changes_nothing():
    random = np.random.default_rng(4)
    features, labels = reference.random_table(random, num_views=4, sizes=[3, 4], width=3, kind="clusters")
    before = numbers(correlation_of(features, labels))
    moved = features[:, [0, 3, 1, 2]][:, :, [2, 0, 1]] * [1, -2, 30] + [5, 0, 1]
    moved[:, 0] = 100
    assert numbers(correlation_of(moved, labels)) == pytest.approx(before, abs=1e-9)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    plain = correlation_of(features, labels, standardize=False)
    rotated = correlation_of(features @ rotation, labels, standardize=False)
    for name in ("redundancy_loss_plug_in", "within_covariance_norm", "rms_bound", "pair_bound", "alignment"):
        assert value(rotated, name) == pytest.approx(value(plain, name), abs=1e-9)


# ---------------------------------------------------------------------- what a table cannot give
EVERYTHING = LOSSES + PLUG_IN + ALIGNMENT + WITHIN + OF_PAIRS
CENTRED = ("centred_inner_product", "centred_pair_bound")


@pytest.mark.parametrize(
    ("shape", "labels", "standardize", "absent"),
    [
        ((6, 1, 2), [0, 0, 0, 1, 1, 1], True, EVERYTHING),
        ((8, 2, 2), [0, 0, 0, 0, 1, 1, 1, 1], True, LOSSES + ALIGNMENT),
        ((6, 3, 2), None, True, WITHIN + OF_PAIRS),
        ((6, 3, 2), [1] * 6, True, OF_PAIRS),
        ((8, 3, 2), [0, 0, 0, 0, 1, 1, 1, 1], True, ()),
        ((6, 3, 2), [0, 0, 0, 0, 0, 1], False, (*CENTRED, "alignment_bound", "within_covariance_norm_unbiased")),
        ((6, 3, 2), [0, 0, 0, 0, 0, 1], True, ("within_covariance_norm_unbiased",)),
        ((1, 3, 2), [0], True, (*LOSSES, "within_covariance_norm_unbiased", *OF_PAIRS)),
    ],
)
def test_absences(shape, labels, standardize, absent):
    features = 3 * np.random.default_rng(0).normal(size=shape)
    measured = correlation_of(features, None if labels is None else np.array(labels), standardize=standardize)
    assert set(measured) == set(EVERYTHING)
    assert {name for name, quantity in measured.items() if isinstance(quantity, Absent)} == set(absent)
    json.dumps({name: quantity.to_dict() for name, quantity in measured.items()}, allow_nan=False)


def test_constant_features():
    measured = correlation_of(np.ones((4, 3, 2)), np.array([0, 0, 1, 1]))
    assert value(measured, "constant_coordinates") == 2
    assert value(measured, "rms_inner_product") == 0
    json.dumps({name: quantity.to_dict() for name, quantity in measured.items()}, allow_nan=False)
