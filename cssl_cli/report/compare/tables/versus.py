"""Every row compared with one of them, as a table: a part per quantity, with a line for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.report.compare.named_quantities import called, is_percent, shown_difference
from cssl_cli.report.compare.tables.correlations import p_value
from cssl_cli.report.compare.versus import QUANTITIES
from cssl_cli.report.layout import heading, note, print_widest, table

SD, INTERVAL, P, ADJUSTED, N = "± sd", "95 % interval", "p", "adj. p", "seeds"
VERSIONS: tuple[frozenset[str], ...] = (frozenset(), frozenset({P}), frozenset({P, SD}), frozenset({P, SD, INTERVAL}))


def print_comparison(out: Console, compared: dict[str, Any]) -> None:
    """Print a part of the table for each quantity, with a line for each row."""
    heading(out, f"Difference from {compared['row']}, over the seeds that both have")
    shown = [entry for entry in compared["comparisons"] if any(entry["differences"].values())]
    quantities = [name for name in QUANTITIES if any(entry["differences"].get(name) for entry in shown)]
    if quantities:
        print_widest(out, [_grid(shown, quantities, left_out) for left_out in VERSIONS])
    for name in compared["unpaired"]:
        note(out, f"{name} has no seed in common with {compared['row']}.")
    if compared["unfinished"]:
        note(out, f"Nothing has finished of {', '.join(dict.fromkeys(compared['unfinished']))}.")
    if quantities:
        note(out, _caption(shown))
        if compared["chosen"]:
            out.print(Text(compared["chosen"], style="yellow"))


def _grid(entries: Sequence[dict[str, Any]], quantities: Sequence[str], left_out: frozenset[str]) -> Table:
    columns = [SD, INTERVAL, P, ADJUSTED, N]
    grid = table("", "difference", *(name for name in columns if name not in left_out))
    for quantity in quantities:
        grid.add_row(called(quantity) + (", points" if is_percent(quantity) else ""), style="bold")
        for entry in entries:
            cells = _cells(quantity, entry["differences"].get(quantity))
            kept = [cell for name, cell in zip(columns, cells[1:], strict=True) if name not in left_out]
            grid.add_row(f"  {entry['row']}", cells[0], *kept)
    return grid


def _cells(quantity: str, found: dict[str, Any] | None) -> list[str]:
    """Mean, deviation, interval, p, adjusted p, seeds."""
    if found is None:
        return ["–"] * 6
    mean = shown_difference(quantity, found["mean"])
    sd = "–" if found["sd"] is None else f"±{shown_difference(quantity, found['sd'])}"
    interval = "–"
    if found["interval"] is not None:
        interval = "[{}, {}]".format(*(shown_difference(quantity, end) for end in found["interval"]))
    tests = ["–" if p is None else p_value(p) for p in (found["p"], found["p_adjusted"])]
    return [f"+{mean}" if found["mean"] > 0 else mean, sd, interval, *tests, str(found["n"])]


def _caption(entries: Sequence[dict[str, Any]]) -> str:
    counts = {found["n"] for entry in entries for found in entry["differences"].values() if found}
    one = " A single seed in common has neither deviation, interval nor p." if 1 in counts else ""
    return (
        "Each row less the one named, seed by seed: mean ± sample standard deviation, 95 % t interval, p of the "
        f"two-sided t test. Adj. p: for all rows compared in a quantity (Holm). Quantities are not corrected for one "
        f"another.{one}"
    )
