"""Quantities of an analysis as tables: one row per quantity, one column per encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.report.layout import heading, note, number, print_widest, table, without_interval
from cssl_cli.theory.shown import rows_of
from cssl_cli.theory.term import Declared, Term

Result = Mapping[str, Any]
Line = tuple[str, str, Sequence[str]]  # label, direction of error, cells

COLUMNS = {"trained": "encoder", "projector": "projector", "untrained": "untrained"}


def columns_of(result: Result) -> dict[str, str]:
    """The columns of an analysis: without those of features that it says it had not."""
    return {name: title for name, title in COLUMNS.items() if "reason" not in result.get(name, {})}


def quantity(result: Result, encoder: str, term: str, name: str) -> Mapping[str, Any]:
    """A quantity of an analysis; an entry without a value if the analysis lacks it."""
    found: Mapping[str, Any] = result.get(encoder, {}).get(term, {}).get(name, {"value": None})
    return found


def interval_of(entry: Mapping[str, Any]) -> Any:
    """The interval of a quantity; None for a one-sided bound, whose interval ends in the value itself."""
    interval = entry.get("interval")
    return None if interval and "vacuous" in entry and entry["value"] in interval else interval


def warnings(out: Console, result: Result, quantities: Sequence[tuple[str, str]]) -> None:
    """Print the warnings of the quantities, each once with the encoders it applies to."""
    said: dict[str, list[str]] = {}
    for encoder, title in COLUMNS.items():
        found = (quantity(result, encoder, term, name).get("warning") for term, name in quantities)
        for warning in dict.fromkeys(warning for warning in found if warning):
            said.setdefault(warning, []).append(title)
    for warning, encoders in said.items():
        out.print(Text(f"Warning ({', '.join(encoders)}): {warning}.", style="yellow"))


def reasons(out: Console, result: Result, quantities: Sequence[tuple[str, str]]) -> None:
    """Print why quantities of the trained encoder are absent, each reason once."""
    found = [quantity(result, "trained", term, name).get("reason") for term, name in quantities]
    for reason in dict.fromkeys(reason for reason in found if reason):
        note(out, f"–: {reason}.")


def short_direction(errs: str) -> str:
    """A direction of error in the tables' short form."""
    return {"exact for the table": "exact*", "consistent": "consist."}.get(errs, errs)


def by_encoder(columns: Mapping[str, str], *parts: Sequence[Line], intervals: int) -> Table:
    """Lines (label, direction of error, a cell for each of `COLUMNS`), with intervals for the first `intervals`.

    Only the `columns` are shown.
    """
    grid = table("", "errs", *columns.values(), text_columns=2)
    for part in parts:
        for label, errs, every in part:
            cells = [cell for name, cell in zip(COLUMNS, every, strict=True) if name in columns]
            shown = (cell if place < intervals else without_interval(cell) for place, cell in enumerate(cells))
            grid.add_row(label, errs, *shown)
        if part:
            grid.add_section()
    grid.columns[0].no_wrap = True
    return grid


def quantities_table(out: Console, result: Result, title: str, *tables: str, warn: bool = True) -> None:
    """Print the rows of the terms in `tables`, one column per encoder; then warnings (`warn`), and why some are absent.

    Quantities unknown to an older version's analysis get no row, nor do those declared `after` them; without any rows
    nothing is printed.
    """
    rows = _known(result, rows_of(*tables))
    if not rows:
        return
    heading(out, title)
    shown = []
    for term, row in rows:
        entries = [quantity(result, encoder, term.group, row.name) for encoder in COLUMNS]
        errs = next((entry["errs"] for entry in entries if entry["value"] is not None), "")
        cells = [
            number(entry["value"], interval_of(entry), rounded=row.rounding)
            + (" v" if entry.get("vacuous") and not row.condition else "")
            for entry in entries
        ]
        shown.append((row.label, short_direction(errs), cells))
    print_widest(out, [by_encoder(columns_of(result), shown, intervals=count) for count in (3, 1, 0)])
    if any(cell.endswith(" v") for _, _, cells in shown for cell in cells):
        note(out, "v: vacuous, no better than what is known without the bound.")
    named = [(term.group, row.name) for term, row in rows]
    if warn:
        warnings(out, result, named)
    reasons(out, result, named)


def _known(result: Result, rows: Sequence[tuple[Term, Declared]]) -> list[tuple[Term, Declared]]:
    """The rows for which the analysis has a value of the trained encoder."""
    unknown, known = set(), []
    for term, row in rows:
        if row.name in result.get("trained", {}).get(term.group, {}) and row.after not in unknown:
            known.append((term, row))
        else:
            unknown.add(f"{term.name}.{row.name}")
    return known
