"""Theorem 1 in feature distances: against loops over its grid, closed forms, and the error it bounds."""

import math

import numpy as np
import pytest
import torch

from cssl_cli.features.geometry import unit_norm
from cssl_cli.theory.certificates.theorem_1 import pixel_rho, rho_needed, theorem_1
from cssl_cli.theory.certificates.threshold_grid import DELTA_LEVELS, EPSILON_LEVELS, threshold_grid
from cssl_cli.theory.class_geometry import class_geometry, misclassified, within_class_distances
from cssl_cli.theory.estimate import Absent, Sample
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_certificates as reference


def measure(features, labels, *, num_classes=None):
    names = [f"class {label}" for label in range(num_classes or int(max(labels)) + 1)]
    table = FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)
    geometry = class_geometry(table)
    return theorem_1(threshold_grid(geometry, within_class_distances(table))), geometry


def simplex(num_classes):
    return unit_norm(torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes)


class Grid:
    """σ, R_ε and the sets behind them at every point of the grid, with exact cliques."""

    def __init__(self, features, labels):
        self.labels, self.r = labels, reference.largest_norm(features)
        self.classes = [reference.class_of(features, labels, label) for label in range(max(labels) + 1)]
        self.priors = [len(images) / len(labels) for images in self.classes]
        self.diameters = [[reference.diameter(image) for image in images] for images in self.classes]
        self.distances = [
            [[reference.augmented_distance(a, b) for b in images] for a in images] for images in self.classes
        ]
        pairs = [row[j] for rows in self.distances for i, row in enumerate(rows) for j in range(i)] or [0.0]
        everywhere = [diameter for diameters in self.diameters for diameter in diameters]
        self.deltas = np.unique(np.quantile(pairs, DELTA_LEVELS, method="higher")) + 1e-8
        self.epsilons = np.unique(np.quantile(everywhere, EPSILON_LEVELS, method="higher")) + 1e-8
        self.r_epsilon = [np.mean([diameter > epsilon for diameter in everywhere]) for epsilon in self.epsilons]
        self.cliques = [
            [reference.largest_cliques([[d <= delta for d in row] for row in rows]) for rows in self.distances]
            for delta in self.deltas
        ]

    def points(self):
        """Over the grid: (σ, R_ε, a, for every class the good shares of its largest cliques)."""
        for delta, cliques in zip(self.deltas, self.cliques, strict=True):
            sigma = min(len(largest[0]) / len(images) for largest, images in zip(cliques, self.classes, strict=True))
            for epsilon, r_epsilon in zip(self.epsilons, self.r_epsilon, strict=True):
                good = [
                    [sum(diameters[i] <= epsilon for i in clique) / len(diameters) for clique in largest]
                    for largest, diameters in zip(cliques, self.diameters, strict=True)
                ]
                yield sigma, r_epsilon, (delta + 2 * epsilon) / self.r, good


# ---------------------------------------------------------------------- against loops
@pytest.mark.parametrize("seed", range(48))
def test_the_least_rho_and_the_bounds_agree_with_loops(seed):
    features, labels = reference.random_instance(seed)
    found, _ = measure(features, labels)
    grid, mu = Grid(features, labels), reference.centers(features, labels)
    least, of_classes, bound = math.inf, [], 1.0
    # Where a class has several largest cliques, either may be the main part.
    sharp = np.zeros((2, len(mu)))
    for sigma, r_epsilon, a, good in grid.points():
        rhos = [2 * (1 - sigma) + r_epsilon / prior + sigma * a for prior in grid.priors]
        rho = max(rhos)
        if 1 - sigma + r_epsilon < 1 - max(grid.priors) and rho < least:
            least, of_classes = rho, rhos
        if reference.theorem_1_condition(mu, grid.r, rho):
            bound = min(bound, 1 - sigma + r_epsilon)
        for label, shares in enumerate(good):
            for end, share in enumerate((min(shares), max(shares))):
                rho_sharp = 2 * (1 - share) + share * min(a, 2)
                room = 1 - rho_sharp - rho_sharp**2 / 2 - (1 - min(reference.norm(m) ** 2 for m in mu)) / 2
                if all(float(mu[label] @ m) < room for k, m in enumerate(mu) if k != label):
                    sharp[end, label] = max(sharp[end, label], share)
    assert found["rho"].value == pytest.approx(least, abs=1e-5)
    assert list(found["rho_per_class"].value.values()) == pytest.approx(of_classes, abs=1e-5)
    assert found["error_bound"].value == pytest.approx(bound)
    worst, best = 1 - sharp @ grid.priors
    assert best - 1e-12 <= found["sharp_error_bound"].value <= worst + 1e-12
    at = found["delta"].value + 1e-8, found["epsilon"].value + 1e-8
    assert np.abs(grid.deltas - at[0]).min() < 1e-7
    assert np.abs(grid.epsilons - at[1]).min() < 1e-7


@pytest.mark.parametrize("seed", range(40))
def test_the_rho_needed_is_where_the_condition_turns(seed):
    mu = reference.centers(*reference.random_instance(seed))
    needed = rho_needed(torch.as_tensor(np.array(mu)), 1.0)
    if needed is None:
        assert not reference.theorem_1_condition(mu, 1.0, 0.0)
    else:
        assert reference.theorem_1_condition(mu, 1.0, max(needed - 1e-6, 0)) or needed < 1e-6
        assert not reference.theorem_1_condition(mu, 1.0, needed + 1e-6)


# ---------------------------------------------------------------------- the theorem
def test_neither_form_of_the_theorem_is_ever_wrong():
    spoke = [0, 0]
    for seed in range(160):
        found, geometry = measure(*reference.random_instance(seed))
        wrong = misclassified(geometry.table.features[:, 0], geometry.positions, geometry.centers)
        for form, name in enumerate(("error_bound", "sharp_error_bound")):
            assert wrong.double().mean().item() <= found[name].value + 1e-12, (seed, name)
            spoke[form] += not found[name].vacuous
    assert spoke[1] > spoke[0] > 8


def test_at_any_thresholds_a_certified_main_part_is_classified_right():
    """The grid's points one by one, ρ with R_ε/p once, as stated, and with both constants sharpened."""
    times = {"stated": 0, "sharp": 0}
    for seed in range(160):
        features, labels = reference.random_instance(seed)
        if seed % len(reference.KINDS) < 2:
            continue  # too spread out for any ρ
        mu, error = reference.centers(features, labels), reference.errors(features, labels).mean()
        if not reference.theorem_1_condition(mu, 1.0, 0.0):
            continue
        for sigma, r_epsilon, a, _ in Grid(features, labels).points():
            least_prior = np.bincount(labels).min() / len(labels)
            if reference.theorem_1_condition(mu, 1.0, 2 * (1 - sigma) + r_epsilon / least_prior + sigma * a):
                times["stated"] += 1
                assert error <= 1 - sigma + r_epsilon + 1e-12
            share = max(sigma - r_epsilon / least_prior, 0)
            if reference.theorem_1_condition(mu, 1.0, 2 * (1 - share) + share * min(a, 2), sharp=True):
                times["sharp"] += 1
                assert error <= 1 - sigma + r_epsilon + 1e-12
    assert times["sharp"] > times["stated"] > 100


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_collapsed_simplex(num_classes):
    labels = torch.arange(num_classes).repeat_interleave(4)
    found, _ = measure(simplex(num_classes)[labels].unsqueeze(1).repeat(1, 3, 1), labels)
    assert found["rho"].value == pytest.approx(0, abs=1e-12)
    assert found["rho"].vacuous is False
    assert found["error_bound"].value == 0
    assert found["sharp_error_bound"].value == 0
    room = 1 + 1 / (num_classes - 1)
    needed = ((math.sqrt(2 + 4 * room) - math.sqrt(2)) / 2) ** 2
    assert found["rho_needed"].value == pytest.approx(needed, abs=1e-9)
    assert needed + math.sqrt(2 * needed) == pytest.approx(room)


def test_ten_classes_need_a_rho_below_0_316():
    assert rho_needed(simplex(10), 1.0) == pytest.approx(0.316, abs=5e-4)
    assert rho_needed(7 * simplex(10), 7.0) == pytest.approx(0.316, abs=5e-4)


def test_one_stray_image_is_charged_twice():
    """20 images a class on the two poles, one of class 0 at the other pole: σ = 0.95, all diameters 0."""
    labels = torch.arange(2).repeat_interleave(20)
    features = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)[labels].unsqueeze(1).repeat(1, 2, 1)
    features[0] = -features[0]
    found, _ = measure(features, labels)
    assert found["rho"].value == pytest.approx(0.1)
    assert found["rho"].classes == ("class 0",)
    assert found["error_bound"].value == pytest.approx(0.05)
    # Class by class the other is whole.
    assert found["sharp_error_bound"].value == pytest.approx(0.025)


def test_one_image_of_wide_views_is_charged_at_the_classes_number():
    """R_ε = 1/40 at ε = 0, over p = ½: ρ = 0.05; main parts are whole, since views of all images meet."""
    labels = torch.arange(2).repeat_interleave(20)
    features = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)[labels].unsqueeze(1).repeat(1, 3, 1)
    features[0, 1] = -features[0, 1]
    found, _ = measure(features, labels)
    assert found["rho"].value == pytest.approx(0.05)
    assert found["error_bound"].value == pytest.approx(0.025)


def test_the_rho_of_spread_features_is_far_above_two_and_says_nothing():
    """Views and images all about √2 apart: the main part of a bound that tells something costs about 3 √2 · σ."""
    features = torch.as_tensor(np.random.default_rng(0).normal(size=(60, 3, 32)))
    found, _ = measure(unit_norm(features), torch.arange(60) % 3)
    assert found["rho"].value > 2.3
    assert found["sigma"].value - found["R_epsilon"].value > 1 / 3  # (1 − σ) + R_ε below chance
    share, step = found["sigma"].value, found["delta"].value + 2 * found["epsilon"].value
    expected = 2 * (1 - share) + 3 * found["R_epsilon"].value + share * step
    assert found["rho"].value == pytest.approx(expected, abs=1e-5)
    assert list(found["rho_per_class"].value.values()) == pytest.approx([expected] * 3, abs=1e-5)
    assert found["rho"].vacuous is True
    assert found["error_bound"].value == found["sharp_error_bound"].value == 1.0
    assert found["error_bound"].vacuous is True
    assert found["sharp_error_bound"].vacuous is True


# ---------------------------------------------------------------------- invariances and absences
def test_what_cannot_be_said():
    features, labels = reference.random_instance(0)
    longer = features.copy()
    longer[0] *= 2
    assert {quantity.reason for quantity in measure(longer, labels)[0].values()} == {
        "Theorem 1 takes features that all have the same length above 0"
    }
    same = torch.ones(6, 2, 3) / math.sqrt(3)
    found, _ = measure(same, [0, 0, 0, 1, 1, 1])
    assert isinstance(found["rho_needed"], Absent)
    assert found["error_bound"].vacuous is True
    table = FeatureTable.build(same, None, ["one", "two"])
    assert {quantity.reason for quantity in theorem_1(threshold_grid(class_geometry(table), [])).values()} == {
        "the images have no labels"
    }


# ---------------------------------------------------------------------- in pixels
def test_pixel_rho_is_the_least_over_the_grid():
    deltas, sigma = [0.0, 1.0, 4.0], [0.1, 0.8, 1.0]
    epsilons, r_epsilon = [0.1, 0.3], [0.05, 0.0]
    found = pixel_rho(
        deltas, sigma, epsilons, r_epsilon, lipschitz=5.0, priors=[0.25, 0.75], sample=Sample(100, 8), radius=2.0
    )
    values = {
        (d, e): 2 * (1 - s) + r / 0.25 + s * (5.0 * d + 2 * e) / 2
        for d, s in zip(deltas, sigma, strict=True)
        for e, r in zip(epsilons, r_epsilon, strict=True)
        if (1 - s) + r < 0.25
    }
    best = min(values, key=values.get)
    assert values[best] > 2
    assert found["pixel_rho"].value == pytest.approx(values[best])
    assert (found["pixel_delta"].value, found["pixel_epsilon"].value) == best
    assert found["pixel_rho"].errs == "either"
    assert found["pixel_rho"].sample == Sample(100, 8)
    assert "no certificate" in found["pixel_rho"].estimator


def test_pixel_rho_without_a_grid_is_absent():
    found = pixel_rho([], [], [0.1], [0.0], lipschitz=1.0, priors=[0.5, 0.5], sample=Sample(2, 2))
    assert all(isinstance(quantity, Absent) for quantity in found.values())
    found = pixel_rho([1.0], [0.4], [0.1], [0.0], lipschitz=1.0, priors=[0.5, 0.5], sample=Sample(2, 2))
    assert all("below 1 − max p" in quantity.reason for quantity in found.values())
