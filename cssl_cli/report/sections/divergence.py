"""Divergence: the class centres, beside the table of its quantities."""

from __future__ import annotations

from rich.console import Console

from cssl_cli.report.layout import compacted, heading, note, number, table
from cssl_cli.report.quantities import Result, quantity

MAX_CLASSES_IN_MATRIX = 12


def divergence(out: Console, result: Result) -> None:
    """Print the Gram matrix of the class centres and its closest pair."""
    heading(out, "Class centres μ_k, trained encoder: inner products, ‖μ_k‖² on the diagonal")
    names = result["class_names"]
    products = quantity(result, "trained", "class_centers", "inner_products")
    if products["value"] is None:
        return note(out, f"–: {products.get('reason')}.")
    if len(names) <= MAX_CLASSES_IN_MATRIX:
        grid = table("", *(str(position) for position in range(1, len(names) + 1)))
        for position, (name, row) in enumerate(zip(names, products["value"], strict=True), start=1):
            # Adding 0.0 turns a rounded −0.00 into 0.00.
            grid.add_row(f"{position} {name}", *("–" if x is None else f"{round(x, 2) + 0.0:.2f}" for x in row))
        out.print(compacted(out, grid))
    else:
        note(out, f"{len(names)} classes; the matrix is in analysis.json and in the figure class_centers.")
    pair = quantity(result, "trained", "class_centers", "closest_pair")
    if pair["value"] is None:
        return note(out, f"–: {pair.get('reason')}.")
    named = " and ".join(pair.get("classes", ())) or "–"
    return note(out, f"Closest pair: {named}, {number(pair['value'], pair.get('interval'))} apart.")
