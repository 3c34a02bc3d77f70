"""Tables: what stands in a cell, which value is marked, and that they fit 80 columns and 200."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cssl_cli.recipe import load_recipe
from cssl_cli.report.compare.content import as_content, as_csv
from cssl_cli.report.compare.rows import rows_of, summarize
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.report.console import make_console
from cssl_cli.report.document.blocks import Grid
from cssl_cli.report.document.page import Page
from cssl_cli.report.layout import _natural_width, compacted, console, note, number, percent, table
from cssl_cli.report.run import _per_class
from cssl_cli.report.sections.concentration import outside_band
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Member, Sweep
from cssl_cli.theory.terms import EPSILON

RECIPE = load_recipe("simclr-shapes")
SWEEP = Sweep(name="s", path=Path("s.yaml"), axes={}, members=())


def test_a_number_and_its_per_cent_sign_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """rich would break the line between them, also at a no-break space."""
    for space in (" ", "\N{NO-BREAK SPACE}"):
        note(make_console(sys.stdout, unpadded=True, width=20), f"the bound is at 75.0{space}%, 95{space}% of it")
    assert capsys.readouterr().out == 2 * "the bound is at\n75.0 %, 95 % of it\n"


def estimate(value: float | None) -> dict[str, Any]:
    return {"value": value, "interval": None, "estimator": "", "errs": "unbiased", "num_images": 9, "num_views": 3}


def score(accuracy: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval": [0, 1], "num_images": 1000, "per_class": {}}


def result(
    row: str, seed: int, accuracy: float, alignment: float, *, ratio: float | None = 2.0, views: int = 4, key: str = "k"
) -> MemberResult:
    scores = {name: score(accuracy) for name in ("linear", "knn", "nearest_center")}
    terms = {
        "alignment": {"unbiased": estimate(alignment)},
        "class_centers": {"mean_inner_product": estimate(0.5)},
        "R_epsilon": {"curve": {"value": [0.9, 0.25]}},
        "spread": {"ratio": estimate(ratio)},
    }
    base = {name: score(0.25) for name in ("linear", "knn", "nearest_center")}
    return MemberResult(
        Member(
            name=f"{row}-seed{seed}",
            row=row,
            axes={"augment": row},
            seed=seed,
            recipe=RECIPE,
            fingerprint=RECIPE.fingerprint,
        ),
        Path("runs") / row,
        {"trained": scores, "untrained": base, "pixels": base, "content_key": key},
        {
            "trained": terms,
            "untrained": terms,
            "settings": {"epsilons": [0.1, 0.5], "num_images": 500, "num_views": views},
            "num_images": 50,
            "content_key": key,
        },
        None,
    )


RESULTS = [
    result("crop", 0, 0.30, 0.1),
    result("crop", 1, 0.34, 0.2),
    result("a-row-with-quite-a-long-name", 0, 0.60, 0.5),
    result("a-row-with-quite-a-long-name", 1, 0.60, 0.5),
]


def printed(results: list[MemberResult], width: int) -> str:
    file = io.StringIO()
    print_table(Console(file=file, width=width), rows_of(results))
    return file.getvalue()


def test_a_cell_is_mean_and_sample_deviation() -> None:
    summary = summarize([0.30, 0.34, None])
    assert summary is not None
    assert (summary.mean, summary.n) == (pytest.approx(0.32), 2)
    assert summary.sd == pytest.approx(0.02 * 2**0.5)
    assert summarize([0.3]).sd is None  # type: ignore[union-attr]
    assert summarize([None]) is None


@pytest.mark.parametrize("width", [80, 120, 200])
def test_tables_fit_and_lose_nothing(width: int) -> None:
    text = printed(RESULTS, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in ("a-row-with-quite-a-long-name", "32.0 ±2.8", "60.0 ±0.0*", "0.15 ±0.07*", "untrained encoder"):
        assert words in text
    assert "R_ε at ε = 0.5" in " ".join(text.split())


def test_long_names_of_rows_are_folded_and_cost_no_number() -> None:
    name = "-".join(["distorted"] * 7)
    text = printed([result(f"{name}-{place}", seed, 0.32, 0.15) for place in "ab" for seed in (0, 1)], 80)
    assert max(map(len, text.splitlines())) <= 80
    heads, first = text.splitlines()[0], next(line for line in text.splitlines() if line.startswith("distorted"))
    assert heads.split() == ["linear", "k-NN", "centre"]
    assert re.findall(r"[\d.]+ ±[\d.]+", first) == ["32.0 ±0.0"] * 3
    for head in ("align ↓", "R_ε ↓", "μk·μl ↓", "W/B ↓", "0.15 ±0.00"):
        assert head in text


def test_one_seed_has_no_deviation() -> None:
    text = printed([RESULTS[0], RESULTS[2]], 120)
    assert "30.0 " in text
    assert "±" not in text.replace("no ±", "")


def test_a_failed_member_is_named_and_the_rest_is_shown() -> None:
    failed = MemberResult(RESULTS[1].member, Path("runs"), None, None, "the loss became nan at step 3")
    text = printed([RESULTS[0], failed, RESULTS[2]], 120)
    assert "crop-seed1 failed: the loss became nan at step 3" in text
    assert "30.0" in text


def test_a_row_whose_members_all_failed_does_not_show_in_the_number_of_seeds() -> None:
    failed = MemberResult(RESULTS[2].member, Path("runs"), None, None, "no")
    assert "over 2 seeds" in " ".join(printed([*RESULTS[:2], failed], 120).split())


def test_the_caption_counts_what_was_measured_and_says_when_it_varies() -> None:
    text = " ".join(printed([RESULTS[0], result("more", 0, 0.3, 0.3, views=8)], 120).split())
    assert "Terms on 50 images" in text
    assert "over 4 to 8 views" in text


def test_r_epsilon_of_unlike_views_has_no_best() -> None:
    other = result("more", 0, 0.3, 0.3, views=8)
    other.analysis["trained"]["R_epsilon"]["curve"]["value"] = [0.9, 0.75]  # type: ignore[index]
    assert "0.25*" not in printed([RESULTS[0], other], 120)
    other.analysis["settings"]["num_views"] = 4  # type: ignore[index]
    assert "0.25*" in printed([RESULTS[0], other], 120)


def test_a_mean_over_some_of_the_seeds_says_so_and_is_never_the_best() -> None:
    rows = [
        result("a", 0, 0.3, 0.3, ratio=1.0),
        result("a", 1, 0.3, 0.3, ratio=None),
        result("b", 0, 0.3, 0.3, ratio=9.0),
    ]
    text = printed(rows, 120)
    assert "1.0 (1 of 2)" in text
    assert "9.0*" not in text
    assert "1.0*" not in text


def test_what_a_failed_member_had_got_to_does_not_count() -> None:
    failed = replace(result("a", 1, 0.9, 0.9), error="no")
    text = printed([result("a", 0, 0.3, 0.3), failed, result("b", 0, 0.4, 0.4)], 120)
    assert re.search(r"^a +30\.0 ", text, re.MULTILINE)
    assert "0.30*" in text
    assert "0.90" not in text
    content = as_content(SWEEP, [result("a", 0, 0.3, 0.3), failed])
    assert content["rows"][0]["cells"]["linear"] == {"mean": 0.3, "sd": None, "n": 1, "interval": (0, 1)}
    assert "No member is trained and measured yet." in printed([failed], 120)


def test_the_best_of_the_complete_rows_is_marked() -> None:
    half = [result("a", 0, 0.3, 0.3, ratio=1.0), result("a", 1, 0.3, 0.3, ratio=None)]
    assert "9.0*" in printed([*half, result("b", 0, 0.3, 0.3, ratio=9.0), result("c", 0, 0.3, 0.3, ratio=12.0)], 120)


def test_members_measured_on_different_images_are_called_out() -> None:
    warning = "images changed between members"
    assert warning in printed([RESULTS[0], result("b", 0, 0.3, 0.3, key="other")], 120)
    assert warning not in printed(RESULTS, 120)


def test_the_epsilon_shown_is_the_one_nearest_to_a_half() -> None:
    assert EPSILON.value([0.1, 0.4, 0.7]) == 0.4


def test_csv_of_nothing() -> None:
    assert as_csv({"rows": []}) == "row\n"


def test_numbers_keep_two_digits_however_small() -> None:
    assert (number(0.12345), number(0.001234), number(1.5e-5), number(0.0)) == ("0.123", "0.0012", "1.5e-05", "0.000")
    assert (number(None), percent(None)) == ("–", "–")
    assert percent(0.1234, [0.1, 0.2]) == "12.3  [10.0, 20.0]"


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_the_width_of_a_table_is_the_one_rich_measures(columns: int) -> None:
    out = console()
    grid = table(*(f"column {'x' * number}" for number in range(columns)))
    grid.add_row(*(Text(f"‖μk−μl‖ {'7' * (4 * number)} ↓", style="bold") for number in range(columns)))
    grid.add_section()
    grid.add_row(*(f"漢字 :warning: {number}" for number in range(columns)))
    for _ in range(2):
        whole = out.measure(grid, options=out.options.update(max_width=10_000)).maximum
        assert _natural_width(out, grid) == whole
        grid.padding = (0, 0)


def test_a_table_is_compacted_only_where_it_does_not_fit() -> None:
    out = console()
    for cell, padding in (("7" * (out.width - 14), (0, 1, 0, 1)), ("7" * (out.width - 13), (0, 0, 0, 0))):
        grid = table("", "", "")
        grid.add_row("four", cell, "four")
        assert compacted(out, grid).padding == padding


@pytest.mark.parametrize(
    ("value", "down", "nearest", "up"),
    [
        (1 / 3, "0.333", "0.333", "0.334"),
        (2 / 3, "0.666", "0.667", "0.667"),
        (0.1 + 0.2, "0.300", "0.300", "0.300"),  # 0.30000000000000004
        (-2 / 3, "-0.667", "-0.667", "-0.666"),
        (1 + 1e-12, "1.000", "1.000", "1.000"),
        (1e-13, "0.000", "0.000", "0.000"),
        (0.00123456, "0.0012", "0.0012", "0.0013"),
        (1.26e-5, "1.2e-05", "1.3e-05", "1.3e-05"),
        (1234.5678, "1,234", "1,235", "1,235"),
        (7654321.0, "7.6e+06", "7.7e+06", "7.7e+06"),
        (0.0, "0.000", "0.000", "0.000"),
    ],
)
def test_a_bound_is_rounded_away_from_what_it_bounds(value: float, down: str, nearest: str, up: str) -> None:
    assert (number(value, rounded="down"), number(value), number(value, rounded="up")) == (down, nearest, up)


def test_a_bound_in_per_cent_is_rounded_away_from_what_it_bounds() -> None:
    assert percent(1 / 3000, rounded="up") == "0.1"
    assert percent(0.8999, rounded="down") == "89.9"
    assert percent(0.893, rounded="up") == "89.3"  # 89.30000000000001
    assert percent(1.0, rounded="up") == "100.0"
    assert outside_band([0.33333], [0.66666], 0) == "33.3–66.7"
    assert outside_band([0.2], [0.2], 0) == "80.0"


@pytest.mark.parametrize("counts", [{"cat": 100, "dog": 1, "ship": 12}, {"cat": 7, "dog": 7, "ship": 7}, None])
def test_unequal_classes_are_counted_beside_what_naming_the_largest_scores(
    counts: dict[str, int] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    per_class = {"cat": 1.0, "dog": 0.0, "ship": 0.5}
    scores = {name: {**score(0.9), "per_class": per_class} for name in ("linear", "knn", "nearest_center")}
    if counts is not None:  # results of earlier versions have none
        scores["linear"]["images_per_class"] = counts
    _per_class(console(), scores)
    printed = " ".join(capsys.readouterr().out.split())
    unequal = counts is not None and counts["cat"] == 100
    assert ("class images linear" in printed) == unequal
    # 100 of 113
    assert ("always naming cat would be right for 88.5 %" in printed) == unequal
    assert ("cat 100 100.0" in printed) == unequal


def test_a_table_of_many_rows_is_that_of_few_without_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = table("", "number", "日本")
    for row in range(30):
        grid.add_row(f"row {row}" * (1 + row % 3), Text(f"{row / 7:.2f}"), "–" if row % 5 else "12.5 ±0.1")
    grid.add_row(Text("\x1b[31mred"), "1.00", "–")  # reaches no terminal

    def drawn(limit: int) -> list[str]:
        monkeypatch.setattr("cssl_cli.report.console.LONG_TABLE", limit)
        file = io.StringIO()
        make_console(file, width=200).print(grid)
        return [line.rstrip() for line in file.getvalue().splitlines()]

    few, many = drawn(500), drawn(30)
    assert many[0] == few[0]
    assert many[2:] == few[2:]
    assert "\x1b" not in "".join(many)
    assert set(many[1]) == {"─"}
    assert len(many[1]) == max(map(cell_len, [many[0], *many[2:]]))
    page = Page()
    page.print(grid)
    assert [type(block) for block in page.blocks] == [Grid]  # of any number of rows
