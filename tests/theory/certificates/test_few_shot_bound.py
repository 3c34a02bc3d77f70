"""Bounds with few labelled images: moments by enumeration and in closed form, bounds against exact errors."""

import itertools

import numpy as np
import pytest
import torch

from cssl_cli.features.geometry import unit_norm
from cssl_cli.theory.certificates.few_shot_bound import cantelli_bounds, few_shot_bound, luthra_bounds, pair_moments
from cssl_cli.theory.class_geometry import class_geometry
from cssl_cli.theory.companions.neural_collapse import neural_collapse
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.table import FeatureTable

SHOTS = (1, 5, 10, 50)


def random_classes(seed, *, num_classes=2, size=3, width=2, spread=0.3, clean=False):
    """Clean features and view means of each class, of unequal spreads; the same with `clean`."""
    random = np.random.default_rng(seed)
    classes = []
    for _ in range(num_classes):
        shape = (size, width)
        features = 2 * random.normal(size=width) + spread * random.uniform(0.2, 2) * random.normal(size=shape)
        means = features if clean else 0.8 * features + 0.2 * random.normal(size=shape)
        classes.append((torch.as_tensor(features), torch.as_tensor(means)))
    return classes


def enumerated(classes, i, j, shots):
    """Δ for every image of class i and every labelled images of i and j, drawn with replacement."""
    (clean, means), other_means = (part.numpy() for part in classes[i]), classes[j][1].numpy()
    found = []
    for own in itertools.product(range(len(means)), repeat=shots):
        for other in itertools.product(range(len(other_means)), repeat=shots):
            one, two = means[list(own)].mean(axis=0), other_means[list(other)].mean(axis=0)
            found += [((x - two) ** 2).sum() - ((x - one) ** 2).sum() for x in clean]
    return np.array(found)


@pytest.mark.parametrize("shots", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_moments_are_those_of_every_draw_of_labels(seed, shots):
    classes = random_classes(seed, num_classes=3)
    moments = pair_moments(classes, unbiased=False)
    for i, j in itertools.permutations(range(3), 2):
        delta = enumerated(classes, i, j, shots)
        assert moments.mean(shots)[i, j].item() == pytest.approx(delta.mean(), rel=1e-9)
        assert moments.variance(shots)[i, j].item() == pytest.approx(delta.var(), rel=1e-9)


@pytest.mark.parametrize("clean", [False, True])
def test_no_exact_error_exceeds_its_bound(clean):
    tight, said = 0.0, 0
    for seed in range(60):
        classes = random_classes(seed, spread=(0.3, 1, 3)[seed % 3], clean=clean)
        moments = pair_moments(classes, unbiased=False)
        for shots in (1, 2):
            bounds = cantelli_bounds(moments, shots)
            theirs = luthra_bounds(moments, shots) if clean else None
            for i, j in ((0, 1), (1, 0)):
                error, bound = (enumerated(classes, i, j, shots) <= 0).mean(), bounds[i, j].item()
                assert error <= bound + 1e-12, (seed, shots)
                tight, said = max(tight, error / bound), said + (bound < 0.5)
                if theirs is not None:
                    # Cantelli's inequality with the exact variance is never worse than theirs.
                    assert bound <= theirs[i, j].item() + 1e-12, (seed, shots)
    assert tight > 0.5
    assert said > 20


def gaussian(random, sizes, means, scales):
    return [
        torch.as_tensor(mean + scale * random.normal(size=(size, len(mean))))
        for size, mean, scale in zip(sizes, means, scales, strict=True)
    ]


MEANS = np.array([[0.0, 0, 0, 0], [2, 0, 0, 0], [0, 1, 1, 0]])
SCALES = np.array([[0.5, 1, 0.2, 1], [1, 0.3, 0.4, 0.2], [0.7, 0.7, 0.7, 0.7]])


def closed_form(i, j, shots):
    """E Δ and Var Δ for Gaussian classes with clean centres."""
    e, one, two = MEANS[j] - MEANS[i], SCALES[i] ** 2, SCALES[j] ** 2
    mean = e @ e + (two.sum() - one.sum()) / shots
    variance = 4 * e @ (one * e) + 4 * (one * (one + two)).sum() / shots
    variance += 4 * e @ (two * e) / shots + 2 * ((one**2).sum() + (two**2).sum()) / shots**2
    return mean, variance


@pytest.mark.parametrize("shots", [1, 5, 50])
def test_many_gaussian_images_give_the_closed_form(shots):
    random = np.random.default_rng(0)
    moments = pair_moments([(x, x) for x in gaussian(random, [5000] * 3, MEANS, SCALES)])
    for i, j in itertools.permutations(range(3), 2):
        mean, variance = closed_form(i, j, shots)
        assert moments.mean(shots)[i, j].item() == pytest.approx(mean, rel=0.1)
        assert moments.variance(shots)[i, j].item() == pytest.approx(variance, rel=0.1)


def test_moments_of_few_images_are_right_on_average():
    random = np.random.default_rng(1)
    sizes, scales = [4, 6, 5], 3 * SCALES
    found = [pair_moments([(x, x) for x in gaussian(random, sizes, MEANS, scales)]) for _ in range(300)]
    plain = [pair_moments([(x, x) for x in gaussian(random, sizes, MEANS, scales)], unbiased=False) for _ in range(100)]
    for i, j in itertools.permutations(range(3), 2):
        square = ((MEANS[j] - MEANS[i]) ** 2).sum()
        values = torch.stack([each.distance[i, j] for each in found])
        assert values.mean().item() == pytest.approx(square, abs=4 * values.std().item() / len(values) ** 0.5)
        assert torch.stack([each.distance[i, j] for each in plain]).mean().item() > 1.5 * square
    for i, j in itertools.product(range(3), repeat=2):
        truth = (scales[i] ** 2 * scales[j] ** 2).sum()
        values = torch.stack([each.product[i, j] for each in found])
        assert values.mean().item() == pytest.approx(truth, abs=4 * values.std().item() / len(values) ** 0.5)


def build(features, labels):
    names = [f"class {label}" for label in range(int(max(labels)) + 1)]
    return FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)


def table_of(random, labels, *, width=20, spread=0.3, num_views=3):
    images = 3 * np.eye(width)[labels] + spread * random.normal(size=(len(labels), width))
    return build(images[:, None] + 0.1 * random.normal(size=(len(labels), num_views, width)), labels)


def test_well_separated_classes_are_certified_and_a_blind_encoder_is_not():
    random, labels = np.random.default_rng(2), np.arange(120) % 4
    found = few_shot_bound(class_geometry(table_of(random, labels)), SHOTS)
    for whose in ("cantelli", "luthra"):
        values = [found[f"{whose}_{shots}"].value for shots in SHOTS]
        assert values == sorted(values, reverse=True)
        assert not found[f"{whose}_50"].vacuous
    blind = build(unit_norm(torch.as_tensor(random.normal(size=(120, 2, 600)))), labels)
    found = few_shot_bound(class_geometry(blind), SHOTS)
    assert all(quantity.vacuous for quantity in found.values())


def test_the_leading_term_is_the_directional_cdnv():
    random, labels = np.random.default_rng(3), np.arange(60) % 3
    table = table_of(random, labels, num_views=1)
    clean = table.features[:, 0].numpy()
    total = 0.0
    for i, j in itertools.permutations(range(3), 2):
        axis = clean[labels == j].mean(axis=0) - clean[labels == i].mean(axis=0)
        total += np.var(clean[labels == i] @ axis) / (axis @ axis) ** 2
    found = neural_collapse(table)
    assert found["directional_cdnv"].value == pytest.approx(total / 6)
    classes = [(torch.as_tensor(clean[labels == k]),) * 2 for k in range(3)]
    limit = luthra_bounds(pair_moments(classes, unbiased=False), 10**6).sum().item()
    assert limit == pytest.approx(4 * total, rel=1e-3)
    assert found["directional_cdnv"].value <= found["cdnv"].value
    assert found["directional_cdnv_worst"].value >= found["directional_cdnv"].value


def test_what_few_images_cannot_give_is_absent():
    labels = [0, 0, 0, 0, 1, 1, 1]
    found = few_shot_bound(class_geometry(table_of(np.random.default_rng(4), labels)), SHOTS)
    assert all(
        isinstance(quantity, Absent) and "4 images of every class" in quantity.reason for quantity in found.values()
    )
