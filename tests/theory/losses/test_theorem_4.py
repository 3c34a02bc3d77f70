"""The explicit τ′ of Theorem 4: its chain of inequalities, against all subsets of a class, closed forms, invariance."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.losses.cross_correlation import cross_correlation, pair_bounds, standardized_table
from cssl_cli.theory.losses.theorem_4 import LARGE_CLASS, QUANTITIES, best_part, explicit_tau
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_losses as reference


def build(features, labels):
    names = [] if labels is None else [f"class {k}" for k in range(int(max(labels)) + 1)]
    return FeatureTable.build(torch.as_tensor(features), None if labels is None else torch.as_tensor(labels), names)


def values(features, labels):
    return {name: getattr(q, "value", None) for name, q in explicit_tau(build(features, labels)).items()}


def drawn_table(seed):
    """A table of a few classes on the sphere, off it or standardised, with labels."""
    random = np.random.default_rng(seed)
    features, labels = reference.random_table(random, num_views=int(random.integers(2, 5)))
    if seed % 3 == 1:
        features = features * random.uniform(0.3, 3, size=(*features.shape[:2], 1))
    return (standardized_table(torch.as_tensor(features)).numpy() if seed % 3 == 2 else features), labels


tables = st.integers(0, 2**32 - 1).map(drawn_table)


def gap(views, others):
    return min(math.dist(v, w) for v, w in itertools.product(views, others))


# ---------------------------------------------------------------------- the chain
@given(tables)
@settings(max_examples=80)
def test_norm_trace_and_bound_are_in_order(table):
    features, labels = table
    found = values(features, labels)
    within = reference.within_covariance(features, labels)
    assert found["within_covariance_trace"] == pytest.approx(np.trace(within), abs=1e-9)
    assert np.linalg.norm(within) <= found["within_covariance_trace"] + 1e-9
    assert found["within_covariance_trace"] <= found["trace_bound"] + 1e-9
    radius = np.linalg.norm(features, axis=2).max()
    total = 0.0
    for label in set(labels.tolist()):
        share, reach = (found[name][f"class {label}"] for name in ("share_per_class", "reach_per_class"))
        assert 0 <= share <= 1
        assert 0 <= reach <= 2 * radius + 1e-12
        total += (labels == label).mean() * (share**2 * reach**2 + 4 * radius**2 * (1 - share**2)) / 2
    assert found["trace_bound"] == pytest.approx(total)


@given(tables)
@settings(max_examples=60)
def test_theorem_4_holds_with_it_and_is_never_better_than_with_the_least(table):
    features, labels = table
    table = build(standardized_table(torch.as_tensor(features)), labels)
    found, measured = explicit_tau(table), cross_correlation(table)
    p = np.array([(labels == k).mean() for k in range(max(labels) + 1)])
    width = features.shape[2]
    k, l = (int(name.split()[1]) for name in found["theorem_4_bound"].classes)
    assert sorted([p[k], p[l]]) == sorted(p)[-2:]
    means = [table.view_means[table.labels == label].mean(dim=0) for label in (k, l)]
    least = pair_bounds(
        measured["redundancy_loss_plug_in"].value,
        measured["within_covariance_norm"].value,
        torch.tensor(p[k] * p[l]),
        width=width,
        num_classes=len(p),
    )["theorem_4_bound"].item()
    assert abs(means[0] @ means[1]) <= least + 1e-9
    assert least <= width * found["theorem_4_bound"].value + 1e-9


def test_the_set_is_one_of_the_class_and_mostly_the_best():
    """All subsets of a class of up to 7, with the δ and ε that each needs."""
    excess = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        num = int(random.integers(1, 8))
        features = random.normal(size=(num, 1, 2)) + random.uniform(0, 0.5) * random.normal(size=(num, 3, 2))
        features[random.random(num) < 0.2] *= 6
        radius = np.linalg.norm(features, axis=2).max()
        possible = [4 * radius**2]
        for size in range(1, num + 1):
            for part in itertools.combinations(range(num), size):
                delta = max((gap(features[i], features[j]) for i, j in itertools.combinations(part, 2)), default=0)
                reach = min(2 * radius, delta + 2 * max(reference.diameter(features[i]) for i in part))
                share = size / num
                possible.append(share**2 * reach**2 + 4 * radius**2 * (1 - share**2))
        found = best_part(torch.as_tensor(features), radius).mean_square
        assert min(abs(np.array(possible) - found)) <= 1e-5 * radius**2
        excess.append(found / min(possible))
    # Quantiles pass over some thresholds, and the largest set at one is not always the tightest.
    assert min(excess) >= 1 - 1e-9
    assert np.median(excess) <= 1 + 1e-5
    assert max(excess) <= 1.25, max(excess)


# ---------------------------------------------------------------------- closed forms
def test_collapsed_classes_leave_nothing():
    features, labels = reference.collapsed(2 * np.eye(4), [2, 3, 4, 5])
    found = values(features, labels)
    assert found["trace_bound"] == found["within_covariance_trace"] == 0
    assert found["share_per_class"] == {f"class {k}": 1.0 for k in range(4)}
    assert found["reach_per_class"] == {f"class {k}": 0.0 for k in range(4)}


@pytest.mark.parametrize("num", [5, 20])
def test_one_opposite_image(num):
    # s = 1 − 1/n, b = 0: the trace is 4 s (1 − s) r², and the bound 2 (1 − s²) r², the same but for (1 + s) / 2s.
    features = np.tile([[[3.0, 0.0]]], (num, 3, 1))
    features[0] *= -1
    found, share = values(features, [0] * num), 1 - 1 / num
    assert found["within_covariance_trace"] == pytest.approx(9 * 4 * share / num)
    assert found["trace_bound"] == pytest.approx(9 * 2 * (1 - share**2))


def test_two_opposite_views_say_nothing():
    features = np.array([[[1.0, 0], [1, 0], [-1, 0]], [[0, 1], [0, 1], [0, -1]]]).repeat(3, axis=0)
    found = explicit_tau(build(features, [0, 1, 0, 1, 0, 1]))
    assert found["trace_bound"].value == pytest.approx(2)
    assert found["trace_bound"].vacuous


def test_of_a_large_class_the_clean_views_stand_for_all():
    random = np.random.default_rng(0)
    features = torch.as_tensor(random.normal(size=(LARGE_CLASS + 1, 3, 2)))
    # View 2 is the same point everywhere: the augmented distance is 0, that of the clean views is not.
    features[:, 2] = 0
    small, large = best_part(features[:LARGE_CLASS], 10.0), best_part(features, 10.0)
    assert small.mean_square < large.mean_square
    trace = 2 * features[:, 1:].mean(dim=1).var(dim=0, correction=0).sum()
    assert trace <= large.mean_square


# ---------------------------------------------------------------------- invariances
@given(tables, st.sampled_from([0.125, 8.0]))
@settings(max_examples=60)
def test_scale(table, factor):
    # By a power of two: rounding, and with it which of equal distances counts as the smaller, stays the same.
    features, labels = table
    before, after = values(features, labels), values(factor * features, labels)
    for name in ("within_covariance_trace", "trace_bound"):
        assert after[name] == pytest.approx(factor**2 * before[name], rel=1e-9, abs=1e-12)


@given(tables, st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_rotation_and_order_of_views(table, seed):
    # The trace stays. The bound comes from a search among sets, which equal distances may send another way: it stays a
    # bound, and no worse than the trivial one.
    features, labels = table
    random = np.random.default_rng(seed)
    turned = features @ np.linalg.qr(random.normal(size=(features.shape[2],) * 2))[0]
    turned = turned[:, np.r_[0, 1 + random.permutation(features.shape[1] - 1)]]
    before, after = values(features, labels), values(turned, labels)
    assert after["within_covariance_trace"] == pytest.approx(before["within_covariance_trace"], rel=1e-5, abs=1e-9)
    assert before["within_covariance_trace"] <= after["trace_bound"] + 1e-9
    assert after["trace_bound"] <= 2 * np.square(np.linalg.norm(features, axis=2)).max() * (1 + 1e-9)


# ---------------------------------------------------------------------- what a table cannot give
@pytest.mark.parametrize(
    ("views", "labels", "absent"),
    [
        (1, [0, 0, 1], QUANTITIES),
        (3, None, QUANTITIES),
        (3, [0, 0, 0], ("theorem_4_bound",)),
        (2, [0, 0, 2], ()),
    ],
)
def test_absences(views, labels, absent):
    found = explicit_tau(build(np.random.default_rng(0).normal(size=(3, views, 2)), labels))
    assert set(found) == set(QUANTITIES)
    assert {name for name, quantity in found.items() if isinstance(quantity, Absent)} == set(absent)
    json.dumps({name: quantity.to_dict() for name, quantity in found.items()}, allow_nan=False)
