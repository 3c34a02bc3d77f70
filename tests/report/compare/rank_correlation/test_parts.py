"""Rows that are built from shared parts: which parts may change places, orders of the parts, and what is said."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from cssl_cli.report.compare.rank_correlation.attainable import p_without_ties
from cssl_cli.report.compare.rank_correlation.coefficients import RankCorrelation, rank_correlations
from cssl_cli.report.compare.rank_correlation.crossed import (
    MAX_ROWS_PERMUTED,
    SHARED_PARTS,
    Crossed,
    of_parts,
    over_sets,
)
from cssl_cli.report.compare.rank_correlation.parts import (
    BuiltFrom,
    all_of_one_size,
    classes_of_parts,
    incidence,
    overlap,
)
from cssl_cli.report.compare.rank_correlation.screening import RowMeans, screen_accuracy
from cssl_cli.report.compare.rank_correlation.signs import Floats

LEVEL = 0.05
PAIRS = [frozenset(pair) for pair in itertools.combinations("abcde", 2)]
NESTED = [frozenset("abcde"[:size]) for size in range(1, 6)]


def sets(*names: str) -> list[frozenset[str]]:
    return [frozenset(name) for name in names]


def design(built_from: Sequence[frozenset[str]], methods: int = 1) -> Crossed:
    rows = list(itertools.product(built_from, range(methods)))
    found = of_parts([parts for parts, _ in rows], [method for _, method in rows])
    assert found is not None
    return found


# ---------------------------------------------------------------------- which parts may change places
def test_parts_that_distinguish_nothing_are_left_out() -> None:
    """What all rows have, and what always comes together with another part."""
    assert incidence(sets("xab", "xac", "xbc")).sum(axis=1).tolist() == [2, 2, 2]
    assert incidence(sets("xab", "xac", "xbc")).shape == (3, 3)
    assert incidence(sets("ab", "cd")).tolist() == [[True, False], [False, True]]
    assert incidence(sets("ab", "ab")).shape == (2, 0)


@pytest.mark.parametrize(
    ("built_from", "shared"),
    [
        (PAIRS, True),
        (NESTED, True),
        (sets("a", "b", "c"), False),
        (sets("xa", "xb", "xc"), False),  # all share x
        (sets("ab", "cd", "ef"), False),
        (sets("abc", "abd", "acd", "bcd"), False),  # each lacks one
        (sets("ab", "bc", "ca"), False),
        (sets("ab", "bc"), False),  # b in both
        (sets("a", "ab", "abc"), True),
    ],
)
def test_rows_share_parts_where_they_are_not_as_free_as_rows_without(built_from: list, shared: bool) -> None:
    assert overlap(incidence(built_from)) == shared


def test_all_sets_of_one_size() -> None:
    assert all_of_one_size(incidence(PAIRS))
    assert all_of_one_size(incidence([*PAIRS, *PAIRS]))
    assert all_of_one_size(incidence(sets("xab", "xac", "xad", "xbc", "xbd", "xcd")))
    for other in (PAIRS[:-1], NESTED, [*PAIRS, frozenset("a")]):
        assert not all_of_one_size(incidence(other))


@pytest.mark.parametrize(
    ("built_from", "columns", "classes"),
    [
        (PAIRS, [0] * 10, [0] * 5),
        (PAIRS[1:], [0] * 9, [0, 0, 1, 1, 1]),  # without ab: a and b, or c, d and e
        (sets("ad", "ae", "bd", "be", "cd", "ce"), [0] * 6, [0, 0, 0, 1, 1]),
        (sets("a", "b", "ab", "ac", "bc"), [0] * 5, [0, 0, 1]),
        (sets("ab", "bc", "cd", "de", "ea"), [0] * 5, [0, 1, 2, 3, 4]),  # a ring
        ([*PAIRS, *PAIRS[1:]], [0] * 10 + [1] * 9, [0, 0, 1, 1, 1]),
    ],
)
def test_parts_may_change_places_where_that_maps_rows_onto_rows(built_from, columns, classes) -> None:
    parts = incidence(built_from)
    assert classes_of_parts(parts, np.array(columns)).tolist() == classes
    # By going through every order that moves two parts.
    rows = {(frozenset(one), column) for one, column in zip(built_from, columns, strict=True)}
    names = sorted({name for one in built_from for name in one})
    for (i, one), (j, other) in itertools.combinations(enumerate(names), 2):
        swap = {one: other, other: one}
        image = {(frozenset(swap.get(name, name) for name in row), column) for row, column in rows}
        assert (image == rows) == (classes[i] == classes[j])


def test_without_shared_parts_or_places_to_change_there_is_no_design() -> None:
    for built_from in (NESTED, sets("a", "b", "c"), sets("ab", "bc", "cd", "de", "ea"), [PAIRS[0], *PAIRS], []):
        assert of_parts(built_from, [0] * len(built_from)) is None


# ---------------------------------------------------------------------- orders
def by_loops(
    x: Floats, y: Floats, rows: list[tuple[frozenset[str], int]], group: list[int]
) -> tuple[list[int], list[int]]:
    """Concordant less discordant ordered pairs, and Σ of the products of twice the midranks, in every order."""
    at = {row: number for number, row in enumerate(rows)}
    num = len(rows)

    def sign(a: float, b: float) -> int:
        return int(a > b) - int(a < b)

    def ranks(values: list[float]) -> list[int]:
        return [sum(sign(values[i], values[j]) for j in range(num) if group[i] == group[j]) for i in range(num)]

    columns = sorted({column for _, column in rows})
    of_columns = [columns] if len(set(group)) > 1 else list(itertools.permutations(columns))
    tau, rho = [], []
    for letters in itertools.permutations("abcde"):
        to = dict(zip("abcde", letters, strict=True))
        for moved in of_columns:
            values = [y[at[frozenset(to[p] for p in parts), moved[column]]] for parts, column in rows]
            pairs = [(i, j) for i in range(num) for j in range(num) if group[i] == group[j]]
            tau.append(sum(sign(x[i], x[j]) * sign(values[i], values[j]) for i, j in pairs))
            rho.append(sum(a * b for a, b in zip(ranks(list(x)), ranks(values), strict=True)))
    return tau, rho


@pytest.mark.parametrize(("methods", "within"), [(1, False), (2, False), (2, True)])
def test_p_values_are_those_of_loops_over_the_letters(methods: int, within: bool) -> None:
    """120 orders of five letters, with those of the methods where these may change places."""
    generator = np.random.default_rng(methods)
    shuffled = generator.permutation(10 * methods)
    rows = [list(itertools.product(PAIRS, range(methods)))[row] for row in shuffled]
    x, y = generator.integers(0, 6, (2, len(rows))).astype(float)
    group = [column if within else 0 for _, column in rows]
    found = of_parts([parts for parts, _ in rows], [column for _, column in rows])
    assert found is not None
    plain = rank_correlations(x[:, None], y, np.array(group))
    (over,), scores, method = over_sets(plain, x[:, None], y, np.array(group), found)
    tau, rho = by_loops(x, y, rows, group)
    identity = 0  # the first order of both loops
    assert isinstance(over, RankCorrelation)
    assert method == "exact"
    assert len(scores) == len(tau) == 120 * (2 if methods == 2 and not within else 1)
    assert over.tau.p == pytest.approx(np.mean([abs(one) >= abs(tau[identity]) for one in tau]))
    assert over.rho.p == pytest.approx(np.mean([abs(one) >= abs(rho[identity]) for one in rho]))
    assert over.tau.value == plain[0].tau.value  # type: ignore[union-attr]
    assert over.tau.interval is over.rho.interval is None
    assert over.interval_method == SHARED_PARTS


def test_orders_are_a_group_of_rearrangements_of_the_rows() -> None:
    """Each has every row once, the first none moved; two one after the other are one of them: p is then exact."""
    for crossed in (design(PAIRS, 2), design(PAIRS[1:]), design([*PAIRS, *sets("a", "b", "c", "d", "e")])):
        codes = np.zeros(len(crossed.sets), dtype=np.int64)
        orders, method = crossed.orders(codes)
        assert method == "exact"
        assert (orders[0] == np.arange(len(codes))).all()
        assert (np.sort(orders, axis=1) == np.arange(len(codes))).all()
        known = {tuple(order) for order in orders.tolist()}
        for one, other in zip(orders[::7], orders[::-5], strict=False):
            assert tuple(one[other].tolist()) in known


def test_rows_that_are_missing_leave_the_orders_that_map_the_others_onto_themselves() -> None:
    assert len(design(PAIRS[1:]).orders(np.zeros(9, dtype=np.int64))[0]) == 2 * 6
    y = np.arange(10.0)
    found = screened(PAIRS, np.r_[math.nan, y[1:]], y)
    assert found["scopes"]["pooled"]["num_orders"] == 12
    assert found["terms"][0]["pooled"]["tau"]["p"] >= 1 / 12
    assert any("n = 9 rows of 5 parts: even a perfect order has p = 0.083" in said for said in found["warnings"])


def test_the_order_of_rows_and_parts_on_entry_does_not_matter() -> None:
    generator = np.random.default_rng(4)
    names = list("abcdefghij")  # more orders than are gone through
    pairs = [frozenset(pair) for pair in itertools.combinations(names, 2)]
    x, y = generator.standard_normal((2, 45))
    x[3] = math.nan
    first = screened(pairs, y, x)["terms"][0]["pooled"]
    assert first["tau"]["p_method"] == "Monte Carlo"
    for _ in range(2):
        order = generator.permutation(45)
        assert screened([pairs[row] for row in order], y[order], x[order])["terms"][0]["pooled"] == first


# ---------------------------------------------------------------------- in the table
def screened(
    built_from: Sequence[frozenset[str]],
    y: Floats,
    *terms: Floats,
    methods: Sequence[int] | None = None,
    declared: bool = True,
) -> dict:
    columns = [0] * len(built_from) if methods is None else list(methods)
    names = [f"t{number}" for number in range(len(terms))]
    rows: list[RowMeans] = [
        (str(row), f"method {column}", {"y": y[row]} | dict(zip(names, [x[row] for x in terms], strict=True)))
        for row, column in enumerate(columns)
    ]
    of_sets = list(zip(built_from, columns, strict=True))
    return screen_accuracy(
        rows, "y", dict.fromkeys(names), None, of_sets, BuiltFrom(built_from, columns, declared=declared)
    )


def test_a_perfect_order_of_ten_pairs_has_one_order_in_120() -> None:
    """0.0083 where orders of the rows say 0.0000006."""
    y = np.random.default_rng(0).standard_normal(10)
    found = screened(PAIRS, y, y, -y)
    scope = found["scopes"]["pooled"]
    assert (scope["n"], scope["sets"], scope["parts"], scope["num_orders"]) == (10, 10, 5, 120)
    assert scope["smallest_p"] == pytest.approx(1 / 120)
    for entry in found["terms"]:
        assert entry["pooled"]["tau"]["p"] == entry["pooled"]["tau"]["p_adjusted"] == pytest.approx(1 / 120)
        assert entry["pooled"]["rho"]["p"] == pytest.approx(1 / 120)
    assert found["warnings"] == []
    (plain,) = rank_correlations(y[:, None], y, np.zeros(10, dtype=np.int64))
    assert isinstance(plain, RankCorrelation)
    assert plain.tau.p < 1e-6


def test_single_methods_and_more_than_sixty_rows_are_over_parts_too() -> None:
    generator = np.random.default_rng(6)
    methods = [row // 10 for row in range(70)]
    x, y = generator.standard_normal((2, 70))
    found = screened(PAIRS * 7, y, x, methods=methods)
    entry = found["terms"][0]
    for scope in ("pooled", "within"):
        assert found["scopes"][scope]["parts"] == 5
        assert entry[scope]["tau"]["p_method"] == ("exact" if scope == "within" else "Monte Carlo")
        assert entry[scope]["tau"]["interval"] is None
    alone = screened(PAIRS, y[:10], x[:10])["terms"][0]["pooled"]
    assert entry["groups"]["method 0"]["tau"]["p"] == alone["tau"]["p"] == round(120 * alone["tau"]["p"]) / 120


def test_rows_that_cannot_change_places_have_no_p_and_that_is_said() -> None:
    y = np.arange(5.0)
    for methods in (1, 2):
        columns = [column for column in range(methods) for _ in NESTED]
        found = screened(NESTED * methods, np.tile(y, methods), np.tile(y, methods), methods=columns)
        (said,) = (said for said in found["warnings"] if "no p" in said)
        assert "of which no two may change places" in said
        tau = found["terms"][0]["pooled"]["tau"]
        assert tau["value"] == 1
        assert tau["p"] is tau["p_adjusted"] is tau["interval"] is None
        assert found["scopes"]["pooled"].get("parts") is None


def test_too_many_rows_are_not_silently_taken_for_independent() -> None:
    generator = np.random.default_rng(8)
    pairs = [frozenset(pair) for pair in itertools.combinations(range(21), 2)]
    assert len(pairs) > MAX_ROWS_PERMUTED
    found = screened(pairs, *generator.standard_normal((2, len(pairs))))  # type: ignore[arg-type]
    (said,) = found["warnings"]
    assert f"are more than {MAX_ROWS_PERMUTED}: they are not independent, and there are no p and no intervals" in said
    assert found["terms"][0]["pooled"]["tau"]["p"] is None


def test_what_nobody_declared_is_used_where_it_is_all_sets_of_one_size_and_else_said() -> None:
    x, y = np.random.default_rng(9).standard_normal((2, 10))
    found, told = screened(PAIRS, y, x, declared=False), screened(PAIRS, y, x)
    assert found["scopes"] == told["scopes"]
    (said,) = set(found["warnings"]) - set(told["warnings"])
    assert said.startswith("The rows are all sets of 2 of the same 5 augmentations, and so not independent: p is over")
    some = screened(PAIRS[1:], y[1:], x[1:], declared=False)
    assert some["scopes"]["pooled"].get("parts") is None
    assert any("(`parts`): they are not independent, which makes p too small" in said for said in some["warnings"])
    assert some["terms"][0]["pooled"]["tau"]["interval"] is None
    assert some["terms"][0]["pooled"]["tau"]["p"] is not None  # nobody has said what the rows are built from
    free = screened(sets(*"abcdefghij"), y, x, declared=False)
    assert free["warnings"] == []
    assert free["terms"][0]["pooled"]["tau"]["interval"] is not None


def test_a_term_that_rows_lack_is_judged_by_the_orders_of_the_parts() -> None:
    """With three of the ten pairs a perfect order is far from rare."""
    y = np.arange(10.0)
    gap = np.where(np.arange(10) < 3, y, math.nan)
    found = screened(PAIRS, y, y, gap)
    entry = next(entry for entry in found["terms"] if entry["term"] == "t1")
    assert entry["pooled"]["n"] == 3
    assert entry["pooled"]["smallest_p"] > LEVEL
    assert any(f"3 of 10 rows; even a perfect order has p = {entry['pooled']['smallest_p']:.2g}" in said
               for said in found["warnings"])  # fmt: skip


# ---------------------------------------------------------------------- simulation
def drawn(generator: np.random.Generator, count: int, share: float, methods: int) -> Floats:
    """Numbers (N, count) of pairs in methods: single parts carry `share` of the variance, and methods differ."""
    has = np.array([[letter in pair for letter in "abcde"] for pair in PAIRS], dtype=float)
    of_letters = np.repeat(has @ generator.standard_normal((5, count)) / math.sqrt(2), methods, axis=0)
    own = generator.standard_normal((10 * methods, count))
    of_methods = np.tile(generator.standard_normal((methods, count)), (10, 1)) * (methods > 1)
    return math.sqrt(share) * of_letters + math.sqrt(1 - share) * own + of_methods


@pytest.mark.parametrize(("share", "methods", "of_rows"), [(0.8, 1, 0.08), (0.95, 1, 0.13), (0.95, 2, 0.25)])
def test_a_true_null_is_rejected_as_often_as_the_level_says(share: float, methods: int, of_rows: float) -> None:
    """40 accuracies by 20 terms that have nothing to do with them: over rows a p of at most 0.05 comes too often."""
    generator = np.random.default_rng(1)
    num_rows, hits = 10 * methods, np.zeros(3)
    codes = np.zeros(num_rows, dtype=np.int64)
    any_ = rank_correlations(generator.random((num_rows, 1)), generator.random(num_rows), codes)
    for _ in range(40):
        x, y = drawn(generator, 20, share, methods), drawn(generator, 1, share, methods)[:, 0]
        over, scores, _ = over_sets(any_ * 20, x, y, codes, design(PAIRS, methods))
        for one, score in zip(over, scores[0], strict=True):
            assert isinstance(one, RankCorrelation)
            hits += [p <= LEVEL for p in (p_without_ties((num_rows,), score), one.tau.p, one.rho.p)]
    of_tau_over_rows, *over_parts = hits / 800
    assert all(0.02 <= found <= 0.07 for found in over_parts)  # τ has few values over 120 orders: 0.04 at most
    assert of_tau_over_rows >= of_rows
