"""Tables: what stands in a cell, which value is marked, and that they fit 80 columns and 200."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cssl_cli.launch import MemberResult
from cssl_cli.report.layout import number, percent
from cssl_cli.report.sweep import as_csv, central_epsilon, print_table, summarize
from cssl_cli.sweep import Member


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "interval": None, "estimator": "", "errs": "unbiased", "num_images": 9, "num_views": 3}


def score(accuracy: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval": [0, 1], "num_images": 1000, "per_class": {}}


def result(row: str, seed: int, accuracy: float, alignment: float) -> MemberResult:
    scores = {name: score(accuracy) for name in ("linear", "knn", "nearest_center")}
    terms = {
        "alignment": {"unbiased": estimate(alignment)},
        "class_centers": {"mean_inner_product": estimate(0.5)},
        "R_epsilon": {"curve": {"value": [0.9, 0.25]}},
        "spread": {"ratio": estimate(2.0)},
    }
    base = {name: score(0.25) for name in ("linear", "knn", "nearest_center")}
    return MemberResult(
        Member(name=f"{row}-seed{seed}", row=row, axes={"augment": row}, seed=seed, recipe=None),  # type: ignore[arg-type]
        Path("runs") / row,
        {"trained": scores, "untrained": base, "pixels": base},
        {"trained": terms, "untrained": terms, "settings": {"epsilons": [0.1, 0.5], "num_images": 50, "num_views": 4}},
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
    print_table(Console(file=file, width=width), results)
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


def test_one_seed_has_no_deviation() -> None:
    text = printed([RESULTS[0], RESULTS[2]], 120)
    assert "30.0 " in text
    assert "±" not in text.replace("no ±", "")


def test_a_failed_member_is_named_and_the_rest_is_shown() -> None:
    failed = MemberResult(RESULTS[1].member, Path("runs"), None, None, "the loss became nan at step 3")
    text = printed([RESULTS[0], failed, RESULTS[2]], 120)
    assert "crop-seed1 failed: the loss became nan at step 3" in text
    assert "30.0" in text


def test_the_epsilon_shown_is_the_one_nearest_to_a_half() -> None:
    assert central_epsilon([0.1, 0.4, 0.7]) == 0.4


def test_csv_of_nothing() -> None:
    assert as_csv({"rows": []}) == "row\n"


def test_numbers_keep_two_digits_however_small() -> None:
    assert (number(0.12345), number(0.001234), number(1.5e-5), number(0.0)) == ("0.123", "0.0012", "1.5e-05", "0.000")
    assert (number(None), percent(None)) == ("–", "–")
    assert percent(0.1234, [0.1, 0.2]) == "12.3  [10.0, 20.0]"
