"""Companion measures: against loops, closed forms, invariances, and what they refuse to say."""

import json
import math
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.features.intervals import bootstrap_interval, bootstrap_weights
from cssl_cli.host.randomness import stream
from cssl_cli.theory.companions.augmentation_confusion import chaos
from cssl_cli.theory.companions.effective_rank import effective_rank
from cssl_cli.theory.companions.lidar import lidar
from cssl_cli.theory.companions.neural_collapse import neural_collapse
from cssl_cli.theory.companions.uniformity import uniformity
from cssl_cli.theory.estimate import Absent, Estimate
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_companions as reference

KINDS = ("noise", "clusters", "collapsed", "outlier", "antipodal", "narrow", "zeros")


def build(features, labels=None):
    features = torch.as_tensor(np.asarray(features))
    labels = None if labels is None else torch.as_tensor(labels)
    num_classes = 1 if labels is None else int(labels.max()) + 1
    return FeatureTable.build(features, labels, [f"class {label}" for label in range(num_classes)])


def random_table(seed, *, kind="clusters", sizes=(4, 3, 5), num_views=4, width=5):
    """Features (N, V, D) of a kind, and shuffled labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = random.normal(size=(len(sizes), width))
    images = centers[labels] + random.normal(size=(len(labels), width))
    views = images[:, None] + 0.5 * random.normal(size=(len(labels), num_views, width))
    if kind == "noise":
        views = random.normal(size=views.shape)
    elif kind == "collapsed":
        views = np.repeat(centers[labels][:, None], num_views, axis=1)
    elif kind == "outlier":
        views[0] *= 50
    elif kind == "antipodal":
        views[::2] *= -1
    elif kind == "narrow":
        views[..., 1:] *= 1e-3
    elif kind == "zeros":
        views[0] = 0
    return views, labels


tables = st.builds(
    random_table,
    st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=4),
    num_views=st.integers(3, 5),
    width=st.integers(2, 7),
)


def confusion(table, baseline=None, *, max_images=1000, seed=0):
    return chaos(table, baseline, max_images=max_images, generator=stream(seed, "chaos"))


def everything(table, baseline=None):
    return {
        **uniformity(table),
        **effective_rank(table),
        **lidar(table),
        **confusion(table, baseline),
        **neural_collapse(table),
    }


def values(table, baseline=None):
    return {name: entry.value for name, entry in everything(table, baseline).items() if isinstance(entry, Estimate)}


def simplex(num_classes):
    centred = np.eye(num_classes) - 1 / num_classes
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


# ---------------------------------------------------------------------- against loops
@given(tables)
@settings(max_examples=30, deadline=None)
def test_every_measure_agrees_with_loops(drawn):
    features, labels = drawn
    found = everything(build(features, labels))
    assert found["uniformity"].value == pytest.approx(reference.uniformity(features, labels=labels), abs=1e-10)
    assert found["rankme"].value == pytest.approx(reference.rankme(features), rel=1e-6)
    assert found["nesum"].value == pytest.approx(reference.nesum(features), rel=1e-9)
    for name, summary in {"acr": min, "gacr_min": min, "gacr_max": max, "gacr_mean": lambda d: sum(d) / len(d)}.items():
        assert found[name].value == pytest.approx(reference.confusion(features, summary)), name
    nc1, ratio = reference.nc1_and_ratio(features, labels)
    assert found["nc1"].value == pytest.approx(nc1, rel=1e-6, abs=1e-12)
    assert found["ratio"].value == pytest.approx(ratio, rel=1e-9, abs=1e-12)
    pairs = reference.cdnv(features, labels)
    assert found["cdnv"].value == pytest.approx(np.mean(list(pairs.values())), rel=1e-9, abs=1e-12)
    assert found["cdnv_closest"].value == pytest.approx(max(pairs.values()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["noise", "clusters", "outlier", "antipodal", "zeros"])
def test_lidar_agrees_with_loops(seed, kind):
    features, _ = random_table(seed, kind=kind, num_views=3 + seed % 3, width=2 + seed % 6)
    assert lidar(build(features))["lidar"].value == pytest.approx(reference.lidar(features), rel=1e-6)


def test_lidar_of_features_beside_which_its_ridge_is_lost_is_absent():
    """Fewer views than directions: the covariance within images is singular but for the ridge."""
    features, _ = random_table(0, kind="clusters", num_views=3, width=40)
    assert lidar(build(features))["lidar"].value is not None
    quantity = lidar(build(features * 1e20))["lidar"]
    assert isinstance(quantity, Absent)
    assert "scale them down" in quantity.reason


@pytest.mark.parametrize("seed", range(10))
def test_without_ties_acr_is_the_share_of_views_whose_nearest_other_view_is_elsewhere(seed):
    features, _ = random_table(seed, kind="clusters")
    assert confusion(build(features))["acr"].value == pytest.approx(reference.nearest_view_elsewhere(features))


def test_the_hardest_pair_of_classes_is_named():
    features, labels = random_table(3)
    pairs = reference.cdnv(features, labels)
    k, l = max(pairs, key=pairs.get)
    assert neural_collapse(build(features, labels))["cdnv_closest"].classes == (f"class {k}", f"class {l}")


@pytest.mark.parametrize(
    ("width", "first", "last"), [(5, 1, 5), (12, 1, 12), (13, 11, 13), (30, 11, 30), (120, 11, 100)]
)
def test_alpha_req_fits_the_stated_range(width, first, last):
    features = np.random.default_rng(0).normal(size=(200, 1, width)) * np.arange(1, width + 1) ** -0.7
    found = effective_rank(build(features))["alpha_req"]
    assert found.value == pytest.approx(reference.alpha_req(features, first, last), rel=1e-9)
    assert f"eigenvalues {first} to {last}" in found.estimator


@pytest.mark.parametrize("labels", [None, np.arange(23) // 5 % 4])
def test_uniformity_in_blocks_and_under_weights(labels, monkeypatch):
    features = np.random.default_rng(0).normal(size=(23, 2, 3))
    table = build(features, labels)
    strata = torch.zeros(23, dtype=torch.int64) if labels is None else torch.as_tensor(labels)
    weights = bootstrap_weights(strata, replicates=40, generator=stream(0, "w"))
    monkeypatch.setattr(import_module("cssl_cli.theory.companions.uniformity"), "BLOCK_IMAGES", 7)
    found = uniformity(table, weights)["uniformity"]
    expected = torch.tensor([reference.uniformity(features, row, labels) for row in weights.numpy()])
    value = reference.uniformity(features, labels=labels)
    assert found.value == pytest.approx(value)
    degrees = 22 if labels is None else 19
    assert found.interval == pytest.approx(bootstrap_interval(value, expected, degrees=degrees), abs=1e-12)
    assert found.interval[0] < found.value < found.interval[1]


@pytest.mark.parametrize("near", [0, 1])
def test_the_interval_of_uniformity_holds_nothing_that_it_cannot_be(near):
    """Of three images, two at one point, or two at opposite ones and a third at either."""
    points = (
        np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]) if near else np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    )
    weights = bootstrap_weights(torch.zeros(3, dtype=torch.int64), replicates=200, generator=stream(0, "w"))
    found = uniformity(build(points[:, None]), weights)["uniformity"]
    low, high = found.interval
    assert -8 <= low < found.value < high <= 0


def test_confusion_in_blocks(monkeypatch):
    features, _ = random_table(0, sizes=(8, 7), num_views=5)
    whole = confusion(build(features))
    monkeypatch.setattr(import_module("cssl_cli.theory.companions.augmentation_confusion"), "BLOCK_NUMBERS", 1)
    assert confusion(build(features)) == whole


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_a_collapsed_simplex(num_classes):
    labels = np.repeat(np.arange(num_classes), 4)
    features = np.repeat(simplex(num_classes)[labels][:, None], 3, axis=1)
    found = values(build(features, labels))
    # Two images of the population: of one class at distance 0, of two at squared distance 2K/(K − 1).
    same = 1 / num_classes
    apart = math.exp(-4 * num_classes / (num_classes - 1))
    assert found["uniformity"] == pytest.approx(math.log(same + (1 - same) * apart))
    for name in ("rankme", "nesum"):  # K − 1 equal eigenvalues
        assert found[name] == pytest.approx(num_classes - 1, rel=1e-5)
    assert found["lidar"] == pytest.approx(num_classes - 1, rel=1e-5)
    for name in ("nc1", "ratio", "cdnv", "cdnv_closest"):
        assert found[name] == pytest.approx(0, abs=1e-20)
    for name in ("acr", "gacr_mean", "gacr_min", "gacr_max"):  # images of one class cannot be told apart
        assert found[name] == 1


def test_an_orthogonal_basis():
    features = np.repeat(np.eye(6)[:, None], 3, axis=1)
    found = values(build(features))
    assert found["uniformity"] == pytest.approx(-4)
    assert found["rankme"] == pytest.approx(6, rel=1e-5)
    assert found["nesum"] == pytest.approx(5)
    assert found["alpha_req"] == pytest.approx(0, abs=1e-9)
    for name in ("acr", "gacr_mean", "gacr_min", "gacr_max"):
        assert found[name] == 0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.7])
def test_a_power_law_gives_its_exponent(alpha):
    # Rows ±√(n λ_j) e_j have mean 0 and covariance proportional to diag(λ).
    width = 40
    scales = np.sqrt(np.arange(1, width + 1) ** -alpha)
    features = np.concatenate([np.diag(scales), -np.diag(scales)])[:, None]
    found = values(build(features))
    assert found["alpha_req"] == pytest.approx(alpha, abs=1e-9)
    assert found["nesum"] == pytest.approx((scales**2).sum())


def test_two_classes_on_a_line():
    # Class means ±a, deviations ±b about them: NC1 = b²/a² / 2, the ratio b²/a², CDNV 2b²/(2 · 4a²).
    a, b = 3.0, 0.5
    features = np.array([a + b, a - b, -a + b, -a - b]).reshape(4, 1, 1)
    found = values(build(features, [0, 0, 1, 1]))
    assert found["nc1"] == pytest.approx(b**2 / a**2 / 2)
    assert found["ratio"] == pytest.approx(b**2 / a**2)
    assert found["cdnv"] == found["cdnv_closest"] == pytest.approx(b**2 / (4 * a**2))


def test_confusion_by_the_nearest_the_mean_and_the_farthest_view():
    # On a circle, in degrees: image 0 has its views at 0 and 40, image 1 at 20 and 160. Every view has its nearest view
    # in the other image (160 is 120 from 40, and 140 from 20). By the farthest view only 20 is confused: its own image
    # is at 140, the other at 20.
    angles = np.radians([[0, 0, 40], [0, 20, 160]])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    found = values(build(features))

    def chord(degrees):
        return 2 * math.sin(math.radians(degrees) / 2)

    by_mean = [
        (chord(20) + chord(160)) / 2 <= chord(40),
        (chord(20) + chord(120)) / 2 <= chord(40),
        chord(20) <= chord(140),
        (chord(160) + chord(120)) / 2 <= chord(140),
    ]
    assert found["acr"] == 1
    assert found["gacr_mean"] == sum(by_mean) / 4
    assert found["gacr_max"] == 1 / 4


def test_ratios_to_the_baseline():
    apart = np.repeat(np.eye(4)[:, None], 3, axis=1)
    mixed = apart.copy()
    mixed[1] = mixed[0]  # images 0 and 1 coincide: half of the views are confused
    found = confusion(build(mixed), build(apart))
    assert found["acr"].value == 0.5
    for name in ("arc", "garc_mean", "garc_min", "garc_max"):
        assert found[name].value == 0.5
        assert confusion(build(apart), build(mixed))[name].value == 2
        assert confusion(build(apart), build(np.ones_like(apart)))[name] == Absent(
            "every view is confused under the baseline encoder"
        )
        assert isinstance(confusion(build(apart))[name], Absent)
        assert isinstance(confusion(build(apart), build(apart[:3]))[name], Absent)


# ---------------------------------------------------------------------- invariances and ranges
@given(tables)
@settings(max_examples=80, deadline=None)
def test_ranges(drawn):
    features, labels = drawn
    found = values(build(features, labels))
    n, _, width = features.shape
    assert -8 - 1e-12 <= found["uniformity"] <= 1e-12
    assert 1 - 1e-9 <= found["rankme"] <= min(n, width) * (1 + 1e-5)
    assert 1 - 1e-9 <= found["nesum"] <= min(n - 1, width) + 1e-9
    assert 1 - 1e-9 <= found.get("lidar", 1) <= min(n - 1, width) * (1 + 1e-4)
    for name in ("acr", "gacr_mean", "gacr_min", "gacr_max"):
        assert 0 <= found[name] <= 1
    assert found["acr"] == found["gacr_min"]
    assert found["cdnv"] <= found["cdnv_closest"]
    assert min(found["nc1"], found["ratio"], found["cdnv"]) >= 0


@given(tables)
@settings(max_examples=50, deadline=None)
def test_more_images_confuse_more(drawn):
    """With the images of a smaller table among those of a larger, none of its views gets less confused."""
    features, _ = drawn
    half = max(2, len(features) // 2)
    extended = np.concatenate([features[:half], features[half:]])
    for name in ("acr", "gacr_mean", "gacr_max"):
        few, many = (confusion(build(part))[name].value * len(part) for part in (features[:half], extended))
        assert few <= many + 1e-9


def test_a_subset_of_images_is_drawn_and_told():
    features, _ = random_table(0, sizes=(20, 20))
    found = confusion(build(features), build(features), max_images=10)
    assert found["acr"].sample == (10, 3)
    assert found["arc"].value == 1
    assert confusion(build(features), max_images=10) == confusion(build(features), max_images=10)
    assert len({confusion(build(features), max_images=10, seed=seed)["acr"].value for seed in range(5)}) > 1


# ---------------------------------------------------------------------- what is absent
def absent(found):
    return {name for name, entry in found.items() if isinstance(entry, Absent)}


CHAOS = {"acr", "gacr_mean", "gacr_min", "gacr_max", "arc", "garc_mean", "garc_min", "garc_max"}
COLLAPSE = {"nc1", "ratio", "cdnv", "cdnv_closest", "directional_cdnv", "directional_cdnv_worst"}
RATIOS = {"arc", "garc_mean", "garc_min", "garc_max"}


@pytest.mark.parametrize(
    ("features", "labels", "missing"),
    [
        (np.ones((6, 4, 3)), [0, 0, 0, 1, 1, 1], {"alpha_req", "nesum", "lidar", *RATIOS, *COLLAPSE}),
        (np.zeros((6, 4, 3)), [0, 0, 0, 1, 1, 1], {"rankme", "alpha_req", "nesum", "lidar", *RATIOS, *COLLAPSE}),
        (np.random.default_rng(0).normal(size=(6, 4, 3)), None, {*RATIOS, *COLLAPSE}),
        (np.random.default_rng(0).normal(size=(6, 4, 3)), [0] * 6, {*RATIOS, *COLLAPSE}),
        (np.random.default_rng(0).normal(size=(6, 4, 3)), [0, 0, 0, 0, 0, 1], {*RATIOS, *COLLAPSE}),
        (np.random.default_rng(0).normal(size=(6, 1, 3)), None, {"lidar", *CHAOS, *COLLAPSE}),
        (np.random.default_rng(0).normal(size=(6, 2, 3)), None, {"lidar", *CHAOS, *COLLAPSE}),
        (
            np.random.default_rng(0).normal(size=(1, 4, 3)),
            [0],
            {"uniformity", "alpha_req", "nesum", "lidar", *CHAOS, *COLLAPSE},
        ),
        (np.random.default_rng(0).normal(size=(6, 4, 2)), None, {"alpha_req", *RATIOS, *COLLAPSE}),
        (np.random.default_rng(0).normal(size=(4, 4, 300)), None, {*RATIOS, *COLLAPSE}),
    ],
    ids=[
        "equal",
        "zero",
        "no labels",
        "one class",
        "class of one",
        "clean only",
        "one view",
        "one image",
        "two wide",
        "wide",
    ],
)
def test_degenerate_tables_give_reasons_and_no_nan(features, labels, missing):
    found = everything(build(features, labels))
    assert absent(found) == missing
    json.dumps({name: entry.to_dict() for name, entry in found.items()}, allow_nan=False)
    assert all(entry.reason for entry in found.values() if isinstance(entry, Absent))


def test_equal_features_of_several_lengths():
    features = np.broadcast_to(np.array([0.6, 0.8]) * np.linspace(1, 2, 5).reshape(5, 1, 1), (5, 3, 2)).copy()
    found = values(build(features))
    assert found["uniformity"] == pytest.approx(0, abs=1e-12)  # of unit norm they coincide
    assert found["acr"] == found["gacr_mean"] == found["gacr_max"] == 1
    assert found["rankme"] == pytest.approx(1, abs=1e-5)


def test_coinciding_class_means_are_named():
    features = np.array([1.0, -1.0, 1.0, -1.0, 5.0, 6.0]).reshape(6, 1, 1)
    found = neural_collapse(build(features, [0, 0, 1, 1, 2, 2]))
    assert found["cdnv"] == found["cdnv_closest"] == Absent("the means of class 0 and class 1 coincide")
    assert isinstance(found["nc1"], Estimate)


def test_a_class_without_images_is_no_class():
    features, labels = random_table(1, sizes=(4, 4))
    without = neural_collapse(build(features, labels))
    labels[labels == 1] = 2
    with_gap = neural_collapse(build(features, labels))
    assert [entry.value for entry in with_gap.values()] == [entry.value for entry in without.values()]
    assert with_gap["cdnv_closest"].classes == ("class 0", "class 2")


def test_labels_change_the_label_free_measures_in_the_weights_of_pairs_alone():
    features, labels = random_table(0)
    with_labels, without = values(build(features, labels)), values(build(features))
    assert with_labels["uniformity"] != without.pop("uniformity")
    assert {name: with_labels[name] for name in without} == without


def test_direction_of_error_of_the_plug_in_measures():
    """Averaged over small samples, the plug-in NC1, ratio and CDNV lie below those of a large sample."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(3, 6))

    def sample(images_of_each):
        labels = np.repeat(np.arange(3), images_of_each)
        return (centers[labels] + random.normal(size=(len(labels), 6)))[:, None], labels

    large = values(build(*sample(3000)))
    small = [values(build(*sample(4))) for _ in range(80)]
    for name in ("nc1", "ratio", "cdnv"):
        assert np.mean([found[name] for found in small]) < large[name]
