"""Rank correlations in the reports: of which rows they are, against plain counting; what stands in table and figure."""

from __future__ import annotations

import io
import itertools
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cssl_cli.recipe import load_recipe
from cssl_cli.report.compare.catalogue import BY_NAME, FIGURE_TERMS, LABELS, LINEAR, SIGNS
from cssl_cli.report.compare.prediction import prediction_content, screen
from cssl_cli.report.compare.rows import row_content, rows_of
from cssl_cli.report.compare.run_rows import rows_of_runs
from cssl_cli.report.compare.tables.prediction import draw_prediction, print_prediction
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.sweep.run import MemberResult
from tests.support.synthetic_members import CONTROL, DELTAS, member, random_member

METHODS = ("simclr", "moco")
VARIANTS = ("abcde", "abcd", "abc", "ab", "a")


def results(methods: tuple[str, ...] = METHODS, seeds: int = 2, control: bool = True) -> list[MemberResult]:
    numbers = random.Random(3)
    found = [
        random_member(f"{method}-{variant}", seed, numbers, method=method)
        for method in methods
        for variant in VARIANTS
        for seed in range(seeds)
    ]
    fading = [
        random_member(f"{methods[0]}-fade", seed, numbers, method=methods[0], recipe=CONTROL) for seed in range(seeds)
    ]
    return found + (fading if control else [])


def mean_of(members: list[MemberResult], quantity: str) -> float:
    return sum(BY_NAME[quantity].read(result) or 0.0 for result in members) / len(members)


def kendall(pairs: list[tuple[float, float]]) -> float:
    """τ_b by counting pairs of rows; means that differ by their rounding are tied."""

    def sign(a: float, b: float) -> int:
        return 0 if math.isclose(a, b, rel_tol=1e-9) else 1 if a > b else -1

    score, untied_x, untied_y = 0, 0, 0
    for (x1, y1), (x2, y2) in itertools.combinations(pairs, 2):
        s, t = sign(x1, x2), sign(y1, y2)
        score, untied_x, untied_y = score + s * t, untied_x + abs(s), untied_y + abs(t)
    return score / math.sqrt(untied_x * untied_y)


@pytest.mark.parametrize("accuracy", ["linear", "knn", "nearest_center"])
def test_coefficients_are_of_means_over_seeds_without_the_controls(accuracy: str) -> None:
    members = results()
    found = prediction_content(rows_of(members))["correlations"][accuracy]
    assert found["n"] == found["num_rows"] == len(METHODS) * len(VARIANTS)
    by_row: dict[str, list[MemberResult]] = {}
    for result in members:
        if "fade" not in result.member.row:
            by_row.setdefault(result.member.row, []).append(result)
    entries = {entry["term"]: entry for entry in found["terms"]}
    assert set(entries) == {term for term in SIGNS if BY_NAME[term].read(members[0]) is not None}
    assert {"alignment", "one_minus_sigma_pixels"} <= set(entries)
    for term, entry in entries.items():
        pairs = {row: (mean_of(of_row, term), mean_of(of_row, accuracy)) for row, of_row in by_row.items()}
        assert entry["pooled"]["tau"]["value"] == pytest.approx(kendall(list(pairs.values()))), term
        assert entry["predicted_sign"] == SIGNS[term]
        for method in METHODS:
            of_method = [pair for row, pair in pairs.items() if row.startswith(method)]
            assert entry["groups"][method]["tau"]["value"] == pytest.approx(kendall(of_method)), term


def test_the_order_of_members_and_rows_does_not_matter() -> None:
    members = results()
    mixed = members[:]
    random.Random(0).shuffle(mixed)
    first, second = (screen(rows_of(some), "linear") for some in (members, mixed))
    of_first, of_second = ({entry["term"]: entry["pooled"] for entry in found["terms"]} for found in (first, second))
    assert of_first == of_second


def test_groups_are_methods_whether_there_is_an_axis_or_not() -> None:
    assert {row.group for row in rows_of(results())} == set(METHODS)
    without = [member("a"), member("b", recipe=load_recipe("barlow_twins-shapes"))]
    assert [row.group for row in rows_of(without)] == ["simclr", "barlow_twins"]
    assert screen(rows_of(results(("simclr",))), "linear")["scopes"]["within"] is None


def test_a_mean_over_some_of_the_seeds_is_no_number_of_the_row() -> None:
    members = results(("simclr",), control=False)
    assert members[0].analysis is not None
    members[0].analysis["trained"]["spread"]["ratio"]["value"] = None
    (first, *_) = rows_of(members)
    assert first.cells["ratio"] is not None
    assert (first.cells["ratio"].n, first.mean("ratio")) == (1, None)
    entries = {entry["term"]: entry["pooled"]["n"] for entry in screen(rows_of(members), "linear")["terms"]}
    assert (entries["ratio"], entries["alignment"]) == (4, 5)


def test_members_that_failed_count_in_nothing() -> None:
    numbers = random.Random(5)
    members = results(("simclr",), control=False)
    failed = [random_member(f"simclr-{name}", 0, numbers, method="simclr", error="no") for name in ("x", "abcde")]
    assert screen(rows_of([*members, *failed]), "linear") == screen(rows_of(members), "linear")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_rows_are_a_sentence(count: int) -> None:
    rows = rows_of(results(("simclr",))[: 2 * count] + results(("simclr",))[-2:])  # and a control, which does not count
    found = screen(rows, "linear")
    assert (found["n"], found["terms"]) == (count, [])
    text = printed(rows)
    assert "take three rows" in text
    assert f"there {'is' if count == 1 else 'are'} {count or 'none'}." in " ".join(text.split())
    assert "τ" not in text


def printed(rows: Any, width: int = 100, accuracy: str = "linear") -> str:
    file = io.StringIO()
    out = Console(file=file, width=width, highlight=False, markup=False)
    print_prediction(out, rows, prediction_content(rows, [accuracy]), BY_NAME[accuracy])
    return file.getvalue()


@pytest.mark.parametrize("width", [70, 80, 100, 120, 200])
def test_the_table_fits_and_the_control_follows(width: int) -> None:
    text = printed(rows_of(results()), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for term in ("alignment", "one_minus_sigma_pixels_at_yardstick", "nearest_same_class_trained", "rankme"):
        assert any(line.startswith(LABELS[term]) for line in text.splitlines()), term
    said = " ".join(text.split())
    assert "Linear accuracy against each term" in said
    assert "Negative controls are left out." in said
    assert "Negative control simclr-fade linear accuracy" in said


def test_the_accuracy_asked_for_is_the_one_printed() -> None:
    rows = rows_of(results())
    assert "k-NN accuracy against each term" in printed(rows, accuracy="knn")
    assert "Best k-NN accuracy" not in printed(rows, accuracy="best_knn")
    assert "with the best k-NN accuracy take three rows" in " ".join(printed(rows, accuracy="best_knn").split())


def test_nothing_is_said_where_nothing_has_finished() -> None:
    assert printed(rows_of([random_member("a", 0, random.Random(1), error="no")])) == ""


def test_rows_measured_unlike_one_another_are_warned_of() -> None:
    members = results(("simclr",), control=False)
    assert not any("different" in said for said in screen(rows_of(members), "linear")["warnings"])
    for result in members[:2]:
        assert result.analysis is not None
        result.analysis["settings"] |= {"num_views": 8, "deltas": [2 * delta for delta in DELTAS]}
    (said,) = [said for said in screen(rows_of(members), "linear")["warnings"] if "different" in said]
    assert said.startswith("Rows were measured with different numbers of views and grids of δ")


def test_every_accuracy_that_a_row_has_is_in_the_content(tmp_path: Path) -> None:
    rows = rows_of(results())
    content = prediction_content(rows)
    assert list(content["correlations"]) == ["linear", "knn", "nearest_center"]
    (control,) = content["controls"]
    assert (control["row"], control["group"]) == ("simclr-fade", "simclr")
    assert list(control["accuracies"]) == list(content["correlations"])
    (tmp_path / "knn.jsonl").write_text('{"epoch": 1, "step": 1, "knn": 0.5}')
    rows = rows_of([*results(), random_member("more", 0, random.Random(2), path=tmp_path)])
    assert list(prediction_content(rows)["correlations"])[-1] == "best_knn"


# ---------------------------------------------------------------------- the table's new columns
def table(rows: Any, width: int) -> str:
    file = io.StringIO()
    print_table(Console(file=file, width=width, highlight=False, markup=False), rows)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_concentration_and_its_counterpart_stand_in_the_table(width: int) -> None:
    text = table(rows_of(results()), width)
    assert max(map(len, text.splitlines())) <= width
    header = " ".join(line for line in text.splitlines() if "align" in line or "1−σ" in line)
    for title in ("1−σ ↓", "1−σ rel. ↓", "RankMe ↑"):
        assert title in header
    assert "at δ = 0.5 median distances" in " ".join(text.split())


def test_a_control_is_marked_and_never_the_best() -> None:
    rows = [
        member(row, accuracies={"linear": accuracy}, distances={"pixels": {"half": outside}})
        for row, accuracy, outside in (("a", 0.4, 0.75), ("b", 0.5, 0.625))
    ]
    fading = member("fade", accuracies={"linear": 0.9}, distances={"pixels": {"half": 0.0}}, recipe=CONTROL)
    text = table(rows_of([*rows, fading]), 120)
    line = next(line for line in text.splitlines() if line.startswith("fade (control)"))
    assert "*" not in line
    assert "50.0*" in text
    assert "62.5*" in text
    assert "a negative control, never the best" in " ".join(text.split())


def test_what_no_row_has_gets_no_column() -> None:
    text = table(rows_of([member("a", alignment=0.1), member("b", alignment=0.2)]), 120)
    for title in ("1−σ", "RankMe", "best k-NN"):
        assert title not in text
    assert "align ↓" in text


def test_best_knn_has_a_column_and_its_caveat_where_it_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "knn.jsonl").write_text('{"epoch": 1, "step": 1, "knn": 0.4321}')
    text = table(rows_of([member("a", path=tmp_path), member("b")]), 120)
    assert "best k-NN" in text.splitlines()[0]
    assert "43.2" in text
    said = " ".join(text.split())
    assert "best epoch, chosen on the test images, comparable with published numbers chosen so, not an estimate" in said


def test_a_probe_of_another_shape_counts_as_having_no_accuracies() -> None:
    damaged = replace(member("a", alignment=0.1), probe={"content_key": "k", "trained": {"linear": 5}})
    text = table(rows_of([damaged, member("b", alignment=0.2)]), 120)
    assert text.splitlines()[2].split()[:4] == ["a", "–", "–", "–"]


# ---------------------------------------------------------------------- the figure
@pytest.mark.page
def test_the_figure_has_the_main_terms_and_is_removed_where_there_is_none(tmp_path: Path) -> None:
    ranked = [{"content_key": "k", "share": {"value": 0.01 * k}} for k, _ in enumerate(results())]
    rows = rows_of([replace(one, ranked=of_one) for one, of_one in zip(results(), ranked, strict=True)])
    content = {"rows": [row_content(row) for row in rows], **prediction_content(rows)}
    paths = draw_prediction(content, LINEAR, tmp_path)
    assert [path.name for path in paths] == ["accuracy_vs_terms.png", "accuracy_vs_terms.svg"]
    drawn = paths[1].read_text(encoding="utf-8")
    for term in FIGURE_TERMS:
        assert f"<!-- {LABELS[term]}" in drawn, term
    assert "Not drawn" not in drawn
    assert "negative control" in drawn
    none = {**content, "correlations": {}}
    assert draw_prediction(none, LINEAR, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- runs that are no sweep
def test_runs_that_differ_in_their_seed_only_are_one_row(tmp_path: Path) -> None:
    def run(folder: str, *overrides: str) -> Path:
        path = tmp_path / folder
        path.mkdir()
        (path / "recipe.yaml").write_text(load_recipe("simclr-shapes", list(overrides)).to_yaml())
        return path

    paths = {
        run("first", "name=crop-seed0", "seed=0"): 0.2,
        run("second", "name=crop-seed1", "seed=1"): 0.4,
        run("third", "name=other-name", "seed=7", "probe.knn_k=3"): 0.6,
        run("blurred", "name=crop-seed0", "augment.blur=null"): 0.5,
        run("control", "name=fade", "augment.fade={}"): 0.1,
    }
    made_up = {
        path: member("x", accuracies={"linear": accuracy}, alignment=accuracy) for path, accuracy in paths.items()
    }
    rows = rows_of_runs(
        {path: result.analysis or {} for path, result in made_up.items()},
        {path: result.probe for path, result in made_up.items()},
    )
    assert [(row.name, row.group, row.control, row.done) for row in rows] == [
        ("crop", "simclr", False, 3),
        ("blurred", "simclr", False, 1),  # its recipe's name is taken
        ("fade", "simclr", True, 1),
    ]
    assert rows[0].mean("linear") == pytest.approx(0.4)
    assert [result.path.name for result in rows[0].members] == ["first", "second", "third"]
