"""InfoNCE with one negative: against loops over all views and images, its inequalities, closed forms, invariances."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.host.randomness import stream
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.losses.info_nce import LOSSES, OF_CLASSES, OF_PAIRS, info_nce
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_losses as reference

TEMPERATURES = (0.1, 0.3, 1.0)
seeds = st.integers(0, 2**32 - 1)


def loss_of(features, labels, *, temperature=1.0, max_images=300, seed=0, bootstrap=0):
    names = [] if labels is None else [f"class {k}" for k in range(max(int(labels.max()) + 1, 2))]
    table = FeatureTable.build(torch.as_tensor(features), None if labels is None else torch.as_tensor(labels), names)
    generator = stream(seed, "losses")
    return info_nce(table, temperature=temperature, max_images=max_images, generator=generator, bootstrap=bootstrap)


def value(quantities, name):
    return quantities[name].value


def pair_of(quantity):
    return tuple(int(name.split()[1]) for name in quantity.classes)


# ---------------------------------------------------------------------- against loops
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_loss_and_its_floor_agree_with_loops(seed, temperature):
    random = np.random.default_rng(seed)
    features, labels = reference.random_table(random, num_views=3 + seed % 2)
    measured = loss_of(features, labels, temperature=temperature)
    divergence = reference.info_nce_divergence(features, temperature, distinct=True, labels=labels)
    positives = [views[a] @ views[b] for views in features for a, b in itertools.permutations(range(1, len(views)), 2)]
    floor = reference.info_nce_floor(features, labels, temperature, distinct=True)
    assert value(measured, "divergence_part") == pytest.approx(divergence, abs=1e-12)
    assert value(measured, "alignment_part") == pytest.approx(-np.mean(positives) / temperature)
    assert value(measured, "loss") == pytest.approx(divergence - np.mean(positives) / temperature)
    assert value(measured, "collapse_floor") == pytest.approx(floor, abs=1e-12)
    assert value(measured, "collapse_gap") == pytest.approx(divergence - floor, abs=1e-12)
    assert value(measured, "mean_inner_product") == pytest.approx(reference.mean_inner_product(features, labels))


@pytest.mark.parametrize("seed", range(8))
def test_the_bounds_are_the_formulas(seed):
    features, labels = reference.random_table(np.random.default_rng(seed), num_views=4)
    temperature = 0.5
    measured = loss_of(features, labels, temperature=temperature)
    divergence = reference.info_nce_divergence(features, temperature, distinct=False)
    classes = sorted(set(labels.tolist()))
    p = {k: (labels == k).mean() for k in classes}
    a = {k: reference.positives(features, labels, k, distinct=False) for k in classes}
    square = {k: reference.between_images(features, labels, k, k, distinct=False) for k in classes}
    different = 1 - sum(share**2 for share in p.values())
    mean_positive = sum(p[k] * (1 - p[k]) * a[k] for k in classes) / different

    def mean_bound(squares):
        same = sum(p[k] ** 2 * math.log(math.exp(a[k] / temperature) + math.exp(squares[k] / temperature)) for k in p)
        return temperature * math.log(math.exp((divergence - same) / different) - math.exp(mean_positive / temperature))

    assert value(measured, "mean_bound") == pytest.approx(mean_bound(square), abs=1e-9)
    assert value(measured, "mean_bound_from_loss_alone") == pytest.approx(mean_bound(dict.fromkeys(p, 0)), abs=1e-9)
    pairs = [
        temperature * math.log(math.exp(divergence / (p[k] * p[l])) - math.exp(a[k] / temperature))
        for k, l in itertools.permutations(classes, 2)
    ]
    assert value(measured, "pair_bound") == pytest.approx(min(pairs))
    candidates = []
    for epsilon in [0.0] + [reference.diameter(views[1:]) for views in features]:
        good = 1 - epsilon**2 / 2
        if math.exp(good / temperature) + math.exp(-1 / temperature) < 1:
            continue
        rate = np.mean([reference.diameter(views[1:]) > epsilon + 1e-12 for views in features])
        tau = rate * math.log((1 + math.exp((1 + good) / temperature)) / 2)
        share = max(p[k] * p[l] for k, l in itertools.combinations(classes, 2))
        candidates.append(temperature * math.log(math.exp((divergence + tau) / share) - math.exp(good / temperature)))
    assert value(measured, "theorem_3") == pytest.approx(min(candidates), rel=1e-6)


# ---------------------------------------------------------------------- inequalities
def test_every_inequality_on_random_tables():
    spoke = {"mean_bound": 0, "mean_bound_from_loss_alone": 0}

    @given(seeds, st.sampled_from([3, 4]), st.sampled_from([0.05, *TEMPERATURES, 3.0]))
    @settings(max_examples=150)
    def check(seed, num_views, temperature):
        features, labels = reference.random_table(np.random.default_rng(seed), num_views=num_views)
        measured = loss_of(features, labels, temperature=temperature)
        assert value(measured, "divergence_part") >= value(measured, "collapse_floor") - 1e-10
        mean = value(measured, "mean_inner_product")
        assert mean <= value(measured, "mean_bound") + 1e-9
        assert value(measured, "mean_bound") <= value(measured, "mean_bound_from_loss_alone") + 1e-9
        for name in spoke:
            spoke[name] += not measured[name].vacuous
        means = np.stack([features[labels == k][:, 1:].mean(axis=(0, 1)) for k in range(labels.max() + 1)])
        for name in ("pair_bound", "theorem_3"):
            k, l = pair_of(measured[name])
            assert means[k] @ means[l] <= value(measured, name) + 1e-9

    check()
    assert all(count > 12 for count in spoke.values()), spoke


@given(seeds)
@settings(max_examples=100)
def test_inequalities_without_a_norm_condition(seed):
    random = np.random.default_rng(seed)
    features, labels = reference.random_table(random)
    features = features * random.uniform(0.2, 3, size=(*features.shape[:2], 1))
    measured = loss_of(features, labels, temperature=0.5)
    assert value(measured, "divergence_part") >= value(measured, "collapse_floor") - 1e-10
    assert value(measured, "mean_inner_product") <= value(measured, "mean_bound") + 1e-9
    means = np.stack([features[labels == k][:, 1:].mean(axis=(0, 1)) for k in range(labels.max() + 1)])
    k, l = pair_of(measured["pair_bound"])
    assert means[k] @ means[l] <= value(measured, "pair_bound") + 1e-9


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_a_collapsed_simplex_meets_floor_and_mean_bound(num_classes, temperature):
    features, labels = reference.collapsed(reference.simplex_vectors(num_classes, num_classes), [4] * num_classes)
    measured = loss_of(features, labels, temperature=temperature)
    assert value(measured, "collapse_gap") == pytest.approx(0, abs=1e-12)
    assert value(measured, "mean_inner_product") == pytest.approx(-1 / (num_classes - 1))
    assert value(measured, "mean_bound") == pytest.approx(-1 / (num_classes - 1), abs=1e-6)
    assert value(measured, "alignment_part") == pytest.approx(-1 / temperature)
    assert not measured["mean_bound"].vacuous


def test_collapse_of_any_kind_leaves_no_gap():
    centers = np.random.default_rng(0).normal(size=(3, 4))
    features, labels = reference.collapsed(centers, [2, 3, 5])
    assert value(loss_of(features, labels), "collapse_gap") == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("num_classes", "expected"), [(2, 5.6), (10, 130)])
def test_the_pair_form_is_vacuous_even_for_perfect_collapse(num_classes, expected):
    features, labels = reference.collapsed(reference.simplex_vectors(num_classes, num_classes), [4] * num_classes)
    measured = loss_of(features, labels)
    assert value(measured, "pair_bound") == pytest.approx(expected, rel=0.05)
    assert measured["pair_bound"].vacuous
    # R_0 = 0, so τ = 0 and the constant exp(1 − 0) is exp(a_k).
    assert value(measured, "theorem_3") == pytest.approx(value(measured, "pair_bound"), rel=1e-6)


def test_everything_at_one_point():
    features = np.tile([[[0.6, 0.8]]], (6, 3, 1))
    measured = loss_of(features, np.repeat([0, 1], 3), temperature=0.1)
    assert value(measured, "divergence_part") == pytest.approx(10 + math.log(2))
    assert value(measured, "loss") == pytest.approx(math.log(2))
    assert value(measured, "mean_bound") == pytest.approx(1, abs=1e-9)


def test_a_low_temperature_stays_finite():
    features, labels = reference.random_table(np.random.default_rng(3), sizes=[3, 3])
    measured = loss_of(features, labels, temperature=1e-3, bootstrap=20)
    json.dumps({name: quantity.to_dict() for name, quantity in measured.items()}, allow_nan=False)
    assert value(measured, "mean_inner_product") <= value(measured, "mean_bound")


# ---------------------------------------------------------------------- invariances
def numbers(measured):
    return [getattr(quantity, "value", None) for quantity in measured.values()]


def test_the_clean_view_changes_nothing():
    features, labels = reference.random_table(np.random.default_rng(4), num_views=4, sizes=[3, 4], kind="clusters")
    moved = features.copy()
    moved[:, 0] = 100
    assert numbers(loss_of(moved, labels)) == numbers(loss_of(features, labels))


def test_scaling_the_features_scales_the_temperature():
    features, labels = reference.random_table(np.random.default_rng(5), sizes=[3, 4])
    once, scaled = loss_of(features, labels), loss_of(3 * features, labels, temperature=9.0)
    assert value(scaled, "loss") == pytest.approx(value(once, "loss"))
    assert value(scaled, "mean_bound") == pytest.approx(9 * value(once, "mean_bound"))
    assert scaled["mean_bound"].vacuous == once["mean_bound"].vacuous
    assert value(scaled, "pair_bound") == pytest.approx(9 * value(once, "pair_bound"))
    assert "norm 3" in scaled["theorem_3"].reason


# ---------------------------------------------------------------------- the random subset
def test_a_large_table_is_met_by_a_subset_in_the_proportions_of_the_classes():
    random = np.random.default_rng(6)
    features, labels = reference.random_table(random, num_views=12, sizes=[400, 200, 200], width=3, kind="clusters")
    # Every image of a class at one point: the subset's alignment and floor show which classes it holds.
    features = np.repeat(reference.simplex_vectors(3, 3)[labels][:, None], 12, axis=1)
    measured = loss_of(features, labels, max_images=80)
    assert measured["loss"].sample == (80, 8)
    assert "random 80 of the images" in measured["loss"].estimator
    expected, expected_labels = reference.collapsed(reference.simplex_vectors(3, 3), [40, 20, 20])
    assert value(measured, "divergence_part") == pytest.approx(
        value(loss_of(expected, expected_labels), "divergence_part")
    )
    assert value(measured, "mean_inner_product") == pytest.approx(-0.5)


def test_the_subset_is_drawn_from_the_generator():
    features, labels = reference.random_table(np.random.default_rng(7), sizes=[30, 30], kind="noise")
    first, same, other = (loss_of(features, labels, max_images=20, seed=seed) for seed in (0, 0, 1))
    assert numbers(first) == numbers(same)
    assert value(first, "loss") != value(other, "loss")
    for measured in (first, other):
        assert value(measured, "mean_inner_product") <= value(measured, "mean_bound")


def test_subsets_centre_on_the_whole():
    features, labels = reference.random_table(np.random.default_rng(8), sizes=[20, 20], kind="clusters", width=3)
    whole = value(loss_of(features, labels), "divergence_part")
    parts = [value(loss_of(features, labels, max_images=20, seed=seed), "divergence_part") for seed in range(200)]
    # Ten of each class: 9/19 of the pairs are of one class, 19/39 in the whole.
    assert abs(np.mean(parts) - whole) < 0.02 * abs(whole)
    assert np.std(parts) > 0


def test_tight_classes_have_no_interval_to_speak_of():
    """Ten classes of ten equal images: every resample gives the number itself."""
    features = np.repeat((np.eye(10) - 0.1)[np.repeat(np.arange(10), 10)][:, None], 5, axis=1)
    measured = loss_of(features, np.repeat(np.arange(10), 10), temperature=0.5, bootstrap=100)
    for name in LOSSES:
        assert measured[name].interval == pytest.approx((value(measured, name),) * 2, abs=1e-12)


def test_pairs_of_a_class_count_as_often_as_they_meet_in_the_population():
    """Collapsed classes: 2 % of all pairs of two images are of one of 50 classes, however few images there are."""
    centers = reference.simplex_vectors(50, 50)
    for size in (2, 4):
        features, labels = reference.collapsed(centers, [size] * 50)
        same, apart = math.log(2 * math.e), math.log(math.e + math.exp(-1 / 49))
        assert value(loss_of(features, labels), "divergence_part") == pytest.approx(0.02 * same + 0.98 * apart)


def test_with_many_classes_random_ones_stand_for_all():
    """200 classes of three, 60 images: pairs of 30 classes, and the share of pairs of one class that of all."""
    features, labels = reference.collapsed(np.eye(200), [3] * 200)
    measured = loss_of(features, labels, max_images=60)
    assert measured["divergence_part"].sample.num_images == 60
    same, apart = math.log(2 * math.e), math.log(math.e + 1)
    assert value(measured, "divergence_part") == pytest.approx(same / 200 + apart * 199 / 200)
    assert value(measured, "collapse_gap") == pytest.approx(0, abs=1e-12)


def test_intervals_hold_the_estimate():
    features, labels = reference.random_table(np.random.default_rng(9), sizes=[10, 10], kind="clusters")
    for known in (labels, None):
        measured = loss_of(features, known, bootstrap=200)
        for name in LOSSES:
            low, high = measured[name].interval
            assert low < value(measured, name) < high
    few = loss_of(*reference.random_table(np.random.default_rng(9), sizes=[10, 2]), bootstrap=200)
    assert all(few[name].interval is None for name in LOSSES)


# ---------------------------------------------------------------------- what a table cannot give
@pytest.mark.parametrize(
    ("shape", "labels", "absent"),
    [
        ((6, 1, 2), [0, 0, 0, 1, 1, 1], LOSSES + OF_CLASSES + OF_PAIRS),
        ((6, 2, 2), [0, 0, 0, 1, 1, 1], LOSSES + OF_CLASSES + OF_PAIRS),
        ((1, 3, 2), [0], LOSSES + OF_CLASSES + OF_PAIRS),
        ((6, 3, 2), None, OF_CLASSES + OF_PAIRS),
        ((6, 3, 2), [1] * 6, OF_PAIRS),
        ((6, 3, 2), [0, 0, 0, 0, 0, 1], ("theorem_3",)),
    ],
)
def test_absences(shape, labels, absent):
    features = 2 * np.random.default_rng(0).normal(size=shape)
    measured = loss_of(features, None if labels is None else np.array(labels))
    assert set(measured) == {*LOSSES, *OF_CLASSES, *OF_PAIRS}
    assert {name for name, quantity in measured.items() if isinstance(quantity, Absent)} == set(absent)


def test_a_zero_vector_is_no_unit_vector():
    features, labels = reference.random_table(np.random.default_rng(0), sizes=[3, 3], kind="clusters")
    features[0, 1] = 0
    assert "norm 0" in loss_of(features, labels)["theorem_3"].reason
    features[0, 0], features[0, 1] = 0, features[0, 2]  # the clean view takes no part
    assert not isinstance(loss_of(features, labels)["theorem_3"], Absent)
