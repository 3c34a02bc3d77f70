"""The order of the rows in a report: that of the sweep, or by a quantity, for `--sort`."""

from __future__ import annotations

from collections.abc import Sequence

from cssl_cli.report.compare.named_quantities import mean_of, require_quantity
from cssl_cli.report.compare.rows import Row


def require_order(text: str) -> tuple[str, bool]:
    """The quantity of `NAME` or `-NAME`, and whether the greatest comes first; `InputError` for an unknown name."""
    return require_quantity(text.removeprefix("-"), "--sort"), text.startswith("-")


def sort_rows(rows: Sequence[Row], text: str) -> list[Row]:
    """The rows sorted by their means, ascending, or descending if "-" precedes the name; rows without one last."""
    name, descending = require_order(text)
    means = {row.name: mean_of(row, name) for row in rows}
    present = [row for row in rows if means[row.name] is not None]
    absent = [row for row in rows if means[row.name] is None]
    return [*sorted(present, key=lambda row: means[row.name] or 0.0, reverse=descending), *absent]
