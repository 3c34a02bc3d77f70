"""Which terms predict the accuracy: what can be told from chance at once, all the rest behind a line to click on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cssl_cli.report.compare.catalogue import LABELS, Column
from cssl_cli.report.compare.rows import Row
from cssl_cli.report.compare.tables.correlations import p_value, signed
from cssl_cli.report.compare.tables.prediction import print_prediction
from cssl_cli.report.document.blocks import Block, Cell, Folded, Grid, Head, Line, Paragraph
from cssl_cli.report.document.page import Page
from cssl_cli.report.layout import plural

LEVEL = 0.05  # of adjusted p


def prediction_blocks(rows: Sequence[Row], predicted: Mapping[str, Any], accuracy: Column) -> list[Block]:
    """The terms whose rank correlation is told from chance, then everything that the terminal prints."""
    found = predicted["correlations"].get(accuracy.name, {"terms": [], "n": 0})
    page = Page()
    if accuracy.name in predicted["correlations"]:
        print_prediction(page, rows, predicted, accuracy)
    if not found["terms"]:
        return page.blocks
    told = [entry for entry in found["terms"] if _is_told(entry)]
    everything = Folded("All terms, along each axis, and the negative controls", page.blocks)
    over = f"over {plural(found['n'], 'row')}, for {plural(len(found['terms']), 'term')} together"
    if not told:
        return [
            Paragraph(f"No term's order of the rows can be told from chance (adjusted p ≤ {LEVEL}) {over}."),
            everything,
        ]
    said = f"Kendall's τ_b with the {accuracy.label} where it can be told from chance (adjusted p ≤ {LEVEL}) {over}."
    return [_grid(told), Paragraph(said, "note"), everything]


def _is_told(entry: Mapping[str, Any]) -> bool:
    p = entry["pooled"].get("tau", {}).get("p_adjusted")
    return p is not None and p <= LEVEL


def _grid(entries: Sequence[Mapping[str, Any]]) -> Grid:
    lines = []
    for entry in entries:
        pooled = entry["pooled"]
        tau = pooled["tau"]
        interval = "" if tau["interval"] is None else "[{}, {}]".format(*map(signed, tau["interval"]))
        expected = {True: "yes", False: "no", None: "–"}[pooled.get("as_predicted")]
        cells = (
            Cell(LABELS.get(entry["term"], entry["term"])),
            Cell(signed(tau["value"]), tau["value"], None, interval, f"n {pooled['n']}"),
            Cell(p_value(tau["p_adjusted"]), tau["p_adjusted"]),
            Cell(expected),
        )
        lines.append(Line(cells))
    heads = (Head("", numeric=False), Head("τ"), Head("adj. p"), Head("as predicted", numeric=False))
    return Grid(heads, tuple(lines), sortable=len(lines) > 1)
