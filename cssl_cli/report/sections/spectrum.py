"""The spectrum section of an analysis: eigenvalues and label energy over the number of functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from cssl_cli.report.layout import compacted, fits, heading, note, number, percent, plural, table
from cssl_cli.report.quantities import COLUMNS, Result, quantity

CURVES = {"eigenvalues": "λ", "label_energy": "energy"}


def spectrum(out: Console, result: Result) -> None:
    """Print λ of the 1st, 2nd, 4th, 8th … function of every encoder, and the label energy of so many."""
    heading(out, "Positive pairs: λ of the leading functions, and the labels' variance that they explain, %")
    functions = quantity(result, "trained", "positive_pairs", "functions")
    if functions["value"] is None:
        older = "not measured by the version that made this analysis; --again measures it"
        return note(out, f"–: {functions.get('reason', older)}.")
    measured = {
        f"{head} {name}": _by_number(result, encoder, curve)
        for curve, head in CURVES.items()
        for encoder, name in COLUMNS.items()
    }
    _print_curves(out, {head: values for head, values in measured.items() if values})
    best = quantity(result, "trained", "positive_pairs", "tau_dimension")["value"]
    said = (
        f"{plural(functions['num_images'], 'image')}, {plural(functions['num_views'], 'augmented view')}. "
        "Functions from one half of the images, measured on the other. λ: share of a function's variance common "
        "to the views of an image; the first ones are too low, the last ones too high. Energy: share of the labels' "
        "variance that so many leading functions explain; too low."
    )
    if best is not None:
        said += f" τ of the trained encoder is least for {plural(best, 'function')}."
    return note(out, said)


def _print_curves(out: Console, columns: Mapping[str, Mapping[int, float]]) -> None:
    """Print the curves in one table, or each kind in its own where that would be cut off."""
    joint = compacted(out, _grid(columns))
    if fits(out, joint):
        out.print(joint)
        return
    for place, kind in enumerate(CURVES.values()):
        if place:
            out.print()
        out.print(compacted(out, _grid({head: values for head, values in columns.items() if head.startswith(kind)})))


def _grid(columns: Mapping[str, Mapping[int, float]]) -> Table:
    """A row for each number of functions that is a power of two."""
    grid = table("functions", *columns, text_columns=0)
    for count in sorted({count for values in columns.values() for count in values if count.bit_count() == 1}):
        cells = (
            (percent if head.startswith(CURVES["label_energy"]) else number)(values[count]) if count in values else "–"
            for head, values in columns.items()
        )
        grid.add_row(str(count), *cells)
    return grid


def _by_number(result: Result, encoder: str, curve: str) -> Mapping[int, float]:
    """The curve by the number of functions; empty where it was not measured."""
    values: Any = quantity(result, encoder, "positive_pairs", curve)["value"]
    counts: Any = quantity(result, encoder, "positive_pairs", "functions")["value"]
    if values is None or counts is None:
        return {}
    return {count: value for count, value in zip(counts, values, strict=True) if isinstance(count, int)}
