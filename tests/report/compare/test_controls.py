"""Negative controls: which terms they fool, by values that can be read off."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cssl_cli.report.compare.catalogue import LINEAR, SIGNS
from cssl_cli.report.compare.controls import compare_control
from cssl_cli.report.compare.rows import rows_of
from cssl_cli.report.compare.tables.controls import print_control
from cssl_cli.sweep.claims import is_negative_control
from cssl_cli.sweep.run import MemberResult
from tests.support.synthetic_members import CONTROL, RECIPE, member

# linear accuracy; alignment ↓; mean μk·μl ↓; RankMe ↑; uniformity ↓. The medians of the three rows are those of b.
ROWS = {
    "a": (0.30, 0.10, 0.9, 20.0, -1.0),
    "b": (0.40, 0.20, 0.6, 30.0, -2.0),
    "c": (0.50, 0.30, 0.3, 40.0, -3.0),
    "fade": (0.20, 0.05, 0.5, 40.0, -2.0),
}


def made(
    row: str, numbers: tuple[float, ...], method: str | None = None, seed: int = 0, **options: Any
) -> MemberResult:
    linear, alignment, inner, rankme, uniformity = numbers
    return member(
        row,
        seed,
        accuracies={"linear": linear},
        alignment=alignment,
        mean_inner_product=inner,
        rankme=rankme,
        uniformity=uniformity,
        method=method,
        recipe=CONTROL if "fade" in row else RECIPE,
        **options,
    )


def compared(results: list[MemberResult], name: str = "fade", accuracy: str = "linear") -> dict[str, Any]:
    rows = rows_of(results)
    return compare_control(next(row for row in rows if row.name == name), rows, [accuracy])


def verdicts(found: dict[str, Any], accuracy: str = "linear") -> dict[str, str]:
    return {entry["term"]: entry["fooled"] for entry in found["accuracies"][accuracy]["terms"]}


def test_a_recipe_that_fades_is_a_control() -> None:
    assert (is_negative_control(RECIPE), is_negative_control(CONTROL)) == (False, True)


def test_means_that_differ_by_rounding_alone_fool_nothing() -> None:
    control = [made("fade", (0.2, alignment, 0.5, 40.0, -2.0), seed=k) for k, alignment in enumerate((0.1, 0.2, 0.3))]
    others = [made(row, (0.5, 0.2, 0.5, 40.0, -2.0), seed=k) for row in "abc" for k in range(3)]
    (of_control,) = (row for row in rows_of([*control, *others]) if row.name == "fade")
    assert of_control.mean("alignment") != 0.2  # but for the last bit
    found = compared([*control, *others])
    assert set(verdicts(found).values()) == {"not"}
    assert {entry["place"] for entry in found["accuracies"]["linear"]["terms"]} == {1}


def test_terms_are_fooled_by_what_they_like_better_than_the_best_or_the_median_row() -> None:
    found = compared([made(row, numbers) for row, numbers in ROWS.items()])
    # alignment: 0.05 is less than c's 0.30. μk·μl: 0.5 is less than the median 0.6, not than c's 0.3. RankMe: 40 is
    # c's own, and more than the median. Uniformity: −2 is the median.
    assert verdicts(found) == {
        "alignment": "best row",
        "mean_inner_product": "median row",
        "rankme": "median row",
        "uniformity": "not",
    }
    of_linear = found["accuracies"]["linear"]
    assert (of_linear["value"], of_linear["place"], of_linear["num_rows"]) == (0.20, 4, 4)
    assert (of_linear["best_row"], of_linear["best_row_value"]) == ("c", 0.50)
    places = {entry["term"]: (entry["place"], entry["num_rows"]) for entry in of_linear["terms"]}
    assert places == {
        "alignment": (1, 4),  # the least
        "mean_inner_product": (2, 4),
        "rankme": (1, 4),  # as large as the largest
        "uniformity": (2, 4),
    }
    assert set(places) < set(SIGNS)


def test_a_control_as_accurate_as_the_rows_fools_nothing() -> None:
    rows = [made(row, numbers) for row, numbers in ROWS.items() if row != "fade"]
    # Below the best, above the median: a term that likes it better than the best is fooled, no other.
    middling = compared([*rows, made("fade", (0.45, 0.25, 0.5, 40.0, -2.5))])
    assert verdicts(middling) == dict.fromkeys(("mean_inner_product", "rankme", "uniformity"), "not") | {
        "alignment": "best row"
    }
    best = compared([*rows, made("fade", (0.50, 0.0, 0.0, 99.0, -9.0))])
    assert set(verdicts(best).values()) == {"not"}
    assert best["accuracies"]["linear"]["place"] == 1


def test_a_control_is_compared_within_its_method() -> None:
    results = [made(f"simclr-{row}", numbers, "simclr") for row, numbers in ROWS.items()]
    results += [made(f"moco-{row}", (0.9, 0.01, 0.0, 90.0, -9.0), "moco") for row in "ab"]
    found = compared(results, "simclr-fade")
    assert found["group"] == "simclr"
    assert found["accuracies"]["linear"]["best_row"] == "simclr-c"
    assert verdicts(found)["alignment"] == "best row"
    # With a single row of its method it is compared with all.
    alone = compared([results[0], results[3], *results[4:]], "simclr-fade")
    assert alone["group"] is None
    assert alone["accuracies"]["linear"]["best_row"] == "moco-a"
    assert alone["accuracies"]["linear"]["num_rows"] == 4


def test_means_over_seeds_are_compared_and_rows_without_a_number_are_left_out() -> None:
    results = [made(row, numbers) for row, numbers in ROWS.items()]
    # A second seed of c takes its mean alignment to 0.0, below the control's; one of b lacks RankMe.
    results.append(made("c", (0.50, -0.30, 0.3, 40.0, -3.0), seed=1))
    found = compared(results)
    assert verdicts(found)["alignment"] == "median row"
    assert found["accuracies"]["linear"]["terms"][0]["best_row_value"] == pytest.approx(0.0)
    results.append(made("b", (0.40, 0.20, 0.6, None, -2.0), seed=1))  # type: ignore[arg-type]
    rankme = next(entry for entry in compared(results)["accuracies"]["linear"]["terms"] if entry["term"] == "rankme")
    assert (rankme["num_rows"], rankme["median"]) == (3, 30.0)  # of a and c


def test_a_term_that_only_the_control_lacks_has_no_verdict() -> None:
    results = [made(row, numbers) for row, numbers in ROWS.items()]
    assert results[-1].analysis is not None
    results[-1].analysis["trained"]["effective_rank"]["rankme"]["value"] = None
    found = compared(results)
    assert verdicts(found)["rankme"] == "no value"
    assert "Without a value of the control: RankMe ↑." in printed(found)


def printed(found: dict[str, Any], width: int = 100) -> str:
    file = io.StringIO()
    print_control(Console(file=file, width=width, highlight=False, markup=False), "fade", found, LINEAR)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 100])
def test_what_is_said_of_a_control(width: int) -> None:
    text = printed(compared([made(row, numbers) for row, numbers in ROWS.items()]), width)
    assert max(map(len, text.splitlines())) <= width
    said = " ".join(text.split())
    assert "Negative control fade linear accuracy 20.0 %, place 4 of 4 rows; best is c, 50.0 %." in said
    assert "Fooled, like it better than the best row: alignment ↓ (0.05 → 0.30, 1 of 4)." in said
    assert "Half fooled, like it better than the median row: mean μk·μl ↓ (0.50 → 0.30, 2 of 4); RankMe ↑" in said
    assert "Not fooled: uniformity ↓ (-2.00 → -3.00, 2 of 4)." in said


def test_a_control_whose_views_coincide_refutes_a_predictor_only() -> None:
    results = [made(row, numbers) for row, numbers in ROWS.items()]
    refuted = "the control refutes 1 − σ as a predictor, not the theory"
    without = compared(results)
    assert without["shared_views"] is None
    assert refuted not in " ".join(printed(without).split())
    for share, says in ((0.0, False), (0.375, True)):
        assert results[-1].analysis is not None
        pixels = results[-1].analysis.setdefault("concentration", {}).setdefault("pixels", {})
        pixels["share_meeting_other_class"] = {"value": share}
        found = compared(results)
        assert found["shared_views"] == share
        said = " ".join(printed(found).split())
        assert (refuted in said) is says
        assert ("For 37.5 % of its images a view coincides, pixel for pixel" in said) is says


def test_what_cannot_be_compared_is_said() -> None:
    alone = compared([made("fade", ROWS["fade"])])
    assert alone["accuracies"]["linear"]["best_row"] is None
    assert "no other row" in printed(alone)
    without = made("fade", ROWS["fade"])
    assert without.probe is not None
    without.probe["trained"]["linear"]["accuracy"] = None
    assert "It has no linear accuracy." in printed(compared([without, made("a", ROWS["a"])]))
    best = compared([made("fade", (0.9, 0.0, 0.0, 9.0, -9.0)), made("a", ROWS["a"])])
    assert "it controls nothing here" in printed(best)
