"""Many terms against an accuracy: corrections by hand and by simulation, and what the table says."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from cssl_cli.report.compare.rank_correlation.coefficients import rank_correlation
from cssl_cli.report.compare.rank_correlation.correction import holm, smallest_adjusted_p, step_down_min_p
from cssl_cli.report.compare.rank_correlation.screening import HOLM, MIN_P, RowMeans, screen_accuracy

Table = dict[str, list[float | None]]


def rows_of(columns: Table, groups: str | None = None) -> list[RowMeans]:
    length = len(next(iter(columns.values())))
    return [
        (f"row{i}", groups[i] if groups else "", {name: values[i] for name, values in columns.items()})
        for i in range(length)
    ]


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.5; none below the one before.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_min_p_by_hand() -> None:
    # Four orders, the first observed. Term 1: only the observed one is as far as 3, p = 1/4. Term 2: two are, p = 1/2.
    scores = np.array([[3.0, 2.0], [-1.0, -2.0], [0.0, 0.0], [1.0, 1.0]])
    # p of each order: term 1: 1/4, 3/4, 1, 3/4; term 2: 1/2, 1/2, 1, 3/4. The least: 1/4, 1/2, 1, 3/4.
    # Term 1: least ≤ 1/4 in one order of four. Term 2, by then alone: p ≤ 1/2 in two.
    assert step_down_min_p(scores) == [0.25, 0.5]
    assert smallest_adjusted_p(scores) == 0.25
    # Term 2 first and equal to a third: the two count as one.
    assert step_down_min_p(scores[:, [1, 0, 1]]) == [0.5, 0.25, 0.5]


def by_all_orders(terms: list[list[int]], y: list[int]) -> list[float]:
    """Step-down min-p over all orders of y, by loops."""
    pairs = list(itertools.combinations(range(len(y)), 2))
    orders = list(itertools.permutations(y))
    far = [
        [abs(sum(int(np.sign((x[i] - x[j]) * (order[i] - order[j]))) for i, j in pairs)) for x in terms]
        for order in orders
    ]
    p = [[sum(other[k] >= one[k] for other in far) / len(far) for k in range(len(terms))] for one in far]
    observed = p[orders.index(tuple(y))]
    ranked = sorted(range(len(terms)), key=lambda k: observed[k])
    adjusted, before = [0.0] * len(terms), 0.0
    for position, k in enumerate(ranked):
        left = ranked[position:]
        share = sum(min(row[other] for other in left) <= observed[k] + 1e-12 for row in p) / len(p)
        before = adjusted[k] = max(before, share)
    return adjusted


def test_adjusted_p_values_of_a_table_are_those_of_loops_over_all_orders() -> None:
    y, terms = [0, 1, 2, 3, 4], [[0, 1, 2, 4, 3], [1, 0, 2, 4, 3], [4, 0, 3, 1, 2], [0, 0, 1, 1, 2]]
    columns: Table = {"accuracy": [*map(float, y)]} | {f"t{k}": [*map(float, x)] for k, x in enumerate(terms)}
    found = screen_accuracy(rows_of(columns), "accuracy", {f"t{k}": None for k in range(4)})
    adjusted = {entry["term"]: entry["pooled"]["tau"]["p_adjusted"] for entry in found["terms"]}
    assert [adjusted[f"t{k}"] for k in range(4)] == pytest.approx(by_all_orders(terms, y))
    assert found["scopes"]["pooled"]["correction"] == MIN_P


def test_terms_that_rank_the_rows_alike_cost_nothing() -> None:
    y = [0.1, 0.4, 0.2, 0.5, 0.3, 0.7]
    columns: Table = {"accuracy": y} | {f"t{k}": [v ** (k + 1) for v in y] for k in range(8)}
    found = screen_accuracy(rows_of(columns), "accuracy", {f"t{k}": 1 for k in range(8)})
    for entry in found["terms"]:
        assert entry["pooled"]["tau"]["p_adjusted"] == pytest.approx(2 / math.factorial(6))
    assert found["warnings"] == []


@pytest.mark.parametrize("n", [6, 12])
def test_any_of_many_terms_is_rarely_below_five_per_cent_under_the_null(n: int, draws: Callable[..., None]) -> None:
    draws(resamples=20, orders=2000)  # intervals are not looked at
    generator = np.random.default_rng(n)
    names, tables, hits = [f"t{k}" for k in range(6)], 120, 0
    for _ in range(tables):
        common = generator.standard_normal(n)
        columns: Table = {"accuracy": [*generator.standard_normal(n)]}
        columns |= {name: [*(common + generator.standard_normal(n))] for name in names}
        if n == 12:
            columns["t0"][4] = columns["t1"][0] = None
        found = screen_accuracy(rows_of(columns), "accuracy", dict.fromkeys(names))
        hits += any(entry["pooled"]["tau"]["p_adjusted"] <= 0.05 for entry in found["terms"])
    assert hits / tables <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / tables)


def test_an_adjusted_p_value_is_no_smaller_than_its_own() -> None:
    generator = np.random.default_rng(2)
    columns: Table = {"accuracy": [*generator.standard_normal(9)]}
    columns |= {f"t{k}": [*generator.standard_normal(9)] for k in range(5)}
    columns["t3"][2] = None
    for entry in screen_accuracy(rows_of(columns, "aabbaabba"), "accuracy", {f"t{k}": -1 for k in range(5)})["terms"]:
        for scope in ("pooled", "within"):
            tau = entry[scope]["tau"]
            assert tau["p"] <= tau["p_adjusted"] <= 1


def test_many_rows_are_corrected_by_holm() -> None:
    generator = np.random.default_rng(3)
    columns: Table = {name: [*generator.standard_normal(80)] for name in ("accuracy", "a", "b", "c")}
    found = screen_accuracy(rows_of(columns), "accuracy", {"a": 1, "b": 1, "c": None})
    raw = [entry["pooled"]["tau"]["p"] for entry in found["terms"]]
    assert [entry["pooled"]["tau"]["p_adjusted"] for entry in found["terms"]] == pytest.approx(holm(raw))
    assert found["scopes"]["pooled"] == {"n": 80, "groups": 1, "num_terms": 3, "correction": HOLM}


COLUMNS: Table = {
    "linear": [0.1, 0.2, 0.3, 0.4, 0.15, 0.25, 0.35, None],
    "knn": [0.4, 0.3, 0.2, 0.1, 0.2, 0.3, 0.4, 0.5],
    "weak": [1.0, 3.0, 2.0, 4.0, 3.0, 1.0, 2.0, 9.0],
    "falls": [-0.1, -0.2, -0.3, -0.4, -0.15, -0.25, -0.35, 0.0],
    "gap": [5.0, 6.0, None, 8.0, 5.5, None, 7.0, 1.0],
    "flat": [2.0] * 8,
}
TERMS = {"flat": 1, "weak": None, "gap": -1, "falls": -1}


def test_the_table_sorts_by_how_well_terms_predict_and_says_whether_as_predicted() -> None:
    linear = screen_accuracy(rows_of(COLUMNS, "aaaabbbb"), "linear", TERMS)
    assert (linear["n"], linear["num_rows"]) == (7, 8)
    assert [entry["term"] for entry in linear["terms"]] == ["gap", "falls", "weak", "flat"]
    gap, falls, weak, flat = linear["terms"]
    assert (gap["pooled"]["tau"]["value"], gap["pooled"]["n"], gap["pooled"]["as_predicted"]) == (1.0, 5, False)
    assert (falls["pooled"]["tau"]["value"], falls["pooled"]["as_predicted"]) == (-1.0, True)
    assert (weak["predicted_sign"], weak["pooled"]["as_predicted"]) == (None, None)
    assert "value" in flat["pooled"]
    assert "the same" in flat["pooled"]["reason"]
    assert linear["scopes"]["pooled"]["num_terms"] == 3
    json.dumps(linear, allow_nan=False)


def test_each_part_of_the_table_is_the_coefficient_of_its_rows() -> None:
    groups = "aaaabbbb"
    linear = screen_accuracy(rows_of(COLUMNS, groups), "linear", TERMS)
    weak = linear["terms"][2]
    x, y = COLUMNS["weak"], COLUMNS["linear"]
    for scope, of in (("pooled", None), ("within", list(groups))):
        expected = rank_correlation(x, y, of).to_dict()
        measured = json.loads(json.dumps(weak[scope]))
        del measured["tau"]["p_adjusted"], measured["as_predicted"]
        assert measured == expected
    assert list(weak["groups"]) == ["a", "b"]
    for group, rows in (("a", slice(0, 4)), ("b", slice(4, 8))):
        expected = rank_correlation(x[rows], y[rows]).to_dict()
        assert weak["groups"][group]["tau"]["value"] == expected["tau"]["value"]
        assert weak["groups"][group]["tau"]["p"] == expected["tau"]["p"]
        assert weak["groups"][group]["tau"]["interval"] is None


def test_one_group_has_nothing_within() -> None:
    found = screen_accuracy(rows_of(COLUMNS), "linear", TERMS)
    assert found["scopes"]["within"] is None
    for entry in found["terms"]:
        assert entry["within"] == {"value": None, "reason": "all rows are of one group"}
        assert entry["groups"] == {}


def line(n: int, terms: int = 1) -> list[RowMeans]:
    values = [float(i) for i in range(n)]
    shuffled = [[*np.random.default_rng(k).permutation(n).astype(float)] for k in range(1, terms)]
    return rows_of({"accuracy": values, "t0": values} | {f"t{k}": v for k, v in enumerate(shuffled, start=1)})


@pytest.mark.parametrize(
    ("n", "terms", "words"),
    [
        (3, 1, ["n = 3 rows: even a perfect order has p = 0.33; nothing here"]),
        (4, 1, ["n = 4 rows: even a perfect order has p = 0.083; nothing here"]),
        (5, 1, ["n = 5 rows: even a perfect order has p = 0.017; nothing weaker"]),
        (5, 4, ["n = 5 rows: even a perfect order has p = 0.017; nothing weaker", "5 rows, 4 terms screened: even a"]),
        (6, 1, []),
        (10, 6, []),
    ],
)
def test_too_few_rows_are_warned_of(n: int, terms: int, words: list[str]) -> None:
    found = screen_accuracy(line(n, terms), "accuracy", {f"t{k}": 1 for k in range(terms)})
    assert len(found["warnings"]) == len(words)
    for sentence, start in zip(found["warnings"], words, strict=True):
        assert start in sentence
    pooled = found["scopes"]["pooled"]
    assert pooled["smallest_p"] == pytest.approx(2 / math.factorial(n))
    if n == 5 and terms == 4:
        # Four terms of different orders: eight of the 120 orders are perfect for one of them.
        assert pooled["smallest_adjusted_p"] == pytest.approx(8 / 120)
        assert "0.067" in found["warnings"][1]


def test_a_term_with_too_few_rows_of_its_own_and_one_that_turns_round_are_warned_of() -> None:
    columns: Table = {
        "accuracy": [1, 2, 3, 11, 12, 13],
        "groups": [3, 2, 1, 13, 12, 11],
        "gap": [1, 2, 3, None, None, None],
    }
    found = screen_accuracy(rows_of(columns, "aaabbb"), "accuracy", {"groups": 1, "gap": 1}, {"gap": "the gap ↓"})
    assert "the gap ↓: 3 of 6 rows; even a perfect order has p = 0.33." in found["warnings"]
    assert "groups: τ = +0.20 over all rows but -1.00 within groups." in found["warnings"]


def test_nothing_to_compare_is_no_error() -> None:
    for rows in ([], line(2), rows_of({"accuracy": [None] * 5, "t0": [1.0] * 5})):
        found = screen_accuracy(rows, "accuracy", {"t0": 1})
        assert found["terms"][0]["pooled"]["value"] is None
        assert found["scopes"] == {"pooled": None, "within": None}
    assert screen_accuracy(line(5), "accuracy", {})["terms"] == []
