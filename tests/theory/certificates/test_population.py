"""Certificates for new images: no query helps another, certified is right, and the bounds hold as often as they say."""

import numpy as np
import pytest
import torch

from cssl_cli.features.geometry import unit_norm
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.host.randomness import stream
from cssl_cli.theory.certificates.population import certify_queries, population
from cssl_cli.theory.class_geometry import class_geometry, misclassified, within_class_distances
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_certificates as reference


def build(features, labels, *, num_classes=None):
    names = [f"class {label}" for label in range(num_classes or int(max(labels)) + 1)]
    table = FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)
    return class_geometry(table), within_class_distances(table)


def draw(random, labels, *, spread=0.7, num_views=3, width=3):
    """Images (N, V, D) of a population on the sphere: classes about the axes, views about the images."""
    images = np.eye(width)[labels] + spread * random.normal(size=(len(labels), width))
    views = images[:, None] + 0.05 * random.normal(size=(len(labels), num_views, width))
    views[:, 0] = images
    return unit_norm(torch.as_tensor(views))


def split(geometry, num_reference):
    """The first images of each class as reference, the others as queries."""
    sizes = [len(images) for images in geometry.members]
    references = [torch.arange(min(num_reference, size)) for size in sizes]
    return references, [torch.arange(len(places), size) for places, size in zip(references, sizes, strict=True)]


# ---------------------------------------------------------------------- point by point
def test_a_certified_query_is_classified_right():
    certified = 0
    for seed in range(120):
        features, labels = reference.random_instance(seed)
        geometry, within = build(features, labels)
        references, queries = split(geometry, 1 + seed % 3)
        if not any(map(len, queries)):
            continue
        tested = certify_queries(geometry, within, references, queries)
        assert not (tested.certified_by_views & tested.wrong).any(), seed
        assert (tested.certified_by_views.int().diff(dim=0) <= 0).all(), seed
        certified += int(tested.certified.sum())
    assert certified > 200


@pytest.mark.parametrize("seed", range(20))
def test_queries_are_tested_one_by_one(seed):
    random = np.random.default_rng(seed)
    labels = np.arange(30) % 3
    geometry, within = build(draw(random, labels), labels)
    references, queries = split(geometry, 5)
    tested = certify_queries(geometry, within, references, queries)
    alone = [
        certify_queries(geometry, within, references, [places[row : row + 1] for places in queries]) for row in range(5)
    ]
    assert torch.stack([one.certified for one in alone], dim=1).flatten().tolist() == tested.certified.tolist()
    assert torch.stack([one.wrong for one in alone], dim=1).flatten().tolist() == tested.wrong.tolist()
    assert tested.positions.tolist() == [own for own in range(3) for _ in range(5)]


def test_a_query_of_any_length_leaves_the_others_alone():
    random = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = draw(random, labels)
    geometry, within = build(features, labels)
    references, queries = split(geometry, 5)
    before = certify_queries(geometry, within, references, queries).certified
    longer = features.clone()
    longer[geometry.members[0][queries[0][0]]] *= 50
    geometry, within = build(longer, labels)
    after = certify_queries(geometry, within, references, queries).certified
    assert before[1:].tolist() == after[1:].tolist()


def test_directional_margins_of_queries_agree_with_loops():
    """T_k as means over the reference, by hand on one query of each of two classes."""
    features, labels = reference.random_instance(9)
    features, labels = features[labels < 2], labels[labels < 2]
    geometry, within = build(features, labels)
    references, queries = split(geometry, 1)
    passed = certify_queries(geometry, within, references, queries).certified
    mu = [reference.image_mean(features[images[0]]) for images in geometry.members]
    row = 0
    for own, images in enumerate(geometry.members):
        edge = mu[1 - own] - mu[own]
        w, half = edge / reference.norm(edge), reference.norm(edge) / 2
        other = features[images[0]]
        for image in images[1:].tolist():
            x0, mean = features[image], reference.image_mean(other)
            t = max(w @ (x0[0] - mean), w @ x0[0] - (x0 @ w).min() + (other @ w).max() - w @ mean)
            if t < half - 1e-9:
                assert passed[row]
            row += 1


# ---------------------------------------------------------------------- the numbers
def test_the_quantities_are_the_counts_of_the_split():
    random = np.random.default_rng(1)
    labels = np.arange(91) % 3
    geometry, within = build(draw(random, labels), labels)
    found = population(geometry, within, generator=stream(0, "split"))
    sizes = [31, 30, 30]
    num_queries = sum(size // 2 for size in sizes)
    for quantity in found.values():
        assert quantity.sample == (num_queries, 3)
    uncertified = round(found["uncertified_share"].value * num_queries)
    errors = round(found["error"].value * num_queries)
    assert 0 < errors < uncertified < num_queries
    assert found["error_bound"].value == clopper_pearson(uncertified, num_queries, side="upper")[1]
    assert found["error_upper"].value == clopper_pearson(errors, num_queries, side="upper")[1]
    assert found["error"].interval == clopper_pearson(errors, num_queries)
    assert found["uncertified_share"].interval == clopper_pearson(uncertified, num_queries)
    # The interval of the error itself is the shorter, always.
    assert found["error"].value <= found["uncertified_share"].value
    assert found["error_upper"].value <= found["error_bound"].value
    # With every number of views a bound on the same error, the first of them the least and the last the one above.
    by_views = found["by_views"].value
    assert by_views == sorted(by_views)
    assert found["error_upper"].value <= by_views[0]
    assert by_views[-1] == found["error_bound"].value
    assert found["chance"].value == pytest.approx(2 / 3)
    wrong, bounds = found["error_per_class"], found["error_bound_per_class"]
    assert sum(share * 15 for share in wrong.value.values()) == pytest.approx(errors)
    for name, share in wrong.value.items():
        assert wrong.interval[name] == clopper_pearson(round(15 * share), 15)
        assert bounds.value[name] in [clopper_pearson(count, 15, side="upper")[1] for count in range(16)]
        assert share <= bounds.value[name] == bounds.interval[name][1]
    again = population(geometry, within, generator=stream(0, "split"))
    assert again == found
    assert population(geometry, within, generator=stream(1, "split")) != found


def test_collapsed_classes_leave_the_bound_of_no_failures():
    labels = np.repeat(np.arange(4), 50)
    geometry, within = build(np.eye(4)[labels][:, None].repeat(3, axis=1), labels)
    found = population(geometry, within, generator=stream(0, "split"))
    assert found["uncertified_share"].value == found["error"].value == 0
    assert found["error_bound"].value == pytest.approx(1 - 0.05 ** (1 / 100))
    assert found["error_bound"].vacuous is False


def test_coinciding_classes_are_vacuous():
    geometry, within = build(np.ones((8, 2, 2)), [0, 1] * 4)
    found = population(geometry, within, generator=stream(0, "split"))
    assert found["error_bound"].value == found["error"].value == 1
    assert found["error_bound"].vacuous is True


def test_what_cannot_be_said():
    features = np.random.default_rng(0).normal(size=(3, 2, 4))
    geometry, within = build(features, [0, 1, 2])
    found = population(geometry, within, generator=stream(0, "split"))
    assert {quantity.reason for quantity in found.values()} == {"a split takes two images of some class"}
    geometry, within = build(np.concatenate([features, features]), [0, 0, 0, 0, 1, 0], num_classes=3)
    found = population(geometry, within, generator=stream(0, "split"))
    assert set(found["error_bound"].absent) == {"class 1", "class 2"}
    assert found["error_per_class"].value["class 1"] is None
    assert found["error_bound_per_class"].value["class 2"] is None
    # All that is tested is of one class, whose name is always right.
    assert found["chance"].value == 0
    assert found["error_bound"].vacuous is True
    table = FeatureTable.build(torch.as_tensor(features), None, ["one", "two"])
    found = population(class_geometry(table), [], generator=stream(0, "split"))
    assert all(isinstance(quantity, Absent) for quantity in found.values())


# ---------------------------------------------------------------------- coverage
def test_the_bound_covers_the_probability_of_being_uncertified_and_the_error():
    """One reference of 20 images a class, a large population, 4000 samples of 60 queries from it, stratified or not."""
    random = np.random.default_rng(0)
    labels = np.arange(3 * 1020) % 3
    features = draw(random, labels)
    geometry, within = build(features, labels)
    tested = certify_queries(geometry, within, *split(geometry, 20))
    uncertified = ~tested.certified.numpy().reshape(3, 1000)
    truth, error = uncertified.mean(), tested.wrong.double().mean().item()
    assert 0.02 < error < truth < 0.9
    samples = 4000
    least = 0.95 - 3 * np.sqrt(0.05 * 0.95 / samples)
    free = uncertified.reshape(-1)[random.integers(3000, size=(samples, 60))].sum(axis=1)
    strata = [row[random.integers(1000, size=(samples, 20))].sum(axis=1) for row in uncertified]
    for counts in (free, sum(strata)):
        bounds = np.array([clopper_pearson(count, 60, side="upper")[1] for count in range(61)])[counts]
        assert (bounds >= truth).mean() >= least
        assert (bounds >= error).mean() >= least


def test_tables_from_a_population_of_known_error_are_covered():
    """New tables each time: the error of each reference's centres, over 3000 further images, against both bounds."""
    random, tables = np.random.default_rng(3), 150
    fresh_labels = np.arange(3000) % 3
    fresh = draw(random, fresh_labels, spread=0.6, num_views=1)[:, 0]
    covered = {"error_bound": 0, "error_upper": 0}
    for number in range(tables):
        labels = np.arange(60) % 3
        geometry, within = build(draw(random, labels, spread=0.6), labels)
        found = population(geometry, within, generator=stream(number, "split"))
        order = stream(number, "split")
        centers = torch.stack(
            [
                geometry.means[images[torch.randperm(20, generator=order)[:10]]].mean(dim=0)
                for images in geometry.members
            ]
        )
        error = misclassified(fresh, torch.as_tensor(fresh_labels), centers).double().mean().item()
        for name in covered:
            covered[name] += error <= found[name].value
    least = 0.95 - 3 * np.sqrt(0.05 * 0.95 / tables)
    assert covered["error_upper"] / tables >= least
    assert covered["error_bound"] >= covered["error_upper"]
