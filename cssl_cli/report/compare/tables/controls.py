"""A negative control in sentences: how it compares, which terms it fools, and what that shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from cssl_cli.report.compare.catalogue import BY_NAME, SHARED_VIEWS, Column
from cssl_cli.report.compare.controls import BY_BEST, BY_MEDIAN, NO_VALUE, NOT
from cssl_cli.report.compare.paired_difference import exceeds
from cssl_cli.report.layout import heading, note

Entry = Mapping[str, Any]


def print_control(out: Console, name: str, compared: Entry, accuracy: Column) -> None:
    """Print how the control compares, then the terms it fools and those it does not, each with value and place."""
    found = compared["accuracies"][accuracy.name]
    heading(out, f"Negative control {name}")
    if found["value"] is None:
        return note(out, f"It has no {accuracy.label}.")
    if found["best_row"] is None:
        return note(out, f"There is no other row with a {accuracy.label} to compare it with.")
    of_group = f" of {compared['group']}" if compared["group"] else ""
    out.print(
        Text(
            f"{accuracy.label} {accuracy.shown(found['value'])} %, place {found['place']} of {found['num_rows']} rows"
            f"{of_group}; best is {found['best_row']}, {accuracy.shown(found['best_row_value'])} %."
        )
    )
    if not exceeds(found["best_row_value"], found["value"]):
        return note(out, "Its accuracy is not below the best: it controls nothing here.")
    for fooled, says in (
        (BY_BEST, "Fooled, like it better than the best row: "),
        (BY_MEDIAN, "Half fooled, like it better than the median row: "),
        (NOT, "Not fooled: "),
        (NO_VALUE, "Without a value of the control: "),
    ):
        terms = [_said(entry) for entry in found["terms"] if entry["fooled"] == fooled]
        if terms:
            out.print(Text.assemble((says, "bold" if fooled in (BY_BEST, BY_MEDIAN) else ""), "; ".join(terms) + "."))
    note(out, "In brackets: the control's value → the best row's, and the control's place by the term.")
    return _refuted(out, compared["shared_views"])


def _refuted(out: Console, shared: float | None) -> None:
    """Print what the control shows if views of its classes coincide."""
    if not shared:
        return
    out.print(
        Text(
            f"For {SHARED_VIEWS.shown(shared)} % of its images a view coincides, pixel for pixel, with one of another "
            "class, which the paper assumes never happens: the control refutes 1 − σ as a predictor, not the theory."
        )
    )


def _said(entry: Entry) -> str:
    term = BY_NAME[entry["term"]]
    if entry["value"] is None:
        return term.label
    values = f"{term.shown(entry['value'])} → {term.shown(entry['best_row_value'])}"
    return f"{term.label} ({values}, {entry['place']} of {entry['num_rows']})"
