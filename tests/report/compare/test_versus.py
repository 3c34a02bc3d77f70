"""Rows against one of them, and rows in another order: recomputed from the members' numbers."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from cssl_cli.errors import InputError
from cssl_cli.report.compare.named_quantities import NAMES, called, mean_of, shown, shown_difference
from cssl_cli.report.compare.rows import Row
from cssl_cli.report.compare.sorting import require_order, sort_rows
from cssl_cli.report.compare.tables.versus import print_comparison
from cssl_cli.report.compare.versus import QUANTITIES, compare_rows, require_row
from cssl_cli.sweep.sweep import Member, Sweep
from tests.support.synthetic_sweeps import NESTED, PAIRS, Values, rows, sweep_of


def drawn(sweep: Sweep, folder: Path, seed: int = 0) -> tuple[list[Row], dict[str, dict[str, float]]]:
    generator = random.Random(seed)
    names = ("linear", "knn", "nearest_center", "alignment", "ratio")
    values = {member.name: {name: generator.random() for name in names} for member in sweep.members}
    return rows(sweep, lambda member: values[member.name], folder), values


def printed(compared: dict[str, Any], width: int = 100) -> str:
    file = io.StringIO()
    print_comparison(Console(file=file, width=width, highlight=False, markup=False), compared)
    return file.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------------- versus
def test_differences_are_those_of_a_paired_t_test(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, NESTED + "seeds: 4\n")
    found, values = drawn(sweep, tmp_path)
    baseline = next(row for row in found if row.name == "simclr-ab")
    compared = compare_rows(found, baseline)
    assert compared["row"] == "simclr-ab"
    names = [entry["row"] for entry in compared["comparisons"]]
    assert names == ["simclr-abc", "simclr-a", "vicreg-abc", "vicreg-ab", "vicreg-a"]
    for quantity in ("linear", "alignment"):
        raw = {}
        for entry in compared["comparisons"]:
            ours = [values[f"{entry['row']}-seed{seed}"][quantity] for seed in range(4)]
            other = [values[f"simclr-ab-seed{seed}"][quantity] for seed in range(4)]
            test = stats.ttest_rel(ours, other)
            one = entry["differences"][quantity]
            assert one["mean"] == pytest.approx(sum(ours) / 4 - sum(other) / 4)
            assert one["interval"] == pytest.approx(list(test.confidence_interval(0.95)))
            assert one["p"] == pytest.approx(test.pvalue)
            assert (one["n"], one["unpaired"]) == (4, 0)
            raw[entry["row"]] = test.pvalue
        # Holm's rule by its definition: the k-th smallest times how many are left, never below an earlier one.
        largest = 0.0
        for rank, name in enumerate(sorted(raw, key=raw.__getitem__)):
            largest = max(largest, min(1.0, (len(raw) - rank) * raw[name]))
            adjusted = next(e for e in compared["comparisons"] if e["row"] == name)["differences"][quantity][
                "p_adjusted"
            ]
            assert adjusted == pytest.approx(largest)
    assert json.loads(json.dumps(compared, allow_nan=False)) == compared


def test_only_what_the_rows_have_is_compared(tmp_path: Path) -> None:
    found, _ = drawn(sweep_of(tmp_path, NESTED + "seeds: 2\n"), tmp_path)
    compared = compare_rows(found, found[0])
    quantities = ["linear", "knn", "nearest_center", "alignment", "ratio"]
    assert list(compared["comparisons"][0]["differences"]) == quantities
    assert set(quantities) <= set(QUANTITIES)
    text = printed(compared)
    for words in ("linear accuracy, points", "alignment", "Difference from simclr-abc"):
        assert words in text
    assert "RankMe" not in text


def test_a_line_holds_the_numbers_of_its_row(tmp_path: Path) -> None:
    numbers = {"ab": [0.5, 0.5, 0.5], "ac": [0.51, 0.52, 0.515], "ad": [0.4, 0.6, 0.45], "control": [0.1, 0.1, 0.1]}
    sweep = sweep_of(tmp_path, PAIRS + "seeds: 3\n")
    found = rows(sweep, lambda member: {"linear": numbers[member.row][member.seed]}, tmp_path)
    text = printed(compare_rows(found, found[0]), 120).split("k-NN accuracy")[0]
    test = stats.ttest_1samp([0.01, 0.02, 0.015], 0)
    low, high = (100 * end for end in test.confidence_interval(0.95))
    adjusted = 2 * test.pvalue  # of two that can be tested the clearer one: control differs alike in all seeds
    assert f"ac +1.50 ±0.50 [{low:.2f}, {high:.2f}] {test.pvalue:.3f} {adjusted:.3f} 3" in flat(text)
    assert "control -40.00 ±0.00 – – – 3" in flat(text)
    assert "ad -1.67 ±10.41 [" in flat(text)


def test_rows_that_share_no_seed_say_so(tmp_path: Path) -> None:
    def values(member: Member) -> Values | None:
        if member.row == "ad":
            return None
        return None if (member.row == "ab") == bool(member.seed) else {"linear": 0.5}

    found = rows(sweep_of(tmp_path, PAIRS + "seeds: 2\n"), values, tmp_path)
    compared = compare_rows(found, found[0])  # ab has seed 0, ac and control have seed 1, ad nothing
    assert (compared["unpaired"], compared["unfinished"]) == (["ac", "control"], ["ad"])
    text = flat(printed(compared))
    assert "ac has no seed in common with ab." in text
    assert "Nothing has finished of ad." in text
    assert "linear accuracy" not in text


def test_a_single_seed_has_neither_deviation_interval_nor_p(tmp_path: Path) -> None:
    found = rows(sweep_of(tmp_path, PAIRS), lambda member: {"linear": 0.5 + 0.1 * (member.row == "ac")}, tmp_path)
    text = flat(printed(compare_rows(found, found[0])))
    assert "ac +10.00 – – – – 1" in text
    assert "A single seed in common has neither deviation, interval nor p." in text


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_comparison_fits_and_loses_no_row(tmp_path: Path, width: int) -> None:
    found, _ = drawn(sweep_of(tmp_path, NESTED + "seeds: 3\n"), tmp_path)
    text = printed(compare_rows(found, found[0]), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("vicreg-a ") == 5
    assert "adj. p" in text


def test_an_unknown_row_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError) as error:
        require_row("simclr-abd", ["simclr-abc", "simclr-abc", "vicreg-a"])
    assert str(error.value) == (
        "--versus: no row is called 'simclr-abd'\nDid you mean 'simclr-abc'? Rows: simclr-abc, vicreg-a."
    )
    assert require_row("a", ["a"]) == "a"


# ---------------------------------------------------------------------- sort
@pytest.mark.parametrize("name", ["linear", "error_knn", "alignment"])
def test_rows_in_the_order_of_their_means(tmp_path: Path, name: str) -> None:
    sweep = sweep_of(tmp_path, NESTED + "seeds: 2\n")
    found, values = drawn(sweep, tmp_path, seed=1)
    sign, of = (-1, name.removeprefix("error_")) if name.startswith("error_") else (1, name)
    means = {row.name: sum(values[f"{row.name}-seed{seed}"][of] for seed in range(2)) / 2 for row in found}
    expected = sorted(means, key=lambda row: sign * means[row])
    assert [row.name for row in sort_rows(found, name)] == expected
    assert [row.name for row in sort_rows(found, f"-{name}")] == expected[::-1]


def test_rows_without_the_quantity_come_last_and_equal_ones_keep_their_order(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"ab": None, "ac": {"linear": 0.5}, "ad": {"linear": 0.5}, "control": {"linear": 0.7}}
    found = rows(sweep_of(tmp_path, PAIRS), lambda member: numbers[member.row], tmp_path)
    assert [row.name for row in sort_rows(found, "linear")] == ["ac", "ad", "control", "ab"]
    assert [row.name for row in sort_rows(found, "-linear")] == ["control", "ac", "ad", "ab"]
    assert [row.name for row in sort_rows(found, "rankme")] == ["ab", "ac", "ad", "control"]


@pytest.mark.parametrize(
    ("text", "guess"), [("liner", "linear"), ("-align", "alignment"), ("error_liner", "error_linear")]
)
def test_an_unknown_quantity_is_refused_with_the_nearest(text: str, guess: str) -> None:
    with pytest.raises(InputError) as error:
        require_order(text)
    assert f"--sort: unknown quantity {text.removeprefix('-')!r}" in str(error.value)
    assert f"Did you mean '{guess}'?" in str(error.value)


# ---------------------------------------------------------------------- quantities by name
def test_errors_are_one_less_accuracies(tmp_path: Path) -> None:
    (row, *_) = rows(sweep_of(tmp_path, PAIRS), lambda _: {"linear": 0.625, "knn": None}, tmp_path)
    assert (mean_of(row, "linear"), mean_of(row, "error_linear")) == (0.625, 0.375)
    assert mean_of(row, "error_knn") is None
    assert (called("error_linear"), called("error_best_knn")) == ("linear error", "best k-NN error")
    assert called("alignment") == "alignment"
    assert all(called(name) for name in NAMES)


def test_values_as_the_tables_show_them() -> None:
    assert (shown("error_linear", 0.375), shown("ratio", 12.34), shown("alignment", 0.1234)) == (
        "37.5 %",
        "12.3",
        "0.123",
    )
    assert shown_difference("linear", -0.01234) == "-1.23"
    assert shown_difference("linear", -1e-9) == "0.00"
    assert (shown_difference("ratio", 0.125), shown_difference("alignment", 0.00125)) == ("0.12", "0.0013")
