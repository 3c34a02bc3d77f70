"""Rows that share their set of augmentations: orders and resamples of whole sets, by loops and by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from cssl_cli.report.compare.rank_correlation.coefficients import RankCorrelation, Undefined, rank_correlations
from cssl_cli.report.compare.rank_correlation.crossed import Crossed, crossed, over_sets
from cssl_cli.report.compare.rank_correlation.screening import screen_accuracy
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints

LEVEL = 0.05


def full(num_sets: int, num_columns: int) -> Crossed:
    found = crossed(list(itertools.product(range(num_sets), range(num_columns))))
    assert found is not None
    return found


def groups(design: Crossed, within: bool) -> Ints:
    return design.columns if within else np.zeros(len(design.columns), dtype=np.int64)


def measured(x: Floats, y: Floats, codes: Ints, design: Crossed) -> tuple[RankCorrelation, RankCorrelation]:
    """Over rows, and over sets."""
    plain = rank_correlations(x[:, None], y, codes)
    (over,), _, _ = over_sets(plain, x[:, None], y, codes, design)
    assert isinstance(plain[0], RankCorrelation)
    assert isinstance(over, RankCorrelation)
    return plain[0], over


def test_a_design_is_crossed_when_each_set_has_each_column_once() -> None:
    whole = [(s, c) for s in "xyz" for c in "ab"]
    found = crossed([whole[i] for i in (3, 0, 5, 1, 2, 4)])
    assert found is not None
    assert found.sets.tolist() == [0, 1, 2, 1, 0, 2]
    assert found.columns.tolist() == [0, 1, 0, 0, 1, 1]
    for other in (
        whole[:-1],
        [*whole, whole[0]],
        [*whole[:-1], whole[0]],
        [(s, "a") for s in "xyz"],
        [("x", 1), ("x", 2)],
    ):
        assert crossed(other) is None
    assert crossed([]) is None


@pytest.mark.parametrize("within", [False, True])
def test_p_values_are_those_of_loops_over_sets_and_columns(within: bool) -> None:
    """Every order of sets (the same in all columns) with, over all rows, every order of columns."""
    generator = np.random.default_rng(7)
    design = full(4, 2)
    shuffled = generator.permutation(8)
    design = Crossed(design.sets[shuffled], design.columns[shuffled])
    x, y = generator.integers(0, 5, 8).astype(float), generator.integers(0, 5, 8).astype(float)
    codes = groups(design, within)
    row_at = {(s, c): row for row, (s, c) in enumerate(zip(design.sets, design.columns, strict=True))}

    def sign(a: float, b: float) -> int:
        return int(a > b) - int(a < b)

    def scores(order: list[int]) -> tuple[int, int]:
        """Concordant less discordant ordered pairs, and the sum of the products of twice the midranks."""
        pairs = [(i, j) for i in range(8) for j in range(8) if codes[i] == codes[j]]
        moved = [y[row] for row in order]
        tau = sum(sign(x[i], x[j]) * sign(moved[i], moved[j]) for i, j in pairs)
        a = [sum(sign(x[i], x[j]) for k, j in pairs if k == i) for i in range(8)]
        b = [sum(sign(moved[i], moved[j]) for k, j in pairs if k == i) for i in range(8)]
        return tau, sum(p * q for p, q in zip(a, b, strict=True))

    of_columns = [(0, 1)] if within else [(0, 1), (1, 0)]
    every = [
        scores([row_at[sets[s], columns[c]] for s, c in zip(design.sets, design.columns, strict=True)])
        for sets in itertools.permutations(range(4))
        for columns in of_columns
    ]
    observed = scores(list(range(8)))
    _, over = measured(x, y, codes, design)
    assert over.tau.p == pytest.approx(np.mean([abs(tau) >= abs(observed[0]) for tau, _ in every]))
    assert over.rho.p == pytest.approx(np.mean([abs(rho) >= abs(observed[1]) for _, rho in every]))
    assert over.tau.p_method == "exact"


@pytest.mark.parametrize("within", [False, True])
def test_the_order_of_the_rows_on_entry_does_not_matter(within: bool) -> None:
    generator = np.random.default_rng(3)
    design = full(9, 3)  # more orders than are gone through
    x, y = generator.standard_normal((2, 27))
    x[4] = math.nan
    _, one = measured(x, y, groups(design, within), design)
    assert one.tau.p_method == "Monte Carlo"
    for _ in range(3):
        shuffled = generator.permutation(27)
        moved = Crossed(design.sets[shuffled], design.columns[shuffled])
        _, other = measured(x[shuffled], y[shuffled], groups(moved, within), moved)
        assert other == one


def test_rows_that_repeat_a_set_add_nothing() -> None:
    """Three columns that are all alike: within them p is that of one column, and so is the interval."""
    generator = np.random.default_rng(5)
    x, y = generator.standard_normal((2, 7))
    (alone,) = rank_correlations(x[:, None], y, np.zeros(7, dtype=np.int64))
    design = full(7, 3)
    plain, over = measured(np.repeat(x, 3), np.repeat(y, 3), design.columns, design)
    assert isinstance(alone, RankCorrelation)
    assert over.tau.value == pytest.approx(alone.tau.value)
    assert (over.tau.p, over.rho.p) == pytest.approx((alone.tau.p, alone.rho.p))
    assert over.tau.interval == pytest.approx(alone.tau.interval)
    assert plain.tau.p < alone.tau.p
    assert plain.tau.interval is not None
    assert over.tau.interval is not None
    assert plain.tau.interval[1] - plain.tau.interval[0] < over.tau.interval[1] - over.tau.interval[0]


def test_perfect_orders_and_few_sets() -> None:
    design = full(5, 2)
    x = np.arange(10.0)
    plain, over = measured(x, x, groups(design, False), design)
    (alone,) = rank_correlations(np.arange(5.0)[:, None], np.arange(5.0), np.zeros(5, dtype=np.int64))
    assert isinstance(alone, RankCorrelation)
    assert over.tau.interval == alone.tau.interval
    assert plain.tau.interval is not None
    assert plain.tau.interval[0] > alone.tau.interval[0]  # type: ignore[index]
    few = full(4, 2)
    plain, over = measured(x[:8], x[:8], few.columns, few)
    assert plain.tau.interval is not None
    assert over.tau.interval is over.rho.interval is None
    assert over.interval_method == "fewer than 5 sets: no interval"
    assert over.tau.p == pytest.approx(2 / math.factorial(4))


# ---------------------------------------------------------------------- simulation
def drawn(generator: np.random.Generator, design: Crossed, of_x: float, of_y: float, method: float) -> list[Floats]:
    """A term and an accuracy that have nothing to do with each other.

    `of_x` and `of_y` of their variance are of the set; methods add a normal number of deviation `method` to all rows.
    """
    num_sets, num_columns = design.num_sets, int(design.columns.max()) + 1
    return [
        math.sqrt(share) * generator.standard_normal(num_sets)[design.sets]
        + math.sqrt(1 - share) * generator.standard_normal(len(design.sets))
        + method * generator.standard_normal(num_columns)[design.columns]
        for share in (of_x, of_y)
    ]


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize(("of_x", "of_y", "method"), [(1.0, 0.8, 0.0), (0.8, 0.8, 1.0)])
def test_p_values_hold_under_the_null_where_sets_and_methods_have_effects(
    within: bool, of_x: float, of_y: float, method: float, draws: Callable[..., None]
) -> None:
    """Over rows a p-value of at most 0.05 comes several times too often, over sets it does not."""
    draws(resamples=20, orders=2000)  # intervals are not looked at
    generator, design, tables = np.random.default_rng(11), full(5, 4), 100
    found = np.array(
        [
            [
                one.tau.p
                for one in measured(*drawn(generator, design, of_x, of_y, method), groups(design, within), design)
            ]
            for _ in range(tables)
        ]
    )
    for level in (LEVEL, 0.2, 0.5):
        assert (found[:, 1] <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / tables)
    assert (found[:, 0] <= LEVEL).mean() > 2 * LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / tables)


@pytest.mark.parametrize("within", [False, True])
def test_intervals_over_sets_cover(within: bool, draws: Callable[..., None]) -> None:
    """Where the term is one of the set, which is the worst case: 0.92 rather than 0.75 over rows."""
    draws(orders=20, resamples=500)  # p-values are not looked at
    generator, design, tables = np.random.default_rng(13), full(5, 4), 100
    covered = np.zeros(2)
    for _ in range(tables):
        for position, one in enumerate(
            measured(*drawn(generator, design, 1.0, 0.8, 0.0), groups(design, within), design)
        ):
            assert one.tau.interval is not None
            covered[position] += one.tau.interval[0] <= 0 <= one.tau.interval[1]
    assert covered[1] / tables >= 0.92 - 3 * math.sqrt(0.92 * 0.08 / tables)
    assert covered[0] < covered[1]


# ---------------------------------------------------------------------- in the table
def rows_of(design: list[tuple[int, int]], y: Floats, x: Floats) -> list[tuple[str, str, dict[str, float | None]]]:
    return [
        (f"{s}-{c}", f"method{c}", {"accuracy": y[row], "term": x[row], "other": -x[row] if row else None})
        for row, (s, c) in enumerate(design)
    ]


def test_the_table_is_over_sets_where_the_design_is_crossed() -> None:
    design = [(s, c) for s in range(5) for c in range(2)]
    x, y = np.random.default_rng(2).standard_normal((2, 10))
    rows = rows_of(design, y, x)
    plain = screen_accuracy(rows, "accuracy", {"term": 1, "other": None})
    found = screen_accuracy(rows, "accuracy", {"term": 1, "other": None}, design=design)
    of_rows, of_sets = ({one["term"]: one for one in table["terms"]} for table in (plain, found))
    for scope, within in (("pooled", False), ("within", True)):
        crossed_rows = full(5, 2)
        _, over = measured(x, y, groups(crossed_rows, within), crossed_rows)
        assert found["scopes"][scope]["sets"] == 5
        assert "sets" not in plain["scopes"][scope]
        assert of_sets["term"][scope]["tau"]["p"] == over.tau.p
        for term in ("term", "other"):
            assert of_sets[term][scope]["tau"]["value"] == of_rows[term][scope]["tau"]["value"]
            assert of_sets[term][scope]["tau"]["p"] <= of_sets[term][scope]["tau"]["p_adjusted"] <= 1
    assert of_sets["term"]["groups"] == of_rows["term"]["groups"]  # in a method every row has a set of its own


def test_a_design_that_is_not_crossed_leaves_neither_p_nor_interval() -> None:
    design = [(s, c) for s in range(5) for c in range(2)]
    x, y = np.random.default_rng(2).standard_normal((2, 10))
    for rows, broken in (
        (rows_of(design, y, x)[:-1], design[:-1]),
        (rows_of(design, np.r_[math.nan, y[1:]], x), design),
    ):
        found, plain = (screen_accuracy(rows, "accuracy", {"term": 1}, design=one) for one in (broken, None))
        (warning,) = set(found["warnings"]) - set(plain["warnings"])
        assert "rows share 5 sets" in warning
        for scope in ("pooled", "within"):
            one, other = (table["terms"][0][scope] for table in (found, plain))
            assert one["tau"]["value"] == other["tau"]["value"]
            for unknown in ("p", "p_method", "p_adjusted", "interval"):
                assert one["tau"][unknown] is None
            assert one["rho"]["p"] is None
            assert found["scopes"][scope]["correction"] is None


def test_methods_that_share_no_sets_are_put_in_orders_within_methods() -> None:
    """Against all 3!·3! orders gone through one by one; the differences of methods stay whole."""
    methods = np.array([0, 1, 0, 1, 0, 1])
    x, y = np.random.default_rng(5).standard_normal((2, 6)) + 4 * methods
    rows = rows_of([(row, method) for row, method in enumerate(methods)], y, x)
    found = screen_accuracy(rows, "accuracy", {"term": 1}, design=[(row, 0) for row in range(6)])
    plain = screen_accuracy(rows, "accuracy", {"term": 1})

    def score(order: np.ndarray) -> float:
        return sum(np.sign((x[i] - x[j]) * (y[order[i]] - y[order[j]])) for i in range(6) for j in range(i))

    scores = []
    for of_first, of_second in itertools.product(itertools.permutations([0, 2, 4]), itertools.permutations([1, 3, 5])):
        order = np.zeros(6, dtype=int)
        order[[0, 2, 4]], order[[1, 3, 5]] = of_first, of_second
        scores.append(score(order))
    one, other = (table["terms"][0]["pooled"] for table in (found, plain))
    assert one["tau"]["value"] == other["tau"]["value"]
    assert one["tau"]["p"] == np.mean(np.abs(scores) >= abs(scores[0]))
    assert one["tau"]["p"] > 3 * other["tau"]["p"]
    assert one["tau"]["interval"] is None
    assert found["scopes"]["pooled"]["within"] == 2
    assert found["terms"][0]["within"]["tau"] == plain["terms"][0]["within"]["tau"]


def test_p_over_rows_within_methods_holds_its_level_where_methods_differ(draws: Callable[..., None]) -> None:
    draws(resamples=20, orders=500)
    generator, rejected, independent = np.random.default_rng(6), 0, 0
    design = [(row, 0) for row in range(12)]
    for _ in range(60):
        x, y = generator.standard_normal((2, 12)) + 2 * generator.standard_normal((2, 3))[:, np.arange(12) % 3]
        rows = rows_of([(row, row % 3) for row in range(12)], y, x)
        found, plain = (screen_accuracy(rows, "accuracy", {"term": 1}, design=one) for one in (design, None))
        rejected += found["terms"][0]["pooled"]["tau"]["p"] <= 0.05
        independent += plain["terms"][0]["pooled"]["tau"]["p"] <= 0.05
    assert rejected <= 8  # the 99 % quantile of so many tables at 5 %
    assert independent >= 12


def test_few_sets_are_warned_of() -> None:
    design = [(s, c) for s in range(4) for c in range(2)]
    x = np.arange(8.0)
    found = screen_accuracy(rows_of(design, x, x), "accuracy", {"term": 1}, design=design)
    assert found["scopes"]["within"]["smallest_p"] == pytest.approx(2 / math.factorial(4))
    assert any("n = 8 rows of 4 sets in 2 groups, ordered within them: even a perfect" in w for w in found["warnings"])


def test_an_absent_coefficient_stays_absent() -> None:
    design = full(3, 2)
    absent = Undefined("one of the two is the same in all rows")
    (found,), _, _ = over_sets([absent], np.ones((6, 1)), np.arange(6.0), groups(design, False), design)
    assert found is absent
