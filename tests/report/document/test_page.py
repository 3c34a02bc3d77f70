"""What a report prints, recorded as blocks."""

from __future__ import annotations

import pytest
from rich.padding import Padding
from rich.text import Text

from cssl_cli.report.document.blocks import Cell, Grid, Heading, Paragraph
from cssl_cli.report.document.page import Page
from cssl_cli.report.layout import heading, note, print_widest, table


def test_headings_notes_and_colours() -> None:
    page = Page()
    heading(page, "A title")
    note(page, "\nsmall print")
    page.print("[red]plain[/red]")
    page.print(Text("bad news", style="red"))
    page.print(Padding(Text("beneath"), (0, 0, 0, 4)))
    verdict = Text("it holds: ")
    verdict.append("yes", style="green")
    page.print(verdict)
    page.print()
    assert page.blocks == [
        Heading("A title"),
        Paragraph("small print", "note"),
        Paragraph("[red]plain[/red]"),
        Paragraph("bad news", "bad"),
        Paragraph("beneath", depth=2),
        Paragraph("it holds: yes", "good"),
    ]


def test_the_widest_table_is_taken_cell_by_cell() -> None:
    page = Page()
    wide, narrow = table("class", "error, %", "n"), table("class", "error, %")
    for grid in (wide, narrow):
        for name in ("a", "b\x1b[2J", "c", "d"):
            grid.add_row(name, Text("12.5*", style="bold"), *(["1,000"] if grid is wide else []))
    print_widest(page, [wide, narrow])
    (grid,) = page.blocks
    assert isinstance(grid, Grid)
    assert [(head.title, head.numeric) for head in grid.heads] == [("class", False), ("error, %", True), ("n", True)]
    assert grid.lines[1].cells == (Cell(r"b\x1b[2J"), Cell("12.5*", 12.5, strong=True), Cell("1,000", 1000.0))
    assert grid.sortable


@pytest.mark.parametrize("grouped", ["  indented", "section"])
def test_rows_that_belong_to_others_are_not_sorted(grouped: str) -> None:
    page = Page()
    grid = table("", "x")
    for number in range(5):
        grid.add_row(grouped if number == 2 else "a", str(number), end_section=grouped == "section" and number == 2)
    page.print(grid)
    (recorded,) = page.blocks
    assert isinstance(recorded, Grid)
    assert not recorded.sortable
