"""A sweep's report for machines: the content of table.json and `--json`, and table.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import escaped
from cssl_cli.recipe.schema import show
from cssl_cli.report.compare.claims import answers
from cssl_cli.report.compare.paired_difference import as_json
from cssl_cli.report.compare.prediction import how_chosen, prediction_content
from cssl_cli.report.compare.published import compare_published, published_of
from cssl_cli.report.compare.rows import Row, row_content, rows_of
from cssl_cli.sweep.run import MemberResult

if TYPE_CHECKING:
    from cssl_cli.sweep.sweep import Sweep


def as_content(sweep: Sweep, results: Sequence[MemberResult]) -> dict[str, Any]:
    """The table as JSON types: mean, sd and n of each cell, correlations, and every member with its values.

    Includes published values and the answered claims.
    """
    rows = rows_of(results)
    return content_of_rows(sweep, rows, rows)


def content_of_rows(sweep: Sweep, rows: Sequence[Row], every: Sequence[Row]) -> dict[str, Any]:
    """`as_content` for `rows`; claims are answered from `every` row of the sweep, which also says who was stopped."""
    chosen = how_chosen(every)
    return {
        "sweep": sweep.name,
        "rows": [{**row_content(row), "reference": published_of(sweep.reference, row.name)} for row in rows],
        **prediction_content(rows, chosen=chosen),
        "reference": as_json(compare_published(sweep, rows, chosen=chosen is not None)),
        "claims": as_json(answers(sweep, every)),
        "members": [
            {
                "name": result.member.name,
                "row": result.member.row,
                "seed": result.member.seed,
                "run": str(result.path),
                "error": result.error,
                "damage": list(result.damage),
                "stopped": None if result.stopped is None else dict(result.stopped),
                "values": values,
                "fooled": fooled,
            }
            for row in rows
            for result, values, fooled in zip(row.members, row.values, row.fooled, strict=True)
        ],
    }


def as_csv(content: dict[str, Any]) -> str:
    """One line per row: axes, drawn values, negative control or not; mean, sd and n of each quantity (as shares)."""
    rows = content["rows"]
    axes = list(rows[0]["axes"]) if rows else []
    sampled = list(rows[0]["sampled"]) if rows else []
    names = list(rows[0]["cells"]) if rows else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    parts = [f"{name}_{part}" for name in names for part in ("mean", "sd", "n")]
    writer.writerow(map(csv_cell, ["row", *axes, *sampled, "negative_control", *parts] if rows else ["row"]))
    for row in rows:
        cells = [row["cells"][name] or {"mean": "", "sd": "", "n": 0} for name in names]
        values = ["" if cell[part] is None else cell[part] for cell in cells for part in ("mean", "sd", "n")]
        labels = [row["row"], *(row["axes"][axis] for axis in axes)]
        labels += [_drawn(row["sampled"][key]) for key in sampled]
        writer.writerow([*map(csv_cell, labels), int(row["control"]), *values])
    return buffer.getvalue()


def _drawn(value: Any) -> Any:
    """A drawn value as it is, or as text if it is no scalar."""
    return show(value, limit=1000) if isinstance(value, list | dict) else value


def csv_cell(value: Any) -> Any:
    """A name that is safe in a spreadsheet, which would otherwise evaluate one that begins like a formula."""
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        return escaped(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)
    return value
