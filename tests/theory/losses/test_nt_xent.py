"""NT-Xent in batches: against every batch of tiny tables, its floor and bound, closed forms, invariances."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cssl_cli.host.randomness import stream
from cssl_cli.methods.simclr import nt_xent_terms
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.losses.nt_xent import (
    LOSSES,
    OF_CLASSES,
    OF_PAIRS,
    ClassFloor,
    log_sum_exp_of_batch,
    mean_inner_product_bound,
    nt_xent,
)
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_losses as reference

seeds = st.integers(0, 2**32 - 1)


def loss_of(features, labels, *, temperature=0.5, batch_size=512, num_batches=2, seed=0):
    names = [] if labels is None else [f"class {k}" for k in range(max(int(labels.max()) + 1, 2))]
    table = FeatureTable.build(torch.as_tensor(features), None if labels is None else torch.as_tensor(labels), names)
    return nt_xent(
        table,
        temperature=temperature,
        batch_size=batch_size,
        num_batches=num_batches,
        generator=stream(seed, "losses"),
    )


def value(quantities, name):
    return quantities[name].value


def floor_of(features, labels, batch_size, temperature):
    """A ClassFloor from loops, and the classes' t_k."""
    classes = sorted(set(labels.tolist()))
    sizes = [(labels == k).sum() for k in classes]
    a = [reference.positives(features, labels, k, distinct=True) for k in classes]
    g = [reference.between_images(features, labels, k, k, distinct=True) for k in classes]
    t = [
        sum(sizes[l] * reference.between_images(features, labels, classes[k], classes[l], distinct=True) for l in rest)
        / sum(sizes[l] for l in rest)
        for k, rest in ((k, [l for l in range(len(classes)) if l != k]) for k in range(len(classes)))
    ]
    tensors = [
        torch.tensor([math.nan if x is None else float(x) for x in row], dtype=torch.float64)
        for row in (sizes, a, g, t)
    ]
    return ClassFloor(*tensors[:3], temperature=temperature, batch_size=batch_size), tensors[3]


# ---------------------------------------------------------------------- against every batch
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_the_floor_agrees_with_every_choice_of_negatives(seed, batch_size):
    features, labels = reference.random_table(np.random.default_rng(seed), sizes=[1, 2, 3])
    expected = reference.nt_xent_floor(features, labels, batch_size, 0.5)
    assert value(loss_of(features, labels, batch_size=batch_size), "collapse_floor") == pytest.approx(expected)
    floor, others = floor_of(features, labels, batch_size, 0.5)
    assert floor.floor(others) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_batches_centre_on_every_batch(seed):
    features, labels = reference.random_table(np.random.default_rng(seed), sizes=[2, 3], num_views=4)
    exact = reference.nt_xent_divergence(features, 3, 0.5)
    for known in (labels, None):
        measured = loss_of(features, known, batch_size=3, num_batches=600)
        low, high = measured["divergence_part"].interval
        assert low < value(measured, "divergence_part") < high
        half = (high - low) / 2
        assert abs(value(measured, "divergence_part") - exact) < 2.5 * half  # five standard errors
        assert value(measured, "batch_size") == 3
        positives = [views[a] @ views[b] for views in features for a, b in itertools.permutations(range(1, 4), 2)]
        assert value(measured, "alignment_part") == pytest.approx(-2 * np.mean(positives))
        assert value(measured, "loss") == pytest.approx(
            value(measured, "alignment_part") + value(measured, "divergence_part")
        )


def test_parts_add_up():
    measured = loss_of(*reference.random_table(np.random.default_rng(1), sizes=[5, 6]), batch_size=4, num_batches=7)
    parts = value(measured, "collapse_floor") + value(measured, "collapse_gap")
    assert value(measured, "divergence_part") == pytest.approx(parts)
    widths = [np.diff(measured[name].interval) for name in ("divergence_part", "collapse_gap", "loss")]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[0] == pytest.approx(widths[2])


@pytest.mark.parametrize("seed", range(3))
def test_the_batch_is_that_of_the_training(seed):
    random = np.random.default_rng(seed)
    z = torch.as_tensor(random.normal(size=(5, 2, 3)))
    z /= z.norm(dim=2, keepdim=True)
    divergence = nt_xent_terms(z[:, 0], z[:, 1], temperature=0.3)[1].item()
    assert log_sum_exp_of_batch(z, 0.3).mean().item() == pytest.approx(divergence)
    assert reference.batch_divergence(z.numpy(), 0.3) == pytest.approx(divergence)
    # Two views and all images: there is one batch.
    table = np.concatenate([z[:, :1].numpy(), z.numpy()], axis=1)
    assert value(loss_of(table, None, temperature=0.3), "divergence_part") == pytest.approx(divergence)


# ---------------------------------------------------------------------- inequalities
def test_floor_and_bound_on_random_tables():
    """Two views and a batch of all images make the loss exact."""
    spoke = 0

    @given(seeds, st.sampled_from([0.05, 0.2, 1.0]), st.sampled_from([True, False, False, False]))
    @settings(max_examples=60)
    def check(seed, temperature, uneven):
        nonlocal spoke
        random = np.random.default_rng(seed)
        features, labels = reference.random_table(random)
        if uneven:
            features = features * random.uniform(0.3, 2, size=(*features.shape[:2], 1))
        measured = loss_of(features, labels, temperature=temperature, num_batches=1)
        assert value(measured, "collapse_gap") >= -1e-10
        assert value(measured, "mean_inner_product") <= value(measured, "mean_bound") + 1e-9
        assert value(measured, "mean_inner_product") == pytest.approx(
            reference.mean_inner_product(features, labels), abs=1e-12
        )
        spoke += not measured["mean_bound"].vacuous

    check()
    assert spoke > 6


@given(seeds, st.integers(2, 5), st.sampled_from([0.1, 0.5]))
@settings(max_examples=40)
def test_floor_and_bound_of_smaller_batches(seed, batch_size, temperature):
    random = np.random.default_rng(seed)
    features, labels = reference.random_table(random, sizes=random.permutation([1, 2, 3]).tolist())
    exact = reference.nt_xent_divergence(features, batch_size, temperature)
    floor, others = floor_of(features, labels, batch_size, temperature)
    assert floor.floor(others) <= exact + 1e-10
    assert reference.mean_inner_product(features, labels) <= mean_inner_product_bound(floor, exact) + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_is_the_most_that_the_floor_allows(seed):
    random = np.random.default_rng(seed)
    num_classes = int(random.integers(2, 5))
    sizes = torch.as_tensor(random.integers(2, 9, size=num_classes).astype(float))
    a, g, t = (torch.as_tensor(random.uniform(-0.3, 1, size=num_classes)) for _ in range(3))
    floor = ClassFloor(sizes, a, g, temperature=0.4, batch_size=int(sizes.sum()) // 2)
    divergence = floor.floor(t)
    p = (sizes / sizes.sum()).numpy()
    q = p * (1 - p) / (p * (1 - p)).sum()
    bound = mean_inner_product_bound(floor, divergence)
    assert bound >= q @ t.numpy() - 1e-9
    best = minimize(
        lambda t: -q @ t,
        t.numpy(),
        jac=lambda t: -q,
        constraints={
            "type": "ineq",
            "fun": lambda t: divergence - floor.floor(torch.as_tensor(t)),
            "jac": lambda t: -p * floor.slope(torch.as_tensor(t)).numpy() / 0.4,
        },
        options={"ftol": 1e-12, "maxiter": 500},
    )
    # Not best.success: at the optimum the line search may find no way on, which some versions call a failure.
    assert floor.floor(torch.as_tensor(best.x)) <= divergence + 1e-6
    assert bound == pytest.approx(-best.fun, abs=1e-5)


def test_the_slope_is_that_of_the_floor():
    floor, others = floor_of(*reference.random_table(np.random.default_rng(0), sizes=[2, 3, 3]), 4, 0.5)
    step = 1e-6
    difference = (floor.value(others + step) - floor.value(others - step)) / (2 * step)
    assert (floor.slope(others) / 0.5).tolist() == pytest.approx(difference.tolist(), rel=1e-6)


# ---------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("batch_size", [2, 7, 512])
def test_a_collapsed_simplex_of_balanced_classes_meets_floor_and_bound(num_classes, batch_size):
    features, labels = reference.collapsed(reference.simplex_vectors(num_classes, num_classes), [4] * num_classes)
    measured = loss_of(features, labels, batch_size=batch_size, num_batches=3)
    assert value(measured, "collapse_gap") == pytest.approx(0, abs=1e-12)
    assert measured["collapse_gap"].interval == pytest.approx((0, 0), abs=1e-12)
    assert value(measured, "mean_inner_product") == pytest.approx(-1 / (num_classes - 1))
    assert value(measured, "mean_bound") == pytest.approx(-1 / (num_classes - 1), abs=1e-6)
    assert not measured["mean_bound"].vacuous


def test_two_collapsed_classes_of_any_size_leave_no_gap():
    features, labels = reference.collapsed(np.array([[1.0, 0], [0.6, 0.8]]), [2, 9])
    measured = loss_of(features, labels, batch_size=5, num_batches=4)
    assert value(measured, "collapse_gap") == pytest.approx(0, abs=1e-12)
    assert value(measured, "mean_bound") >= 0.6 - 1e-9


def test_everything_at_one_point():
    features = np.tile([[[0.6, 0.8]]], (6, 3, 1))
    measured = loss_of(features, np.repeat([0, 1], 3), temperature=0.1, batch_size=4)
    assert value(measured, "loss") == pytest.approx(math.log(7))
    assert value(measured, "mean_bound") == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("temperature", [1e-3, 0.01])
def test_a_low_temperature_stays_finite(temperature):
    features, labels = reference.random_table(np.random.default_rng(3), sizes=[3, 3])
    measured = loss_of(features, labels, temperature=temperature, batch_size=4)
    json.dumps({name: quantity.to_dict() for name, quantity in measured.items()}, allow_nan=False)
    assert value(measured, "mean_inner_product") <= value(measured, "mean_bound")


def test_a_loss_below_every_floor_has_no_bound():
    floor, others = floor_of(*reference.random_table(np.random.default_rng(0), sizes=[2, 3, 3]), 4, 0.5)
    assert mean_inner_product_bound(floor, floor.floor(torch.full_like(others, -1e3)) - 0.01) is None


def test_the_noise_of_the_batches_lets_no_bound_lie_below_what_it_bounds():
    """Few batches of unequal classes may give a loss below its own floor, which is exact."""
    below = 0
    for seed in range(15):
        features, labels = reference.random_table(np.random.default_rng(seed), sizes=[1, 5], num_views=3)
        measured = loss_of(features, labels, batch_size=3, num_batches=3, seed=seed)
        bound = measured["mean_bound"]
        below += value(measured, "collapse_gap") < 0
        assert bound.value >= value(measured, "mean_inner_product") - 1e-9
        assert bound.interval[0] >= value(measured, "mean_inner_product") - 1e-9
    assert below > 0  # the case is met


def test_a_large_loss_gives_a_large_bound():
    floor, _ = floor_of(*reference.random_table(np.random.default_rng(0), sizes=[2, 3, 3]), 4, 0.5)
    bounds = [mean_inner_product_bound(floor, divergence) for divergence in (5.0, 20.0, 300.0)]
    assert 1 < bounds[0] < bounds[1] < bounds[2]


# ---------------------------------------------------------------------- invariances
def numbers(measured):
    return [getattr(quantity, "value", None) for quantity in measured.values()]


def test_the_clean_view_changes_nothing():
    features, labels = reference.random_table(np.random.default_rng(4), num_views=4, sizes=[3, 4], kind="clusters")
    moved = features.copy()
    moved[:, 0] = 100
    assert numbers(loss_of(moved, labels)) == numbers(loss_of(features, labels))


def test_batches_are_drawn_from_the_generator():
    features, labels = reference.random_table(np.random.default_rng(7), sizes=[30, 30], kind="noise")
    first, same, other = (loss_of(features, labels, batch_size=10, seed=seed) for seed in (0, 0, 1))
    assert numbers(first) == numbers(same)
    assert value(first, "loss") != value(other, "loss")


# ---------------------------------------------------------------------- what a table cannot give
@pytest.mark.parametrize(
    ("shape", "labels", "batch_size", "absent"),
    [
        ((6, 1, 2), [0, 0, 0, 1, 1, 1], 4, LOSSES + OF_CLASSES + OF_PAIRS),
        ((6, 2, 2), [0, 0, 0, 1, 1, 1], 4, LOSSES + OF_CLASSES + OF_PAIRS),
        ((1, 3, 2), [0], 4, LOSSES + OF_CLASSES + OF_PAIRS),
        ((6, 3, 2), [0, 0, 0, 1, 1, 1], 1, LOSSES + OF_CLASSES + OF_PAIRS),
        ((6, 3, 2), None, 4, OF_CLASSES + OF_PAIRS),
        ((6, 3, 2), [1] * 6, 4, OF_PAIRS),
        ((6, 3, 2), [0, 0, 0, 0, 0, 1], 4, ()),
    ],
)
def test_absences(shape, labels, batch_size, absent):
    features = np.random.default_rng(0).normal(size=shape)
    measured = loss_of(features, None if labels is None else np.array(labels), batch_size=batch_size)
    assert set(measured) == {*LOSSES, *OF_CLASSES, *OF_PAIRS}
    assert {name for name, quantity in measured.items() if isinstance(quantity, Absent)} == set(absent)
    json.dumps({name: quantity.to_dict() for name, quantity in measured.items()}, allow_nan=False)


def test_one_batch_has_no_interval():
    features, labels = reference.random_table(np.random.default_rng(0), sizes=[3, 3])
    measured = loss_of(features, labels, num_batches=1)
    assert all(measured[name].interval is None for name in ("loss", "divergence_part", "collapse_gap", "mean_bound"))
