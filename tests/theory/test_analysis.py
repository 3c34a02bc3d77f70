"""The terms of the theory: against loops over pairs, closed forms, invariances, and what they refuse to say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.randomness import stream
from cssl_cli.theory.alignment.r_epsilon import diameters
from cssl_cli.theory.analysis import Absent, Estimate, LossSettings, analyze_table
from tests.support import reference

EPSILONS = (0.5, 1.0, 1.5, 2.5)


def class_names(num_classes):
    return [f"class {label}" for label in range(num_classes)]


def analyze(features, labels, *, num_classes=3, bootstrap=0, seed=0, epsilons=EPSILONS):
    return analyze_table(
        torch.as_tensor(features),
        None if labels is None else torch.as_tensor(labels),
        class_names=class_names(num_classes),
        epsilons=epsilons,
        bootstrap=bootstrap,
        loss=LossSettings(temperature=0.5, batch_size=64),
        generator=stream(seed, "bootstrap"),
        only=("alignment", "R_epsilon", "class_centers", "spread"),
    )


def random_table(seed, *, sizes=(4, 2, 3), num_views=4, width=3):
    """Features (N, V, D) of classes with their own means, images with their own offsets, and shuffled labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = random.normal(size=(len(sizes), width))
    images = centers[labels] + random.normal(size=(len(labels), width))
    return images[:, None] + 0.5 * random.normal(size=(len(labels), num_views, width)), labels


def collapsed_table(centers, *, images_of_each=3, num_views=3):
    """Every view of every image of a class at its centre (K, D)."""
    labels = torch.arange(len(centers)).repeat_interleave(images_of_each)
    return centers[labels].unsqueeze(1).repeat(1, num_views, 1), labels


def simplex(num_classes):
    """K unit vectors in K dimensions, every two at inner product −1/(K − 1)."""
    centred = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    return unit_norm(centred)


def values(analysis):
    """Every value of an analysis, and the reasons of those absent."""
    return {
        (term, name): quantity.reason if isinstance(quantity, Absent) else quantity.value
        for term, quantities in analysis.items()
        for name, quantity in quantities.items()
    }


def assert_same_values(one, other):
    for key, value in values(one).items():
        same = values(other)[key]
        if isinstance(value, str):
            assert same == value
        else:
            value, same = (list(v.values()) if isinstance(v, dict) else v for v in (value, same))
            np.testing.assert_allclose(same, value, rtol=1e-9, atol=1e-9, err_msg=str(key))


tables = st.builds(
    random_table,
    st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=4),
    num_views=st.integers(3, 5),
    width=st.integers(1, 4),
)


# ---------------------------------------------------------------------- against loops over pairs
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_views", [3, 5])
def test_every_term_agrees_with_loops_over_pairs(seed, num_views):
    sizes = (4, 2, 3)
    features, labels = random_table(seed, sizes=sizes, num_views=num_views)
    analysis, names = analyze(features, labels), class_names(3)
    classes = range(3)

    def by_class(function):
        return {names[k]: pytest.approx(function(features, labels, k), abs=1e-12) for k in classes}

    def matrix(function):
        return [[pytest.approx(function(features, labels, k, l), abs=1e-12) for l in classes] for k in classes]

    alignment, centers, spread = analysis["alignment"], analysis["class_centers"], analysis["spread"]
    assert alignment["unbiased"].value == pytest.approx(reference.alignment(features))
    assert alignment["plug_in"].value == pytest.approx(reference.alignment(features, distinct=False))
    assert alignment["per_class"].value == by_class(lambda f, y, k: reference.alignment(f[y == k]))
    assert analysis["R_epsilon"]["curve"].value == [reference.r_epsilon(features, e) for e in EPSILONS]
    assert analysis["R_epsilon"]["epsilons"].value == list(EPSILONS)
    assert analysis["R_epsilon"]["diameter_quantiles"].value["0.5"] == pytest.approx(
        np.median([reference.diameter(image) for image in features])
    )
    assert centers["priors"].value == {names[k]: pytest.approx(sizes[k] / sum(sizes)) for k in classes}
    assert centers["inner_products"].value == matrix(reference.inner_product)
    assert centers["squared_norms"].value == by_class(lambda f, y, k: reference.inner_product(f, y, k, k))
    assert centers["squared_distances"].value == matrix(reference.squared_distance)
    assert centers["mean_inner_product"].value == pytest.approx(reference.mean_inner_product(features, labels, 3))
    within = [reference.within(features, labels, k) for k in classes]
    within_views = [reference.within_views(features, labels, k) for k in classes]
    between = reference.between(features, labels, 3)
    assert spread["within_per_class"].value == by_class(reference.within)
    assert spread["within_views_per_class"].value == by_class(reference.within_views)
    assert spread["within"].value == pytest.approx(np.dot(sizes, within) / sum(sizes))
    assert spread["within_views"].value == pytest.approx(np.dot(sizes, within_views) / sum(sizes))
    assert spread["between"].value == pytest.approx(between)
    if between > 0:
        assert spread["ratio"].value == pytest.approx(np.dot(sizes, within) / sum(sizes) / between)


@given(tables)
@settings(max_examples=30, deadline=None)
def test_roots_and_extremes_follow_from_the_squares(table):
    features, labels = table
    num_classes = int(labels.max()) + 1
    centers = analyze(features, labels, num_classes=num_classes)["class_centers"]
    squares, products = (np.array(centers[name].value) for name in ("squared_distances", "inner_products"))
    pairs = [(k, l) for k in range(num_classes) for l in range(k)]
    closest = min(pairs, key=lambda pair: squares[pair])
    largest = max(pairs, key=lambda pair: products[pair])
    names = class_names(num_classes)
    assert np.allclose(centers["distances"].value, np.sqrt(squares.clip(min=0)))
    assert centers["closest_pair"].value == pytest.approx(math.sqrt(max(squares[closest], 0)))
    assert centers["closest_pair"].classes == (names[closest[1]], names[closest[0]])
    assert centers["largest_inner_product"].value == products[largest]
    assert centers["largest_inner_product"].classes == (names[largest[1]], names[largest[0]])
    for name, square in centers["squared_norms"].value.items():
        assert centers["norms"].value[name] == pytest.approx(math.sqrt(max(square, 0)))


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_collapsed_simplex(num_classes):
    analysis = analyze(*collapsed_table(simplex(num_classes)), num_classes=num_classes)
    centers, spread = analysis["class_centers"], analysis["spread"]
    least = -1 / (num_classes - 1)
    assert analysis["alignment"]["unbiased"].value == 0
    assert analysis["R_epsilon"]["curve"].value == [0.0] * len(EPSILONS)
    assert centers["mean_inner_product"].value == pytest.approx(least)
    assert centers["simplex_inner_product"].value == pytest.approx(least)
    assert centers["largest_inner_product"].value == pytest.approx(least)
    assert centers["closest_pair"].value == pytest.approx(math.sqrt(2 - 2 * least))
    assert list(centers["norms"].value.values()) == pytest.approx([1] * num_classes)
    assert spread["within"].value == pytest.approx(0, abs=1e-15)
    assert spread["within_views"].value == pytest.approx(0, abs=1e-15)
    assert spread["between"].value == pytest.approx(1)
    assert spread["ratio"].value == pytest.approx(0, abs=1e-15)


def test_orthogonal_classes():
    analysis = analyze(*collapsed_table(torch.eye(4).double()), num_classes=4)
    assert np.array(analysis["class_centers"]["inner_products"].value) == pytest.approx(np.eye(4))
    assert analysis["class_centers"]["distances"].value[0] == pytest.approx([0] + [math.sqrt(2)] * 3)
    assert analysis["spread"]["between"].value == pytest.approx(1 - 1 / 4)


def test_two_antipodal_views_have_alignment_four_and_diameter_two():
    view = torch.tensor([0.6, 0.8])
    features = torch.stack([view, view, -view]).repeat(5, 1, 1)
    analysis = analyze(features, None, epsilons=(1.99, 2.0))
    assert analysis["alignment"]["unbiased"].value == pytest.approx(4)
    assert analysis["alignment"]["plug_in"].value == pytest.approx(2)
    assert diameters(features.double()) == pytest.approx(np.full(5, 2.0))
    assert analysis["R_epsilon"]["curve"].value[0] == 1.0


def test_a_diameter_of_exactly_epsilon_does_not_exceed_it():
    features = torch.tensor([[[0.0], [0.5], [0.25]]])
    assert analyze(features, None, epsilons=(0.25, 0.5))["R_epsilon"]["curve"].value == [1.0, 0.0]


def test_unequal_classes_weigh_by_their_size():
    centers = torch.tensor([[1.0, 0], [0, 1], [-1, 0]]).double()
    labels = torch.tensor([0] * 6 + [1] * 2 + [2] * 2)
    analysis = analyze(centers[labels].unsqueeze(1).repeat(1, 3, 1), labels)
    shares = 0.6 * 0.2, 0.6 * 0.2, 0.2 * 0.2  # pairs 01, 02, 12 with inner products 0, −1, 0
    assert analysis["class_centers"]["mean_inner_product"].value == pytest.approx(-shares[1] / sum(shares))


# ---------------------------------------------------------------------- the clean view
def test_the_clean_view_enters_suprema_and_no_mean():
    features, labels = random_table(5)
    moved = features.copy()
    moved[:, 0] += 100
    before, after = analyze(features, labels), analyze(moved, labels)
    for term in ("alignment", "class_centers", "spread"):
        assert_same_values({term: before[term]}, {term: after[term]})
    assert after["R_epsilon"]["curve"].value == [1.0] * len(EPSILONS)


@given(tables)
@settings(max_examples=20, deadline=None)
def test_more_views_never_shrink_a_diameter(table):
    features = torch.as_tensor(table[0])
    assert (diameters(features) >= diameters(features[:, :-1])).all()


@given(tables)
@settings(max_examples=20, deadline=None)
def test_squared_diameter_is_at_most_m_minus_1_times_the_alignment_of_all_stored_views(table):
    features = table[0]
    stored = [reference.image_alignment(image, distinct=True) for image in features]
    bound = (features.shape[1] - 1) * np.array(stored)
    assert (diameters(torch.as_tensor(features)).square().numpy() <= bound * (1 + 1e-12)).all()


@given(tables)
@settings(max_examples=20, deadline=None)
def test_r_epsilon_falls_from_one_to_zero(table):
    features, _ = table
    largest = max(reference.diameter(image) for image in features)
    curve = analyze(features, None, epsilons=np.linspace(0, 1.001 * largest, 9).tolist())["R_epsilon"]["curve"].value
    assert curve == sorted(curve, reverse=True)
    assert (curve[0], curve[-1]) == (1.0, 0.0)


# ---------------------------------------------------------------------- invariances
@given(tables, st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_scaling_the_features_scales_squared_quantities_by_the_square(table, factor):
    features, labels = table
    num_classes = int(labels.max()) + 1
    before = analyze(features, labels, num_classes=num_classes)
    after = analyze(factor * features, labels, num_classes=num_classes, epsilons=[factor * e for e in EPSILONS])
    for term, name in (("alignment", "unbiased"), ("spread", "within"), ("spread", "between")):
        assert after[term][name].value == pytest.approx(factor**2 * before[term][name].value, rel=1e-9, abs=1e-12)
    assert after["class_centers"]["closest_pair"].value == pytest.approx(
        factor * before["class_centers"]["closest_pair"].value, rel=1e-6, abs=1e-9
    )


@given(tables)
@settings(max_examples=20, deadline=None)
def test_a_shift_leaves_distances_and_spreads(table):
    features, labels = table
    num_classes = int(labels.max()) + 1
    before = analyze(features, labels, num_classes=num_classes)
    after = analyze(features + 3, labels, num_classes=num_classes)
    for term, name in (
        ("alignment", "plug_in"),
        ("spread", "within"),
        ("spread", "within_views"),
        ("spread", "between"),
    ):
        assert after[term][name].value == pytest.approx(before[term][name].value, rel=1e-9, abs=1e-12)
    assert np.array(after["class_centers"]["squared_distances"].value) == pytest.approx(
        np.array(before["class_centers"]["squared_distances"].value), rel=1e-9, abs=1e-12
    )


def test_a_class_without_images_changes_nothing_but_its_own_entries():
    features, labels = random_table(2)
    three, four = analyze(features, labels), analyze(features, labels, num_classes=4)
    for term, names in (
        ("alignment", ("unbiased",)),
        ("class_centers", ("mean_inner_product", "closest_pair", "largest_inner_product", "simplex_inner_product")),
        ("spread", ("within", "within_views", "between", "ratio")),
    ):
        for name in names:
            assert four[term][name].value == pytest.approx(three[term][name].value)
    centers = four["class_centers"]
    assert centers["inner_products"].value[3] == [None] * 4
    assert centers["squared_distances"].value[3] == [None] * 4
    assert centers["squared_norms"].value["class 3"] is None
    assert centers["squared_norms"].absent == {"class 3": "has 0 of the 2 images needed"}
    assert four["alignment"]["per_class"].absent == {"class 3": "has 0 of the 1 images needed"}


# ---------------------------------------------------------------------- precision
@pytest.mark.parametrize("scale", [1e-5, 1e-7])
def test_tiny_differences_on_a_large_offset_keep_six_digits(scale):
    features, labels = random_table(1, sizes=(5, 4, 6))
    tiny, offset = analyze(scale * features, labels), analyze(1 + scale * features, labels)
    for term, name in (
        ("alignment", "unbiased"),
        ("spread", "within"),
        ("spread", "within_views"),
        ("spread", "between"),
    ):
        assert offset[term][name].value == pytest.approx(tiny[term][name].value, rel=1e-6)
    assert np.array(offset["class_centers"]["squared_distances"].value) == pytest.approx(
        np.array(tiny["class_centers"]["squared_distances"].value), rel=1e-6, abs=1e-9 * scale**2
    )
    assert offset["R_epsilon"]["diameter_quantiles"].value == pytest.approx(
        tiny["R_epsilon"]["diameter_quantiles"].value, rel=1e-6
    )


def test_float32_features_are_computed_with_in_float64():
    features, labels = random_table(3)
    single = torch.as_tensor(features, dtype=torch.float32)
    assert_same_values(analyze(single, labels), analyze(single.double(), labels))


# ---------------------------------------------------------------------- what cannot be said
def test_a_class_of_one_image_lacks_what_takes_two():
    features, labels = random_table(6, sizes=(4, 1, 3))
    analysis = analyze(features, labels, bootstrap=50)
    centers, spread = analysis["class_centers"], analysis["spread"]
    reason = {"class 1": "has 1 of the 2 images needed"}
    for name in ("squared_norms", "norms", "inner_products", "squared_distances", "distances"):
        assert centers[name].absent == reason
    assert centers["squared_norms"].value["class 1"] is None
    assert centers["inner_products"].value[1][1] is None
    assert centers["inner_products"].value[1][0] == pytest.approx(reference.inner_product(features, labels, 1, 0))
    assert centers["closest_pair"].classes == ("class 0", "class 2")
    assert centers["mean_inner_product"].value == pytest.approx(reference.mean_inner_product(features, labels, 3))
    assert centers["mean_inner_product"].interval is None
    for name in ("within", "within_views", "between", "ratio"):
        assert spread[name] == Absent("a spread needs two images of every class, and there is one of class 1")
    assert spread["within_per_class"].value["class 1"] is None
    assert spread["within_per_class"].value["class 0"] == pytest.approx(reference.within(features, labels, 0))
    assert analysis["alignment"]["per_class"].value["class 1"] == pytest.approx(
        reference.alignment(features[labels == 1])
    )


@pytest.mark.parametrize(
    ("num_views", "absent"),
    [
        (1, {"alignment", "R_epsilon", "class_centers", "spread"}),
        (2, {"alignment", "within", "ratio", "within_per_class"}),
    ],
)
def test_too_few_views_give_a_reason_and_never_a_nan(num_views, absent):
    features, labels = random_table(7, num_views=num_views)
    analysis = analyze(features, labels, bootstrap=20)
    for term, quantities in analysis.items():
        for name, quantity in quantities.items():
            assert isinstance(quantity, Absent) == bool({term, name} & absent), (term, name)
            assert "view" in quantity.reason if isinstance(quantity, Absent) else True


def test_one_augmented_view_is_enough_for_centres_and_the_spread_of_views():
    features, labels = random_table(8, num_views=2)
    analysis = analyze(features, labels)
    assert analysis["class_centers"]["squared_norms"].value["class 0"] == pytest.approx(
        reference.inner_product(features, labels, 0, 0)
    )
    assert analysis["spread"]["within_views_per_class"].value["class 0"] == pytest.approx(
        reference.within_views(features, labels, 0)
    )


def test_a_single_class_has_no_pairs():
    features, labels = random_table(9, sizes=(5,))
    analysis = analyze(features, labels, num_classes=1)
    for term, names in (
        ("class_centers", ("closest_pair", "mean_inner_product", "largest_inner_product", "simplex_inner_product")),
        ("spread", ("between", "ratio")),
    ):
        assert {analysis[term][name].reason for name in names} == {"the images are all of one class"}
    assert analysis["spread"]["within"].value == pytest.approx(reference.within(features, labels, 0))


def test_a_ratio_to_no_measurable_spread_is_absent():
    # Both classes hold the same two images, so that the noise of the centres exceeds their distance, which is 0.
    image = torch.tensor([[0.0], [1.0]]).unsqueeze(1).repeat(1, 3, 1)
    analysis = analyze(torch.cat([image, image]), [0, 0, 1, 1], num_classes=2)
    assert analysis["spread"]["between"].value < 0
    assert analysis["spread"]["ratio"].reason == "the spread between classes is not above its own noise"
    assert analysis["class_centers"]["closest_pair"].value == 0


def test_counts_name_the_views_that_entered():
    features, labels = collapsed_table(simplex(3), num_views=5)
    analysis = analyze(features, labels)
    for term, num_views in (("alignment", 4), ("class_centers", 4), ("spread", 4), ("R_epsilon", 5)):
        for quantity in analysis[term].values():
            assert isinstance(quantity, Estimate)
            assert quantity.sample == (len(labels), num_views)
