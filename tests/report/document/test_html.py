"""The page: every number is that of --json, names are text, and nothing is asked of anyone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import escaped
from cssl_cli.recipe import load_recipe
from cssl_cli.report.compare.catalogue import ACCURACIES, BEST_KNN, MAIN_TERMS
from cssl_cli.report.compare.rows import rows_of
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.report.document.blocks import (
    Cell,
    Document,
    Figure,
    Folded,
    Grid,
    Head,
    Heading,
    Line,
    Paragraph,
    Section,
    folded_where_long,
    without_figures,
)
from cssl_cli.report.document.html import _orders, render
from cssl_cli.report.document.main_table import _head, table_of_sweep
from cssl_cli.report.document.of_run import RunFiles, document_of_run
from cssl_cli.report.document.of_sweep import document_of_sweep
from cssl_cli.report.document.page import Page as RecordedPage
from cssl_cli.report.document.recipes import recipes_of_rows
from cssl_cli.report.summary import in_summary
from cssl_cli.runs.results import CLASSIFIERS, ERRS, quantities_of, quoted
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Sweep
from tests.support.html_pages import Page
from tests.support.synthetic_members import CONTROL, member


@pytest.fixture
def sweep_page(sweep: Sweep, results: list[MemberResult], content: dict[str, Any], tmp_path: Path) -> Page:
    return Page(render(without_figures(document_of_sweep(sweep, results, content, tmp_path / "runs"))))


@pytest.fixture
def run_page(hostile_run: RunFiles) -> Page:
    return Page(render(without_figures(document_of_run(hostile_run))))


def test_every_number_of_a_sweeps_table_is_that_of_json(sweep_page: Page, content: dict[str, Any]) -> None:
    table = sweep_page.tables[0].by_name()
    by_title = {column.title: column for column in (*ACCURACIES, *MAIN_TERMS)}
    assert len(by_title) == len(ACCURACIES) + len(MAIN_TERMS)
    seen = 0
    for row in content["rows"]:
        for title, cell in table[row["row"]].items():
            if not title:
                continue
            column, expected = by_title[title], row["cells"][by_title[title].name]
            if expected is None:
                assert (cell.text, cell.value) == ("–", None)
                continue
            assert cell.value == expected["mean"]
            assert cell.text.rstrip("*") == column.shown(expected["mean"])
            assert f"n {expected['n']}" in cell.small
            assert f"±{column.shown(expected['sd'])}" in cell.small
            seen += 1
    assert seen == 9 * 9  # rows that have begun, columns with numbers
    assert "theirs 61.5" in table["simclr-0.001"]["linear"].small
    assert table["vicreg-0.003"][""].small == "2 of 3 seeds finished"


def test_the_columns_of_the_table_are_told_apart_by_their_titles() -> None:
    titles = [column.title for column in (*ACCURACIES, *MAIN_TERMS)]
    assert len(set(titles)) == len(titles)


def test_a_sweeps_table_has_the_numbers_of_the_terminals() -> None:
    """Among quantities of several distances, which share their titles."""
    distances = ("pixels", "standardized_pixels", "untrained", "trained")
    values = {name: {"half": 0.1 + place / 10, "relative": 0.15 + place / 10} for place, name in enumerate(distances)}
    members = [
        member("a", distances=values, rankme=3.0, alignment=0.2),
        member("b", distances={name: {} for name in distances}),
        member("fade", distances=values, recipe=CONTROL),
    ]
    rows = rows_of(members)
    page = RecordedPage()
    print_table(page, rows)
    printed = next(block for block in page.blocks if isinstance(block, Grid))
    shown = table_of_sweep(printed, rows, None)
    assert "1−σ ↓" in [head.title for head in shown.heads]
    for before, after in zip(printed.lines, shown.lines, strict=True):
        assert [cell.text.strip() for cell in after.cells] == [cell.text.strip() for cell in before.cells]
    place = [head.title for head in shown.heads].index("1−σ ↓")
    assert shown.lines[0].cells[place].value == rows[0].mean("one_minus_sigma_pixels")


def test_heads_say_how_columns_err(sweep_page: Page) -> None:
    heads = {head.text: head for head in sweep_page.tables[0].heads}
    assert heads["linear"].small == "unbiased"
    assert heads["R_ε ↓"].small == "low"
    assert ERRS["low"] in heads["R_ε ↓"].title
    assert heads["1−σ ↓"].small == "both"  # as in the report of a run: it is one end of a band


def test_the_best_of_all_epochs_is_no_unbiased_accuracy() -> None:
    head = _head(Head(BEST_KNN.title), BEST_KNN)
    assert head.detail == "high"
    assert "chosen on the test images" in head.about


def test_a_section_with_nothing_to_draw_is_left_out() -> None:
    sections = [Section("Figures", [Figure("x", lambda: None)]), Section("Rest", [Paragraph("said")])]
    page = Page(render(Document("a sweep", "", sections)))
    assert "Figures" not in page.text
    assert page.text.count("Rest") == 2  # in the list of contents, and above it
    assert "part-1" in page.ids()


def test_every_number_of_a_runs_table_is_that_of_json(run_page: Page, hostile_run: RunFiles) -> None:
    analysis, probe = hostile_run.analysis, hostile_run.probe
    assert analysis is not None
    assert probe is not None
    table = run_page.tables[0].by_name()
    columns = {"trained": "encoder", "projector": "projector", "untrained": "untrained"}
    seen = 0
    for shown in in_summary():
        rows = [cells for label, cells in table.items() if label.startswith(shown.called)]
        for encoder, column in columns.items() if shown.term.of != "distance" else ():
            found = quoted(quantities_of(analysis, shown._replace(where=encoder)), shown.declared, analysis["settings"])
            if found is None or shown.declared.complement:
                continue
            assert found[0] in [cells[column].value for cells in rows]
            seen += 1
    assert seen > 20
    for name, classifier in CLASSIFIERS.items():
        cells = table[f"{classifier.called}, %"]
        for encoder in ("trained", "untrained"):
            score = probe[encoder][name]
            assert cells[columns[encoder]].value == score["accuracy"]
            assert cells[columns[encoder]].small == "[{:.1f}, {:.1f}]".format(*(100 * x for x in score["interval"]))
        assert cells["images"].text == str(score["num_images"])
        assert cells["errs"].text == "unbiased"


def test_names_are_text(run_page: Page, hostile_run: RunFiles) -> None:
    assert hostile_run.analysis is not None
    classes = [escaped(name) for name in hostile_run.analysis["class_names"]]
    of_classes = [{row[0].text for row in table.rows} for table in run_page.tables]
    assert sum(set(classes) <= names for names in of_classes) >= 2  # of accuracies, and of terms
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", run_page.text)


@pytest.mark.parametrize("of", ["run_page", "sweep_page"])
def test_nothing_acts_and_nothing_is_asked_for(of: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(of)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "action", "srcset")]
        assert tag != "a" or attributes["href"].startswith("#")
        assert "url(" not in attributes.get("style", "").replace("url(#", "")
    policies = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert len(page.ids()) == len(set(page.ids()))
    linked = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert linked <= set(page.ids())


def test_a_run_says_how_it_was_made_and_what_is_missing(run_page: Page, hostile_run: RunFiles) -> None:
    recipe = hostile_run.recipe
    assert recipe is not None
    for said in (recipe.fingerprint, recipe.to_yaml().strip(), "cssl pretrain", "cssl probe", "cssl analyze", "torch"):
        assert said in run_page.text
    assert "--controls" in run_page.text
    assert "epochs=" not in run_page.text


def test_a_sweep_shows_where_its_recipes_differ(sweep_page: Page) -> None:
    (differences,) = [table for table in sweep_page.tables if "optim.lr" in [head.text for head in table.heads]]
    rows = differences.by_name()
    assert rows["simclr-0.002"]["optim.lr"].text == "0.002"
    assert rows["vicreg-0.002"]["method.name"].text == "vicreg"
    heads = {head.text for head in differences.heads}
    assert not heads & {"seed", "name", "train.epochs", "encoder.width"}
    assert "epochs:" in sweep_page.text


def test_a_sweep_lists_its_members_claims_and_published_values(sweep_page: Page) -> None:
    (members,) = [table for table in sweep_page.tables if "seed" in [head.text for head in table.heads]]
    assert len(members.rows) == 30
    assert "<b>it broke</b>" in [row[-1].text for row in members.rows]
    for said in ("<script>alert(1)</script> is best", "Table 1 of <i>a paper</i> & [red]", "4 members without results"):
        assert said in sweep_page.text


def test_what_the_terminal_prints_is_on_the_page(
    run_page: Page, analyzed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the run as it is called; the widest tables, so that no cell is left out."""
    from cssl_cli.report.analysis import SECTIONS, print_analysis
    from cssl_cli.report.document.of_run import read_run

    files = read_run(analyzed)
    page = Page(render(without_figures(document_of_run(files))))
    monkeypatch.setenv("COLUMNS", "400")
    assert files.analysis is not None
    print_analysis(analyzed, files.analysis, files.probe, SECTIONS)
    numbers = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", capfd.readouterr().out))
    assert len(numbers) > 300
    assert not numbers - set(re.findall(r"\d+\.\d+", page.text))


def test_what_is_folded(run_page: Page) -> None:
    opened = [attributes for tag, attributes in run_page.tags if tag == "details" and "open" in attributes]
    assert len(opened) == 1
    assert sum(tag == "details" for tag, _ in run_page.tags) >= 9


def test_long_tables_are_folded() -> None:
    lines = tuple(Line((Cell(str(number)),)) for number in range(200))
    (folded,) = folded_where_long([Heading("Class by class"), Grid((Head(""),), lines)])
    assert isinstance(folded, Folded)
    assert folded.title == "Class by class (200 rows)"


def test_fields_that_are_numbers_are_sorted_as_numbers() -> None:
    """As text 1.0e-05 comes after 0.1, and 10 before 9."""
    rates = {"a": 1e-05, "b": 0.1, "c": 10.0, "d": 9.0}
    recipes = {row: load_recipe("simclr-shapes", [f"optim.lr={rate}"]) for row, rate in rates.items()}
    table = next(block for block in recipes_of_rows(recipes) if isinstance(block, Grid))
    assert [head.title for head in table.heads] == ["", "optim.lr"]
    assert [line.cells[1].value for line in table.lines] == list(rates.values())
    assert [order[-1] for order in _orders(table)] == ["1", "2", "4", "3"]
