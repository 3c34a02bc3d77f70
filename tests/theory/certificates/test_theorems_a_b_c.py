"""Certificates A, B, C, their union and Cantelli's bound: against loops, and every inequality between them."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.randomness import stream
from cssl_cli.theory.certificates.any_theorem import combined
from cssl_cli.theory.certificates.center_error import nearest_center_error
from cssl_cli.theory.certificates.population import population
from cssl_cli.theory.certificates.theorem_a import certificate_a, certify_a
from cssl_cli.theory.certificates.theorem_b import certificate_b, certify_b
from cssl_cli.theory.certificates.theorem_c import certificate_c, certify_c
from cssl_cli.theory.certificates.variance_bound import variance_bound
from cssl_cli.theory.class_geometry import class_geometry, misclassified, within_class_distances
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_certificates as reference


class Certified:
    """All of a table's certificates."""

    def __init__(self, features, labels, *, num_classes=None):
        num_classes = num_classes or int(max(labels)) + 1
        names = [f"class {label}" for label in range(num_classes)]
        self.table = FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)
        self.geometry = class_geometry(self.table)
        self.within = within_class_distances(self.table)

    @functools.cached_property
    def a(self):
        return certify_a(self.geometry, self.within)

    @functools.cached_property
    def b(self):
        return certify_b(self.geometry, self.within)

    @functools.cached_property
    def c(self):
        return certify_c(self.geometry)

    @functools.cached_property
    def wrong(self):
        geometry = self.geometry
        return misclassified(self.table.features[:, 0], geometry.positions, geometry.centers)

    @functools.cached_property
    def terms(self):
        masks = {"A": self.a.certified, "B": self.b.certified, "C": self.c.certified}
        return {
            "error": nearest_center_error(self.geometry),
            "A": certificate_a(self.geometry, self.a),
            "B": certificate_b(self.geometry, self.within, self.b),
            "C": certificate_c(self.geometry, self.c),
            "combined": combined(self.geometry, masks),
            "Cantelli": variance_bound(self.geometry),
        }

    def value(self, term, name="error_bound"):
        return self.terms[term][name].value


def simplex(num_classes):
    return unit_norm(torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes)


def collapsed(centers, *, images_of_each=4, num_views=3):
    labels = torch.arange(len(centers)).repeat_interleave(images_of_each)
    return centers[labels].unsqueeze(1).repeat(1, num_views, 1), labels


instances = st.integers(0, 2**32 - 1).map(reference.random_instance)


# ---------------------------------------------------------------------- against loops
@pytest.mark.parametrize("seed", range(25))
def test_certificates_agree_with_loops(seed):
    features, labels = reference.random_instance(seed)
    if seed % 5 == 4:  # off the sphere
        features = features * np.random.default_rng(seed).uniform(0.5, 2, size=(*features.shape[:2], 1))
    found, mu = Certified(features, labels), reference.centers(features, labels)
    assert found.wrong.numpy().tolist() == reference.errors(features, labels).tolist()
    assert found.value("error", "error") == reference.errors(features, labels).mean()
    for index in range(len(labels)):
        reach = reference.reach_b(features, labels, index)
        assert found.b.reach[index].item() == pytest.approx(reach, abs=1e-5)
        if len(features[index]) > 1 or reach > 1e-3:
            margin = reference.margin(reach, mu, labels[index], [reference.norm(features[index, 0])])
            assert found.b.margins[index].item() == pytest.approx(margin, abs=1e-4)
        for num_views in range(1, features.shape[1] + 1):
            assert found.c.margins_by_views[num_views - 1, index].item() == pytest.approx(
                reference.margin_c(features, labels, index, num_views), abs=1e-12
            )
    assert found.value("Cantelli") == pytest.approx(reference.cantelli(features, labels), abs=1e-9)
    masks = {"A": found.a.certified, "B": found.b.certified, "C": found.c.certified}
    margins = {"B": found.b.margins, "C": found.c.margins_by_views[-1]}
    for label in range(int(max(labels)) + 1):
        own = [index for index in range(len(labels)) if labels[index] == label]
        for name, mask in masks.items():
            share = sum(bool(mask[index]) for index in own) / len(own)
            assert found.value(name, "certified_share_per_class")[f"class {label}"] == pytest.approx(share)
        for name, of_images in margins.items():
            median = np.median([of_images[index].item() for index in own])
            assert found.value(name, "margin_median_per_class")[f"class {label}"] == pytest.approx(median)
    for label, good in enumerate(found.a.sets):
        images = [features[index] for index in good.images.tolist()]
        assert {labels[index] for index in good.images.tolist()} == {label}
        assert all(reference.diameter(image) <= good.epsilon + 1e-12 for image in images)
        assert all(
            reference.augmented_distance(one, other) <= good.delta + 1e-12
            for place, one in enumerate(images)
            for other in images[:place]
        )
        assert good.share == pytest.approx(len(images) / sum(labels == label))
        reach = reference.reach_a(features, labels, label, good.share, good.delta, good.epsilon)
        lengths = [reference.norm(image[0]) for image in reference.class_of(features, labels, label)]
        if np.ptp(lengths) < 1e-9 and reach > 1e-3:
            assert good.margin == pytest.approx(reference.margin(reach, mu, label, lengths[:1]), abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_a_finds_the_largest_certified_set_of_its_grid(seed):
    """Small tables: all the grid's points, with exact cliques."""
    features, labels = reference.random_instance(seed)
    found, mu = Certified(features, labels), reference.centers(features, labels)
    for label, good in enumerate(found.a.sets):
        images = reference.class_of(features, labels, label)
        diameters = [reference.diameter(image) for image in images]
        apart = [[reference.augmented_distance(a, b) for b in images] for a in images]
        pairs = [distance for place, row in enumerate(apart) for distance in row[:place]] or [0.0]
        best = 0.0
        for delta in np.quantile(pairs, [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1], method="higher"):
            for epsilon in np.quantile(diameters, [0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1], method="higher"):
                tight = [place for place, diameter in enumerate(diameters) if diameter <= epsilon + 1e-12]
                adjacent = [[apart[a][b] <= delta + 1e-12 for b in tight] for a in tight]
                share = len(reference.largest_clique(adjacent)) / len(images)
                reach = reference.reach_a(features, labels, label, share, delta, epsilon)
                margin = reference.margin(reach, mu, label, [1.0])
                assert abs(margin) > 1e-5, "too close to call"
                best = max(best, share) if margin > 0 else best
        assert good.share * good.certified == pytest.approx(best)


# ---------------------------------------------------------------------- the inequalities
def test_no_certificate_is_wrong_about_a_point_and_none_beats_the_error():
    spoke = dict.fromkeys(("A", "B", "C", "Cantelli"), 0)
    for seed in range(160):
        found = Certified(*reference.random_instance(seed))
        right, error = ~found.wrong, found.wrong.double().mean().item()
        for certified in (found.b.certified, *found.c.certified_by_views):
            assert right[certified].all(), seed
        assert error <= variance_bound(found.geometry)["error_bound"].value + 1e-9
        if seed // len(reference.KINDS) % 4:
            continue  # A takes longer
        assert right[found.a.certified].all(), seed
        assert found.b.certified[found.a.certified].all(), seed  # B ≤ A
        assert found.value("error", "error") == error
        for name in ("A", "B", "C", "combined", "Cantelli"):
            assert error <= found.value(name) + 1e-9, (seed, name)
        for name in ("A", "B", "C"):
            assert found.value("combined") <= found.value(name)
        by_views = found.value("C", "by_views")
        assert all(error <= bound for bound in by_views)
        assert by_views == sorted(by_views)
        for name in spoke:
            spoke[name] += not found.terms[name]["error_bound"].vacuous
    # On most of these 40 tables they say something, and the sharper ones the more often.
    assert 20 < spoke["A"] <= spoke["B"] <= spoke["C"]


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_no_certificate_is_wrong_off_the_sphere(scale):
    for seed in range(30):
        features, labels = reference.random_instance(seed)
        random = np.random.default_rng(seed)
        features = scale * features * random.uniform(0.5, 1.5, size=(*features.shape[:2], 1))
        if seed % 10 == 0:
            features[0] = 0
        found = Certified(features, labels)
        for certified in (found.a.certified, found.b.certified, *found.c.certified_by_views):
            assert (~found.wrong)[certified].all(), seed
        assert found.b.certified[found.a.certified].all()


def test_b_certifies_whatever_a_would_at_any_thresholds():
    random, times = np.random.default_rng(0), 0
    for seed in range(50):
        features, labels = reference.random_instance(seed)
        found, mu = Certified(features, labels), reference.centers(features, labels)
        for label in range(len(mu)):
            places = np.flatnonzero(labels == label)
            delta, epsilon = random.uniform(0, 0.8, size=2)
            tight = [i for i in places if reference.diameter(features[i]) <= epsilon]
            adjacent = [[reference.augmented_distance(features[i], features[j]) <= delta for j in tight] for i in tight]
            good = [tight[place] for place in reference.largest_clique(adjacent)]
            reach = reference.reach_a(features, labels, label, len(good) / len(places), delta, epsilon)
            if good and reference.margin(reach, mu, label, [1.0]) > 1e-5:
                times += 1
                assert found.b.certified[good].all()
    assert times > 15


@given(instances)
@settings(max_examples=50, deadline=None)
def test_c_certifies_what_the_uncapped_chain_certifies_by_the_ball(instance):
    features, labels = instance
    found, mu = Certified(features, labels), reference.centers(features, labels)
    geometry = found.geometry
    for own, images in enumerate(geometry.members):
        chain = geometry.eccentricity[images].unsqueeze(1) + found.within[own] + geometry.radius[images]
        chain.diagonal().copy_(geometry.offset[images])
        half = min(reference.norm(mu[own] - other) for k, other in enumerate(mu) if k != own) / 2
        assert found.c.certified[images[chain.mean(dim=1) < half - 1e-6]].all()


@given(instances)
@settings(max_examples=60, deadline=None)
def test_a_subset_of_the_views_gives_sharper_directional_margins(instance):
    found = Certified(*instance)
    assert (found.c.margins_by_views.diff(dim=0) <= 1e-12).all()


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_collapsed_simplex_is_certified_whole(num_classes):
    found = Certified(*collapsed(simplex(num_classes)))
    half = np.sqrt(2 + 2 / (num_classes - 1)) / 2
    for name in ("A", "B", "C", "combined"):
        assert found.value(name) == 0
        assert found.terms[name]["error_bound"].vacuous is False
    assert found.value("Cantelli") == pytest.approx(0, abs=1e-12)
    assert list(found.value("B", "half_distance_per_class").values()) == pytest.approx([half] * num_classes)
    for name in ("eccentricity", "distance", "radius"):
        assert list(found.value("B", f"{name}_per_class").values()) == pytest.approx([0] * num_classes, abs=1e-12)
    for name in ("B", "C"):
        assert list(found.value(name, "margin_quantiles").values()) == pytest.approx([half] * 5, abs=1e-5)
        assert list(found.value(name, "margin_median_per_class").values()) == pytest.approx(
            [half] * num_classes, abs=1e-5
        )
    assert list(found.value("A", "good_share_per_class").values()) == [1.0] * num_classes
    assert list(found.value("A", "certified_per_class").values()) == [1.0] * num_classes
    assert list(found.value("A", "margin_per_class").values()) == pytest.approx([half] * num_classes, abs=1e-5)


def test_a_bound_is_judged_against_the_name_of_the_largest_class():
    """Eight images of one class, two of the other; nothing is certified of the two: 0.2 is what one name would have."""
    features, labels = collapsed(torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64), images_of_each=8)
    found = Certified(features[:10], labels[:10])
    assert found.value("error", "chance") == pytest.approx(0.2)
    assert found.terms["C"]["error_bound"].vacuous is False
    features[8:10, 0] = torch.tensor([0.0, 1.0], dtype=torch.float64)  # as near to the one centre as to the other
    found = Certified(features[:10], labels[:10])
    for name in ("C", "combined", "Cantelli"):
        assert found.value(name) >= 0.2
        assert found.terms[name]["error_bound"].vacuous is True
    # Of one class nothing is known without a bound: the other's, 0, says something.
    assert found.value("C", "error_bound_per_class") == {"class 0": 0.0, "class 1": 1.0}
    assert found.terms["C"]["error_bound_per_class"].vacuous is False
    assert found.terms["C"]["by_views"].vacuous is True


@pytest.mark.parametrize(("width", "error", "bound"), [(128, 0.604, 0.671), (512, 0.238, 0.248)])
def test_an_encoder_blind_to_classes_looks_good_only_with_its_images_own_centres(width, error, bound):
    """A random direction for each image, 10 classes × 100 images, V = 8."""
    random = torch.Generator().manual_seed(0)
    features = unit_norm(torch.randn(1000, 1, width, generator=random, dtype=torch.float64)).repeat(1, 8, 1)
    table = FeatureTable.build(features, torch.arange(1000) % 10, [str(label) for label in range(10)])
    geometry = class_geometry(table)
    own, certified = (
        nearest_center_error(geometry)["error"],
        certificate_c(geometry, certify_c(geometry))["error_bound"],
    )
    assert own.value == pytest.approx(error, abs=0.04)
    assert certified.value == pytest.approx(bound, abs=0.04)
    assert certified.vacuous is False
    assert f"{width} dimensions, the smallest class 100 images" in own.warning
    assert certified.warning == own.warning
    found = population(geometry, within_class_distances(table), generator=stream(0, "split"))
    assert found["error"].value == pytest.approx(0.9, abs=0.04)
    assert found["chance"].value == pytest.approx(0.9)
    assert 0.9 < found["error_bound"].value < 1
    assert found["error_bound"].vacuous is True
    assert found["by_views"].vacuous is True
    assert all(quantity.warning is None for quantity in found.values())


def test_more_images_than_dimensions_are_not_warned_of():
    features, labels = collapsed(simplex(3), images_of_each=4)
    assert Certified(features, labels).terms["error"]["error"].warning is None
    assert "3 dimensions" in Certified(features[:-1], labels[:-1]).terms["error"]["error"].warning


def test_coinciding_centres_are_vacuous_and_no_accident():
    features, labels = collapsed(torch.tensor([[1.0, 0], [1.0, 0]], dtype=torch.float64))
    found = Certified(features, labels)
    assert found.value("error", "error") == 1  # all ties
    for name in ("A", "B", "C", "combined", "Cantelli"):
        assert found.value(name) == 1
        assert found.terms[name]["error_bound"].vacuous is True
        assert found.terms[name]["error_bound_per_class"].vacuous is True if name != "A" else True


def test_zero_features_are_vacuous_and_no_accident():
    found = Certified(torch.zeros(6, 3, 2), [0, 0, 0, 1, 1, 1])
    assert {found.value(name) for name in ("A", "B", "C", "combined", "Cantelli")} == {1.0}


def test_one_bad_image_costs_itself_only():
    """Nine of ten images at the centre, one at the other class's centre, K = 2: by hand."""
    features, labels = collapsed(torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64), images_of_each=10)
    features[0] = -features[0]
    found = Certified(features, labels)
    assert found.value("error", "error") == 0.05
    for name in ("A", "B", "C", "combined"):
        assert found.value(name) == pytest.approx(0.05)
    assert found.value("C", "error_bound_per_class") == {"class 0": pytest.approx(0.1), "class 1": 0.0}
    assert found.value("A", "good_share_per_class") == {"class 0": pytest.approx(0.9), "class 1": 1.0}
    for name in ("A", "B", "C", "combined"):
        assert found.value(name, "certified_share_per_class") == {"class 0": pytest.approx(0.9), "class 1": 1.0}


def test_views_that_span_the_classes_leave_c_only_what_few_views_show():
    """n images of a class at one point e, an augmented view of each at v = (−0.6, 0.8), three at e: by hand.

    μ = (0.6, 0.2), half the distance to −μ is ‖μ‖, and T = ‖μ‖ − eᵀμ/‖μ‖ + (1 − 1/n) (e − v)ᵀμ/‖μ‖ = −0.316 + 1.265
    (1 − 1/n), as soon as v is among the views: more than ‖μ‖ = 0.632 for n > 4.
    """
    views = torch.tensor([[1.0, 0], [1.0, 0], [-0.6, 0.8], [1.0, 0], [1.0, 0]], dtype=torch.float64)
    for images_of_each, last in ((3, 0.0), (8, 1.0)):
        features = torch.cat([views.repeat(images_of_each, 1, 1), -views.repeat(images_of_each, 1, 1)])
        found = Certified(features, [0] * images_of_each + [1] * images_of_each)
        assert found.value("C", "by_views") == [0, 0, last, last, last]
        margin = 0.4**0.5 - (0.4 - 0.6 + (1 - 1 / images_of_each) * 0.8) / 0.4**0.5
        assert found.value("C", "margin_quantiles")["0.5"] == pytest.approx(margin)
    assert found.value("error", "error") == 0


# ---------------------------------------------------------------------- what cannot be said
def test_a_class_without_images_has_no_entry_and_changes_no_other():
    features, labels = reference.random_instance(1)
    three, more = Certified(features, labels), Certified(features, labels + 1, num_classes=int(max(labels)) + 3)
    for name in three.terms:
        for key, quantity in three.terms[name].items():
            if key.endswith("per_class"):
                other = more.terms[name][key]
                assert list(other.value.values())[1:-1] == list(quantity.value.values())
                assert other.value["class 0"] is None
                assert "class 0" in other.absent
            else:
                assert more.terms[name][key].value == quantity.value


def test_a_class_of_one_image_is_certified_by_its_own_views():
    features, labels = collapsed(simplex(3))
    keep = torch.cat([torch.arange(0, 8), torch.tensor([8])])
    found = Certified(features[keep], labels[keep])
    assert found.value("combined") == 0
    assert found.value("B", "distance_per_class")["class 2"] is None
    assert found.terms["B"]["distance_per_class"].absent == {"class 2": "has 1 of the 2 images needed"}
    single = Certified(simplex(2).unsqueeze(1), [0, 1])
    assert isinstance(single.terms["B"]["distance_per_class"], Absent)
    assert single.value("combined") == 0


def test_diameters_that_differ_by_rounding_only():
    """Two values of ε above the same images, and the last of the grid among them."""
    features, labels = collapsed(simplex(2), images_of_each=6, num_views=2)
    features = features.repeat(1, 1, 2) / 2**0.5
    features[:, 1, 0] += torch.arange(12) % 6 * 1e-16 + 1e-3
    found = Certified(features, labels)
    assert found.value("A") == found.value("combined") == 0


def test_one_stored_view_stands_for_the_augmented_ones():
    features, labels = reference.random_instance(2)
    found = Certified(features[:, :1], labels)
    twice = Certified(np.repeat(features[:, :1], 2, axis=1), labels)
    assert found.c.margins_by_views[0].numpy() == pytest.approx(twice.c.margins_by_views[1].numpy())
    assert found.b.margins.numpy() == pytest.approx(twice.b.margins.numpy())
    assert "only stored view" in found.terms["C"]["error_bound"].estimator
