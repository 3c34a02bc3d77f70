"""The main table as Markdown, CSV and LaTeX: all of its numbers, and names that none of them acts upon."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import escaped
from cssl_cli.report.document.blocks import Cell, Document, Grid, Head, Line
from cssl_cli.report.document.formats import as_csv, as_latex, as_markdown
from cssl_cli.report.document.of_run import RunFiles, document_of_run
from cssl_cli.report.document.of_sweep import document_of_sweep
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Sweep
from tests.report.document.conftest import HOSTILE


@pytest.fixture
def named() -> Document:
    """A table whose rows have all the names that nobody should choose."""
    lines = tuple(Line((Cell(escaped(name)), Cell("81.2*", 0.812, (0.79, 0.83), "±0.4", "n 3"))) for name in HOSTILE)
    return Document("", "", table=Grid((Head("", numeric=False), Head("linear, %")), lines))


@pytest.fixture
def of_sweep(sweep: Sweep, results: list[MemberResult], content: dict[str, Any], tmp_path: Path) -> Document:
    return document_of_sweep(sweep, results, content, tmp_path / "runs")


def test_latex_has_mean_and_deviation_between_the_rules_of_booktabs(of_sweep: Document) -> None:
    lines = as_latex(of_sweep).splitlines()
    assert lines[1:3] == [r"\begin{tabular}{lrrrrrrrrr}", r"\toprule"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    (row,) = [line for line in lines if line.startswith("simclr-0.002 &")]
    assert re.fullmatch(r"simclr-0.002( & [\d.-]+\*? \$\\pm\$[\d.]+){9} \\\\", row)


def test_markdown_has_as_many_cells_in_each_row(of_sweep: Document) -> None:
    head, rule, *rows = as_markdown(of_sweep).splitlines()
    assert head.startswith("|  | linear | k-NN |")
    assert rule.startswith("|:---|---:|")
    assert {line.count("|") for line in (head, rule, *rows)} == {11}
    assert any(row.startswith("| simclr-0.002 | ") and "±" in row for row in rows)


def test_csv_of_a_sweep_is_its_table_csv(of_sweep: Document, content: dict[str, Any]) -> None:
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(as_csv(of_sweep)))}
    for row in content["rows"]:
        cell = row["cells"]["linear"] or {"mean": ""}
        assert rows[row["row"]]["linear_mean"] == str(cell["mean"])


def test_csv_of_a_run_has_every_digit_and_shares_as_shares(hostile_run: RunFiles) -> None:
    document = document_of_run(hostile_run)
    rows = {row[""]: row for row in csv.DictReader(io.StringIO(as_csv(document)))}
    assert hostile_run.probe is not None
    score = hostile_run.probe["trained"]["linear"]
    of_linear = rows["linear"]
    assert [float(of_linear[name]) for name in ("encoder", "encoder low", "encoder high")] == [
        score["accuracy"],
        *score["interval"],
    ]
    assert rows["alignment"]["errs"] == "unbiased"
    assert rows["linear"]["projector"] == ""


def test_names_in_latex_are_letters_only(named: Document) -> None:
    body = as_latex(named).split(r"\midrule")[1].split(r"\bottomrule")[0].strip()
    rows = body.splitlines()
    assert len(rows) == len(HOSTILE)
    assert r"\textbackslash{}input\{x\} 50\% \$x\_1\$ \& \#\textasciitilde{}\textasciicircum{}" in body
    assert not re.search(r"\\input|(?<!\\)[%#]", body)
    assert rows[2].startswith("{}[red]")
    assert r"\textless{}script\textgreater{}" in rows[0]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)


def test_symbols_of_several_letters_are_formulas_in_latex() -> None:
    heads = tuple(Head(title) for title in ("R_ε ↓", "μk·μl ↓", "d_A pixels", "cold_A1"))
    line = as_latex(Document("", "", table=Grid(heads, ()))).splitlines()[3]
    written = (r"$R_\varepsilon$ $\downarrow$", r"$\mu_k\cdot\mu_l$ $\downarrow$", "$d_A$ pixels", r"cold\_A1")
    assert line == " & ".join(written) + r" \\"


def test_quotes_in_latex_take_no_other_font_encoding() -> None:
    table = Grid((Head("", numeric=False),), (Line((Cell('a "b"'),)),))
    assert r"a {\char34}b{\char34} \\" in as_latex(Document("", "", table=table))


def test_names_in_markdown_are_letters_only(named: Document) -> None:
    rows = as_markdown(named).splitlines()[2:]
    assert len(rows) == len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    for row in rows:
        assert not re.search(r"(?<!\\)[<>\[\]`*_$]", row)
    back = [re.sub(r"\\([^\w\s])", r"\1", row[2:].split(" | ")[0]) for row in rows]
    assert [name for name in back if "\\" not in name] == [
        escaped(name) for name in HOSTILE if "\\" not in escaped(name)
    ]


def test_names_in_csv_are_no_formulas(named: Document) -> None:
    rows = list(csv.reader(io.StringIO(as_csv(named))))[1:]
    assert rows[1][0] == "'=cmd('/c calc')"
    assert rows[0] == ["<script>alert(1)</script>", "0.812", "0.79", "0.83"]
    assert "\x1b" not in as_csv(named)


def test_nothing_measured_gives_an_empty_table() -> None:
    empty = Document("", "")
    assert [len(write(empty).splitlines()) for write in (as_markdown, as_csv, as_latex)] == [2, 1, 7]
