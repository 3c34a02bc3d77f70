"""The table of rank correlations: what stands in it, that it fits 60 columns and 200, and what it says under it."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cssl_cli.report.compare.rank_correlation.attainable import p_without_ties
from cssl_cli.report.compare.rank_correlation.screening import RowMeans, screen_accuracy
from cssl_cli.report.compare.tables.correlations import p_value, print_correlations, signed

TITLES = {"alignment": "align ↓", "R_epsilon": "R_ε at ε = 0.5 ↓", "sigma": "1−σ at 0.5 δ₀, features ↓"}


def rows(n: int, num_groups: int = 1) -> list[RowMeans]:
    generator, found = np.random.default_rng(4), []
    for i in range(n):
        quality = float(generator.standard_normal())
        noise = [float(v) for v in generator.standard_normal(3)]
        values: dict[str, float | None] = {"linear": quality + 0.5 * noise[0], "alignment": -quality, "flat": 1.0}
        values |= {"R_epsilon": round(quality + noise[1]), "sigma": -quality + noise[2] if i else None}
        found.append((f"row{i}", f"group{i % num_groups}", values))
    return found


def screened(n: int, num_groups: int = 1) -> dict[str, Any]:
    terms = {"alignment": -1, "R_epsilon": -1, "sigma": None, "flat": 1}
    return screen_accuracy(rows(n, num_groups), "linear", terms, TITLES)


def printed(content: dict[str, Any], width: int, *, every: bool = True) -> str:
    file = io.StringIO()
    out = Console(file=file, width=width, highlight=False, markup=False)
    print_correlations(out, content, accuracy_title="Linear accuracy", term_titles=TITLES, every=every)
    return file.getvalue()


def line_of(text: str, title: str) -> list[str]:
    """The cells of a term's line."""
    line = next(line for line in text.splitlines() if line.startswith(title))
    return re.sub(r"\[([^]]*), ([^]]*)\]", r"[\1,\2]", line.removeprefix(title)).split()


def test_a_line_holds_the_numbers_of_its_term() -> None:
    content = screened(10)
    text = printed(content, 120)
    for entry in content["terms"]:
        cells = line_of(text, TITLES.get(entry["term"], entry["term"]))
        pooled = entry["pooled"]
        if "tau" not in pooled:
            assert cells == ["–"] * 7
            continue
        tau = pooled["tau"]
        low, high = tau["interval"]
        assert cells == [
            f"{tau['value']:.2f}",
            f"[{low:.2f},{high:.2f}]",
            p_value(tau["p"]),
            p_value(tau["p_adjusted"]),
            f"{pooled['rho']['value']:.2f}",
            {True: "yes", False: "no", None: "–"}[pooled["as_predicted"]],
            str(pooled["n"]),
            str(pooled["num_tied_pairs"]),
        ]
    assert "–: flat: one of the two is the same in all rows." in text


def test_within_groups_stands_beside() -> None:
    content = screened(12, 3)
    text = printed(content, 140)
    entry = next(entry for entry in content["terms"] if entry["term"] == "alignment")
    within = entry["within"]["tau"]
    assert line_of(text, TITLES["alignment"])[5:8] == [
        signed(within["value"]),
        p_value(within["p"]),
        p_value(within["p_adjusted"]),
    ]
    assert "12 rows in 3 groups" in " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize(("n", "num_groups"), [(4, 1), (10, 1), (20, 4), (70, 2)])
def test_nothing_is_cut_or_folded(width: int, n: int, num_groups: int) -> None:
    text = printed(screened(n, num_groups), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    for title in (*TITLES.values(), "flat"):
        assert line_of(text, title), title


def test_narrow_terminals_keep_tau_and_its_adjusted_p() -> None:
    content = screened(10)
    header = printed(content, 60).splitlines()[2].split()
    assert header[0] == "τ"
    assert "adj." in header
    assert "predicted" in header


def test_warnings_and_what_the_columns_mean_are_said() -> None:
    few = " ".join(printed(screened(5), 80).split())
    assert "n = 5 rows: even a perfect order has p = 0.017; nothing weaker can be told from chance." in few
    ten = " ".join(printed(screened(10), 80).split())
    assert "even a perfect order" not in ten
    # Of 45 pairs 23 more concordant than discordant have p = 0.047, and 27 have p = 0.01667 ≤ 0.05 / 3 terms.
    assert (p_without_ties((10,), 23), p_without_ties((10,), 27)) == pytest.approx((0.0466226, 0.0166661), abs=1e-6)
    assert "With 10 rows without ties p ≤ 0.05 takes |τ| ≥ 0.52; 0.60 is enough for adj. p ≤ 0.05." in ten
    assert "the 3 terms with a p (Westfall–Young" in ten
    many = " ".join(printed(screened(70), 80).split())
    assert "the 3 terms with a p (Holm)" in many
    assert "without ties" not in many


def test_numbers_are_rounded_without_lying() -> None:
    assert (p_value(0.00099), p_value(0.001), p_value(0.0499), p_value(1.0)) == ("<0.001", "0.001", "0.050", "1.000")
    assert (signed(-0.001), signed(0.996), signed(-0.5)) == ("0.00", "1.00", "-0.50")


def test_nothing_to_show_is_said() -> None:
    assert "No terms." in printed(screen_accuracy(rows(5), "linear", {}), 80)
    text = printed(screen_accuracy(rows(2), "linear", {"alignment": 1}), 80)
    assert "–: align ↓: 2 of at least 3 rows with both numbers." in text


def test_only_what_can_be_told_from_chance_unless_all_are_asked_for() -> None:
    content = screened(10)
    told = [entry["pooled"].get("tau", {}).get("p_adjusted") for entry in content["terms"]]
    strong = [entry for entry, p in zip(content["terms"], told, strict=True) if p is not None and p <= 0.05]
    assert 0 < len(strong) < len(content["terms"])
    few, all_of_them = printed(content, 120, every=False), printed(content, 120)
    for entry in content["terms"]:
        title = TITLES.get(entry["term"], entry["term"])
        in_few = any(line.startswith(title) for line in few.splitlines())
        assert any(line.startswith(title) for line in all_of_them.splitlines())
        assert in_few == (entry in strong)
    assert f"The other {len(content['terms']) - len(strong)} terms cannot be told from chance" in few


def test_where_nothing_can_be_told_one_sentence_says_so() -> None:
    content = screened(4)
    text = " ".join(printed(content, 120, every=False).split())
    first = content["terms"][0]
    strongest = f"{TITLES.get(first['term'], first['term'])}, has τ {signed(first['pooled']['tau']['value'])}"
    assert text.startswith("Linear accuracy against each of 4 terms: over 4 rows no rank correlation can be told from")
    assert f"(the strongest, {strongest}, adjusted p " in text
    assert text.endswith("; --correlations prints all.")
