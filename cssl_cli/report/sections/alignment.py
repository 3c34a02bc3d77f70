"""The alignment section of an analysis: R_ε over ε, its bounds from alignment, and its growth with the views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from cssl_cli.report.layout import compacted, heading, note, number, plural, print_widest, table, without_interval
from cssl_cli.report.quantities import Result, columns_of, quantity, reasons
from cssl_cli.theory.shown import declared
from cssl_cli.theory.term import Rounding

MOST_EPSILONS = 5  # of the grid, in the table by number of views
BOUNDS = ("stored_views", "iid_views", "converse", "theorem_2", "theorem_2_sharp")


def r_epsilon(out: Console, result: Result) -> None:
    """Print R_ε of every encoder over ε; the bounds for the trained one; its growth with the views."""
    heading(out, "R_ε: share of images with two views more than ε apart")
    curve = quantity(result, "trained", "R_epsilon", "curve")
    if curve["value"] is None:
        return note(out, f"–: {curve.get('reason', 'not measured')}.")
    curves = {name: quantity(result, encoder, "R_epsilon", "curve") for encoder, name in columns_of(result).items()}
    print_widest(out, [_measured(result, curves, intervals=count) for count in (3, 1, 0)])
    note(
        out,
        f"{plural(curve['num_images'], 'image')}, {plural(curve['num_views'], 'view')}. Too low for the full "
        "augmentation, since a supremum over finitely many views is too small; 95 % Clopper–Pearson intervals for this "
        "number of views.",
    )
    _bounds(out, result)
    return _by_views(out, result)


def _measured(result: Result, curves: Mapping[str, Mapping[str, Any]], *, intervals: int) -> Table:
    grid = table("ε", *curves, text_columns=0)
    for position, epsilon in enumerate(result["settings"]["epsilons"]):
        cells = [_entry(entry, position) for entry in curves.values()]
        shown = (cell if place < intervals else without_interval(cell) for place, cell in enumerate(cells))
        grid.add_row(f"{epsilon:g}", *shown)
    return grid


def _entry(entry: Mapping[str, Any], position: int) -> str:
    interval = entry.get("interval")
    return "–" if entry["value"] is None else number(entry["value"][position], interval and interval[position])


def _bounds(out: Console, result: Result) -> None:
    """Print what alignment implies for R_ε, for the trained encoder."""
    heading(out, "Bounds on R_ε from alignment, trained encoder")
    bounds = {name: quantity(result, "trained", "R_epsilon_bounds", name)["value"] for name in BOUNDS}
    rows = {name: declared("R_epsilon_bounds", name) for name, values in bounds.items() if values is not None}
    columns = {row.called: bounds[name] for name, row in rows.items()}
    ways = [row.declared.rounding for row in rows.values()]
    if columns:
        constants = quantity(result, "trained", "R_epsilon_bounds", "theorem_2_constants")["value"]
        grid = table("ε", *columns, text_columns=0)
        for position, epsilon in enumerate(result["settings"]["epsilons"]):
            pairs = zip(columns.values(), ways, strict=True)
            grid.add_row(f"{epsilon:g}", *(_bound(values[position], way) for values, way in pairs))
        out.print(compacted(out, grid))
        note(
            out,
            "v: vacuous. Views: from the alignment of the stored views. Iid: for as many independent augmented views, "
            "from the unbiased alignment. Converse: of the augmented views, hence of more. Thm 2, sharper: the paper's "
            "Theorem 2 and a sharper form, with the least Lipschitz constant that the views allow, hence themselves "
            f"too low{_constants(constants)}.",
        )
    reasons(out, result, [("R_epsilon_bounds", name) for name in BOUNDS])


def _constants(constants: Mapping[str, float] | None) -> str:
    if constants is None:
        return ""
    return (
        f"; n = {constants['n']} continuous parameters, m = {constants['m']} discrete transformations, LM ≥ "
        f"{number(constants['LM'], rounded='down')}"
    )


def _bound(value: float | None, rounded: Rounding = "up") -> str:
    """A bound, not shown as tighter than it is: an upper one, vacuous from 1 on, or a lower one, vacuous at 0."""
    if value is None:
        return "–"
    if value < 1 or rounded == "down":
        return number(value, rounded=rounded) + (" v" if value <= 0 and rounded == "down" else "")
    return f"{value:.1e} v" if value >= 1000 else f"{value:.1f} v"


def _by_views(out: Console, result: Result) -> None:
    by_views = quantity(result, "trained", "R_epsilon", "curve_by_views")["value"]
    if by_views is None:
        return
    heading(out, "R_ε of the trained encoder by the number of views, the clean one included")
    diameters = quantity(result, "trained", "R_epsilon", "mean_diameter_by_views")["value"] or [None] * len(by_views)
    epsilons = result["settings"]["epsilons"]
    shown = range(0, len(epsilons), -(-len(epsilons) // MOST_EPSILONS))
    grid = table("views", *(f"ε = {epsilons[at]:g}" for at in shown), "mean diameter", text_columns=0)
    for position, (values, diameter) in enumerate(zip(by_views, diameters, strict=True)):
        grid.add_row(str(2 + position), *(number(values[at]) for at in shown), number(diameter))
    more = quantity(result, "trained", "R_epsilon_bounds", "more_views")
    grid.add_section()
    for count, ends in (more.get("interval") or {}).items():
        grid.add_row(f"{count} ≤", *(_bound(ends[at] and ends[at][1]) for at in shown), "–")
    out.print(compacted(out, grid))
    said = "Where the numbers still rise with the views, more views would raise them further."
    if more["value"] is not None:
        said += (
            f" ≤: bounds for this many independent views, extrapolated from R_ε over the {more['num_views']} augmented "
            "ones stored; upper ends of 95 % intervals; v: vacuous."
        )
    note(out, said)
    reasons(out, result, [("R_epsilon_bounds", "more_views")])
