"""Claims answered: against their definition in loops, open where anything is missing, and what is said of noise."""

from __future__ import annotations

import io
import itertools
import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from cssl_cli.report.compare.claims import answers
from cssl_cli.report.compare.paired_difference import as_json
from cssl_cli.report.compare.tables.claims import _in_words, _verdict, print_claims
from cssl_cli.report.compare.tables.correlations import _caption
from cssl_cli.report.compare.tables.rows import _spanned
from cssl_cli.report.verdicts import views_seen
from cssl_cli.sweep.sweep import Member
from tests.support.synthetic_sweeps import NESTED, PAIRS, Values, rows, sweep_of

SMALLEST = "claims:\n  - {says: ad is ahead, rows: ad, smallest: [one_minus_sigma_pixels, error_linear]}\n"
ORDER = "claims:\n  - {says: richer is better, order: [a, ab, abc], by: linear, within: method}\n"


def answer(folder: Path, text: str, values: Any) -> dict[str, Any]:
    sweep = sweep_of(folder, text)
    (claim,) = answers(sweep, rows(sweep, values, folder))
    return claim


def by_row(numbers: dict[str, Any]) -> Any:
    """Values by row, or by row and seed."""

    def of(member: Member) -> Values | None:
        found = numbers[member.row]
        return found[member.seed] if isinstance(found, list) else found

    return of


def said(folder: Path, text: str, values: Any, width: int = 100) -> str:
    sweep = sweep_of(folder, text)
    file = io.StringIO()
    out = Console(file=file, width=width, highlight=False, markup=False)
    print_claims(out, answers(sweep, rows(sweep, values, folder)))
    return file.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_one_row_is_one_row() -> None:
    part = {"finished": 0, "rows": 1}
    assert _in_words(part) == "open, 0 of 1 row finished"
    assert _verdict({**part, "verdict": "open", "comparisons": 0}) == "open: 0 of 1 row finished"
    assert _caption({"scopes": {"pooled": None, "within": None}, "n": 1}) == "1 row with this accuracy."
    assert [views_seen(1), views_seen(1000)] == ["1 view, the clean one", "1,000 views, the clean one included"]
    assert [_spanned({1}, "view"), _spanned({1, 2}, "view")] == ["1 view", "1 to 2 views"]


# ---------------------------------------------------------------------- ahead of all others
FIRST = {
    "ab": {"linear": 0.5, "sigma": 0.4},
    "ac": {"linear": 0.6, "sigma": 0.3},
    "ad": {"linear": 0.7, "sigma": 0.2},
    "control": {"linear": 0.1, "sigma": 0.01},
}


def test_yes_where_the_row_is_first_in_every_quantity(tmp_path: Path) -> None:
    claim = answer(tmp_path, PAIRS + SMALLEST, by_row(FIRST))
    assert (claim["says"], claim["verdict"], claim["finished"], claim["rows"]) == ("ad is ahead", "yes", 3, 3)
    sigma, error = claim["parts"]
    assert (sigma["quantity"], sigma["way"], sigma["ranked"]) == (
        "one_minus_sigma_pixels",
        "smallest",
        ["ad", "ac", "ab"],
    )
    assert sigma["means"] == pytest.approx({"ab": 0.4, "ac": 0.3, "ad": 0.2})
    assert error["means"] == pytest.approx({"ab": 0.5, "ac": 0.4, "ad": 0.3})
    assert (error["last_named"], error["rival"]) == ("ad", "ac")
    assert error["difference"].mean == pytest.approx(0.1)


def test_a_negative_control_is_no_rival(tmp_path: Path) -> None:
    claim = answer(tmp_path, PAIRS + SMALLEST, by_row(FIRST))
    assert all("control" not in part["means"] for part in claim["parts"])
    unfinished = answer(tmp_path, PAIRS + SMALLEST, by_row({**FIRST, "control": None}))
    assert unfinished["verdict"] == "yes"


def test_no_names_the_row_that_is_really_first(tmp_path: Path) -> None:
    values = by_row({**FIRST, "ab": {"linear": 0.8, "sigma": 0.5}})
    claim = answer(tmp_path, PAIRS + SMALLEST, values)
    assert [part["verdict"] for part in claim["parts"]] == ["yes", "no"]
    assert claim["verdict"] == "no"
    text = flat(said(tmp_path, PAIRS + SMALLEST, values))
    assert "ad is ahead: no" in text
    assert "1−σ pixels, ½ δ₀: ad 20.0 % is smallest; next ac 30.0 %, 10.00 apart" in text
    assert "linear error: ab 20.0 % comes before ad 30.0 % (place 2 of 3), 10.00 apart" in text


def test_as_far_as_another_is_not_ahead_of_it(tmp_path: Path) -> None:
    values = by_row({**FIRST, "ab": {"linear": 0.7, "sigma": 0.5}})
    assert answer(tmp_path, PAIRS + SMALLEST, values)["verdict"] == "no"
    assert "ab 30.0 % comes as far as ad 30.0 %" in flat(said(tmp_path, PAIRS + SMALLEST, values))


def test_several_rows_are_ahead_together(tmp_path: Path) -> None:
    claim = "claims:\n  - {says: x, rows: [ac, ad], largest: linear}\n"
    found = answer(tmp_path, PAIRS + claim, by_row(FIRST))
    assert (found["verdict"], found["parts"][0]["last_named"], found["parts"][0]["rival"]) == ("yes", "ac", "ab")
    worse = by_row({**FIRST, "ac": {"linear": 0.4, "sigma": 0.3}})
    assert answer(tmp_path, PAIRS + claim, worse)["verdict"] == "no"
    assert "ad 70.0 %, ac 60.0 % are largest; next ab 50.0 %" in flat(said(tmp_path, PAIRS + claim, by_row(FIRST)))


def test_against_the_definition_in_loops(tmp_path: Path) -> None:
    generator = random.Random(3)
    text = NESTED + "seeds: 3\nclaims:\n  - {says: x, rows: ['*-a', '*-ab'], largest: linear, smallest: alignment}\n"
    sweep = sweep_of(tmp_path, text)
    seen = set()
    for _ in range(30):
        drawn = {
            member.name: {"linear": generator.random(), "alignment": generator.random()} for member in sweep.members
        }
        (claim,) = answers(sweep, rows(sweep, lambda member, drawn=drawn: drawn[member.name], tmp_path))
        expected = []
        for method in ("simclr", "vicreg"):
            for quantity, sign in (("alignment", 1), ("linear", -1)):
                mean = {
                    augment: sign
                    * statistics.fmean(drawn[f"{method}-{augment}-seed{seed}"][quantity] for seed in range(3))
                    for augment in ("abc", "ab", "a")
                }
                holds = all(mean[named] < mean["abc"] for named in ("a", "ab"))
                expected.append((method, quantity, "yes" if holds else "no"))
        assert [(part["group"], part["quantity"], part["verdict"]) for part in claim["parts"]] == expected
        assert claim["verdict"] == ("yes" if all(part[2] == "yes" for part in expected) else "no")
        seen.add(claim["verdict"])
    assert seen == {"yes", "no"}


# ---------------------------------------------------------------------- in order
def nested(**linear: list[float]) -> Any:
    """Linear accuracies of a, ab, abc of each method."""
    numbers = {
        f"{method}-{augment}": {"linear": value}
        for method, values in linear.items()
        for augment, value in zip(("a", "ab", "abc"), values, strict=True)
    }
    return by_row(numbers)


def test_an_order_holds_where_every_neighbour_is_larger(tmp_path: Path) -> None:
    claim = answer(tmp_path, NESTED + ORDER, nested(simclr=[0.1, 0.2, 0.3], vicreg=[0.3, 0.4, 0.5]))
    assert claim["verdict"] == "yes"
    assert [(part["group"], part["verdict"]) for part in claim["parts"]] == [("simclr", "yes"), ("vicreg", "yes")]
    steps = claim["parts"][0]["steps"]
    assert [(step["from"], step["to"]) for step in steps] == [("simclr-a", "simclr-ab"), ("simclr-ab", "simclr-abc")]
    assert steps[0]["difference"].mean == pytest.approx(0.1)


@pytest.mark.parametrize("values", list(itertools.permutations([0.1, 0.2, 0.3])))
@pytest.mark.parametrize("increasing", [True, False])
def test_an_order_out_of_order_names_its_pairs(tmp_path: Path, values: tuple[float, ...], increasing: bool) -> None:
    text = NESTED + ORDER.replace("within", f"increasing: {str(increasing).lower()}, within")
    good = [0.1, 0.2, 0.3] if increasing else [0.3, 0.2, 0.1]
    claim = answer(tmp_path, text, nested(simclr=list(values), vicreg=good))
    part, other = claim["parts"]
    in_order = [after > before if increasing else after < before for before, after in itertools.pairwise(values)]
    assert [step["in_order"] for step in part["steps"]] == in_order
    assert (part["verdict"], claim["verdict"]) == ("yes", "yes") if all(in_order) else ("no", "no")
    assert other["verdict"] == "yes"


def test_rounding_makes_no_order(tmp_path: Path) -> None:
    assert 0.1 + 0.2 > 0.3
    values = nested(simclr=[0.3, 0.1 + 0.2, 0.5], vicreg=[0.1, 0.2, 0.3])
    assert answer(tmp_path, NESTED + ORDER, values)["verdict"] == "no"
    ahead = by_row({**FIRST, "ac": {"linear": 0.3}, "ad": {"linear": 0.1 + 0.2}, "ab": {"linear": 0.1}})
    assert answer(tmp_path, PAIRS + LARGEST, ahead)["verdict"] == "no"
    assert "ac 30.0 % comes as far as ad 30.0 %" in flat(said(tmp_path, PAIRS + LARGEST, ahead))


def test_neighbours_that_are_the_same_are_not_in_order(tmp_path: Path) -> None:
    values = nested(simclr=[0.1, 0.1, 0.3], vicreg=[0.1, 0.2, 0.3])
    assert answer(tmp_path, NESTED + ORDER, values)["verdict"] == "no"
    text = flat(said(tmp_path, NESTED + ORDER, values))
    assert "simclr, linear accuracy: 1 of 2 neighbours in order, seed noise unknown" in text
    assert " simclr-a 10.0 % is not below simclr-ab 10.0 %, 0.00 apart, seed noise unknown (one seed)" in text


# ---------------------------------------------------------------------- open
@pytest.mark.parametrize("missing", [None, {"error": 1.0, "linear": 0.9, "sigma": 0.1}])
def test_open_until_every_row_has_finished(tmp_path: Path, missing: Values | None) -> None:
    claim = answer(tmp_path, PAIRS + SMALLEST, by_row({**FIRST, "ab": missing}))
    assert (claim["verdict"], claim["finished"], claim["rows"]) == ("open", 2, 3)
    text = flat(said(tmp_path, PAIRS + SMALLEST, by_row({**FIRST, "ab": missing})))
    assert "ad is ahead: open: 2 of 3 rows finished" in text
    assert "linear error: open, 2 of 3 rows finished" in text


def test_open_until_every_seed_has_finished(tmp_path: Path) -> None:
    values = by_row({**FIRST, "ac": [FIRST["ac"], None]})
    claim = answer(tmp_path, PAIRS + "seeds: 2\n" + SMALLEST, values)
    assert (claim["verdict"], claim["finished"]) == ("open", 2)


def test_open_where_a_number_is_lacking(tmp_path: Path) -> None:
    values = by_row({**FIRST, "ab": {"linear": 0.5}})
    claim = answer(tmp_path, PAIRS + SMALLEST, values)
    assert [part["verdict"] for part in claim["parts"]] == ["open", "yes"]
    assert (claim["verdict"], claim["parts"][0]["lacking"]) == ("open", ["ab"])
    text = flat(said(tmp_path, PAIRS + SMALLEST, values))
    assert "ad is ahead: open " in text
    assert "1−σ pixels, ½ δ₀: open, without a number for ab" in text


def test_a_finished_group_refutes_though_another_is_open(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {f"vicreg-{augment}": None for augment in ("a", "ab", "abc")}
    numbers |= {f"simclr-{augment}": {"linear": value} for augment, value in (("a", 0.3), ("ab", 0.2), ("abc", 0.4))}
    assert answer(tmp_path, NESTED + ORDER, by_row(numbers))["verdict"] == "no"
    numbers |= {"simclr-a": {"linear": 0.1}}
    claim = answer(tmp_path, NESTED + ORDER, by_row(numbers))
    assert (claim["verdict"], claim["finished"], claim["rows"]) == ("open", 3, 6)


def test_an_order_waits_only_for_the_rows_it_names(tmp_path: Path) -> None:
    text = NESTED + "claims:\n  - {says: x, order: ['*-a', '*-abc'], by: linear}\n"
    numbers = {f"{m}-{a}": {"linear": v} for m in ("simclr", "vicreg") for a, v in (("a", 0.1), ("abc", 0.2))}
    claim = answer(tmp_path, text, by_row({**numbers, "simclr-ab": None, "vicreg-ab": None}))
    assert (claim["verdict"], claim["finished"], claim["rows"]) == ("yes", 4, 4)


def test_nothing_finished_is_one_line(tmp_path: Path) -> None:
    text = said(tmp_path, PAIRS + SMALLEST, by_row(dict.fromkeys(FIRST)))
    assert "ad is ahead: open: 0 of 3 rows finished" in text
    assert "linear error" not in text
    assert said(tmp_path, PAIRS, by_row(FIRST)) == ""


# ---------------------------------------------------------------------- the noise of seeds
def seeded(*differences: float) -> Any:
    """ac at 60 % and ad better by these differences, seed by seed."""
    numbers: dict[str, Any] = {name: [{"linear": 0.1}] * len(differences) for name in ("ab", "control")}
    base = [0.6 + 0.05 * seed for seed in range(len(differences))]
    numbers["ac"] = [{"linear": value} for value in base]
    numbers["ad"] = [{"linear": value + more} for value, more in zip(base, differences, strict=True)]
    return by_row(numbers)


LARGEST = "claims:\n  - {says: ad is best, rows: ad, largest: linear}\n"


def test_differences_are_paired_by_seeds(tmp_path: Path) -> None:
    differences = [0.01, 0.02, 0.015]
    text = PAIRS + "seeds: 3\n" + LARGEST
    claim = answer(tmp_path, text, seeded(*differences))
    found = claim["parts"][0]["difference"]
    expected = stats.ttest_1samp([-d for d in differences], 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert (claim["comparisons"], claim["beyond_noise"], claim["noise_unknown"]) == (1, 1, 0)
    low, high = (f"{-100 * end:.2f}" for end in (expected.high, expected.low))
    assert f"1.50 ±0.50 apart, beyond seed noise (95 % [{low}, {high}], 3 seeds)" in flat(
        said(tmp_path, text, seeded(*differences))
    )


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((0.01, 0.02, 0.015), "ad is best: yes 1"),
        ((0.05, -0.02, 0.03), "ad is best: yes, but within seed noise 1"),
        ((-0.01, -0.02, -0.015), "ad is best: no 1"),
        ((0.02, -0.05, -0.03), "ad is best: no, but what contradicts it is within seed noise 1"),
        ((0.01,), "ad is best: yes, with seed noise unknown 1"),
        ((-0.01,), "ad is best: no, with seed noise unknown 1"),
        ((0.01, 0.01), "ad is best: yes, with seed noise unknown 1"),  # the same in every seed, as by chance
    ],
)
def test_the_verdict_says_what_seeds_may_have_made(
    tmp_path: Path, differences: tuple[float, ...], verdict: str
) -> None:
    text = PAIRS + f"seeds: {len(differences)}\n" + LARGEST
    found = flat(said(tmp_path, text, seeded(*differences)))
    assert verdict.removesuffix(" 1") + " linear accuracy:" in found
    assert ("With one seed nothing is known of seed noise." in found) == (len(differences) == 1)


def test_one_contradiction_beyond_noise_is_enough(tmp_path: Path) -> None:
    """a < ab < abc: the first step is wrong beyond noise, the second by the same in every seed."""
    values = {"a": [0.30, 0.31, 0.32], "ab": [0.20, 0.215, 0.225], "abc": [0.10, 0.115, 0.125]}
    numbers = {
        f"{method}-{augment}": [{"linear": value} for value in found]
        for method in ("simclr", "vicreg")
        for augment, found in values.items()
    }
    text = NESTED + "seeds: 3\n" + ORDER
    claim = answer(tmp_path, text, by_row(numbers))
    assert claim["noise_unknown"]
    assert claim["beyond_noise"]
    assert "no, with seed noise unknown" not in flat(said(tmp_path, text, by_row(numbers)))


def test_some_comparisons_within_noise_are_counted(tmp_path: Path) -> None:
    steady = {"a": [0.10, 0.11], "ab": [0.20, 0.212], "abc": [0.22, 0.234]}
    numbers = {
        f"{method}-{augment}": [{"linear": value} for value in values]
        for method in ("simclr", "vicreg")
        for augment, values in steady.items()
    }
    numbers["vicreg-ab"] = [{"linear": 0.13}, {"linear": 0.30}]
    numbers["vicreg-abc"] = [{"linear": 0.40}, {"linear": 0.28}]
    claim = answer(tmp_path, NESTED + "seeds: 2\n" + ORDER, by_row(numbers))
    assert (claim["verdict"], claim["comparisons"], claim["beyond_noise"]) == ("yes", 4, 2)
    text = flat(said(tmp_path, NESTED + "seeds: 2\n" + ORDER, by_row(numbers)))
    assert "richer is better: yes, but within seed noise in 2 of 4 comparisons" in text
    assert "vicreg, linear accuracy: 2 of 2 neighbours in order, 0 of them beyond seed noise" in text


def test_an_interval_that_ends_near_0_is_not_said_to_end_there(tmp_path: Path) -> None:
    # Two seeds: the interval reaches 12.7 half-deviations, d ± 12.706 |d1 − d2| / 2.
    half = stats.t.ppf(0.975, 1) * 0.001
    mean = half + 1e-5
    text = flat(said(tmp_path, PAIRS + "seeds: 2\n" + LARGEST, seeded(mean - 0.001, mean + 0.001)))
    assert f"beyond seed noise (95 % [just above 0, {100 * (mean + half):.2f}], 2 seeds)" in text


# ---------------------------------------------------------------------- for machines and narrow screens
def test_as_json(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, PAIRS + "seeds: 2\n" + SMALLEST + LARGEST.partition("\n")[2])
    numbers = {row: [values, values] for row, values in FIRST.items()}
    content = as_json(answers(sweep, rows(sweep, by_row(numbers), tmp_path)))
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert [claim["says"] for claim in content] == ["ad is ahead", "ad is best"]
    difference = content[1]["parts"][0]["difference"]
    assert difference["mean"] == pytest.approx(-0.1)
    assert (difference["sd"], difference["n"], difference["p"], difference["beyond_noise"]) == (0.0, 2, None, None)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    text = said(tmp_path, PAIRS + "seeds: 3\n" + LARGEST, seeded(0.05, -0.02, 0.03), width)
    assert max(map(len, text.splitlines())) <= width
