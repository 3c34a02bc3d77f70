"""Every row against one of them: differences over the seeds that both have, for `--versus ROW`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from cssl_cli.errors import InputError, nearest
from cssl_cli.report.compare.catalogue import ACCURACIES, MAIN_TERMS
from cssl_cli.report.compare.correlations import p_value
from cssl_cli.report.compare.differences import as_json
from cssl_cli.report.compare.named_quantities import called, difference, is_percent, shown_difference
from cssl_cli.report.compare.paired_difference import PairedDifference
from cssl_cli.report.compare.rows import Row
from cssl_cli.report.layout import heading, note, print_widest, table

QUANTITIES = tuple(quantity.name for quantity in (*ACCURACIES, *MAIN_TERMS))
SD, INTERVAL, P, ADJUSTED, N = "± sd", "95 % interval", "p", "adj. p", "seeds"
VERSIONS: tuple[frozenset[str], ...] = (frozenset(), frozenset({P}), frozenset({P, SD}), frozenset({P, SD, INTERVAL}))


def require_row(name: str, rows: Sequence[str]) -> str:
    """The name; `InputError` with the nearest one when there is no such row."""
    known = list(dict.fromkeys(rows))
    if name not in known:
        guess = nearest(name, known)
        hint = f"Did you mean {guess!r}? " if guess else ""
        raise InputError(f"no row is called {name!r}", where="--versus", remedy=f"{hint}Rows: {', '.join(known)}.")
    return name


def compare_rows(rows: Sequence[Row], baseline: Row) -> dict[str, Any]:
    """Each other row less `baseline`, for every accuracy and main term that the baseline has.

    `comparisons` has an entry a row: `differences` by quantity, each with `p_adjusted` for all rows compared in this
    quantity (Holm), None where the two share no seed that has it. `unpaired` rows share no seed with the baseline.
    """
    from cssl_cli.report.compare.rank_correlation.correction import holm

    others = [row for row in rows if row.name != baseline.name and row.done]
    found: dict[str, dict[str, dict[str, Any] | None]] = {row.name: {} for row in others}
    for quantity in QUANTITIES:
        if baseline.cells[quantity] is None:
            continue
        differences = {row.name: difference(row, baseline, quantity) for row in others}
        tested = [name for name, one in differences.items() if one is not None and one.p is not None]
        adjusted = dict(zip(tested, holm([_p(differences[name]) for name in tested]), strict=True))
        for name, one in differences.items():
            found[name][quantity] = None if one is None else {**as_json(one), "p_adjusted": adjusted.get(name)}
    return {
        "row": baseline.name,
        "comparisons": [{"row": name, "differences": of_row} for name, of_row in found.items()],
        "unpaired": [name for name, of_row in found.items() if not any(of_row.values())],
        "unfinished": [row.name for row in (*rows, baseline) if not row.done],
    }


def _p(found: PairedDifference | None) -> float:
    assert found is not None
    assert found.p is not None
    return found.p


# ---------------------------------------------------------------------- in words
def print_comparison(out: Console, compared: dict[str, Any]) -> None:
    """A part of the table for each quantity, a line in it for each row."""
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
