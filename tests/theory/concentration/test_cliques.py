"""Bounds of the clique number: against exhaustive search, on closed forms, and as certainties on larger graphs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.theory.concentration.cliques import clique_bounds

seeds = st.integers(0, 2**32 - 1)
KINDS = ("noise", "points", "hidden", "dense")


def clique_number(adjacent):
    """By branching on every vertex in turn, with no bound but the number of vertices left."""
    num = len(adjacent)
    neighbours = [{j for j in range(num) if j != i and adjacent[i][j]} for i in range(num)]

    def largest(candidates):
        if not candidates:
            return 0
        vertex = min(candidates)
        return max(1 + largest(candidates & neighbours[vertex]), largest(candidates - {vertex}))

    return largest(frozenset(range(num)))


def random_graph(random, num, kind):
    """Graphs of noise, of points in a plane, of hidden cliques, and complements of sparse graphs."""
    if kind == "points":
        points = random.normal(size=(num, 2))
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        return distances <= np.quantile(distances, random.uniform(0.1, 1)) if num else distances < 0
    density = {"noise": random.uniform(), "hidden": random.uniform(0, 0.6), "dense": 1 - random.uniform(0, 0.3)}[kind]
    upper = np.triu(random.random((num, num)) < density, 1)
    if kind == "hidden":
        members = random.permutation(num)[: num // 2]
        upper |= np.triu(np.isin(np.arange(num), members)[:, None] & np.isin(np.arange(num), members), 1)
    return upper | upper.T | (np.eye(num, dtype=bool) & random.choice([True, False]))


def assert_clique(adjacent, members):
    assert list(members) == sorted(set(members.tolist()))
    assert all(adjacent[i, j] for i, j in itertools.combinations(members, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bounds_enclose_the_clique_number(kind):
    exact, tight = [], []

    @given(seeds, st.integers(0, 14))
    @settings(max_examples=200)
    def check(seed, num):
        adjacent = random_graph(np.random.default_rng(seed), num, kind)
        before = adjacent.copy()
        bounds = clique_bounds(adjacent)
        number = clique_number(adjacent)
        assert bounds.low <= number <= bounds.high <= len(adjacent)
        assert len(bounds.members) == bounds.low
        assert_clique(adjacent, bounds.members)
        assert (adjacent == before).all()
        exact.append(bounds.low == number)
        tight.append(bounds.high == number)

    check()
    # Small graphs are easy: the search misses nothing or next to nothing, and colouring is rarely off.
    assert np.mean(exact) > 0.98
    assert np.mean(tight) > 0.75


@given(seeds, st.integers(0, 12))
@settings(max_examples=150)
def test_only_the_lower_bound(seed, num):
    adjacent = random_graph(np.random.default_rng(seed), num, "noise")
    bounds = clique_bounds(adjacent, upper=False)
    assert bounds.low <= clique_number(adjacent) <= bounds.high
    assert bounds.high in (len(adjacent), bounds.low)
    assert_clique(adjacent, bounds.members)


def test_closed_forms():
    def bounds(adjacent):
        low, high, members = clique_bounds(np.array(adjacent, dtype=bool))
        return low, high, members.tolist()

    assert bounds(np.zeros((0, 0))) == (0, 0, [])
    assert bounds([[False]]) == bounds([[True]]) == (1, 1, [0])
    assert bounds(np.ones((7, 7))) == bounds(~np.eye(7, dtype=bool)) == (7, 7, list(range(7)))
    assert bounds(np.eye(5))[:2] == (1, 1)
    # Two cliques of 3 and 4 beside one another, then all edges but those between two halves.
    blocks = np.arange(7)[:, None] // 3.5 == np.arange(7) // 3.5
    assert bounds(blocks) == (4, 4, [0, 1, 2, 3])
    assert bounds(~blocks)[:2] == (2, 2)
    # A complete graph without a perfect matching: one vertex of each missing edge must go.
    cocktail = np.ones((12, 12), dtype=bool)
    for i in range(0, 12, 2):
        cocktail[i, i + 1] = cocktail[i + 1, i] = False
    assert bounds(cocktail)[:2] == (6, 6)


def test_the_bounds_hold_under_any_order_of_the_vertices():
    random = np.random.default_rng(2)
    for kind in ("noise", "points", "hidden", "dense"):
        adjacent = random_graph(random, 60, kind)
        first = clique_bounds(adjacent)
        for _ in range(5):
            order = random.permutation(60)
            again = clique_bounds(adjacent[np.ix_(order, order)])
            assert_clique(adjacent, np.sort(order[again.members]))
            assert max(first.low, again.low) <= min(first.high, again.high)


def test_a_maximal_matching_of_the_missing_edges_encloses_the_clique_number():
    # ν disjoint missing edges cost a clique ν vertices at least; without their 2ν ends no edge is missing.
    random = np.random.default_rng(3)
    for kind in ("noise", "points", "hidden", "dense"):
        for num in (5, 20, 80):
            adjacent = random_graph(random, num, kind)
            free, matching = set(range(num)), 0
            for i, j in itertools.combinations(random.permutation(num).tolist(), 2):
                if i in free and j in free and not adjacent[i, j]:
                    free -= {i, j}
                    matching += 1
            bounds = clique_bounds(adjacent)
            assert bounds.high <= num - matching
            assert bounds.high >= num - 2 * matching
            if num <= 20:
                assert num - 2 * matching <= clique_number(adjacent) <= num - matching


def test_same_graph_and_seed_same_clique():
    adjacent = random_graph(np.random.default_rng(4), 80, "noise")
    one, other = clique_bounds(adjacent, seed=5), clique_bounds(adjacent, seed=5)
    assert one.members.tolist() == other.members.tolist()
    assert one[:2] == other[:2]


def test_a_hidden_clique_is_found_and_proved_in_a_large_graph():
    random = np.random.default_rng(6)
    upper = np.triu(random.random((400, 400)) < 0.3, 1)
    adjacent = upper | upper.T
    members = np.sort(random.permutation(400)[:120])
    adjacent[np.ix_(members, members)] = True
    low, high, found = clique_bounds(adjacent)
    assert (low, high) == (120, 120)
    assert found.tolist() == members.tolist()
