"""Connected parts in Theorem A: against plain searches, right about every point, no match for cliques."""

import collections

import numpy as np
import pytest
import torch

from cssl_cli.host.randomness import stream
from cssl_cli.theory.certificates.connected_parts import (
    EDGE_LEVELS,
    best_parts,
    connected_parts,
    hop_diameter,
)
from cssl_cli.theory.certificates.theorem_b import certify_b
from cssl_cli.theory.class_geometry import class_geometry, misclassified, within_class_distances
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_certificates as reference


def build(features, labels):
    names = [f"class {label}" for label in range(int(max(labels)) + 1)]
    table = FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)
    return class_geometry(table), within_class_distances(table)


def measure(features, labels, *, max_images=500, seed=0):
    return connected_parts(*build(features, labels), max_images=max_images, generator=stream(seed, "edges"))


def steps_from(start, adjacent):
    """Breadth-first: vertex → steps from `start`."""
    steps, queue = {start: 0}, collections.deque([start])
    while queue:
        here = queue.popleft()
        for there in range(len(adjacent)):
            if adjacent[here][there] and there not in steps:
                steps[there] = steps[here] + 1
                queue.append(there)
    return steps


def components(adjacent):
    """The components of a graph, each as {vertex: steps} from every one of its vertices."""
    seen, found = set(), []
    for start in range(len(adjacent)):
        if start not in seen:
            members = sorted(steps_from(start, adjacent))
            seen |= set(members)
            found.append({member: steps_from(member, adjacent) for member in members})
    return found


# ---------------------------------------------------------------------- against plain searches
@pytest.mark.parametrize("seed", range(40))
def test_the_hop_diameter_is_that_of_a_breadth_first_search(seed):
    random = np.random.default_rng(seed)
    num = int(random.integers(1, 25))
    if seed % 4 == 0:  # a path, the longest there is
        graph = np.abs(np.subtract.outer(np.arange(num), np.arange(num))) <= 1
    else:
        graph = random.random((num, num)) < random.uniform(0.02, 0.5)
        graph = graph | graph.T | np.eye(num, dtype=bool)
    for component in components(graph):
        members = sorted(component)
        expected = max(max(steps.values()) for steps in component.values())
        assert hop_diameter(graph[np.ix_(members, members)]) == expected


@pytest.mark.parametrize("seed", range(40))
def test_parts_are_components_and_the_way_through_them_is_never_shorter_than_a_distance(seed):
    features, labels = reference.random_instance(seed)
    geometry, within = build(features, labels)
    mu = reference.centers(features, labels)
    for label, part in enumerate(best_parts(geometry, within)):
        images = np.flatnonzero(labels == label)
        tight = [i for i in images if reference.diameter(features[i]) <= part.epsilon + 1e-12]
        graph = [
            [reference.augmented_distance(features[i], features[j]) <= part.delta + 1e-9 for j in tight] for i in tight
        ]
        whole = components(graph)
        chosen = [tight.index(i) for i in part.images.tolist()]
        (own,) = [component for component in whole if set(component) == set(chosen)]
        assert len(own) == max(map(len, whole))
        assert part.hops == max(max(steps.values()) for steps in own.values())
        assert part.share == pytest.approx(len(own) / len(images))
        # The inequality, for every two views of every two members and the steps between them.
        for i, steps in own.items():
            for j, hops in steps.items():
                way = hops * part.delta + (hops + 1) * part.epsilon
                views, others = features[tight[i]], features[tight[j]]
                assert max(reference.norm(v - w) for v in views for w in others) <= way + 1e-9
        assert part.step == pytest.approx(part.hops * part.delta + (part.hops + 1) * part.epsilon, abs=1e-5)
        step = min(2, part.step)
        reach = min(
            part.share * step + 2 * (1 - part.share),
            max(0, part.share * step**2 + 4 * (1 - part.share) - spread(features, labels, label, mu)) ** 0.5,
        )
        if reach > 1e-3:
            assert part.margin == pytest.approx(reference.margin(reach, mu, label, [1.0]), abs=1e-4)


def spread(features, labels, label, mu):
    images = reference.class_of(features, labels, label)
    return np.mean([reference.norm(view - mu[label]) ** 2 for image in images for view in reference.augmented(image)])


# ---------------------------------------------------------------------- what is certified
def test_every_certified_point_is_right_and_certified_by_theorem_b():
    spoke, chained = 0, 0
    for seed in range(50):
        features, labels = reference.random_instance(seed)
        geometry, within = build(features, labels)
        wrong = misclassified(geometry.table.features[:, 0], geometry.positions, geometry.centers)
        by_b = certify_b(geometry, within).certified
        for part in best_parts(geometry, within):
            if part.certified:
                assert not wrong[part.images].any(), seed
                assert by_b[part.images].all(), seed
                spoke, chained = spoke + 1, chained + (part.hops > 1)
    assert spoke > 30
    assert chained > 0


@pytest.mark.parametrize("seed", range(12))
def test_a_clique_of_the_same_images_needs_no_longer_step(seed):
    features, labels = reference.random_instance(seed)
    found = measure(features, labels)
    clique, path = (found[name].value for name in ("clique_step_per_class", "step_per_class"))
    assert all(clique[name] <= path[name] + 1e-12 for name in path)
    for label, part in enumerate(best_parts(*build(features, labels))):
        images = [features[i] for i in part.images.tolist()]
        farthest = max(reference.augmented_distance(a, b) for a in images for b in images)
        expected = farthest + (2 if len(images) > 1 else 1) * part.epsilon
        assert clique[f"class {label}"] == pytest.approx(expected, abs=1e-5)


def test_a_chain_of_images_is_certified_as_one_part():
    """Two classes on opposite arcs of 0.5, each of eleven images 0.05 apart: at that δ a part of ten steps, by hand."""
    angles = np.concatenate([np.linspace(0, 0.5, 11), np.pi + np.linspace(0, 0.5, 11)])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None].repeat(2, axis=1)
    geometry, within = build(features, np.repeat([0, 1], 11))
    for part in best_parts(geometry, within):
        assert part.certified
        assert part.share == 1
        assert part.hops == 10
        assert part.epsilon < 1e-6
        assert part.step == pytest.approx(part.hops * part.delta, rel=1e-5)
        assert part.step >= 2 * np.sin(0.25) - 1e-9
    found = connected_parts(geometry, within, max_images=100, generator=stream(0, "edges"))
    assert found["error_bound"].value == 0
    assert found["error_bound"].vacuous is False
    assert found["certified_share_per_class"].value == {"class 0": 1.0, "class 1": 1.0}
    assert list(found["clique_step_per_class"].value.values()) == pytest.approx([2 * np.sin(0.25)] * 2, rel=1e-5)


# ---------------------------------------------------------------------- edges
@pytest.mark.parametrize("seed", range(8))
def test_edges_across_classes_are_counted_with_the_weights_of_their_classes(seed):
    features, labels = reference.random_instance(seed)
    sizes = np.bincount(labels)
    keep = np.isin(labels, np.flatnonzero(sizes >= 2))
    labels = np.unique(labels[keep], return_inverse=True)[1]
    features, sizes = features[keep], np.bincount(labels)
    found = measure(features, labels)
    priors = sizes / sizes.sum()
    for level in EDGE_LEVELS:
        delta = found["edge_deltas"].value[f"{level:g}"]
        across = within = 0.0
        for i, first in enumerate(features):
            for j, second in enumerate(features):
                if i != j and reference.augmented_distance(first, second) <= delta:
                    k, l = labels[i], labels[j]
                    pairs = sizes[k] * (sizes[l] - (k == l))
                    across += (k != l) * priors[k] * priors[l] / pairs
                    within += (k == l) * priors[k] * priors[l] / pairs
        assert found["edges_across"].value[f"{level:g}"] == pytest.approx(across / (across + within))
    assert found["pairs_across"].value == pytest.approx(1 - (priors**2).sum())


def test_classes_apart_have_no_edge_between_them_and_noise_has_the_share_of_its_pairs():
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    apart = measure(np.eye(8)[labels][:, None] + 0.01 * random.normal(size=(300, 2, 8)), labels)
    assert set(apart["edges_across"].value.values()) == {0.0}
    noise = measure(random.normal(size=(300, 2, 8)), labels, max_images=150)
    assert noise["edges_across"].sample == (150, 2)
    assert noise["edges_across"].value["0.5"] == pytest.approx(noise["pairs_across"].value, abs=0.02)


def test_what_cannot_be_said():
    features, labels = reference.random_instance(1)
    one = np.concatenate([features, features[:1]]), np.append(labels, max(labels) + 1)
    found = measure(*one)
    assert "two images of every class" in found["edges_across"].reason
    assert found["hops_per_class"].value[f"class {max(labels) + 1}"] == 0
    table = FeatureTable.build(torch.as_tensor(features), None, ["one", "two"])
    found = connected_parts(class_geometry(table), [], max_images=9, generator=stream(0, "edges"))
    assert {quantity.reason for quantity in found.values()} == {"the images have no labels"}
