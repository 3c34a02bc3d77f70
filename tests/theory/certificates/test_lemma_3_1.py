"""Lemma 3.1 over its grid and the corollaries: against loops in NumPy, and the implications that they state."""

import math

import numpy as np
import pytest
import torch

from cssl_cli.theory.alignment.theorem_2 import Constants, ViewParameters, eta_paper, theorem_2_constants
from cssl_cli.theory.certificates.lemma_3_1 import COROLLARIES, QUANTITIES, corollaries, lemma_3_1
from cssl_cli.theory.certificates.threshold_grid import threshold_grid
from cssl_cli.theory.class_geometry import class_geometry, within_class_distances
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.losses.cross_correlation import cross_correlation, standardized_table
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_certificates as reference
from tests.theory.certificates.test_theorem_1 import Grid, simplex


def grid_of(features, labels):
    names = [f"class {label}" for label in range(int(max(labels)) + 1)]
    table = FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)
    return threshold_grid(class_geometry(table), within_class_distances(table))


def slack_of(mu, rhos, r):
    """The least over pairs of right less left side of Lemma 3.2's condition."""
    spread = 1 - min(float(m @ m) for m in mu) / r**2
    return min(
        1 - rho - math.sqrt(2 * rho) - spread / 2 - float(mu[l] @ mu[k]) / r**2
        for l, rho in enumerate(rhos)
        for k in range(len(mu))
        if k != l
    )


# ---------------------------------------------------------------------- against loops
@pytest.mark.parametrize("seed", range(32))
def test_right_sides_and_slacks_agree_with_loops(seed):
    features, labels = reference.random_instance(seed)
    found = {name: quantity.value for name, quantity in lemma_3_1(grid_of(features, labels)).items()}
    loops, mu = Grid(features, labels), reference.centers(features, labels)
    right, slack = [], []
    for sigma, r_epsilon, a, _ in loops.points():
        right.append(1 - sigma + r_epsilon)
        slack.append(slack_of(mu, [2 * (1 - sigma) + r_epsilon / p + sigma * a for p in loops.priors], loops.r))
    assert np.array(found["right_side"]).reshape(-1) == pytest.approx(right)
    assert np.array(found["slack"]).reshape(-1) == pytest.approx(slack, abs=1e-4)  # √ρ is steep near 0
    assert found["deltas"] == pytest.approx(loops.deltas, abs=1e-7)
    assert found["epsilons"] == pytest.approx(loops.epsilons, abs=1e-7)
    assert found["least_right_side"] == min(right) == 0.0
    assert (found["least_delta"], found["least_epsilon"]) == (found["deltas"][-1], found["epsilons"][-1])
    told = [value for value, side in zip(slack, right, strict=True) if side < 1 - max(loops.priors)]
    assert found["largest_slack"] == pytest.approx(max(told), abs=1e-4)
    assert min(found["slack_per_class"].values()) == found["largest_slack"]
    at = found["deltas"].index(found["slack_delta"]), found["epsilons"].index(found["slack_epsilon"])
    assert found["slack"][at[0]][at[1]] == found["largest_slack"]
    assert found["right_side"][at[0]][at[1]] == found["slack_right_side"]


# ---------------------------------------------------------------------- the lemma
def test_the_lemma_is_never_wrong_and_what_is_counted_is_its_premise():
    holds, spoke = 0, 0
    for seed in range(60):
        features, labels = reference.random_instance(seed)
        grid = grid_of(features, labels)
        found = lemma_3_1(grid)
        wrong = reference.errors(features, labels)
        counted, diameters = 1.0, np.array([reference.diameter(image) for image in features])
        for row, parts in enumerate(grid.parts):
            for column, epsilon in enumerate(grid.epsilons):
                right = grid.right_side[row, column]
                of_parts = [
                    index
                    for members, part in zip(grid.geometry.members, parts, strict=True)
                    for index in members[part].tolist()
                    if diameters[index] <= epsilon
                ]
                premise = not wrong[of_parts].any()
                if premise:
                    counted = min(counted, right)
                    assert wrong.mean() <= right + 1e-12
                if grid.slack[row, column] > 0:
                    holds += 1
                    assert premise, (seed, row, column)
        assert found["counted_bound"].value == pytest.approx(counted)
        assert wrong.mean() <= found["counted_bound"].value + 1e-12
        spoke += found["counted_bound"].value < 1
    assert holds > 25
    assert spoke > 20


def test_a_collapsed_simplex_has_the_slack_of_rho_zero():
    labels = torch.arange(4).repeat_interleave(3)
    found = lemma_3_1(grid_of(simplex(4)[labels].unsqueeze(1).repeat(1, 3, 1), labels))
    assert found["largest_slack"].value == pytest.approx(1 + 1 / 3, abs=1e-5)
    assert found["largest_slack"].vacuous is False
    assert found["counted_bound"].value == 0


def test_a_class_at_the_centre_of_another_has_no_slack_anywhere():
    labels = torch.arange(3).repeat_interleave(4)
    points = simplex(3)[torch.tensor([0, 0, 1])][labels].unsqueeze(1).repeat(1, 3, 1)
    found = lemma_3_1(grid_of(points, labels))
    assert found["largest_slack"].value == pytest.approx(0, abs=1e-5)
    assert found["largest_slack"].vacuous is True
    assert found["largest_slack"].classes[0] in ("class 0", "class 1")
    assert found["slack_per_class"].value["class 2"] == pytest.approx(1.5, abs=1e-5)


# ---------------------------------------------------------------------- the corollaries
def mixed_views(random, *, n, m, num_images=60, num_views=8, lipschitz=0.05):
    """Unit vectors in four dimensions that obey Theorem 2's model with LM = `lipschitz`: half of the views one of m
    transformations, half from a family in which an angle moves by LM/√n for each of n parameters; with their θ."""
    labels = np.arange(num_images) % 2
    kind = random.integers(0, 2 * m, size=(num_images, num_views - 1))
    family = kind >= m
    theta = random.uniform(size=(num_images, num_views - 1, n))
    angle = np.where(family, lipschitz * theta.sum(axis=2) / math.sqrt(n), 0.02 * kind)
    angle = np.concatenate([np.zeros((num_images, 1)), angle], axis=1) + labels[:, None] * 2 + 0.1 * random.random()
    tilt = 0.3 * random.normal(size=(num_images, 1)) + 0 * angle
    circle = [np.cos(angle) * np.cos(tilt), np.sin(angle) * np.cos(tilt), np.sin(tilt), 0 * tilt]
    states = np.where(family, -1, kind)[:, :, None]
    return np.stack(circle, axis=2), labels, theta, states


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 3), (2, 2), (3, 5)])
def test_corollaries_are_no_less_than_the_right_side_where_theorem_2_applies(n, m):
    random = np.random.default_rng(10 * n + m)
    features, labels, theta, states = mixed_views(random, n=n, m=m)
    grid = grid_of(features, labels)
    parameters = ViewParameters(torch.as_tensor(theta), torch.as_tensor(states), tuple("abcdefg"[:m]))
    constants = theorem_2_constants(parameters, torch.as_tensor(features)[:, 1:])
    # Only views of the family change with θ; two of one transformation do not move at all.
    assert (constants.num_parameters, constants.num_discrete) == (n, m)
    assert 0.5 * 0.05 / math.sqrt(n) < constants.lipschitz <= 0.05
    alignment = np.mean([reference_alignment(image[1:]) for image in features])
    for epsilon, r_epsilon in zip(grid.epsilons, grid.r_epsilon, strict=True):
        assert r_epsilon <= eta_paper(epsilon, m, n, 0.05) * math.sqrt(alignment)
    table = FeatureTable(standardized_table(torch.as_tensor(features)), grid.geometry.table.labels, ("0", "1"))
    of_standardized = theorem_2_constants(parameters, table.features[:, 1:])
    found = corollaries(grid, constants, table, of_standardized)
    etas = [eta_paper(epsilon, m, n, constants.lipschitz) * math.sqrt(alignment) for epsilon in grid.epsilons]
    holds = grid.slack > 0 if (grid.slack > 0).any() else np.ones_like(grid.slack, dtype=bool)
    least = min(1 - grid.sigma[d] + etas[e] for d, e in zip(*np.nonzero(holds), strict=True))
    assert found["infonce_bound"].value == pytest.approx(least)
    assert found["infonce_bound"].errs == "low"
    own = cross_correlation(table)
    diameters = np.array([max(np.linalg.norm(a - b) for a in image for b in image) for image in table.features.numpy()])
    best = min(eta_paper(e, m, n, of_standardized.lipschitz) for e in diameters)
    root = math.sqrt(own["alignment_bound"].value)  # Lemma 4.1: L_align ≤ 2 √(d L₁)
    assert found["cross_correlation_bound"].value == pytest.approx(1 - max(grid.sigma) + best * root, rel=1e-6)
    assert found["cross_correlation_bound"].vacuous is True


def reference_alignment(views):
    pairs = [(a, b) for i, a in enumerate(views) for j, b in enumerate(views) if i != j]
    return np.mean([float(((a - b) ** 2).sum()) for a, b in pairs])


def turned(features, image, view, angle):
    """The features with one view of one image turned by so much in the first two coordinates."""
    features = features.copy()
    x, y = features[image, view, :2]
    features[image, view, :2] = (
        math.cos(angle) * x - math.sin(angle) * y,
        math.sin(angle) * x + math.cos(angle) * y,
    )
    return features


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_corollary_is_vacuous_where_the_condition_holds_nowhere_however_small(collapsed):
    """One image of 400 has views 0.3 apart, so that alignment is small beside ε; LM is next to nothing."""
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    points = np.array([[1.0, 0.0], [-1.0, 0.0]])[labels] if collapsed else random.normal(size=(400, 2))
    features = np.repeat(points[:, None] / np.linalg.norm(points, axis=1)[:, None, None], 4, axis=1)
    grid, tiny = grid_of(turned(features, 0, 1, 0.3), labels), Constants(1, 1, 1e-9)
    assert (grid.slack > 0).any() == collapsed
    found = corollaries(grid, tiny, grid.geometry.table, tiny)
    assert found["infonce_bound"].value < 0.5
    assert found["infonce_bound"].vacuous is not collapsed
    assert found["cross_correlation_bound"].vacuous is True


def test_a_corollary_takes_its_main_parts_from_where_the_condition_holds():
    """8 % of each class lie at the other centre: it holds for main parts of 92 %, not for all images without error."""
    labels = np.repeat([0, 1], 400)
    points = np.array([[1.0, 0.0], [-1.0, 0.0]])[labels]
    points[np.r_[:32, 400:432]] *= -1
    grid, tiny = grid_of(turned(np.repeat(points[:, None], 4, axis=1), 200, 1, 0.02), labels), Constants(1, 1, 1e-9)
    assert grid.sigma.max() == 1
    assert set(np.unique(grid.sigma[(grid.slack > 0).any(axis=1)])) == {0.92}
    found = corollaries(grid, tiny, grid.geometry.table, tiny)["infonce_bound"]
    assert found.vacuous is False
    assert 0.08 <= found.value + 1e-12 < 0.5
    assert lemma_3_1(grid)["counted_bound"].value >= 0.08 - 1e-12


def test_without_constants_or_a_grid_nothing_is_said():
    features, labels = reference.random_instance(4)
    grid, reason = grid_of(features, labels), Absent("no parameters")
    assert corollaries(grid, reason, grid.geometry.table, reason) == dict.fromkeys(COROLLARIES, reason)
    assert lemma_3_1(reason) == dict.fromkeys(QUANTITIES, reason)
    huge = Constants(60, 1, 1e6)
    assert "1e300" in corollaries(grid, huge, grid.geometry.table, huge)["cross_correlation_bound"].reason


def test_constants_take_pairs_that_agree_in_coins_alone():
    """A flip moves the feature by 1; within a coin's outcome it moves by ½ |θ − θ′|."""
    theta = torch.tensor([[[0.0], [1.0], [0.01]]], dtype=torch.float64)
    states = torch.tensor([[[0], [0], [1]]])
    features = torch.tensor([[[0.0], [0.5], [1.0]]], dtype=torch.float64)
    mixed = ViewParameters(theta, states, ("flip",))
    assert theorem_2_constants(mixed, features) == Constants(1, 1, 0.5)
    assert theorem_2_constants(ViewParameters.all_continuous(theta), features) == Constants(1, 0, pytest.approx(100.0))
    apart = ViewParameters(theta, torch.tensor([[[0], [1], [2]]]), ("flip",))
    assert "agree in coins" in theorem_2_constants(apart, features).reason
    none = ViewParameters(theta[:, :, :0], states, ("flip",))
    assert "continuous parameters" in theorem_2_constants(none, features).reason
    assert isinstance(theorem_2_constants(None, features), Absent)
